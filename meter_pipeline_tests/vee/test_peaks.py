"""Peaks and spikes: a high interval is a spike only where neither the register nor the meter's own history bears it
out."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from meter_pipeline.quality import pack
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules import thresholds
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, codes
from meter_pipeline.vee.rules.interval_rules import run_interval_rules, subject
from meter_pipeline.vee.rules.model import DailyHistory, RowContext
from meter_pipeline.vee.rules.statistics import row_statistics
from meter_pipeline_tests.vee.matrices import DAY, matrix

LIMIT = 25_000_000


def hits(
    values: np.ndarray, *, largest: int | None = None, difference: int = NO_VALUE, quality: dict[int, int] | None = None
) -> dict[int, list[str]]:
    day = matrix(values[None, :])
    for slot, code in (quality or {}).items():
        day.quality[0, slot] = code
    context = RowContext.plain(1, values.size, limit=LIMIT)
    context.register_difference = np.array([difference])
    days = [DAY - timedelta(days=k) for k in range(7, 0, -1)]
    past = (
        None
        if largest is None
        else DailyHistory(days, np.full((1, 7), largest), np.ones((1, 7), np.bool_), np.ones(7, np.bool_))
    )
    judged = subject(day, context, row_statistics(day.values, context.first, context.last), thresholds.default(), past)
    flags = run_interval_rules(judged)
    return {int(j): codes(INTERVAL_RULES, int(flags[0, j])) for j in np.flatnonzero(flags[0])}


def peaked() -> np.ndarray:
    values = 250_000 + (np.arange(96) * 7919 % 97) * 1000
    values[40] = 6_000_000
    return values


def test_a_spike_is_a_peak_where_the_register_counted_it_or_a_day_was_as_large_before() -> None:
    total = int(peaked().sum())
    assert hits(peaked()) == {40: ["SPIKE"]}
    assert hits(peaked(), largest=total - 1) == {40: ["SPIKE"]}
    assert hits(peaked(), largest=total) == {40: ["PEAK"]}
    assert hits(peaked(), difference=total) == {40: ["PEAK"]}
    # a register that is known is asked first, whatever the history says
    assert hits(peaked(), largest=2 * total, difference=total // 2)[40][0] == "SPIKE"


def test_an_interval_the_meter_itself_refuses_is_no_spike_and_hides_none() -> None:
    values = peaked()
    values[70] = 65_535_000
    found = hits(values, quality={70: pack("A", reason=95)})
    assert found == {40: ["SPIKE"], 70: ["RANGE", "PULSE_OVERFLOW"]}
