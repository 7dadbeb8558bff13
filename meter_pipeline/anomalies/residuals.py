"""Usage compared with its expectation by weather: days too high, too low, and far too high."""

from __future__ import annotations

import numpy as np
import polars as pl

from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import Floats, Window, certainty, findings, ratio


def residual_flags(window: Window, limits: Thresholds = DEFAULT) -> pl.DataFrame:
    """high and low: |usage - expected| beyond ``limits.sigma`` residual standard deviations, widened by the meter's
    tolerance.

    spike: at least ``spike_ratio`` times the expectation and ``spike_sigma`` robust deviations above it, on the first
    such day; the robust twin is used since the spike itself widens the plain one. Days that were not measured raise
    nothing.
    """
    today, expected = window.usage[:, -1], window.expected[:, -1]
    residual = today - expected
    usable = window.measured[:, -1] & np.isfinite(residual) & (window.sigma > 0) & ~window.disconnected[:, -1]
    z = np.divide(residual, window.sigma, out=np.zeros_like(residual), where=usable)
    limit = limits.sigma * window.tolerances
    frames = []
    for kind, beyond in (("high", z > limit), ("low", z < -limit)):
        rows = np.flatnonzero(beyond)
        frames.append(_frame(window, kind, rows, z, limits.sigma))
    robust = np.maximum(window.robust, 0.25 * window.sigma)
    z_robust = np.divide(residual, robust, out=np.zeros_like(residual), where=usable & (robust > 0))
    times = ratio(today, expected)
    spike = (
        usable
        & ~window.provisional
        & (z_robust > limits.spike_sigma * window.tolerances)
        & (times > limits.spike_ratio)
    )
    # a level that has lasted is no spike, and a meter whose days are often wild has its own spread to answer to
    wild = np.flatnonzero(spike)
    with np.errstate(invalid="ignore"):
        seen = np.nanmax(
            np.where(window.measured[wild, :-1], window.usage[wild, :-1], -np.inf), axis=1, initial=-np.inf
        )
    rows = wild[(today[wild] > 2.0 * seen) & np.isfinite(seen)]
    frames.append(_frame(window, "spike", rows, z_robust, limits.spike_sigma))
    return pl.concat(frames)


def _frame(window: Window, kind: str, rows: np.ndarray, z: Floats, at: float) -> pl.DataFrame:
    return findings(
        kind,
        rows,
        confidence=certainty(np.abs(z[rows]), at) * np.where(window.provisional[rows], 0.6, 1.0),
        expected=window.expected[rows, -1],
        observed=window.usage[rows, -1],
        evidence={
            "sigmas": z[rows],
            "sigma": window.sigma[rows],
            "robust_sigma": window.robust[rows],
            "class_profile": window.provisional[rows],
        },
    )
