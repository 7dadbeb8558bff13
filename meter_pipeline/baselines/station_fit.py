"""A whole city's baselines at once: every meter of a weather station in one matrix product.

All meters of a station share their degree days, so the sums of degree days times usage for every base are one product
(meters x days) @ (days x bases); with them each of the two thousand candidates is a closed form. Two facts keep missing
days cheap and exact. A missing day holds zero usage, so it adds nothing to the product, and only the features' own sums
must be lowered by what that day put in. And no daily mean lies below one base and above a higher one, so heating times
cooling sums to zero on any set of days when the bases are in order.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meter_pipeline.baselines.degree_days import Floats, cooling_degree_days, degree_hours, heating_degree_days
from meter_pipeline.baselines.model import MAD_TO_SIGMA, MIN_BIC_GAIN, TIE, FitOptions

Ints = npt.NDArray[np.int64]
#: Meters a thread takes at a time: 2048 x 365 days is 6 MB, so that a chunk's passes find it in cache.
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class CityFit:
    """Baselines of many meters, one entry each; units as Fit. Bases and betas of absent terms are NaN and 0; ``model``
    indexes MODELS, -1 none.

    ``n`` counts the days used, ``days`` those of the window: n below 90 % of a full year is not a CalTRACK baseline,
    whatever its R2. ``hourly``: whether the meter's degree days are degree hours.
    """

    model: npt.NDArray[np.int8]
    hdd_balance_f: Floats
    cdd_balance_f: Floats
    intercept: Floats
    hdd_beta: Floats
    cdd_beta: Floats
    weekend: Floats
    holiday: Floats
    r2: Floats
    adj_r2: Floats
    sigma: Floats
    robust_sigma: Floats
    n: npt.NDArray[np.int32]
    hourly: npt.NDArray[np.bool_]
    days: int

    @property
    def meters(self) -> int:
        return int(self.model.shape[0])


@dataclass(frozen=True, slots=True)
class _Features:
    """Inputs that all meters of the station share, over the days that have a temperature."""

    days: Ints
    H: Floats
    C: Floats
    X: Floats
    sums: tuple[Floats, ...]
    counts: tuple[Ints, ...]
    K: Floats
    daily: bool
    passes: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
    starts: Ints
    inverse: Floats


def _features(H: Floats, C: Floats, bases: Floats, options: FitOptions, daily: bool) -> _Features:
    days = np.flatnonzero(np.isfinite(H[0]))
    H, C = np.ascontiguousarray(H[:, days]), np.ascontiguousarray(C[:, days])
    if not options.cooling:
        C = C[:0]
    n = max(days.size, 1)

    def gates(x: Floats) -> tuple[Floats, Floats, Ints, npt.NDArray[np.bool_]]:
        s, ss, count = x.sum(axis=1), (x * x).sum(axis=1), (x > 0).sum(axis=1)
        ok = (count >= options.min_days) & (s >= options.min_degree_days) & (ss - s * s / n > 1e-9 * ss)
        return s, ss, count, ok

    sh, shh, nh, ok_h = gates(H)
    sc, scc, nc, ok_c = gates(C)
    K = np.zeros((H.shape[0], C.shape[0])) if daily else H @ C.T
    # cooling outside, heating inside: the order in which CalTRACK's candidates are compared, which decides ties
    pairs = [(h, c) for c in range(C.shape[0]) for h in range(H.shape[0]) if bases[h] <= bases[c]]
    pair_h = np.array([p[0] for p in pairs], np.int64)
    pair_c = np.array([p[1] for p in pairs], np.int64)
    hh, cc = (shh - sh * sh / n)[pair_h], (scc - sc * sc / n)[pair_c]
    hc = K[pair_h, pair_c] - sh[pair_h] * sc[pair_c] / n
    determinant = hh * cc - hc * hc
    good = ok_h[pair_h] & ok_c[pair_c] & (determinant > 1e-9 * hh * cc)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.column_stack([cc, -hc, hh]) / determinant[:, None]
    inverse[~good] = 0.0
    starts = np.searchsorted(pair_c, np.arange(C.shape[0] + 1))
    return _Features(
        days,
        H,
        C,
        np.ascontiguousarray(np.vstack([H, C]).T),
        (sh, shh, sc, scc),
        (nh, nc),
        K,
        daily,
        (ok_h, ok_c),
        starts,
        np.ascontiguousarray(inverse.T),
    )


def fit_station(
    usage: Floats | Ints,
    temperatures_f: Floats,
    options: FitOptions | None = None,
    *,
    weekend: npt.NDArray[np.bool_] | None = None,
    holiday: npt.NDArray[np.bool_] | None = None,
    hourly_f: Floats | None = None,
    threads: int | None = None,
) -> CityFit:
    """Fit every meter of one station.

    ``usage`` is (meters, days): floats with NaN where missing, or int64 micro units with NO_VALUE where missing (betas
    are then per whole unit). ``temperatures_f`` (days,) daily means, NaN where missing: such a day is left out for all.
    With ``options.calendar``, ``weekend`` and ``holiday`` (days,) flags are tried as terms. ``hourly_f`` (days, hours),
    when given, tries degree hours too and keeps them for the meters whose adjusted R2 is higher with them, both fitted
    on the days that have hours: fewer days alone must not win. Selection and gates as fit_best; equal to it but for the
    last digits.
    """
    options = options or FitOptions()
    bases = np.asarray(options.balance_points_f)

    def by_day(means: Floats) -> CityFit:
        features = _features(
            heating_degree_days(means, bases), cooling_degree_days(means, bases), bases, options, daily=True
        )
        return _fit(usage, features, bases, options, weekend, holiday, threads, hourly=False)

    fit = by_day(temperatures_f)
    if hourly_f is None:
        return fit
    heating, cooling = (degree_hours(hourly_f, bases, cooling=side) for side in (False, True))
    both = np.isfinite(heating[0]) & np.isfinite(temperatures_f)
    heating[:, ~both], cooling[:, ~both] = np.nan, np.nan
    other = _fit(
        usage,
        _features(heating, cooling, bases, options, daily=False),
        bases,
        options,
        weekend,
        holiday,
        threads,
        hourly=True,
    )
    beside = fit if both[np.isfinite(temperatures_f)].all() else by_day(np.where(both, temperatures_f, np.nan))
    better = (other.model > 0) & ((beside.model < 0) | (other.adj_r2 > beside.adj_r2 + TIE))
    chosen = {
        name: np.where(better, getattr(other, name), getattr(fit, name))
        for name in CityFit.__dataclass_fields__
        if name != "days"
    }
    return CityFit(**chosen, days=fit.days)


def _fit(
    usage: Floats | Ints,
    features: _Features,
    bases: Floats,
    options: FitOptions,
    weekend: npt.NDArray[np.bool_] | None,
    holiday: npt.NDArray[np.bool_] | None,
    threads: int | None,
    *,
    hourly: bool,
) -> CityFit:
    from meter_pipeline.baselines import kernels

    meters, days = usage.shape[0], features.days.size
    floats = {
        name: np.empty(meters)
        for name in ("intercept", "hdd_beta", "cdd_beta", "weekend", "holiday", "r2", "adj_r2", "sigma", "robust_sigma")
    }
    model, at_h, at_c = np.empty(meters, np.int8), np.empty(meters, np.int64), np.empty(meters, np.int64)
    n = np.empty(meters, np.int32)
    sh, shh, sc, scc = features.sums
    nh, nc = features.counts
    weekend_x = (np.zeros(usage.shape[1]) if weekend is None else weekend.astype(np.float64))[features.days]
    holiday_x = (np.zeros(usage.shape[1]) if holiday is None else holiday.astype(np.float64))[features.days]
    calendar = options.calendar and (weekend is not None or holiday is not None)
    prepare = kernels.prepare_micro if usage.dtype == np.int64 else kernels.prepare

    def work(start: int) -> None:
        part = slice(start, min(start + CHUNK, meters))
        size = part.stop - start
        Y = np.empty((size, days))
        missing_at = np.empty((size, max(days, 1)), np.int32)
        missing, mean, total = np.empty(size, np.int64), np.empty(size), np.empty(size)
        prepare(usage[part], features.days, options.zero_is_missing, Y, missing_at, missing, mean, total)
        kernels.search(
            Y @ features.X,
            features.H,
            features.C,
            sh,
            shh,
            nh,
            sc,
            scc,
            nc,
            features.K,
            features.daily,
            features.starts,
            features.inverse,
            *features.passes,
            missing_at,
            missing,
            mean,
            total,
            options.min_days,
            options.min_degree_days,
            TIE,
            model[part],
            at_h[part],
            at_c[part],
        )
        kernels.finish(
            Y,
            features.H,
            features.C,
            weekend_x,
            holiday_x,
            calendar,
            MIN_BIC_GAIN,
            MAD_TO_SIGMA,
            missing_at,
            missing,
            mean,
            total,
            model[part],
            at_h[part],
            at_c[part],
            *(
                floats[name][part]
                for name in (
                    "intercept",
                    "hdd_beta",
                    "cdd_beta",
                    "weekend",
                    "holiday",
                    "r2",
                    "adj_r2",
                    "sigma",
                    "robust_sigma",
                )
            ),
        )
        n[part] = days - missing

    with ThreadPoolExecutor(max_workers=threads or min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(work, range(0, meters, CHUNK)))
    with_h, with_c = np.isin(model, (1, 3)), np.isin(model, (2, 3))
    return CityFit(
        model=model,
        hdd_balance_f=np.where(with_h, bases[at_h], np.nan),
        cdd_balance_f=np.where(with_c, bases[at_c], np.nan),
        n=n,
        hourly=np.full(meters, hourly),
        days=int(usage.shape[1]),
        **floats,
    )
