"""Degree days and degree hours: the demand that a temperature puts on a building's heating and cooling.

A degree day is max(0, base - mean) for heating and max(0, mean - base) for cooling, of the day's mean temperature
(CalTRACK 3.3.4 and 3.3.5). A degree hour does the same for each hour and averages over the day, so a day that is cold
at night and hot at noon has both.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: CalTRACK 3.2.1 and 3.2.3: 30 to 90 °F, in steps of at most 3 °F; one degree costs nothing here.
BALANCE_POINTS_F: Final[Floats] = np.arange(30.0, 91.0)


def fahrenheit(celsius: Floats) -> Floats:
    """Degrees Fahrenheit of degrees Celsius, NaN kept."""
    return np.asarray(celsius, np.float64) * 1.8 + 32.0


def celsius(fahrenheit_: Floats) -> Floats:
    """Degrees Celsius of degrees Fahrenheit, NaN kept."""
    return (np.asarray(fahrenheit_, np.float64) - 32.0) / 1.8


def heating_degree_days(means: Floats, base: Floats | float) -> Floats:
    """Heating degree days of daily mean temperatures (days,), in the unit of ``means`` and ``base``.

    A scalar base gives (days,), an array of bases (bases, days). NaN where the mean is missing.
    """
    bases = np.asarray(base, np.float64)
    return np.maximum(bases[..., None] - means if bases.ndim else bases - means, 0.0)


def cooling_degree_days(means: Floats, base: Floats | float) -> Floats:
    """Cooling degree days of daily mean temperatures (days,); shapes as in heating_degree_days."""
    bases = np.asarray(base, np.float64)
    return np.maximum(means - bases[..., None] if bases.ndim else means - bases, 0.0)


def degree_hours(hourly: Floats, base: Floats | float, *, cooling: bool) -> Floats:
    """Mean over the hours of a day of the degrees beyond the base, in degree days.

    ``hourly`` is (days, hours) with NaN where an hour is missing (a 23-hour day has a NaN last column). Result as in
    heating_degree_days; NaN for a day of which half or fewer of the hours are there (CalTRACK 2.2.2.3).
    """
    bases = np.atleast_1d(np.asarray(base, np.float64))
    present = np.isfinite(hourly)
    count = present.sum(axis=1)
    filled = np.where(present, hourly, 0.0)
    result = np.empty((bases.size, hourly.shape[0]))
    for row, point in enumerate(bases):
        beyond = np.maximum(filled - point if cooling else point - filled, 0.0)
        result[row] = np.where(present, beyond, 0.0).sum(axis=1)
    enough = count > 12
    result = np.where(enough, result / np.maximum(count, 1), np.nan)
    return result[0] if np.ndim(base) == 0 else result


def sums(daily_means: Floats, base: float) -> tuple[float, float]:
    """Total heating and cooling degree days at a base over the days that have a mean, in the unit of both."""
    return (
        float(np.nansum(heating_degree_days(daily_means, base))),
        float(np.nansum(cooling_degree_days(daily_means, base))),
    )
