"""Statistics of every row of a day, and of a day's shape, in one compiled pass each.

A rule that must look at intervals does so only in the rows whose statistics say it can find something: that is why nine
million intervals take tenths of a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from meter_pipeline.schemas.reads import NO_VALUE

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """Per row, over its expected slots: counts, exact sum, extremes, longest runs.

    ``top`` (rows, 3): the three highest values, NO_VALUE where there are fewer. ``run`` and ``run_start``: the longest
    stretch of one repeated non-zero value; ``zero_run`` of zeros. ``outside``: values in slots the row should not fill.
    """

    present: npt.NDArray[np.int32]
    outside: npt.NDArray[np.int32]
    total: Ints
    smallest: Ints
    top: Ints
    top_slot: npt.NDArray[np.int32]
    run: npt.NDArray[np.int32]
    run_start: npt.NDArray[np.int32]
    zero_run: npt.NDArray[np.int32]
    zeros: npt.NDArray[np.int32]


@lru_cache(maxsize=1)
def _kernel() -> Any:
    import numba

    nothing = NO_VALUE

    @numba.njit(cache=True, nogil=True)
    def kernel(values, first, last, present, outside, total, smallest, top, top_slot, run, run_start, zero_run, zeros):  # type: ignore[no-untyped-def]  # compiled
        rows, slots = values.shape
        for r in range(rows):
            n = 0
            out = 0
            s = 0
            low = np.int64(9223372036854775807)
            a = nothing
            b = nothing
            c = nothing
            at = -1
            best = 0
            best_start = -1
            length = 0
            prior = nothing
            zbest = 0
            zlen = 0
            z = 0
            lo = first[r]
            hi = last[r]
            for j in range(slots):
                v = values[r, j]
                if v == nothing:
                    prior = nothing
                    length = 0
                    zlen = 0
                    continue
                if j < lo or j >= hi:
                    out += 1
                    continue
                n += 1
                s += v
                if v < low:
                    low = v
                if v > a:
                    c = b
                    b = a
                    a = v
                    at = j
                elif v > b:
                    c = b
                    b = v
                elif v > c:
                    c = v
                if v == 0:
                    z += 1
                    zlen += 1
                    if zlen > zbest:
                        zbest = zlen
                    length = 0
                else:
                    zlen = 0
                    if v == prior:
                        length += 1
                    else:
                        length = 1
                    if length > best:
                        best = length
                        best_start = j - length + 1
                prior = v
            present[r] = n
            outside[r] = out
            total[r] = s
            smallest[r] = low if n else 0
            top[r, 0] = a
            top[r, 1] = b
            top[r, 2] = c
            top_slot[r] = at
            run[r] = best
            run_start[r] = best_start
            zero_run[r] = zbest
            zeros[r] = z

    return kernel


def row_statistics(values: Ints, first: npt.NDArray[np.int32], last: npt.NDArray[np.int32]) -> RowStatistics:
    """Statistics of ``values`` (rows, slots) over each row's slots ``[first, last)``. One pass, exact integers."""
    rows = values.shape[0]

    def small() -> npt.NDArray[np.int32]:
        return np.zeros(rows, np.int32)

    found = RowStatistics(
        small(),
        small(),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.full((rows, 3), NO_VALUE, np.int64),
        small(),
        small(),
        small(),
        small(),
        small(),
    )
    _kernel()(
        np.ascontiguousarray(values),
        first,
        last,
        found.present,
        found.outside,
        found.total,
        found.smallest,
        found.top,
        found.top_slot,
        found.run,
        found.run_start,
        found.zero_run,
        found.zeros,
    )
    return found


@lru_cache(maxsize=1)
def _shape_kernel() -> Any:
    import numba

    nothing = NO_VALUE

    @numba.njit(cache=True, nogil=True)
    def kernel(values, rows, profile, shares):  # type: ignore[no-untyped-def]  # compiled
        slots = values.shape[1]
        whole = 0
        plain = 0
        for k in range(rows.shape[0]):
            r = rows[k]
            total = np.int64(0)
            least = np.int64(9223372036854775807)
            for j in range(slots):
                v = values[r, j]
                total += v
                least = min(least, v)
            if least == nothing:
                continue
            whole += 1
            for j in range(slots):
                profile[j] += values[r, j]
            if total > 0 and least >= 0:
                plain += 1
                for j in range(slots):
                    shares[j] += values[r, j] * 1000000 // total
        return whole, plain

    return kernel


def summed_shapes(values: Ints, rows: Ints) -> tuple[int, Ints, int, Ints]:
    """How many of ``rows`` have a value in every slot, and their sum by slot; how many of those have a positive total
    and no negative value, and the sum of each one's share of its own total by slot, in millionths. Exact: the order of
    rows does not matter."""
    profile, shares = np.zeros(values.shape[1], np.int64), np.zeros(values.shape[1], np.int64)
    whole, plain = _shape_kernel()(np.ascontiguousarray(values), rows, profile, shares)
    return int(whole), profile, int(plain), shares
