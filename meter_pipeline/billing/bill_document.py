"""A bill as a customer reads it, as plain data. The page, the PDF and a print vendor's file are made from it.

The address is not kept here: a bill names the premise, and whoever prints it puts the customer system's name and
address in that place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from meter_pipeline.billing.bill_settings import BillSettings
from meter_pipeline.billing.tables.bill_page import bill_rows
from meter_pipeline.billing.tables.days import read_documents
from meter_pipeline.billing.tables.spellings import KINDS, Spellings, as_written, spellings
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.billing.tariffs.model import DemandCharge, FixedCharge, PercentCharge, Tariff, UsageCharge
from meter_pipeline.calendar import closed_day
from meter_pipeline.money import money_text
from meter_pipeline.postgres.database import Database
from meter_pipeline.quality import FLAGS
from meter_pipeline.units import UnitError, base_unit, from_micro

#: A read this close to the period's first or last instant bounds it: hand reads are taken by day on the read date.
_BOUNDS: Final = timedelta(days=1)
_PER: Final = {"day": "a day", "month": "a month", "year": "a year"}


def bill_documents(
    database: Database, statement_ids: Sequence[str], utility: str, zone: str, settings: BillSettings
) -> list[dict[str, Any]]:
    """Bills as plain data (dates as date, amounts and quantities as exact text), in the order of the identifiers; those
    that are no statement are left out. One round of queries for all of them."""
    if not statement_ids:
        return []
    rows = bill_rows(database, statement_ids, zone)
    tariffs = _tariffs(database, rows["lines"])
    grouped = {
        name: {key[0]: part for key, part in frame.group_by("statement_id", maintain_order=True)}
        for name, frame in rows.items()
        if name not in ("points", "heads")
    }
    points = {row["service_point_id"]: row for row in rows["points"].to_dicts()}
    heads = {row["statement_id"]: row for row in rows["heads"].to_dicts()}
    documents = []
    for name in statement_ids:
        if name in heads:
            own = {what: parts.get(name, rows[what].clear()) for what, parts in grouped.items()}
            documents.append(_bill(heads[name], own, points, tariffs, utility, ZoneInfo(zone), settings))
    ids = {bill["account_id"] for bill in documents} | {
        row.get(field)
        for bill in documents
        for service in bill["services"]
        for row in (service, *service["reads"])
        for field in KINDS
    }
    written = spellings(database, ids)
    return [_as_written(bill, written) for bill in documents] if written else documents


def _as_written(bill: Mapping[str, Any], written: Spellings) -> dict[str, Any]:
    """A bill whose ids are as the customer system writes them; its own id stays."""
    services = []
    for service in bill["services"]:
        own = as_written(service, written)
        reads = [as_written(read, written) for read in service["reads"]]
        services.append(own | {"reads": reads, "address": _address(own["premise_id"])})
    return as_written(bill, written) | {"services": services}


def _address(premise: str) -> str:
    return f"[service address of premise {premise}]" if premise else ""


def _bill(
    head: Mapping[str, Any],
    rows: Mapping[str, pl.DataFrame],
    points: Mapping[str, Mapping[str, Any]],
    tariffs: Mapping[tuple[str, int], Tariff],
    utility: str,
    zone: ZoneInfo,
    settings: BillSettings,
) -> dict[str, Any]:
    currency, issued = head["currency"], head["issued_at"].astimezone(zone).date()
    services = [
        _service(row, rows, points.get(row["service_point_id"], {}), tariffs, currency, zone)
        for row in rows["segments"].to_dicts()
    ]
    commodities = {str(service["commodity"]) for service in services}
    messages = [m.text for m in settings.messages if m.applies(issued, commodities, head["cycle_id"])]
    return {
        "statement_id": head["statement_id"],
        "utility": utility,
        "account_id": head["account_id"],
        "cycle_id": head["cycle_id"],
        "kind": head["kind"],
        "period_first": head["period_start"],
        "period_last": head["period_end"] - timedelta(days=1),
        "days": (head["period_end"] - head["period_start"]).days,
        "issued_on": issued,
        "due_on": issued + timedelta(days=settings.due_days),
        "currency": currency,
        "total": money_text(head["total"], currency),
        "messages": messages,
        "pay_to": list(settings.pay_to),
        "contact": settings.contact,
        "services": services,
    }


def _service(
    segment: Mapping[str, Any],
    rows: Mapping[str, pl.DataFrame],
    point: Mapping[str, Any],
    tariffs: Mapping[tuple[str, int], Tariff],
    currency: str,
    zone: ZoneInfo,
) -> dict[str, Any]:
    name, unit = segment["service_point_id"], segment["unit"] or ""

    def mine(what: str) -> pl.DataFrame:
        return rows[what].filter(pl.col("service_point_id") == name)

    days = mine("days")
    reads = [_read(row, zone) for row in mine("reads").to_dicts()]
    premise = point.get("premise_id") or ""
    return {
        "service_point_id": name,
        "commodity": point.get("commodity") or "",
        "premise_id": premise,
        "address": _address(premise),
        "first": segment["first_day"],
        "last": segment["past_day"] - timedelta(days=1),
        "days": segment["days"],
        "unit": unit,
        "quantity": _quantity(segment["quantity"]),
        "per_day": _per_day(segment["quantity"], segment["days"]),
        "reads": [read for read in reads if read["previous"] or read["present"]],
        "made_from": _made_from(segment, days, mine("reads"), reads) + _in_a_row(mine("in_a_row")),
        "comparison": _comparison(segment, mine("earlier"), mine("past")),
        "daily": [
            {"day": d["billing_day"], "quantity": _quantity(d["quantity"]), "estimated": d["estimated"]}
            for d in days.to_dicts()
        ],
        "lines": [_line(row, segment["statement_id"], tariffs, currency) for row in mine("lines").to_dicts()],
    }


def _line(
    row: Mapping[str, Any], statement_id: str, tariffs: Mapping[tuple[str, int], Tariff], currency: str
) -> dict[str, Any]:
    tariff = tariffs.get((row["tariff_id"], row["tariff_version"]))
    rate = unit_rate(tariff, row, currency) if tariff else None
    return {
        "line_id": f"{statement_id}.{row['line_no']}",
        "name": row["name"],
        "component": row["component"],
        "quantity": None if row["quantity"] is None else _plain(Decimal(row["quantity"])),
        "unit": row["unit"] or "",
        "rate": rate,
        "amount": money_text(row["amount"], currency),
        "first": row["segment_start"],
        "last": row["segment_end"] - timedelta(days=1),
    }


def unit_rate(tariff: Tariff, line: Mapping[str, Any], currency: str) -> str | None:
    """A line's price as a bill shows it: "0.11250 a kWh", "12.00 a month", "6 %"; None where no one price makes its
    amount (a price that changed with an attribute, a cap, a proration).

    The price is taken from the tariff and held against the line: quantity times price must be the amount to within one
    smallest coin, so that what the customer multiplies is what was charged.
    """
    code, _, rest = line["line_key"].partition("/")
    charge = next((c for c in tariff.charges if c.code == code), None)
    amount = Decimal(line["amount"])
    quantity = None if line["quantity"] is None else Decimal(line["quantity"])
    coin = Decimal(1).scaleb(-_places(money_text(0, currency)))
    match charge:
        case UsageCharge() if quantity:
            tier = int(rest.rpartition("/")[2]) if rest.rpartition("/")[2].isdecimal() else 1
            rates = {
                ladder[min(tier, len(ladder)) - 1].rate * charge.factor
                for variant in charge.ladders
                for ladder in variant
            }
            fitting = sorted(rate for rate in rates if abs(rate * quantity - amount) <= coin)
            return f"{_plain(fitting[0])} a {line['unit']}" if len(fitting) == 1 else None
        case DemandCharge() if quantity:
            fitting = sorted({step.rate for step in charge.ladder if abs(step.rate * quantity - amount) <= coin})
            return f"{_plain(fitting[0])} a kW" if len(fitting) == 1 else None
        case FixedCharge() if charge.times is None and not charge.steps:
            days = (line["segment_end"] - line["segment_start"]).days
            owed = {a: a * days if charge.per == "day" else a for a in charge.amounts}
            fitting = sorted(a for a, whole in owed.items() if abs(whole - amount) <= coin)
            return f"{money_text(fitting[0], currency)} {_PER[charge.per]}" if len(fitting) == 1 else None
        case PercentCharge() if charge.cap is None and charge.base_cap is None and not charge.percents:
            return f"{_plain(charge.percent)} %"
    return None


def _read(row: Mapping[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """A meter's two reads as its dial showed them, with what lies between: times the multiplier."""
    try:
        _, factor = base_unit(row["unit"])
    except UnitError:
        factor = Fraction(1)

    def shown(which: str) -> dict[str, Any] | None:
        if row[f"{which}_at"] is None:
            return None
        dial = Fraction(row[f"{which}_value"], 10**6) / factor
        flag = FLAGS[(row[f"{which}_quality"] & 0xFFFF) >> 13]
        return {"on": closed_day(row[f"{which}_at"], zone), "dial": _plain(_decimal(dial)), "estimated": flag in "SFE"}

    previous, present = shown("previous"), shown("present")
    if row["installed_at"] > row["opens"] and row["install_read"] is not None:
        previous = {
            "on": row["installed_at"].astimezone(zone).date(),
            "dial": _plain(Decimal(row["install_read"])),
            "estimated": False,
        }
    if row["removed_at"] is not None and row["removed_at"] <= row["closes"] and row["removal_read"] is not None:
        present = {
            "on": row["removed_at"].astimezone(zone).date(),
            "dial": _plain(Decimal(row["removal_read"])),
            "estimated": False,
        }
    multiplier = Decimal(row["multiplier"])
    between = None
    if previous and present:
        between = (Decimal(present["dial"]) - Decimal(previous["dial"])) * multiplier
    return {
        "meter_id": row["meter_id"],
        "channel": row["channel"],
        "unit": row["unit"],
        "multiplier": _plain(multiplier),
        "previous": previous,
        "present": present,
        # A dial that ran over its last digit, or a meter that came back to zero, is no difference to print.
        "difference": _plain(between) if between is not None and between >= 0 else None,
    }


