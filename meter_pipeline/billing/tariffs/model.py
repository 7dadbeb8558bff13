"""The priced form of a tariff: what every document, URDB or native, becomes before anything is charged.

A tariff has one schedule of time-of-use periods for usage, demand registers each with a schedule of its own, and a list
of charges. Each charge is one or more lines; a line's key is ``CODE/period/tier`` and never depends on data, so that no
line can disappear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Protocol

COMPONENTS: Final = ("energy", "demand_flat", "demand_tou", "fixed", "minimum", "rider", "tax", "credit")
ROUNDING_MODES: Final = ("half_up", "half_even", "up", "down")
# : How a tier's limit is counted: the billing period's usage; usage per kW of the period's peak; per day; per kW and
# day; multiples of the : account's own budget.
TIER_BASES: Final = ("period", "per_kw", "daily", "per_kw_daily", "budget")
METERING: Final = ("consumption", "net_metering", "net_billing", "buy_all_sell_all")


class Schedule(Protocol):
    """Which time-of-use period holds a local moment."""

    @property
    def periods(self) -> tuple[str, ...]: ...

    def period(self, local: datetime, holiday: bool) -> int:
        """Index of the period that holds a local wall-clock moment."""
        ...

    def in_season(self, period: int, day: date) -> bool:
        """Whether a period can occur at all in the month or season that holds the day: a demand charge is owed for
        those days only."""
        ...


@dataclass(frozen=True, slots=True)
class MatrixSchedule:
    """URDB's two 12 x 24 matrices of period indices (month, hour), weekdays and weekends."""

    periods: tuple[str, ...]
    weekday: tuple[tuple[int, ...], ...]
    weekend: tuple[tuple[int, ...], ...]
    holidays_as_weekend: bool = False

    def period(self, local: datetime, holiday: bool) -> int:
        weekend = local.weekday() >= 5 or (holiday and self.holidays_as_weekend)
        return (self.weekend if weekend else self.weekday)[local.month - 1][local.hour]

    def in_season(self, period: int, day: date) -> bool:
        return period in self.weekday[day.month - 1] or period in self.weekend[day.month - 1]


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """First match wins. ``seasons``: (month, day) pairs from and to, both included, wrapping over new year; empty: all
    year.

    ``weekdays`` 0 Monday to 6 Sunday; ``holiday``: None says holidays follow ``weekdays``, True only holidays, False
    never on a holiday. Minutes since local midnight, start included, end not.
    """

    period: int
    seasons: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    weekdays: frozenset[int]
    holiday: bool | None
    start: int
    end: int

    def season_holds(self, day: date) -> bool:
        moment = (day.month, day.day)
        return not self.seasons or any(
            a <= moment <= b if a <= b else moment >= a or moment <= b for a, b in self.seasons
        )

    def holds(self, local: datetime, holiday: bool) -> bool:
        if self.holiday is None:
            day_matches = local.weekday() in self.weekdays
        elif self.holiday:
            day_matches = holiday
        else:
            day_matches = not holiday and local.weekday() in self.weekdays
        return (
            day_matches and self.start <= local.hour * 60 + local.minute < self.end and self.season_holds(local.date())
        )


@dataclass(frozen=True, slots=True)
class RuleSchedule:
    """The native schema's rules, first match wins; what no rule holds is period ``default``."""

    periods: tuple[str, ...]
    rules: tuple[ScheduleRule, ...] = ()
    default: int = 0

    def period(self, local: datetime, holiday: bool) -> int:
        for rule in self.rules:
            if rule.holds(local, holiday):
                return rule.period
        return self.default

    def in_season(self, period: int, day: date) -> bool:
        return period == self.default or any(r.period == period and r.season_holds(day) for r in self.rules)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a line becomes money. ``places`` decimals of the currency, None: kept exact (12 decimals), as published
    tariffs without a rule are compared."""

    places: int | None = 2
    mode: str = "half_up"


@dataclass(frozen=True, slots=True)
class Proration:
    """What a part of a billing period costs: ``days`` earns a monthly figure day by day, ``none`` gives it whole."""

    fixed: str = "days"
    tiers: str = "days"
    demand: str = "days"
    minimum: str = "days"


@dataclass(frozen=True, slots=True)
class Tier:
    """A block. ``upto`` in the tariff's unit under ``basis``, None for the last; ``rate`` per unit, adjustments
    included."""

    upto: Decimal | None
    rate: Decimal
    basis: str = "period"


Ladder = tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Variants:
    """Ladders or amounts that differ by an attribute of the service (meter_size, customer_class, jurisdiction). '*' is
    the default."""

    attribute: str | None
    keys: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class UsageCharge:
    """A charge on usage. ``ladders[variant][period]``: one ladder per time-of-use period.

    ``allocation``: pro_rata fills tiers by the whole period's usage and gives each time-of-use period its share of
    every tier (ssc cmod_utilityrate5.cpp L1855-1885); by_period gives each its own ladder. ``basis``: usage, export, or
    winter_average (the lesser of usage and the winter average). ``factor`` scales the quantity first (sewer return
    factor). ``peak_register`` is the peak that per_kw tiers count.
    """

    code: str
    name: str
    component: str
    ladders: tuple[tuple[Ladder, ...], ...]
    variants: Variants = Variants(None)
    allocation: str = "pro_rata"
    basis: str = "usage"
    factor: Decimal = Decimal(1)
    peak_register: int | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True, slots=True)
class FixedCharge:
    """Owed for being served: ``per`` month or day; one amount per variant."""

    code: str
    name: str
    amounts: tuple[Decimal, ...]
    variants: Variants = Variants(None)
    per: str = "month"
    component: str = "fixed"
    rounding: Rounding | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """A demand register: the peak over the moments of some periods of a schedule. ``months`` None: all."""

    name: str
    schedule: Schedule
    period: int | None
    months: frozenset[int] | None = None

    def holds(self, local: datetime, holiday: bool) -> bool:
        if self.months is not None and local.month not in self.months:
            return False
        return self.period is None or self.schedule.period(local, holiday) == self.period

    def in_season(self, day: date) -> bool:
        if self.months is not None and day.month not in self.months:
            return False
        return self.period is None or self.schedule.in_season(self.period, day)


@dataclass(frozen=True, slots=True)
class Ratchet:
    """Billing demand is at least ``percent`` (by calendar month, 12 of them) of the highest peak of the ``months``
    before, and ``floor``."""

    percent: tuple[Decimal, ...]
    months: int
    floor: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """A charge on one register's peak, marginal by block (ssc lib_utility_rate_equations.cpp L1004-1033)."""

    code: str
    name: str
    component: str
    register: int
    ladder: Ladder
    ratchet: Ratchet | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True, slots=True)
