"""Day matrices for tests of the pure functions."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.rules.model import DailyHistory, Ints, RowContext, ValidatedMatrix, VectorHistory
from meter_pipeline.vee.rules.thresholds import Thresholds, default
from meter_pipeline.vee.validate import validate_matrix

DAY = date(2026, 3, 3)


class NoVectors:
    """Loads the history that a test gives, or none."""

    def __init__(
        self, slots: int, history: VectorHistory | None = None, before: Ints | None = None, after: Ints | None = None
    ) -> None:
        self.slots, self.history, self.before, self.after = slots, history, before, after

    def edges(self, rows: Ints) -> tuple[Ints, Ints]:
        nothing = np.full((rows.size, 1), NO_VALUE, np.int64)
        return (nothing if self.before is None else self.before[rows]), (
            nothing.copy() if self.after is None else self.after[rows]
        )

    def days(self, rows: Ints) -> VectorHistory:
        if self.history is None:
            return VectorHistory.empty(rows.size, self.slots)
        h = self.history
        return VectorHistory(h.days, h.values[:, rows], h.usable[:, rows], h.like, h.temperature, h.day_temperature)


def matrix(values: Any, *, quality: Any = None, offsets: Any = None, minutes: int = 15) -> DayMatrix:
    """A day matrix of rows of micro values."""
    array = np.asarray(values, np.int64)
    codes = np.zeros(array.shape, np.uint16) if quality is None else np.asarray(quality, np.uint16)
    codes = np.where(array == NO_VALUE, np.uint16(6 << 13), codes).astype(np.uint16)
    keys = keys_of(array.shape[0])
    return DayMatrix(
        DAY,
        minutes,
        keys,
        array,
        codes,
        np.zeros(array.shape, np.int32),
        None if offsets is None else np.asarray(offsets, np.int16),
    )


def keys_of(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"meter_id": [f"M-{k:04d}" for k in range(rows)], "channel": ["E1"] * rows, "unit": ["kWh"] * rows}
    )


def history(rows: int, days: int = 28, level: int = 24_000_000) -> DailyHistory:
    """A flat daily history."""
    return DailyHistory(
        [DAY - timedelta(days=days - k) for k in range(days)],
        np.full((rows, days), level, np.int64),
        np.ones((rows, days), np.bool_),
        np.ones(days, np.bool_),
    )


def validate(
    day: DayMatrix,
    context: RowContext | None = None,
    past: DailyHistory | None = None,
    vectors: VectorHistory | None = None,
    thresholds: Thresholds | None = None,
    **more: Any,
) -> ValidatedMatrix:
    """validate_matrix with everything ordinary unless given."""
    loader = NoVectors(day.slots, vectors)
    return validate_matrix(
        day,
        day.keys,
        context or RowContext.plain(day.rows, day.slots),
        past or DailyHistory.empty(day.rows),
        loader,
        thresholds or default(),
        **more,
    )
