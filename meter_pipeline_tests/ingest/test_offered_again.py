"""A file is its head-end and its bytes; one that was refused, or of which reads were rejected, may be offered again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import dead_letters, land, landing
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.ingest.landing import Landed, file_identity
from meter_pipeline.ingest.read_again import StagingError, restage_files
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.ledger import checkpoints, verification
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline_tests.ingest.support import (
    CALENDAR,
    CLOCK,
    DAY,
    METERS,
    NORTH,
    Read,
    enrol,
    load_day,
    parse,
    places,
    write_file,
)

pytestmark = pytest.mark.usefixtures("toy_feed")

SOUTH = HeadEnd("SOUTH", "jsonl")


@pytest.fixture(autouse=True, params=[landing.HASHED_FIRST, -1], ids=["hashed first", "hashed while archived"])
def _when_hashed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are known by their hash only after they were parsed and archived: the same comes of it."""
    monkeypatch.setattr(landing, "HASHED_FIRST", request.param)


class Refused(ValueError):
    code, detail = "bad_header", "no column of a meter"


def refuses(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
    raise Refused


def offer(database: Database, folder: Path, path: Path, head_end: HeadEnd = NORTH, reads: Any = None) -> Landed:
    return land(database, CALENDAR, path, head_end, places(folder), parse=reads, clock=CLOCK)


def run(database: Database, folder: Path, **more: Any) -> Any:
    return load_day(database, folder, **more)


def day_of(meters: list[str], slots: int = 8) -> list[Read]:
    reads = [Read(m, slot, 1000 + slot) for m in meters for slot in range(slots)]
    return [*reads, *(Read(m, 3, 10**6, register=True) for m in meters)]


def totals(database: Database) -> dict[str, tuple[int, ...]]:
    """received, accepted, duplicate, superseded, rejected, waiting by file; each must balance."""
    with database.connect() as connection:
        found = raw.control_totals(connection)
    assert found["balanced"].all(), found
    columns = ("received", "accepted", "duplicate", "superseded", "rejected", "waiting")
    return {row["file_name"]: tuple(row[c] for c in columns) for row in found.iter_rows(named=True)}


def verified(database: Database, folder: Path) -> None:
    checkpoints.checkpoint(database, home=folder / "ledger-home")
    outcome = verification.verify(database, home=folder / "ledger-home", full=True, days=[DAY])
    assert outcome.ok, outcome.findings


def statuses(database: Database) -> list[str]:
    return list(database.read("SELECT status FROM raw.dead_letter ORDER BY meter_id, channel")["status"])


def test_a_file_moved_to_its_own_head_end_is_landed(database: Database, tmp_path: Path) -> None:
    enrol(database)
    path = write_file(tmp_path / "SOUTH", "wrong", day_of(METERS))
    assert offer(database, tmp_path, path, SOUTH, refuses).refused == "bad_header: no column of a meter"
    moved = tmp_path / "NORTH" / "right"
    moved.parent.mkdir()
    path.rename(moved)
    landed = offer(database, tmp_path, moved)
    assert (landed.duplicate, landed.received, landed.days) == (False, 54, [DAY])
    assert run(database, tmp_path).accepted == 54
    assert totals(database)["right"] == (54, 54, 0, 0, 0, 0)
    verified(database, tmp_path)


def test_the_bytes_that_are_parsed_are_those_that_are_archived(database: Database, tmp_path: Path) -> None:
    enrol(database)
    path = write_file(tmp_path, "a", day_of(METERS))

    def of_others(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
        return replace(parse(path, head_end, calendar), sha256="0" * 64)

    with pytest.raises(ValueError, match="changed while it was read"):
        offer(database, tmp_path, path, reads=of_others)
    assert offer(database, tmp_path, path).received == 54


def test_the_same_bytes_under_two_head_ends_are_two_files(database: Database, tmp_path: Path) -> None:
    """Four registers in a row are read by four declarations: each stores its own channel."""
    enrol(database)
    reads = day_of(METERS[:2])
    north, south = (write_file(tmp_path / name, "f", reads) for name in ("NORTH", "SOUTH"))
    first, second = offer(database, tmp_path, north), offer(database, tmp_path, south, SOUTH)
    assert not first.duplicate
    assert not second.duplicate
    assert second.sha256 == file_identity("SOUTH", first.sha256)
    assert offer(database, tmp_path, south, SOUTH).duplicate, "and each is a duplicate under its own head-end"
    assert offer(database, tmp_path, north).duplicate
    assert run(database, tmp_path).received == 36
    verified(database, tmp_path)


def test_a_refused_file_is_read_again_and_refused_again_changes_nothing(database: Database, tmp_path: Path) -> None:
    enrol(database)
    path = write_file(tmp_path, "a", day_of(METERS))
    offer(database, tmp_path, path, reads=refuses)
    assert offer(database, tmp_path, path, reads=refuses).duplicate
    assert database.read("SELECT count(*) AS n FROM raw.dead_letter").item() == 1
    mended = offer(database, tmp_path, path)
    assert (mended.duplicate, mended.refused, mended.received, mended.days) == (False, None, 54, [DAY])
    assert statuses(database) == ["replayed"]
    assert offer(database, tmp_path, path).duplicate
    assert run(database, tmp_path).accepted == 54
    assert totals(database) == {"a": (54, 54, 0, 0, 0, 0)}
    verified(database, tmp_path)


def test_reads_of_a_meter_that_was_not_enrolled_come_with_the_file_again(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:3])
    path = write_file(tmp_path, "a", day_of(METERS))
    assert offer(database, tmp_path, path).rejected == 27
    assert run(database, tmp_path).accepted == 27
    assert offer(database, tmp_path, path).duplicate, "nothing has changed yet"
    enrol(database, METERS[3:])
    again = offer(database, tmp_path, path)
    assert (again.duplicate, again.rejected, again.days) == (False, 0, [DAY])
    outcome = run(database, tmp_path)
    assert outcome.balanced
    assert totals(database) == {"a": (54, 54, 0, 0, 0, 0)}
    assert set(statuses(database)) == {"replayed"}
    assert database.read("SELECT count(*) AS n FROM raw.interval").item() == 48
    verified(database, tmp_path)


def test_what_a_person_dismissed_stays_out(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:3])
    path = write_file(tmp_path, "a", day_of(METERS[:4]))
    offer(database, tmp_path, path)
    key = database.read("SELECT encode(dead_letter_key, 'hex') AS k FROM raw.dead_letter WHERE channel = 'E1'").item()
    dead_letters.dismiss(database, key, by="kim", reason="a test meter", clock=CLOCK)
    enrol(database, METERS[3:4])
    offer(database, tmp_path, path)
    run(database, tmp_path)
    assert totals(database) == {"a": (36, 28, 0, 0, 8, 0)}
    assert database.read("SELECT count(*) AS n FROM raw.interval WHERE meter_id = 'M-3'").item() == 0


