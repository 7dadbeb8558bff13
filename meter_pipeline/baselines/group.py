"""The baselines of one station's meters of one commodity, whoever has history and whoever has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.baselines.degree_days import Floats
from meter_pipeline.baselines.model import BASELINE_DAYS, MAX_MISSING_SHARE, MIN_OWN_DAYS, Fuel, options_for
from meter_pipeline.baselines.predict import COEFFICIENTS, Profiles, class_profiles, known_range, scaled_profile
from meter_pipeline.baselines.station_fit import fit_station

#: Days before a refit that it leaves out, so that a fault under way does not teach the baseline what is normal.
LAG_DAYS: Final = 21
#: Share of a station's days that must have hours before degree hours are tried: as much as CalTRACK asks of
# temperatures (2.2.3.2).
MIN_HOURLY_SHARE: Final = 0.9
HOURS_A_DAY: Final = 24
STATUSES: Final = ("class_profile", "provisional", "caltrack")


@dataclass(frozen=True, slots=True)
class GroupFit:
    """(points,) arrays: ``coefficients`` by name (COEFFICIENTS, low_f, high_f, r2, adj_r2), model index (-1 none), days
    used, status code, and whether the model is made on degree hours."""

    coefficients: dict[str, Floats]
    model: npt.NDArray[np.int8]
    n: npt.NDArray[np.int32]
    status: npt.NDArray[np.int8]
    hourly: npt.NDArray[np.bool_]

    @property
    def provisional(self) -> npt.NDArray[np.bool_]:
        """Points that stand on their class's profile."""
        found: npt.NDArray[np.bool_] = self.status == 0
        return found


def training_days(available: int) -> slice:
    """Which of the days before a refit (oldest first) it learns from: a year, up to three weeks ago.

    While that leaves fewer than sixty days, all of them: such a baseline is provisional whatever it learns from.
    """
    last = available - LAG_DAYS if available - LAG_DAYS >= MIN_OWN_DAYS else available
    return slice(max(0, last - BASELINE_DAYS), last)


def fit_group(
    usage: Floats,
    classes: npt.NDArray[np.int64],
    class_count: int,
    temperatures_f: Floats,
    fuel: Fuel,
    *,
    weekend: npt.NDArray[np.bool_],
    holiday: npt.NDArray[np.bool_],
    hourly_f: Floats | None = None,
    profiles: Profiles | None = None,
) -> GroupFit:
    """Fit (points, days) measured usage, NaN where missing or estimated, against one station's (days,) mean
    temperatures.

    ``hourly_f`` (days, hours): where at least MIN_HOURLY_SHARE of the days that have a mean have their hours too,
    degree hours are tried, and kept for the points they fit better. Class profiles always stand on daily means;
    ``profiles`` are those of a group that is fitted in parts, by default those of the points given.
    """
    points, days = usage.shape
    options = options_for(fuel, calendar=True)
    profiles = profiles or class_profiles(usage, classes, temperatures_f, class_count, cooling=options.cooling)
    coefficients = scaled_profile(profiles, classes, usage, temperatures_f)
    model = np.where(np.isnan(coefficients["hdd_balance_f"]), 0, 1) + np.where(
        np.isnan(coefficients["cdd_balance_f"]), 0, 2
    )
    model = np.where(np.isfinite(coefficients["intercept"]), model, -1).astype(np.int8)
    n = np.isfinite(usage).sum(axis=1).astype(np.int32)
    status, hourly = np.zeros(points, np.int8), np.zeros(points, bool)
    for name in ("r2", "adj_r2"):
        coefficients[name] = np.full(points, np.nan)
    if days >= MIN_OWN_DAYS:
        hours = hourly_f if hourly_f is not None and _hours_enough(hourly_f, temperatures_f) else None
        fit = fit_station(usage, temperatures_f, options, weekend=weekend, holiday=holiday, hourly_f=hours)
        own = (fit.n >= MIN_OWN_DAYS) & (fit.model >= 0)
        for name in (*COEFFICIENTS, "r2", "adj_r2"):
            coefficients[name] = np.where(own, getattr(fit, name), coefficients[name])
        model = np.where(own, fit.model, model).astype(np.int8)
        n = np.where(own, fit.n, n).astype(np.int32)
        full = fit.n >= (1 - MAX_MISSING_SHARE) * BASELINE_DAYS
        status = np.where(own, np.where(full, 2, 1), 0).astype(np.int8)
        hourly = own & fit.hourly
    low, high = known_range(temperatures_f)
    coefficients["low_f"], coefficients["high_f"] = np.full(points, low), np.full(points, high)
    return GroupFit(coefficients, model, n, status, hourly)


def _hours_enough(hourly_f: Floats, temperatures_f: Floats) -> bool:
    known = np.isfinite(temperatures_f)
    complete = 2 * np.isfinite(hourly_f).sum(axis=1) > HOURS_A_DAY
    return bool(known.any()) and float(complete[known].mean()) >= MIN_HOURLY_SHARE
