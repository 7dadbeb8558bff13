"""What a baseline expects of a day, what stands in for one, and where its weather comes from."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from meter_pipeline.baselines import (
    COEFFICIENTS,
    LAG_DAYS,
    class_profiles,
    expected_usage,
    fit_group,
    fit_station,
    known_range,
    scaled_profile,
    training_days,
)
from meter_pipeline.baselines.weather import serve


def climate(days: int) -> np.ndarray:
    return 55 + 24 * np.sin(2 * np.pi * (np.arange(days) - 100) / 365) + np.random.default_rng(2).normal(0, 6, days)


def test_expectations_are_the_fits_own_line() -> None:
    t = climate(365)
    usage = 5 + 0.6 * np.maximum(60 - t, 0) + 0.9 * np.maximum(t - 70, 0)
    fit = fit_station(usage[None, :], t)
    coefficients = {name: np.array(getattr(fit, name), float) for name in COEFFICIENTS}
    np.testing.assert_allclose(expected_usage(coefficients, t)[0], usage, atol=1e-6)
    assert np.isnan(expected_usage(coefficients, np.array([np.nan]))[0, 0])


def test_a_baseline_says_nothing_of_weather_it_has_not_seen() -> None:
    t = climate(60)
    low, high = known_range(t)
    assert low < np.quantile(t, 0.02) < np.quantile(t, 0.98) < high < 75
    coefficients = {name: np.zeros(1) for name in COEFFICIENTS}
    shown = expected_usage(
        coefficients, np.array([low - 0.1, low, high, high + 0.1]), within_f=(np.array([low]), np.array([high]))
    )
    assert np.isnan(shown[0]).tolist() == [True, False, False, True]


def test_a_refit_learns_from_a_year_that_ends_three_weeks_ago() -> None:
    assert training_days(500) == slice(500 - LAG_DAYS - 365, 500 - LAG_DAYS)
    assert training_days(40) == slice(0, 40), "too few days to leave any out"


def test_a_point_without_history_gets_its_class_at_its_own_level() -> None:
    rng = np.random.default_rng(4)
    t = climate(90)
    shape = 10 + 0.5 * np.maximum(60 - t, 0)
    usage = rng.uniform(0.5, 2.0, (200, 1)) * shape * rng.normal(1, 0.05, (200, 90))
    usage[7, 20:] = np.nan
    usage[8, :] = np.nan
    usage[7, :20] = 3.0 * shape[:20]
    classes = np.zeros(200, np.int64)
    profiles = class_profiles(usage, classes, t, 2, cooling=True)
    assert np.isnan(profiles.coefficients["intercept"][1]), "a class without members has no profile"
    scaled = scaled_profile(profiles, classes, usage, t)
    expected = expected_usage(scaled, t)
    assert expected[7].mean() / shape.mean() == pytest.approx(3.0, rel=0.1)
    assert expected[8].mean() / np.nanmean(usage) == pytest.approx(1.0, rel=0.1)
    assert scaled["sigma"][8] >= scaled["sigma"][7] / 3
    fit = fit_group(usage, classes, 2, t, "electricity", weekend=np.zeros(90, bool), holiday=np.zeros(90, bool))
    assert fit.provisional[[7, 8]].all()
    assert not fit.provisional[:7].any()
    assert set(fit.status[:7].tolist()) == {1}


def test_each_point_is_served_by_its_own_station_and_days_are_borrowed() -> None:
    stations = pl.DataFrame(
        {"station_id": ["MDW", "ORD"], "latitude": [41.786, 41.978], "longitude": [-87.752, -87.904]}
    )
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    temperatures = pl.DataFrame(
        {
            "station_id": ["MDW", "ORD", "ORD"],
            "weather_day": [days[0], days[0], days[1]],
            "temperature_mean_c": [0.0, 10.0, 20.0],
        }
    )
    points = pl.DataFrame(
        {"station_id": ["MDW", None, None], "latitude": [None, 42.0, None], "longitude": [None, -87.9, None]},
        schema={"station_id": pl.String, "latitude": pl.Float64, "longitude": pl.Float64},
    )
    served = serve(points, stations, temperatures, days)
    np.testing.assert_allclose(served.of_points(), [[32.0, 68.0], [50.0, 68.0], [np.nan, np.nan]])
    none = serve(points, stations.clear(), temperatures, days)
    assert np.isnan(none.of_points()).all()
