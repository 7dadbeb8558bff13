"""What a position costs: every line of a tariff for many services at once, in exact whole numbers.

The idea everything else stands on: ``amounts(tariff, position)`` is a function of how far a service has come in its
billing period (usage, peaks, days so far). What a day costs is the position after it less the position before it; what
a segment costs is its end less its start. So days always add up to the segment, segments to the statement, wherever the
period is cut; a tier's position and a peak carry through by themselves.

Money is counted in millionths of the currency; with ``exact=True`` in 10**-12 and without the documents' rounding, for
comparison with published figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import numpy as np

from meter_pipeline.billing.fixed_point import (
    Whole,
    largest,
    narrow,
    product,
    quotient,
    same_scale,
    scaled,
    shared_quotient,
    total,
)
from meter_pipeline.billing.tariffs.model import (
    Charge,
    DemandCharge,
    FixedCharge,
    Ladder,
    MinimumCharge,
    PercentCharge,
    Rounding,
    Tariff,
    UsageCharge,
    Variants,
)

#: Decimals of the currency in stored amounts, and in exact ones.
MONEY_PLACES: Final = 6
EXACT_PLACES: Final = 12
#: Quantities are millionths of the tariff's unit, demand millionths of a kW.
QUANTITY_SCALE: Final = 10**6


class MissingAttributeError(ValueError):
    """A service lacks an attribute its tariff needs; ``rows`` says which."""

    def __init__(self, attribute: str, rows: Whole) -> None:
        super().__init__(f"{len(rows)} services have no usable {attribute}")
        self.attribute = attribute
        self.rows = rows


@dataclass(slots=True)
class Position:
    """How far n services have come in their billing periods.

    ``energy`` (n, periods) and ``export`` in 1/``scale`` of the tariff's unit, never negative; ``peaks`` (n, registers)
    in 1/``scale`` kW; ``days`` (n,) served so far of ``period_days``, the first of them day ``first_day`` (0: the
    period's own first); ``register_days`` (n, registers) those of them in a register's season; ``history`` the highest
    peak of a ratchet's look-back; ``months`` (n,) the calendar month that ratchets read; ``budget`` (n,) the cumulative
    budget and ``winter_average`` (n,) the average a day, both in 1/``scale``, -1 where there is none; ``attributes``
    name -> (n,) array of text.
    """

    energy: Whole
    days: Whole
    period_days: Whole
    first_day: Whole | None = None
    export: Whole | None = None
    peaks: Whole | None = None
    register_days: Whole | None = None
    history: Whole | None = None
    months: Whole | None = None
    budget: Whole | None = None
    winter_average: Whole | None = None
    attributes: Mapping[str, Whole] = field(default_factory=dict)
    scale: int = QUANTITY_SCALE

    @property
    def size(self) -> int:
        return int(self.energy.shape[0])


def _variant_index(variants: Variants, position: Position) -> Whole | None:
    if variants.attribute is None:
        return None
    given = position.attributes.get(variants.attribute)
    if given is None:
        given = np.full(position.size, "", dtype=object)
    index = np.full(position.size, -1, np.int64)
    for k, key in enumerate(variants.keys):
        index[given == key] = k
    if "*" in variants.keys:
        index[index < 0] = variants.keys.index("*")
    if (index < 0).any():
        raise MissingAttributeError(variants.attribute, np.flatnonzero(index < 0))
    return index


def _placed(target: Whole, values: Whole, rows: slice | Whole) -> Whole:
    """``values`` put in some rows of a column, widened where they need it."""
    if isinstance(rows, slice):
        return values
    if values.dtype == object:
        target = target.astype(object)
    target[rows] = values
    return target


class _Pricer:
    """One pass over a tariff's charges; holds the amounts of the lines so far."""

    def __init__(self, tariff: Tariff, position: Position, exact: bool, closing: bool) -> None:
        self.tariff, self.position, self.exact, self.closing = tariff, position, exact, closing
        self.places = EXACT_PLACES if exact else MONEY_PLACES
        self.columns: list[Whole] = []
        self.quantities: list[Whole | None] = []
        self.by_code: dict[str, list[Whole]] = {}

    def run(self) -> Whole:
        for charge in self.tariff.charges:
            before = len(self.quantities)
            columns = self._charge(charge)
            self.quantities.extend([None] * (len(columns) - len(self.quantities) + before))
            self.by_code[charge.code] = columns
            self.columns.extend(columns)
        widest = max((largest(c) for c in self.columns), default=0)
        dtype = np.int64 if widest < 1 << 62 else object
        result = np.empty((self.position.size, len(self.columns)), dtype)
        for k, column in enumerate(self.columns):
            result[:, k] = column
        return result

    def _charge(self, charge: Charge) -> list[Whole]:
        match charge:
            case UsageCharge():
                return self._usage(charge)
            case FixedCharge():
                return [
                    self._monthly(
                        charge.amounts, charge.variants, charge.per, self.tariff.proration.fixed, charge.rounding
                    )
                ]
            case DemandCharge():
                return self._demand(charge)
            case PercentCharge():
                return [self._percent(charge)]
            case MinimumCharge():
                return [self._minimum(charge)]

    def _rule(self, rounding: Rounding | None) -> tuple[int, str]:
        """Decimals and mode of a line's rounding."""
        rule = rounding or self.tariff.rounding
        if rule.places is None:
            # A published document says nothing of rounding; a bill is in cents.
            rule = Rounding()
        return (self.places, "half_even") if self.exact else (rule.places or 0, rule.mode)

    def _money(self, numerator: Whole, denominator: Whole | int, decimals: int, rounding: Rounding | None) -> Whole:
        """numerator / denominator / 10**decimals of the currency as stored money, under the line's rounding rule."""
        places, mode = self._rule(rounding)
        shift = decimals - places
        if shift >= 0:
            amount = quotient(
                numerator,
                product(denominator, 10**shift) if isinstance(denominator, np.ndarray) else denominator * 10**shift,
                mode,
            )
        else:
            amount = quotient(product(numerator, 10**-shift), denominator, mode)
        return narrow(product(amount, 10 ** (self.places - places)))

    def _money_shared(
        self, use: Whole, part: Whole, whole: Whole, rate: int, decimals: int, rounding: Rounding | None
    ) -> Whole:
        """As _money, of use x part / whole at a rate."""
        places, mode = self._rule(rounding)
        shift = decimals - places
        amount = shared_quotient(
            use, part, whole, rate * 10 ** max(-shift, 0), self.position.scale * 10 ** max(shift, 0), mode
        )
        return narrow(product(amount, 10 ** (self.places - places)))

    def _share(self, proration: str) -> tuple[Whole, Whole]:
        """The part of a monthly figure earned so far, as numerator and denominator."""
        position = self.position
        if proration == "days":
            return position.days, position.period_days
        return (position.days > 0).astype(np.int64), np.ones(position.size, np.int64)

    def _usage(self, charge: UsageCharge) -> list[Whole]:
        position = self.position
        energy = position.energy
        if charge.basis == "export":
            energy = position.export if position.export is not None else np.zeros_like(position.energy)
        if charge.factor != 1:
            number, places = scaled(charge.factor)
            energy = quotient(product(energy, number), 10**places)
        if charge.basis == "winter_average":
            energy = self._capped(energy)
        index = _variant_index(charge.variants, position)
        periods = range(len(self.tariff.schedule.periods))
        whole = total([energy[:, p] for p in periods])
        result: list[Whole] = []
        for p in periods:
            tiers = max(len(v[p]) for v in charge.ladders)
            columns: list[Whole] = [np.zeros(position.size, np.int64) for _ in range(tiers)]
            used: list[Whole] = [np.zeros(position.size, np.int64) for _ in range(tiers)]
            for k, variant in enumerate(charge.ladders):
                rows = slice(None) if index is None else np.flatnonzero(index == k)
                for t, (amount, quantity) in enumerate(
                    self._ladder(charge, variant[p], energy[rows, p], whole[rows], rows)
                ):
                    columns[t] = _placed(columns[t], amount, rows)
                    used[t] = _placed(used[t], quantity, rows)
            result.extend(columns)
            self.quantities.extend(used)
        return result

    def _capped(self, energy: Whole) -> Whole:
        position = self.position
        if position.winter_average is None or (position.winter_average < 0).any():
            missing = (
                np.arange(position.size)
                if position.winter_average is None
                else np.flatnonzero(position.winter_average < 0)
            )
            raise MissingAttributeError("winter_average_per_day", missing)
        cap = product(position.winter_average, position.days)
        whole = total([energy[:, p] for p in range(energy.shape[1])])
        over = whole > cap
        columns = [
            np.where(over, quotient(product(energy[:, p], cap), whole, "down"), energy[:, p])
            for p in range(energy.shape[1])
        ]
        return np.stack(columns, axis=1)

    def _limit(self, upto: Decimal, basis: str, charge: UsageCharge, rows: slice | Whole) -> Whole:
        """A tier's upper limit for each service, in 1/scale of the unit, rounded down."""
        position = self.position
        number, places = scaled(upto)
        if basis == "budget":
            if position.budget is None or (position.budget[rows] < 0).any():
                every = np.arange(position.size) if position.budget is None else np.flatnonzero(position.budget < 0)
                raise MissingAttributeError("budget_per_day", every)
            return quotient(product(position.budget[rows], number), 10**places, "down")
        numerator, denominator = (part[rows] for part in self._share(self.tariff.proration.tiers))
        if basis in ("daily", "per_kw_daily"):
            numerator, denominator = position.days[rows], np.ones_like(position.days[rows])
        if basis.startswith("per_kw"):
            peak = self._peaks()[rows, charge.peak_register]
            return quotient(product(numerator, peak, number), product(denominator, 10**places), "down")
        return quotient(product(numerator, number * position.scale), product(denominator, 10**places), "down")

    def _ladder(
        self, charge: UsageCharge, ladder: Ladder, energy: Whole, whole: Whole, rows: slice | Whole
    ) -> list[tuple[Whole, Whole]]:
        """Amount and quantity of each tier for one period: energy / whole x (what of the whole lies in the tier) x
        rate."""
        rates, places = same_scale([t.rate for t in ladder])
        if len(ladder) == 1:
            return [(self._money(product(energy, rates[0]), self.position.scale, places, charge.rounding), energy)]
        counted = energy if charge.allocation == "by_period" else whole
        shared = charge.allocation == "pro_rata" and len(self.tariff.schedule.periods) > 1
        lower: Whole = np.zeros(len(energy), np.int64)
        result = []
        for tier, rate in zip(ladder, rates, strict=True):
            upper = (
                counted if tier.upto is None else np.minimum(counted, self._limit(tier.upto, tier.basis, charge, rows))
            )
            inside = np.maximum(upper - lower, 0)
            if shared:
                result.append(self._shared(energy, inside, counted, rate, places, charge.rounding))
            else:
                result.append(
                    (self._money(product(inside, rate), self.position.scale, places, charge.rounding), inside)
                )
            lower = np.maximum(lower, upper)
        return result

    def _shared(
        self, energy: Whole, inside: Whole, counted: Whole, rate: int, places: int, rounding: Rounding | None
    ) -> tuple[Whole, Whole]:
        """One time-of-use period's share of a tier; a service that does not straddle the tier's edge has all of its
        usage in it, or none."""
        amount, quantity = np.zeros(len(energy), np.int64), np.zeros(len(energy), np.int64)
        whole = np.flatnonzero((inside == counted) & (counted > 0))
        if len(whole):
            amount = _placed(
                amount, self._money(product(energy[whole], rate), self.position.scale, places, rounding), whole
            )
            quantity = _placed(quantity, energy[whole], whole)
        part = np.flatnonzero((inside != counted) & (inside > 0))
        if len(part):
            use, share, total_use = energy[part], inside[part], counted[part]
            amount = _placed(amount, self._money_shared(use, share, total_use, rate, places, rounding), part)
            quantity = _placed(quantity, shared_quotient(use, share, total_use, 1, 1, "half_even"), part)
        return amount, quantity

    def _monthly(
        self, amounts: tuple[Decimal, ...], variants: Variants, per: str, proration: str, rounding: Rounding | None
    ) -> Whole:
        position = self.position
        numbers, places = same_scale(list(amounts))
        index = _variant_index(variants, position)
        amount = np.full(position.size, numbers[0], np.int64) if index is None else np.array(numbers, np.int64)[index]
        if per == "day":
            return self._money(product(amount, position.days), 1, places, rounding)
        if proration == "none" or position.first_day is None:
            numerator, denominator = self._share(proration)
            return self._money(product(amount, numerator), denominator, places, rounding)
        # Counted from the period's first day, so that two accounts that share a period together pay the whole, to the
        # cent.
        until = self._money(product(amount, position.first_day + position.days), position.period_days, places, rounding)
        return until - self._money(product(amount, position.first_day), position.period_days, places, rounding)

    def _peaks(self) -> Whole:
        if self.position.peaks is None:
            raise ValueError("a tariff with demand registers is priced with peaks")
        return self.position.peaks

    def billing_peak(self, charge: DemandCharge) -> Whole:
        """The peak that is charged: the register's own, or the ratchet's floor."""
        position = self.position
        peak: Whole = self._peaks()[:, charge.register]
        if charge.ratchet is None:
            return peak
        floor, places = scaled(charge.ratchet.floor)
        lowest = np.full(position.size, floor * position.scale // 10**places, np.int64)
        if position.history is not None and position.months is not None:
            percents, decimals = same_scale(list(charge.ratchet.percent))
            percent = np.array(percents, np.int64)[position.months - 1]
            lowest = np.maximum(
                lowest, quotient(product(position.history[:, charge.register], percent), 100 * 10**decimals)
            )
        return np.maximum(peak, lowest)

    def _demand(self, charge: DemandCharge) -> list[Whole]:
        position = self.position
        peak = self.billing_peak(charge)
        if position.register_days is None:
            raise ValueError("peaks are priced with the days of their registers")
        days, of_days = position.register_days[:, charge.register], position.period_days
        if self.tariff.proration.demand == "none":
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
                self._money(product(inside, rate, days), product(of_days, position.scale), places, charge.rounding)
            )
            self.quantities.append(inside)
            lower = np.maximum(lower, upper)
        return result

    def _sum_of(self, codes: tuple[str, ...]) -> Whole:
        columns = [column for code in codes for column in self.by_code.get(code, [])]
        return total(columns) if columns else np.zeros(self.position.size, np.int64)

    def _percent(self, charge: PercentCharge) -> Whole:
        number, places = scaled(charge.percent)
        amount = self._money(product(self._sum_of(charge.of), number), 100, places + self.places, charge.rounding)
        position = self.position
        applies = np.ones(position.size, np.bool_)
        if charge.jurisdiction is not None:
            given = position.attributes.get("jurisdiction")
            applies &= np.zeros(position.size, np.bool_) if given is None else np.asarray(given == charge.jurisdiction)
        classes = position.attributes.get("customer_class")
        if charge.exempt and classes is not None:
            applies &= ~np.isin(classes.astype(str), sorted(charge.exempt))
        result: Whole = np.where(applies, amount, 0)
        return result

    def _minimum(self, charge: MinimumCharge) -> Whole:
        if not self.closing:
            return np.zeros(self.position.size, np.int64)
        least = self._monthly(
            charge.amounts, charge.variants, charge.per, self.tariff.proration.minimum, charge.rounding
        )
        # A surplus does not deepen the top-up: ssc floors the bill at zero first.
        top_up: Whole = np.maximum(least - np.maximum(self._sum_of(charge.of), 0), 0)
        return top_up


def amounts(tariff: Tariff, position: Position, *, exact: bool = False, closing: bool = False) -> Whole:
    """Money of every line of a tariff at a position: (n, lines), in the order of ``tariff.lines``, in millionths of the
    currency.

    ``closing`` adds what only the end of a period owes (minimum charges, and taxes on them). Raises
    MissingAttributeError.
    """
    return _Pricer(tariff, position, exact, closing).run()


def priced(tariff: Tariff, position: Position, *, closing: bool) -> tuple[Whole, list[Whole | None]]:
    """As amounts, and the quantity behind each line: usage in 1/scale of the unit, demand in 1/scale kW, None where a
    line has none."""
    pricer = _Pricer(tariff, position, False, closing)
    matrix = pricer.run()
    return matrix, pricer.quantities


def billing_peaks(tariff: Tariff, position: Position) -> Whole:
    """(n, registers): the peaks that demand charges read, ratchets applied."""
    pricer = _Pricer(tariff, position, False, False)
    peaks = (
        np.zeros((position.size, len(tariff.registers)), np.int64) if position.peaks is None else position.peaks.copy()
    )
    for charge in tariff.charges:
        if isinstance(charge, DemandCharge):
            peaks[:, charge.register] = pricer.billing_peak(charge)
    return peaks
