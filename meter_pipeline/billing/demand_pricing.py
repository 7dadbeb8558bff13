"""What demand costs: the billing demand of a charge, with ratchets, kVA, excess kVAr and power factor, and its
blocks.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

import numpy as np

from meter_pipeline.billing.bill_position import PeriodPosition, count_of
from meter_pipeline.billing.fixed_point import Whole, product, quotient, same_scale, scaled, total
from meter_pipeline.billing.power_factor import adjusted, power_factor, surcharge
from meter_pipeline.billing.tariffs.model import DemandCharge, FixedCharge, PowerFactorRule, Ratchet, Rounding, Tariff


class Prices(Protocol):
    """What of a pricing pass demand needs (billing/pricing.py)."""

    tariff: Tariff
    position: PeriodPosition
    quantities: list[Whole | None]

    def money(self, numerator: Whole, denominator: Whole | int, decimals: int, rounding: Rounding | None) -> Whole:
        """A fraction of the currency as stored money."""


def peaks(position: PeriodPosition) -> Whole:
    """(n, registers): what the registers have counted so far."""
    if position.peaks is None:
        raise ValueError("a tariff with demand registers is priced with peaks")
    return position.peaks


def billing_peak(position: PeriodPosition, charge: DemandCharge) -> Whole:
    """The demand that is charged: the register's own, raised for a low power factor or to a share of another measure,
    what is above a share of another, the ratchet's floor or a share of what was contracted, in whole steps. Raises
    MissingAttributeError."""
    peak = _highest_days(position, charge) if charge.days > 1 else peaks(position)[:, charge.register]
    if charge.power_factor is not None:
        peak = adjusted(charge.power_factor, peak, _used(position), peaks(position)[:, charge.power_factor.kvarh])
    if charge.least is not None:
        peak = np.maximum(peak, _share(position, charge.least))
    if charge.above is not None:
        peak = np.maximum(peak - _share(position, charge.above), 0)
    peak = np.maximum(peak, floored(position, charge.register, charge.ratchet, measured=False))
    for register, ratchet in charge.also:
        peak = np.maximum(peak, floored(position, register, ratchet))
    if charge.contract is not None:
        number, places = scaled(charge.contract)
        agreed = product(count_of(position, "contract_kw"), number * position.scale)
        peak = np.maximum(peak, quotient(agreed, 10 ** (8 + places)))
    if charge.whole is not None:
        number, places = scaled(charge.whole[0])
        step = number * position.scale // 10**places
        peak = product(quotient(peak, step, charge.whole[1]), step)
    return peak


def _highest_days(position: PeriodPosition, charge: DemandCharge) -> Whole:
    """The average of the highest days' peaks; in a bill of fewer days, of those it has."""
    if position.register_days is None:
        raise ValueError("peaks are priced with the days of their registers")
    highest = total([peaks(position)[:, charge.register + k] for k in range(charge.days)])
    return quotient(highest, np.clip(position.register_days[:, charge.register], 1, charge.days))


def _used(position: PeriodPosition) -> Whole:
    return total([position.energy[:, p] for p in range(position.energy.shape[1])])


def _share(position: PeriodPosition, of: tuple[Decimal, int]) -> Whole:
    """A percentage of another register's peak."""
    number, places = scaled(of[0])
    return quotient(product(peaks(position)[:, of[1]], number), 100 * 10**places)


def floored(position: PeriodPosition, register: int, ratchet: Ratchet | None, *, measured: bool = True) -> Whole:
    """A register's peak, at least what its ratchet asks for; that alone where ``measured`` is false."""
    peak: Whole = peaks(position)[:, register] if measured else np.zeros(position.size, np.int64)
    if ratchet is None:
        return peak
    floor, places = scaled(ratchet.floor)
    lowest = np.full(position.size, floor * position.scale // 10**places, np.int64)
    if position.history is not None and position.months is not None:
        percents, decimals = same_scale(list(ratchet.percent))
        percent = np.array(percents, np.int64)[position.months - 1]
        least = product(position.history[:, register], percent)
        lowest = np.maximum(lowest, quotient(least, 100 * 10**decimals))
    return np.maximum(peak, lowest)


def demand_lines(prices: Prices, charge: DemandCharge) -> list[Whole]:
    """Amounts of a demand charge's lines; the demand in each block is added to the quantities."""
    position, tariff = prices.position, prices.tariff
    peak = billing_peak(position, charge)
    if position.register_days is None:
        raise ValueError("peaks are priced with the days of their registers")
    days, of_days = position.register_days[:, charge.register], position.period_days
    if tariff.registers[charge.register].daily:
        days, of_days = np.ones(position.size, np.int64), np.ones(position.size, np.int64)
    elif tariff.proration.demand == "none":
        days, of_days = (days > 0).astype(np.int64), np.ones(position.size, np.int64)
    rates, places = same_scale([t.rate for t in charge.ladder])
    lower: Whole = np.zeros(position.size, np.int64)
    result = []
    for tier, rate in zip(charge.ladder, rates, strict=True):
        if tier.upto is None:
            upper = peak
        else:
            number, decimals = scaled(tier.upto)
            upper = np.minimum(peak, number * position.scale // 10**decimals)
        inside = np.maximum(upper - lower, 0)
        result.append(
            prices.money(product(inside, rate, days), product(of_days, position.scale), places, charge.rounding)
        )
        prices.quantities.append(inside)
        lower = np.maximum(lower, upper)
    return result


def reactive_energy(position: PeriodPosition, register: int, above: Decimal) -> Whole:
    """(n,): kVArh, or what of them is above a percentage of the kWh."""
    number, places = scaled(above)
    free = quotient(product(np.maximum(_used(position), 0), number), 100 * 10**places)
    found: Whole = np.maximum(peaks(position)[:, register] - free, 0)
    return found


def low_power_factor(position: PeriodPosition, rule: PowerFactorRule) -> tuple[Whole, Whole | int]:
    """The share of an amount that a low power factor adds to it, as numerator and denominator."""
    return surcharge(rule, power_factor(_used(position), peaks(position)[:, rule.kvarh], rule.places))


def step_reached(tariff: Tariff, charge: FixedCharge, position: PeriodPosition) -> Whole:
    """(n,): the step of a fixed charge that the billing demand reaches, or the usage so far; limits of usage grow with
    the days as those of tiers do."""
    if charge.demand is not None:
        demand = tariff.charges[charge.demand]
        assert isinstance(demand, DemandCharge)  # noqa: S101 - the reader found it there
        quantity = billing_peak(position, demand)
    else:
        quantity = _used(position)
    reached: Whole = np.zeros(position.size, np.int64)
    for upto in charge.steps:
        number, places = scaled(upto)
        limit: Whole = np.full(position.size, number * position.scale, np.int64)
        if charge.demand is None and tariff.proration.tiers == "days":
            limit = quotient(product(limit, position.days), position.period_days, "down")
        reached = reached + (product(quantity, 10**places) > limit)
    return reached
