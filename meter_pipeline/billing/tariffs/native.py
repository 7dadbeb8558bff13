"""The native tariff schema, ``meter_pipeline.tariff/1``: what URDB lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from meter_pipeline.billing.tariffs.charge_parts import read_rounding
from meter_pipeline.billing.tariffs.export_rates import ExportRates
from meter_pipeline.billing.tariffs.fields import Field, TariffRefusedError
from meter_pipeline.billing.tariffs.holidays import LISTS, OBSERVED, RULES, HolidayList
from meter_pipeline.billing.tariffs.model import (
    METERING,
    ROUNDING_MODES,
    Charge,
    DemandCharge,
    HeatContent,
    MinimumCharge,
    Proration,
    Register,
    Rounding,
    Tariff,
    Tier,
    UsageCharge,
)
from meter_pipeline.billing.tariffs.native_charges import read_charge
from meter_pipeline.billing.tariffs.riders import Rider, shared_charges
from meter_pipeline.billing.tariffs.schedules import RuleSchedule, ScheduleRule

SCHEMA: Final = "meter_pipeline.tariff/1"
UNITS: Final[dict[str, tuple[str, ...]]] = {
    "electricity": ("kWh",),
    "water": ("m3", "kgal", "ccf", "gal"),
    "gas": ("therm", "m3", "ccf", "MJ"),
}
_WEEKDAYS: Final = {name: k for k, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])", re.ASCII)
_MONTH_DAY: Final = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", re.ASCII)

Seasons = dict[str, tuple[tuple[tuple[int, int], tuple[int, int]], ...]]


def is_native(document: Any) -> bool:
    return isinstance(document, dict) and "schema" in document


def _seasons(root: Field) -> Seasons:
    seasons: Seasons = {}
    if "seasons" not in root:
        return seasons
    for name, field in root["seasons"].items():
        field.only("months", "from", "to")
        if "months" in field and ("from" in field or "to" in field):
            raise field["months"].refuse(
                "stands beside from and to: a season is named by months or by its first and last day"
            )
        if "months" in field:
            seasons[name] = tuple(
                ((m, 1), (m, 31)) for m in (f.integer(1, 12) for f in field["months"].list(at_least=1))
            )
        else:
            ends = []
            for key in ("from", "to"):
                match = _MONTH_DAY.fullmatch(field[key].text())
                if match is None:
                    raise field[key].refuse("must be a month and day like 06-15")
                ends.append((int(match[1]), int(match[2])))
            seasons[name] = ((ends[0], ends[1]),)
    return seasons


def _minutes(field: Field, default: str) -> int:
    text = field.text() if field.value is not None else default
    match = _CLOCK.fullmatch(text)
    if match is None or (match[1] == "24" and match[2] != "00"):
        raise field.refuse("must be a time like 14:00")
    return int(match[1]) * 60 + int(match[2])


def _rule(field: Field, periods: tuple[str, ...], seasons: Seasons) -> ScheduleRule:
    field.only("period", "season", "days", "dates", "from", "to")
    if "dates" in field and ("days" in field or "season" in field):
        raise field["dates"].refuse("names its own days: leave out days and season")
    weekdays, holiday = frozenset(range(7)), None
    if "days" in field:
        if isinstance(field["days"].value, str):
            kind = field["days"].choice("all", "weekdays", "weekends", "holidays")
            # Holidays count as weekend days: a peak of working days must not fall on one.
            if kind == "weekdays":
                weekdays, holiday = frozenset(range(5)), False
            elif kind == "weekends":
                weekdays = frozenset((5, 6))
            elif kind == "holidays":
                holiday = True
        else:
            weekdays = frozenset(_WEEKDAYS[d.choice(*_WEEKDAYS)] for d in field["days"].list(at_least=1))
    start, end = _minutes(field.get("from"), "00:00"), _minutes(field.get("to"), "24:00")
    if end <= start:
        raise field.get("to").refuse("must be after from; write a period over midnight as two rules")
    season: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()
    if "season" in field:
        season = seasons[field["season"].choice(*seasons)]
    dates = frozenset(f.day() for f in field["dates"].list(at_least=1)) if "dates" in field else None
    return ScheduleRule(periods.index(field["period"].choice(*periods)), season, weekdays, holiday, start, end, dates)


def _schedule(root: Field, seasons: Seasons) -> RuleSchedule:
    if "time_of_use" not in root:
        return RuleSchedule(("all",))
    field = root["time_of_use"]
    field.only("periods", "rules", "default")
    periods = tuple(f.text() for f in field["periods"].list(at_least=1))
    if len(set(periods)) != len(periods):
        raise field["periods"].refuse("names a period twice")
    for name in periods:
        if "/" in name or len(name) > 32:
            raise field["periods"].refuse("names are up to 32 characters without a slash")
    rules = tuple(_rule(f, periods, seasons) for f in field["rules"].list())
    return RuleSchedule(periods, rules, periods.index(field["default"].choice(*periods)))


def _whole_units(root: Field, schedule: RuleSchedule, metering: str) -> tuple[Decimal, str]:
    """Thousands of gallons, whole therms: the multiple in which use is billed, and what becomes of the rest."""
    field, mode = root["whole_units"], "carry"
    if isinstance(field.value, dict):
        field.only("step", "mode")
        mode = field.get("mode", "carry").choice("carry", *ROUNDING_MODES)
        field = field["step"]
    step = field.decimal()
    if step <= 0 or step * 10**6 != int(step * 10**6):
        raise field.refuse("must be a positive number of up to six decimals")
    if metering != "consumption":
        raise root["whole_units"].refuse("is for use without exports")
    if len(schedule.periods) > 1 and mode == "carry":
        raise root["whole_units"].refuse("carries no remainder between time-of-use periods: give a mode that rounds")
    return step, mode


def _holidays(field: Field) -> HolidayList:
    """A tariff's own holidays: the name of a list, or names and dates."""
    if isinstance(field.value, str):
        return HolidayList(LISTS[field.choice(*LISTS)])
    field.only("names", "dates", "observed")
    named: list[str] = []
    for name in field["names"].list() if "names" in field else []:
        found = name.choice(*LISTS, *RULES)
        named += LISTS.get(found, (found,))
    dates = frozenset(f.day() for f in field["dates"].list()) if "dates" in field else frozenset()
    return HolidayList(tuple(dict.fromkeys(named)), dates, field.get("observed", "as_is").choice(*OBSERVED))


