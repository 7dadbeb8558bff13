"""Dials that register the highest demand since they were reset: kW without intervals.

A read counts on the last billing day that ended by its time: at midnight, or in the morning after, it is the demand of
the days before. The bill takes the highest of its period.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.day_slots import hours_period
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, exceptions
from meter_pipeline.billing.tariffs.model import Tariff

#: Demand dials of a day: a row for each dial and stretch of hours that it counts on such a day, nulls where it counts
#: all; ``demand`` in millionths of a kW, null where none was read for the day; ``last_day``: the latest day before on
#: which a read counts, of the CLOSING_DAYS before.
DEMAND_SCHEMA: Final = pl.Schema(
    {
        "service_point_id": pl.String,
        "meter_id": pl.String,
        "channel": pl.String,
        "demand": pl.Int64,
        "last_day": pl.Date,
        "from_minute": pl.Int32,
        "to_minute": pl.Int32,
    }
)
#: A closing read may come some days before the period's end; further back it is another period's.
CLOSING_DAYS: Final = 5


def dials_of(demand: pl.DataFrame | None, points: pl.Series) -> dict[str, pl.DataFrame]:
    """The demand dials of some service points."""
    if demand is None or not demand.height:
        return {}
    mine = demand.filter(pl.col("service_point_id").is_in(points.implode()))
    return {str(point): rows for (point,), rows in mine.group_by(["service_point_id"])}


def fill_demand(
    tariff: Tariff, row: int, dials: pl.DataFrame, peaks: npt.NDArray[np.int64], at: tuple[date, str, bool]
) -> bool:
    """Writes the day's demand of one service into ``peaks`` (n, registers) at ``row``. ``at``: day, zone and whether it
    is a holiday. Returns whether every register that counts kW has a dial."""
    day, zone, holiday = at
    every = True
    for r, register in enumerate(tariff.registers):
        if register.measure != "kw":
            continue
        found = [
            part
            for _, part in dials.group_by(["meter_id", "channel"])
            if _counts(tariff, part, register.period, day, zone, holiday)
        ]
        if not found or register.hours is not None or register.daily or register.rank:
            every = False
            continue
        if register.months is not None and day.month not in register.months:
            continue
        demands = [part["demand"][0] for part in found if part["demand"][0] is not None]
        peaks[row, r] = max(peaks[row, r], *demands) if demands else peaks[row, r]
    return every


def _counts(tariff: Tariff, dial: pl.DataFrame, period: int | None, day: date, zone: str, holiday: bool) -> bool:
    """Whether a dial's hours are those of a register."""
    spans = [(a, b) for a, b in dial.select("from_minute", "to_minute").iter_rows() if a is not None]
    if period is None:
        return True
    return bool(spans) and hours_period(tariff, zone, day, holiday, spans) == period


def unread(services: pl.DataFrame, dials: dict[str, pl.DataFrame], day: date) -> pl.DataFrame:
    """Services whose period ends with the day and whose demand dials were not read at its end."""
    closing = services.filter(pl.col("period_end") == day + timedelta(days=1))
    silent = [
        point
        for point, start in closing.select("service_point_id", "period_start").iter_rows()
        if point in dials
        and not (dials[point]["demand"].is_not_null() | (dials[point]["last_day"] >= start).fill_null(False)).all()
    ]
    missing = closing.filter(pl.col("service_point_id").is_in(silent))
    reason = f"no read of the demand dial in the {CLOSING_DAYS} days before the period's end"
    return exceptions(missing, "demand_missing", reason).cast(EXCEPTION_SCHEMA)
