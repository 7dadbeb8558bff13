"""Whole-number arithmetic over a city that can't overflow and can't lose a digit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: (n,) or (n, m) of int64 or of Python integers
Whole = npt.NDArray[Any]
_SAFE: Final = 1 << 62


def largest(a: Whole | int) -> int:
    """The largest magnitude in an array or a number."""
    if isinstance(a, int):
        return abs(a)
    return max(abs(int(a.max())), abs(int(a.min()))) if a.size else 0


def _wide(a: Whole | int) -> Whole | int:
    return a if isinstance(a, int) or a.dtype == object else a.astype(object)


def product(*factors: Whole | int) -> Whole:
    """The exact product of arrays and numbers, at least one of them an array."""
    bound = 1
    for factor in factors:
        bound *= max(largest(factor), 1)
    safe = bound < _SAFE
    result: Any = 1
    for factor in factors:
        fit = _wide(factor) if not safe else factor if isinstance(factor, int) else factor.astype(np.int64, copy=False)
        result = result * fit
    return np.asarray(result)


def total(parts: list[Whole]) -> Whole:
    """The exact sum of arrays of one shape."""
    bound = sum(largest(p) for p in parts)
    fit = [p.astype(np.int64, copy=False) if bound < _SAFE else _wide(p) for p in parts]
    return np.asarray(sum(fit[1:], fit[0]))


def quotient(numerator: Whole, denominator: Whole | int, mode: str = "half_even") -> Whole:
    """numerator / denominator as whole numbers; 0 / 0 is 0. ``denominator`` is not negative.

    half_up rounds a half away from zero and up away from zero, so that a cancelled line is the exact negative of the
    line.
    """
    numerator = np.asarray(numerator)
    if largest(numerator) * 2 >= _SAFE or largest(denominator) * 2 >= _SAFE:
        numerator = numerator.astype(object)
        denominator = _wide(denominator)
    if isinstance(denominator, np.ndarray):
        denominator = np.where(denominator == 0, 1, denominator)
    negative = numerator < 0
    size = np.where(negative, -numerator, numerator)
    whole = size // denominator
    rest = size - whole * denominator
    if mode == "half_up":
        whole = whole + (2 * rest >= denominator)
    elif mode == "half_even":
        whole = whole + ((2 * rest > denominator) | ((2 * rest == denominator) & (whole % 2 == 1)))
    elif mode == "up":
        whole = whole + (rest > 0)
    elif mode != "down":
        raise ValueError(f"unknown rounding {mode!r}")
    return narrow(np.where(negative, -whole, whole))


#: Divisors and quotients up to which ``shared`` is exact: its estimate in doubles is then wrong by less than one.
_ESTIMATED: Final = 1 << 49


def shared(amount: Whole, part: Whole, whole: Whole) -> tuple[Whole, Whole]:
    """amount x part / whole as quotient and remainder, for columns that are not negative with part <= whole and whole >
    0.

    The product of two usages outgrows a machine word; what is sought does not. The quotient is estimated in doubles and
    put right by the remainder, which arithmetic modulo 2**64 gives exactly because it is small. Python's integers where
    the figures are larger than that allows.
    """
    if (
        max(largest(amount), largest(whole)) >= _ESTIMATED
        or amount.dtype == object
        or part.dtype == object
        or whole.dtype == object
    ):
        wide = [a.astype(object) for a in (amount, part, whole)]
        quotients, rests = wide[0] * wide[1] // wide[2], wide[0] * wide[1] % wide[2]
        return narrow(quotients), narrow(rests)
    found = (amount.astype(np.float64) * part / whole).astype(np.int64)
    product_64, taken = amount.view(np.uint64) * part.view(np.uint64), found.view(np.uint64) * whole.view(np.uint64)
    rest = (product_64 - taken).view(np.int64)
    put_right = rest // whole
    return found + put_right, rest - put_right * whole


def shared_quotient(amount: Whole, part: Whole, whole: Whole, factor: int, divisor: int, mode: str) -> Whole:
    """amount x part x factor / (whole x divisor), rounded once; the columns as for ``shared``."""
    size = abs(factor)
    quotients, rests = shared(amount, part, whole)
    if (
        max(largest(quotients), largest(whole)) * max(size, 1) >= _SAFE // 4
        or divisor >= _SAFE // 4
        or quotients.dtype == object
    ):
        return quotient(product(amount, part, factor), product(whole, divisor), mode)
    # (quotients + rests / whole) x size = steps + left / whole
    spread = rests * size
    steps, left = quotients * size + spread // whole, spread % whole
    result = steps // divisor
    over = steps - result * divisor
    # What is left over is (over + left / whole) / divisor: the fraction of a step decides only where the steps alone do
    # not.
    if divisor > 1:
        beyond, level = (2 * over > divisor) | ((2 * over == divisor) & (left > 0)), (2 * over == divisor) & (left == 0)
        if divisor % 2:
            beyond |= (2 * over == divisor - 1) & (2 * left > whole)
            level = (2 * over == divisor - 1) & (2 * left == whole)
    else:
        beyond, level = 2 * left > whole, 2 * left == whole
    if mode == "half_up":
        result = result + (beyond | level)
    elif mode == "half_even":
        result = result + (beyond | (level & (result % 2 == 1)))
    elif mode == "up":
        result = result + ((over > 0) | (left > 0))
    elif mode != "down":
        raise ValueError(f"unknown rounding {mode!r}")
    return np.asarray(-result if factor < 0 else result)


def narrow(a: Whole) -> Whole:
    """int64 where every value fits."""
    if a.dtype != object:
        return a.astype(np.int64, copy=False)
    return a.astype(np.int64) if largest(a) < _SAFE else a


def scaled(value: Decimal) -> tuple[int, int]:
    """A decimal as (whole number, decimals): 0.0912 is (912, 4)."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - a parsed number is finite
    number = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    return (number * 10**exponent, 0) if exponent >= 0 else (number, -exponent)


def same_scale(values: list[Decimal]) -> tuple[list[int], int]:
    """Decimals as whole numbers over one power of ten."""
    pairs = [scaled(v) for v in values]
    places = max((p for _, p in pairs), default=0)
    return [n * 10 ** (places - p) for n, p in pairs], places
