"""Billing days of 23, 23.5, 24, 24.5 and 25 hours are billed for exactly the intervals they have."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.utility import SmallUtility

DAYS = [
    ("America/Chicago", date(2026, 3, 8), 92),
    ("America/Chicago", date(2026, 3, 9), 96),
    ("America/Chicago", date(2025, 11, 2), 100),
    ("Europe/Berlin", date(2026, 3, 29), 92),
    ("Europe/Berlin", date(2025, 10, 26), 100),
    ("Australia/Lord_Howe", date(2025, 10, 5), 94),
    ("Australia/Lord_Howe", date(2026, 4, 5), 98),
]


def head_end(zone: str | None) -> HeadEnd:
    return HeadEnd(
        "CLOCK",
        "delimited",
        zone=zone,
        interval_minutes=15,
        unit="kWh",
        columns={"meter_id": "meter", "time": "at", "value": "kwh", "sequence": "n"},
        constants={"channel": "E1"},
    )


@pytest.mark.parametrize(("zone", "day", "slots"), DAYS, ids=[f"{z}-{d}" for z, d, _ in DAYS])
def test_a_day_is_billed_for_the_intervals_it_has(
    database: Database, tmp_path: Path, zone: str, day: date, slots: int
) -> None:
    utility = SmallUtility.make(database, tmp_path, zone)
    start = utility.calendar.bounds(day)[0]
    # A little of the neighbours on both sides, so that a wrong bound would move energy between days.
    rows = ["meter,at,kwh,n"]
    for n in range(-4, slots + 4):
        at = start + timedelta(minutes=15 * n)
        rows.append(f"M1,{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ},{'0.250' if 0 <= n < slots else '9.000'},{n + 5}")
    path = tmp_path / "feed.csv"
    path.write_text("\n".join(rows) + "\n")
    utility.enrol(path, head_end(None), "electricity")
    landed = utility.land(path, head_end(None))
    assert (landed.received, landed.rejected) == (slots + 8, 0)
    assert utility.calendar.slots(day, 15) == slots
    reports = utility.run(day)
    assert all(check.passed for report in reports.values() for check in report.checks)
    row = utility.read(
        f"SELECT source_quantity, slots, estimated, missing FROM billing.determinant_day WHERE billing_day = '{day}'"
    ).row(0)
    assert row == (slots * 250_000, slots, 0, 0)
    charged = utility.read(f"SELECT total FROM billing.charge_day WHERE billing_day = '{day}'")["total"][0]
    assert charged == slots * 62_500, "0.25 kWh at 0.25 a kWh, in millionths"


def test_local_stamps_of_the_repeated_hour_are_told_apart(database: Database, tmp_path: Path) -> None:
    """A head-end that writes local wall-clock time sends 01:00 to 01:45 twice on the 25-hour day; both are billed."""
    zone, day = "America/Chicago", date(2025, 11, 2)
    utility = SmallUtility.make(database, tmp_path, zone)
    start = utility.calendar.bounds(day)[0]
    rows = ["meter,at,kwh,n"]
    for n in range(100):
        local = (start + timedelta(minutes=15 * n)).astimezone(ZoneInfo(zone))
        rows.append(f"M1,{local:%Y-%m-%d %H:%M:%S},0.250,{n + 1}")
    path = tmp_path / "local.csv"
    path.write_text("\n".join(rows) + "\n")
    declared = head_end(zone)
    utility.enrol(path, declared, "electricity")
    landed = utility.land(path, declared)
    assert (landed.received, landed.rejected) == (100, 0)
    utility.run(day)
    assert utility.read("SELECT source_quantity FROM billing.determinant_day")["source_quantity"].to_list() == [
        25_000_000
    ]
