"""The estimation ladder: the probable value of a missing interval, and the quality code of its method.

The order: linear up to two hours; average of like days; days of similar temperature; the class's shape of this very
day; average daily load; the register alone; zero on an inactive service. Every method is integer arithmetic on micro
base units.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules.model import Bools, Ints, VectorHistory, VectorLoader
from meter_pipeline.vee.rules.thresholds import Thresholds

#: AEMO substitution methods of each step of the ladder (MDFF v2.6, metering installation types 1 to 4, and 57 customer
# class)
LINEAR: Final = 17
LIKE_DAY: Final = 15
PROXY_DAY: Final = 14
CLASS_PROFILE: Final = 57
ADL: Final = 25
ZERO: Final = 19
REGISTER: Final = 24
#: Rows whose earlier days are held at once
BLOCK_ROWS: Final = 4096
METHOD_NAMES: Final = {
    LINEAR: "linear",
    LIKE_DAY: "average of like days",
    PROXY_DAY: "day of similar temperature",
    CLASS_PROFILE: "class profile",
    ADL: "average daily load",
    ZERO: "zero",
    REGISTER: "register alone",
}


@dataclass(slots=True)
class EstimateNeed:
    """Rows that need estimates: the accepted values and which slots are to be filled.

    ``values`` (rows, slots) with NO_VALUE where nothing was accepted; ``missing``: the slots to estimate; ``anchor``:
    values that may carry an interpolation (accepted, not an outage); ``first``/``last``: expected slots. ``daily``: the
    row's average daily load in micro units, NO_VALUE where it has none. ``shape`` (rows, slots): the class's shape of
    the day, in millionths of its whole, 0 rows where there is none; ``class_daily``: the class's mean day. ``active``:
    False means that nothing should have been used.
    ``signed``: values may be negative, as on a net channel, whose sums and shapes say nothing of proportions.
    """

    values: Ints
    missing: Bools
    anchor: Bools
    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    daily: Ints
    shape: Ints
    class_daily: Ints
    active: Bools
    signed: Bools


@dataclass(slots=True)
class Estimate:
    """Estimates (rows, slots): ``values`` where ``method`` is not 0; ``method`` the AEMO code. ``notes`` per row: days
    and anchors used."""

    values: Ints
    method: npt.NDArray[np.uint8]
    notes: list[str]


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any]:
    import numba

    nothing = NO_VALUE

    @numba.njit(cache=True, nogil=True)
    def interpolate(left, right, position, span):  # type: ignore[no-untyped-def]  # compiled
        # left + (right - left) * position / span, rounded half up, in integers
        number = 2 * (right - left) * position + span
        return left + number // (2 * span)

    @numba.njit(cache=True, nogil=True)
    def linear(values, missing, anchor, first, last, before, after, longest, one_sided, out, method, code):  # type: ignore[no-untyped-def]  # compiled
        rows, slots = values.shape
        k = before.shape[1]
        for r in range(rows):
            j = first[r]
            while j < last[r]:
                if not missing[r, j] or method[r, j] != 0:
                    j += 1
                    continue
                i = j
                while j < last[r] and missing[r, j] and method[r, j] == 0:
                    j += 1
                run = j - i
                # anchor to the left: within the day, or among the last intervals of the day before
                left = nothing
                dl = 0
                if i > first[r]:
                    if anchor[r, i - 1]:
                        left = values[r, i - 1]
                        dl = 1
                elif i == 0:
                    for b in range(k):
                        if before[r, k - 1 - b] != nothing:
                            left = before[r, k - 1 - b]
                            dl = b + 1
                            break
                right = nothing
                dr = 0
                if j < last[r]:
                    if anchor[r, j]:
                        right = values[r, j]
                        dr = 1
                elif j == slots:
                    for b in range(k):
                        if after[r, b] != nothing:
                            right = after[r, b]
                            dr = b + 1
                            break
                if left != nothing and right != nothing:
                    whole = run + dl - 1 + dr - 1
                    if whole <= longest:
                        for m in range(run):
                            out[r, i + m] = interpolate(left, right, dl + m, whole + 1)
                            method[r, i + m] = code
                elif one_sided and run <= longest and (left != nothing or right != nothing):
                    flat = left if left != nothing else right
                    for m in range(run):
                        out[r, i + m] = flat
                        method[r, i + m] = code

    @numba.njit(cache=True, nogil=True)
    def average_days(values, usable, order, need, level, wanted, least, pending, out, method, code, used):  # type: ignore[no-untyped-def]  # compiled
        _, rows, slots = values.shape
        total = np.empty(slots, np.int64)
        for r in range(rows):
            waiting = False
            for j in range(slots):
                total[j] = 0
                if pending[r, j]:
                    waiting = True
            if not waiting:
                continue
            found = 0
            weight = np.int64(0)
            mine = np.int64(0)
            theirs = np.int64(0)
            for o in range(order.shape[1]):
                d = order[r, o]
                if d < 0 or found == wanted:
                    break
                fits = True
                for j in range(slots):
                    if pending[r, j] and not usable[d, r, j]:
                        fits = False
                        break
                if not fits:
                    continue
                # the nearest day weighs most: usage drifts with the season
                w = np.int64(wanted - found)
                for j in range(slots):
                    if pending[r, j]:
                        total[j] += w * values[d, r, j]
                    elif level and need[r, j] != nothing and usable[d, r, j]:
                        mine += w * need[r, j]
                        theirs += w * values[d, r, j]
                used[r, found] = d
                found += 1
                weight += w
            if found < least:
                for f in range(found):
                    used[r, f] = -1
                continue
            # a day that runs at 1.3 times its like days is taken to do so in its gap, within half and double
            numerator = np.int64(1000)
            if level and theirs > 0 and mine > 0:
                numerator = np.int64(np.float64(mine) / np.float64(theirs) * 1000.0 + 0.5)
                numerator = min(max(numerator, np.int64(500)), np.int64(2000))
            for j in range(slots):
                if pending[r, j]:
                    mean = (2 * total[j] + weight) // (2 * weight)
                    out[r, j] = (mean * numerator + 500) // 1000
                    method[r, j] = code

    return linear, average_days


def fill_linear(need: EstimateNeed, before: Ints, after: Ints, longest: int, one_sided: bool, found: Estimate) -> None:
    """Point to point between anchors, in gaps of at most ``longest`` intervals counted across midnight; flat from the
    one anchor of a one-sided gap where asked (source: California DASMMD VEE 4.1; Oracle MDM Interval Interpolation)."""
    _kernels()[0](
        need.values,
        need.missing,
        need.anchor,
        need.first,
        need.last,
        np.ascontiguousarray(before),
        np.ascontiguousarray(after),
        longest,
        one_sided,
        found.values,
        found.method,
        LINEAR,
    )


def _pending(need: EstimateNeed, found: Estimate) -> Bools:
    pending: Bools = need.missing & (found.method == 0)
    return pending


def fill_days(
    need: EstimateNeed,
    history: VectorHistory,
    order: npt.NDArray[np.int64],
    wanted: int,
    least: int,
    method: int,
    level: bool,
    found: Estimate,
) -> None:
    """Average of up to ``wanted`` days in the given order of preference, (rows, candidates) with -1 for none, the first
    weighing ``wanted`` times the last; a day serves only where all the slots it is needed for are usable. ``level``:
    brought to today's level by the slots both days have."""
    if not history.days or not order.size:
        return
    rows = need.values.shape[0]
    used = np.full((rows, max(wanted, 1)), -1, np.int64)
    pending = _pending(need, found)
    # half a net day is no measure of the other half: export at noon says nothing of the evening
    known = np.where(need.anchor & ~need.signed[:, None], need.values, NO_VALUE)
    _kernels()[1](
        np.ascontiguousarray(history.values),
        np.ascontiguousarray(history.usable),
        np.ascontiguousarray(order),
        known,
        level,
        wanted,
        least,
        pending,
        found.values,
        found.method,
        method,
        used,
    )
    for row in np.flatnonzero((used >= 0).any(axis=1)):
        days = ", ".join(history.days[d].isoformat() for d in used[row] if d >= 0)
        found.notes[row] = f"{found.notes[row]}; {METHOD_NAMES[method]}: {days}".lstrip("; ")


