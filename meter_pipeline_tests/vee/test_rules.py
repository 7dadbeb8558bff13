"""Each rule hits what it is about and nothing beside it; early termination; the published list keeps its bits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.estimation.history import hour_shift, like_days, slot_map
from meter_pipeline.vee.rules import thresholds
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity, codes
from meter_pipeline.vee.rules.interval_rules import code_table, run_interval_rules, subject
from meter_pipeline.vee.rules.model import RowContext
from meter_pipeline.vee.rules.movement import ClassMovement, movement_sums
from meter_pipeline.vee.rules.statistics import row_statistics
from meter_pipeline_tests.vee.matrices import DAY, history, matrix, validate

FLAT = 250_000


def day_of(values: np.ndarray, **more: Any) -> DayMatrix:
    return matrix(values[None, :] if values.ndim == 1 else values, **more)


def wavy(rows: int = 1) -> np.ndarray:
    """Rows of different values throughout, none far above the others."""
    return FLAT + (np.arange(96) * 7919 % 97) * 1000 + np.zeros((rows, 1), np.int64)


def interval_hits(day: DayMatrix, context: RowContext | None = None) -> dict[int, list[str]]:
    context = context or RowContext.plain(day.rows, day.slots)
    judged = subject(day, context, row_statistics(day.values, context.first, context.last), thresholds.default())
    flags = run_interval_rules(judged)
    return {int(j): codes(INTERVAL_RULES, int(flags[0, j])) for j in np.flatnonzero(flags[0])}


def test_an_ordinary_day_hits_no_rule() -> None:
    out = validate(matrix(wavy(3)), past=history(3, level=int(wavy().sum())))
    assert not out.flags.any()
    assert not out.row_flags.any()
    assert (out.actual == 96).all()


@pytest.mark.parametrize(
    ("code", "slot_value", "slot_quality"),
    [
        ("GAP", NO_VALUE, quality.MISSING),
        ("NEGATIVE", -1000, 0),
        ("RANGE", 10**13, 0),
        ("NULL_DATA", FLAT, quality.pack("N")),
        ("SOURCE_ESTIMATE", FLAT, quality.pack("S", 51)),
        ("OUTAGE", 0, quality.pack("A", reason=79)),
        ("TEST_MODE", FLAT, quality.pack("A", reason=90)),
        ("PULSE_OVERFLOW", FLAT, quality.pack("A", reason=95)),
        ("METER_FAULT", FLAT, quality.pack("A", reason=83)),
        ("TRUNCATED", FLAT, quality.pack("A", reason=80)),
        ("TIME_RESET", FLAT, quality.pack("A", reason=89)),
    ],
)
def test_a_rule_hits_the_one_interval_it_is_about(code: str, slot_value: int, slot_quality: int) -> None:
    values, quality_codes = wavy(), np.zeros((1, 96), np.uint16)
    values[0, 40], quality_codes[0, 40] = slot_value, slot_quality
    found = interval_hits(matrix(values, quality=quality_codes))
    assert code in found.pop(40)
    assert not found


@pytest.mark.parametrize(
    ("seconds", "code"), [(20, "CLOCK_SNAPPED"), (-170, "CLOCK_SNAPPED"), (181, "CLOCK_DRIFT"), (-400, "CLOCK_DRIFT")]
)
def test_a_clock_is_snapped_inside_the_tolerance_and_refused_beyond(seconds: int, code: str) -> None:
    offsets = np.zeros((1, 96), np.int16)
    offsets[0, 7] = seconds
    assert interval_hits(matrix(wavy(), offsets=offsets)) == {7: [code]}


def test_a_reason_on_a_substitute_says_why_and_condemns_it_no_more() -> None:
    codes_of = np.zeros((1, 96), np.uint16)
    codes_of[0, 5] = quality.pack("S", 17, 90)
    assert interval_hits(matrix(wavy(), quality=codes_of)) == {5: ["SOURCE_ESTIMATE"]}


def test_a_spike_the_register_bears_out_is_a_peak() -> None:
    values = wavy()
    values[0, 50] = 3_000_000
    context = RowContext.plain(1, 96, limit=25_000_000)
    assert interval_hits(matrix(values), context) == {50: ["SPIKE"]}
    context.register_difference[:] = values.sum()
    assert interval_hits(matrix(values), context) == {50: ["PEAK"]}


def test_a_spike_the_register_denies_is_estimated_and_the_day_repaired() -> None:
    true = wavy()
    values = true.copy()
    values[0, 50] = 9_000_000
    context = RowContext.plain(1, 96, limit=25_000_000)
    context.register_difference[:] = true.sum()
    out = validate(matrix(values), context)
    assert "REPAIRED" in codes(ROW_RULES, int(out.row_flags[0]))
    assert out.total[0] == true.sum()
    assert quality.unpack(int(out.quality[0, 50])).reason == 74


def test_a_failed_sum_check_alone_changes_no_interval() -> None:
    values = wavy()
    context = RowContext.plain(1, 96)
    context.register_difference[:] = values.sum() + 5_000_000
    context.register_tolerance[:] = 2_000_000
    out = validate(matrix(values), context)
    assert codes(ROW_RULES, int(out.row_flags[0])) == ["SUM_CHECK"]
    assert np.array_equal(out.values, values)


def test_a_factor_of_ten_between_register_and_intervals_points_to_the_multiplier() -> None:
    context = RowContext.plain(1, 96)
    context.register_difference[:] = wavy().sum() * 10
    assert "MULTIPLIER" in codes(ROW_RULES, int(validate(matrix(wavy()), context).row_flags[0]))


def test_intervals_that_exceed_the_register_cannot_be_scaled_to_it() -> None:
    values = wavy()
    values[0, 3] = NO_VALUE
    context = RowContext.plain(1, 96)
    context.register_difference[:] = 1_000_000
    found = codes(ROW_RULES, int(validate(matrix(values), context, history(1)).row_flags[0]))
    assert {"INFEASIBLE", "SUM_CHECK", "UNSCALED"} <= set(found)


def test_high_and_low_are_judged_against_what_the_class_did() -> None:
    past = history(40, level=24_000_000)
    values = np.repeat(wavy(), 40, axis=0) * 2  # a hot day: everyone doubles
    values[0] = wavy()[0] * 8
    values[1] = wavy()[0] // 20
    out = validate(matrix(values), past=past)
    assert "HIGH" in codes(ROW_RULES, int(out.row_flags[0]))
    assert "LOW" in codes(ROW_RULES, int(out.row_flags[1]))
    assert not any({"HIGH", "LOW"} & set(codes(ROW_RULES, int(f))) for f in out.row_flags[2:])


def test_a_stuck_channel_a_silent_one_and_an_inactive_one() -> None:
    values = np.repeat(wavy(), 3, axis=0)
    values[0, 20:60] = 123_000
    values[1] = 0
    context = RowContext.plain(3, 96)
    context.active[2] = False
    out = validate(matrix(values), context, history(3, level=int(wavy().sum())))
    assert "STUCK" in codes(ROW_RULES, int(out.row_flags[0]))
    assert "ZERO" in codes(ROW_RULES, int(out.row_flags[1]))
    assert "INACTIVE" in codes(ROW_RULES, int(out.row_flags[2]))


@pytest.mark.parametrize(
    ("field", "code"), [("known", "UNKNOWN_METER"), ("unit_ok", "UNIT"), ("size_ok", "INTERVAL_SIZE")]
)
def test_a_row_that_cannot_be_trusted_at_all_carries_that_verdict_alone(field: str, code: str) -> None:
    values = wavy()
    values[0, 3:60] = NO_VALUE
    context = RowContext.plain(1, 96)
    getattr(context, field)[0] = False
    context.register_difference[:] = 1
    out = validate(matrix(values), context, history(1))
    assert codes(ROW_RULES, int(out.row_flags[0])) == [code]
    assert out.estimated[0] == 0


def test_outage_intervals_stand_but_never_anchor() -> None:
    values, codes_of = wavy(), np.zeros((1, 96), np.uint16)
    values[0, 40:44], values[0, 44:46] = 0, NO_VALUE
    codes_of[0, 40:44] = quality.pack("A", reason=43)
    out = validate(matrix(values, quality=codes_of), past=history(1))
    assert (out.values[0, 40:44] == 0).all()
    assert quality.unpack(int(out.quality[0, 44])).method != 17 or int(out.values[0, 44]) == int(values[0, 46])


def test_the_future_is_neither_read_nor_estimated() -> None:
    values = wavy()
    context = replace(RowContext.plain(1, 96), future_from=48)
    out = validate(matrix(values), context, history(1))
    assert (out.actual[0], out.estimated[0], out.missing[0]) == (48, 0, 48)


def test_a_whole_hour_shift_of_a_fleet_is_told_from_its_own_history() -> None:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    usual = 1.0 - 0.6 * np.cos(t) + 0.5 * np.sin(3 * t)
    assert hour_shift(np.roll(usual, 4), usual, 15, 1.8) == 1
    assert hour_shift(np.roll(usual, -8), usual, 15, 1.8) == -2
    assert hour_shift(usual * 1.3, usual, 15, 1.8) == 0


def test_like_days_are_of_the_days_own_class_and_leave_holidays_out() -> None:
    from datetime import timedelta

    available = [DAY - timedelta(days=k) for k in range(1, 15)]
    holiday = DAY - timedelta(days=1)
    found = like_days(DAY, {holiday}, 14, available)
    assert holiday not in found
    assert all(d.weekday() < 5 for d in found)
    assert found == sorted(found)


def test_slots_map_by_the_local_clock_across_a_change() -> None:
    from datetime import date

    spring = slot_map("America/Chicago", date(2026, 3, 8), date(2026, 3, 7), 60)
    assert spring.tolist() == [0, 1, *range(3, 24)]
    autumn = slot_map("America/Chicago", date(2026, 11, 1), date(2026, 10, 31), 60)
    assert autumn.tolist() == [0, 1, 1, *range(2, 24)]


def test_published_bits_keep_their_meaning() -> None:
    assert {r.bit: c for c, r in INTERVAL_RULES.items()} == dict(
        enumerate(
            [
                "GAP",
                "OUTSIDE_INSTALLATION",
                "FUTURE",
                "RANGE",
                "NEGATIVE",
                "CLOCK_SNAPPED",
                "CLOCK_DRIFT",
                "NULL_DATA",
                "SOURCE_ESTIMATE",
                "OUTAGE",
                "TEST_MODE",
                "PULSE_OVERFLOW",
                "METER_FAULT",
                "TRUNCATED",
                "TIME_RESET",
                "SPIKE",
                "CONSECUTIVE",
                "INACTIVE_USAGE",
                "SEQUENCE_REUSED",
                "EXCHANGE_SLOT",
                "PEAK",
                "EDITED",
            ]
        )
    )
    assert {r.bit: c for c, r in ROW_RULES.items()} == dict(
        enumerate(
            [
                "UNKNOWN_METER",
                "UNIT",
                "INTERVAL_SIZE",
                "MULTIPLIER",
                "NO_DATA",
                "GAPS",
                "SUM_CHECK",
                "SPIKE_DAY",
                "HIGH",
                "LOW",
                "ZERO",
                "STUCK",
                "INACTIVE",
                "SIBLING",
                "TOU_SUM",
                "DUPLICATE",
                "PROLONGED_ESTIMATION",
                "ROLLOVER",
                "DECREASE",
                "REVERSE_FLOW",
                "READ_ERROR",
                "NO_REGISTER",
                "EXCHANGE",
                "UNSCALED",
                "INFEASIBLE",
                "HOUR_SHIFT",
                "DIALS",
                "ESTIMATED",
                "NOT_ESTIMATED",
                "REFERENCE",
                "REPAIRED",
                "METERLESS_GAP",
                "ESTIMATE_SUSPECT",
                "READ_OVERDUE",
            ]
        )
    ) | {
        40: "READ_HIGH",
        41: "READ_LOW",
        42: "READ_ZERO",
        43: "READ_INACTIVE",
        44: "READ_IMPOSSIBLE",
        45: "REGISTER_DOUBTED",
        46: "NEVER_READ",
        47: "READ_GAP",
        48: "SET_ASIDE",
        49: "DAY_EDGE",
    }
    assert all(r.source and r.about for r in (*INTERVAL_RULES.values(), *ROW_RULES.values()))


def test_thresholds_name_what_is_missing() -> None:
    with pytest.raises(thresholds.ThresholdError, match="lack"):
        thresholds.parse(b"version = 1\n")
    with pytest.raises(thresholds.ThresholdError, match="cannot be read"):
        thresholds.parse(b"version = \n")
    assert len(thresholds.default().digest) == 64


def test_the_published_rules_are_all_in_the_documentation() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "vee.md").read_text("utf-8")
    for registry in (INTERVAL_RULES, ROW_RULES):
        for rule in registry.values():
            assert (
                f"| {rule.bit} | {rule.code} | {rule.severity.get(Role.INITIAL, Severity.INFORM).name.lower()}" in text
            ), rule.code


def test_the_tables_of_quality_codes_say_what_each_code_says() -> None:
    said = {"null": 0, "fault": 0, "outage": 0}
    for code in range(1 << 16):
        try:
            found = quality.unpack(code)
        except ValueError:
            assert not any(code_table(name)[code] for name in said)
            continue
        assert code_table("null")[code] == (found.flag in "NM")
        assert code_table("fault")[code] == (found.flag == "A" and found.reason in (45, 82, 83, 84, 88, 96, 98))
        assert code_table("outage")[code] == (found.reason in (43, 79))
        for name in said:
            said[name] += int(code_table(name)[code])
    assert min(said.values()) > 0


def test_a_class_whose_registers_are_read_less_than_daily_moves_nothing() -> None:
    """Two classes of registers, the second without a read that encloses the day: the sums know only the first."""
    keys = pl.DataFrame(
        {"unit": ["gal", "kWh"], "flow": ["import", "import"], "customer_class": ["residential", "residential"]}
    )
    one = np.ones(1)
    moved = movement_sums(one, one, one, np.ones((1, 3)), np.ones((1, 3), np.bool_), np.zeros(1, np.int32))
    held = ClassMovement()
    held.add(0, keys, np.array([0, 1], np.int32), moved)
    assert list(held.sums) == [(0, "gal", "import", "residential")]
    assert ClassMovement.read(json.loads(held.text())).text() == held.text()
