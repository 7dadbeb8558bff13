"""The priced form of a tariff: every document, URDB or native, is converted into it before pricing.

A tariff has one schedule of time-of-use periods for usage, demand registers each with its own schedule, and a list of
charges. Each charge is one or more lines; a line's key is ``CODE/period/tier`` and does not depend on data, so that no
line can disappear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from meter_pipeline.billing.tariffs.export_rates import ExportRates
from meter_pipeline.billing.tariffs.holidays import HolidayList
from meter_pipeline.billing.tariffs.schedules import AnySchedule

COMPONENTS: Final = ("energy", "demand_flat", "demand_tou", "fixed", "minimum", "rider", "tax", "credit")
ROUNDING_MODES: Final = ("half_up", "half_even", "up", "down")
# : How a tier's limit is counted: the billing period's usage; usage per kW of the period's peak; per day; per kW and
# day; multiples of the account's own budget.
TIER_BASES: Final = ("period", "per_kw", "daily", "per_kw_daily", "budget")
METERING: Final = ("consumption", "net_metering", "net_billing", "buy_all_sell_all")
REACTIVE_MEASURES: Final = frozenset({"kva", "kvar", "kvarh"})
#: Units of what registers measure, but for blocks, which are in the tariff's.
MEASURE_UNITS: Final = {"kw": "kW", "kva": "kVA", "kvar": "kVAr", "kvarh": "kVArh"}


@dataclass(frozen=True, slots=True)
class Rounding:
    """Rounding of a line to money. ``places`` decimals of the currency, None: kept exact (12 decimals), for comparison
    with published tariffs without a rule.

    ``of``: line: every line by itself; bill: lines and the bill's exact total, with their difference as a line; None,
    for a document without a rule: by line, but a bill whose lines are cut by a change of rate has the total of its
    exact amounts, so that the cut changes no bill.
    """

    places: int | None = 2
    mode: str = "half_up"
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Proration:
    """Proration of a part of a billing period: ``days`` earns a monthly figure day by day, ``none`` charges it in
    full."""

    fixed: str = "days"
    tiers: str = "days"
    demand: str = "days"
    minimum: str = "days"


@dataclass(frozen=True, slots=True)
class Tier:
    """A block. ``upto`` in the tariff's unit under ``basis``, None for the last; ``rate`` per unit, adjustments
    included. ``within``: a second limit and its basis, where a block lies inside another kind of block (3,000 kWh
    inside the first 200 hours' use)."""

    upto: Decimal | None
    rate: Decimal
    basis: str = "period"
    within: tuple[Decimal, str] | None = None


Ladder = tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class ByAttribute:
    """Ladders or amounts that differ by an attribute of the service (meter_size, customer_class, jurisdiction). '*'
    is the default. Under the attributes service_date and bill_date the keys are the first days of each."""

    attribute: str | None
    keys: tuple[str, ...] = ("*",)

    @property
    def dated(self) -> bool:
        """Whether the key is a date instead of a value of the service."""
        return self.attribute in ("service_date", "bill_date")


@dataclass(frozen=True, slots=True)
class Ratchet:
    """Billing demand is at least ``percent`` (by calendar month, 12 of them) of the highest peak of the ``months``
    before, and ``floor``. ``sources``: the calendar months whose peaks count; None: all."""

    percent: tuple[Decimal, ...]
    months: int
    floor: Decimal = Decimal(0)
    sources: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class UsageCharge:
    """A charge on usage. ``ladders[variant][period]``: one ladder per time-of-use period.

    ``allocation``: pro_rata fills tiers by the whole period's usage and gives each time-of-use period its share of
    every tier (ssc cmod_utilityrate5.cpp L1855-1885); by_period gives each its own ladder; reached charges all usage at
    the rate of the tier that the whole reaches. ``basis``: usage; imports (before exports are set against it); export
    (all of it); surplus (exports that net metering set against nothing); winter_average (the average whatever the use:
    ``month_days`` days of it a month); winter_average_cap (the lesser of usage and the average). ``factor`` scales the
    quantity first (sewer return factor). ``times`` names a count of the service by which tier limits are multiplied
    (dwelling_units); ``without`` is that of a service that has none declared, None: it must be declared. Tiers per_kw
    count the billing demand of ``demand``, or without one the peak of ``peak_register``. ``month_days`` under
    winter_average_cap: the cap is so many days of it a month, not a day's for each day. ``blocks``: the registers of
    blocks that begin again each day, by period and tier. Under basis reactive the charge counts kVArh of ``kvarh``,
    what is above ``above`` percent of the kWh.
    """

    code: str
    name: str
    component: str
    ladders: tuple[tuple[Ladder, ...], ...]
    variants: ByAttribute = ByAttribute(None)
    allocation: str = "pro_rata"
    basis: str = "usage"
    factor: Decimal = Decimal(1)
    peak_register: int | None = None
    rounding: Rounding | None = None
    demand: DemandCharge | None = None
    month_days: Decimal | None = None
    times: str | None = None
    without: Decimal | None = None
    blocks: tuple[tuple[int, ...], ...] | None = None
    kvarh: int | None = None
    above: Decimal = Decimal(0)

    @property
    def one_price(self) -> bool:
        """Whether every time-of-use period has the same prices: its lines then round as one amount would."""
        plain = self.allocation == "pro_rata" and self.blocks is None
        return plain and all(len(set(variant)) == 1 for variant in self.ladders)


@dataclass(frozen=True, slots=True)
class FixedCharge:
    """A charge for being served: ``per`` month, day or year; one amount per variant. ``times``: a count of the
    service (lamps) that multiplies it; ``without``: the count where none is declared (None: it must be). ``steps``:
    the amounts are by usage instead, up to each of these quantities, the last beyond them; with ``demand``, the
    index of a demand charge, by its billing demand."""

    code: str
    name: str
    amounts: tuple[Decimal, ...]
    variants: ByAttribute = ByAttribute(None)
    per: str = "month"
    component: str = "fixed"
    rounding: Rounding | None = None
    times: str | None = None
    steps: tuple[Decimal, ...] = ()
    demand: int | None = None
    without: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A block that starts again each day: the part of a period's usage of the day above ``lower`` and not above
    ``upper`` (None: no limit), in the tariff's unit."""

    period: int
    lower: Decimal
    upper: Decimal | None
    allocation: str


@dataclass(frozen=True, slots=True)
class PowerFactorRule:
    """The charge for a low power factor: the average of the bill's usage, rounded to ``places``, below ``target``. With
    ``credit`` a power factor above the target gives a credit likewise.

    ``rule``: ratio raises by target over power factor; points by ``percent`` for each hundredth below. ``kvarh`` is the
    register of the reactive energy.
    """

    target: Decimal
    rule: str
    percent: Decimal
    places: int
    kvarh: int
    credit: bool = False


@dataclass(frozen=True, slots=True)
class Register:
    """A demand register: the peak over the moments of some periods of a schedule. ``months`` None: all. ``daily``:
    the sum of every day's figure. ``hours``: only usage in these local hours counts, the system's peaks.
    ``measure``: kw, kva, kvar (the highest), kvarh (the sum) or block (the part of each day's usage in ``block``).
    ``rank``: it has the rank-th highest of the days' peaks, and follows the register of the rank before; 0: the
    highest moment."""

    name: str
    schedule: AnySchedule
    period: int | None
    months: frozenset[int] | None = None
    daily: bool = False
    hours: frozenset[datetime] | None = None
    measure: str = "kw"
    block: Block | None = None
    rank: int = 0

    def holds(self, local: datetime, holiday: bool) -> bool:
        """Whether a local moment counts."""
        if self.hours is not None:
            return local.replace(minute=0, second=0, microsecond=0, tzinfo=None, fold=0) in self.hours
        if self.months is not None and local.month not in self.months:
            return False
        return self.period is None or self.schedule.period(local, holiday) == self.period

    def in_season(self, day: date) -> bool:
        """Whether its charge applies on a day."""
        if self.hours is not None:
            return any((hour.year, hour.month) == (day.year, day.month) for hour in self.hours)
        if self.months is not None and day.month not in self.months:
            return False
        return self.period is None or self.period in self.schedule.occurring(day)


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """A charge on one register's peak, marginal by block (ssc lib_utility_rate_equations.cpp L1004-1033). ``also``:
    further ratchets, each with a register of its own that measures the same. ``above``: only what exceeds a percentage
    of another register's peak counts (kVAr above half of the kW). ``least``: the demand is at least a percentage of
    another register's peak (90 % of the kVA). ``power_factor``: it is raised for a low power factor. ``contract``: it
    is at least a percentage of the service's attribute contract_kw. ``whole``: it is rounded to multiples of a step, by
    a mode. ``days``: it is the average of so many registers, this one and those behind it, which hold the highest days'
    peaks."""

    code: str
    name: str
    component: str
    register: int
    ladder: Ladder
    ratchet: Ratchet | None = None
    rounding: Rounding | None = None
    also: tuple[tuple[int, Ratchet], ...] = ()
    above: tuple[Decimal, int] | None = None
    least: tuple[Decimal, int] | None = None
    power_factor: PowerFactorRule | None = None
    contract: Decimal | None = None
    whole: tuple[Decimal, str] | None = None
    days: int = 1


@dataclass(frozen=True, slots=True)
class PercentCharge:
    """A rider or tax: a percentage of other charges' lines. ``jurisdiction`` None: everywhere; ``exempt`` customer
    classes. ``base_cap``: the largest sum of those lines it applies to; ``cap``: its largest amount, both a month.
    ``certificate``: not charged to a service whose attribute tax_exempt is true. ``variants`` and ``percents``: a
    percentage that changes on dates. ``power_factor``: the percentage comes from the power factor."""

    code: str
    name: str
    component: str
    percent: Decimal
    of: tuple[str, ...]
    jurisdiction: str | None = None
    exempt: frozenset[str] = frozenset()
    rounding: Rounding | None = None
    base_cap: Decimal | None = None
    cap: Decimal | None = None
    certificate: bool = False
    variants: ByAttribute = ByAttribute(None)
    percents: tuple[Decimal, ...] = ()
    power_factor: PowerFactorRule | None = None


@dataclass(frozen=True, slots=True)
class MinimumCharge:
    """The minimum of a period before riders and taxes that do not count towards it: a top-up line. ``per`` month,
    day, year, or kw: an amount for each kW of the billing demand of ``demand``, the index of a demand charge."""

    code: str
    name: str
    amounts: tuple[Decimal, ...]
    of: tuple[str, ...]
    variants: ByAttribute = ByAttribute(None)
    per: str = "month"
    rounding: Rounding | None = None
    demand: int | None = None


Charge = UsageCharge | FixedCharge | DemandCharge | PercentCharge | MinimumCharge


@dataclass(frozen=True, slots=True)
class TariffLine:
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
        """The key of the day's line it belongs to: tiers together, since a day's share of a tier may fall as the
        month fills."""
        return self.key if self.tier is None else self.key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class HeatContent:
    """Therms per 100 cubic feet from a day on, as published by the gas supplier."""

    valid_from: date
    therms_per_ccf: Decimal


Layout = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Tariff:
    """A tariff version ready to price. ``digest`` is the SHA-256 of the document's bytes. ``whole_units``: use is
    billed in whole multiples of it; ``whole_mode``: the rest is carried to the next bill (carry), or a bill's use is
    rounded."""

    tariff_id: str
    name: str
    commodity: str
    currency: str
    unit: str
    source: str
    digest: bytes
    schedule: AnySchedule
    registers: tuple[Register, ...]
    charges: tuple[Charge, ...]
    rounding: Rounding
    proration: Proration
    demand_minutes: int | None = None
    metering: str = "consumption"
    sell: ExportRates | None = None
    heat_content: tuple[HeatContent, ...] = ()
    annual_minimum: Decimal | None = None
    budget_monthly: tuple[Decimal, ...] = ()
    notes: tuple[str, ...] = ()
    holidays: HolidayList | None = None
    whole_units: Decimal | None = None
    whole_mode: str = "carry"
    lines: tuple[TariffLine, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(line for charge in self.charges for line in _lines_of(self, charge)))
        keys = [line.key for line in self.lines]
        if len(set(keys)) != len(keys):
            twice = next(k for k in keys if keys.count(k) > 1)
            raise ValueError(f"line {twice} is declared twice")

    @property
    def asks_holidays(self) -> bool:
        """Whether a holiday has other prices and the tariff has no list of its own."""
        return self.holidays is None and self.schedule.asks_holidays

    def is_holiday(self, day: date, city: frozenset[date]) -> bool:
        """Whether a day is a holiday of the tariff: by its own list, else by the utility's."""
        return day in city if self.holidays is None else self.holidays.holds(day)

    @property
    def carries_money(self) -> bool:
        """Whether earnings of exports are kept as money for later bills."""
        return (
            self.sell is not None and self.sell.rollover == "money" and self.metering in ("net_metering", "net_billing")
        )

    @property
    def carries(self) -> bool:
        """Whether a bill leaves an amount for the next: unused exports, in units or money, or use short of a whole
        unit."""
        return self.carries_units or self.carries_money or self.carries_remainder

    @property
    def carries_remainder(self) -> bool:
        """Whether use short of a whole unit is carried to the next bill."""
        return self.whole_units is not None and self.whole_mode == "carry"

    @property
    def carries_units(self) -> bool:
        """Whether unused exports are set against the use of later periods."""
        return self.metering == "net_metering" and (self.sell is None or self.sell.rollover == "kwh")

    def ratchets(self) -> list[tuple[int, Ratchet]]:
        """Registers whose history a charge reads, and how."""
        demands = [c for c in self.charges if isinstance(c, DemandCharge)]
        found: list[tuple[int, Ratchet | None]] = [(c.register, c.ratchet) for c in demands]
        found += [pair for c in demands for pair in c.also]
        found += [
            (c.demand.register, c.demand.ratchet) for c in self.charges if isinstance(c, UsageCharge) and c.demand
        ]
        return [(register, ratchet) for register, ratchet in found if ratchet is not None]

    @property
    def layout(self) -> Layout:
        """The names of its periods and of its registers, which the lists of positions follow."""
        return self.schedule.periods, tuple(register.name for register in self.registers)

    @property
    def day_keys(self) -> tuple[str, ...]:
        """Keys of a day's lines: a charge and its period, tiers together, in the order of ``lines``."""
        return tuple(dict.fromkeys(line.day_key for line in self.lines))

    @property
    def attributes(self) -> frozenset[str]:
        """Attributes of a service that a charge requires."""
        counted = [c for c in self.charges if isinstance(c, (UsageCharge, FixedCharge)) and c.times is not None]
        needed = {v.attribute for v in self._variants() if v.attribute and not v.dated and "*" not in v.keys}
        needed |= {str(c.times) for c in counted if c.without is None}
        if any(isinstance(c, UsageCharge) and c.basis.startswith("winter_average") for c in self.charges):
            needed.add("winter_average_per_day")
        return frozenset(needed | ({"budget_per_day"} if self._counts_budget() else set()))

    @property
    def reads(self) -> frozenset[str]:
        """Attributes of a service that a charge depends on: where one changes, a bill's lines are cut."""
        found = {v.attribute for v in self._variants() if v.attribute and not v.dated} | self._counts()
        found |= {"jurisdiction" for c in self.charges if isinstance(c, PercentCharge) and c.jurisdiction is not None}
        found |= {"tax_exempt" for c in self.charges if isinstance(c, PercentCharge) and c.certificate}
        found |= {"customer_class" for c in self.charges if isinstance(c, PercentCharge) and c.exempt}
        if any(isinstance(c, UsageCharge) and c.basis.startswith("winter_average") for c in self.charges):
            found.add("winter_average_per_day")
        return frozenset(found | ({"budget_per_day"} if self._counts_budget() else set()))

    @property
    def rate_days(self) -> frozenset[date]:
        """Days from which a rate by the day of service changes: a bill's lines are cut there."""
        dated = [v for v in self._variants() if v.attribute == "service_date"]
        return frozenset(date.fromisoformat(key) for v in dated for key in v.keys)

    def _variants(self) -> list[ByAttribute]:
        return [c.variants for c in self.charges if not isinstance(c, DemandCharge)]

    @property
    def needs_intervals(self) -> bool:
        """Whether a day's total by period is not sufficient: it has demand, or counts reactive energy."""
        return any(register.measure != "block" for register in self.registers)

    @property
    def counts_kw(self) -> bool:
        """Whether it measures kW."""
        return any(register.measure == "kw" for register in self.registers)

    @property
    def counts_reactive(self) -> bool:
        """Whether it counts kVA, kVAr or kVArh."""
        return any(register.measure in REACTIVE_MEASURES for register in self.registers)

    def _counts(self) -> set[str]:
        found = {c.times for c in self.charges if isinstance(c, (UsageCharge, FixedCharge)) and c.times is not None}
        contracted = any(isinstance(c, DemandCharge) and c.contract is not None for c in self.charges)
        return found | ({"contract_kw"} if contracted else set())

    def _counts_budget(self) -> bool:
        ladders = [p for c in self.charges if isinstance(c, UsageCharge) for v in c.ladders for p in v]
        return any(t.basis == "budget" for ladder in ladders for t in ladder)


def _lines_of(tariff: Tariff, charge: Charge) -> list[TariffLine]:
    code, name = charge.code, charge.name
    if isinstance(charge, UsageCharge):
        rows = []
        periods = tariff.schedule.periods
        for p, period in enumerate(periods):
            tiers = max(len(variant[p]) for variant in charge.ladders)
            for t in range(tiers):
                key = f"{code}/{period}/{t + 1}"
                label = name + (f", {period}" if len(periods) > 1 else "") + (f", tier {t + 1}" if tiers > 1 else "")
                unit = tariff.unit if charge.kvarh is None else MEASURE_UNITS["kvarh"]
                rows.append(TariffLine(key, code, label, charge.component, p, t, unit))
        return rows
    if isinstance(charge, DemandCharge):
        tiers = len(charge.ladder)
        return [
            TariffLine(
                f"{code}/{tariff.registers[charge.register].name}/{t + 1}",
                code,
                name + (f", tier {t + 1}" if tiers > 1 else ""),
                charge.component,
                None,
                t,
                MEASURE_UNITS[tariff.registers[charge.register].measure],
            )
            for t in range(tiers)
        ]
    component = "minimum" if isinstance(charge, MinimumCharge) else charge.component
    return [TariffLine(code, code, name, component, None, None, "")]
