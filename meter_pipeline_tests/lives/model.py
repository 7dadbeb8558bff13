"""What an account owes, counted slowly: one service point at a time, plain Python, Decimal, and none of the product's
code.

The model is told the final truth of a service point: which meter stood there in which hours and what it counted, who
paid on which tariff in which cycle, and what the tariff said on each day. It answers what each account owes for each
billing period. Hours are counted from the first day's midnight; no clock change lies in the days of a life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

HOURS = 24
CENT = Decimal("0.01")
MILLIONTH = Decimal("0.000001")
#: Cubic metres in a US gallon (231 cubic inches, NIST SP 811)
GALLON = Decimal("0.003785411784")


@dataclass(frozen=True)
class Rates:
    """A tariff's published prices: a fixed amount and tiers (limit of the period, or None for the last; price of a
    unit), a minimum for the period, and the first day they are in force.

    ``demand`` is the price of a kW of the highest hour, which may not fall below ``ratchet`` of an earlier period's;
    ``whole`` is owed for a part of a period as for all of it; ``highest_days`` averages the highest hours of so many
    days. Where ``bought`` is given the exports are set against
    the use; what is left goes on to the next period and is bought at that price when the account ends.
    """

    fixed: Decimal
    tiers: tuple[tuple[Decimal | None, Decimal], ...]
    minimum: Decimal = Decimal(0)
    first_day: int = -1000
    demand: Decimal = Decimal(0)
    ratchet: Decimal = Decimal(0)
    whole: bool = False
    highest_days: int = 1
    bought: Decimal | None = None


@dataclass(frozen=True)
class IntervalMeter:
    """Stood from hour ``begin`` to ``end`` and counted ``hours[h]`` in each hour, and ``sent[h]`` the other way."""

    begin: int
    end: int
    unit: str
    hours: Mapping[int, Decimal]
    sent: Mapping[int, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class RegisterMeter:
    """Stood from hour ``begin`` to ``end``; ``dials`` are its reads (hour, dial), the ones at both ends included.
    Between two reads usage is even."""

    begin: int
    end: int
    unit: str
    dials: Sequence[tuple[int, Decimal]]


@dataclass(frozen=True)
class Agreement:
    """An account pays from day ``first`` to before day ``past`` (None: open) on a tariff in a billing cycle."""

    account: str
    tariff: str
    cycle: str
    first: int
    past: int | None


@dataclass(frozen=True)
class World:
    """The final truth of one service point. ``cycles`` has each cycle's periods as (first day, day after the last)."""

    meters: Sequence[IntervalMeter | RegisterMeter]
    agreements: Sequence[Agreement]
    tariffs: Mapping[str, Sequence[Rates]]
    cycles: Mapping[str, Sequence[tuple[int, int]]]
    unit: str


def counted_in_hour(meter: IntervalMeter | RegisterMeter, hour: int) -> Decimal:
    """What a meter counted in an hour, in its own unit."""
    if not meter.begin <= hour < meter.end:
        return Decimal(0)
    if isinstance(meter, IntervalMeter):
        return meter.hours[hour]
    for (before, low), (after, high) in zip(meter.dials, meter.dials[1:], strict=False):
        if before <= hour < after:
            return (high - low) / (after - before)
    raise AssertionError(f"no reads enclose hour {hour}")


def used_on(world: World, day: int) -> Decimal:
    """Usage of the service point on a day, in the tariff's unit, to a millionth."""
    total = Decimal(0)
    for meter in world.meters:
        counted = sum((counted_in_hour(meter, day * HOURS + h) for h in range(HOURS)), Decimal(0))
        counted = counted.quantize(MILLIONTH, ROUND_HALF_EVEN)
        if meter.unit == world.unit:
            total += counted
        else:
            assert (meter.unit, world.unit) == ("gal", "m3")
            total += (counted * GALLON).quantize(MILLIONTH, ROUND_HALF_EVEN)
    return total


def sent_on(world: World, day: int) -> Decimal:
    """What the service point sent into the network on a day."""
    total = Decimal(0)
    for meter in world.meters:
        if isinstance(meter, IntervalMeter):
            for hour in range(max(meter.begin, day * HOURS), min(meter.end, (day + 1) * HOURS)):
                total += meter.sent.get(hour, Decimal(0))
    return total


def highest_hour(world: World, first: int, past: int) -> Decimal:
    """The highest hour of the days from ``first`` to before ``past``, in kW."""
    hours = range(first * HOURS, past * HOURS)
    return max(sum((counted_in_hour(m, h) for m in world.meters), Decimal(0)) for h in hours)


@dataclass
class Carried:
    """What an account's bills hand on to its later ones: units left over, and the highest demand."""

    units: Decimal = Decimal(0)
    demand: Decimal = Decimal(0)


