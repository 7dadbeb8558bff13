"""Invariants of validation and estimation over random days: order, completeness, exact energy, idempotence."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.estimation.scaling import scale_rows, share_until, split_exactly
from meter_pipeline.vee.registers.exchange import installation_windows, slot_windows
from meter_pipeline.vee.registers.pace import at_pace, open_quantity, pace
from meter_pipeline.vee.registers.reads import Series, Step, steps
from meter_pipeline.vee.registers.window_use import use_in_windows
from meter_pipeline.vee.rules.model import RowContext
from meter_pipeline.vee.rules.thresholds import default
from meter_pipeline_tests.vee.matrices import DAY, history, matrix, validate

CODES = [
    0,
    0,
    0,
    quality.pack("S", 51),
    quality.pack("A", reason=43),
    quality.pack("A", reason=90),
    quality.pack("N"),
    quality.from_espi(8),
]


@st.composite
def days(draw: st.DrawFn, rows: int = 6) -> tuple[DayMatrix, RowContext, np.ndarray]:
    """A messy day: gaps, negatives, spikes, odd codes, off-grid clocks, part windows, registers or none."""
    slots = draw(st.sampled_from([23, 24, 25, 92, 96, 100]))
    minutes = 15 if slots > 30 else 60
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(0, 2_000_000, (rows, slots))
    values[rng.random((rows, slots)) < draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))] = NO_VALUE
    values[rng.random((rows, slots)) < 0.01] = -5_000
    values[rng.random((rows, slots)) < 0.01] = 10**13
    codes = rng.choice(np.array(CODES, np.uint16), (rows, slots), p=[0.8, 0.05, 0.05, 0.02, 0.02, 0.02, 0.02, 0.02])
    offsets = np.where(rng.random((rows, slots)) < 0.02, rng.integers(-600, 600, (rows, slots)), 0)
    day = matrix(values, quality=codes, offsets=offsets, minutes=minutes)
    context = RowContext.plain(rows, slots, limit=10**9)
    context.first = rng.integers(0, slots // 2, rows).astype(np.int32) * (rng.random(rows) < 0.3).astype(np.int32)
    context.last = np.where(rng.random(rows) < 0.3, rng.integers(slots // 2, slots + 1, rows), slots).astype(np.int32)
    context.register_difference = np.where(rng.random(rows) < 0.6, rng.integers(0, slots * 3_000_000, rows), NO_VALUE)
    context.register_tolerance[:] = 10_000
    return day, context, rng.permutation(rows)


@given(days())
@settings(max_examples=60)
def test_every_expected_slot_is_actual_estimated_or_null(case: tuple[DayMatrix, RowContext, np.ndarray]) -> None:
    day, context, _ = case
    out = validate(day, context, history(day.rows))
    assert np.array_equal(out.actual + out.estimated + out.missing, out.expected)
    assert (out.missing >= 0).all()
    slot = np.arange(day.slots)
    outside = (slot < context.first[:, None]) | (slot >= context.last[:, None])
    assert (out.values[outside] == NO_VALUE).all()
    assert np.array_equal(out.total, np.where(out.values == NO_VALUE, 0, out.values).sum(axis=1))
    assert (out.quality[out.values == NO_VALUE] == quality.MISSING).all()


@given(days())
@settings(max_examples=40)
def test_the_order_of_rows_does_not_matter(case: tuple[DayMatrix, RowContext, np.ndarray]) -> None:
    day, context, order = case
    straight = validate(day, context, history(day.rows))
    shuffled = DayMatrix(
        day.billing_day,
        day.interval_minutes,
        day.keys[order],
        day.values[order],
        day.quality[order],
        day.sequence[order],
        None if day.offsets is None else day.offsets[order],
    )
    turned = validate(shuffled, context.take(order), history(day.rows))
    for name in ("values", "quality", "flags", "row_flags", "total", "actual", "estimated", "missing", "unscaled"):
        assert np.array_equal(getattr(straight, name)[order], getattr(turned, name)), name


@given(days())
@settings(max_examples=40)
def test_validating_twice_changes_nothing(case: tuple[DayMatrix, RowContext, np.ndarray]) -> None:
    day, context, _ = case
    once = validate(day, context, history(day.rows))
    again = validate(
        DayMatrix(day.billing_day, day.interval_minutes, day.keys, once.values, once.quality, day.sequence),
        context,
        history(day.rows),
    )
    kept = once.missing == 0
    assert np.array_equal(again.values[kept], once.values[kept])
    assert np.array_equal(again.quality[kept], once.quality[kept])


@given(days())
@settings(max_examples=40)
def test_estimates_add_up_to_the_register_to_the_unit(case: tuple[DayMatrix, RowContext, np.ndarray]) -> None:
    day, context, _ = case
    out = validate(day, context, history(day.rows))
    from meter_pipeline.vee.rules import row_rules as rr

    scaled = (out.row_flags & rr.ESTIMATED.mask != 0) & (out.row_flags & (rr.UNSCALED.mask | rr.INFEASIBLE.mask) == 0)
    fits = np.abs(out.total - out.difference) <= context.register_tolerance
    exact = out.total == out.difference
    assert (fits | ~scaled).all()
    source = np.array([(out.quality[i] != 0).any() for i in range(day.rows)])
    assert (exact | ~scaled | (out.total > out.difference) | ~source).all()


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 10**13), min_size=1, max_size=300))
def test_an_integer_splits_into_parts_that_sum_to_it(amount: int, weights: list[int]) -> None:
    parts = split_exactly(amount, np.array(weights, np.int64))
    assert int(parts.sum()) == amount
    assert ((parts >= 0) if amount >= 0 else (parts <= 0)).all()


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=40), st.integers(0, 10**12))
def test_larger_weights_never_get_less(weights: list[int], amount: int) -> None:
    parts = split_exactly(amount, np.array(weights, np.int64))
    order = np.argsort(weights, kind="stable")
    assert (np.diff(parts[order]) >= -1).all()


def test_time_of_use_buckets_are_scaled_each_to_its_own_register() -> None:
    rng = np.random.default_rng(5)
    estimates = rng.integers(0, 10**6, (4, 96))
    mask = rng.random((4, 96)) < 0.5
    bucket = (np.arange(96) // 32).astype(np.int32)
    residuals = rng.integers(0, 10**8, (4, 3))
    out = scale_rows(estimates, mask, residuals, bucket)
    for b in range(3):
        assert np.array_equal(np.where(mask & (bucket == b), out, 0).sum(axis=1), residuals[:, b])
    assert np.array_equal(out[~mask], estimates[~mask])


@given(st.integers(0, 10**14), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_share_of_a_stretch_telescopes(amount: int, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 10**6]
    assert (
        sum(share_until(amount, b, 10**6) - share_until(amount, a, 10**6) for a, b in itertools.pairwise(edges))
        == amount
    )


@st.composite
def registers(draw: st.DrawFn) -> tuple[Series, int]:
    """One register read irregularly for some days, running over its last digit and back now and then."""
    gaps = draw(st.lists(st.integers(60, 90_000), min_size=2, max_size=40))
    uses = draw(st.lists(st.integers(0, 3_000_000), min_size=len(gaps), max_size=len(gaps)))
    at = np.cumsum([0, *gaps]).astype(np.int64)
    level = np.cumsum([draw(st.integers(0, 99_999_999)), *uses]).astype(np.int64)
    capacity = draw(st.sampled_from([0, 100_000_000]))
    dial = level % capacity if capacity else level
    return Series(np.zeros(at.size, np.int64), at, dial, np.array([capacity], np.int64)), int(sum(uses))


@given(registers(), st.lists(st.integers(0, 3_700_000), max_size=12))
def test_consumption_is_conserved_however_time_is_cut_and_over_the_last_digit(
    case: tuple[Series, int], cuts: list[int]
) -> None:
    reads, used = case
    found = steps(reads, default())
    assert set(found.cause.tolist()) <= {Step.FIRST, Step.NORMAL, Step.ROLLOVER}
    edges = [0, *sorted(c for c in cuts if 0 < c < reads.at[-1]), int(reads.at[-1])]
    total = 0
    for a, b in itertools.pairwise(edges):
        part = use_in_windows(reads, found, np.array([a]), np.array([b]), 0)
        total += int(part.quantity[0])
    assert total == used


@given(registers(), st.integers(0, 86_399), st.integers(0, 200_000))
def test_days_between_two_reads_sum_to_their_difference_whenever_in_the_day_the_reads_stand(
    case: tuple[Series, int], into_day: int, before: int
) -> None:
    """Whole days from before the first read to after the last: what they come to beside the register is time outside
    the reads, at pace."""
    reads, used = case
    found = steps(reads, default())
    last = int(reads.at[-1])
    edges = range(-before - into_day, last + 86_400, 86_400)
    own = pace(reads, found, edges[-1], 28 * 86_400)
    total, ahead, behind = 0, 0, 0
    for opens in edges[:-1]:
        part = use_in_windows(reads, found, np.array([opens]), np.array([opens + 86_400]), 0)
        whole = int(part.quantity[0])
        ended = open_quantity(part, own, 0)
        assert (whole == NO_VALUE) == (ended is not None)
        total += whole if ended is None else int(part.enclosed[0])
        ahead, behind = ahead + int(part.lead_s[0]), behind + int(part.tail_s[0])
        if ended is not None:
            tail = at_pace(int(own.amount[0]), int(own.seconds[0]), int(part.tail_s[0]))
            assert (
                ended
                == int(part.enclosed[0])
                + at_pace(int(own.lead_amount[0]), int(own.lead_seconds[0]), int(part.lead_s[0]))
                + tail
            )
    assert ahead == before + into_day
    assert behind == max(edges[-1] - last, 0)
    if edges[-1] >= last:
        assert total == used


@given(st.integers(0, 86_400), st.integers(-7200, 7200))
def test_an_exchange_gives_every_second_to_at_most_one_meter(swap: int, shift: int) -> None:
    install = max(swap + shift, 1)
    frame = pl.DataFrame(
        {
            "service_point_id": ["SP", "SP"],
            "meter_id": ["A", "B"],
            "channel": ["E1", "E1"],
            "flow": ["import"] * 2,
            "unit": ["kWh"] * 2,
            "billed": [True, True],
            "installed_s": [-1_000_000, install],
            "removed_s": [swap, None],
            "interval_minutes": [15, 15],
        },
        schema_overrides={"removed_s": pl.Int64},
    )
    windows = installation_windows(frame, 0, 86_400)
    seconds = int((windows["end_s"] - windows["begin_s"]).sum())
    gap = max(0, min(install, 86_400) - max(swap, 0))
    assert seconds == 86_400 - gap
    cut = slot_windows(windows, 0, pl.lit(900))
    held = pl.col("end_s") > pl.col("begin_s")
    assert (
        cut.select((pl.col("first") >= 0) & (pl.col("last") <= 96) & ((pl.col("first") < pl.col("last")) | ~held))
        .to_series()
        .all()
    )
    assert int(windows["gap_s"].sum()) == (gap if windows.height == 2 or gap else 0) or windows.height < 2


@pytest.mark.parametrize("final", [False, True])
def test_an_estimate_says_how_and_why(final: bool) -> None:
    values = np.full((1, 96), 250_000)
    values[0, 10:14] = NO_VALUE
    out = validate(matrix(values), past=history(1), final=final)
    word = quality.unpack(int(out.quality[0, 11]))
    assert (word.flag, word.method, word.reason) == ("F" if final else "S", 17, 85)
    assert quality.to_espi(int(out.quality[0, 11])) == 9
    assert out.billing_day == DAY
