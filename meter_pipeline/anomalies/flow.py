"""Flags of continuous flow (leaks) and of sudden high flow (bursts) at water meters."""

from __future__ import annotations

import numpy as np
import polars as pl

from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds, per_gallon
from meter_pipeline.anomalies.window import Floats, Window, certainty, findings, median_use, nothing, row_median


def flow_flags(window: Window, limits: Thresholds = DEFAULT) -> pl.DataFrame:
    """Returns leak, leak_drift and burst flags of water meters with hourly reads.

    A leak is a flow in every hour of the day, at or above the threshold of the customer class plus the meter's own
    continuous use (median and spread of its lowest hours in the weeks before). A meter with continuous use must exceed
    the threshold for several days; another needs one day. A day with an estimated hour has no lowest hour: it neither
    raises nor ends a flag. A leak drifts when the flow has risen day by day. A burst is a three-hour flow above the
    class's threshold and far above every earlier one in the window.
    """
    if window.commodity != "water" or window.night is None or window.sustained is None or window.days < 8:
        return nothing()
    scale = per_gallon(window.unit)
    night, today = window.night, window.night[:, -1]
    history = night[:, :-7]
    known = np.isfinite(history).sum(axis=1) >= 7
    filled = np.where(np.isfinite(history), history, np.nan)
    filled[~known] = 0.0
    floor = row_median(filled)
    spread = 1.4826 * row_median(np.abs(filled - floor[:, None]))
    threshold = np.array(limits.leak_flow)[window.customer_class] * scale * window.tolerances
    # a meter that passes water at all times has a floor whose own wandering must be exceeded, not only its level
    continuous = floor > 0
    settled = np.isfinite(history).sum(axis=1) >= limits.leak_history_days
    highest = np.nanmax(np.where(continuous[:, None], filled, 0.0), axis=1)
    needed = np.where(continuous, np.maximum(floor + 4 * spread, highest) + threshold, threshold)
    with np.errstate(invalid="ignore"):
        over = night >= needed[:, None]
        run = over[:, window.tail(limits.leak_days_continuous)].all(axis=1)
        # a home is dry at some hour of every night, by any vendor's rule; what is usual in a larger building must be
        # seen first
        home = window.customer_class == 0
        leaking = over[:, -1] & np.where(continuous, run & settled, home | settled)
    # the last three days that were measured before today, for the trend
    excess = np.maximum(night - floor[:, None], 0.0)
    one, two, three = _previous(excess, 1), _previous(excess, 2), _previous(excess, 3)
    now = excess[:, -1]
    with np.errstate(invalid="ignore"):
        rising = (
            (one > 0)
            & (now > 1.05 * one)
            & (one >= two)
            & (two >= three)
            & (now >= limits.drift_rise * three)
            & (now - three < 8 * one)
        )
    frames = []
    for kind, which in (("leak", leaking & ~rising), ("leak_drift", leaking & rising)):
        rows = np.flatnonzero(which)
        frames.append(
            findings(
                kind,
                rows,
                confidence=certainty(today[rows] / np.maximum(needed[rows], 1e-9), 1.0),
                expected=floor[rows] * 24,
                observed=window.usage[rows, -1],
                evidence={
                    "lowest_hour": today[rows],
                    "known_continuous": floor[rows],
                    "threshold": needed[rows],
                    "days_running": over[rows][:, ::-1].cumprod(axis=1).sum(axis=1),
                    "yesterday": one[rows],
                },
            )
        )
    sustained = window.sustained
    with np.errstate(invalid="ignore"):
        seen = np.nanmax(np.where(np.isfinite(sustained[:, :-1]), sustained[:, :-1], 0.0), axis=1, initial=0.0)
        days = np.isfinite(sustained[:, :-1]).sum(axis=1)
        least = np.array(limits.burst_flow)[window.customer_class] * scale * window.tolerances
        unheard = np.flatnonzero(
            (days >= 14) & (sustained[:, -1] > least) & (sustained[:, -1] > limits.burst_ratio * seen)
        )
        # hours of such a flow must show in the day's total too: a garden watered in one go has the flow and not the
        # total
        typical = np.where(
            np.isfinite(window.expected[unheard, -1]), window.expected[unheard, -1], median_use(window, unheard)
        )
        most = np.max(np.where(window.measured[unheard, :-1], window.usage[unheard, :-1], 0.0), axis=1, initial=0.0)
        today_use, flow = window.usage[unheard, -1], sustained[unheard, -1]
        rows = unheard[(today_use - typical > 2.0 * flow) & (today_use > most + flow)]
    frames.append(
        findings(
            "burst",
            rows,
            confidence=certainty(sustained[rows, -1] / np.maximum(seen[rows], least[rows]), 1.0),
            expected=window.expected[rows, -1],
            observed=window.usage[rows, -1],
            evidence={"three_hour_flow": sustained[rows, -1], "highest_before": seen[rows], "threshold": least[rows]},
        )
    )
    return pl.concat(frames)


def _previous(excess: Floats, back: int) -> Floats:
    """Returns the value ``back`` days ago, or the nearest measured one before it."""
    found = excess[:, -1 - back].copy()
    for step in range(1, 4):
        if excess.shape[1] - 1 - back - step < 0:
            break
        found = np.where(np.isfinite(found), found, excess[:, -1 - back - step])
    result: Floats = np.nan_to_num(found)
    return result
