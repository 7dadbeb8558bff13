"""Cumulative registers: what a sequence of dial readings says was used, and why it sometimes goes back or falls silent.

Everything runs on flat arrays of reads sorted by series and time, a city at once. A series is one register of one
installation. The consumption between two instants is a difference of one cumulative integer function of time, so
however the time is cut, the parts sum to what the register counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules.model import Bools, Ints
from meter_pipeline.vee.rules.thresholds import Thresholds


class Step(IntEnum):
    """Cause of the step from the read before. FIRST opens a series."""

    FIRST = 0
    NORMAL = 1
    ROLLOVER = 2
    REVERSE_FLOW = 3
    READ_ERROR = 4
    DECREASE = 5
    DIALS = 6
    RECOVERED = 7


#: What each step's code means in words, for explain and reports
STEP_ABOUT: Final = {
    Step.FIRST: "first read of the series",
    Step.NORMAL: "counted on",
    Step.ROLLOVER: "ran over its last digit",
    Step.REVERSE_FLOW: "went back a little: backflow or play of the register",
    Step.READ_ERROR: "out of line with the reads around it: not used",
    Step.DECREASE: "went back and nothing explains it: reset, tampering or an exchange nobody recorded",
    Step.DIALS: "more digits than the meter has: not used",
    Step.RECOVERED: "counted on from the last good read",
}


class Gap(IntEnum):
    """Why a register was silent for longer than its habit. NONE: it was not."""

    NONE = 0
    LOST_MESSAGES = 1
    HEAD_END = 2
    IRREGULAR = 3
    LONG_SILENCE = 4
    CLOCK_CHANGE = 5


GAP_ABOUT: Final = {
    Gap.NONE: "no gap",
    Gap.LOST_MESSAGES: "whole radio messages lost: one read distance and a multiple of the reads a message carries",
    Gap.HEAD_END: "many meters of the head-end silent at once",
    Gap.IRREGULAR: "the meter read late or skipped",
    Gap.LONG_SILENCE: "a day or more without a read",
    Gap.CLOCK_CHANGE: "no gap: the local clock went forward between two reads that are as far apart as ever",
}


@dataclass(frozen=True, slots=True)
class Series:
    """Register reads sorted by (series, time, sequence). ``series`` numbers each register; ``at`` UTC seconds; ``dial``
    micro units with the multiplier applied, from a zero of the series' own. Per series: ``capacity`` of the dial in
    micro units (0: unknown). ``refused``: reads with more digits than the dial has (None: those beyond the capacity);
    ``read``: what the dial showed, micro units without the multiplier (None: ``dial``)."""

    series: Ints
    at: Ints
    dial: Ints
    capacity: Ints
    refused: Bools | None = None
    read: Ints | None = None

    @property
    def as_read(self) -> Ints:
        """What each dial showed, micro units without the multiplier."""
        return self.dial if self.read is None else self.read

    @property
    def beyond(self) -> Bools:
        """Reads with more digits than their dial has."""
        if self.refused is not None:
            return self.refused
        capacity = np.repeat(self.capacity, np.diff(self.starts))
        out: Bools = (capacity > 0) & ((self.dial >= capacity) | (self.dial < 0))
        return out

    @property
    def starts(self) -> Ints:
        """Index of each series' first read, and the number of reads at the end."""
        if not self.series.size:
            return np.zeros(1, np.int64)
        cuts = np.flatnonzero(np.diff(self.series)) + 1
        return np.concatenate([[0], cuts, [self.series.size]]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Steps:
    """Per read: ``cause``, ``used`` (False: the read is left out) and ``consumed``, micro units since the read used
    before it.

    ``consumed`` is NO_VALUE where it cannot be known: the first read and after an unexplained decrease.
    """

    cause: npt.NDArray[np.int8]
    used: Bools
    consumed: Ints


@lru_cache(maxsize=1)
def _kernel() -> Any:
    import numba

    nothing = NO_VALUE

    @numba.njit(cache=True, nogil=True)
    def kernel(starts, at, dial, capacity, refused, share, reverse, cause, used, consumed):  # type: ignore[no-untyped-def]  # compiled
        for k in range(starts.shape[0] - 1):
            lo = starts[k]
            hi = starts[k + 1]
            cap = capacity[k]
            last = -1
            skipped = False
            for i in range(lo, hi):
                v = dial[i]
                if refused[i]:
                    cause[i] = 6
                    used[i] = False
                    consumed[i] = nothing
                    skipped = True
                    continue
                used[i] = True
                if last < 0:
                    cause[i] = 0
                    consumed[i] = nothing
                    last = i
                    continue
                step = v - dial[last]
                if step >= 0:
                    # a single read far above both neighbours, which agree with each other, is an error of that read;
                    # not where the fall behind it is a rollover, nor after so long a silence that the rise says nothing
                    if i + 1 < hi and step > 0 and at[i] - at[last] <= 8 * (at[i + 1] - at[i]):
                        following = dial[i + 1]
                        rolls = cap > 0 and np.float64(following + cap - v) <= share * np.float64(cap)
                        far = v - following > reverse and step > 20 * (following - dial[last]) + reverse
                        if following >= dial[last] and following < v and far and not rolls:
                            cause[i] = 4
                            used[i] = False
                            consumed[i] = nothing
                            skipped = True
                            continue
                    cause[i] = 7 if skipped else 1
                    consumed[i] = step
                else:
                    forward = step + cap
                    if cap > 0 and np.float64(forward) <= share * np.float64(cap):
                        cause[i] = 2
                        consumed[i] = forward
                    elif -step <= reverse:
                        cause[i] = 3
                        consumed[i] = step
                    elif i + 1 < hi and dial[i + 1] >= dial[last] and not refused[i + 1]:
                        cause[i] = 4
                        used[i] = False
                        consumed[i] = nothing
                        skipped = True
                        continue
                    else:
                        cause[i] = 5
                        consumed[i] = nothing
                skipped = False
                last = i

    return kernel


def steps(reads: Series, thresholds: Thresholds) -> Steps:
    """The cause of every step of every register.

    A fall is a rollover when the dial is known and the way forward across its last digit is short; backflow or play
    when it is small; an error of the one read when the next read is back in line; else unexplained, and what was used
    across it is not known. (AEMO reason 18, reading below previous; 39, reverse energy; California DASMMD VEE B.3,
    number of dials.)
    """
    n = reads.series.size
    cause, used, consumed = np.zeros(n, np.int8), np.zeros(n, np.bool_), np.full(n, NO_VALUE, np.int64)
    if n:
        _kernel()(
            reads.starts,
            reads.at,
            reads.dial,
            reads.capacity,
            reads.beyond,
            thresholds.rollover_share,
            thresholds.reverse_micro,
            cause,
            used,
            consumed,
        )
    return Steps(cause, used, consumed)


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
    """What each series used in its half-open window (opens, closes], UTC seconds, by series.

    ``grain``: by series the micro units that a share is a multiple of (None: 1): a millionth of the dial's own unit, so
    that what is counted in hundreds of cubic feet is billed in them without a rest.

    A read within ``snap_s`` of an edge stands for the edge; otherwise the step around it is prorated evenly over its
    seconds in integers, so adjoining windows with the same edge lose and double nothing. A window that begins before
    the first read or has no closing read has no quantity, but what its reads enclose of it is reported
    (``open_quantity``).
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


@dataclass(frozen=True, slots=True)
class UsagePace:
    """What each series used per time outside its reads: ``amount`` micro units in ``seconds``, 0 seconds where it is
    not known.

    ``amount``/``seconds``: over the steps of the last ``span`` up to its last read. ``lead_amount``/``lead_seconds``:
    over its first step, for time before its first read.
    """

    amount: Ints
    seconds: Ints
    lead_amount: Ints
    lead_seconds: Ints


def no_pace(count: int) -> UsagePace:
    """``count`` series of which nothing is known."""
    zero = [np.zeros(count, np.int64) for _ in range(4)]
    return UsagePace(*zero)


def pace(reads: Series, found: Steps, until: int, span_s: int, doubtful: Bools | None = None) -> UsagePace:
    """The pace of every series from reads up to ``until`` (UTC seconds), for estimates of time that no reads enclose.

    ``doubtful``: reads whose stretch is no pace, for the rules doubt it.
    """
    count = reads.starts.size - 1
    out = no_pace(count)
    if not count:
        return out
    number = np.repeat(np.arange(count), np.diff(reads.starts))[found.used]
    at, consumed = reads.at[found.used], found.consumed[found.used]
    same = np.zeros(at.size, np.bool_)
    same[1:] = number[1:] == number[:-1]
    opening = np.flatnonzero(~same)
    elapsed = np.zeros(at.size, np.int64)
    elapsed[1:] = np.where(same[1:], np.diff(at), 0)
    believed = np.ones(at.size, np.bool_) if doubtful is None else ~doubtful[found.used]
    known = same & (consumed != NO_VALUE) & (elapsed > 0) & believed
    last = np.zeros(count, np.int64)
    behind = (at <= until) & believed
    np.maximum.at(last, number[behind], at[behind])
    recent = np.flatnonzero(known & (at <= until) & (at > last[number] - span_s))
    np.add.at(out.amount, number[recent], consumed[recent])
    np.add.at(out.seconds, number[recent], elapsed[recent])
    second = opening[opening + 1 < at.size] + 1
    second = second[known[second]]
    out.lead_amount[number[second]], out.lead_seconds[number[second]] = consumed[second], elapsed[second]
    return out


def at_pace(amount: int, seconds: int, wanted_s: int) -> int:
    """What ``wanted_s`` seconds come to at a pace, not below 0, rounded down."""
    return max(amount, 0) * wanted_s // seconds


def open_quantity(use: WindowUse, own: UsagePace, k: int) -> int | None:
    """What window ``k`` comes to where its reads do not enclose it: what they do enclose, and its ends at the series'
    own pace.

    Time before the first read goes at the pace of the first step, time after the last at that of the last steps. None
    where no step says a pace, or the window holds an unexplained decrease. Windows that adjoin differ from their
    register only by what lies outside its reads.
    """
    amount, seconds = int(own.amount[k]), int(own.seconds[k])
    lead, lead_s = (int(own.lead_amount[k]), int(own.lead_seconds[k])) if own.lead_seconds[k] else (amount, seconds)
    ahead, behind = int(use.lead_s[k]), int(use.tail_s[k])
    if use.broken[k] or (ahead and not lead_s) or (behind and not seconds) or not (ahead or behind):
        return None
    return (
        int(use.enclosed[k])
        + (at_pace(lead, lead_s, ahead) if ahead else 0)
        + (at_pace(amount, seconds, behind) if behind else 0)
    )


def read_habit(reads: Series) -> Ints:
    """Usual distance between reads of each series, in seconds (median; 0 for fewer than three reads)."""
    starts = reads.starts
    distances = np.diff(reads.at)
    number = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    within = number[1:] == number[:-1]
    # all distances sorted within their series: the middle ones of a series stand at known places
    counts = np.maximum(np.diff(starts) - 1, 0)
    ordered = distances[within][np.lexsort((distances[within], number[1:][within]))]
    first = np.cumsum(counts) - counts
    enough = np.flatnonzero(counts >= 2)
    habit = np.zeros(counts.size, np.int64)
    habit[enough] = (
        ordered[first[enough] + (counts[enough] - 1) // 2] + ordered[first[enough] + counts[enough] // 2]
    ) // 2
    return habit


def _message_size(over: Ints, most: int) -> int:
    """How many reads one radio message of a fleet carries, from its gaps counted in read distances beyond the first.

    The n (2 to ``most``) that divides clearly more of the gaps than chance would; 1 where none does.
    """
    best, best_gain = 1, 0.25
    if over.size < 20:
        return best
    for n in range(2, most + 1):
        gain = float((over % n == 0).mean()) - 1.0 / n
        if gain > best_gain + 1e-9:
            best, best_gain = n, gain
    return best


def gaps(
    reads: Series, head_end: Ints, thresholds: Thresholds, utc_offset: Ints | None = None
) -> tuple[npt.NDArray[np.int8], Ints]:
    """Why each read came late: (cause, distance in seconds) per read; Gap.NONE within the habit.

    ``utc_offset``: seconds by which local time leads UTC at each read; with it, a distance that is long on the wall
    clock only is reported as a clock change.

    ``head_end`` numbers each series' head-end. A gap is a distance of more than ``gap_factor`` times the habit. It is
    the head-end's when the same hour saw a share of its meters fall silent together; lost messages when its length in
    read distances is one and a whole number of messages; a long silence from a day on; else irregular.
    """
    n = reads.series.size
    cause, distance = np.zeros(n, np.int8), np.zeros(n, np.int64)
    if n < 2:
        return cause, distance
    starts = reads.starts
    inside = np.ones(n, np.bool_)
    inside[starts[:-1]] = False
    distance[1:] = np.where(inside[1:], np.diff(reads.at), 0)
    number = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    habit = read_habit(reads)[number]
    late = inside & (habit > 0) & (distance > habit * thresholds.gap_factor)
    if utc_offset is not None:
        wall = distance.copy()
        wall[1:] += np.where(inside[1:], np.diff(utc_offset), 0)
        cause[inside & ~late & (habit > 0) & (wall > habit * thresholds.gap_factor)] = Gap.CLOCK_CHANGE
    index = np.flatnonzero(late)
    if not index.size:
        return cause, distance
    cause[index] = Gap.IRREGULAR
    spans = np.rint(distance[index] / habit[index]).astype(np.int64)
    whole = np.abs(distance[index] - spans * habit[index]) <= habit[index] // 4
    fleets = head_end[number[index]]
    for fleet in np.unique(fleets):
        mine = fleets == fleet
        n_reads = _message_size((spans - 1)[mine & whole], thresholds.batch_reads_max)
        if n_reads > 1:
            cause[index[mine & whole & ((spans - 1) % n_reads == 0)]] = Gap.LOST_MESSAGES
    long = distance[index] >= 86_400
    cause[index[long & (cause[index] == Gap.IRREGULAR)]] = Gap.LONG_SILENCE
    # silent together: share of the head-end's series whose gap covers the same hour
    begin = (reads.at[index] - distance[index]) // 3600
    end = reads.at[index] // 3600
    origin = int(begin.min())
    for fleet in np.unique(fleets):
        mine = np.flatnonzero(fleets == fleet)
        members = int((head_end == fleet).sum())
        if members < 4:
            continue
        change = np.zeros(int(end[mine].max()) - origin + 2, np.int64)
        np.add.at(change, begin[mine] - origin + 1, 1)
        np.add.at(change, end[mine] - origin, -1)
        silent = np.cumsum(change)
        broad = np.concatenate([[0], np.cumsum(silent >= max(3, thresholds.outage_share * members))])
        touched = broad[np.maximum(end[mine] - origin, 0)] - broad[begin[mine] - origin + 1] > 0
        cause[index[mine[touched]]] = Gap.HEAD_END
    return cause, distance


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every read of some registers: counts by step and by gap cause, and the net consumption
    they say.
    """

    reads: int
    steps: dict[str, int]
    gaps: dict[str, int]
    consumed: int
    unexplained: int


def account_for(reads: Series, head_end: Ints, thresholds: Thresholds, utc_offset: Ints | None = None) -> Account:
    """Every read with a cause: ``steps`` sums to ``reads``; ``gaps`` counts those that came late. ``consumed`` in micro
    units."""
    found = steps(reads, thresholds)
    late, _ = gaps(reads, head_end, thresholds, utc_offset)
    known = found.consumed != NO_VALUE
    return Account(
        reads=int(reads.series.size),
        steps={
            Step(int(c)).name.lower(): int(n) for c, n in zip(*np.unique(found.cause, return_counts=True), strict=True)
        },
        gaps={
            Gap(int(c)).name.lower(): int(n)
            for c, n in zip(*np.unique(late[late > 0], return_counts=True), strict=True)
        },
        consumed=int(found.consumed[known].sum()),
        unexplained=int((found.cause == Step.DECREASE).sum()),
    )
