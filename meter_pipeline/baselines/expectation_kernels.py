"""Compiled loops that price weather into expected usage; written in plain Python for the compiler."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def expect(  # type: ignore[no-untyped-def]
    t,
    row,
    hdd_balance,
    cdd_balance,
    intercept,
    hdd_beta,
    cdd_beta,
    weekend_beta,
    holiday_beta,
    weekend,
    holiday,
    low,
    high,
    out,
):
    """Expected usage (points, days) at temperatures t (rows, days); ``row`` is each point's row of t, -1 none; NaN
    outside [low, high]."""
    for i in range(out.shape[0]):
        if row[i] < 0:
            out[i] = np.nan
            continue
        heats, cools = not np.isnan(hdd_balance[i]), not np.isnan(cdd_balance[i])
        for j in range(out.shape[1]):
            x = t[row[i], j]
            if np.isnan(x) or x < low[i] or x > high[i]:
                out[i, j] = np.nan
                continue
            y = intercept[i] + weekend_beta[i] * weekend[j] + holiday_beta[i] * holiday[j]
            if heats and x < hdd_balance[i]:
                y += hdd_beta[i] * (hdd_balance[i] - x)
            if cools and x > cdd_balance[i]:
                y += cdd_beta[i] * (x - cdd_balance[i])
            out[i, j] = y if not y < 0.0 else 0.0


@njit(cache=True, nogil=True)
def expect_by_hours(  # type: ignore[no-untyped-def]
    points,
    t,
    row,
    heating,
    at_h,
    cooling,
    at_c,
    intercept,
    hdd_beta,
    cdd_beta,
    weekend_beta,
    holiday_beta,
    weekend,
    holiday,
    low,
    high,
    out,
):
    """As expect, for the ``points`` (rows of out) whose models are made on degree hours: heating and cooling (rows,
    bases, days) hold them at each base, at_h and at_c each point's base, -1 none."""
    for i in points:
        r = row[i]
        for j in range(out.shape[1]):
            if r < 0 or np.isnan(t[r, j]) or t[r, j] < low[i] or t[r, j] > high[i]:
                out[i, j] = np.nan
                continue
            y = intercept[i] + weekend_beta[i] * weekend[j] + holiday_beta[i] * holiday[j]
            if at_h[i] >= 0:
                y += hdd_beta[i] * heating[r, at_h[i], j]
            if at_c[i] >= 0:
                y += cdd_beta[i] * cooling[r, at_c[i], j]
            out[i, j] = y if not y < 0.0 else 0.0
