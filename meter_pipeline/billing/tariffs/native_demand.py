"""Demand charges of a native tariff: which peaks are measured, and what the demand is made of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from meter_pipeline.billing.tariffs.charge_parts import own_rounding, read_code, read_ladder, read_power_factor
from meter_pipeline.billing.tariffs.fields import Field
from meter_pipeline.billing.tariffs.model import ROUNDING_MODES, DemandCharge, Ratchet, Register, Tier
from meter_pipeline.billing.tariffs.schedules import RuleSchedule


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


def _highest_days(field: Field, register: Register) -> int:
    """Over how many days' peaks the demand is averaged; 0: the demand is one peak."""
    if "highest_days" not in field:
        return 0
    for name in ("ratchet", "hours", "above", "at_least", "power_factor"):
        if name in field:
            raise field[name].refuse("cannot stand beside highest_days: it is for one peak")
    if register.daily:
        raise field["per"].refuse("is day, which charges every day's peak: leave out highest_days, or per")
    return field["highest_days"].integer(2, 10)


def read_demand(field: Field, schedule: RuleSchedule, registers: list[Register]) -> DemandCharge:
    field.only(
        *("kind", "code", "name", "rate", "tiers", "period", "months", "ratchet", "rounding", "per", "hours"),
        *("measure", "above", "at_least", "power_factor", "contract", "whole", "highest_days"),
    )
    code = read_code(field)
    register = _register(field, schedule)
    first = len(registers)
    days = _highest_days(field, register)
    if days:
        # The rank-th highest day stands behind the one before it, which billing/day_peaks.py relies on.
        ranked = [replace(register, name=f"{register.name} day {k}", rank=k) for k in range(2, days + 1)]
        registers.extend([replace(register, rank=1), *ranked])
    else:
        registers.append(register)
    if "tiers" in field and "rate" in field:
        raise field["rate"].refuse("stands beside tiers: give one of them")
    ladder = read_ladder(field["tiers"]) if "tiers" in field else (Tier(None, field["rate"].decimal()),)
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
    only = ratchets[0] if ratchets else None
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
    factor = read_power_factor(field["power_factor"], schedule, registers) if "power_factor" in field else None
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
        *(code, field["name"].text(), component, first, ladder, only, own_rounding(field), tuple(also)),
        *(above, at_least, factor, contract, whole, days or 1),
    )
