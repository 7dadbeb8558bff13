"""Channels as reference data declares them, looked up a file at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from meter_pipeline.units import UnitError, base_unit

#: Columns of ``tables.raw.dated_channels``
_DATED = {
    "meter_id": pl.String,
    "channel": pl.String,
    "valid_from": pl.Date,
    "valid_to": pl.Date,
    "unit": pl.String,
    "interval_minutes": pl.Int32,
}


@dataclass(frozen=True, slots=True)
class Declared:
    """Every declared channel, sorted by meter: meter_id, channel, declared_kind, declared_unit (base unit),
    declared_minutes. ``dated``: those of which unit or interval length is otherwise on a stretch of days: meter_id,
    channel, valid_from, valid_to, dated_unit (base unit), dated_minutes."""

    channels: pl.DataFrame
    dated: pl.DataFrame

    @classmethod
    def of(cls, channels: pl.DataFrame, dated: pl.DataFrame | None = None) -> Declared:
        """From ``tables.raw.channels`` (meter_id, channel, kind, unit, interval_minutes) and ``dated_channels``, in any
        order. An undeclared unit stands as it is spelled."""
        dated = pl.DataFrame(schema=_DATED) if dated is None else dated
        units = {}
        for spelling in {*channels["unit"].unique(), *dated["unit"].drop_nulls().unique()}:
            try:
                units[spelling] = base_unit(spelling)[0]
            except UnitError:
                units[spelling] = spelling
        return cls(
            channels.select(
                "meter_id",
                "channel",
                declared_kind="kind",
                declared_unit=pl.col("unit").replace_strict(units, return_dtype=pl.String),
                declared_minutes="interval_minutes",
            ).sort("meter_id", "channel"),
            dated.select(
                "meter_id",
                "channel",
                "valid_from",
                "valid_to",
                dated_unit=pl.col("unit").replace_strict(units, return_dtype=pl.String, default=None),
                dated_minutes="interval_minutes",
            ),
        )

    def on_days(self, reads: pl.DataFrame) -> pl.DataFrame:
        """Rows with meter_id, channel, billing_day, declared_unit and declared_minutes, the latter two as they hold on
        each row's day."""
        if not self.dated.height:
            return reads
        numbered = reads.with_row_index("row")
        day, past = pl.col("billing_day"), pl.col("valid_to")
        in_force = numbered.join(self.dated, on=["meter_id", "channel"]).filter(
            (pl.col("valid_from") <= day) & (past.is_null() | (past > day))
        )
        found = numbered.join(
            in_force.select("row", "dated_unit", "dated_minutes"), on="row", how="left", maintain_order="left"
        )
        return found.with_columns(
            pl.coalesce("dated_unit", "declared_unit").alias("declared_unit"),
            pl.coalesce("dated_minutes", "declared_minutes").alias("declared_minutes"),
        ).drop("row", "dated_unit", "dated_minutes")

    def of_meters(self, meters: pl.Series) -> pl.DataFrame:
        """Rows of these meters (distinct). Looked up one by one: a file holds few of a city's meters, and hashing a
        million of them for each of its forty files was a quarter of a day's landing."""
        known = self.channels["meter_id"]
        first = known.search_sorted(meters, "left").to_numpy().astype(np.int64)
        count = known.search_sorted(meters, "right").to_numpy().astype(np.int64) - first
        within = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        return self.channels.select(pl.all().gather(pl.Series(np.repeat(first, count) + within)))
