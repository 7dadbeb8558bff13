"""Cumulative registers: the usage in a sequence of dial readings, and the causes of a dial that goes back or is silent.

Everything runs on flat arrays of reads sorted by series and time, a city at once. A series is one register of one
installation. The consumption between two instants is a difference of one cumulative integer function of time, so
however the time is cut, the parts sum to the register's count.
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


#: Meaning of each step's code in words, for explain and reports
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
        """Returns each dial's reading, micro units without the multiplier."""
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
