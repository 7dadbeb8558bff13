"""All detectors on one window.

Belongs here: their order and what the weather's absence leaves out. Does not belong here: reading windows, writing flags.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from meter_pipeline.anomalies.communication import dropout_flags
from meter_pipeline.anomalies.flow import flow_flags
from meter_pipeline.anomalies.residuals import residual_flags
from meter_pipeline.anomalies.signatures import signature_flags
from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import Window


def detect(window: Window, limits: Thresholds = DEFAULT) -> pl.DataFrame:
    """Every finding about the window's last day (a frame of FINDINGS), sorted by row and kind.

    A spike that a burst or a leak explains is told once, and so is a register that went back because the meter ran backward.
    Where the day has no temperature, expectations are NaN and what needs them is silent.
    """
    frames = [residual_flags(window, limits), flow_flags(window, limits), signature_flags(window, limits), dropout_flags(window, limits)]
    found = pl.concat(frames)
    water = found.filter(pl.col("kind").is_in(["burst", "leak", "leak_drift"])).select("row")
    found = pl.concat([found.filter(pl.col("kind") != "spike"), found.filter(pl.col("kind") == "spike").join(water, on="row", how="anti")])
    backward = found.filter(pl.col("kind") == "reverse")["row"].implode()
    found = found.filter(~((pl.col("kind") == "register_back") & pl.col("row").is_in(backward)))
    return found.sort("row", "group", "kind").with_columns(pl.when(pl.col(c).is_finite()).then(pl.col(c)).alias(c) for c in ("expected", "observed"))


def lowest_and_sustained(hourly: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest hour and highest flow held for three hours of each row of (points, hours) flows; NaN where an hour is NaN."""
    lowest = hourly.min(axis=1)
    held = np.minimum(np.minimum(hourly[:, :-2], hourly[:, 1:-1]), hourly[:, 2:]).max(axis=1)
    return lowest, held
