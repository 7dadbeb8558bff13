"""Prices a part of a bill: the lines from one position to a later one, from exact amounts, rounded one time.

A bill is cut where its rate changes: by a new version of the tariff, or by an attribute it depends on (a larger meter).
Each part's line is its own quantity at its own rate. Amounts of the whole bill (a minimum charge, the rounding of its
total) are charged in the last part, from the sums of the parts before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from meter_pipeline.billing.bill_position import EXACT_PLACES, PeriodPosition
from meter_pipeline.billing.fixed_point import Whole, narrow, product, quotient, total
from meter_pipeline.billing.pricing import Pricer
from meter_pipeline.billing.tariffs.model import (
    Charge,
    DemandCharge,
    MinimumCharge,
    PercentCharge,
    Rounding,
    Tariff,
    UsageCharge,
)


@dataclass(slots=True)
class EarlierParts:
    """The sums of the earlier parts of n bills, in stored money: by charge code, and their minimum charges;
    ``exact`` (in 10**-12) and ``rounded``: their lines without minimum charges; ``exact_by_code``: their exact lines
    by charge code."""

    by_code: dict[str, Whole] = field(default_factory=dict)
    least: dict[str, Whole] = field(default_factory=dict)
    exact: Whole | int = 0
    rounded: Whole | int = 0
    exact_by_code: dict[str, Whole] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartLines:
    """A part's lines: ``money`` (n, lines) and the quantity of each line; ``rounding`` (n,) the amount that brings
    the bill to its exact total, rounded one time; ``came_to``: the sums of this part and those before it, for the
    next."""

    money: Whole
    quantities: list[Whole | None]
    rounding: Whole
    came_to: EarlierParts


def price_part(
    tariff: Tariff, before: PeriodPosition, after: PeriodPosition, earlier: EarlierParts, *, last: bool, exact: bool
) -> PartLines:
    """Returns the lines from ``before`` to ``after``. ``last``: it is the bill's last part, with the amounts of the
    bill's end. Raises MissingAttributeError."""
    end, start = Pricer(tariff, after, True, False), Pricer(tariff, before, True, False)
    unrounded, lines = Pricer(tariff, after, True, False), Pricer(tariff, after, exact, last)
    quantities: list[Whole | None] = []
    n = after.size
    exactly, rounded = [np.zeros(n, np.int64)], [np.zeros(n, np.int64)]
    came_to = EarlierParts()
    for charge in tariff.charges:
        if isinstance(charge, MinimumCharge):
            least = lines.least(charge)
            if tariff.proration.minimum == "days":
                # Each part asks for its days: a minimum that goes from 20 to 30 half-way asks for 25.
                least = total(
                    [
                        least,
                        -Pricer(tariff, before, exact, False).least(charge),
                        _sum_of_code(earlier.least, charge.code, n),
                    ]
                )
            came_to.least[charge.code] = least
            columns = [_top_up(lines, charge, least, earlier)]
            lines.by_code[charge.code], unrounded.by_code[charge.code] = columns, [np.zeros(n, np.int64)]
            lines.columns.extend(columns)
            quantities.append(None)
            continue
        if isinstance(charge, PercentCharge):
            for pricer, totals in ((unrounded, earlier.exact_by_code), (lines, earlier.by_code)):
                pricer.charged_before = total(
                    [np.zeros(n, np.int64), *(_sum_of_code(totals, code, n) for code in charge.of)]
                )
                pricer.percent_before = _sum_of_code(totals, charge.code, n)
            found, columns = unrounded.charge(charge), lines.charge(charge)
            if charge.cap is not None:
                # The amount of the earlier parts counts towards the cap.
                found = [_within(unrounded, charge.cap, found[0], _sum_of_code(earlier.exact_by_code, charge.code, n))]
                columns = [_within(lines, charge.cap, columns[0], _sum_of_code(earlier.by_code, charge.code, n))]
            counts: list[Whole | None] = [None]
        else:
            found, counts = _difference(charge, end, start)
            columns = _rounded(charge, found, lines)
        unrounded.by_code[charge.code], lines.by_code[charge.code] = found, columns
        lines.columns.extend(columns)
        exactly.extend(found)
        rounded.extend(columns)
        quantities.extend(counts)
    for code, columns in lines.by_code.items():
        came_to.by_code[code] = total([*columns, _sum_of_code(earlier.by_code, code, n)])
    for code, columns in unrounded.by_code.items():
        came_to.exact_by_code[code] = total([*columns, _sum_of_code(earlier.exact_by_code, code, n)])
    came_to.exact = total([*exactly, _column(earlier.exact, n)])
    came_to.rounded = total([*rounded, _column(earlier.rounded, n)])
    money = np.stack([np.asarray(c) for c in lines.columns], axis=1) if lines.columns else np.zeros((n, 0), np.int64)
    return PartLines(
        narrow(money),
        quantities,
        _settled(tariff, lines, came_to) if last and not exact else np.zeros(n, np.int64),
        came_to,
    )


