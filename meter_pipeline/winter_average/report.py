"""Report of the winter averages of a day: services by class and source, the picture, the check."""

from __future__ import annotations

from datetime import date

import polars as pl

from meter_pipeline.plotting import small_png
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.winter_average import tables
from meter_pipeline.winter_average.compute import refresh

_BANDS = 12


def month_report(database: Database, month: date) -> StageReport:
    """Compute the averages that apply from the day after a month, and return their report. A utility without a rule has
    no averages, which is not a fault."""
    effective = day_after(month)
    if not tables.rules(database, effective):
        skipped = Check("every_service_has_an_average", True, f"no rule is in force on {effective}", {"services": 0})
        return StageReport(0, {"services": 0}, {}, {}, (skipped,))
    return report(database, effective, refresh(database, effective))


def day_after(month: date) -> date:
    """The first day of the next month."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def report(database: Database, effective: date, found: pl.DataFrame) -> StageReport:
    """Figures, the table by class and source, the picture and the check of averages."""
    without = found.filter(pl.col("source") == "none")["service_point_id"].to_list()
    check = Check(
        "every_service_has_an_average",
        not without,
        f"{len(without)} services have too few bills and their class no default, the first {', '.join(without[:3])}"
        if without
        else "every service with a bill for water has an average",
        {"services": len(without)},
    )
    counted = dict(found.group_by("source").len().sort("source").iter_rows())
    listed = {"averages": pl.DataFrame(tables.by_class(database, effective))} if found.height else {}
    plots = {"winter averages": picture(found, effective)} if found["per_day"].drop_nulls().len() else {}
    return StageReport(found.height, {"services": found.height, **counted}, listed, plots, (check,))


def bands(per_day: pl.Series) -> list[tuple[str, int]]:
    """Returns the number of averages in each of twelve bands of equal width from 0 to the highest, and the upper end of
    each band."""
    values = per_day.drop_nulls() / 1e6
    if not values.len():
        return []
    width = (float(max(values.to_list())) or 1.0) / _BANDS
    band = ((values / width).ceil().cast(pl.Int64).clip(1, _BANDS)).value_counts()
    counted = dict(band.iter_rows())
    return [(f"{width * k:,.3g}", int(counted.get(k, 0))) for k in range(1, _BANDS + 1)]


def picture(found: pl.DataFrame, effective: date) -> bytes:
    """Draws the number of services by average use a day."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    labels, counts = zip(*bands(found["per_day"]), strict=True)
    axes.bar(range(len(counts)), counts, color="#35618f")
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel(f"up to {', '.join(sorted(set(found['unit'].to_list())))} a day")
    axes.set_title(f"Services by winter average from {effective}", loc="left")
    return small_png(figure)
