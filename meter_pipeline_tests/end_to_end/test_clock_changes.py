"""Billing days of 23, 23.5, 24, 24.5 and 25 hours are billed for exactly the intervals they have."""

from __future__ import annotations

from dataclasses import replace
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


#: Hours of Lord Howe Island around its change of half an hour, in UTC: meters that keep one offset all year
HALF_HOURS = [
    (date(2026, 4, 4), 0, (24, 25, 24, 24)),  # on +11:00: on the half hour from 5 April on
    (date(2026, 4, 4), 30, (24, 24, 24, 24)),  # on +10:30: on the half hour until then
    (date(2025, 10, 4), 0, (24, 23, 24, 24)),
    (date(2025, 10, 4), 30, (24, 24, 24, 24)),
]


@pytest.mark.parametrize(("first", "minute", "counted"), HALF_HOURS, ids=[f"{d}-{m}" for d, m, _ in HALF_HOURS])
def test_hourly_meters_are_billed_what_they_read_where_clocks_change_by_half_an_hour(
    database: Database, tmp_path: Path, first: date, minute: int, counted: tuple[int, ...]
) -> None:
    """Every read is billed one time, on the day in which its hour begins, whatever the clock that the meter keeps."""
    utility = SmallUtility.make(database, tmp_path, "Australia/Lord_Howe")
    days = [first + timedelta(days=k) for k in range(4)]
    start, past = utility.calendar.bounds(first)[0], utility.calendar.bounds(days[-1])[1]
    at = (start - timedelta(hours=2)).replace(minute=minute)
    hours = []
    while at < past + timedelta(hours=2):
        hours.append(at)
        at += timedelta(hours=1)
    rows = ["meter,at,kwh,n"]
    rows += [f"M1,{h.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ},1.{k % 10}00,{k + 1}" for k, h in enumerate(hours)]
    path = tmp_path / "feed.csv"
    path.write_text("\n".join(rows) + "\n")
    declared = replace(head_end(None), interval_minutes=60)
    utility.enrol(path, declared, "electricity")
    utility.land(path, declared)
    for day, expected in zip(days, counted, strict=True):
        reports = utility.run(day)
        assert all(check.passed for report in reports.values() for check in report.checks)
        opens, closes = utility.calendar.bounds(day)
        mine = [k for k, h in enumerate(hours) if opens <= h < closes]
        row = utility.read(
            "SELECT d.source_quantity, u.estimated, u.missing FROM billing.determinant_day AS d JOIN vee.daily_usage AS u "
            f"USING (billing_day, service_point_id) WHERE billing_day = '{day}'"
        ).row(0)
        assert not utility.read(f"SELECT * FROM billing.exception_day WHERE billing_day = '{day}'").height
        assert len(mine) == expected
        assert row == (sum(1_000_000 + k % 10 * 100_000 for k in mine), 0, 0), day
