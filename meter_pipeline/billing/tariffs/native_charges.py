"""The charges of a native tariff: one reader for each kind. Every member is read or refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Final

from meter_pipeline.billing.tariffs.fields import Field, TariffRefusedError
from meter_pipeline.billing.tariffs.model import (
    COMPONENTS,
    ROUNDING_MODES,
    TIER_BASES,
    Block,
    ByAttribute,
    Charge,
    DemandCharge,
    FixedCharge,
    Ladder,
    MinimumCharge,
    PercentCharge,
    PowerFactorRule,
    Ratchet,
    Register,
    Rounding,
    Tier,
    UsageCharge,
)
from meter_pipeline.billing.tariffs.schedules import RuleSchedule

_CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9-]{0,31}", re.ASCII)
#: Names of attributes: those that every utility has, and what a utility declares (reference/attribute_names.csv)
_ATTRIBUTE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
#: Attributes that are no counts, and those by which no price differs
_TEXTS: Final = frozenset({"customer_class", "meter_size", "jurisdiction", "rate_code", "tax_exempt"})
_AMOUNTS: Final = frozenset({"budget_per_day", "winter_average_per_day"})
_LINKS: Final = frozenset({"totals_into", "deducts_from", "credits_to"})
ALLOCATIONS: Final = ("pro_rata", "by_period", "reached")
BASES: Final = (
    "usage", "imports", "export", "surplus", "winter_average", "winter_average_cap", "winter_average_volume", "reactive",
)  # fmt: skip
#: a second name of a basis, from documents that were written with it
_SAME_BASIS: Final = {"winter_average_volume": "winter_average"}
#: kWh that one kW makes in a day, by percent of load factor
_LOAD_FACTOR: Final = Decimal("0.24")


def read_rounding(field: Field) -> Rounding:
    field.only("places", "mode", "of")
    return Rounding(
        field["places"].integer(0, 6),
        field.get("mode", "half_up").choice(*ROUNDING_MODES),
        field.get("of", "line").choice("line", "bill"),
    )


def _own_rounding(field: Field) -> Rounding | None:
    return read_rounding(field["rounding"]) if "rounding" in field else None


def _code(field: Field) -> str:
    text = field["code"].text()
    if not _CODE.fullmatch(text):
        raise field["code"].refuse("must be up to 32 of A-Z, 0-9 and -")
    return text


def _ladder(field: Field) -> Ladder:
    tiers: list[Tier] = []
    rows = field.list(at_least=1)
    for k, row in enumerate(rows):
        row.only("upto", "rate", "of", "within")
        upto = row["upto"].decimal(Decimal(0)) if "upto" in row else None
        if (upto is None) != (k == len(rows) - 1):
            raise TariffRefusedError(f"{row.path}.upto", "every tier but the last has a limit, the last has none")
        basis, upto = _limit(row, upto)
        # Blocks of several kinds may follow each other (kWh, then hours' use); each kind rises by itself.
        previous = next((t.upto for t in reversed(tiers) if t.basis == basis), None)
        if upto is not None and previous is not None and upto <= previous:
            raise row["upto"].refuse(f"must be above the tier before ({previous})")
        within = None
        if "within" in row:
            row["within"].only("upto", "of")
            inner, most = _limit(row["within"], row["within"]["upto"].decimal(Decimal(0)))
            within = (most or Decimal(0), inner)
        tiers.append(Tier(upto, row["rate"].decimal(), basis, within))
    return tuple(tiers)


def _limit(row: Field, upto: Decimal | None) -> tuple[str, Decimal | None]:
    """A tier's basis and limit; a load factor in percent is so many kWh a kW and day."""
    basis = row.get("of", "period").choice(*TIER_BASES, "load_factor")
    if basis != "load_factor":
        return basis, upto
    return "per_kw_daily", None if upto is None else upto * _LOAD_FACTOR


def _ladders(field: Field, periods: tuple[str, ...]) -> tuple[Ladder, ...]:
    """One ladder per period from ``rate``, ``tiers``, ``rates`` {period: rate} or ``periods`` {period: tiers}."""
    given = [k for k in ("rate", "tiers", "rates", "periods") if k in field]
    if len(given) != 1:
        raise field.refuse("needs exactly one of rate, tiers, rates, periods")
    kind = given[0]
    if kind == "rate":
        return ((Tier(None, field["rate"].decimal()),),) * len(periods)
    if kind == "tiers":
        return (_ladder(field["tiers"]),) * len(periods)
    for name, member in field[kind].items():
        if name not in periods:
            raise member.refuse("is not a period of time_of_use")
    if kind == "rates":
        return tuple((Tier(None, field["rates"][p].decimal()),) for p in periods)
    return tuple(_ladder(field["periods"][p]) for p in periods)