def like_day_order(history: VectorHistory, rows: int) -> npt.NDArray[np.int64]:
    """Candidate days, nearest first, among those of the day's own class (Itron: three nearest same or like weekday
    days)."""
    chosen = np.flatnonzero(history.like)[::-1].astype(np.int64)
    return np.broadcast_to(chosen, (rows, chosen.size)).copy()


def proxy_day_order(history: VectorHistory, rows: int, celsius: float) -> npt.NDArray[np.int64]:
    """Candidate days by temperature, the most alike first, within ``celsius`` (Oracle MDM Interval Proxy Day)."""
    distance = np.abs(history.temperature - history.day_temperature)
    near = np.flatnonzero(distance <= celsius)
    chosen = near[np.lexsort((-near, distance[near]))].astype(np.int64)
    return np.broadcast_to(chosen, (rows, chosen.size)).copy()


def fill_profile(need: EstimateNeed, found: Estimate) -> None:
    """The class's shape of this very day at the row's own average daily load; a row without history takes the class's
    mean day (AEMO method 57 customer class; Itron Load Profiling)."""
    has_shape = need.shape.any(axis=1) & ~need.signed
    level = np.where(need.daily != NO_VALUE, need.daily, need.class_daily)
    rows = has_shape & (level != NO_VALUE)
    pending = _pending(need, found) & rows[:, None]
    values = (np.where(rows, level, 0)[:, None] * need.shape + 500_000) // 1_000_000
    found.values[pending] = values[pending]
    found.method[pending] = CLASS_PROFILE


