"""What a baseline expects of a day.

Belongs here: expected usage from coefficients and weather, and class profiles that stand in for a meter without history. Does not belong here:
fitting (city.py), reading either from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.baselines.degree_days import Floats
from meter_pipeline.baselines.model import MAD_TO_SIGMA, MODELS

#: Coefficients of a baseline, one row a service point: what is stored, and what expected_usage reads.
COEFFICIENTS: Final = (
    "hdd_balance_f", "cdd_balance_f", "intercept", "hdd_beta", "cdd_beta", "weekend", "holiday", "sigma", "robust_sigma",
)  # fmt: skip
#: degrees beyond the known range that a straight line is still trusted
RANGE_MARGIN_F: Final = 5.0


def expected_usage(
    coefficients: Mapping[str, Floats],
    temperatures_f: Floats,
    *,
    station: npt.NDArray[np.int64] | None = None,
    weekend: npt.NDArray[np.bool_] | None = None,
    holiday: npt.NDArray[np.bool_] | None = None,
    within_f: tuple[Floats, Floats] | None = None,
) -> Floats:
    """(points, days) usage at daily mean temperatures, NaN where the temperature is missing or outside ``within_f``, the points' lowest and
    highest known temperatures (known_range). A floor of zero: nobody is expected to give back.

    ``coefficients`` has (points,) arrays of COEFFICIENTS; a NaN base is an absent term. ``temperatures_f`` is (days,) for one station, or
    (stations, days) with ``station`` naming each point's row, -1 none. Models made on degree hours are read with degree days, which differ
    on days that cross a base.
    """
    from meter_pipeline.baselines import kernels

    t = np.ascontiguousarray(np.atleast_2d(temperatures_f), np.float64)
    points, days = coefficients["intercept"].size, t.shape[1]
    row = np.zeros(points, np.int64) if station is None else station.astype(np.int64)
    none = np.zeros(days)
    low, high = within_f if within_f is not None else (np.full(points, -np.inf), np.full(points, np.inf))
    # no known range (no baseline) is no limit; the intercept is NaN there anyway
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    found = np.empty((points, days))
    kernels.expect(
        t if t.shape[0] else np.full((1, days), np.nan), row,
        *(np.ascontiguousarray(coefficients[n], np.float64) for n in (
            "hdd_balance_f", "cdd_balance_f", "intercept", "hdd_beta", "cdd_beta", "weekend", "holiday")),
        none if weekend is None else weekend.astype(np.float64), none if holiday is None else holiday.astype(np.float64), low, high, found,
    )  # fmt: skip
    return found


def known_range(temperatures_f: Floats) -> tuple[float, float]:
    """Coldest and warmest day a baseline fitted on these days may speak about, °F.

    The 2nd and 98th percentile, and five degrees more: a model made in winter has never seen the house cool, and what it says of the first
    hot day is no expectation. (-inf, inf) of no days.
    """
    known = temperatures_f[np.isfinite(temperatures_f)]
    if known.size == 0:
        return -np.inf, np.inf
    low, high = np.quantile(known, [0.02, 0.98])
    return float(low) - RANGE_MARGIN_F, float(high) + RANGE_MARGIN_F


@dataclass(frozen=True, slots=True)
class Profiles:
    """Class profiles: coefficients of the class's mean usage by class code, and the class's own spread relative to it."""

    coefficients: dict[str, Floats]
    relative_sigma: Floats


def class_profiles(usage: Floats, classes: npt.NDArray[np.int64], temperatures_f: Floats, count: int, *, cooling: bool) -> Profiles:
    """One degree-day model per class from the class's mean measured usage. ``usage`` (points, days) with NaN, ``classes`` codes below ``count``.

    ``relative_sigma`` is the robust spread of members' day totals over the profile, which is wide: homes differ. A class without members
    gets NaN throughout.
    """
    from meter_pipeline.baselines.city import fit_station
    from meter_pipeline.baselines.model import FitOptions

    mean = np.full((count, usage.shape[1]), np.nan)
    known = np.isfinite(usage)
    for code in range(count):
        members = classes == code
        if members.any():
            n = known[members].sum(axis=0)
            mean[code] = np.where(n > 0, np.nansum(usage[members], axis=0) / np.maximum(n, 1), np.nan)
    fit = fit_station(mean, temperatures_f, FitOptions(cooling=cooling, zero_is_missing=False))
    coefficients = {name: np.array(getattr(fit, name), np.float64) for name in COEFFICIENTS}
    coefficients["intercept"] = np.where(fit.n > 0, coefficients["intercept"], np.nan)
    expected = expected_usage(coefficients, temperatures_f)
    spread = np.full(count, np.nan)
    for code in range(count):
        members = np.flatnonzero(classes == code)[:2000]
        if members.size and np.isfinite(coefficients["intercept"][code]):
            share = usage[members] / np.maximum(expected[code], 1e-9)
            share = share[np.isfinite(share)]
            if share.size:
                spread[code] = float(np.median(np.abs(share - np.median(share)))) * MAD_TO_SIGMA
    return Profiles(coefficients, spread)


def scaled_profile(profiles: Profiles, classes: npt.NDArray[np.int64], usage: Floats, temperatures_f: Floats) -> dict[str, Floats]:
    """Coefficients for points without a history of their own: their class's, scaled to the days they do have (seven or more), else as it is.

    The spread is the class's relative spread times the point's scaled level, and never less than a fifth of it.
    """
    base = {name: values[classes].copy() for name, values in profiles.coefficients.items()}
    expected = expected_usage(base, temperatures_f)
    both = np.isfinite(usage) & np.isfinite(expected)
    asked = np.where(both, expected, 0.0).sum(axis=1)
    scale = np.where((both.sum(axis=1) >= 7) & (asked > 0), np.where(both, usage, 0.0).sum(axis=1) / np.maximum(asked, 1e-9), 1.0)
    scale = np.maximum(scale, 0.0)
    for name in ("intercept", "hdd_beta", "cdd_beta", "weekend", "holiday"):
        base[name] *= scale
    own = both.sum(axis=1) >= 7
    known = np.isfinite(expected)
    anyway = np.where(known, expected, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    level = np.where(both.any(axis=1), asked / np.maximum(both.sum(axis=1), 1), anyway) * scale
    relative = np.where(own, np.minimum(profiles.relative_sigma[classes], 0.35), profiles.relative_sigma[classes])
    base["sigma"] = np.maximum(np.nan_to_num(relative, nan=1.0), 0.2) * np.maximum(level, 0.0)
    base["robust_sigma"] = base["sigma"]
    return base


def model_names(model: npt.NDArray[np.int8]) -> pl.Series:
    """Names of model codes; null for none."""
    return pl.Series([MODELS[m] if m >= 0 else None for m in model.tolist()], dtype=pl.String)
