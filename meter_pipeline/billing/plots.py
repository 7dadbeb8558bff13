"""Small pictures of a billed day: PNG bytes under 20 kB, for asset metadata, reports and statements."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from meter_pipeline.plotting import small_png

_INK: Final = ("#35618f", "#d98b2b", "#6b8f4e", "#8a5a83", "#b3372f", "#4a4a4a")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def reconciliation_waterfall(table: pl.DataFrame, title: str) -> bytes:
    """Each check as a bar of what agrees, with a step for every named cause and a red one for what is open. Shares of
    each check's rows."""
    figure, axis = _figure(6.4, 2.6)
    checks = table["joint"].unique(maintain_order=True).to_list()
    causes = [c for c in table["cause"].unique().sort().to_list() if c not in ("none", "open")]
    colour = {"none": _INK[0], "open": _INK[4]} | {c: _INK[1 + k % 3] for k, c in enumerate(causes)}
    for y, joint in enumerate(checks):
        part = (
            table.filter(pl.col("joint") == joint)
            .group_by("cause")
            .agg(pl.col("items").sum())
            .sort("items", descending=True)
        )
        whole = max(int(part["items"].sum()), 1)
        left = 0.0
        for cause, items in part.iter_rows():
            width = items / whole
            axis.barh(y, width, left=left, color=colour[cause], edgecolor="white", linewidth=0.5)
            if width > 0.08:
                axis.text(
                    left + width / 2, y, f"{cause} {items:,}", ha="center", va="center", fontsize=6, color="white"
                )
            left += width
    axis.set_yticks(range(len(checks)), [j.replace("_", " ") for j in checks], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks([])
    axis.set_title(title, fontsize=9)
    return small_png(figure)


def load_by_period(usage: pl.DataFrame, title: str) -> bytes:
    """Usage by tariff and time-of-use period: columns tariff, period, unit, quantity (millionths)."""
    tariffs = usage["tariff"].unique(maintain_order=True).to_list()
    figure, axis = _figure(6.4, 0.8 + 0.32 * max(len(tariffs), 1))
    for y, tariff in enumerate(tariffs):
        part = usage.filter(pl.col("tariff") == tariff)
        whole = max(int(part["quantity"].sum()), 1)
        left = 0.0
        for k, (_, period, _, quantity) in enumerate(part.iter_rows()):
            width = quantity / whole
            axis.barh(y, width, left=left, color=_INK[k % len(_INK)], edgecolor="white", linewidth=0.5)
            if width > 0.1:
                axis.text(left + width / 2, y, period, ha="center", va="center", fontsize=6, color="white")
            left += width
        axis.text(1.01, y, f"{whole / 1e6:,.0f} {part['unit'][0]}", va="center", fontsize=6)
    axis.set_yticks(range(len(tariffs)), tariffs, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.18)
    axis.set_xticks([])
    axis.set_title(title, fontsize=9)
    return small_png(figure)


def daily_usage(days: list[str], quantities: list[float], unit: str) -> bytes:
    """A statement's usage by day."""
    figure, axis = _figure(6.4, 1.7)
    axis.bar(range(len(days)), quantities, color=_INK[0], width=0.8)
    step = max(len(days) // 8, 1)
    axis.set_xticks(range(0, len(days), step), days[::step], fontsize=6)
    axis.tick_params(axis="y", labelsize=6)
    axis.set_ylabel(unit, fontsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return small_png(figure)
