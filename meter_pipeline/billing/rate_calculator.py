"""Price of one load under one tariff, for ``meter-pipeline tariffs price``.

A synthetic account with one service (synthetic_account) is billed by calendar months, by the same functions that bill
a city: a day's determinants, the position after each day, segments from position to position, what one bill carries
into the next.
Amounts are exact (12 decimals), not rounded by line: published figures are compared with them to the cent; as billed
they are rounded line by line, and then they are a statement's to the last millionth. A month that the load covers in
part is a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.bill_position import EXACT_PLACES, MONEY_PLACES
from meter_pipeline.billing.load import LOAD_SCALE, Load
from meter_pipeline.billing.synthetic_account import Month, Terms, left_over, price_months
from meter_pipeline.billing.tariffs.holidays import NERC, HolidayList
from meter_pipeline.billing.tariffs.model import Tariff

COMPONENTS: Final = ("energy", "demand_flat", "demand_tou", "fixed", "minimum", "tax", "total")


def shared_holidays(years: Sequence[int]) -> frozenset[date]:
    """The six holidays that US tariffs share, of some years."""
    listed = HolidayList(NERC, observed="monday")
    days = [date(year, 1, 1) + timedelta(days=k) for year in years for k in range(366)]
    return frozenset(d for d in days if listed.holds(d))


def price(
    tariff: Tariff,
    load: Load,
    *,
    holidays: frozenset[date] | None = None,
    attributes: Mapping[str, str] | None = None,
    terms: Terms | None = None,
) -> dict[str, Any]:
    """The contract's document: monthly and annual energy, demand, fixed, minimum, tax and total, as exact decimals.

    ``terms``: exact by default. ``left``: the credit that the last bill leaves, where the tariff keeps some.
    ``holidays``: those of the utility; None: the six that US tariffs share, which ``notes`` says where the tariff asks.
    Raises TariffRefusedError where the tariff needs more than is given, naming the field.
    """
    notes = list(tariff.notes)
    if load.missing > 0:
        length = "days" if load.interval_minutes == 1440 else f"{load.interval_minutes}-minute intervals"
        notes.append(f"load: {load.missing} {length} between the first and the last are missing and count as no use")
    if holidays is None:
        years = sorted({of.day.year for of in load.days})
        holidays = shared_holidays(years)
        if tariff.asks_holidays:
            notes.append(
                f"holidays: none were given for {years[0]} to {years[-1]}; the six that US tariffs share were taken "
                "(New Year, Memorial, Independence, Labor, Thanksgiving, Christmas)"
            )
    terms = terms or Terms()
    months = price_months(tariff, load, holidays=holidays, attributes=attributes, terms=terms)
    money = 10 ** (EXACT_PLACES if terms.precision.exact else MONEY_PLACES)
    rows = [_row(month.priced.lines) for month in months]
    monthly = [
        {
            "month": f"{month.start:%Y-%m}",
            "energy_kwh": _decimal(month.usage, LOAD_SCALE),
            **{c: _decimal(row[c], money) for c in COMPONENTS},
        }
        for month, row in zip(months, rows, strict=True)
    ]
    left = left_over(tariff, months[-1], terms.precision) if tariff.carries_units or tariff.carries_money else None
    return {
        "tariff": tariff.name,
        "source": tariff.source,
        "monthly": monthly,
        "annual": {c: _decimal(sum(row[c] for row in rows), money) for c in COMPONENTS},
        "lines": _lines(tariff, months, money),
        **({} if left is None else {"left": {"units": dict(left.units), "money": left.money}}),
        "notes": notes,
        "refused": None,
    }


def _row(lines: pl.DataFrame) -> dict[str, int]:
    row: dict[str, int] = dict.fromkeys(COMPONENTS, 0)
    for component, amount in lines.select("component", "amount").iter_rows():
        # Riders and export credits are part of what energy costs; the contract has no column of their own for them.
        row[component if component in COMPONENTS else "energy"] += int(amount)
        row["total"] += int(amount)
    return row


def _lines(tariff: Tariff, months: Sequence[Month], money: int) -> list[dict[str, Any]]:
    """Each line of the tariff over all months, and those that only a bill's end adds."""
    found: dict[str, dict[str, Any]] = {
        line.key: {"line": line.key, "name": line.name, "component": line.component, "amount": 0}
        for line in tariff.lines
    }
    for month in months:
        for key, name, component, amount in month.priced.lines.select(
            "line_key", "name", "component", "amount"
        ).iter_rows():
            entry = found.setdefault(key, {"line": key, "name": name, "component": component, "amount": 0})
            entry["amount"] += int(amount)
    return [line | {"amount": _decimal(line["amount"], money)} for line in found.values()]


def _decimal(number: int, scale: int) -> Decimal:
    value = Decimal(number) / scale
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