def test_staging_lost_after_a_meter_was_enrolled_is_made_again(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:5])
    offer(database, tmp_path, write_file(tmp_path, "a", day_of(METERS)))
    enrol(database, METERS[5:])
    shutil.rmtree(tmp_path / "staging")
    assert run(database, tmp_path).accepted == 54
    assert totals(database) == {"a": (54, 54, 0, 0, 0, 0)}
    assert statuses(database) == ["replayed"] * 2
    verified(database, tmp_path)


@pytest.mark.parametrize("killed_at", [1, 4])
def test_staging_lost_in_the_middle_of_a_day_loads_the_rest_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Rows that are committed keep their claims; the others, and those of the meter enrolled since, get new numbers."""
    enrol(database, METERS[1:])
    offer(database, tmp_path, write_file(tmp_path, "a", day_of(METERS)))
    real, calls = load.write_batch, []

    async def killed(connection: Any, batch: load.Batch) -> bool:
        calls.append(1)
        if len(calls) > killed_at:
            raise psycopg.errors.InsufficientPrivilege("stands for the end of the process")
        return await real(connection, batch)

    one_row = Controller(Limits(batch_least=1, batch_start=1, batch_most=1, writers_start=1))
    with monkeypatch.context() as patch:
        patch.setattr(load, "write_batch", killed)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(database, tmp_path, controller=one_row)
    enrol(database, METERS[:1])
    shutil.rmtree(tmp_path / "staging")
    outcome = run(database, tmp_path)
    assert (outcome.received, outcome.accepted, outcome.duplicate) == (54, 54, 0)
    assert totals(database) == {"a": (54, 54, 0, 0, 0, 0)}
    assert database.read("SELECT count(*) AS n FROM raw.interval").item() == 48
    assert run(database, tmp_path).received == 0
    verified(database, tmp_path)


def test_restage_reads_every_file_that_waits_from_the_archive(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:5])
    landed = offer(database, tmp_path, write_file(tmp_path, "a", day_of(METERS)))
    enrol(database, METERS[5:])
    shutil.rmtree(tmp_path / "staging")
    [done] = restage_files(database, CALENDAR, places(tmp_path), {"NORTH": NORTH}, clock=CLOCK)
    [same] = restage_files(database, CALENDAR, places(tmp_path), {"NORTH": NORTH}, name="a", clock=CLOCK)
    assert (done.changed, done.days, done.letters_closed) == (True, [DAY], 2)
    assert not same.changed
    assert run(database, tmp_path).accepted == 54
    assert landed.rejected == 9


def test_a_damaged_archive_says_what_to_do_and_the_file_again_heals_it(database: Database, tmp_path: Path) -> None:
    enrol(database)
    path = write_file(tmp_path, "a", day_of(METERS))
    offer(database, tmp_path, path)
    shutil.rmtree(tmp_path / "staging")
    shutil.rmtree(tmp_path / "archive")
    with pytest.raises(StagingError, match="put the same file into the inbox again"):
        run(database, tmp_path)
    assert offer(database, tmp_path, path).duplicate
    assert run(database, tmp_path).accepted == 54


def test_a_replayed_canonical_letter_whose_staging_is_lost_is_read_again(database: Database, tmp_path: Path) -> None:
    enrol(database, METERS[:5])
    offer(database, tmp_path, write_file(tmp_path, "a", day_of(METERS)))
    enrol(database, METERS[5:])
    for key in database.read("SELECT encode(dead_letter_key, 'hex') AS k FROM raw.dead_letter")["k"]:
        dead_letters.replay(database, CALENDAR, places(tmp_path), {"NORTH": NORTH}, key, by="kim", clock=CLOCK)
    shutil.rmtree(tmp_path / "staging")
    assert run(database, tmp_path).accepted == 54
