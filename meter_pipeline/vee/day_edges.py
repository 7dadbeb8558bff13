"""Intervals that do not end with the billing day: hourly meters where clocks change by half an hour.

A meter that keeps one offset all year reads on the half hour for half of it (Lord Howe Island: 30 minutes off from
April to October, or from October to April). Each interval belongs to the day that holds its start, so the first or the
last one of a day reaches over midnight, and a register read at midnight counts half an hour more or less than the day's
intervals do.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

import numpy as np

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.rules.row_rules import DAY_EDGE


@lru_cache(maxsize=4096)
def phases(zone: str, day: date, step_s: int) -> tuple[int, ...]:
    """Seconds, other than 0, by which intervals of a clock that keeps one of the zone's offsets all year begin behind
    those counted from the day's midnight."""
    calendar = BillingCalendar(zone)
    starts = (calendar.start_s(date(day.year, month, 1)) for month in (1, 7))
    return tuple(sorted({(start - calendar.start_s(day)) % step_s for start in starts} - {0}))


def settle(rows: DayRows, calendar: BillingCalendar, day: date) -> None:
    """Give rows whose intervals reach over midnight their place: the offset that their clock explains is no drift, the
    slots that begin in the day are expected, and the register may differ by the intervals that midnight cuts.

    Rows need their registers attached. Nothing happens where the day is whole intervals and clocks change by whole
    ones.
    """
    matrix, context = rows.matrix, rows.context
    step, length = matrix.interval_minutes * 60, calendar.seconds(day)
    known = phases(calendar.zone, day, step) if matrix.offsets is not None else ()
    if not known and length % step == 0:
        return
    here = matrix.values != NO_VALUE
    phase = np.zeros(matrix.rows, np.int64)
    for seconds in known:
        own = here.any(axis=1) & ((matrix.offsets == seconds) | ~here).all(axis=1)
        phase[own] = seconds
    if phase.any() and matrix.offsets is not None:
        offsets = np.where(phase[:, None] > 0, np.int16(0), matrix.offsets)
        matrix.offsets = offsets if offsets.any() else None
    last = -(-(length - phase) // step)
    context.last = np.minimum(context.last, last).astype(np.int32)
    cut = (phase > 0).astype(np.int64) + (last * step + phase > length)
    largest = np.where(here, np.abs(matrix.values), 0).max(axis=1, initial=0)
    context.register_tolerance = context.register_tolerance + cut * largest
    context.register_flags = context.register_flags | np.where((cut > 0) & here.any(axis=1), DAY_EDGE.mask, 0)