def fill_adl(need: EstimateNeed, found: Estimate) -> None:
    """Average daily load, flat (Itron Average Daily Load; AEMO method 25): of the days before, else of the rest of the
    day itself."""
    rows = need.daily != NO_VALUE
    pending = _pending(need, found) & rows[:, None]
    slots = need.values.shape[1]
    flat = (2 * np.where(rows, need.daily, 0) + slots) // (2 * slots)
    found.values[pending] = np.broadcast_to(flat[:, None], pending.shape)[pending]
    found.method[pending] = ADL
    # a meter without any history: the rest of its own day, where that is a quarter of it or more
    count = need.anchor.sum(axis=1)
    seen = np.where(need.anchor, need.values, 0).sum(axis=1)
    enough = count * 4 >= np.maximum(need.last - need.first, 1)
    pending = _pending(need, found) & enough[:, None]
    own = (2 * seen + count) // np.maximum(2 * count, 1)
    found.values[pending] = np.broadcast_to(own[:, None], pending.shape)[pending]
    found.method[pending] = ADL


def _edges(need: EstimateNeed, number: Ints, loader: VectorLoader) -> tuple[Ints, Ints]:
    """Anchors beyond midnight, fetched only for rows whose gap reaches it."""
    touching = np.flatnonzero(need.missing[:, 0] | need.missing[:, -1])
    if not touching.size:
        nothing = np.full((number.size, 1), NO_VALUE, np.int64)
        return nothing, nothing.copy()
    some_before, some_after = loader.edges(number[touching])
    before = np.full((number.size, some_before.shape[1]), NO_VALUE, np.int64)
    after = np.full((number.size, some_after.shape[1]), NO_VALUE, np.int64)
    before[touching], after[touching] = some_before, some_after
    return before, after


def _take(need: EstimateNeed, found: Estimate, rows: Ints) -> tuple[EstimateNeed, Estimate]:
    part = replace(need, **{f.name: np.ascontiguousarray(getattr(need, f.name)[rows]) for f in fields(need)})
    return part, Estimate(found.values[rows], found.method[rows], [found.notes[int(r)] for r in rows])


def _fill_from_days(
    need: EstimateNeed, number: Ints, loader: VectorLoader, thresholds: Thresholds, found: Estimate
) -> None:
    """Like days, then days of similar temperature, for the rows still open, a block of rows at a time so that memory
    stays bounded."""
    waiting = np.flatnonzero(_pending(need, found).any(axis=1))
    for start in range(0, waiting.size, BLOCK_ROWS):
        rows = waiting[start : start + BLOCK_ROWS]
        history = loader.days(number[rows])
        part, own = _take(need, found, rows)
        fill_days(
            part,
            history,
            like_day_order(history, rows.size),
            thresholds.like_days,
            thresholds.like_days_min,
            LIKE_DAY,
            True,
            own,
        )
        if np.isfinite(history.day_temperature):
            order = proxy_day_order(history, rows.size, thresholds.proxy_celsius)
            fill_days(part, history, order, thresholds.proxy_days, 1, PROXY_DAY, True, own)
        found.values[rows], found.method[rows] = own.values, own.method
        for row, note in zip(rows, own.notes, strict=True):
            found.notes[int(row)] = note


def estimate(
    need: EstimateNeed,
    number: Ints,
    loader: VectorLoader,
    interval_minutes: int,
    thresholds: Thresholds,
    has_register: Bools,
) -> Estimate:
    """Estimates of every missing slot the ladder can fill, unscaled. ``number``: the rows' indices in the day's matrix,
    for the loader.

    ``has_register``: rows whose register difference is known, so that even without any history the register shares
    itself out evenly. A slot that nothing can fill keeps method 0.
    """
    rows, slots = need.values.shape
    found = Estimate(np.full((rows, slots), NO_VALUE, np.int64), np.zeros((rows, slots), np.uint8), [""] * rows)
    idle = need.missing & ~need.active[:, None]
    found.values[idle], found.method[idle] = 0, ZERO
    share = need.missing.sum(axis=1) / np.maximum(need.last - need.first, 1)
    refused = share > thresholds.max_missing_share
    longest = int(thresholds.linear_hours * 60 // interval_minutes)
    before, after = _edges(need, number, loader)
    if longest:
        fill_linear(need, before, after, longest, False, found)
    _fill_from_days(need, number, loader, thresholds, found)
    fill_profile(need, found)
    if longest:
        fill_linear(need, before, after, longest, True, found)
    fill_adl(need, found)
    rest = _pending(need, found) & has_register[:, None]
    found.values[rest], found.method[rest] = 0, REGISTER
    if refused.any():
        found.method[refused], found.values[refused] = 0, NO_VALUE
    return found
