"""Report of a month's supply balance: checks, tables, the picture."""

from __future__ import annotations

from datetime import date

import polars as pl

from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.plotting import small_png
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.supply_balance.balance import Balance


def report(found: Balance) -> StageReport:
    """Returns figures, tables, the picture and the checks of a month."""
    missing = [f"{row['zone_id']}: {row['missing']}" for row in found.months if row["missing"]]
    outside = [f"{o['zone_id']} loses {o['losses_percent']} %, usually {o['usual_percent']} %" for o in found.outside]
    rows = [{k: str(v) for k, v in row.items()} for row in found.months]
    tables = {"zones": pl.DataFrame(rows)} if rows else {}
    checks = (
        Check(
            "sides_are_known",
            not missing,
            "; ".join(missing[:3]) or "every side of every zone is known",
            {"zones": len(missing)},
        ),
        Check(
            "losses_within_band",
            not outside,
            "; ".join(outside[:3]) or "losses are where they usually are",
            {"zones": len(outside)},
        ),
    )
    plots = {"losses by zone and day": picture(found)} if found.days.height else {}
    return StageReport(found.days.height, {"zones": len(found.months)}, tables, plots, checks)


def daily_losses(found: Balance) -> list[tuple[str, str, list[tuple[date, float | None]]]]:
    """Returns each zone with its unit and its losses by day, None where they are unknown."""
    series = []
    for (zone,), part in sorted(found.days.group_by(["zone_id"]), key=lambda item: str(item[0])):
        values = [
            (day, None if loss is None else loss / 1e6)
            for day, loss in part.sort("billing_day").select("billing_day", "difference").iter_rows()
        ]
        series.append((str(zone), str(part["unit"][0]), values))
    return series


def picture(found: Balance) -> bytes:
    """Draws losses of each zone by day."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for zone, unit, values in daily_losses(found)[:8]:
        axes.plot(
            [day.day for day, _ in values],
            [float("nan") if v is None else v for _, v in values],
            label=f"{zone}, {unit}",
        )
    axes.set_title(f"Losses by zone, {deployments_formats().month(found.month)}", loc="left")
    axes.legend(frameon=False, fontsize=8)
    return small_png(figure)
