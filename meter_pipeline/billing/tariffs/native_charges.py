"""The charges of a native tariff: one reader for each kind. Every member is read or refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Final

from meter_pipeline.billing.tariffs.charge_parts import (
    kvarh_register,
    own_rounding,
    read_code,
    read_ladder,
    read_power_factor,
)
from meter_pipeline.billing.tariffs.fields import Field
from meter_pipeline.billing.tariffs.model import (
    COMPONENTS,
    Block,
    ByAttribute,
    Charge,
    FixedCharge,
    Ladder,
    MinimumCharge,
    PercentCharge,
    Register,
    Tier,
    UsageCharge,
)
from meter_pipeline.billing.tariffs.native_demand import read_demand
from meter_pipeline.billing.tariffs.schedules import RuleSchedule

#: Names of attributes: those that every utility has, and what a utility declares (reference/attribute_names.csv)
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
#: Attributes that are no counts, and those by which no price differs
_TEXTS: Final = frozenset({"customer_class", "meter_size", "jurisdiction", "rate_code", "tax_exempt"})
_AMOUNTS: Final = frozenset({"budget_per_day", "winter_average_per_day"})
_LINKS: Final = frozenset({"totals_into", "deducts_from", "credits_to"})
ALLOCATIONS: Final = ("pro_rata", "by_period", "reached")
BASES: Final = (
    "usage",
    "imports",
    "export",
    "surplus",
    "winter_average",
    "winter_average_cap",
    "winter_average_volume",
    "reactive",
)
#: a second name of a basis, from documents that were written with it
_SAME_BASIS: Final = {"winter_average_volume": "winter_average"}


def _ladders(field: Field, periods: tuple[str, ...]) -> tuple[Ladder, ...]:
    """One ladder per period from ``rate``, ``tiers``, ``rates`` {period: rate} or ``periods`` {period: tiers}."""
    given = [k for k in ("rate", "tiers", "rates", "periods") if k in field]
    if len(given) != 1:
        raise field.refuse("needs exactly one of rate, tiers, rates, periods")
    kind = given[0]
    if kind == "rate":
        return ((Tier(None, field["rate"].decimal()),),) * len(periods)
    if kind == "tiers":
        return (read_ladder(field["tiers"]),) * len(periods)
    for name, member in field[kind].items():
        if name not in periods:
            raise member.refuse("is not a period of time_of_use")
    if kind == "rates":
        return tuple((Tier(None, field["rates"][p].decimal()),) for p in periods)
    return tuple(read_ladder(field["periods"][p]) for p in periods)


def _attribute(field: Field, but: frozenset[str], what: str) -> str:
    text = field.text()
    if not _ATTRIBUTE.fullmatch(text):
        raise field.refuse(f"{text[:40]!r} is not a name of an attribute: small letters, digits and _")
    if text in but:
        raise field.refuse(f"{text} {what}")
    return text


def _times(field: Field) -> tuple[str | None, Decimal | None]:
    """The count by which a charge is multiplied, and what holds for a service that has none."""
    if "times" not in field:
        if "without" in field:
            raise field["without"].refuse("stands beside times")
        return None, None
    name = _attribute(field["times"], _TEXTS | _AMOUNTS | _LINKS, "is not a count")
    return name, field["without"].decimal(Decimal(0)) if "without" in field else None


def _variants(field: Field) -> tuple[ByAttribute, list[Field]]:
    """The variants of a charge under ``by``, or the charge itself as the only one."""
    if "by" not in field:
        return ByAttribute(None), [field]
    by = field["by"]
    by.only("attribute", "values")
    attribute = _attribute(by["attribute"], _AMOUNTS | _LINKS | {"tax_exempt"}, "is nothing that prices differ by")
    values = dict(by["values"].items())
    if not values:
        raise by["values"].refuse("must name at least one value")
    return ByAttribute(attribute, tuple(values)), list(values.values())


def _usage(field: Field, schedule: RuleSchedule, registers: list[Register], component: str) -> UsageCharge:
    """A charge on usage, with the registers that its daily blocks or its reactive energy need."""
    charge = _plain_usage(field, schedule.periods, component)
    if field.get("restart", "period").choice("period", "day") == "day":
        return _daily_blocks(field, charge, schedule, registers)
    if charge.basis == "reactive":
        return _reactive(field, charge, schedule, registers)
    if "above_percent" in field:
        raise field["above_percent"].refuse("is for basis reactive")
    return charge


def _daily_blocks(field: Field, charge: UsageCharge, schedule: RuleSchedule, registers: list[Register]) -> UsageCharge:
    """Blocks that begin again each day: a register counts what of each day lies in each."""
    for key in ("by", "times", "factor", "dated", "demand", "above_percent"):
        if key in field:
            raise field[key].refuse("can't stand beside blocks that restart each day")
    if charge.basis != "usage":
        raise field["basis"].refuse("blocks that restart each day count usage")
    ladders = charge.ladders[0]
    if all(len(ladder) == 1 for ladder in ladders):
        raise field["restart"].refuse("is for tiers")
    blocks = []
    for p, ladder in enumerate(ladders):
        lower, of_period = Decimal(0), []
        for t, tier in enumerate(ladder):
            if tier.basis != "period" or tier.within:
                raise field["restart"].refuse(
                    "blocks that restart each day have limits in units a day, without of and within"
                )
            name = f"{charge.code.lower()}/{schedule.periods[p]}/{t + 1}"
            block = Block(p, lower, tier.upto, charge.allocation)
            registers.append(Register(name, schedule, None, daily=True, measure="block", block=block))
            of_period.append(len(registers) - 1)
            lower = lower if tier.upto is None else tier.upto
        blocks.append(tuple(of_period))
    return replace(charge, blocks=tuple(blocks))


def _reactive(field: Field, charge: UsageCharge, schedule: RuleSchedule, registers: list[Register]) -> UsageCharge:
    """A charge on kVArh, or on what of it is above a percentage of the kWh."""
    for key in ("rates", "periods", "by", "times", "factor", "allocation", "dated"):
        if key in field:
            raise field[key].refuse("can't stand beside basis reactive: reactive energy has one price, or tiers")
    if any(t.basis not in ("period", "daily") or t.within for t in charge.ladders[0][0]):
        raise field["tiers"].refuse("tiers of reactive energy are in kVArh, of the period or daily")
    above = field.get("above_percent", Decimal(0)).decimal(Decimal(0))
    return replace(charge, kvarh=kvarh_register(schedule, registers), above=above)


def _plain_usage(field: Field, periods: tuple[str, ...], component: str) -> UsageCharge:
    field.only(
        "kind",
        "code",
        "name",
        "component",
        "rate",
        "tiers",
        "rates",
        "periods",
        "by",
        "allocation",
        "basis",
        "factor",
        "rounding",
        "month_days",
        "demand",
        "times",
        "without",
        "dated",
        "restart",
        "above_percent",
    )
    if "dated" in field:
        return _dated(field, periods, component)
    variants, members = _variants(field)
    if variants.attribute is not None:
        for key in ("rate", "tiers", "rates", "periods"):
            if key in field:
                raise field[key].refuse("stands under by.values where prices differ by an attribute")
        for member in members:
            member.only("rate", "tiers", "rates", "periods")
    if "month_days" in field and not str(field.get("basis").value).startswith("winter_average"):
        raise field["month_days"].refuse("is for basis winter_average and winter_average_cap")
    times, without = _times(field)
    return UsageCharge(
        read_code(field),
        field["name"].text(),
        component,
        tuple(_ladders(m, periods) for m in members),
        variants,
        field.get("allocation", "pro_rata").choice(*ALLOCATIONS),
        _basis(field),
        field.get("factor", Decimal(1)).decimal(Decimal(0)),
        rounding=own_rounding(field),
        month_days=field["month_days"].decimal(Decimal(1)) if "month_days" in field else None,
        times=times,
        without=without,
    )


def _basis(field: Field) -> str:
    """What a charge counts."""
    basis = field.get("basis", "usage").choice(*BASES)
    return _SAME_BASIS.get(basis, basis)


def _dated(field: Field, periods: tuple[str, ...], component: str) -> UsageCharge:
    """A rate that changes on dates by itself: a fuel factor, the cost of gas."""
    for key in ("rate", "tiers", "rates", "periods", "by"):
        if key in field:
            raise field[key].refuse("stands beside dated: give one of them")
    variants, rates = _steps(field["dated"], "rates", "rate")
    return UsageCharge(
        read_code(field),
        field["name"].text(),
        component,
        tuple(((Tier(None, rate),),) * len(periods) for rate in rates),
        variants,
        basis=_basis(field),
        factor=field.get("factor", Decimal(1)).decimal(Decimal(0)),
        rounding=own_rounding(field),
    )


def _steps(block: Field, key: str, member: str) -> tuple[ByAttribute, tuple[Decimal, ...]]:
    """Figures that change on days, and by which day."""
    block.only("by", key)
    rows: list[tuple[date, Decimal]] = []
    for row in block[key].list(at_least=1):
        row.only("from", member)
        rows.append((row["from"].day(), row[member].decimal()))
        if len(rows) > 1 and rows[-1][0] <= rows[-2][0]:
            raise row["from"].refuse(f"must be after {rows[-2][0]}")
    by = block["by"].choice("service_date", "bill_date")
    return ByAttribute(by, tuple(day.isoformat() for day, _ in rows)), tuple(figure for _, figure in rows)


def _dated_percents(block: Field) -> tuple[ByAttribute, tuple[Decimal, ...]]:
    """A percentage that changes on days: a drought surcharge by its stage. Nothing before the first of them."""
    variants, percents = _steps(block, "percents", "percent")
    return ByAttribute(variants.attribute, (date.min.isoformat(), *variants.keys)), (Decimal(0), *percents)


def _amounts(field: Field) -> tuple[ByAttribute, tuple[Decimal, ...]]:
    variants, members = _variants(field)
    if variants.attribute is None:
        return variants, (field["amount"].decimal(),)
    if "amount" in field:
        raise field["amount"].refuse("stands under by.values where amounts differ by an attribute")
    return variants, tuple(m.decimal() for m in members)


def _by_percent(field: Field) -> bool:
    """Whether a rider's ``by`` gives percentages, not prices of usage: plain figures."""
    if "by" not in field or "values" not in field["by"]:
        return False
    values = [each for _, each in field["by"]["values"].items()]
    return bool(values) and not any(isinstance(each.value, dict) for each in values)


