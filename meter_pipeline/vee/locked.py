"""Final estimates are locked: a rerun of a day restores an estimate whose inputs are the same."""

from __future__ import annotations

import numpy as np
import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.vectors import to_matrices
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.model import ValidatedMatrix
from meter_pipeline.vee.tables import validated


def keep_locked(database: Database, rows: DayRows, v: ValidatedMatrix, inputs: pl.Series, stored: pl.DataFrame) -> int:
    """Put stored final estimates back where a row's own inputs are the same: history that grew meanwhile does not move
    them."""
    locked = stored.filter(pl.col("locked"))
    if not locked.height:
        return 0
    key = ["service_point_id", "meter_id", "channel"]
    same = (
        v.keys.select(key)
        .with_row_index("row")
        .with_columns(input=inputs)
        .join(locked.select(*key, "input_hash"), on=key)
        .filter(pl.col("input") == pl.col("input_hash"))
    )
    if not same.height:
        return 0
    frame = validated.read_vectors(
        database, validated.INTERVAL_DAY, v.billing_day, same["meter_id"].unique().sort().to_list()
    )
    kept = 0
    for m in to_matrices(frame):
        if m.interval_minutes != rows.matrix.interval_minutes or m.slots != rows.matrix.slots:
            continue
        found = m.keys.with_row_index("source").join(same.select(*key, "row"), on=key)
        source, at = found["source"].to_numpy(), found["row"].to_numpy()
        v.values[at], v.quality[at] = m.values[source], m.quality[source]
        v.total[at] = found["total_micro"].to_numpy()
        v.unscaled[at] = found["unscaled_micro"].to_numpy()
        stable = np.int64(~(rr.REFERENCE.mask))
        v.row_flags[at] = (found["row_flags"].to_numpy() & stable) | (v.row_flags[at] & rr.REFERENCE.mask)
        for name in ("actual", "estimated", "missing"):
            getattr(v, name)[at] = found[name].to_numpy()
        for row, note in zip(at, found["notes"].to_list(), strict=True):
            v.anchors.pop(int(row), None)
            if note:
                v.anchors[int(row)] = note
        kept += found.height
    return kept