def _made_from(
    segment: Mapping[str, Any], days: pl.DataFrame, rows: pl.DataFrame, reads: Sequence[Mapping[str, Any]]
) -> str:
    """Returns one sentence on the basis of the usage. Between two actual dials the use is measured, whatever is said of
    how it spread over the days."""
    estimated = int(days["estimated"].sum()) if days.height else 0
    by_dial = [r for r in rows.to_dicts() if not r["intervals_billed"]]
    bounded = bool(by_dial) and all(
        r["previous_at"] is not None
        and r["present_at"] is not None
        and r["opens"] - r["previous_at"] <= _BOUNDS
        and r["closes"] - r["present_at"] <= _BOUNDS
        for r in by_dial
    )
    actual = all(not read[which]["estimated"] for read in reads for which in ("previous", "present") if read[which])
    if bounded and actual:
        return "Measured: the difference of two meter reads."
    if not estimated and not segment["estimated"]:
        return "All readings are actual."
    if by_dial:
        return (
            f"{estimated} of {days.height} days are estimated: no read lies at the beginning or the end of the period."
        )
    return f"{estimated} of {days.height} days hold estimates."


def _in_a_row(rows: pl.DataFrame) -> str:
    """How many estimated bills there were in a row, where the utility's limit says so."""
    if not rows.height:
        return ""
    return f" Estimated bills in a row: {rows['in_a_row'][0]}."


