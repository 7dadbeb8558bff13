"""URDB version 8 documents, read as the Utility Rate Database publishes them.

A field that changes the price and can't be honoured refuses the tariff. Reactive power charges need a kVAr register
that a kWh load does not have: they are named in ``notes`` and left out, as ssc leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from meter_pipeline.billing.tariffs.export_rates import ExportRates
from meter_pipeline.billing.tariffs.fields import Field, TariffRefusedError
from meter_pipeline.billing.tariffs.model import (
    Charge,
    DemandCharge,
    FixedCharge,
    Ladder,
    MinimumCharge,
    Proration,
    Ratchet,
    Register,
    Rounding,
    Tariff,
    Tier,
    UsageCharge,
)
from meter_pipeline.billing.tariffs.schedules import MatrixSchedule, seasons_of


def _names(text: str) -> list[str]:
    return text.split()


#: Spellings met in published documents, lower case -> the v8 field (older exports write camel case and plurals).
_ALIASES: Final[dict[str, str]] = {
    "flatdemandunits": "flatdemandunit",
    "demandrateunits": "demandrateunit",
    "demandunits": "demandrateunit",
    "supercedes": "supersedes",
    "demandreactpwrcharge": "demandreactivepowercharge",
    "fixedchargeunit": "fixedchargeunits",
    "minchargeunit": "minchargeunits",
    "fixedmonthlycharge": "fixedchargefirstmeter",
    "minmonthlycharge": "mincharge",
    "annualminimumcharge": "annualmincharge",
    "fixedattributes": "fixedattrs",
    "energyattributes": "energyattrs",
    "demandattributes": "demandattrs",
    "fixedkeyvals": "fixedattrs",
    "energykeyvals": "energyattrs",
    "demandkeyvals": "demandattrs",
}
#: What a publisher says of a rate in words of its own, some of it prices that have no field: named in ``notes``.
_WORDS: Final = ("fixedattrs", "energyattrs", "demandattrs")
#: Fields that would change the price and that are not priced here: present and not empty, they refuse the tariff.
_UNPRICED: Final[dict[str, str]] = {
    "coincidentratestructure": "coincident peak demand needs the system's peak hour, which a load does not carry",
    "fueladjustmentsmonthly": "monthly fuel adjustments belong to version 3; version 8 puts them in adj",
    "energyratestrux": "the bulk export's nested form is not version 8 of the API",
}
_ENERGY_UNITS: Final = {
    "kwh": "period",
    "kwh/kw": "per_kw",
    "kwh daily": "daily",
    "kwh/kw daily": "per_kw_daily",
}
#: Every other field of version 8 (openei.org/services/doc/rest/util_rates): about the rate, not part of its price.
_ABOUT: Final = frozenset(
    _names(
        """
    label uri sourceparent source basicinformationcomments approved is_default utility eiaid name sector
    servicetype voltagecategory voltageminimum voltagemaximum phasewiring description startdate enddate
    latest_update revisions peakkwcapacitymin peakkwcapacitymax peakkwcapacityhistory peakkwhusagemin
    peakkwhusagemax peakkwhusagehistory demandcomments demandattrs demandmin demandmax demandhistory mindemand
    maxdemand energycomments energyattrs energymin energymax energyhistory fixedattrs country supersedes
    sourcereference version zipcode state city effectivedate
"""
    )
)
_PRICED: Final = frozenset(
    _names(
        """
    flatdemandunit flatdemandstructure flatdemandmonths demandrateunit demandratestructure demandweekdayschedule
    demandweekendschedule demandratchetpercentage demandwindow demandreactivepowercharge demandtoulabels
    energyratestructure energyweekdayschedule energyweekendschedule energytoulabels fixedchargefirstmeter
    fixedchargeeaaddl fixedchargeunits mincharge minchargeunits annualmincharge usenetmetering dgrules
    lookbackpercent lookbackmonths lookbackrange coincidentrateunit coincidentrateschedule
