"""A rejected payload is kept whole, can be corrected, and comes back exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.ingest import dead_letters, land
from meter_pipeline.ingest.dead_letters import DeadLetterError
from meter_pipeline.ingest.tables import dead_letters as store
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import (
    CALENDAR,
    CLOCK,
    DAY,
    METERS,
    NORTH,
    Read,
    enrol,
    load_day,
    places,
    write_file,
)

pytestmark = pytest.mark.usefixtures("toy_feed")


def replay(database: Database, folder: Path, key: bytes) -> Any:
    return dead_letters.replay(database, CALENDAR, places(folder), {"NORTH": NORTH}, key.hex(), by="clerk", clock=CLOCK)


def letters(database: Database, *status: str) -> list[store.DeadLetter]:
    with database.connect() as connection:
        return store.find(connection, status=status)


def intervals(database: Database) -> int:
    return int(database.read("SELECT count(*) AS n FROM raw.interval").item())


def test_a_line_is_corrected_and_replayed_once(database: Database, tmp_path: Path) -> None:
    enrol(database)
    path = write_file(tmp_path, "a", [Read("M-0", slot, 1000) for slot in range(4)], ['["M-1", 5, 2000, oops'])
    land(database, CALENDAR, path, NORTH, places(tmp_path), clock=CLOCK)
    [letter] = letters(database, "open")
    assert (letter.line, letter.raw, letter.reasons[0][0], letter.reads) == (5, b'["M-1", 5, 2000, oops', "bad_json", 1)
    assert path.read_bytes()[letter.byte_offset :].startswith(letter.raw)
    still = replay(database, tmp_path, letter.key)
    assert [code for code, _ in still.rejected] == ["bad_json"], "as it came it is still at fault, and stays open"
    dead_letters.correct(
        database,
        letter.key.hex()[:8],
        Read("M-1", 5, 2000).line().encode(),
        by="clerk",
        reason="line cut short",
        clock=CLOCK,
    )
    assert replay(database, tmp_path, letter.key).days == [DAY]
    assert replay(database, tmp_path, letter.key).already
    for _ in range(2):
        load_day(database, tmp_path)
    assert intervals(database) == 5
    assert letters(database)[0].status == "replayed"
    kinds = database.read("SELECT kind FROM ledger.entry WHERE kind IN ('corrected', 'replayed')")["kind"].to_list()
    assert sorted(kinds) == ["corrected", "replayed"]


def test_unknown_meters_come_back_after_enrolment(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:1])
    reads = [Read(m, slot, 1500 + slot, sequence=3 * slot) for m in METERS[:3] for slot in range(6)] + [
        Read("M-2", 3, 9_000_000, register=True)
    ]
    landed = land(database, CALENDAR, write_file(tmp_path, "a", reads), NORTH, places(tmp_path), clock=CLOCK)
    assert (landed.received, landed.rejected, landed.dead_letters) == (19, 13, 3)
    assert {r[0] for x in letters(database, "open") for r in x.reasons} == {"unknown_meter"}
    enrol(database, METERS[1:3])
    for letter in letters(database, "open"):
        assert not replay(database, tmp_path, letter.key).rejected
    outcome = load_day(database, tmp_path)
    assert outcome.balanced
    assert intervals(database) == 18
    rows = database.read(
        "SELECT DISTINCT meter_id, value::text AS v, sequence FROM raw.interval WHERE slot = 6 ORDER BY 1"
    ).rows()
    assert [(m, s) for m, _, s in rows] == [("M-0", 15), ("M-1", 15), ("M-2", 15)]
    assert database.read("SELECT value::text AS v FROM raw.register")["v"].to_list() == ["9.000000"]


def test_dismissed_is_final_and_needs_a_reason(database: Database, tmp_path: Path) -> None:
    enrol(database)
    land(database, CALENDAR, write_file(tmp_path, "a", [], ["junk"]), NORTH, places(tmp_path), clock=CLOCK)
    [letter] = letters(database)
    with pytest.raises(DeadLetterError, match="why"):
        dead_letters.dismiss(database, letter.key.hex(), by="clerk", reason=" ", clock=CLOCK)
    dead_letters.dismiss(database, letter.key.hex(), by="clerk", reason="noise", clock=CLOCK)
    with pytest.raises(DeadLetterError, match="dismissed by clerk"):
        replay(database, tmp_path, letter.key)


def test_a_payload_the_database_refuses_costs_only_itself(database: Database, tmp_path: Path) -> None:
    enrol(database)
    with database.connect() as connection:
        connection.execute("ALTER TABLE raw.interval_day ADD CHECK (meter_id <> 'M-3')")
    path = write_file(tmp_path, "a", [Read(m, slot, 1000) for m in METERS for slot in range(4)])
    land(database, CALENDAR, path, NORTH, places(tmp_path), clock=CLOCK)
    outcome = load_day(database, tmp_path)
    assert (outcome.accepted, outcome.rejected, outcome.balanced) == (20, 4, True)
    [letter] = letters(database)
    assert (letter.meter_id, letter.reasons[0][0], letter.raw_format) == ("M-3", "database_refused", "canonical")
    assert letter.reasons[0][1].startswith("23514")
