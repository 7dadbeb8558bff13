"""The terms of a baseline: options, gates and the result of one fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from meter_pipeline.baselines.degree_days import BALANCE_POINTS_F, Floats

Fuel = Literal["electricity", "gas", "water"]
Model = Literal["hdd_cdd", "hdd", "cdd", "intercept"]

#: index in the compiled kernels -> name in documents and tables
MODELS: Final[tuple[Model, ...]] = ("intercept", "hdd", "cdd", "hdd_cdd")

#: CalTRACK 2.2.1.1 and 2.2.1.2: a year, of which at most 37 days (10 %) may be missing
BASELINE_DAYS: Final = 365
MAX_MISSING_SHARE: Final = 37 / 365
#: Days below which a meter's own fit is not used and its class profile stands in
MIN_OWN_DAYS: Final = 60
#: CalTRACK 3.2.2: a balance point needs 10 days and 20 degree days beyond it
MIN_DEGREE_DAY_DAYS: Final = 10
MIN_DEGREE_DAYS: Final = 20.0
#: Two candidates whose adjusted R2 differ by less are the same fit (two bases that no day separates): the first in
# CalTRACK's order stays. : Without it the last bit of a sum would choose.
TIE: Final = 1e-12
#: A weekend or holiday term must lower the Bayesian information criterion by this much to be kept: "strong" in
# Raftery's scale (1995).
MIN_BIC_GAIN: Final = 6.0
#: sigma of a normal distribution over its median absolute deviation
MAD_TO_SIGMA: Final = 1.4826022185056018


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Options of a fit.

    ``cooling`` False leaves out every cooling term: gas has none (CalTRACK 3.2.1). ``zero_is_missing``: an electricity
    meter that counts nothing all day has said nothing, a gas or water meter has (CalTRACK 2.2.1.4). ``calendar`` also
    tries weekend and holiday terms, on top of CalTRACK. ``balance_points_f`` ascends.
    """

    cooling: bool = True
    zero_is_missing: bool = True
    calendar: bool = False
    balance_points_f: tuple[float, ...] = tuple(BALANCE_POINTS_F.tolist())
    min_days: int = MIN_DEGREE_DAY_DAYS
    min_degree_days: float = MIN_DEGREE_DAYS


def options_for(fuel: Fuel, *, calendar: bool = False) -> FitOptions:
    """CalTRACK's options for a fuel. Water follows the seasons too (lawns, pools), so it may cool and its zeros are
    real."""
    return FitOptions(cooling=fuel != "gas", zero_is_missing=fuel == "electricity", calendar=calendar)


@dataclass(frozen=True, slots=True)
class Fit:
    """One meter's baseline. Usage in the unit it was given in; betas per degree day Fahrenheit; absent terms None.

    ``sigma`` is the residual standard deviation with n - p degrees of freedom, ``robust_sigma`` the scaled median
    absolute deviation of the same residuals, which a spike does not widen. ``residuals`` is (days,), NaN where a day
    was not used.
    """

    model: Model
    hdd_balance_f: float | None
    cdd_balance_f: float | None
    intercept: float
    hdd_beta: float | None
    cdd_beta: float | None
    r2: float
    adj_r2: float
    sigma: float
    robust_sigma: float
    n: int
    residuals: Floats

    @property
    def beyond_3_sigma(self) -> list[int]:
        """Indices of the days whose residual is beyond three standard deviations."""
        with np.errstate(invalid="ignore"):
            return [int(i) for i in np.flatnonzero(np.abs(self.residuals) > 3 * self.sigma)]


class NoModelError(ValueError):
    """No candidate qualified, or there was nothing to fit; the message says why."""
