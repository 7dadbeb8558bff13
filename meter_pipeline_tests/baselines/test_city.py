"""The city's compiled search is the single fit, for every meter, whatever days are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.baselines import MODELS, FitOptions, NoModelError, degree_hours, fit_best, fit_station
from meter_pipeline.schemas.reads import NO_VALUE


def climate(days: int, rng: np.random.Generator) -> np.ndarray:
    return 55 + 24 * np.sin(2 * np.pi * (np.arange(days) - 100) / 365) + rng.normal(0, 6, days)


def city(meters: int, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Meters of all four shapes, with noise, missing days and idle days."""
    heat = rng.uniform(0, 1, (meters, 1)) * (rng.random((meters, 1)) < 0.6)
    cool = rng.uniform(0, 1, (meters, 1)) * (rng.random((meters, 1)) < 0.5)
    usage = (
        rng.uniform(0, 20, (meters, 1))
        + heat * np.maximum(rng.uniform(50, 65, (meters, 1)) - t, 0)
        + cool * np.maximum(t - rng.uniform(65, 75, (meters, 1)), 0)
        + rng.normal(0, 2, (meters, t.size))
    )
    usage[rng.random(usage.shape) < 0.01] = 0.0
    usage[rng.random(usage.shape) < rng.choice([0, 0.03, 0.4], (meters, 1))] = np.nan
    rounded: np.ndarray = np.round(np.maximum(usage, 0), 3)
    return rounded


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), days=st.sampled_from([20, 75, 365]), cooling=st.booleans(), zero=st.booleans())
def test_every_meter_gets_the_fit_it_would_get_alone(seed: int, days: int, cooling: bool, zero: bool) -> None:
    rng = np.random.default_rng(seed)
    t = climate(days, rng)
    t[rng.random(days) < 0.03] = np.nan
    usage = city(12, t, rng)
    usage[:, np.isnan(t)] = np.nan_to_num(usage[:, np.isnan(t)], nan=1.0)
    options = FitOptions(cooling=cooling, zero_is_missing=zero)
    together = fit_station(usage, t, options, threads=2)
    for i in range(usage.shape[0]):
        try:
            alone = fit_best(usage[i], t, options)
        except NoModelError:
            assert together.model[i] <= 0
            continue
        if alone.n < 4:
            continue
        assert MODELS[together.model[i]] == alone.model
        np.testing.assert_equal(
            together.hdd_balance_f[i], np.nan if alone.hdd_balance_f is None else alone.hdd_balance_f
        )
        np.testing.assert_equal(
            together.cdd_balance_f[i], np.nan if alone.cdd_balance_f is None else alone.cdd_balance_f
        )
        for name in ("intercept", "hdd_beta", "cdd_beta", "r2", "adj_r2", "sigma", "robust_sigma"):
            assert getattr(together, name)[i] == pytest.approx(getattr(alone, name) or 0.0, abs=1e-8), name
        assert together.n[i] == alone.n


def test_micro_integers_give_the_same_fit_as_floats() -> None:
    rng = np.random.default_rng(3)
    t = climate(365, rng)
    usage = city(30, t, rng)
    micro = np.where(np.isnan(usage), NO_VALUE, np.round(np.nan_to_num(usage) * 1e6)).astype(np.int64)
    a, b = fit_station(usage, t), fit_station(micro, t)
    np.testing.assert_array_equal(a.model, b.model)
    np.testing.assert_allclose(a.intercept, b.intercept, rtol=1e-9, atol=1e-9)


def test_a_weekend_term_is_kept_only_where_it_earns_its_place() -> None:
    rng = np.random.default_rng(4)
    t = climate(365, rng)
    weekend = np.arange(365) % 7 >= 5
    usage = 10 + 0.5 * np.maximum(60 - t, 0) + rng.normal(0, 1, (200, 365))
    usage[:50] -= 4.0 * weekend
    fit = fit_station(usage, t, FitOptions(calendar=True), weekend=weekend, holiday=np.zeros(365, bool))
    assert fit.weekend[:50] == pytest.approx(-4.0, abs=0.6)
    assert np.count_nonzero(fit.weekend[50:]) <= 2
    assert not fit.holiday.any()


def test_a_holiday_term_is_kept_where_it_earns_its_place_and_beside_a_weekend_s() -> None:
    rng = np.random.default_rng(8)
    t = climate(365, rng)
    weekend, holiday = np.arange(365) % 7 >= 5, np.isin(np.arange(365), rng.choice(365, 12, replace=False))
    usage = 10 + 0.5 * np.maximum(60 - t, 0) + rng.normal(0, 1, (90, 365))
    usage[:60] -= 5.0 * holiday
    usage[30:60] -= 3.0 * weekend
    fit = fit_station(usage, t, FitOptions(calendar=True), weekend=weekend, holiday=holiday)
    # a meter whose small cooling term the holiday would turn negative keeps its degree days instead: no term may be
    # negative (CalTRACK 3.4.3)
    kept = fit.holiday[:60] != 0
    assert np.count_nonzero(kept) >= 57
    assert fit.holiday[:60][kept] == pytest.approx(-5.0, abs=1.2)
    assert fit.weekend[30:60] == pytest.approx(-3.0, abs=0.6)
    assert np.count_nonzero(fit.holiday[60:]) <= 2


def test_a_spike_widens_sigma_and_not_its_robust_twin() -> None:
    rng = np.random.default_rng(9)
    t = climate(365, rng)
    usage = np.tile(10 + 0.5 * np.maximum(60 - t, 0) + rng.normal(0, 1, 365), (2, 1))
    usage[1, [50, 200]] += 60
    fit = fit_station(usage, t)
    assert fit.sigma[1] > 3 * fit.sigma[0]
    assert fit.robust_sigma[1] == pytest.approx(fit.robust_sigma[0], rel=0.15)


def test_degree_hours_are_kept_where_they_fit_better() -> None:
    rng = np.random.default_rng(6)
    hourly = climate(365, rng)[:, None] + 14 * np.sin(2 * np.pi * np.arange(24) / 24)
    daily = hourly.mean(axis=1)
    by_hour = 5 + degree_hours(hourly, 65.0, cooling=True) + rng.normal(0, 0.3, (5, 365))
    by_day = 5 + np.maximum(daily - 65, 0) + rng.normal(0, 0.3, (5, 365))
    fit = fit_station(np.vstack([by_hour, by_day]), daily, hourly_f=hourly)
    assert fit.hourly.tolist() == [True] * 5 + [False] * 5
    # a station that lost its hours on some days: both are asked about the days that have them, and the others keep all
    # their days
    gappy = hourly.copy()
    gappy[::20] = np.nan
    some = fit_station(np.vstack([by_hour, by_day]), daily, hourly_f=gappy)
    assert some.hourly.tolist() == [True] * 5 + [False] * 5
    assert some.n.tolist() == [365 - 19] * 5 + [365] * 5
    assert fit.cdd_balance_f == pytest.approx(65.0, abs=1)


def test_a_constant_meter_is_an_intercept_with_no_spread() -> None:
    fit = fit_station(np.full((1, 365), 7.0), climate(365, np.random.default_rng(1)))
    assert (MODELS[fit.model[0]], fit.intercept[0], fit.sigma[0]) == ("intercept", 7.0, 0.0)
