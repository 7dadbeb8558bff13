"""The journal of unbilled revenue: a month's accrual and the reversal of the one before, in accounts of the general
ledger.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

CENT: Final = Decimal("0.01")
COLUMNS: Final = ("entry_date", "entry", "account_code", "debit", "credit", "currency", "description")
_NAMES: Final = ("component", "commodity", "customer_class")


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts of the general ledger by commodity, customer class and component; rows of ref.revenue_accounts
    in force.
    """

    rows: Sequence[Mapping[str, str]]

    def of(self, values: Mapping[str, str]) -> Mapping[str, str] | None:
        """The row for a component of a commodity and class: the one that names most, the component before the commodity
        and that before the class. None where no row fits."""
        fitting = [row for row in self.rows if all(row[n] in ("*", values[n]) for n in _NAMES)]
        return max(fitting, key=lambda row: tuple(row[n] != "*" for n in _NAMES), default=None)


def missing(accounts: Accounts, closing: Iterable[Mapping[str, Any]]) -> list[str]:
    """Components without an account: one line each, with the next step."""
    found = {
        f"{row['component']} of {row['commodity']}, class {row['customer_class']}: no revenue account; add a row to "
        "reference/revenue_accounts.csv and import the folder"
        for row in closing
        if row["amount"] and accounts.of(row) is None
    }
    return sorted(found)


def accrual(accounts: Accounts, closing: Iterable[Mapping[str, Any]], month: date) -> list[dict[str, Any]]:
    """Lines that book a month's closing balance on its last day: revenue accounts credited, receivables debited.

    ``closing``: customer_class, commodity, component, currency and amount in millionths. Each revenue account is
    rounded to the cent so that the sum over a currency is the rounded total; the receivable is the sum of what was
    credited, so that debits equal credits. Raises ValueError where a component has no account.
    """
    wanting = missing(accounts, rows := list(closing))
    if wanting:
        raise ValueError("; ".join(wanting))
    sums: dict[tuple[str, str, str], int] = {}
    for row in rows:
        account = accounts.of(row)
        if account is None:  # nothing is owed there
            continue
        key = (row["currency"], account["receivable_account"], account["revenue_account"])
        sums[key] = sums.get(key, 0) + int(row["amount"])
    last = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    lines: list[dict[str, Any]] = []
    owed: dict[tuple[str, str], Decimal] = {}
    running: dict[str, int] = {}
    for (currency, receivable, revenue), micro in sorted(sums.items()):
        before, running[currency] = running.get(currency, 0), running.get(currency, 0) + micro
        amount = _cents(running[currency]) - _cents(before)
        owed[currency, receivable] = owed.get((currency, receivable), Decimal(0)) + amount
        if amount:
            lines.append(_line(last, "accrual", revenue, -amount, currency, f"Unbilled revenue {month:%Y-%m}"))
    for (currency, receivable), amount in sorted(owed.items()):
        if amount:
            lines.append(_line(last, "accrual", receivable, amount, currency, f"Unbilled receivables {month:%Y-%m}"))
    return lines


def reversal(before: Iterable[Mapping[str, Any]], month: date) -> list[dict[str, Any]]:
    """Lines that take back the accrual of the month before on the first day of ``month``: its debits as credits and the
    other way.
    """
    return [
        {
            "entry_date": month,
            "entry": "reversal",
            "account_code": line["account_code"],
            "debit": line["credit"],
            "credit": line["debit"],
            "currency": line["currency"],
            "description": f"Reversal of {line['description'][0].lower()}{line['description'][1:]}",
        }
        for line in before
        if line["entry"] == "accrual"
    ]


def _cents(micro: int) -> Decimal:
    return Decimal(micro).scaleb(-6).quantize(CENT)


def _line(day: date, entry: str, account: str, amount: Decimal, currency: str, description: str) -> dict[str, Any]:
    """A line that debits a positive amount and credits a negative one."""
    return {
        "entry_date": day,
        "entry": entry,
        "account_code": account,
        "debit": max(amount, Decimal("0.00")),
        "credit": max(-amount, Decimal("0.00")),
        "currency": currency,
        "description": description,
    }


def unbalanced(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Entries whose debits are not their credits, in words."""
    sums: dict[tuple[str, str, str], list[Decimal]] = {}
    for line in lines:
        totals = sums.setdefault((str(line["entry_date"]), line["entry"], line["currency"]), [Decimal(0), Decimal(0)])
        totals[0] += line["debit"]
        totals[1] += line["credit"]
    return [
        f"{entry} of {day}: debits {debit} {currency}, credits {credit}"
        for (day, entry, currency), (debit, credit) in sorted(sums.items())
        if debit != credit
    ]


def write_csv(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """The journal as CSV: entry_date, entry, account_code, debit, credit, currency, description. A cell that a
    spreadsheet would run as a formula gets an apostrophe."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in lines:
            writer.writerow([_cell(line[column]) for column in COLUMNS])


def _cell(value: Any) -> str:
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in "=+-@\t\r" else text
