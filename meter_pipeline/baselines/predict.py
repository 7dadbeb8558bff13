"""A baseline's expected usage of a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.baselines.degree_days import Floats, degree_hours
from meter_pipeline.baselines.model import MAD_TO_SIGMA

#: Coefficients of a baseline, one row a service point, as stored and as expected_usage reads them.
COEFFICIENTS: Final = (
    "hdd_balance_f",
    "cdd_balance_f",
    "intercept",
    "hdd_beta",
    "cdd_beta",
    "weekend",
    "holiday",
    "sigma",
    "robust_sigma",
)
#: degrees beyond the known range that a straight line is still trusted
RANGE_MARGIN_F: Final = 5.0
#: members of a class whose days make its spread
_SAMPLE: Final = 2000


def expected_usage(
    coefficients: Mapping[str, Floats],
    temperatures_f: Floats,
    *,
    station: npt.NDArray[np.int64] | None = None,
    weekend: npt.NDArray[np.bool_] | None = None,
    holiday: npt.NDArray[np.bool_] | None = None,
    within_f: tuple[Floats, Floats] | None = None,
    hourly: npt.NDArray[np.bool_] | None = None,
    hourly_f: Floats | None = None,
) -> Floats:
    """(points, days) usage at daily mean temperatures, NaN where the temperature is missing or outside ``within_f``,
    the points' lowest and highest known temperatures (known_range). A floor of zero: expected usage is never negative.

    ``coefficients`` has (points,) arrays of COEFFICIENTS; a NaN base is an absent term. ``temperatures_f`` is (days,)
    for one station, or (stations, days) with ``station`` naming each point's row, -1 none. ``hourly`` marks the points
    whose models are made on degree hours: they are read with those of ``hourly_f`` (as temperatures_f, with an axis of
    hours), and have no expectation on a day whose hours are missing.
    """
    if not np.isfinite(coefficients["intercept"]).any():
        return np.full((coefficients["intercept"].size, np.atleast_2d(temperatures_f).shape[1]), np.nan)
    from meter_pipeline.baselines import expectation_kernels

    t = np.ascontiguousarray(np.atleast_2d(temperatures_f), np.float64)
    points, days = coefficients["intercept"].size, t.shape[1]
    row = np.zeros(points, np.int64) if station is None else station.astype(np.int64)
    none = np.zeros(days)
    low, high = within_f if within_f is not None else (np.full(points, -np.inf), np.full(points, np.inf))
    # no known range (no baseline) is no limit; the intercept is NaN there anyway
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    found = np.empty((points, days))
    expectation_kernels.expect(
        t if t.shape[0] else np.full((1, days), np.nan),
        row,
        *(
            np.ascontiguousarray(coefficients[n], np.float64)
            for n in ("hdd_balance_f", "cdd_balance_f", "intercept", "hdd_beta", "cdd_beta", "weekend", "holiday")
        ),
        none if weekend is None else weekend.astype(np.float64),
        none if holiday is None else holiday.astype(np.float64),
        low,
        high,
        found,
    )
    by_hours = np.zeros(0, np.int64) if hourly is None else np.flatnonzero(hourly)
    if by_hours.size == 0:
        return found
    if hourly_f is None:
        found[by_hours] = np.nan
        return found
    hours = hourly_f if hourly_f.ndim == 3 else hourly_f[None]
    sides = []
    for name, cooling in (("hdd_balance_f", False), ("cdd_balance_f", True)):
        base = coefficients[name]
        bases = np.unique(base[by_hours][np.isfinite(base[by_hours])])
        at = np.where(np.isfinite(base), np.searchsorted(bases, base), -1)
        table = (
            np.stack([degree_hours(station_hours, bases, cooling=cooling) for station_hours in hours])
            if bases.size
            else np.zeros((len(hours), 0, days))
        )
        sides += [table, at.astype(np.int64)]
    expectation_kernels.expect_by_hours(
        by_hours,
        t,
        row,
        *sides,
        *(
            np.ascontiguousarray(coefficients[n], np.float64)
            for n in ("intercept", "hdd_beta", "cdd_beta", "weekend", "holiday")
        ),
        none if weekend is None else weekend.astype(np.float64),
        none if holiday is None else holiday.astype(np.float64),
        low,
        high,
        found,
    )
    return found


def known_range(temperatures_f: Floats) -> tuple[float, float]:
    """Coldest and warmest day a baseline fitted on these days may speak about, °F.

    The 2nd and 98th percentile, and five degrees more: a model made in winter has never seen the house cool, and what
    it says of the first hot day is no expectation. (-inf, inf) of no days.
    """
    known = temperatures_f[np.isfinite(temperatures_f)]
    if known.size == 0:
        return -np.inf, np.inf
    low, high = np.quantile(known, [0.02, 0.98])
    return float(low) - RANGE_MARGIN_F, float(high) + RANGE_MARGIN_F


@dataclass(frozen=True, slots=True)
class Profiles:
    """Class profiles: coefficients of the class's mean usage by class code, and the class's own spread relative
    to it.
    """

    coefficients: dict[str, Floats]
    relative_sigma: Floats


class ClassMeans:
    """Each class's mean measured usage by day, and a sample of its members, gathered from parts of a city."""

    def __init__(self, count: int, days: int) -> None:
        self._sum, self._known = np.zeros((count, days)), np.zeros((count, days))
        self._sample: list[list[Floats]] = [[] for _ in range(count)]

    def add(self, usage: Floats, classes: npt.NDArray[np.int64]) -> None:
        """``usage`` (points, days) with NaN, ``classes`` (points,) codes."""
        known = np.isfinite(usage)
        for code, sample in enumerate(self._sample):
            members = np.flatnonzero(classes == code)
            if members.size:
                self._known[code] += known[members].sum(axis=0)
                self._sum[code] += np.nansum(usage[members], axis=0)
                sample.append(usage[members[: max(_SAMPLE - sum(len(s) for s in sample), 0)]])

    def profiles(self, temperatures_f: Floats, *, cooling: bool) -> Profiles:
        """One degree-day model per class from its mean. A class without members gets NaN throughout.

        ``relative_sigma`` is the robust spread of members' day totals over the profile, which is wide: homes differ.
        """
        from meter_pipeline.baselines.model import FitOptions
        from meter_pipeline.baselines.station_fit import fit_station

        mean = np.where(self._known > 0, self._sum / np.maximum(self._known, 1), np.nan)
        fit = fit_station(mean, temperatures_f, FitOptions(cooling=cooling, zero_is_missing=False))
        coefficients = {name: np.array(getattr(fit, name), np.float64) for name in COEFFICIENTS}
        coefficients["intercept"] = np.where(fit.n > 0, coefficients["intercept"], np.nan)
        expected = expected_usage(coefficients, temperatures_f)
        spread = np.full(len(mean), np.nan)
        for code, sample in enumerate(self._sample):
            if sample and np.isfinite(coefficients["intercept"][code]):
                share = np.concatenate(sample) / np.maximum(expected[code], 1e-9)
                share = share[np.isfinite(share)]
                if share.size:
                    spread[code] = float(np.median(np.abs(share - np.median(share)))) * MAD_TO_SIGMA
        return Profiles(coefficients, spread)


