"""Which station a service point's weather comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.baselines.degree_days import Floats

EARTH_KM: Final = 6371.0088
#: A station needs 90 % of the days asked about (CalTRACK 2.2.3.2 for billing periods, taken here for any period).
MIN_COVERAGE: Final = 0.9
#: Weather further away than this is another climate; a service point beyond it has no station rather than a wrong one.
MAX_KM: Final = 150.0


def kilometres(latitude: Floats, longitude: Floats, to_latitude: Floats, to_longitude: Floats) -> Floats:
    """(points, stations) great-circle distances by the haversine formula, degrees in, kilometres out."""
    a, b = np.radians(latitude)[:, None], np.radians(to_latitude)[None, :]
    across = np.radians(to_longitude)[None, :] - np.radians(longitude)[:, None]
    h = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(across / 2) ** 2
    result: Floats = 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))
    return result


def ranked_stations(
    latitude: Floats,
    longitude: Floats,
    stations: Sequence[str],
    station_latitude: Floats,
    station_longitude: Floats,
    coverage: Mapping[str, float],
) -> npt.NDArray[np.int64]:
    """(points, stations) indices of the usable stations of each point, nearest first, -1 behind the last.

    A station is usable within MAX_KM and with a coverage of at least MIN_COVERAGE. Ties go to the first name.
    """
    order = np.argsort(np.array(stations), kind="stable")
    away = kilometres(latitude, longitude, station_latitude[order], station_longitude[order])
    enough = np.array([coverage.get(stations[i], 0.0) >= MIN_COVERAGE for i in order], bool)
    away = np.where(enough[None, :] & (away <= MAX_KM), away, np.inf)
    ranked = np.argsort(away, axis=1, kind="stable")
    usable = np.take_along_axis(np.isfinite(away), ranked, axis=1)
    result: npt.NDArray[np.int64] = np.where(usable, order[ranked], -1)
    return result


def with_fallback(ranked: npt.NDArray[np.int64], temperatures: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Each distinct ranking's own series: (rankings, days) temperatures taken day by day from the first station that
    has one, NaN where none has, and the (rankings, days) station it came from (-1 none). ``ranked`` is (rankings,
    stations), ``temperatures`` (stations, days).
    """
    rankings, days = ranked.shape[0], temperatures.shape[1]
    result, source = np.full((rankings, days), np.nan), np.full((rankings, days), -1, np.int64)
    for place in range(ranked.shape[1]):
        station = ranked[:, place]
        value = np.where((station >= 0)[:, None], temperatures[np.maximum(station, 0)], np.nan)
        take = np.isnan(result) & np.isfinite(value)
        result = np.where(take, value, result)
        source = np.where(take, station[:, None], source)
    return result, source


@dataclass(frozen=True, slots=True)
class Service:
    """The weather of a set of service points: ``station`` (points,) indices into ``names`` (-1 none),
    ``temperatures_f`` (names, days), and where any hour is known ``hourly_f`` (names, days, 25), NaN where it is not.
    """

    names: list[str]
    station: npt.NDArray[np.int64]
    temperatures_f: Floats
    hourly_f: Floats | None = None

    def of_points(self) -> Floats:
        """(points, days) temperatures, NaN where a point has no station or the day no reading."""
        if not self.names:
            return np.full((self.station.size, self.temperatures_f.shape[1]), np.nan)
        found: Floats = np.where((self.station >= 0)[:, None], self.temperatures_f[np.maximum(self.station, 0)], np.nan)
        return found

    def known_on(self, day: int) -> npt.NDArray[np.bool_]:
        """(points,) whether a point has a temperature on a day (column)."""
        if not self.names:
            return np.zeros(self.station.size, bool)
        found: npt.NDArray[np.bool_] = (self.station >= 0) & np.isfinite(self.temperatures_f[:, day])[
            np.maximum(self.station, 0)
        ]
        return found

    def hours_known_on(self, day: int) -> npt.NDArray[np.bool_]:
        """(points,) whether a point has more than half of a day's (column's) hours."""
        if not self.names or self.hourly_f is None:
            return np.zeros(self.station.size, bool)
        enough = np.isfinite(self.hourly_f[:, day]).sum(axis=1) > 12
        found: npt.NDArray[np.bool_] = (self.station >= 0) & enough[np.maximum(self.station, 0)]
        return found


def serve(
    points: pl.DataFrame,
    stations: pl.DataFrame,
    temperatures: pl.DataFrame,
    days: Sequence[date],
    hours: pl.DataFrame | None = None,
) -> Service:
    """The weather of each point on each day: from its own station, else the nearest with enough days, else (one station
    known) that one.

    ``points``: station_id, latitude, longitude, null where unknown. ``stations``: station_id, latitude, longitude.
    ``temperatures``: station_id, weather_day, temperature_mean_c. A day that a station lacks is taken from the next one
    within reach, and its hours (``hours``: station_id, weather_day, hourly_c) with it.
    """
    names = stations["station_id"].to_list()
    grid = np.full((len(names), len(days)), np.nan)
    row_of, column_of = {n: i for i, n in enumerate(names)}, {d: i for i, d in enumerate(days)}
    for station, day, mean in temperatures.select("station_id", "weather_day", "temperature_mean_c").iter_rows():
        if station in row_of and day in column_of and mean is not None:
            grid[row_of[station], column_of[day]] = mean * 1.8 + 32.0
    if not names:
        return Service([], np.full(points.height, -1, np.int64), grid)
    latitude, longitude = (stations[c].cast(pl.Float64).to_numpy() for c in ("latitude", "longitude"))
    share = np.isfinite(grid).mean(axis=1) if days else np.zeros(len(names))
    usable = {name: float(s) for name, s in zip(names, share, strict=True)}
    near = ranked_stations(latitude, longitude, names, latitude, longitude, dict.fromkeys(names, 1.0))
    ranking = np.column_stack([np.arange(len(names)), np.where(near == np.arange(len(names))[:, None], -1, near)])
    filled, source = with_fallback(ranking, grid)
    hourly = None if hours is None or hours.is_empty() else _hours_of(hours, row_of, column_of, source)
    own = np.array([row_of.get(s, -1) if s is not None else -1 for s in points["station_id"].to_list()], np.int64)
    where = points.select(pl.col("latitude", "longitude").cast(pl.Float64).fill_null(np.nan)).to_numpy()
    lost = np.flatnonzero(own < 0)
    if lost.size == 0:
        return Service(names, own, filled, hourly)
    placed = lost[np.isfinite(where[lost]).all(axis=1)]
    if placed.size:
        best = ranked_stations(where[placed, 0], where[placed, 1], names, latitude, longitude, usable)[:, 0]
        own[placed] = best
    if len(names) == 1:
        own[lost[~np.isfinite(where[lost]).all(axis=1)]] = 0
    return Service(names, own, filled, hourly)


def _hours_of(
    hours: pl.DataFrame, row_of: Mapping[str, int], column_of: Mapping[date, int], source: npt.NDArray[np.int64]
) -> Floats:
    """(names, days, 25) °F of each day from the station its mean came from."""
    grid = np.full((*source.shape, 25), np.nan)
    for station, day, listed in hours.select("station_id", "weather_day", "hourly_c").iter_rows():
        if station in row_of and day in column_of and listed is not None:
            known = np.array(listed, np.float64)[:25]
            grid[row_of[station], column_of[day], : known.size] = known * 1.8 + 32.0
    taken: Floats = np.where(
        (source >= 0)[:, :, None], grid[np.maximum(source, 0), np.arange(source.shape[1])[None, :]], np.nan
    )
    return taken