def _fixed(field: Field, known: list[str]) -> FixedCharge:
    """An amount for being served; ``steps``: by usage, or by the billing demand of the charge named in ``demand``."""
    field.only(
        *("kind", "code", "name", "amount", "steps", "demand", "per", "by", "rounding", "component", "times", "without")
    )
    times, without = _times(field)
    limits: list[Decimal] = []
    if "steps" in field:
        for key in ("amount", "by"):
            if key in field:
                raise field[key].refuse("stands beside steps: give one of them")
        rows = field["steps"].list(at_least=2)
        for k, row in enumerate(rows):
            row.only("upto", "amount")
            if ("upto" in row) != (k < len(rows) - 1):
                raise row.refuse("every step but the last has a limit (upto), the last has none")
            if "upto" in row:
                limits.append(row["upto"].decimal(Decimal(0)))
                if len(limits) > 1 and limits[-1] <= limits[-2]:
                    raise row["upto"].refuse(f"must be above the step before ({limits[-2]})")
        variants, amounts = ByAttribute(None), tuple(row["amount"].decimal() for row in rows)
    else:
        variants, amounts = _amounts(field)
    if "demand" in field and not limits:
        raise field["demand"].refuse("is for a charge by steps: add steps, or leave out demand")
    return FixedCharge(
        read_code(field),
        field["name"].text(),
        amounts,
        variants,
        field.get("per", "month").choice("month", "day", "year"),
        field.get("component", "fixed").choice(*COMPONENTS),
        own_rounding(field),
        times,
        tuple(limits),
        known.index(field["demand"].choice(*known)) if "demand" in field else None,
        without,
    )


