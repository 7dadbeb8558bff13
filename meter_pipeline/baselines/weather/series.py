"""From observations to a temperature for every billing day, or none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.baselines.degree_days import Floats
from meter_pipeline.calendar import BillingCalendar

#: CalTRACK 2.2.4.1: gaps up to six hours are interpolated
MAX_GAP_HOURS: Final = 6
#: CalTRACK 2.2.2.3: a day's temperature needs more than half of its hours
MIN_DAY_COVERAGE: Final = 0.5
HOUR_S: Final = 3600


def hourly_grid(observations: pl.DataFrame, first: datetime, last: datetime) -> Floats:
    """One station's temperature at each full hour from ``first`` until before ``last`` (UTC), NaN where unknown.
    Degrees Celsius.

    Observations at any minute are joined by straight lines; a line is drawn across no more than MAX_GAP_HOURS.
    Several observations of one instant are averaged. ``observations`` is an hourly frame of formats.py holding one
    station.
    """
    hours = np.arange(int(first.timestamp()), int(last.timestamp()), HOUR_S, dtype=np.int64)
    known = (
        observations.drop_nulls("temperature_c")
        .group_by("observed_at")
        .agg(pl.col("temperature_c").mean())
        .sort("observed_at")
    )
    if known.is_empty():
        return np.full(hours.size, np.nan)
    at = known["observed_at"].dt.epoch("s").to_numpy()
    value = known["temperature_c"].to_numpy()
    grid: Floats = np.interp(hours, at, value)
    after = np.searchsorted(at, hours, side="left")
    before = np.searchsorted(at, hours, side="right") - 1
    inside = (after < at.size) & (before >= 0)
    width = np.where(inside, at[np.minimum(after, at.size - 1)] - at[np.maximum(before, 0)], np.iinfo(np.int64).max)
    grid[width > MAX_GAP_HOURS * HOUR_S] = np.nan
    return grid


def hours_of_days(
    observations: pl.DataFrame,
    calendar: BillingCalendar,
    first: date,
    last: date,
) -> Floats:
    """(days, 25) hourly temperatures in °C of each billing day from ``first`` to ``last``, both included; NaN pads days
    of 23 and 24 hours."""
    days = calendar.days(first, last)
    starts = [calendar.start_s(day) for day in days]
    lengths = [calendar.slots(day, 60) for day in days]
    grid = hourly_grid(observations, _instant(starts[0]), _instant(starts[-1] + lengths[-1] * HOUR_S))
    result = np.full((len(days), 25), np.nan)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        at = (start - starts[0]) // HOUR_S
        result[row, :length] = grid[at : at + length]
    return result


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def daily(observations: pl.DataFrame, calendar: BillingCalendar, first: date, last: date) -> pl.DataFrame:
    """Billing days of one or more stations: station_id, weather_day, temperature_min_c, temperature_max_c,
    temperature_mean_c, hours.

    The mean is over the day's hours after gaps of up to six hours are filled; a day with half or fewer of them is left
    out. A frame that is daily already keeps its own days (hours null), cut to the range.
    """
    if "weather_day" in observations.columns:
        return (
            observations.filter(pl.col("weather_day").is_between(first, last))
            .drop_nulls("temperature_mean_c")
            .unique(["station_id", "weather_day"], keep="first", maintain_order=True)
            .with_columns(pl.lit(None, pl.Int16).alias("hours"))
        )
    frames = []
    days = calendar.days(first, last)
    needed = np.array([calendar.seconds(day) / HOUR_S * MIN_DAY_COVERAGE for day in days])
    for (station,), part in observations.group_by("station_id", maintain_order=True):
        hours = hours_of_days(part, calendar, first, last)
        count = np.isfinite(hours).sum(axis=1)
        keep = np.flatnonzero(count > needed)
        kept = hours[keep]
        frames.append(
            pl.DataFrame(
                {
                    "station_id": [str(station)] * keep.size,
                    "weather_day": [days[i] for i in keep],
                    "temperature_min_c": np.nanmin(kept, axis=1) if keep.size else np.zeros(0),
                    "temperature_max_c": np.nanmax(kept, axis=1) if keep.size else np.zeros(0),
                    "temperature_mean_c": np.nanmean(kept, axis=1) if keep.size else np.zeros(0),
                    "hours": count[keep].astype(np.int16),
                },
                schema_overrides={"weather_day": pl.Date, "station_id": pl.String},
            )
        )
    return (
        pl.concat(frames)
        if frames
        else pl.DataFrame(schema={"station_id": pl.String, "weather_day": pl.Date, "hours": pl.Int16})
    )


def coverage(days: pl.DataFrame, first: date, last: date) -> dict[str, float]:
    """Share of the days from ``first`` to ``last`` each station has a mean for."""
    length = (last - first).days + 1
    counted = (
        days.filter(pl.col("weather_day").is_between(first, last))
        .drop_nulls("temperature_mean_c")
        .group_by("station_id")
        .agg(pl.len().alias("n"))
    )
    return {station: n / length for station, n in counted.iter_rows()}
