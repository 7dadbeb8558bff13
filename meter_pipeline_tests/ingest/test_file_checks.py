"""What is held against a whole file before any of it is stored: reads that supersede each other, clocks, rounding."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from meter_pipeline import feeds
from meter_pipeline.feeds.head_ends import HeadEnd, Version
from meter_pipeline.ingest import land
from meter_pipeline.ingest.file_checks import FileRefused, set_arrival, superseded_share
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.staged_days import staged_days
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import CALENDAR, CLOCK, places

COLUMNS = {"meter_id": "m", "time": "t", "value": "v"}
CHANNELS = pl.DataFrame(
    [("M1", "E1", "interval", "kWh", 30)],
    schema={
        "meter_id": pl.String,
        "channel": pl.String,
        "kind": pl.String,
        "unit": pl.String,
        "interval_minutes": pl.Int64,
    },
    orient="row",
)


def head_end(**given: Any) -> HeadEnd:
    base: dict[str, Any] = {"zone": "America/Chicago", "interval_minutes": 30, "unit": "kWh", "columns": COLUMNS}
    return HeadEnd("NORTH", "delimited", constants={"channel": "E1"}, **(base | given))


def written(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "feed.csv"
    path.write_text("m,t,v\n" + "".join(f"{line}\n" for line in lines))
    return path


def refused(tmp_path: Path, lines: list[str], **given: Any) -> tuple[str, str] | None:
    declared = head_end(**given)
    parsed = feeds.parse(written(tmp_path, lines), declared, CALENDAR)
    try:
        staged_days(parsed, CALENDAR, "NORTH", Declared.of(CHANNELS), CLOCK.now(), superseded_share(declared))
    except FileRefused as error:
        return error.code, error.detail
    return None


def test_a_day_of_periods_under_one_date_is_refused(tmp_path: Path) -> None:
    """Fifty half-hours of a day, read under the day alone, are one read and 49 losses."""
    periods = [f"M1,2026-03-02 00:00,{k}" for k in range(50)]
    code, detail = refused(tmp_path, periods) or ("", "")
    assert code == "superseded_share"
    assert detail.startswith("49 of 50 reads name the interval of another read of this file with another value")
    assert refused(tmp_path, periods, options={"superseded_share": 1}) is None


def test_the_same_twice_and_a_few_corrections_are_no_loss(tmp_path: Path) -> None:
    day = [f"M1,2026-03-{d:02d} {h:02d}:{m:02d},{h}.{d}" for d in range(2, 10) for h in range(24) for m in (0, 30)]
    assert refused(tmp_path, [*day, *day]) is None
    assert refused(tmp_path, [*day, *[f"{line}9" for line in day[:30]]]) is None
    assert refused(tmp_path, [*day, *[f"{line}9" for line in day]]) is not None


def test_a_file_refused_for_it_loads_nothing_and_rounding_is_on_record(database: Database, tmp_path: Path) -> None:
    path = written(tmp_path, [f"M1,2026-03-02 00:00,{k}" for k in range(50)])
    done = land(database, CALENDAR, path, head_end(), places(tmp_path), clock=CLOCK)
    assert (done.refused or "").startswith("superseded_share: 49 of 50")
    assert (done.received, done.days, done.dead_letters) == (0, [], 1)
    fine = written(tmp_path, ["M1,2026-03-02 00:00,0.30000000000000004", "M1,2026-03-02 00:30,0.0000006"])
    land(database, CALENDAR, fine, head_end(rounding="half_even"), places(tmp_path), clock=CLOCK)
    kept = database.read("SELECT meter_id, channel, difference_micro::text AS d FROM raw.rounding").rows()
    assert [(meter, channel, Decimal(text)) for meter, channel, text in kept] == [
        ("M1", "E1", Decimal("0.39999999996"))
    ]


@pytest.mark.parametrize(("day", "kept"), [("2003-12-04", True), ("2000-01-01", False), ("1970-01-02", False)])
def test_reads_from_before_2001_are_of_a_reset_clock(tmp_path: Path, day: str, kept: bool) -> None:
    parsed = feeds.parse(written(tmp_path, [f"M1,{day} 00:00,1"]), head_end(), CALENDAR)
    staged, letters = staged_days(parsed, CALENDAR, "NORTH", Declared.of(CHANNELS), CLOCK.now())
    assert bool(staged) == kept
    assert letters.height == (not kept)


def test_a_file_that_came_later_outranks_the_one_it_corrects(tmp_path: Path) -> None:
    """Two files of one interval without a version column: by the hash of its payload, a correction won for four meters
    of ten and lost for six. A declared arrival orders them all alike, and a file read again keeps its first arrival."""
    declared = head_end(version=Version(arrival=True))
    first = feeds.parse(written(tmp_path, ["M1,2026-03-02 00:00,1"]), declared, CALENDAR)
    later = feeds.parse(written(tmp_path, ["M1,2026-03-02 00:00,2"]), declared, CALENDAR)
    set_arrival(first, declared, CLOCK.now())
    set_arrival(later, declared, CLOCK.now() + timedelta(days=1))
    versions = [int(parsed.intervals["source_version"][0]) for parsed in (first, later)]
    assert versions == [int(CLOCK.now().timestamp()), int(CLOCK.now().timestamp()) + 86_400]
    again = feeds.parse(written(tmp_path, ["M1,2026-03-02 00:00,1"]), head_end(), CALENDAR)
    set_arrival(again, head_end(), CLOCK.now())
    assert again.intervals["source_version"].to_list() == [0]
