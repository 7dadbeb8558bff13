"""A commodity of a city on the day it is judged: a window at a time, and the findings of all windows.

A part is some thousands of points, so that its matrices fit the processor's cache and a city of a million needs no more
memory than its packed weeks. What one part cannot know of another (neighbours, collectors, head-ends) is judged after
the last (detect.conclude).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.anomalies import daily_features as packing
from meter_pipeline.anomalies.cases import tolerance
from meter_pipeline.anomalies.detect import PART, detect_in_parts
from meter_pipeline.anomalies.tables import detection, exception_cases
from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import CLASSES, Bools, Floats, Ints, Window
from meter_pipeline.baselines import COEFFICIENTS, expected_usage
from meter_pipeline.baselines.weather import serve
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Read

_NUMBERS: Final = (*COEFFICIENTS, "low_f", "high_f")


@dataclass(frozen=True, slots=True)
class WindowInputs:
    """Inputs of the windows of ``days`` beside usage: frames of store.anomalies, of all commodities."""

    days: list[date]
    points: pl.DataFrame
    baselines: pl.DataFrame
    stations: pl.DataFrame
    temperatures: pl.DataFrame
    hours: pl.DataFrame
    holidays: set[date]
    decided: dict[str, tuple[int, int]]


def read_surroundings(
    read: Read, calendar: BillingCalendar, days: list[date], *, service_point_id: str | None = None
) -> tuple[WindowInputs, str | None]:
    """All that judging the last of ``days`` needs but its usage, and the baselines' version: of every point, or the
    baseline of one alone."""
    first, day = days[0], days[-1]
    version = detection.baseline_version(read, day)
    wanted = (*_NUMBERS, "status", "hourly")
    baselines = detection.read_baselines(read, version, wanted, service_point_id) if version else pl.DataFrame()
    by_hours = baselines.height > 0 and bool(baselines["hourly"].any())
    return WindowInputs(
        days,
        detection.read_points(read, day, calendar.bounds(day)[1]),
        baselines,
        detection.read_stations(read),
        detection.read_temperatures(read, first, day),
        detection.read_weather_hours(read, first, day) if by_hours else pl.DataFrame(),
        detection.read_holidays(read, first, day),
        exception_cases.decisions(read),
    ), version


class CommodityPoints:
    """The points of one commodity and unit, in the order of ``weeks``."""

    def __init__(self, weeks: packing.PackedDays, given: WindowInputs) -> None:
        self.weeks = weeks
        located = weeks.names.to_frame().join(given.points, on="service_point_id", how="left", maintain_order="left")
        self._coefficients, self._provisional, self._hourly = _coefficients(weeks, given.baselines)
        self._weather = serve(located, given.stations, given.temperatures, given.days, given.hours)
        self._weekend = np.array([d.weekday() >= 5 for d in given.days])
        self._holiday = np.array([d in given.holidays for d in given.days])
        self._head_end, self.head_ends = _codes(located["head_end"])
        self._collector, self.collectors = _codes(located["collector_id"])
        self._classes = (
            located["customer_class"]
            .replace_strict({n: i for i, n in enumerate(CLASSES)}, default=0, return_dtype=pl.Int64)
            .to_numpy()
        )
        self._neighbourhood = _codes(located["route"])[0] * len(CLASSES) + self._classes
        self._tolerance = np.ones(self.points)
        if given.decided:
            for row in np.flatnonzero(weeks.names.is_in(list(given.decided)).to_numpy()):
                self._tolerance[row] = tolerance(*given.decided[str(weeks.points[row])])

    @property
    def points(self) -> int:
        return int(self.weeks.points.size)

    def weather_known(self) -> Bools:
        """(points,) whether the day has the temperature, or the hours, that the point's model asks for."""
        hours = self._weather.hours_known_on(-1) if self._hourly.any() else np.zeros(self.points, bool)
        known: Bools = self._weather.known_on(-1) & (~self._hourly | hours)
        return known

    def degrees_f(self, row: int) -> Floats:
        """(days,) mean temperatures of one point, NaN where unknown."""
        station = int(self._weather.station[row])
        found: Floats = self._weather.temperatures_f[station] if station >= 0 else np.full(len(self.weeks.days), np.nan)
        return found

    def window(self, which: slice | Ints) -> Window:
        """The detectors' window of some of the points."""
        history = self.weeks.history(which)
        mine = {name: values[which] for name, values in self._coefficients.items()}
        expected = expected_usage(
            mine,
            self._weather.temperatures_f,
            station=self._weather.station[which],
            weekend=self._weekend,
            holiday=self._holiday,
            within_f=(mine["low_f"], mine["high_f"]),
            hourly=self._hourly[which],
            hourly_f=self._weather.hourly_f,
        )
        # validation replaces reads of a dial that ran backward by estimates: that is not a silence
        backward = history.has(packing.REVERSED)
        coverage = np.where(backward, np.nan, history.coverage) if backward.any() else history.coverage
        outage = history.has(packing.OUTAGE)
        return Window(
            day=history.days[-1],
            commodity=history.commodity,
            unit=history.unit,
            usage=history.usage,
            coverage=coverage,
            customer_class=self._classes[which],
            expected=expected,
            sigma=np.nan_to_num(mine["sigma"]),
            robust=np.nan_to_num(mine["robust_sigma"]),
            provisional=self._provisional[which],
            disconnected=history.has(packing.DISCONNECTED),
            account_changed=history.has(packing.ACCOUNT_CHANGED),
            head_end=self._head_end[which],
            collector=self._collector[which],
            head_ends=self.head_ends,
            collectors=self.collectors,
            neighbourhood=self._neighbourhood[which],
            export=history.export,
            night=history.night,
            sustained=history.sustained,
            outage=outage if outage.any() else None,
            register_back=history.has(packing.REGISTER_BACK)[:, -1],
            reverse_reported=backward[:, -1],
            tolerance=self._tolerance[which],
        )

    def judge(self, limits: Thresholds = DEFAULT, *, part: int = PART, threads: int | None = None) -> pl.DataFrame:
        """Every finding about the last day (FINDINGS), the same whatever ``part`` and ``threads``."""
        return detect_in_parts(
            self.window, self.points, self.head_ends, self.collectors, limits, part=part, threads=threads
        )


def _coefficients(weeks: packing.PackedDays, baselines: pl.DataFrame) -> tuple[dict[str, Floats], Bools, Bools]:
    """(points,) coefficients, whether they are the class's, whether made on degree hours; NaN and the class's where the
    version has no row."""
    size = weeks.points.size
    mine = baselines.filter(pl.col("unit") == weeks.unit) if baselines.height else baselines
    if mine.is_empty():
        return {name: np.full(size, np.nan) for name in _NUMBERS}, np.ones(size, bool), np.zeros(size, bool)
    laid = weeks.names.to_frame().join(mine, on="service_point_id", how="left", maintain_order="left")
    numbers = laid.select(pl.col(_NUMBERS).cast(pl.Float64).fill_null(np.nan))
    own = laid.select(pl.col("status").fill_null("class_profile") == "class_profile", pl.col("hourly").fill_null(False))
    return {name: numbers[name].to_numpy() for name in _NUMBERS}, own["status"].to_numpy(), own["hourly"].to_numpy()


def _codes(column: pl.Series) -> tuple[Ints, list[str]]:
    """Codes into the sorted distinct names, -1 for null."""
    names: list[Any] = sorted(column.drop_nulls().unique().to_list())
    if not names:
        return np.full(len(column), -1, np.int64), names
    return column.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).to_numpy(), names
