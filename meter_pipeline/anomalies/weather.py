"""Bringing a weather file into the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from meter_pipeline.anomalies.tables import detection
from meter_pipeline.baselines.weather import daily, hours_of_days, read_weather
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport


@dataclass(frozen=True, slots=True)
class WeatherLoaded:
    """What a file held: stations, days by station that passed the coverage gate, days that did not, rows that changed
    the store."""

    days: dict[str, int]
    gaps: dict[str, int]
    first: date
    last: date
    changed: int


def load_weather(
    database: Database,
    calendar: BillingCalendar,
    path: Path,
    *,
    file_format: str | None = None,
    station_id: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> WeatherLoaded:
    """Read a weather file of any known format and keep its billing days. Loading it again changes nothing. Raises
    WeatherError.

    A day that lacks half of its hours is not kept: flags that need it wait, bills do not.
    """
    frame = read_weather(path, file_format, station_id=station_id)
    if "observed_at" in frame.columns:
        at = frame["observed_at"]
        first, last = calendar.day_of(at.min()), calendar.day_of(at.max())  # type: ignore[arg-type]
    else:
        first, last = frame["weather_day"].min(), frame["weather_day"].max()  # type: ignore[assignment]
    days = daily(frame, calendar, first, last)
    if "observed_at" in frame.columns:
        days = _with_hours(frame, days, calendar, first, last)
    complete = days.drop_nulls(["temperature_min_c", "temperature_max_c"])
    with database.connect("meter-pipeline weather") as connection:
        changed = detection.write_weather(
            connection, complete, f"{path.name} ({file_format or 'recognised'})", clock.now()
        )
    length = (last - first).days + 1
    counts = dict(complete.group_by("station_id").len().sort("station_id").iter_rows())
    stations = sorted(frame["station_id"].unique().to_list())
    return WeatherLoaded(counts, {s: length - counts.get(s, 0) for s in stations}, first, last, changed)


def _with_hours(
    frame: pl.DataFrame, days: pl.DataFrame, calendar: BillingCalendar, first: date, last: date
) -> pl.DataFrame:
    """The days with their hours as a list column."""
    kept = []
    order = {day: i for i, day in enumerate(calendar.days(first, last))}
    for (station,), part in days.group_by("station_id", maintain_order=True):
        hours = hours_of_days(frame.filter(pl.col("station_id") == str(station)), calendar, first, last)
        rows = [hours[order[d], : calendar.slots(d, 60)] for d in part["weather_day"].to_list()]
        kept.append(
            part.with_columns(pl.Series("hourly_c", [np.round(r, 2).tolist() for r in rows], dtype=pl.List(pl.Float64)))
        )
    return pl.concat(kept) if kept else days


@dataclass(frozen=True, slots=True)
class WeatherDay:
    """What is known of a billing day's weather: mean °C by station, stations without the day, and whether the day's
    flags wait for it.

    ``recent``: station_id, weather_day and temperature_mean_c of the five weeks that end with the day.
    """

    day: date
    temperatures_c: dict[str, float]
    missing: list[str]
    recent: pl.DataFrame

    def report(self) -> StageReport:
        """Figures, a plot, and a check that warns and never blocks: missing weather delays flags, not bills."""
        from meter_pipeline.anomalies.plots import weather_png

        return StageReport(
            rows=len(self.temperatures_c),
            figures={f"mean °C at {name}": round(value, 2) for name, value in sorted(self.temperatures_c.items())}
            | {"stations without the day": ", ".join(self.missing) or "none"},
            plots={"five weeks of weather": weather_png(self.recent, self.day)} if self.recent.height else {},
            checks=[
                Check(
                    "some_station_has_the_day",
                    bool(self.temperatures_c),
                    "Flags that need the weather wait until a station has the day.",
                )
            ],
        )


def weather_day(database: Database, day: date) -> WeatherDay:
    """The weather of a billing day as flags will see it, from loaded files or from reference data."""
    with database.reader() as read:
        stations = detection.read_stations(read)["station_id"].to_list()
        recent = detection.read_temperatures(read, day - timedelta(days=34), day)
    recent = recent.drop_nulls("temperature_mean_c")
    known = {s: float(t) for s, _, t in recent.filter(pl.col("weather_day") == day).iter_rows()}
    return WeatherDay(day, known, sorted(set(stations) - set(known)), recent)


def waiting_days(database: Database) -> list[date]:
    """Judged days whose flags were raised without (all of) the weather that is known by now: judge them again."""
    return detection.days_to_judge_again(database.read)
