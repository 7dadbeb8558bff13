"""Dagster reports of a month's leak adjustments, estimated bills and charges by the unit: figures, a table, a picture,
and checks that ask the tables otherwise than the stage did that wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta

import polars as pl

from meter_pipeline.plotting import small_png
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting import month_checks, tables
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.winter_average.report import day_after


def leak_adjustments(database: Database, month: date) -> StageReport:
    """Adjustments for leaks that are posted in a month or wait for a decision."""
    rows = tables.leak_adjustments(database, month)
    wrong = month_checks.leaks_off_their_lines(database, month)
    check = Check(
        "leaks_are_their_lines",
        not wrong,
        _first(wrong) or "each adjustment is the sum of its lines and stands on a confirmed leak",
        {"adjustments": len(wrong)},
    )
    money = {row["service_point_id"]: -float(row["net"]) for row in rows}
    return StageReport(
        len(rows), {"adjustments": len(rows)}, _table("leaks", rows), _bars("Forgiven for leaks", money), (check,)
    )


def estimated_bills(database: Database, month: date) -> StageReport:
    """Bills without a read of the periods that end in a month, and the effect of the limits."""
    last = day_after(month) - timedelta(days=1)
    rows = tables.estimated_bills(database, month, last)
    counts: Counter[str] = Counter()
    for row in rows:
        counts[str(row["in_a_row"])] += row["bills"]
    miscounted = month_checks.estimates_miscounted(database, month, last)
    passed = month_checks.limits_passed(database, month, last)
    checks = (
        Check(
            "estimates_are_counted",
            not miscounted,
            _first(miscounted) or "each count is one more than that of the bill before",
            {"bills": len(miscounted)},
        ),
        Check(
            "limits_are_kept",
            not passed,
            _first(passed) or "no bill beyond its limit is out that a person did not decide",
            {"bills": len(passed)},
        ),
    )
    figures = {"bills": sum(counts.values())}
    plots = _bars("Estimated bills by how many follow each other", counts)
    return StageReport(figures["bills"], figures, _table("estimated bills", rows), plots, checks)


def unit_charges(database: Database, month: date) -> StageReport:
    """Charges of a month by units that no meter counts."""
    last = day_after(month) - timedelta(days=1)
    rows = tables.unit_charges(database, month, last)
    wrong = month_checks.counts_not_charged(database, month, last)
    check = Check(
        "counts_are_charged",
        not wrong,
        _first(wrong) or "each count in force on the month's last billed day is charged",
        {"services": len(wrong)},
    )
    money = {row["name"]: float(row["amount"]) for row in rows}
    figures = {"charges": len(rows), "service days": sum(row["service_days"] for row in rows)}
    return StageReport(len(rows), figures, _table("units", rows), _bars("Charged in the month", money), (check,))


def _first(found: list[str]) -> str:
    return "; ".join(found[:3])


def _table(name: str, rows: list[dict[str, object]]) -> dict[str, pl.DataFrame]:
    if not rows:
        return {}
    return {name: pl.DataFrame([{k: None if v is None else str(v) for k, v in row.items()} for row in rows])}


def _bars(title: str, values: Mapping[str, float]) -> dict[str, bytes]:
    """A picture with a bar for each of the twenty largest values; none where there are no values."""
    from matplotlib.figure import Figure

    if not values:
        return {}
    shown = sorted(values.items(), key=lambda item: -abs(item[1]))[:20]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(shown)), [value for _, value in shown], color="#35618f")
    axes.set_xticks(range(len(shown)), [name for name, _ in shown], rotation=30, ha="right", fontsize=8)
    axes.set_title(title, loc="left")
    return {title: small_png(figure)}
