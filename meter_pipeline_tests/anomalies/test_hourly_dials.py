"""Leaks of meters whose dial is read every hour: the flow of each hour from the reads, and nothing where one is
missing.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from meter_pipeline.anomalies import detect_billing_day
from meter_pipeline.anomalies.hourly_dials import hourly_flows
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local
from meter_pipeline_tests.vee.city import CALENDAR

DAY = date(2026, 10, 31)


def reads(instants: np.ndarray, dials: np.ndarray, name: str = "SP-1") -> pl.DataFrame:
    return pl.DataFrame({"at": instants, "value": dials}).select(
        pl.lit(name).alias("service_point_id"), pl.lit("gal").alias("unit"), "at", "value"
    )


@pytest.mark.parametrize(("offset", "step"), [(0, 3600), (17 * 60, 3600), (0, 900)])
def test_flows_of_the_hours_are_what_the_dial_counted(offset: int, step: int) -> None:
    """3 gal an hour and 20 more from noon to one; reads on the hour, at 17 minutes past, and every quarter of
    an hour.
    """
    start = CALENDAR.start_s(DAY)
    at = np.arange(start - 3600 + offset, start + 25 * 3600, step)
    used = (at - start) * 3.0 / 3600 + 20 * np.clip((at - start - 12 * 3600) / 3600, 0, 1)
    found = hourly_flows(reads(at, (used * 1e6).round().astype(np.int64) + 10**9), start, start + 86_400)
    ids, flows = found["gal"]
    assert ids.to_list() == ["SP-1"]
    assert flows.shape == (1, 24)
    assert flows.min() == pytest.approx(3.0, abs=0.001)
    assert flows.sum() == pytest.approx(92.0, abs=0.01)


def test_a_missing_hour_or_a_dial_that_went_back_says_nothing() -> None:
    start = CALENDAR.start_s(DAY)
    at = np.arange(start, start + 25 * 3600, 3600)
    up = np.arange(at.size, dtype=np.int64) * 10**6
    back = up.copy()
    back[10] -= 3 * 10**6
    for frame in (
        reads(np.delete(at, 7), np.delete(up, 7)),
        reads(at, back),
        reads(at[:20], up[:20]),
        reads(at[4:], up[4:]),
    ):
        assert hourly_flows(frame, start, start + 86_400)["gal"][0].to_list() == []
    both = pl.concat([reads(np.delete(at, 7), np.delete(up, 7), "SP-1"), reads(at, up, "SP-2")])
    assert hourly_flows(both, start, start + 86_400)["gal"][0].to_list() == ["SP-2"]


def test_days_of_23_and_25_hours_have_so_many_flows() -> None:
    for day, hours in ((date(2026, 11, 1), 25), (date(2026, 3, 8), 23)):
        start, end = CALENDAR.start_s(day), CALENDAR.start_s(day + timedelta(days=1))
        at = np.arange(start, end + 1, 3600)
        _, flows = hourly_flows(reads(at, np.arange(at.size, dtype=np.int64) * 10**6), start, end)["gal"]
        assert flows.shape == (1, hours)
        assert flows.min() == pytest.approx(1.0)


def test_a_leak_is_found_on_hourly_dials_and_a_gap_leaves_a_finding(database: Database) -> None:
    """Two homes that are dry at night for eleven days; then one passes 3 gal in every hour of a day. On the last day
    the other one's dial falls silent for six hours."""
    town = Town(database)
    town.tariff(flat("W", "water", "gal", "0.01"))
    town.cycle(DAY - timedelta(days=20), DAY + timedelta(days=20))
    days = [DAY - timedelta(days=k) for k in range(11, -1, -1)]
    for name in ("LEAK", "DRY"):
        town.service(name, "W", "water")
        town.meter(name, name, dial("GAL", dials=7), commodity="water")
        level = 1000.0
        town.read(name, local(days[0]), f"{level:.3f}", unit="gal")
        for day in days:
            for hour in range(1, 25):
                level += 8.0 if 7 <= hour <= 22 else 0.0
                level += 3.0 if name == "LEAK" and day == DAY else 0.0
                if not (name == "DRY" and day == DAY and 9 <= hour <= 14):
                    town.read(name, local(day, hour), f"{level:.3f}", unit="gal")
    for day in days:
        town.run(day)
        detect_billing_day(database, CALENDAR, day, clock=town.clock(day))
    assert town.rows("SELECT billing_day, service_point_id, kind FROM anomaly.flag WHERE kind LIKE 'leak%%'") == [
        (DAY, "SP-LEAK", "leak")
    ]
    assert town.exceptions("DRY") == {"READ_GAP": [DAY]}
    [(detail,)] = town.rows("SELECT detail FROM vee.exception WHERE kind = 'READ_GAP'")
    assert detail.startswith("7.0 hours without a read to 2026-10-31 20:00 UTC")
    assert town.rows("SELECT state FROM anomaly.exception_case WHERE subject = 'SP-DRY'") == []