def _attribute(field: Field, but: frozenset[str], what: str) -> str:
    text = field.text()
    if not _ATTRIBUTE.fullmatch(text):
        raise field.refuse(f"{text[:40]!r} is no name of an attribute: small letters, digits and _")
    if text in but:
        raise field.refuse(f"{text} {what}")
    return text


def _times(field: Field) -> tuple[str | None, Decimal | None]:
    """The count by which a charge is multiplied, and what holds for a service that has none."""
    if "times" not in field:
        if "without" in field:
            raise field["without"].refuse("stands beside times")
        return None, None
    name = _attribute(field["times"], _TEXTS | _AMOUNTS | _LINKS, "is no count")
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
    return replace(charge, kvarh=_kvarh(schedule, registers), above=above)


def _kvarh(schedule: RuleSchedule, registers: list[Register]) -> int:
    """The register that adds up all kVArh."""
    for k, register in enumerate(registers):
        if register.measure == "kvarh":
            return k
    registers.append(Register("kvarh total", schedule, None, daily=True, measure="kvarh"))
    return len(registers) - 1


def _power_factor(field: Field, schedule: RuleSchedule, registers: list[Register]) -> PowerFactorRule:
    """What a low power factor costs."""
    field.only("target", "rule", "percent", "places", "credit")
    target = field["target"].decimal(Decimal("0.01"))
    if target > 1:
        raise field["target"].refuse("is a power factor like 0.90, at most 1")
    rule = field.get("rule", "ratio").choice("ratio", "points")
    if (rule == "points") != ("percent" in field):
        raise field.get("percent").refuse(
            "is what each hundredth below the target costs: for the rule points, and no other"
        )
    percent = field["percent"].decimal(Decimal(0)) if rule == "points" else Decimal(0)
    places = field.get("places", Decimal(4)).integer(1, 6)
    credit = field.get("credit", False).flag()
    return PowerFactorRule(target, rule, percent, places, _kvarh(schedule, registers), credit)


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
        _code(field),
        field["name"].text(),
        component,
        tuple(_ladders(m, periods) for m in members),
        variants,
        field.get("allocation", "pro_rata").choice(*ALLOCATIONS),
        _basis(field),
        field.get("factor", Decimal(1)).decimal(Decimal(0)),
        rounding=_own_rounding(field),
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
        _code(field),
        field["name"].text(),
        component,
        tuple(((Tier(None, rate),),) * len(periods) for rate in rates),
        variants,
        basis=_basis(field),
        factor=field.get("factor", Decimal(1)).decimal(Decimal(0)),
        rounding=_own_rounding(field),
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


def _ratchet(block: Field) -> Ratchet:
    block.only("percent", "months", "floor", "sources")
    percents = (
        tuple(f.decimal(Decimal(0)) for f in block["percent"].list(12))
        if isinstance(block["percent"].value, list)
        else (block["percent"].decimal(Decimal(0)),) * 12
    )
    named = [f.integer(1, 12) for f in block["sources"].list(at_least=1)] if "sources" in block else None
    return Ratchet(
        percents,
        block["months"].integer(0, 24),
        block.get("floor", Decimal(0)).decimal(Decimal(0)),
        None if named is None else frozenset(named),
    )


def _register(field: Field, schedule: RuleSchedule) -> Register:
    """What a demand charge measures."""
    period = schedule.periods.index(field["period"].choice(*schedule.periods)) if "period" in field else None
    months = frozenset(f.integer(1, 12) for f in field["months"].list(at_least=1)) if "months" in field else None
    hours = frozenset(f.hour() for f in field["hours"].list(at_least=1)) if "hours" in field else None
    if hours is not None and (period is not None or months is not None):
        raise field["hours"].refuse("names the hours by itself: without period and months")
    if period is not None and period in schedule.called and period not in schedule.regular:
        raise field["period"].refuse("is made of dates alone: demand of such days is hours, one by one")
    daily = field.get("per", "period").choice("period", "day") == "day"
    if daily and "ratchet" in field:
        raise field["ratchet"].refuse("is for the demand of a billing period, not of each day")
    measure = field.get("measure", "kw").choice("kw", "kva", "kvar")
    return Register(field["code"].text().lower(), schedule, period, months, daily, hours, measure)


