"""Exact sharing of integers: estimates scaled to a register, consumption spread over time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@lru_cache(maxsize=1)
def _kernels() -> tuple[Any, Any]:
    import numba

    @numba.njit(cache=True, nogil=True)
    def split(amount, weights, out):  # type: ignore[no-untyped-def]  # compiled
        """Share a non-negative amount over non-negative weights by largest remainder; ties to the earlier slot."""
        n = weights.shape[0]
        if n == 0:
            return
        total = np.float64(0.0)
        for i in range(n):
            total += np.float64(weights[i])
        # both factors of amount * weight are kept below 2**62 by dropping low bits of the weights, never of the amount
        bits = 0
        a = amount
        while a > 0:
            a >>= 1
            bits += 1
        room = 61 - bits
        if room < 1:
            room = 1
        shift = 0
        while total / np.float64(2.0**shift) >= np.float64(2.0**room):
            shift += 1
        whole = np.int64(0)
        for i in range(n):
            whole += weights[i] >> shift
        remainders = np.empty(n, np.int64)
        given = np.int64(0)
        for i in range(n):
            w = np.int64(1) if whole == 0 else weights[i] >> shift
            d = np.int64(n) if whole == 0 else whole
            product = amount * w
            out[i] = product // d
            remainders[i] = product - out[i] * d
            given += out[i]
        left = amount - given
        while left > 0:
            best = -1
            for i in range(n):
                if remainders[i] >= 0 and (best < 0 or remainders[i] > remainders[best]):
                    best = i
            if best < 0:
                break
            out[best] += 1
            remainders[best] = -1
            left -= 1

    @numba.njit(cache=True, nogil=True)
    def split_rows(amounts, weights, mask, bucket, buckets, out):  # type: ignore[no-untyped-def]  # compiled
        rows, slots = weights.shape
        w = np.empty(slots, np.int64)
        o = np.empty(slots, np.int64)
        at = np.empty(slots, np.int64)
        for r in range(rows):
            for b in range(buckets):
                amount = amounts[r, b]
                n = 0
                for j in range(slots):
                    if mask[r, j] and bucket[j] == b:
                        at[n] = j
                        v = weights[r, j]
                        w[n] = v if v > 0 else 0
                        n += 1
                if n == 0:
                    continue
                sign = np.int64(1)
                if amount < 0:
                    sign = np.int64(-1)
                    amount = -amount
                split(amount, w[:n], o[:n])
                for k in range(n):
                    out[r, at[k]] = sign * o[k]

    return split, split_rows


def split_exactly(amount: int, weights: Ints) -> Ints:
    """Parts of ``amount`` in proportion to ``weights``, summing to it exactly (largest remainder, ties to the earlier
    part).

    Weights are non-negative; all zero means equal parts. A negative amount is shared as its mirror image.
    Deterministic.
    """
    weights = np.ascontiguousarray(weights, np.int64)
    if (weights < 0).any():
        raise ValueError("weights must not be negative")
    out = np.zeros(weights.size, np.int64)
    _kernels()[0](abs(int(amount)), weights, out)
    return -out if amount < 0 else out


def scale_rows(
    estimates: Ints, mask: npt.NDArray[np.bool_], residuals: Ints, bucket: npt.NDArray[np.int32] | None = None
) -> Ints:
    """Estimates of many rows scaled so that each row's masked slots sum to its residual exactly.

    ``estimates`` and ``mask`` (rows, slots); ``residuals`` (rows,) or, for time-of-use registers, (rows, buckets) with
    ``bucket`` (slots,) giving each slot's register. Slots outside the mask come back as they were. A bucket without
    masked slots takes nothing.
    """
    amounts = residuals.reshape(estimates.shape[0], -1).astype(np.int64)
    slots_bucket = np.zeros(estimates.shape[1], np.int32) if bucket is None else bucket.astype(np.int32)
    out = np.ascontiguousarray(estimates, np.int64).copy()
    _kernels()[1](
        np.ascontiguousarray(amounts),
        np.ascontiguousarray(estimates, np.int64),
        np.ascontiguousarray(mask),
        slots_bucket,
        amounts.shape[1],
        out,
    )
    return out


def shift_rows(estimates: Ints, mask: npt.NDArray[np.bool_], residuals: Ints) -> Ints:
    """Estimates of rows that may be negative, brought to their residuals by the same amount in each masked slot,
    exactly.

    A net channel that used and sent alike sums to nothing: a factor would be without bound, and would turn its signs.
    """
    even = np.where(mask, 1, 0)
    off = residuals - np.where(mask, estimates, 0).sum(axis=1)
    moved: Ints = np.where(mask, estimates + scale_rows(even, mask, off), estimates)
    return moved


def share_until(amount: int, elapsed: int, whole: int) -> int:
    """Returns the part of ``amount`` that had accrued after ``elapsed`` of ``whole`` seconds, at an even rate, in
    integers.

    Differences of this function between instants telescope: however a window is cut into days, the parts sum to the
    amount.
    """
    if whole <= 0:
        return 0 if elapsed <= 0 else amount
    elapsed = min(max(elapsed, 0), whole)
    return amount * elapsed // whole