"""
    )
)
_METERING: Final = {
    "net metering": "net_metering",
    "net billing instantaneous": "net_billing",
    "net billing hourly": "net_billing",
    "net billing": "net_billing",
    "buy all sell all": "buy_all_sell_all",
}


def is_urdb(document: Any) -> bool:
    """Whether a JSON value looks like a URDB answer or one of its items."""
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        return True
    return isinstance(document, dict) and any(
        str(k).lower() in ("energyratestructure", "energyratestrux") for k in document
    )


def _lowered(item: Mapping[str, Any]) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    for key, value in item.items():
        name = _ALIASES.get(key.lower(), key.lower())
        if name in lowered and lowered[name] != value:
            raise TariffRefusedError(key, f"contradicts another spelling of {name}")
        lowered[name] = value
    return lowered


def _matrix(field: Field, periods: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(hour.integer(0, periods - 1) for hour in month.list(24)) for month in field.list(12))


def _tiers(field: Field, units: Mapping[str, str], default_unit: str) -> tuple[Ladder, tuple[Decimal | None, ...]]:
    """A period's ladder and its sell rates. Rates are rate + adj; limits must rise; only the last may be open."""
    tiers: list[Tier] = []
    sells: list[Decimal | None] = []
    rows = field.list(at_least=1)
    before = default_unit
    for k, row in enumerate(rows):
        row.only("rate", "adj", "max", "unit", "sell")
        # What is above the last limit needs no unit of its own.
        open_ended = bool(tiers) and k == len(rows) - 1 and "max" not in row
        unit = (row.get("unit").text() if "unit" in row else before if open_ended else default_unit).lower()
        before = unit
        if unit not in units:
            raise row["unit"].refuse(f"{unit!r} is not one of {', '.join(units)}")
        if "rate" not in row and "adj" not in row:
            raise row["rate"].refuse("is missing")
        rate = row.get("rate", Decimal(0)).decimal() + row.get("adj", Decimal(0)).decimal()
        upto = row["max"].decimal(Decimal(0)) if "max" in row else None
        # The export writes a very large number for "no limit"; ssc's own is 1e38.
        if upto is not None and upto >= Decimal(10) ** 15:
            upto = None
        if upto is None and k < len(rows) - 1:
            raise TariffRefusedError(f"{row.path}.max", "is missing: only the last tier may have no limit")
        if k == len(rows) - 1:
            upto = None
        basis = units[unit]
        # Blocks in kWh may stand among blocks in hours' use of the demand; each kind rises by itself.
        previous = next((t.upto for t in reversed(tiers) if t.basis == basis), None)
        if upto is not None and previous is not None and upto <= previous:
            raise row["max"].refuse(f"must be above the tier before ({previous} {unit})")
        if tiers and basis.endswith("daily") != tiers[-1].basis.endswith("daily"):
            raise row.get("unit", default_unit).refuse("daily limits can't stand among limits of the period")
        tiers.append(Tier(upto, rate, basis))
        sells.append(row["sell"].decimal() if "sell" in row else None)
    return tuple(tiers), tuple(sells)


def _months_period(field: Field, periods: int) -> tuple[int, ...]:
    return tuple(m.integer(0, periods - 1) for m in field.list(12))


def _ratchet(root: Field) -> Ratchet | None:
    """``demandratchetpercentage``: a percentage for each month billed. ``lookbackpercent``: of the peaks of the months
    marked in ``lookbackmonths``, or of the last ``lookbackrange`` months where none is marked."""
    percent: tuple[Decimal, ...] = ()
    months, sources = 11, None
    if "demandratchetpercentage" in root:
        percent = tuple(100 * f.decimal(Decimal(0)) for f in root["demandratchetpercentage"].list(12))
    if "lookbackpercent" in root and root["lookbackpercent"].decimal() > 0:
        share = root["lookbackpercent"].decimal(Decimal(0))
        looks_back = (share * 100 if share <= 1 else share,) * 12
        if any(percent) and percent != looks_back:
            raise root["lookbackpercent"].refuse("contradicts demandratchetpercentage")
        percent = looks_back
        marked = [f.flag() for f in root["lookbackmonths"].list(12)] if "lookbackmonths" in root else [False] * 12
        reach = root["lookbackrange"].integer(0, 12) if "lookbackrange" in root else 0
        if any(marked):
            sources = frozenset(m + 1 for m in range(12) if marked[m])
        elif not reach and ("lookbackrange" in root or "lookbackmonths" in root):
            return None
        months = reach or 11
    if not any(percent):
        return None
    if any(p > 100 for p in percent):
        raise root["demandratchetpercentage" if "demandratchetpercentage" in root else "lookbackpercent"].refuse(
            "is above 100 %"
        )
    return Ratchet(percent, months, sources=sources)


def _agree(schedule: MatrixSchedule, structures: list[Field], ladders: list[Ladder]) -> None:
    """Periods of the same months fill their tiers together, so their limits must be the same, as SAM requires."""
    for season in seasons_of(schedule):
        of_season = sorted(season & {p for month in (*schedule.weekday, *schedule.weekend) for p in month})
        for p in of_season[1:]:
            mine, first = ([(t.upto, t.basis) for t in ladders[q][:-1]] for q in (p, of_season[0]))
            if mine != first and mine and first:
                why = f"its limits are not those of {structures[of_season[0]].path}, a period of the same months"
                raise structures[p].refuse(why)


