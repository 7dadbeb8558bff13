"""Daily totals from before the first billing day, for the first baselines.

Only periods of a single day: a baseline says how far one day may be from what its weather asks for, and a month's
total says nothing of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.anomalies.tables import detection
from meter_pipeline.postgres.database import Database
from meter_pipeline.units import base_unit


def past_days(database: Database, first: date, past: date) -> pl.DataFrame:
    """service_point_id, unit, period_start and quantity (base units) of the days in [first, past)."""
    found = detection.read_past_days(database.read, first, past)
    parts = []
    for (spelling,), part in found.group_by(["unit"], maintain_order=True):
        base, factor = base_unit(str(spelling))
        parts.append(part.with_columns(pl.lit(base).alias("unit"), pl.col("quantity") * float(factor)))
    return pl.concat(parts) if parts else found


def with_past_days(
    usage: npt.NDArray[np.float64], points: npt.NDArray[np.str_], days: Sequence[date], billed: pl.DataFrame
) -> npt.NDArray[np.float64]:
    """``usage`` (points, days) with past days where it has none of its own (NaN)."""
    if not billed.height:
        return usage
    column = {day: k for k, day in enumerate(days)}
    rows = pl.DataFrame({"service_point_id": points.tolist()}).with_row_index("row")
    found = billed.filter(pl.col("period_start").is_in(list(days))).join(rows, on="service_point_id", how="inner")
    at = found["row"].to_numpy().astype(np.int64)
    when = np.array([column[day] for day in found["period_start"].to_list()], np.int64)
    free = np.isnan(usage[at, when])
    usage[at[free], when[free]] = found["quantity"].to_numpy()[free]
    return usage
