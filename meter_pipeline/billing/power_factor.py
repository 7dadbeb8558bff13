"""The power factor of a bill's usage, kWh over the root of kWh squared and kVArh squared, and what a tariff makes of
it.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from meter_pipeline.billing.fixed_point import Whole, narrow, product, quotient, scaled
from meter_pipeline.billing.tariffs.model import PowerFactorRule


def power_factor(kwh: Whole, kvarh: Whole, places: int) -> Whole:
    """(n,): the power factor in 1 / 10**places, rounded half up; 1 where nothing was used. Both usages in one scale."""
    one = 10**places
    found = [
        one if not (a or b) else (isqrt((2 * one * a) ** 2 // (a * a + b * b)) + 1) // 2
        for a, b in zip(np.maximum(kwh, 0).tolist(), np.maximum(kvarh, 0).tolist(), strict=True)
    ]
    return np.array(found, np.int64)


def surcharge(rule: PowerFactorRule, factor: Whole) -> tuple[Whole, Whole | int]:
    """What is added to an amount or a demand for a low power factor, as a fraction of it: numerator and denominator.
    Below nothing where a high one earns a credit.

    ``ratio``: target over power factor, less one. ``points``: ``percent`` for each hundredth by which it is below the
    target.
    """
    one = 10**rule.places
    target, places = scaled(rule.target)
    # Below target: in units of 1 / (one * 10**places).
    short = np.full(len(factor), target * one) - product(factor, 10**places)
    if not rule.credit:
        short = np.maximum(short, 0)
    if rule.rule == "ratio":
        return short, product(np.maximum(factor, 1), 10**places)
    percent, decimals = scaled(rule.percent)
    # Hundredths below the target times percent of each, over a hundred.
    return product(short, percent), one * 10 ** (places + decimals)


def adjusted(rule: PowerFactorRule, demand: Whole, kwh: Whole, kvarh: Whole) -> Whole:
    """A demand raised for a low power factor, rounded half even to its own scale."""
    numerator, denominator = surcharge(rule, power_factor(kwh, kvarh, rule.places))
    return narrow(demand + quotient(product(demand, numerator), denominator))