def _per(root: Field, key: str) -> str:
    if key not in root:
        return "month"
    unit = root[key].text().lower()
    if unit not in ("$/month", "$/day", "$/year"):
        raise root[key].refuse(f"{unit!r} is not one of $/month, $/day, $/year")
    return unit[2:]


def _fixed(root: Field) -> list[Charge]:
    if "fixedchargefirstmeter" not in root:
        return []
    amount, per = root["fixedchargefirstmeter"].decimal(), _per(root, "fixedchargeunits")
    return [FixedCharge("FIXED", "Fixed charge", (amount,), per=per)]


def _demand(root: Field, ratchet: Ratchet | None) -> tuple[list[Register], list[Charge], MatrixSchedule | None]:
    registers: list[Register] = []
    charges: list[Charge] = []
    for key in ("flatdemandunit", "demandrateunit"):
        structure = "flatdemandstructure" if key == "flatdemandunit" else "demandratestructure"
        allowed = ("kw", "kva") if key == "flatdemandunit" else ("kw", "kva", "kw daily", "kva daily")
        if structure in root and key in root and root[key].text().lower() not in allowed:
            raise root[key].refuse(f"is not one of {', '.join(allowed)}: what is metered is kW and kVA")
    # One schedule without periods serves the flat registers: months decide there, not hours.
    always = MatrixSchedule(("any",), ((0,) * 24,) * 12, ((0,) * 24,) * 12)
    if "flatdemandstructure" in root:
        ladders = [_tiers(p, {"kw": "period"}, "kw")[0] for p in root["flatdemandstructure"].list(at_least=1)]
        months = _months_period(root["flatdemandmonths"], len(ladders)) if "flatdemandmonths" in root else (0,) * 12
        for p, ladder in enumerate(ladders):
            of_period = frozenset(m + 1 for m in range(12) if months[m] == p)
            if of_period:
                registers.append(
                    Register(f"flat-{p}", always, None, of_period, measure=_measure(root, "flatdemandunit"))
                )
                charges.append(
                    DemandCharge(
                        f"DEMAND-FLAT-{p}", "Demand, any time", "demand_flat", len(registers) - 1, ladder, ratchet
                    )
                )
    schedule = None
    if "demandratestructure" in root:
        structures = root["demandratestructure"].list(at_least=1)
        names = (
            tuple(f.text() for f in root["demandtoulabels"].list(len(structures)))
            if "demandtoulabels" in root
            else tuple(f"period {p}" for p in range(len(structures)))
        )
        schedule = MatrixSchedule(
            names,
            _matrix(root["demandweekdayschedule"], len(structures)),
            _matrix(root["demandweekendschedule"], len(structures)),
        )
        for p, structure_field in enumerate(structures):
            ladder = _tiers(structure_field, {"kw": "period"}, "kw")[0]
            daily = root.get("demandrateunit", "kw").text().lower().endswith(" daily")
            registers.append(Register(f"tou-{p}", schedule, p, daily=daily, measure=_measure(root, "demandrateunit")))
            # A day's demand is charged as it was measured: look-backs are of a month's.
            charges.append(
                DemandCharge(
                    f"DEMAND-TOU-{p}",
                    f"Demand, {names[p]}",
                    "demand_tou",
                    len(registers) - 1,
                    ladder,
                    None if daily else ratchet,
                )
            )
    return registers, charges, schedule


def _measure(root: Field, key: str) -> str:
    """What a demand structure's register measures: kw or kva."""
    return root[key].text().lower().removesuffix(" daily") if key in root else "kw"


def _metering(root: Field, sells: list[tuple[Decimal | None, ...]]) -> tuple[str, ExportRates | None]:
    rule = ""
    if "dgrules" in root:
        rule = root["dgrules"].text().lower()
        if rule not in _METERING:
            raise root["dgrules"].refuse(f"{rule!r} is not one of {', '.join(_METERING)}")
    elif root.get("usenetmetering").value is True:
        rule = "net metering"
    if not rule:
        return "consumption", None
    rates = tuple(s[0] if s[0] is not None else Decimal(0) for s in sells)
    return _METERING[rule], ExportRates(rates)