def _count_hours_use(
    fields: list[Field], charges: list[Charge], registers: list[Register], schedule: RuleSchedule
) -> None:
    """Gives charges whose tiers count hours' use the demand they count: that of the demand charge they name, or of the
    only one without a period, ratchet included; without any demand charge the highest of any time."""
    flat = [c for c in charges if isinstance(c, DemandCharge) and registers[c.register].period is None]
    for k, charge in enumerate(charges):
        field = fields[k]
        tiers = [t for v in charge.ladders for p in v for t in p] if isinstance(charge, UsageCharge) else []
        counts = any(t.basis.startswith("per_kw") or (t.within and t.within[1].startswith("per_kw")) for t in tiers)
        if not counts or not isinstance(charge, UsageCharge):
            if isinstance(charge, UsageCharge) and "demand" in field:
                raise field["demand"].refuse("is for tiers that count usage per kW")
            continue
        named = flat[0] if len(flat) == 1 else None
        if "demand" in field:
            code = field["demand"].choice(*(c.code for c in charges if isinstance(c, DemandCharge)))
            named = next(c for c in charges if isinstance(c, DemandCharge) and c.code == code)
        if named is not None and named.above:
            why = f"counts blocks by the demand of {named.code}, which is what exceeds a share of another"
            raise TariffRefusedError(f"{field.path}.demand", why)
        if named is None:
            registers.append(Register(f"{charge.code.lower()}-peak", schedule, None))
        register = len(registers) - 1 if named is None else named.register
        charges[k] = replace(charge, peak_register=register, demand=named)