def _comparison(
    segment: Mapping[str, Any], earlier: pl.DataFrame, past: pl.DataFrame
) -> dict[str, dict[str, Any] | None]:
    """Use of the period before and of the same period a year before: from bills, else from usage that was imported."""
    first = segment["first_day"]
    bills = [row for row in earlier.to_dicts() if row["unit"] == segment["unit"]]
    last = [row for row in bills if row["period_end"] == first] or [
        row for row in bills if row["period_end"] > first - timedelta(days=8)
    ]
    year = [row for row in bills if abs((row["period_start"] - (first - timedelta(days=365))).days) <= 10]
    return {
        "last_period": _earlier(last) or _past(segment, past, "last_period"),
        "last_year": _earlier(year) or _past(segment, past, "last_year"),
    }


def _earlier(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    row = rows[-1]
    return {
        "days": row["days"],
        "quantity": _quantity(row["quantity"]),
        "per_day": _per_day(row["quantity"], row["days"]),
    }


def _past(segment: Mapping[str, Any], past: pl.DataFrame, which: str) -> dict[str, Any] | None:
    """Usage of days that no bill of ours covers, in the bill's unit where one converts into the other."""
    rows = past.filter(pl.col("which") == which).to_dicts()
    if len(rows) != 1 or not segment["unit"]:
        return None
    try:
        ours, factor = base_unit(segment["unit"])
    except UnitError:
        return None
    row = rows[0]
    if row["unit"] != ours or row["days"] < max(1, segment["days"] - 3):
        return None
    quantity = int(Fraction(row["quantity"]) / factor)
    return {"days": row["days"], "quantity": _quantity(quantity), "per_day": _per_day(quantity, row["days"])}


def _tariffs(database: Database, lines: pl.DataFrame) -> dict[tuple[str, int], Tariff]:
    """The versions that the lines name, parsed."""
    bodies, _ = read_documents(database)
    wanted = set(lines.select("tariff_id", "tariff_version").unique().rows())
    return {key: parse_tariff(bodies[key]) for key in sorted(wanted) if key in bodies}


def _quantity(micro: int | None) -> str:
    return _plain(from_micro(int(micro or 0)).quantize(Decimal("0.001"), ROUND_HALF_UP))


def _per_day(micro: int | None, days: int) -> str:
    return _plain((Decimal(int(micro or 0)).scaleb(-6) / max(days, 1)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _decimal(value: Fraction) -> Decimal:
    return (Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal("0.000001"), ROUND_HALF_UP)


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _places(text: str) -> int:
    return len(text.partition(".")[2])