def cents(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, ROUND_HALF_UP)


def price(rates: Rates, days: int, of: int, used: Decimal, *, exact: bool = False) -> Decimal:
    """The lines of ``days`` of a period of ``of`` days with ``used`` units: fixed and tier limits earned day by day;
    each line to a cent, unless ``exact``."""

    def line(amount: Decimal) -> Decimal:
        return amount if exact else cents(amount)

    total = line(rates.fixed * days / of)
    left, below = used, Decimal(0)
    for limit, rate in rates.tiers:
        size = left if limit is None else min(left, limit * days / of - below)
        total += line(size * rate)
        left -= size
        below += size
    return total


def in_force(versions: Sequence[Rates], day: int) -> Rates:
    return max((v for v in versions if v.first_day <= day), key=lambda v: v.first_day)


def days_of(agreement: Agreement, period: tuple[int, int], past: int) -> tuple[int, int]:
    """The days of a period before ``past`` that an agreement pays for: first, and the day after the last."""
    end = min(period[1], past) if agreement.past is None else min(agreement.past, period[1], past)
    return max(agreement.first, period[0]), end


def owed_for(
    world: World, agreement: Agreement, period: tuple[int, int], span: tuple[int, int], held: Carried
) -> Decimal:
    """What an agreement owes for the days ``span`` of a period; ``held`` is what the account brings, and then what it
    hands on."""
    first, end = span
    of = period[1] - period[0]
    versions = world.tariffs[agreement.tariff]
    if in_force(versions, first).bought is not None:
        return _net(world, agreement, period, span, held)
    total, days, used = Decimal(0), 0, Decimal(0)
    day = first
    # A bill that a change of rate cuts comes to its exact total.
    cut = len({id(in_force(versions, d)) for d in range(first, end)}) > 1
    while day < end:
        rates = in_force(versions, day)
        before = price(rates, days, of, used, exact=cut)
        while day < end and in_force(versions, day) == rates:
            used += used_on(world, day)
            days += 1
            day += 1
        total += price(rates, days, of, used, exact=cut) - before
    total = cents(total)
    last = in_force(versions, end - 1)
    if last.demand:
        highest = highest_hour(world, first, end)
        if last.highest_days > 1:
            by_day = sorted((highest_hour(world, d, d + 1) for d in range(first, end)), reverse=True)
            counted = by_day[: last.highest_days]
            highest = sum(counted, Decimal(0)) / len(counted)
        billed = max(highest, last.ratchet * held.demand)
        total += cents(last.demand * billed * (1 if last.whole else Decimal(days) / of))
        held.demand = max(held.demand, highest)
    return max(total, cents(last.minimum * days / of))


def _net(world: World, agreement: Agreement, period: tuple[int, int], span: tuple[int, int], held: Carried) -> Decimal:
    """Use less exports and what was left over before."""
    first, end = span
    rates = in_force(world.tariffs[agreement.tariff], first)
    assert rates.bought is not None
    left = sum((used_on(world, d) - sent_on(world, d) for d in range(first, end)), Decimal(0)) - held.units
    total = price(rates, end - first, period[1] - period[0], max(left, Decimal(0)))
    held.units = max(-left, Decimal(0))
    if not any(
        a.account == agreement.account and a.first <= end and (a.past is None or a.past > end) for a in world.agreements
    ):
        total -= cents(held.units * rates.bought)
        held.units = Decimal(0)
    return total


def joined(agreements: Sequence[Agreement]) -> list[Agreement]:
    """Agreements that follow each other on the same terms are one."""
    runs: list[Agreement] = []
    for a in sorted(agreements, key=lambda a: a.first):
        last = runs[-1] if runs else None
        if last is not None and (last.account, last.tariff, last.cycle, last.past) == (
            a.account,
            a.tariff,
            a.cycle,
            a.first,
        ):
            runs[-1] = Agreement(a.account, a.tariff, a.cycle, last.first, a.past)
        else:
            runs.append(a)
    return runs


def owes(world: World, past: int) -> dict[tuple[str, str, int], Decimal]:
    """Money by account, cycle and first day of the period, for the periods that end by day ``past``."""
    bills: dict[tuple[str, str, int], Decimal] = {}
    held: dict[str, Carried] = {}
    for agreement in joined(world.agreements):
        for period in world.cycles[agreement.cycle]:
            span = days_of(agreement, period, past)
            if period[1] <= past and span[0] < span[1]:
                key = (agreement.account, agreement.cycle, period[0])
                mine = held.setdefault(agreement.account, Carried())
                bills[key] = bills.get(key, Decimal(0)) + owed_for(world, agreement, period, span, mine)
    return bills
