"""Each detector finds its own and lets ordinary life pass."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from meter_pipeline.anomalies import Window
from meter_pipeline.anomalies.detect import detect, lowest_and_sustained

POINTS, DAYS = 40, 56


def window(commodity: str = "electricity", seed: int = 1, **changes: Any) -> Window:
    """Forty homes on fifty-six ordinary days: 20 units expected, noise of a twentieth."""
    rng = np.random.default_rng(seed)
    shape = (POINTS, DAYS)
    made = Window(
        day=date(2026, 3, 1),
        commodity=commodity,
        unit={"electricity": "kWh", "water": "gal", "gas": "ft3"}[commodity],
        usage=20 + np.clip(rng.normal(0, 1, shape), -2.5, 2.5),
        coverage=np.ones(shape),
        customer_class=np.zeros(POINTS, np.int64),
        expected=np.full(shape, 20.0),
        sigma=np.ones(POINTS),
        robust=np.ones(POINTS),
        provisional=np.zeros(POINTS, bool),
        disconnected=np.zeros(shape, bool),
        account_changed=np.zeros(shape, bool),
        head_end=np.zeros(POINTS, np.int64),
        collector=np.arange(POINTS) // 10,
        head_ends=["AMI"],
        collectors=["C0", "C1", "C2", "C3"],
        neighbourhood=np.zeros(POINTS, np.int64),
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def kinds(found: Window) -> list[tuple[int, str]]:
    return [(row, kind) for row, kind in detect(found).select("row", "kind").iter_rows()]


@pytest.mark.parametrize("commodity", ["electricity", "water", "gas"])
def test_ordinary_days_raise_nothing(commodity: str) -> None:
    assert kinds(window(commodity)) == []


def test_three_sigma_flags_name_their_direction_and_a_spike_needs_far_more() -> None:
    w = window()
    w.usage[1, -1], w.usage[2, -1], w.usage[3, -1] = 24.0, 16.0, 90.0
    assert kinds(w) == [(1, "high"), (2, "low"), (3, "high"), (3, "spike")]


def test_a_dismissed_meter_is_judged_more_widely() -> None:
    w = window(tolerance=np.full(POINTS, 1.5))
    w.usage[1, -1] = 24.0
    assert kinds(w) == []


def test_estimated_days_raise_no_residual_flag() -> None:
    w = window()
    w.usage[3, -1], w.coverage[3, -1] = 90.0, 0.5
    assert kinds(w) == []


def test_a_lasting_fall_is_tampering_only_when_nothing_else_explains_it() -> None:
    w = window()
    fallen = slice(-14, None)
    for row in range(6):
        w.usage[row, fallen] *= 0.25
    w.account_changed[1, -14] = True
    w.export = np.zeros((POINTS, DAYS))
    w.export[2, fallen] = 5.0
    w.usage[3, fallen] *= 0.1
    w.usage[4, -15:-12] = 0.1
    w.usage[4, -12:] *= 2.4
    w.usage[5, -3:] = 20.0
    found = [(row, kind) for row, kind in kinds(w) if kind == "tamper_fall"]
    assert found == [(0, "tamper_fall")]


@pytest.mark.parametrize(
    ("share", "noise", "days", "found"),
    [(0.5, 3.0, 16, True), (0.5, 1.0, 13, True), (0.5, 1.0, 12, False), (0.5, 8.0, 16, False), (0.65, 1.0, 20, False)],
)
def test_a_bypass_of_half_is_found_on_a_meter_that_was_steady(
    share: float, noise: float, days: int, found: bool
) -> None:
    """Half of what was used is missing from a day on: found after thirteen days where the days scatter little, after
    some more where they scatter by a seventh, and not where what is missing drowns in how the meter wanders."""
    rng = np.random.default_rng(7)
    w = window()
    w.usage[0] = 20 + rng.normal(0, noise, w.days)
    w.sigma[0] = noise
    w.usage[0, -days:] *= share
    assert ("tamper_fall" in {kind for row, kind in kinds(w) if row == 0}) is found


def test_a_meter_that_was_at_half_before_is_no_tampering() -> None:
    w = window()
    w.usage[0, -50:-22:3] *= 0.5
    w.usage[0, -20:] *= 0.52
    assert "tamper_fall" not in {kind for _, kind in kinds(w)}


def test_a_fall_of_the_whole_neighbourhood_is_nobodys_tampering() -> None:
    w = window()
    w.usage[:, -14:] *= 0.3
    assert "tamper_fall" not in {kind for _, kind in kinds(w)}


def test_twelve_days_of_holiday_are_no_tampering() -> None:
    w = window()
    w.usage[0, -12:] *= 0.2
    assert "tamper_fall" not in {kind for _, kind in kinds(w)}


def test_a_stuck_meter_is_told_from_one_that_is_often_idle() -> None:
    w = window()
    w.usage[0, -3:] = 0.0
    w.usage[1, ::3] = 0.0
    w.usage[1, -3:] = 0.0
    w.usage[2, -2:] = 0.0
    assert [(r, k) for r, k in kinds(w) if k == "stuck"] == [(0, "stuck")]


def test_backward_running_is_flagged_with_and_without_weather() -> None:
    w = window(expected=np.full((POINTS, DAYS), np.nan))
    w.usage[7, -1] = -4.0
    assert kinds(w) == [(7, "reverse")]


def test_use_on_a_service_that_is_off_needs_two_days() -> None:
    w = window()
    w.disconnected[4, -2:] = True
    w.disconnected[5, -1:] = True
    w.disconnected[6, -5:] = True
    w.usage[6, -5:] = 0.0
    assert kinds(w) == [(4, "usage_on_disconnected")]


def test_outage_flags_count_only_when_the_neighbours_have_none() -> None:
    alone, together = np.zeros((POINTS, DAYS), bool), np.zeros((POINTS, DAYS), bool)
    alone[3, [-9, -5, -1]] = True
    together[:, [-9, -5, -1]] = True
    assert kinds(window(outage=alone)) == [(3, "outage_alone")]
    assert kinds(window(outage=together)) == []


def water(**changes: Any) -> Window:
    """Homes that are dry at night and hold 4 gallons an hour at most."""
    w = window("water", **changes)
    w.night, w.sustained = np.zeros((POINTS, DAYS)), np.full((POINTS, DAYS), 4.0)
    return w


def test_a_leak_runs_every_hour_and_a_zero_hour_clears_it() -> None:
    w = water()
    assert w.night is not None
    w.night[0, -1] = 1.0
    w.night[1, -3:-1] = 6.0
    w.night[2, -1] = 0.9
    assert kinds(w) == [(0, "leak")]


def test_an_estimated_day_neither_triggers_nor_clears_a_leak() -> None:
    w = water()
    assert w.night is not None
    w.night[0, -5:-1] = 6.0
    w.night[0, -1] = np.nan
    assert kinds(w) == []
    w.night[0, -2], w.night[0, -1] = np.nan, 6.0
    assert kinds(w) == [(0, "leak")]


def test_known_continuous_use_is_no_leak_until_it_is_exceeded_for_days() -> None:
    w = water()
    assert w.night is not None
    w.customer_class[:] = 2
    rng = np.random.default_rng(2)
    w.night[0] = 300 + rng.uniform(-20, 20, DAYS)
    w.night[1] = w.night[0]
    w.night[1, -3:] += 200
    assert kinds(w) == [(1, "leak")]


def test_a_growing_leak_is_told_as_drift() -> None:
    w = water()
    assert w.night is not None
    w.night[0, -5:] = [0.4, 0.8, 1.2, 1.6, 2.0]
    w.night[1, -5:] = 2.0
    assert kinds(w) == [(0, "leak_drift"), (1, "leak")]


def test_a_burst_shows_in_the_flow_and_in_the_total() -> None:
    w = water(expected=np.full((POINTS, DAYS), np.nan))
    assert w.sustained is not None
    w.sustained[0, -1], w.usage[0, -1] = 300.0, 1500.0
    w.sustained[1, -1] = 300.0
    assert kinds(w) == [(0, "burst")]


def test_solar_panels_and_moves_are_named_and_open_no_case() -> None:
    w = window()
    w.export = np.zeros((POINTS, DAYS))
    w.export[3, -3:] = 8.0
    w.account_changed[5, -1] = True
    assert kinds(w) == [(3, "solar_arrival"), (5, "move")]


def test_lowest_hour_and_sustained_flow() -> None:
    low, held = lowest_and_sustained(np.array([[1.0, 5.0, 6.0, 7.0, 2.0], [0.0, 9.0, 0.0, 9.0, 9.0]]))
    assert low.tolist() == [1.0, 0.0]
    assert held.tolist() == [5.0, 0.0]


def test_a_register_that_went_back_with_the_meter_is_told_once() -> None:
    back = np.zeros(POINTS, bool)
    back[[2, 3]] = True
    reverse = np.zeros(POINTS, bool)
    reverse[2] = True
    assert kinds(window(register_back=back, reverse_reported=reverse)) == [(2, "reverse"), (3, "register_back")]


def test_the_first_days_of_a_deployment_are_no_silence_and_no_solar_arrival() -> None:
    w = window()
    w.usage[:, :-3], w.coverage[:, :-3] = np.nan, np.nan
    w.coverage[:10, -1] = 0.7
    w.export = np.zeros((POINTS, DAYS))
    w.export[5, -3:] = 4.0
    assert detect(w).select("kind", "group").rows() == [("dropout_collector", "C0")]