def read_charge(field: Field, schedule: RuleSchedule, registers: list[Register], known: list[str]) -> Charge:
    kind = field["kind"].choice("usage", "fixed", "demand", "minimum", "rider", "tax")
    if kind == "usage":
        return _usage(field, schedule, registers, field.get("component", "energy").choice(*COMPONENTS))
    dated_percent = "dated" in field and "percents" in field["dated"]
    of_lines = "percent" in field or "power_factor" in field or dated_percent or _by_percent(field)
    if kind == "rider" and not of_lines:
        return _usage(field, schedule, registers, field.get("component", "rider").choice(*COMPONENTS))
    if kind == "demand":
        return read_demand(field, schedule, registers)
    if kind == "fixed":
        return _fixed(field, known)
    scope = tuple(f.choice(*known) for f in field["of"].list(at_least=1)) if "of" in field else tuple(known)
    if kind == "minimum":
        field.only("kind", "code", "name", "amount", "per", "by", "of", "rounding", "demand")
        variants, amounts = _amounts(field)
        per = field.get("per", "month").choice("month", "day", "year", "kw")
        if (per == "kw") != ("demand" in field):
            raise field.get("demand").refuse("names the demand charge of a minimum per kw, and of no other")
        if per == "kw" and variants.attribute is not None:
            raise field["by"].refuse("can't stand beside per kw")
        demand = known.index(field["demand"].choice(*known)) if per == "kw" else None
        return MinimumCharge(
            read_code(field), field["name"].text(), amounts, scope, variants, per, own_rounding(field), demand
        )
    field.only(
        *("kind", "code", "name", "percent", "of", "jurisdiction", "exempt", "rounding", "base_cap", "cap"),
        *("certificate", "dated", "by", *(("power_factor",) if kind == "rider" else ())),
    )
    if sum(name in field for name in ("percent", "power_factor", "dated", "by")) > 1:
        raise field.refuse("needs exactly one of percent, power_factor, dated, by")
    variants, percents = _dated_percents(field["dated"]) if "dated" in field else (ByAttribute(None), ())
    if "by" in field:
        variants, members = _variants(field)
        percents = tuple(member.decimal() for member in members)
    return PercentCharge(
        read_code(field),
        field["name"].text(),
        kind,
        Decimal(0) if any(name in field for name in ("power_factor", "dated", "by")) else field["percent"].decimal(),
        scope,
        field["jurisdiction"].text() if "jurisdiction" in field else None,
        frozenset(f.text() for f in field["exempt"].list()) if "exempt" in field else frozenset(),
        own_rounding(field),
        field["base_cap"].decimal(Decimal(0)) if "base_cap" in field else None,
        field["cap"].decimal(Decimal(0)) if "cap" in field else None,
        field.get("certificate", False).flag(),
        variants,
        percents,
        power_factor=read_power_factor(field["power_factor"], schedule, registers) if "power_factor" in field else None,
    )