def _within(prices: Pricer, cap: Decimal, amount: Whole, earlier: Whole) -> Whole:
    """Limits an amount to the unused part of a cap, for charges and for credits."""
    most = prices.most(cap)
    lower, upper = np.minimum(total([-most, -earlier]), 0), np.maximum(total([most, -earlier]), 0)
    within: Whole = np.clip(amount, lower, upper)
    return within


def _column(value: Whole | int, n: int) -> Whole:
    return np.full(n, value, np.int64) if isinstance(value, int) else value


def _sum_of_code(sums: dict[str, Whole], code: str, n: int) -> Whole:
    return sums.get(code, np.zeros(n, np.int64))


def _difference(charge: Charge, end: Pricer, start: Pricer) -> tuple[list[Whole], list[Whole | None]]:
    """Returns a charge's exact lines from one position to the other, and their quantities."""
    used, used_before = len(end.quantities), len(start.quantities)
    after, before = end.charge(charge), start.charge(charge)
    found = [total([a, -b]) for a, b in zip(after, before, strict=True)]
    if isinstance(charge, UsageCharge):
        spans = zip(end.quantities[used:], start.quantities[used_before:], strict=True)
        return found, [None if a is None or b is None else total([a, -b]) for a, b in spans]
    # A demand line says the demand that is charged, not by how much it grew.
    return found, list(end.quantities[used:]) if isinstance(charge, DemandCharge) else [None] * len(found)


def _rounded(charge: Charge, found: list[Whole], lines: Pricer) -> list[Whole]:
    """Returns exact lines as money. Lines of one price in several periods are rounded as their running sum."""
    together = isinstance(charge, UsageCharge) and charge.one_price
    if not together:
        return [_money(column, lines, charge.rounding) for column in found]
    assert isinstance(charge, UsageCharge)  # noqa: S101 - asked above
    tiers = max(len(variant[0]) for variant in charge.ladders)
    result: list[Whole] = []
    running: list[Whole] = []
    for k, column in enumerate(found):
        ahead = column if k < tiers else total([running[k - tiers], column])
        running.append(ahead)
        behind = _money(running[k - tiers], lines, charge.rounding) if k >= tiers else np.zeros(len(column), np.int64)
        result.append(total([_money(ahead, lines, charge.rounding), -behind]))
    return result


def _money(exact: Whole, lines: Pricer, rounding: Rounding | None) -> Whole:
    if lines.exact:
        return exact
    places, mode = lines.rule(rounding)
    return narrow(product(quotient(exact, 10 ** (EXACT_PLACES - places), mode), 10 ** (lines.places - places)))


def _top_up(lines: Pricer, charge: MinimumCharge, least: Whole, earlier: EarlierParts) -> Whole:
    n = lines.position.size
    if not lines.closing:
        return np.zeros(n, np.int64)
    counted = [lines.sum_of(charge.of), *(_sum_of_code(earlier.by_code, code, n) for code in charge.of)]
    return lines.top_up(least, total(counted))


def _settled(tariff: Tariff, lines: Pricer, came_to: EarlierParts) -> Whole:
    """Returns the amount that brings the bill to its exact total, rounded one time: 0 where lines are rounded by
    declared rules, or where a minimum charge sets the total."""
    n = lines.position.size
    nothing = np.zeros(n, np.int64)
    if tariff.rounding.of == "line" or any(getattr(c, "rounding", None) is not None for c in tariff.charges):
        return nothing
    difference = total([_money(_column(came_to.exact, n), lines, None), -_column(came_to.rounded, n)])
    topped = nothing.astype(np.bool_)
    for charge in tariff.charges:
        if isinstance(charge, MinimumCharge):
            topped |= lines.sum_of((charge.code,)) != 0
    return np.where(topped, 0, difference)
