"""Which station a service point's weather comes from.

Belongs here: distance, the nearest station that has enough days, and the fallback for a day it lacks. Does not belong here: reading files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

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
    *,
    min_coverage: float = MIN_COVERAGE,
    max_km: float = MAX_KM,
) -> npt.NDArray[np.int64]:
    """(points, stations) indices of the usable stations of each point, nearest first, -1 behind the last.

    A station is usable within ``max_km`` and with a coverage of at least ``min_coverage``. Ties go to the first name.
    """
    order = np.argsort(np.array(stations), kind="stable")
    away = kilometres(latitude, longitude, station_latitude[order], station_longitude[order])
    enough = np.array([coverage.get(stations[i], 0.0) >= min_coverage for i in order], bool)
    away = np.where(enough[None, :] & (away <= max_km), away, np.inf)
    ranked = np.argsort(away, axis=1, kind="stable")
    usable = np.take_along_axis(np.isfinite(away), ranked, axis=1)
    result: npt.NDArray[np.int64] = np.where(usable, order[ranked], -1)
    return result


def with_fallback(ranked: npt.NDArray[np.int64], temperatures: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Each distinct ranking's own series: (rankings, days) temperatures taken day by day from the first station that has one, NaN where none
    has, and the (rankings, days) station it came from (-1 none). ``ranked`` is (rankings, stations), ``temperatures`` (stations, days).
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
