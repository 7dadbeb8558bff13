"""Temperatures of a city that never existed: seasons, and weather that lasts for days."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import numpy.typing as npt

from meter_pipeline.simulator.randomness import draws, normal_table

#: The disturbance of a day is 4.0 C times a sum over the last 24 days' shocks, weighted 0.72^k: an AR(1) process cut
# where it no longer matters, so that a day needs no history.
_MEMORY = 24
_PERSISTENCE = 0.72
_SHOCK_TENTHS = 40

STATIONS = ("KMUN", "KWEST")


def daily_temperatures(seed: int, station: int, first: date, days: int) -> npt.NDArray[np.int64]:
    """(days, 2) minimum and maximum in tenths of a degree Celsius from ``first`` on: mid-continental, coldest in
    mid-January."""
    origin = first.toordinal() - _MEMORY
    shocks = np.concatenate(
        [draws(seed, f"weather-{station}", day, 0, 1, 3) for day in range(origin, origin + days + _MEMORY)]
    )
    normal = normal_table()[shocks]
    weights = [_PERSISTENCE**k for k in range(_MEMORY)]
    scale = _SHOCK_TENTHS * math.sqrt(1 - _PERSISTENCE**2)
    found = np.empty((days, 2), np.int64)
    for d in range(days):
        day = first.toordinal() + d
        season = -math.cos(2 * math.pi * ((day - 15) % 365.2425) / 365.2425)
        disturbance = scale * sum(weights[k] * int(normal[d + _MEMORY - k, 0]) for k in range(_MEMORY)) / 1000
        mean = 110 + 135 * season + disturbance - 8 * station
        spread = max(20, 52 + 12 * int(normal[d + _MEMORY, 1]) / 1000)
        found[d] = round(mean - spread), round(mean + spread)
    return found


def mean_fahrenheit(temperatures: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(days,) the mean of minimum and maximum in degrees Fahrenheit, the unit balance points are given in."""
    return np.asarray(32.0 + (temperatures[:, 0] + temperatures[:, 1]) * 0.09, np.float64)