def _earn(charges: list[Charge], metering: str, sell: ExportRates) -> None:
    """Adds what exports earn where no charge says it, and lets export charges count what net metering left over where
    nothing of it is kept for later periods."""
    paid = any(isinstance(c, UsageCharge) and c.basis in ("export", "surplus") for c in charges)
    at_once = metering == "net_metering" and sell.rollover == "none"
    if at_once:
        charges[:] = [
            replace(c, basis="surplus") if isinstance(c, UsageCharge) and c.basis == "export" else c for c in charges
        ]
    gross = metering in ("net_billing", "buy_all_sell_all") and sell.rollover != "money"
    if not paid and (gross or (at_once and any(sell.rates))):
        earned = tuple((Tier(None, -rate),) for rate in sell.rates)
        code, basis = ("EXPORT", "export") if gross else ("SURPLUS", "surplus")
        charges.append(UsageCharge(code, "Export credit", "credit", (earned,), basis=basis))


def _sell(root: Field, periods: tuple[str, ...], metering: str) -> ExportRates | None:
    if "sell" not in root:
        return None
    field = root["sell"]
    field.only("rate", "rates", "yearend_rate", "trueup_month", "rollover", "offsets", "trueup", "on_close", "on_move")
    if "rate" in field and "rates" in field:
        raise field["rate"].refuse("stands beside rates: give one of them")
    if "rates" in field:
        field["rates"].only(*periods)
    rates = (
        tuple(field["rates"][p].decimal() for p in periods)
        if "rates" in field
        else (field.get("rate", Decimal(0)).decimal(),) * len(periods)
    )
    found = ExportRates(
        rates,
        field.get("yearend_rate", Decimal(0)).decimal(),
        field.get("trueup_month", Decimal(12)).integer(1, 12),
        field.get("rollover", "kwh").choice("kwh", "money", "none"),
        field.get("offsets", "energy").choice("energy", "bill", "above_minimum"),
        field["trueup"].choice("pay", "forfeit", "carry") if "trueup" in field else None,
        field["on_close"].choice("pay", "forfeit") if "on_close" in field else None,
        field["on_move"].choice("move", "pay", "forfeit") if "on_move" in field else None,
    )
    _check_endings(field, found, metering)
    return found


def _check_endings(field: Field, sell: ExportRates, metering: str) -> None:
    """Refuses what leaves open what becomes of credit when an account leaves."""
    units = metering == "net_metering" and sell.rollover == "kwh"
    money = metering in ("net_metering", "net_billing") and sell.rollover == "money"
    for name, how in (("on_close", sell.on_close), ("on_move", sell.on_move)):
        if how is not None and not (units or money):
            raise field[name].refuse("is for credit that goes on to later bills, and this tariff keeps none")
        if how == "pay" and units and not sell.yearend_rate:
            raise field[name].refuse("pays units that are left over: give the yearend_rate they are paid at")
    if sell.on_move == "move" and sell.at_close == "carry":
        why = (
            "also needs on_close (pay or forfeit): what becomes of credit where the account takes no service elsewhere"
        )
        raise field["on_move"].refuse(why)


def _charges(
    root: Field, of: dict[str, str], schedule: RuleSchedule, registers: list[Register], riders: Sequence[Rider]
) -> tuple[list[Charge], list[Field]]:
    """The charges in order, those of shared riders among them, and the field each was read from."""
    charges: list[Charge] = []
    fields: list[Field] = []
    for field in root["charges"].list(at_least=1):
        known = [c.code for c in charges]
        if field["kind"].value == "shared":
            taken = shared_charges(field, riders, of, schedule, known)
            charges += taken
            fields += [field] * len(taken)
            continue
        charge = read_charge(field, schedule, registers, known)
        if charge.code in known:
            raise field["code"].refuse("is used twice")
        minimum = isinstance(charge, MinimumCharge) and charge.demand is not None
        if minimum and not isinstance(charges[known.index(field["demand"].text())], DemandCharge):
            raise field["demand"].refuse("is not a demand charge")
        charges.append(charge)
        fields.append(field)
    return charges, fields