def _beside(
    field: Field, key: str, register: Register, measure: str, registers: list[Register]
) -> tuple[Decimal, int] | None:
    """A percentage of what the same hours come to in another measure."""
    if key not in field:
        return None
    if register.daily:
        raise field[key].refuse("is for the demand of a billing period, not of each day")
    registers.append(replace(register, name=f"{register.name} {measure}", measure=measure))
    return field[key]["percent"].decimal(Decimal(0)), len(registers) - 1


def _demand(field: Field, schedule: RuleSchedule, registers: list[Register]) -> DemandCharge:
    field.only(
        *("kind", "code", "name", "rate", "tiers", "period", "months", "ratchet", "rounding", "per", "hours"),
        *("measure", "above", "at_least", "power_factor", "contract", "whole"),
    )
    code = _code(field)
    register = _register(field, schedule)
    registers.append(register)
    first = len(registers) - 1
    if "tiers" in field and "rate" in field:
        raise field["rate"].refuse("stands beside tiers: give one of them")
    ladder = _ladder(field["tiers"]) if "tiers" in field else (Tier(None, field["rate"].decimal()),)
    if any(t.basis != "period" or t.within for t in ladder):
        raise field["tiers"].refuse("demand tiers are in kW and have no other basis")
    given: list[Field] = []
    if "ratchet" in field:
        block = field["ratchet"]
        given = block.list(at_least=1) if isinstance(block.value, list) else [block]
    ratchets = [_ratchet(block) for block in given]
    also = []
    for k, ratchet in enumerate(ratchets[1:], start=2):
        registers.append(replace(register, name=f"{register.name}-{k}"))
        also.append((len(registers) - 1, ratchet))
    component = "demand_flat" if register.period is None else "demand_tou"
    held = ratchets[0] if ratchets else None
    above = at_least = None
    if "above" in field:
        field["above"].only("percent")
        if register.measure == "kw":
            raise field["above"].refuse(
                "is what of kVA or kVAr is above a percentage of the kW: for measure kva or kvar"
            )
        above = _beside(field, "above", register, "kw", registers)
    if "at_least" in field:
        field["at_least"].only("percent", "measure")
        other = field["at_least"]["measure"].choice(*(m for m in ("kw", "kva", "kvar") if m != register.measure))
        at_least = _beside(field, "at_least", register, other, registers)
    factor = _power_factor(field["power_factor"], schedule, registers) if "power_factor" in field else None
    if factor is not None and register.measure != "kw":
        raise field["power_factor"].refuse("adjusts demand in kW")
    contract = whole = None
    if "contract" in field:
        field["contract"].only("percent")
        contract = field["contract"]["percent"].decimal(Decimal(0))
    if "whole" in field:
        field["whole"].only("step", "mode")
        step = field["whole"]["step"].decimal(Decimal("0.001"))
        whole = step, field["whole"].get("mode", "half_up").choice(*ROUNDING_MODES)
    for name, given_rule in (("contract", contract), ("whole", whole)):
        if given_rule is not None and register.daily:
            raise field[name].refuse("is for the demand of a billing period, not of each day")
    return DemandCharge(
        *(code, field["name"].text(), component, first, ladder, held, _own_rounding(field), tuple(also)),
        *(above, at_least, factor, contract, whole),
    )


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
        _code(field),
        field["name"].text(),
        amounts,
        variants,
        field.get("per", "month").choice("month", "day", "year"),
        field.get("component", "fixed").choice(*COMPONENTS),
        _own_rounding(field),
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
        return _demand(field, schedule, registers)
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
            _code(field), field["name"].text(), amounts, scope, variants, per, _own_rounding(field), demand
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
        _code(field),
        field["name"].text(),
        kind,
        Decimal(0) if any(name in field for name in ("power_factor", "dated", "by")) else field["percent"].decimal(),
        scope,
        field["jurisdiction"].text() if "jurisdiction" in field else None,
        frozenset(f.text() for f in field["exempt"].list()) if "exempt" in field else frozenset(),
        _own_rounding(field),
        field["base_cap"].decimal(Decimal(0)) if "base_cap" in field else None,
        field["cap"].decimal(Decimal(0)) if "cap" in field else None,
        field.get("certificate", False).flag(),
        variants,
        percents,
        power_factor=_power_factor(field["power_factor"], schedule, registers) if "power_factor" in field else None,
    )