class PercentCharge:
    """A rider or tax: a percentage of other charges' lines. ``jurisdiction`` None: everywhere; ``exempt`` customer
    classes."""

    code: str
    name: str
    component: str
    percent: Decimal
    of: tuple[str, ...]
    jurisdiction: str | None = None
    exempt: frozenset[str] = frozenset()
    rounding: Rounding | None = None


@dataclass(frozen=True, slots=True)
class MinimumCharge:
    """The least a period costs before riders and taxes that do not count towards it: a top-up line."""

    code: str
    name: str
    amounts: tuple[Decimal, ...]
    of: tuple[str, ...]
    variants: Variants = Variants(None)
    per: str = "month"
    rounding: Rounding | None = None


Charge = UsageCharge | FixedCharge | DemandCharge | PercentCharge | MinimumCharge


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the tariff: its key is stable for a tariff version."""

    key: str
    code: str
    name: str
    component: str
    period: int | None
    tier: int | None
    unit: str

    @property
    def day_key(self) -> str:
        """The line of a day it belongs to: tiers together, since a day's share of a tier may go down as the month
        fills."""
        return self.key if self.tier is None else self.key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class HeatContent:
    """Therms per 100 cubic feet from a day on, as published by the gas supplier."""

    valid_from: date
    therms_per_ccf: Decimal


@dataclass(frozen=True, slots=True)
class Sell:
    """What exports earn: a rate per period and, for net metering, what is paid for what is left at the true-up month."""

    rates: tuple[Decimal, ...]
    yearend_rate: Decimal = Decimal(0)
    trueup_month: int = 12
    rollover: str = "kwh"


@dataclass(frozen=True, slots=True)
class Tariff:
    """A tariff version ready to price. ``digest`` is the SHA-256 of the document's bytes."""

    tariff_id: str
    name: str
    commodity: str
    currency: str
    unit: str
    source: str
    digest: bytes
    schedule: Schedule
    registers: tuple[Register, ...]
    charges: tuple[Charge, ...]
    rounding: Rounding
    proration: Proration
    demand_minutes: int | None = None
    metering: str = "consumption"
    sell: Sell | None = None
    heat_content: tuple[HeatContent, ...] = ()
    annual_minimum: Decimal | None = None
    budget_monthly: tuple[Decimal, ...] = ()
    notes: tuple[str, ...] = ()
    lines: tuple[Line, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(line for charge in self.charges for line in _lines_of(self, charge)))
        keys = [line.key for line in self.lines]
        if len(set(keys)) != len(keys):
            twice = next(k for k in keys if keys.count(k) > 1)
            raise ValueError(f"line {twice} is declared twice")

    @property
    def day_keys(self) -> tuple[str, ...]:
        """Keys of a day's lines: a charge and its period, tiers together, in the order of ``lines``."""
        return tuple(dict.fromkeys(line.day_key for line in self.lines))

    @property
    def needs_intervals(self) -> bool:
        """Whether a day's total is not enough: more than one period in a schedule, or demand."""
        return len(self.schedule.periods) > 1 or bool(self.registers)

    @property
    def attributes(self) -> frozenset[str]:
        """Attributes of a service that some charge cannot do without."""
        needed: set[str] = set()
        for charge in self.charges:
            if (
                isinstance(charge, (UsageCharge, FixedCharge, MinimumCharge))
                and charge.variants.attribute
                and "*" not in charge.variants.keys
            ):
                needed.add(charge.variants.attribute)
            if isinstance(charge, UsageCharge) and any(
                t.basis == "budget" for v in charge.ladders for p in v for t in p
            ):
                needed.add("budget_per_day")
        return frozenset(needed)


def _lines_of(tariff: Tariff, charge: Charge) -> list[Line]:
    code, name = charge.code, charge.name
    if isinstance(charge, UsageCharge):
        rows = []
        periods = tariff.schedule.periods
        for p, period in enumerate(periods):
            tiers = max(len(variant[p]) for variant in charge.ladders)
            for t in range(tiers):
                key = f"{code}/{period}/{t + 1}"
                label = name + (f", {period}" if len(periods) > 1 else "") + (f", tier {t + 1}" if tiers > 1 else "")
                rows.append(Line(key, code, label, charge.component, p, t, tariff.unit))
        return rows
    if isinstance(charge, DemandCharge):
        tiers = len(charge.ladder)
        return [
            Line(
                f"{code}/{tariff.registers[charge.register].name}/{t + 1}",
                code,
                name + (f", tier {t + 1}" if tiers > 1 else ""),
                charge.component,
                None,
                t,
                "kW",
            )
            for t in range(tiers)
        ]
    component = "minimum" if isinstance(charge, MinimumCharge) else charge.component
    return [Line(code, code, name, component, None, None, "")]
