"""What reference data declares of channels, looked up a file at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from meter_pipeline.units import UnitError, base_unit


@dataclass(frozen=True, slots=True)
class Declared:
    """Every declared channel, sorted by meter: meter_id, channel, declared_kind, declared_unit (base unit),
    declared_minutes."""

    channels: pl.DataFrame

    @classmethod
    def of(cls, channels: pl.DataFrame) -> Declared:
        """From ``store.raw.channels`` (meter_id, channel, kind, unit, interval_minutes, in any order). An undeclared
        unit stands as it is spelled."""
        units = {}
        for spelling in channels["unit"].unique().to_list():
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
            ).sort("meter_id", "channel")
        )

    def of_meters(self, meters: pl.Series) -> pl.DataFrame:
        """Rows of these meters (distinct). Looked up one by one: a file holds few of a city's meters, and hashing a
        million of them for each of its forty files was a quarter of a day's landing."""
        known = self.channels["meter_id"]
        first = known.search_sorted(meters, "left").to_numpy().astype(np.int64)
        count = known.search_sorted(meters, "right").to_numpy().astype(np.int64) - first
        within = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        return self.channels.select(pl.all().gather(pl.Series(np.repeat(first, count) + within)))
