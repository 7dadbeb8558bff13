"""Records of each output as plain data, in the contract's fields, which a template then writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from meter_pipeline.billing.tables.days import read_documents
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline.calendar import closed_day
from meter_pipeline.money import money_text
from meter_pipeline.outbound import tables
from meter_pipeline.postgres.database import Database
from meter_pipeline.quality import FLAGS
from meter_pipeline.units import UnitError, base_unit

Record = dict[str, Any]


def reads(database: Database, requested: Sequence[tuple[str, date]], zone: str) -> list[Record]:
    """The read of each meter at the date asked for: read on the day, else estimated from the read before and the
    validated usage since, else missing; each with why. Every request gives at least one record."""
    wanted = sorted(set(requested))
    rows = tables.asked_reads(database, [m for m, _ in wanted], [d for _, d in wanted], zone).to_dicts()
    return [_read(row, ZoneInfo(zone)) for row in rows]


def _read(row: Record, zone: ZoneInfo) -> Record:
    record: Record = {
        "meter_id": row["meter_id"],
        "channel": row["channel"] or "",
        "service_point_id": row["service_point_id"],
        "account_id": row["account_id"],
        "route": row["route"],
        "cycle_id": row["cycle_id"],
        "read_date": row["read_date"],
        "read_on": None,
        "dial": None,
        "unit": row["unit"],
        "multiplier": None if row["multiplier"] is None else _text(Decimal(row["multiplier"])),
        "status": "missing",
        "reason": _why_missing(row),
    }
    if record["reason"]:
        return record
    base, factor = base_unit(row["unit"])
    dial = Fraction(row["value"], 10**6) / factor
    if row["read_day"] == row["read_date"]:
        estimated = FLAGS[row["flag"]] in "SFE"
        record |= (
            {"status": "estimated", "reason": "estimated by the head-end"}
            if estimated
            else {"status": "read", "reason": ""}
        )
        return record | {"read_on": closed_day(row["read_at"], zone), "dial": _decimal(dial)}
    days = (row["read_date"] - row["read_day"]).days
    used, multiplier = row["used"], Fraction(Decimal(row["multiplier"]))
    if row["used_days"] < days or row["used_unit"] != base or not multiplier:
        short = f"{row['used_days']} of {days} days since the read of {row['read_day']} are validated"
        return record | {
            "reason": f"no read on the date; {short}"
            if row["used_unit"] in (base, None)
            else "no read on the date; usage is in another unit"
        }
    dial += Fraction(used, 10**6) / factor / multiplier
    return record | {
        "status": "estimated",
        "reason": f"no read on the date: the read of {row['read_day']} and the validated usage since",
        "read_on": row["read_date"],
        "dial": _decimal(dial),
    }


def _why_missing(row: Record) -> str:
    """Why no dial can be given at all; empty where one may."""
    if not row["known"]:
        return "unknown meter"
    if row["service_point_id"] is None:
        return "installed nowhere on the date"
    if row["channel"] is None:
        return "the meter has no register"
    if row["value"] is None:
        return "no read of the register before the date"
    try:
        base_unit(row["unit"])
    except UnitError as error:
        return str(error)
    return ""


def determinants(database: Database, cycle_id: str, period_end: date) -> list[Record]:
    """Energy by period and demand by register of every segment that a cycle's statements stand on. Names are the
    tariff's."""
    bodies, _ = read_documents(database)
    records: list[Record] = []
    for row in tables.segments(database, cycle_id, period_end).to_dicts():
        tariff = parse_tariff(bodies[row["tariff_id"], row["tariff_version"]])
        periods, registers = tariff.layout
        common = {
            "account_id": row["account_id"],
            "service_point_id": row["service_point_id"],
            "statement_id": row["statement_id"],
            "cycle_id": row["cycle_id"],
            "tariff_id": row["tariff_id"],
            "tariff_version": row["tariff_version"],
            "first": row["segment_start"],
            "last": row["segment_end"] - timedelta(days=1),
            "status": "estimated" if row["estimated"] else "actual",
        }
        values = [
            (f"energy/{n}", v, row["unit"] or tariff.unit) for n, v in zip(periods, row["energy"] or [], strict=False)
        ]
        values += [(f"demand/{n}", v, "kW") for n, v in zip(registers, row["peaks"] or [], strict=False)]
        records += [
            common | {"determinant": name, "quantity": _text(Decimal(int(value)).scaleb(-6)), "unit": unit}
            for name, value, unit in values
            if value is not None
        ]
    return records


def read_requests(database: Database, cycle_id: str, period_end: date, zone: str) -> list[Record]:
    """Meters of a cycle's period whose read is asked for: their estimated bills passed a limit."""
    return tables.read_requests(database, cycle_id, period_end, zone).to_dicts()


def statements(database: Database, cycle_id: str, period_end: date) -> list[Record]:
    """Lines of a cycle's statements."""
    return [_priced(row) for row in tables.statement_lines(database, cycle_id, period_end).to_dicts()]


def adjustments(database: Database, month: date) -> list[Record]:
    """Lines of the adjustments posted in a month."""
    return [_priced(row) for row in tables.adjustment_lines(database, month).to_dicts()]


def journal(database: Database, month: date) -> list[Record]:
    """Lines of a month's journal."""
    return tables.journal_lines(database, month).to_dicts()


def _priced(row: Record) -> Record:
    quantity = None if row["quantity"] is None else _text(Decimal(row["quantity"]))
    return row | {"quantity": quantity, "amount": money_text(row["amount"], row["currency"])}


def _decimal(value: Fraction) -> str:
    exact = (Decimal(value.numerator) / Decimal(value.denominator)).quantize(Decimal("0.000001"), ROUND_HALF_UP)
    return _text(exact)


def _text(value: Decimal) -> str:
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