def _check_measures(
    root: Field, commodity: str, metering: str, charges: list[Charge], registers: list[Register]
) -> None:
    """Refuses what the registers of some charges can't count beside the rest of the tariff."""
    if commodity != "electricity" and any(r.measure != "block" for r in registers):
        raise root["charges"].refuse("demand and reactive energy are for electricity")
    if any(isinstance(c, UsageCharge) and c.blocks for c in charges):
        if metering == "net_metering":
            raise root["metering"].refuse("blocks that restart each day can't be netted over the period")
        if "whole_units" in root:
            raise root["whole_units"].refuse("can't stand beside blocks that restart each day")
    reactive = any(r.measure == "kvarh" for r in registers)
    if reactive and metering == "net_metering":
        raise root["metering"].refuse("a power factor and kVArh above a share of the kWh are not of netted use")


def read(document: Mapping[str, Any], digest: bytes, riders: Sequence[Rider] = ()) -> Tariff:
    """A tariff from a native document, with the riders that it may share. Raises TariffRefusedError naming the
    field.
    """
    root = Field("", dict(document))
    root.only(
        "schema",
        "tariff_id",
        "name",
        "commodity",
        "currency",
        "unit",
        "rounding",
        "proration",
        "seasons",
        "time_of_use",
        "charges",
        "demand_minutes",
        "metering",
        "sell",
        "heat_content",
        "annual_minimum",
        "budget",
        "notes",
        "holidays",
        "whole_units",
    )
    if root["schema"].text() != SCHEMA:
        raise root["schema"].refuse(f"must be {SCHEMA}")
    commodity = root["commodity"].choice(*UNITS)
    unit = root["unit"].choice(*UNITS[commodity])
    schedule = _schedule(root, _seasons(root))
    registers: list[Register] = []
    of = {"commodity": commodity, "unit": unit, "currency": root["currency"].text()}
    charges, fields = _charges(root, of, schedule, registers, riders)
    heat: tuple[HeatContent, ...] = ()
    if "heat_content" in root:
        rows = []
        for row in root["heat_content"].list(at_least=1):
            row.only("from", "therms_per_ccf")
            rows.append(HeatContent(row["from"].day(), row["therms_per_ccf"].decimal(Decimal("0.1"))))
        heat = tuple(sorted(rows, key=lambda h: h.valid_from))
    if unit == "therm" and not heat:
        raise TariffRefusedError("heat_content", "is missing: a tariff in therms needs therms per 100 cubic feet")
    proration = Proration()
    if "proration" in root:
        block = root["proration"]
        block.only("fixed", "tiers", "demand", "minimum")
        proration = Proration(
            **{k: block.get(k, "days").choice("days", "none") for k in ("fixed", "tiers", "demand", "minimum")}
        )
    _count_hours_use(fields, charges, registers, schedule)
    metering = root.get("metering", "consumption").choice(*METERING)
    _check_measures(root, commodity, metering, charges, registers)
    sell = _sell(root, schedule.periods, metering)
    if metering != "consumption" and sell is None:
        raise TariffRefusedError("sell", f"is missing: {metering} needs what exports earn")
    if metering == "consumption" and sell is not None:
        raise root["sell"].refuse("is for a tariff whose metering counts exports")
    if sell is not None:
        _earn(charges, metering, sell)
    whole = _whole_units(root, schedule, metering) if "whole_units" in root else (None, "carry")
    budget: tuple[Decimal, ...] = ()
    if "budget" in root:
        root["budget"].only("monthly_percent")
        budget = tuple(f.decimal(Decimal(0)) for f in root["budget"]["monthly_percent"].list(12))
    return Tariff(
        tariff_id=root["tariff_id"].text(),
        name=root["name"].text(),
        commodity=commodity,
        currency=of["currency"],
        unit=unit,
        source="native",
        digest=digest,
        schedule=schedule,
        registers=tuple(registers),
        charges=tuple(charges),
        rounding=read_rounding(root["rounding"]) if "rounding" in root else Rounding(),
        proration=proration,
        demand_minutes=root["demand_minutes"].integer(5, 60) if "demand_minutes" in root else None,
        metering=metering,
        sell=sell,
        heat_content=heat,
        annual_minimum=root["annual_minimum"].decimal(Decimal(0)) if "annual_minimum" in root else None,
        budget_monthly=budget,
        notes=tuple(f.text() for f in root["notes"].list()) if "notes" in root else (),
        holidays=_holidays(root["holidays"]) if "holidays" in root else None,
        whole_units=whole[0],
        whole_mode=whole[1],
    )
