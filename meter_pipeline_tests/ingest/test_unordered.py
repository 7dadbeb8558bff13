"""Two actual reads of one interval that nothing orders: the first stands, a person is asked, and no hash decides."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.ingest import dead_letters, land
from meter_pipeline.ingest.tables import raw
from meter_pipeline.ledger import checkpoints, verification
from meter_pipeline.postgres.database import Database
from meter_pipeline.quality import pack
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


def deliver(database: Database, folder: Path, name: str, reads: list[Read], run: bool = True) -> Any:
    land(database, CALENDAR, write_file(folder, name, reads), NORTH, places(folder), clock=CLOCK)
    return load_day(database, folder) if run else None


def values(database: Database, table: str = "raw.interval") -> dict[str, list[Decimal]]:
    found: dict[str, list[Decimal]] = {}
    order = "interval_start" if table == "raw.interval" else "read_at"
    for meter, value in database.read(f"SELECT meter_id, value::text AS v FROM {table} ORDER BY 1, {order}").rows():
        found.setdefault(meter, []).append(Decimal(value))
    return found


def whole(database: Database, folder: Path) -> None:
    with database.connect() as connection:
        assert raw.control_totals(connection)["balanced"].all()
    checkpoints.checkpoint(database, home=folder / "home")
    outcome = verification.verify(database, home=folder / "home", full=True, days=[DAY])
    assert outcome.ok, outcome.findings


def first(slots: int = 8) -> list[Read]:
    return [Read(m, slot, 1000) for m in METERS for slot in range(slots)]


def corrected() -> list[Read]:
    """The same reads, one of each meter with another value, and no version that would say which is right."""
    return [Read(m, slot, 5000 if slot == 3 else 1000) for m in METERS for slot in range(8)]


@pytest.mark.parametrize("together", [False, True])
def test_the_first_stands_for_every_meter_and_a_person_is_asked(
    database: Database, tmp_path: Path, together: bool
) -> None:
    enrol(database)
    deliver(database, tmp_path, "a", first(), run=not together)
    outcome = deliver(database, tmp_path, "b", corrected())
    assert outcome.balanced
    seen = values(database)
    kept = {tuple(map(str, v)) for v in seen.values()}
    assert len(kept) == 1, "one rule for every meter, whatever its payload's hash"
    letters = database.read("SELECT reads, reasons -> 0 ->> 'code' AS code, status FROM raw.dead_letter")
    assert letters.rows() == [(1, "unordered_actual", "open")] * 6
    assert outcome.rejected == 6
    whole(database, tmp_path)


def test_reads_that_nothing_contradicts_are_stored(database: Database, tmp_path: Path) -> None:
    """Hourly deliveries that overlap: one of the later file's reads is asked about, the others fill the day."""
    enrol(database)
    deliver(database, tmp_path, "a", first(4))
    outcome = deliver(database, tmp_path, "b", corrected())
    assert (outcome.accepted, outcome.duplicate, outcome.rejected) == (24, 18, 6)
    assert values(database) == {m: [Decimal("0.001")] * 8 for m in METERS}
    whole(database, tmp_path)


def test_a_person_takes_the_later_read_or_keeps_the_first(database: Database, tmp_path: Path) -> None:
    enrol(database)
    deliver(database, tmp_path, "a", first())
    deliver(database, tmp_path, "b", corrected())
    keys = dict(database.read("SELECT meter_id, encode(dead_letter_key, 'hex') AS k FROM raw.dead_letter").rows())
    content = dead_letters.show(database, keys["M-0"]).raw.replace(b'"source_version":1', b'"source_version":2')
    dead_letters.correct(database, keys["M-0"], content, by="kim", reason="the head-end says so", clock=CLOCK)
    done = dead_letters.replay(
        database, CALENDAR, places(tmp_path), {"NORTH": NORTH}, keys["M-0"], by="kim", clock=CLOCK
    )
    assert (done.reads, done.rejected) == (1, [])
    dead_letters.dismiss(database, keys["M-1"], by="kim", reason="the first was right", clock=CLOCK)
    load_day(database, tmp_path)
    seen = values(database)
    assert seen["M-0"] == [Decimal("0.001")] * 3 + [Decimal("0.005")] + [Decimal("0.001")] * 4
    assert seen["M-1"] == [Decimal("0.001")] * 8
    whole(database, tmp_path)


def test_registers_are_asked_about_in_the_same_way(database: Database, tmp_path: Path) -> None:
    enrol(database)
    deliver(database, tmp_path, "a", [Read(m, 3, 10**6, register=True) for m in METERS])
    outcome = deliver(database, tmp_path, "b", [Read(m, 3, 2 * 10**6, register=True) for m in METERS])
    assert (outcome.accepted, outcome.rejected, outcome.balanced) == (0, 6, True)
    assert values(database, "raw.register") == {m: [Decimal(1)] for m in METERS}
    whole(database, tmp_path)


@pytest.mark.parametrize(
    "later",
    [
        Read("M-0", 3, 5000, version=2),
        Read("M-0", 3, 5000, sequence=1),
        Read("M-0", 3, 5000, read_time=60),
    ],
)
def test_what_orders_two_reads_decides_without_a_person(database: Database, tmp_path: Path, later: Read) -> None:
    enrol(database)
    deliver(database, tmp_path, "a", [Read("M-0", 3, 1000)])
    assert deliver(database, tmp_path, "b", [later]).accepted == 1
    assert values(database)["M-0"] == [Decimal("0.005")]
    assert deliver(database, tmp_path, "c", [Read("M-0", 3, 1000), Read("M-0", 4, 1000)]).rejected == 0


@pytest.mark.parametrize("flags", ["AE", "EA", "EE", "SE"])
def test_estimates_are_nobodys_question(database: Database, tmp_path: Path, flags: str) -> None:
    enrol(database)
    deliver(database, tmp_path, "a", [Read("M-0", 3, 1000, quality=pack(flags[0]))])
    outcome = deliver(database, tmp_path, "b", [Read("M-0", 3, 5000, quality=pack(flags[1]))])
    assert outcome.rejected == 0