def read(item: Mapping[str, Any], digest: bytes) -> Tariff:
    """A tariff from one URDB item. Raises TariffRefusedError naming the URDB field."""
    for key in item:
        name = _ALIASES.get(key.lower(), key.lower())
        if name not in _ABOUT and name not in _PRICED and name not in _UNPRICED:
            raise TariffRefusedError(key, "is not a field of URDB version 8")
    root = Field("", _lowered(item))
    for key, why in _UNPRICED.items():
        if root.value.get(key):
            raise TariffRefusedError(key, why)
    structures = root["energyratestructure"].list(at_least=1)
    parsed = [_tiers(p, _ENERGY_UNITS, "kwh") for p in structures]
    ladders, sells = [p[0] for p in parsed], [p[1] for p in parsed]
    for structure, of_period in zip(structures, sells, strict=True):
        if len({rate for rate in of_period if rate is not None}) > 1:
            raise TariffRefusedError(
                f"{structure.path}[1].sell", "differs from the tier before: exports have one rate a period"
            )
    names = (
        tuple(f.text() for f in root["energytoulabels"].list(len(structures)))
        if "energytoulabels" in root
        else tuple(f"period {p}" for p in range(len(structures)))
    )
    if len(set(names)) != len(names):
        names = tuple(f"{name} ({p})" for p, name in enumerate(names))
    one_period = ((0,) * 24,) * 12
    schedule = MatrixSchedule(
        names,
        _matrix(root["energyweekdayschedule"], len(names))
        if len(names) > 1 or "energyweekdayschedule" in root
        else one_period,
        _matrix(root["energyweekendschedule"], len(names))
        if len(names) > 1 or "energyweekendschedule" in root
        else one_period,
    )
    _agree(schedule, structures, ladders)
    ratchet = _ratchet(root)
    registers, demand, _ = _demand(root, ratchet)
    peak_register = None
    if any(tier.basis.startswith("per_kw") for ladder in ladders for tier in ladder):
        registers.append(Register("any-time", MatrixSchedule(("any",), one_period, one_period), None))
        peak_register = len(registers) - 1
    # Hours' use is counted from the billing demand, ratchet included (ssc pull requests 580 and 637).
    counted = (
        DemandCharge("HOURS-USE", "Hours' use", "energy", peak_register, (), ratchet)
        if peak_register is not None
        else None
    )
    energy = UsageCharge("ENERGY", "Energy", "energy", (tuple(ladders),), peak_register=peak_register, demand=counted)
    charges: list[Charge] = [energy, *demand, *_fixed(root)]
    metering, sell = _metering(root, sells)
    if metering in ("net_billing", "buy_all_sell_all") and sell is not None:
        earned = tuple((Tier(None, -rate),) for rate in sell.rates)
        charges.append(UsageCharge("EXPORT", "Export credit", "credit", (earned,), basis="export"))
    scope = tuple(c.code for c in charges)
    annual_minimum = root["annualmincharge"].decimal(Decimal(0)) if "annualmincharge" in root else None
    if "mincharge" in root and root["mincharge"].decimal(Decimal(0)) > 0:
        per = _per(root, "minchargeunits")
        if per == "year":
            annual_minimum = root["mincharge"].decimal()
        else:
            charges.append(MinimumCharge("MINIMUM", "Minimum charge", (root["mincharge"].decimal(),), scope, per=per))
    notes = []
    if ratchet is None and "lookbackpercent" in root and root["lookbackpercent"].decimal() > 0:
        notes.append(
            "lookbackpercent: no month is marked in lookbackmonths and lookbackrange is 0, so nothing is looked back on"
        )
    if "demandreactivepowercharge" in root and root["demandreactivepowercharge"].decimal() != 0:
        notes.append("demandreactivepowercharge: needs a kVAr register, not priced from a kWh load")
    for key in _WORDS:
        stated = root.get(key).value
        if stated:
            notes.append(f"{key}: words of the publisher, which are not priced: {str(stated)[:200]}")
    if "fixedchargeeaaddl" in root and root["fixedchargeeaaddl"].decimal() != 0:
        notes.append("fixedchargeeaaddl: the charge of a second meter is not owed by one")
    window = root["demandwindow"].integer(1, 1440) if "demandwindow" in root else None
    return Tariff(
        tariff_id=str(root.get("label", "URDB").value),
        name=root["name"].text() if "name" in root else "unnamed",
        commodity="electricity",
        currency="USD",
        unit="kWh",
        source="urdb",
        digest=digest,
        schedule=schedule,
        registers=tuple(registers),
        charges=tuple(charges),
        rounding=Rounding(None),
        proration=Proration(),
        demand_minutes=window,
        metering=metering,
        sell=sell,
        annual_minimum=annual_minimum,
        notes=tuple(notes),
    )
