"""The use that a day is compared with by the rules HIGH and LOW."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules.interval_rules import Subject
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Floats, Ints
from meter_pipeline.vee.rules.movement import Movement, MovementSums, movement_sums
from meter_pipeline.vee.rules.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Expectation:
    """Today's total over what was expected, by row, and how far the row usually strays from 1. ``testable``: enough
    history to say. ``moved``: what the movement of the classes was made of; None where there is no history or it was
    given."""

    testable: Bools
    ratio: Floats
    deviation: Floats
    moved: MovementSums | None = None


def expectation(s: Subject, total: Ints, history: DailyHistory, movement: Movement | None = None) -> Expectation:
    """Expected and actual use of each row (``expected_use``).

    A meter that answers for part of the day, after an exchange, is not held against whole days.
    """
    known = (s.statistics.present == s.context.expected) & (s.context.expected == s.day.slots)
    return expected_use(total, known, s.context.group, history, s.thresholds, movement)


def expected_use(
    total: Ints | Floats,
    known: Bools,
    group: npt.NDArray[np.int32],
    history: DailyHistory,
    t: Thresholds,
    movement: Movement | None = None,
) -> Expectation:
    """What rows were expected to use on a day, against their ``total``; ``known``: whole days; ``group``: peers by
    number; ``movement``: how the groups moved, where the rows are not the whole day (by default the rows say it).

    Weather moves a whole class together, so the class's own movement today against the same days is the adjustment: no
    weather data has to have arrived, and a class of one falls back to its own average. Only wholly actual days count.
    """
    rows, days = history.totals.shape
    ratio, deviation = np.ones(rows), np.full(rows, np.inf)
    if days == 0:
        return Expectation(np.zeros(rows, np.bool_), ratio, deviation)
    good = history.actual & (history.totals != NO_VALUE)
    values = np.where(good, history.totals, 0).astype(np.float64)
    counts = good.sum(axis=1)
    own = values.sum(axis=1) / np.maximum(counts, 1)
    today_known = known & (counts >= t.high_low_min_days)
    base = np.where(today_known & (own > 0), own, 0.0)
    share = np.where(own[:, None] > 0, values / np.maximum(own[:, None], 1e-9), 0.0)
    # class movement: what the class used on each day over what its members use on average; NaN-free by construction
    moved = None if movement is not None else movement_sums(total, base, own, share, good, group)
    found = movement or (moved.movement() if moved is not None else None)
    assert found is not None  # noqa: S101 - one of the two is there
    move = found.today
    residual = np.abs(share - found.days[group])
    spread = np.where(good, residual, 0.0).sum(axis=1) / np.maximum(counts, 1)
    expected = own * move[group]
    testable = today_known & (expected > 0)
    ratio = np.where(testable, total / np.maximum(expected, 1e-9), 1.0)
    # mean absolute deviation to standard deviation of a normal: sqrt(pi / 2)
    return Expectation(testable, ratio, np.maximum(spread * 1.2533, 0.05), moved)


def is_high(e: Expectation, t: Thresholds) -> Bools:
    """Rows far above their expected use."""
    return e.testable & (e.ratio > t.high_ratio) & (e.ratio - 1.0 > t.high_low_sigmas * e.deviation)


def is_low(e: Expectation, t: Thresholds) -> Bools:
    """Rows far below their expected use."""
    found: Bools = (
        e.testable & (e.ratio < t.low_ratio) & (1.0 - e.ratio > np.minimum(t.high_low_sigmas * e.deviation, 0.95))
    )
    return found
