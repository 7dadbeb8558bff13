"""Figures of a study: revenue, changes of bills, customers affected most; exact decimals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.rate_study.study import Study

PERCENTILES: Final = (5, 10, 25, 50, 75, 90, 95)
#: Rises and falls by more than these, in percent of the old bills
SHARES: Final = (5, 10, 20)
MOST_AFFECTED: Final = 100


def money(micro: int) -> Decimal:
    """Millionths as a decimal."""
    return Decimal(micro).scaleb(-6)


def changes(found: Study) -> pl.DataFrame:
    """Accounts with ``change`` (millionths) and ``percent`` (hundredths of a percent of the old bills, rounded down;
    null where the old bills are nothing or a credit)."""
    change = pl.col("proposed") - pl.col("actual")
    percent = pl.when(pl.col("actual") > 0).then((change.cast(pl.Int128) * 10_000 // pl.col("actual")).cast(pl.Int64))
    return found.accounts.with_columns(change.alias("change"), percent.alias("percent"))


def document(found: Study) -> dict[str, Any]:
    """The study as `rates study --json` prints it."""
    accounts = changes(found)
    question = found.question
    revenue = [
        {
            **{name: row[name] for name in ("customer_class", "commodity", "component")},
            "month": f"{row['month']:%Y-%m}",
            "actual": money(row["actual"]),
            "proposed": money(row["proposed"]),
            "difference": money(row["proposed"] - row["actual"]),
        }
        for row in found.revenue.to_dicts()
    ]
    actual, proposed = found.total("actual"), found.total("proposed")
    return {
        "first": question.first,
        "past": question.past,
        "replaces": [change.replaces for change in question.changes],
        "proposed": [change.proposed.name for change in question.changes],
        "document_sha256": [change.proposed.digest.hex() for change in question.changes],
        "customer_class": question.customer_class,
        "currency": found.currency,
        "accounts": accounts.height,
        "bills": found.bills,
        "reproduced": {
            "ok": not found.not_reproduced,
            "bills": found.bills,
            "not_reproduced": found.not_reproduced[:100],
        },
        "left_out": found.left_out,
        "from_intervals": found.from_intervals,
        "actual": money(actual),
        "proposed_revenue": money(proposed),
        "difference": money(proposed - actual),
        "difference_percent": _percent(proposed - actual, actual),
        "elasticity": None if question.elasticity is None else str(question.elasticity),
        "proposed_revenue_with_elasticity": None if question.elasticity is None else money(found.total("elastic")),
        "by_class": _by(accounts),
        "revenue": revenue,
        "percentiles": percentiles(accounts),
        "shares": shares(accounts),
        "most_affected": most_affected(accounts),
    }


def _percent(part: int, whole: int) -> str | None:
    return None if whole <= 0 else str((Decimal(part) * 100 / Decimal(whole)).quantize(Decimal("0.01")))


def _by(accounts: pl.DataFrame) -> list[dict[str, Any]]:
    sums = (
        accounts.group_by("customer_class")
        .agg(pl.len().alias("accounts"), pl.col("actual", "proposed").sum())
        .sort("customer_class")
    )
    return [
        {
            "customer_class": row["customer_class"],
            "accounts": row["accounts"],
            "actual": money(row["actual"]),
            "proposed": money(row["proposed"]),
            "difference_percent": _percent(row["proposed"] - row["actual"], row["actual"]),
        }
        for row in sums.to_dicts()
    ]


def percentiles(accounts: pl.DataFrame) -> list[dict[str, Any]]:
    """The change of an account's bills at each percentile of accounts, by class: the smallest change that so many do
    not exceed.
    """
    found = []
    for (customer_class,), part in sorted(accounts.group_by(["customer_class"]), key=lambda item: str(item[0])):
        change = part["change"].sort().to_list()
        percent = part["percent"].drop_nulls().sort().to_list()
        found += [
            {
                "customer_class": customer_class,
                "percentile": p,
                "change": money(change[-(-p * len(change) // 100) - 1]),
                "change_percent": str(Decimal(percent[-(-p * len(percent) // 100) - 1]).scaleb(-2))
                if percent
                else None,
            }
            for p in PERCENTILES
        ]
    return found


def shares(accounts: pl.DataFrame) -> list[dict[str, Any]]:
    """How many accounts' bills rise or fall by more than some percent."""
    of = max(accounts.height, 1)
    counts = [("rises", x, int((accounts["percent"] > x * 100).sum())) for x in SHARES]
    counts += [("falls", x, int((accounts["percent"] < -x * 100).sum())) for x in SHARES]
    return [
        {
            "direction": way,
            "more_than_percent": x,
            "accounts": n,
            "share": str((Decimal(n) / of).quantize(Decimal("0.0001"))),
        }
        for way, x, n in counts
    ]


def most_affected(accounts: pl.DataFrame) -> list[dict[str, Any]]:
    """The accounts whose bills change by most money."""
    rows = accounts.sort(pl.col("change").abs(), "account_id", descending=[True, False]).head(MOST_AFFECTED)
    return [
        {
            "account_id": row["account_id"],
            "customer_class": row["customer_class"],
            "actual": money(row["actual"]),
            "proposed": money(row["proposed"]),
            "change": money(row["change"]),
            "change_percent": None if row["percent"] is None else str(Decimal(row["percent"]).scaleb(-2)),
        }
        for row in rows.to_dicts()
    ]