def class_profiles(
    usage: Floats, classes: npt.NDArray[np.int64], temperatures_f: Floats, count: int, *, cooling: bool
) -> Profiles:
    """Profiles (ClassMeans.profiles) of points that are all in memory. ``usage`` (points, days) with NaN, ``classes``
    codes below ``count``."""
    means = ClassMeans(count, usage.shape[1])
    means.add(usage, classes)
    return means.profiles(temperatures_f, cooling=cooling)


def scaled_profile(
    profiles: Profiles, classes: npt.NDArray[np.int64], usage: Floats, temperatures_f: Floats
) -> dict[str, Floats]:
    """Coefficients for points without a history of their own: their class's, scaled to the days they do have (seven or
    more), else as it is.

    The spread is the class's relative spread times the point's scaled level, and never less than a fifth of it.
    """
    base = {name: values[classes].copy() for name, values in profiles.coefficients.items()}
    expected = expected_usage(base, temperatures_f)
    both = np.isfinite(usage) & np.isfinite(expected)
    expected_sum = np.where(both, expected, 0.0).sum(axis=1)
    scale = np.where(
        (both.sum(axis=1) >= 7) & (expected_sum > 0),
        np.where(both, usage, 0.0).sum(axis=1) / np.maximum(expected_sum, 1e-9),
        1.0,
    )
    scale = np.maximum(scale, 0.0)
    for name in ("intercept", "hdd_beta", "cdd_beta", "weekend", "holiday"):
        base[name] *= scale
    own = both.sum(axis=1) >= 7
    known = np.isfinite(expected)
    anyway = np.where(known, expected, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    level = np.where(both.any(axis=1), expected_sum / np.maximum(both.sum(axis=1), 1), anyway) * scale
    relative = np.where(own, np.minimum(profiles.relative_sigma[classes], 0.35), profiles.relative_sigma[classes])
    base["sigma"] = np.maximum(np.nan_to_num(relative, nan=1.0), 0.2) * np.maximum(level, 0.0)
    base["robust_sigma"] = base["sigma"]
    return base
