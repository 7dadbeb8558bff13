"""One meter's fit in plain NumPy: the command line uses it, and the city's compiled search is tested
against it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meter_pipeline.baselines.degree_days import Floats, cooling_degree_days, heating_degree_days
from meter_pipeline.baselines.model import MAD_TO_SIGMA, TIE, Fit, FitOptions, Model, NoModelError


def usable_days(usage: Floats, temperatures_f: Floats, options: FitOptions) -> npt.NDArray[np.bool_]:
    """(days,) True where both usage and temperature are there, and usage is not an electricity meter's silent zero."""
    with np.errstate(invalid="ignore"):
        silent = (usage == 0) if options.zero_is_missing else np.zeros(usage.shape, bool)
    used: npt.NDArray[np.bool_] = np.isfinite(usage) & np.isfinite(temperatures_f) & ~silent
    return used


def fit_known(
    usage: Floats,
    temperatures_f: Floats,
    *,
    hdd_balance_f: float | None = None,
    cdd_balance_f: float | None = None,
    options: FitOptions | None = None,
) -> Fit:
    """Ordinary least squares at balance points given: the model has exactly the terms that were given, whatever their
    sign.

    ``usage`` and ``temperatures_f`` are (days,), NaN where missing. Raises NoModelError where too few days are left to
    tell the terms apart.
    """
    options = options or FitOptions()
    used = usable_days(usage, temperatures_f, options)
    columns = [np.ones(int(used.sum()))]
    if hdd_balance_f is not None:
        columns.append(heating_degree_days(temperatures_f[used], hdd_balance_f))
    if cdd_balance_f is not None:
        columns.append(cooling_degree_days(temperatures_f[used], cdd_balance_f))
    X, y = np.column_stack(columns), usage[used]
    n, p = X.shape
    if n <= p:
        raise NoModelError(f"{n} usable days cannot fit {p} coefficients")
    beta, _, rank, _ = np.linalg.lstsq(X, y, rcond=None)
    if rank < p:
        raise NoModelError("the days do not tell the terms apart: no day lies beyond a given balance point")
    residuals = np.full(usage.shape, np.nan)
    residuals[used] = y - X @ beta
    sse = float(residuals[used] @ residuals[used])
    centred = y - y.mean()
    total = float(centred @ centred)
    r2 = 1 - sse / total if total > 0 and p > 1 else 0.0
    coefficients = list(beta)
    model: Model = "intercept"
    if hdd_balance_f is not None:
        model = "hdd_cdd" if cdd_balance_f is not None else "hdd"
    elif cdd_balance_f is not None:
        model = "cdd"
    return Fit(
        model=model,
        hdd_balance_f=hdd_balance_f,
        cdd_balance_f=cdd_balance_f,
        intercept=float(coefficients.pop(0)),
        hdd_beta=float(coefficients.pop(0)) if hdd_balance_f is not None else None,
        cdd_beta=float(coefficients.pop(0)) if cdd_balance_f is not None else None,
        r2=r2,
        adj_r2=1 - (1 - r2) * (n - 1) / (n - p) if p > 1 else 0.0,
        sigma=float(np.sqrt(sse / (n - p))),
        robust_sigma=float(np.median(np.abs(residuals[used] - np.median(residuals[used])))) * MAD_TO_SIGMA,
        n=n,
        residuals=residuals,
    )


def fit_best(usage: Floats, temperatures_f: Floats, options: FitOptions | None = None) -> Fit:
    """CalTRACK 2.0 daily selection: of every candidate that passes the gates, the one of highest adjusted R2.

    Candidates: intercept (adjusted R2 counts as 0), heating, cooling, both with the cooling base at or above the
    heating base; each base with at least 10 days and 20 degree days beyond it; no negative intercept or beta (CalTRACK
    3.2.2, 3.4.3). Raises NoModelError when none is left.
    """
    options = options or FitOptions()
    used = usable_days(usage, temperatures_f, options)
    n = int(used.sum())
    if n < 2:
        raise NoModelError("fewer than two days have both usage and temperature")
    y, t = usage[used], temperatures_f[used]
    mean = float(y.mean())
    centred = y - mean
    total = float(centred @ centred)
    best: tuple[float, float | None, float | None] | None = (0.0, None, None) if mean >= 0 else None

    bases = np.asarray(options.balance_points_f)
    H = _passing(heating_degree_days(t, bases), options)
    C = _passing(cooling_degree_days(t, bases), options) if options.cooling else []
    heating = [(options.balance_points_f[i], x, x.mean(), x - x.mean()) for i, x in H]
    cooling = [(options.balance_points_f[i], x, x.mean(), x - x.mean()) for i, x in C]

    def consider(explained: float, coefficients: int, hdd: float | None, cdd: float | None) -> None:
        nonlocal best
        if total <= 0 or n - coefficients - 1 <= 0:
            return
        adjusted = 1 - (1 - explained / total) * (n - 1) / (n - coefficients - 1)
        if best is None or adjusted > best[0] + TIE:
            best = (adjusted, hdd, cdd)

    for side in (heating, cooling):
        for base, _, x_mean, x in side:
            beta = float(x @ centred) / float(x @ x)
            if beta >= 0 and mean - beta * x_mean >= 0:
                consider(
                    beta * float(x @ centred), 1, base if side is heating else None, base if side is cooling else None
                )
    for c_base, _, c_mean, c in cooling:
        for h_base, _, h_mean, h in heating:
            if h_base > c_base:
                break
            hh, cc, hc, hy, cy = float(h @ h), float(c @ c), float(h @ c), float(h @ centred), float(c @ centred)
            determinant = hh * cc - hc * hc
            if determinant <= 1e-9 * hh * cc:
                continue
            b_h, b_c = (cc * hy - hc * cy) / determinant, (hh * cy - hc * hy) / determinant
            if b_h >= 0 and b_c >= 0 and mean - b_h * h_mean - b_c * c_mean >= 0:
                consider(b_h * hy + b_c * cy, 2, h_base, c_base)
    if best is None:
        raise NoModelError(
            "no candidate qualified: usage is negative on average and no degree-day model has non-negative terms"
        )
    return fit_known(
        usage,
        temperatures_f,
        hdd_balance_f=None if best[1] is None else float(best[1]),
        cdd_balance_f=None if best[2] is None else float(best[2]),
        options=options,
    )


def _passing(features: Floats, options: FitOptions) -> list[tuple[int, Floats]]:
    return [
        (i, x)
        for i, x in enumerate(features)
        if np.count_nonzero(x > 0) >= options.min_days and x.sum() >= options.min_degree_days and np.ptp(x) > 0
    ]
