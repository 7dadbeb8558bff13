"""Where a station's hours are known, a refit tries degree hours and keeps them for the meters they fit better; such a
meter is judged by hours alone."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from meter_pipeline.anomalies import detect_billing_day, refit_baselines, waiting_days
from meter_pipeline.anomalies.tables import detection
from meter_pipeline.baselines import celsius, degree_hours
from meter_pipeline.desk.tables import usage_of_point
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.anomalies.streets import CALENDAR, StillClock, Streets, day, temperatures, write

CLOCK = StillClock()
DAYS = 120
#: The first half cools its rooms through the afternoon, whatever the day's mean; the second half follows the mean.
BY_HOURS = 10


def weather() -> tuple[np.ndarray, np.ndarray]:
    """(days,) means and (days, 24) hours in °F, hot at noon and cool at night, more so on some days than on others."""
    means = temperatures(DAYS)
    swing = np.random.default_rng(5).uniform(4, 22, DAYS)
    hours = means[:, None] + swing[:, None] * np.sin(2 * np.pi * (np.arange(24) - 9) / 24)
    return hours.mean(axis=1), hours


def city(hours: np.ndarray, means: np.ndarray) -> Streets:
    rng = np.random.default_rng(6)
    asked = np.where(
        np.arange(2 * BY_HOURS)[:, None] < BY_HOURS,
        degree_hours(hours, 65.0, cooling=True),
        np.maximum(means - 60.0, 0),
    )
    return Streets("electricity", "kWh", np.round(12 + 1.5 * asked + rng.normal(0, 0.4, asked.shape), 3))


def load(database: Database, hours: np.ndarray, days: range, later: int = 0) -> None:
    frame = pl.DataFrame(
        {
            "station_id": ["KMUN"] * len(days),
            "weather_day": [day(d) for d in days],
            "temperature_min_c": [float(celsius(hours[d]).min()) for d in days],
            "temperature_max_c": [float(celsius(hours[d]).max()) for d in days],
            "temperature_mean_c": [float(celsius(hours[d]).mean()) for d in days],
            "hours": [24] * len(days),
            "hourly_c": [np.round(celsius(hours[d]), 2).tolist() for d in days],
        }
    )
    with database.connect() as connection:
        detection.write_weather(connection, frame, "test", CLOCK.now() + timedelta(seconds=later))


def kept(database: Database) -> dict[str, bool]:
    return dict(database.read("SELECT service_point_id, hourly FROM anomaly.baseline ORDER BY 1").iter_rows())


def test_a_refit_keeps_degree_hours_for_the_meters_they_fit_better(database: Database) -> None:
    means, hours = weather()
    streets = city(hours, means)
    write(database, streets, means)
    load(database, hours, range(DAYS))
    fitted = refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1))
    assert fitted.by_hours == BY_HOURS
    assert [point for point, hourly in kept(database).items() if hourly] == streets.ids[:BY_HOURS]
    bases = database.read("SELECT cdd_balance_f AS base, robust_sigma AS spread FROM anomaly.baseline WHERE hourly")
    assert bases["base"].to_list() == pytest.approx([65.0] * BY_HOURS, abs=1.5)
    assert bases["spread"].max() < 0.7, "the hours explain what the mean could not"  # type: ignore[operator]


def test_without_hours_or_with_too_few_the_refit_stands_on_daily_means(database: Database) -> None:
    means, hours = weather()
    write(database, city(hours, means), means)
    assert refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1)).by_hours == 0
    load(database, hours, range(0, DAYS, 2))
    assert refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(DAYS - 1)).by_hours == 0


def test_a_meter_made_on_hours_is_judged_by_them_and_waits_where_they_are_missing(database: Database) -> None:
    means, hours = weather()
    streets = city(hours, means)
    last = DAYS - 1
    hours[last] = 60 + 20 * np.sin(2 * np.pi * (np.arange(24) - 9) / 24)  # no cooling by the mean, hours of it by noon
    means[last] = hours[last].mean()
    streets.usage[:BY_HOURS, last] = 12 + 1.5 * degree_hours(hours[last:], 65.0, cooling=True)[0]
    streets.usage[BY_HOURS:, last] = 12.0
    streets.usage[3, last] *= 8
    write(database, streets, means)
    load(database, hours, range(last))
    refit_baselines(database, CALENDAR, clock=CLOCK, as_of=day(last))
    waiting = detect_billing_day(database, CALENDAR, day(last), clock=CLOCK)
    assert (waiting.weather, waiting.by_kind) == ("partial", {}), "the mean is no substitute"
    load(database, hours, range(last, DAYS), later=60)
    assert waiting_days(database) == [day(last)]
    judged = detect_billing_day(database, CALENDAR, day(last), clock=CLOCK)
    assert judged.weather == "complete"
    assert judged.flags.select("kind", "service_point_id").rows() == [("high", "SP-E003"), ("spike", "SP-E003")]
    asked = 12 + 1.5 * float(degree_hours(hours[last:], 65.0, cooling=True)[0])
    assert judged.flags["expected"].to_list() == pytest.approx([asked, asked], abs=1.0)
    with database.connect() as connection:
        [shown] = usage_of_point(connection, "SP-E003", day(last), day(last))
    assert shown["expected"] == pytest.approx(judged.flags["expected"][0], abs=0.02), (
        "the desk draws what the flag was judged by"
    )
