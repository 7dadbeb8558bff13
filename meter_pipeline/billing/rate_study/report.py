"""A rate study's report for Dagster: figures, tables, its two pictures, and its own check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from meter_pipeline.billing.rate_study.page import change_picture, revenue_picture
from meter_pipeline.schemas.report import Check, StageReport


def report(document: Mapping[str, Any]) -> StageReport:
    """The report of a study's document (figures.document)."""
    lost, left = document["reproduced"]["not_reproduced"], document["left_out"]
    first = f", the first of {lost[0]['account_id']} from {lost[0]['period_start']}" if lost else ""
    check = Check(
        "bills_are_reproduced",
        not lost,
        f"{len(lost)} bills do not come out as billed and are left out{first}"
        if lost
        else f"{document['bills']} bills come out as billed, to the millionth",
        {"bills": document["bills"], "not reproduced": len(lost)},
    )
    names = ("actual", "proposed_revenue", "difference", "difference_percent", "currency", "accounts", "bills")
    figures = {name: document[name] for name in names}
    figures["left out"] = "; ".join(f"{count}: {why}" for why, count in left.items()) or "nothing"
    tables = {
        name: _frame(document[name]) for name in ("by_class", "percentiles", "shares", "revenue", "most_affected")
    }
    plots = {
        "revenue by month, billed and proposed": revenue_picture(document),
        "change of bills by percentile of accounts": change_picture(document),
    }
    return StageReport(document["bills"], figures, tables, plots, (check,))


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{k: None if v is None else str(v) for k, v in row.items()} for row in rows])
