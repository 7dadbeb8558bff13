"""Usage of registers in windows of time: interpolated where a window's edge falls between two reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers.reads import Series, Steps
from meter_pipeline.vee.rules.model import Bools, Ints


@dataclass(frozen=True, slots=True)
class WindowUse:
    """Consumption of every series in one window of time. ``quantity`` micro units before the multiplier, NO_VALUE where
    no read closes it.

    ``closed``: a read stands at or after the window's end. ``gap_s``: the longer of the two distances between the reads
    around the window's edges, in seconds: 0 where both edges fall on reads. ``broken``: an unexplained decrease lies in
    the window. ``causes``: bits ``1 << Step`` of the steps in the window. ``reads``: reads used in the window.
    ``lead_s`` and ``tail_s``: seconds of the window before the series' first read and after its last, which no reads
    enclose; ``enclosed``: micro units of the rest of it.
    """

    quantity: Ints
    closed: Bools
    gap_s: Ints
    broken: Bools
    causes: Ints
    reads: Ints
    lead_s: Ints
    tail_s: Ints
    enclosed: Ints

    @staticmethod
    def empty(count: int) -> WindowUse:
        """``count`` windows of which nothing is known."""
        zero = [np.zeros(count, np.int64) for _ in range(6)]
        none, no = np.full(count, NO_VALUE, np.int64), np.zeros((2, count), np.bool_)
        return WindowUse(none, no[0], zero[0], no[1], *zero[1:])


@lru_cache(maxsize=1)
def _window_kernel() -> Any:
    import numba

    nothing = NO_VALUE

    @numba.njit(cache=True, nogil=True)
    def cumulative(at, level, known, count, when, snap, grain):  # type: ignore[no-untyped-def]  # compiled
        """Level of a series at an instant: (status, level, distance of the reads around, index of the read at or
        before)."""
        lo = 0
        hi = count
        while lo < hi:
            mid = (lo + hi) // 2
            if at[mid] <= when:
                lo = mid + 1
            else:
                hi = mid
        i = lo - 1
        # a read within the snap of a boundary stands for it
        if i >= 0 and when - at[i] <= snap and (i + 1 >= count or at[i + 1] - when >= when - at[i]):
            return 0, level[i], np.int64(0), i
        if i + 1 < count and at[i + 1] - when <= snap:
            return 0, level[i + 1], np.int64(0), i + 1
        if i < 0:
            return -1, np.int64(0), np.int64(0), i
        if i + 1 >= count:
            return 1, np.int64(0), np.int64(0), i
        whole = at[i + 1] - at[i]
        if not known[i + 1]:
            return 2, np.int64(0), whole, i
        amount = level[i + 1] - level[i]
        elapsed = when - at[i]
        # amount * elapsed // whole without leaving 64 bits
        share = (amount // whole) * elapsed + (amount % whole) * elapsed // whole
        return 0, level[i] + share // grain * grain, whole, i

    @numba.njit(cache=True, nogil=True)
    def kernel(  # type: ignore[no-untyped-def]  # compiled
        starts,
        at,
        used,
        consumed,
        cause,
        opens,
        closes,
        snap,
        grain,
        quantity,
        closed,
        gap_s,
        broken,
        causes,
        reads,
        lead_s,
        tail_s,
        enclosed,
    ):
        longest = 0
        for k in range(starts.shape[0] - 1):
            longest = max(longest, starts[k + 1] - starts[k])
        times = np.empty(longest, np.int64)
        level = np.empty(longest, np.int64)
        known = np.empty(longest, np.bool_)
        for k in range(starts.shape[0] - 1):
            n = 0
            for i in range(starts[k], starts[k + 1]):
                if opens[k] < at[i] <= closes[k]:
                    causes[k] |= np.int64(1) << np.int64(cause[i])
                if not used[i]:
                    continue
                if opens[k] < at[i] <= closes[k]:
                    reads[k] += 1
                times[n] = at[i]
                known[n] = consumed[i] != nothing
                previous = level[n - 1] if n else np.int64(0)
                level[n] = previous + (consumed[i] if known[n] else np.int64(0))
                n += 1
            if n == 0:
                continue
            s0, l0, g0, i0 = cumulative(times[:n], level[:n], known[:n], n, opens[k], snap[k], grain[k])
            s1, l1, g1, i1 = cumulative(times[:n], level[:n], known[:n], n, closes[k], snap[k], grain[k])
            closed[k] = s1 == 0 or s1 == 2
            gap_s[k] = max(g0, g1)
            if s0 == 2 or s1 == 2:
                broken[k] = True
            for i in range(max(i0 + 1, 1), i1 + 1):
                if not known[i]:
                    broken[k] = True
            if s0 == 0 and s1 == 0 and not broken[k]:
                quantity[k] = l1 - l0
            if s0 == -1:
                lead_s[k] = min(times[0], closes[k]) - opens[k]
            if s1 == 1:
                tail_s[k] = closes[k] - max(times[n - 1], opens[k])
            if not broken[k] and s0 != 1 and s1 != -1:
                enclosed[k] = (level[n - 1] if s1 == 1 else l1) - (level[0] if s0 == -1 else l0)

    return kernel


def use_in_windows(
    reads: Series, found: Steps, opens: Ints, closes: Ints, snap_s: int | Ints, grain: Ints | None = None
) -> WindowUse:
    """Returns the usage of each series in its half-open window (opens, closes], UTC seconds.

    ``grain``: by series the micro units that a share is a multiple of (None: 1): a millionth of the dial's own unit, so
    that what is counted in hundreds of cubic feet is billed in them without a remainder.

    A read within ``snap_s`` of an edge stands for the edge; otherwise the step around it is prorated evenly over its
    seconds in integers, so adjoining windows with the same edge lose and double nothing. A window that begins before
    the first read or has no closing read has no ``quantity``; ``enclosed`` is what its reads enclose of it.
    """
    count = reads.starts.size - 1
    out = WindowUse.empty(count)
    if reads.series.size:
        snaps = np.broadcast_to(np.asarray(snap_s, np.int64), (count,)).copy()
        _window_kernel()(
            reads.starts,
            reads.at,
            found.used,
            found.consumed,
            found.cause,
            np.ascontiguousarray(opens),
            np.ascontiguousarray(closes),
            snaps,
            np.ones(count, np.int64) if grain is None else np.ascontiguousarray(grain),
            out.quantity,
            out.closed,
            out.gap_s,
            out.broken,
            out.causes,
            out.reads,
            out.lead_s,
            out.tail_s,
            out.enclosed,
        )
    return out
