"""Prices positions: every line of a tariff for many services at the same time, in exact whole numbers.

``amounts(tariff, position)`` is a function of the service's figures so far in its billing period (usage, peaks, days).
The cost of a day is the amount at the position after it less the amount before it; the cost of a segment is the amount
at its end less that at its start. So days always add up to the segment and segments to the statement, wherever the
period is cut; a tier's fill and a peak carry over.

Money is counted in millionths of the currency; with ``exact=True`` in 10**-12 and without the documents' rounding, for
comparison with published figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import numpy as np

from meter_pipeline.billing.bill_position import (
    EXACT_PLACES,
    MONEY_PLACES,
    MissingAttributeError,
    PeriodPosition,
    count_of,
    variant_index,
)
from meter_pipeline.billing.demand_pricing import (
    billing_peak,
    demand_lines,
    low_power_factor,
    peaks,
    reactive_energy,
    step_reached,
)
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
    ByAttribute,
    Charge,
    DemandCharge,
    FixedCharge,
    Ladder,
    MinimumCharge,
    PercentCharge,
    Rounding,
    Tariff,
    UsageCharge,
)
from meter_pipeline.billing.tariffs.schedules import seasons_of


def _placed(target: Whole, values: Whole, rows: slice | Whole) -> Whole:
    """Returns a column with ``values`` in some of its rows, widened where they need it."""
    if isinstance(rows, slice):
        return values
    if values.dtype == object:
        target = target.astype(object)
    target[rows] = values
    return target


@dataclass(frozen=True, slots=True)
class _Rows:
    """Services that share the prices of a variant, and the periods of the season that is priced."""

    rows: slice | Whole
    season: tuple[int, ...]


#: Days of a month of which a winter average counts, unless the tariff says so.
MONTH_DAYS: Final = Decimal("30.42")


def period_months(period_days: Whole) -> Whole:
    """Whole months in billing periods: the nearest number to their length, at least one. A monthly amount is owed once
    for a period of up to 45 days, twice for a bimonthly one, three times for a quarter."""
    months: Whole = np.maximum(1, (product(period_days, 20_000) + 304_375) // 608_750).astype(np.int64)
    return months


class Pricer:
    """One pass over a tariff's charges; has the amounts of the lines so far."""

    def __init__(self, tariff: Tariff, position: PeriodPosition, exact: bool, closing: bool) -> None:
        self.tariff, self.position, self.exact, self.closing = tariff, position, exact, closing
        self.places = EXACT_PLACES if exact else MONEY_PLACES
        self.columns: list[Whole] = []
        self.quantities: list[Whole | None] = []
        self.by_code: dict[str, list[Whole]] = {}
        #: what the earlier parts of the bill charged of what the next percentage is taken of
        self.charged_before: Whole = np.zeros(position.size, np.int64)
        #: and what this percentage came to in them
        self.percent_before: Whole = np.zeros(position.size, np.int64)

    def run(self) -> Whole:
        for charge in self.tariff.charges:
            before = len(self.quantities)
            columns = self.charge(charge)
            self.quantities.extend([None] * (len(columns) - len(self.quantities) + before))
            self.by_code[charge.code] = columns
            self.columns.extend(columns)
        widest = max((largest(c) for c in self.columns), default=0)
        dtype = np.int64 if widest < 1 << 62 else object
        result = np.empty((self.position.size, len(self.columns)), dtype)
        for k, column in enumerate(self.columns):
            result[:, k] = column
        return result

    def charge(self, charge: Charge) -> list[Whole]:
        """Returns the amounts of a charge's lines; adds quantities to those so far."""
        match charge:
            case UsageCharge():
                return self._usage(charge)
            case FixedCharge():
                return [self._fixed(charge)]
            case DemandCharge():
                return demand_lines(self, charge)
            case PercentCharge():
                return [self._percent(charge)]
            case MinimumCharge():
                return [self._minimum(charge)]

    def rule(self, rounding: Rounding | None) -> tuple[int, str]:
        """Decimals and mode of a line's rounding."""
        rule = rounding or self.tariff.rounding
        if rule.places is None:
            # A published document says nothing of rounding; a bill is in cents.
            rule = Rounding()
        return (self.places, "half_even") if self.exact else (rule.places or 0, rule.mode)

    def money(self, numerator: Whole, denominator: Whole | int, decimals: int, rounding: Rounding | None) -> Whole:
        """numerator / denominator / 10**decimals of the currency as stored money, under the line's rounding rule."""
        places, mode = self.rule(rounding)
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
        """As money, of use x part / whole at a rate."""
        places, mode = self.rule(rounding)
        shift = decimals - places
        amount = shared_quotient(
            use, part, whole, rate * 10 ** max(-shift, 0), self.position.scale * 10 ** max(shift, 0), mode
        )
        return narrow(product(amount, 10 ** (self.places - places)))

    def _share(self, proration: str) -> tuple[Whole, Whole]:
        """Returns the earned part of a monthly figure as numerator and denominator."""
        position = self.position
        if proration == "days":
            return position.days, position.period_days
        return (position.days > 0).astype(np.int64), np.ones(position.size, np.int64)

    def _usage(self, charge: UsageCharge) -> list[Whole]:
        if charge.blocks is not None:
            return self._daily_blocks(charge)
        energy = self._counted(charge)
        index = variant_index(charge.variants, self.position)
        tiers = [max(len(v[p]) for v in charge.ladders) for p in range(energy.shape[1])]
        columns: list[list[Whole]] = [[np.zeros(self.position.size, np.int64) for _ in range(n)] for n in tiers]
        used: list[list[Whole]] = [[np.zeros(self.position.size, np.int64) for _ in range(n)] for n in tiers]
        for k, variant in enumerate(charge.ladders):
            rows = slice(None) if index is None else np.flatnonzero(index == k)
            for season, of_season in self._seasons(rows):
                found = self._season(charge, variant, energy[rows], of_season, _Rows(rows, season))
                for p, of_period in zip(season, found, strict=True):
                    for t, (amount, quantity) in enumerate(of_period):
                        columns[p][t] = _placed(columns[p][t], amount, rows)
                        used[p][t] = _placed(used[p][t], quantity, rows)
        self.quantities.extend(column for of_period in used for column in of_period)
        return [column for of_period in columns for column in of_period]

    def _daily_blocks(self, charge: UsageCharge) -> list[Whole]:
        """Lines of blocks that start again each day: the quantity of their registers at the block's rate."""
        demand, result = peaks(self.position), []
        for ladder, registers in zip(charge.ladders[0], charge.blocks or (), strict=True):
            rates, places = same_scale([tier.rate for tier in ladder])
            for rate, register in zip(rates, registers, strict=True):
                inside = demand[:, register]
                result.append(self.money(product(inside, rate), self.position.scale, places, charge.rounding))
                self.quantities.append(inside)
        return result

    def _counted(self, charge: UsageCharge) -> Whole:
        """Returns (n, periods): the quantity that a charge prices."""
        position = self.position
        energy = position.energy
        if charge.kvarh is not None:
            energy = np.zeros_like(position.energy)
            energy[:, 0] = reactive_energy(position, charge.kvarh, charge.above)
            return energy
        if charge.basis in ("export", "surplus"):
            quantity = position.export if charge.basis == "export" else position.surplus
            energy = quantity if quantity is not None else np.zeros_like(position.energy)
        if charge.basis == "imports" and position.imports is not None:
            energy = np.maximum(position.imports, 0)
        if charge.factor != 1:
            number, places = scaled(charge.factor)
            energy = quotient(product(energy, number), 10**places)
        if charge.basis == "winter_average_cap":
            energy = self._capped(energy, charge.month_days)
        elif charge.basis == "winter_average":
            volume: Whole = np.zeros_like(energy)
            volume[:, 0] = self._winter_volume(charge.month_days or MONTH_DAYS)
            energy = volume
        return energy

    def _seasons(self, rows: slice | Whole) -> list[tuple[tuple[int, ...], Whole]]:
        """Periods that share a season, and its days so far."""
        if self.position.season_days is None:
            return [(tuple(range(self.position.energy.shape[1])), self.position.days[rows])]
        seasons = seasons_of(self.tariff.schedule)
        return [(tuple(sorted(season)), self.position.season_days[rows, k]) for k, season in enumerate(seasons)]

    def _season(
        self, charge: UsageCharge, variant: tuple[Ladder, ...], energy: Whole, days: Whole, at: _Rows
    ) -> list[list[tuple[Whole, Whole]]]:
        """Amount and quantity of each tier of a season's periods: tiers fill by the season's usage and grow with its
        days.
        """
        whole = total([energy[:, p] for p in at.season])
        together = charge.one_price and len(at.season) > 1
        running: Whole = np.zeros(len(energy), np.int64)
        behind: list[Whole] = []
        result = []
        for p in at.season:
            found = self._ladder(charge, variant[p], energy[:, p], whole, days, at)
            if together:
                # One price for all periods: their lines add up to what the usage of all of them costs, rounded once.
                running = total([running, energy[:, p]])
                ahead = [amount for amount, _ in self._ladder(charge, variant[p], running, whole, days, at)]
                steps = [total([a, -b]) for a, b in zip(ahead, behind, strict=True)] if behind else ahead
                found, behind = [(step, quantity) for step, (_, quantity) in zip(steps, found, strict=True)], ahead
            result.append(found)
        return result

    def _winter_volume(self, month_days: Decimal) -> Whole:
        """(n,): the winter average of the months served so far."""
        number, places = scaled(month_days)
        days, of_days = self._share(self.tariff.proration.fixed)
        months = period_months(self.position.period_days)
        return quotient(product(self._winter_average(), number, days, months), product(of_days, 10**places))

    def _winter_average(self) -> Whole:
        average = self.position.winter_average
        if average is None or (average < 0).any():
            missing = np.arange(self.position.size) if average is None else np.flatnonzero(average < 0)
            raise MissingAttributeError("winter_average_per_day", missing)
        return average

    def _capped(self, energy: Whole, month_days: Decimal | None) -> Whole:
        cap = (
            product(self._winter_average(), self.position.days)
            if month_days is None
            else self._winter_volume(month_days)
        )
        whole = total([energy[:, p] for p in range(energy.shape[1])])
        over = whole > cap
        columns = [
            np.where(over, quotient(product(energy[:, p], cap), whole, "down"), energy[:, p])
            for p in range(energy.shape[1])
        ]
        return np.stack(columns, axis=1)

    def _limit(self, upto: Decimal, basis: str, charge: UsageCharge, days: Whole, at: _Rows) -> Whole:
        """A tier's upper limit for each service, in 1/scale of the unit, rounded down."""
        position, rows = self.position, at.rows
        number, places = scaled(upto)
        if charge.times is not None:
            once = replace(charge, times=None)
            counts = count_of(self.position, charge.times, charge.without)[rows]
            return quotient(product(self._limit(upto, basis, once, days, at), counts), 10**6, "down")
        if basis == "budget":
            if position.budget is None or (position.budget[rows] < 0).any():
                every = np.arange(position.size) if position.budget is None else np.flatnonzero(position.budget < 0)
                raise MissingAttributeError("budget_per_day", every)
            return quotient(product(position.budget[rows], number), 10**places, "down")
        numerator, denominator = days, position.period_days[rows]
        if self.tariff.proration.tiers == "none":
            # A whole limit however short the period; where the bill has two seasons, each its days' share.
            numerator, denominator = days, np.maximum(position.days[rows], 1)
        if basis in ("daily", "per_kw_daily"):
            denominator = np.ones_like(denominator)
        if basis.startswith("per_kw"):
            demand = charge.demand
            peak = (
                billing_peak(position, demand) if demand is not None else peaks(position)[:, charge.peak_register or 0]
            )[rows]
            return quotient(product(numerator, peak, number), product(denominator, 10**places), "down")
        return quotient(product(numerator, number * position.scale), product(denominator, 10**places), "down")

    def _ladder(
        self, charge: UsageCharge, ladder: Ladder, energy: Whole, whole: Whole, days: Whole, at: _Rows
    ) -> list[tuple[Whole, Whole]]:
        """Amount and quantity of each tier for one period: energy / whole x (what of the whole lies in the tier) x
        rate."""
        rates, places = same_scale([t.rate for t in ladder])
        if len(ladder) == 1:
            return [(self.money(product(energy, rates[0]), self.position.scale, places, charge.rounding), energy)]
        counted = energy if charge.allocation == "by_period" else whole
        shared = charge.allocation == "pro_rata" and len(at.season) > 1
        lower: Whole = np.zeros(len(energy), np.int64)
        result = []
        for tier, rate in zip(ladder, rates, strict=True):
            upper = counted
            if tier.upto is not None:
                upper = np.minimum(upper, self._limit(tier.upto, tier.basis, charge, days, at))
            if tier.within is not None:
                upper = np.minimum(upper, self._limit(*tier.within, charge, days, at))
            inside = np.maximum(upper - lower, 0)
            if charge.allocation == "reached":
                # All of the usage is charged at the rate of the tier that holds its last unit.
                inside = np.where((upper == counted) & (lower < counted), energy, 0)
            if shared:
                result.append(self._shared(energy, inside, counted, rate, places, charge.rounding))
            else:
                amount = self.money(product(inside, rate), self.position.scale, places, charge.rounding)
                result.append((amount, inside))
            lower = np.maximum(lower, upper)
        return result

    def _shared(
        self, energy: Whole, inside: Whole, counted: Whole, rate: int, places: int, rounding: Rounding | None
    ) -> tuple[Whole, Whole]:
        """Returns one time-of-use period's share of a tier; a service that does not cross the tier's limit has all
        of its usage in it, or none."""
        amount, quantity = np.zeros(len(energy), np.int64), np.zeros(len(energy), np.int64)
        whole = np.flatnonzero((inside == counted) & (counted > 0))
        if len(whole):
            amount = _placed(
                amount, self.money(product(energy[whole], rate), self.position.scale, places, rounding), whole
            )
            quantity = _placed(quantity, energy[whole], whole)
        part = np.flatnonzero((inside != counted) & (inside > 0))
        if len(part):
            use, share, total_use = energy[part], inside[part], counted[part]
            amount = _placed(amount, self._money_shared(use, share, total_use, rate, places, rounding), part)
            quantity = _placed(quantity, shared_quotient(use, share, total_use, 1, 1, "half_even"), part)
        return amount, quantity

    def _fixed(self, charge: FixedCharge) -> Whole:
        counts = None if charge.times is None else count_of(self.position, charge.times, charge.without)
        prorated = self.tariff.proration.fixed
        if charge.steps:
            return self._stepped(charge, counts)
        return self._monthly(charge.amounts, charge.variants, charge.per, prorated, charge.rounding, counts)

    def _stepped(self, charge: FixedCharge, counts: Whole | None) -> Whole:
        """A fixed amount by the step that the period's usage, or the billing demand, reaches."""
        reached = step_reached(self.tariff, charge, self.position)
        result: Whole = np.zeros(self.position.size, np.int64)
        prorated, alone = self.tariff.proration.fixed, ByAttribute(None)
        for k, amount in enumerate(charge.amounts):
            owed = self._monthly((amount,), alone, charge.per, prorated, charge.rounding, counts)
            result = np.where(reached == k, owed, result)
        return result

    def _monthly(
        self,
        amounts: tuple[Decimal, ...],
        variants: ByAttribute,
        per: str,
        proration: str,
        rounding: Rounding | None,
        counts: Whole | None = None,
    ) -> Whole:
        position = self.position
        numbers, places = same_scale(list(amounts))
        index = variant_index(variants, position)
        monthly = np.array(numbers, np.int64 if max(map(abs, numbers)) < 1 << 62 else object)
        amount = np.full(position.size, monthly[0], monthly.dtype) if index is None else monthly[index]
        if counts is not None:
            amount, places = product(amount, counts), places + 6
        if per == "day":
            return self.money(product(amount, position.days), 1, places, rounding)
        amount = product(amount, period_months(position.period_days))
        of_year = 12 if per == "year" else 1
        if proration == "none" or position.first_day is None:
            numerator, denominator = self._share(proration)
            return self.money(product(amount, numerator), product(denominator, of_year), places, rounding)
        # Counted from the period's first day, so that two accounts that share a period together pay the whole, to the
        # cent.
        whole = product(position.period_days, of_year)
        until = self.money(product(amount, position.first_day + position.days), whole, places, rounding)
        return until - self.money(product(amount, position.first_day), whole, places, rounding)

    def sum_of(self, codes: tuple[str, ...]) -> Whole:
        """Returns the sum of the lines of some charges."""
        columns = [column for code in codes for column in self.by_code.get(code, [])]
        return total(columns) if columns else np.zeros(self.position.size, np.int64)

    def _percent(self, charge: PercentCharge) -> Whole:
        base = self.sum_of(charge.of)
        if charge.base_cap is not None:
            most, before = self.most(charge.base_cap), self.charged_before
            base = total([np.minimum(total([before, base]), most), -np.minimum(before, most)])
        amount = self._percentage(charge, base)
        if charge.cap is not None:
            most = self.most(charge.cap)
            amount = np.clip(amount, -most, most)
        position = self.position
        applies = np.ones(position.size, np.bool_)
        if charge.jurisdiction is not None:
            given = position.attributes.get("jurisdiction")
            applies &= np.zeros(position.size, np.bool_) if given is None else np.asarray(given == charge.jurisdiction)
        classes = position.attributes.get("customer_class")
        if charge.exempt and classes is not None:
            applies &= ~np.isin(classes.astype(str), sorted(charge.exempt))
        certificates = position.attributes.get("tax_exempt")
        if charge.certificate and certificates is not None:
            applies &= np.asarray(certificates != "true")
        result: Whole = np.where(applies, amount, 0)
        return result

    def _percentage(self, charge: PercentCharge, base: Whole) -> Whole:
        """A percentage of some money: a fixed one, one that changes on dates, or one from the power factor."""
        if charge.power_factor is not None:
            # The average of the whole bill, of all its parts' lines.
            share, whole = low_power_factor(self.position, charge.power_factor)
            base = total([base, self.charged_before])
            found = self.money(product(base, share), whole, self.places, charge.rounding)
            return total([found, -self.percent_before])
        index = variant_index(charge.variants, self.position)
        if index is None:
            number, places = scaled(charge.percent)
            return self.money(product(base, number), 100, places + self.places, charge.rounding)
        numbers, places = same_scale(list(charge.percents))
        return self.money(
            product(base, np.array(numbers, dtype=object)[index]), 100, places + self.places, charge.rounding
        )

    def most(self, monthly: Decimal) -> Whole:
        """Returns a monthly cap over the months of the period, in money."""
        number, places = scaled(monthly)
        return quotient(product(period_months(self.position.period_days), number * 10**self.places), 10**places)

    def _minimum(self, charge: MinimumCharge) -> Whole:
        if not self.closing:
            return np.zeros(self.position.size, np.int64)
        return self.top_up(self.least(charge), self.sum_of(charge.of))

    def least(self, charge: MinimumCharge) -> Whole:
        """Returns the minimum charge so far."""
        if charge.demand is not None:
            demand = self.tariff.charges[charge.demand]
            assert isinstance(demand, DemandCharge)  # noqa: S101 - the reader found it there
            number, places = scaled(charge.amounts[0])
            days, of_days = self._share(self.tariff.proration.minimum)
            owed = product(billing_peak(self.position, demand), number, days)
            return self.money(owed, product(of_days, self.position.scale), places, charge.rounding)
        return self._monthly(
            charge.amounts, charge.variants, charge.per, self.tariff.proration.minimum, charge.rounding
        )

    def top_up(self, least: Whole, counted: Whole) -> Whole:
        """Returns the amount that a minimum adds to the charges counted towards it."""
        # A surplus does not deepen the top-up: ssc floors the bill at zero first.
        found: Whole = np.maximum(least - np.maximum(counted, 0), 0)
        return found


def amounts(tariff: Tariff, position: PeriodPosition, *, exact: bool = False, closing: bool = False) -> Whole:
    """Returns the money of every line of a tariff at a position: (n, lines), in the order of ``tariff.lines``, in
    millionths of the currency.

    ``closing`` adds the amounts that are charged at the end of a period only (minimum charges, and taxes on them).
    Raises MissingAttributeError.
    """
    return Pricer(tariff, position, exact, closing).run()


def priced(
    tariff: Tariff, position: PeriodPosition, *, closing: bool, exact: bool = False
) -> tuple[Whole, list[Whole | None]]:
    """As ``amounts``, and the quantity of each line: usage in 1/scale of the unit, demand in 1/scale kW, None where
    a line has none."""
    pricer = Pricer(tariff, position, exact, closing)
    matrix = pricer.run()
    return matrix, pricer.quantities
