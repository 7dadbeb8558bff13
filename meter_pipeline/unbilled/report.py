"""Report of a month's unbilled revenue: checks, tables, the picture."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl

from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.plotting import small_png
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.unbilled.month import MOVES, Unbilled


def report(found: Unbilled) -> StageReport:
    """Figures, tables, the picture and the checks of a month."""
    figures: dict[str, Any] = {move.replace("_", " "): _money(found.total(move)) for move in MOVES}
    figures |= {"journal lines": len(found.journal)}
    roll = found.roll.with_columns((pl.col(move).cast(pl.Decimal(38, 0)) / 1_000_000).cast(pl.String) for move in MOVES)
    agrees = not found.open_points
    checks = (
        Check(
            "unbilled_agrees_with_bills",
            agrees,
            "; ".join(found.open_points[:3]) or "opening, charges, bills and closing agree to the millionth",
            {"open": len(found.open_points)},
        ),
        Check(
            "journal_balances",
            not found.no_account,
            "; ".join(found.no_account[:3]) or f"debits equal credits in {len(found.journal)} lines",
            {"components without an account": len(found.no_account)},
        ),
    )
    return StageReport(
        found.detail.height, figures, {"movement": roll}, {"how unbilled revenue moved": picture(found)}, checks
    )


def _money(micro: int) -> str:
    return f"{Decimal(micro).scaleb(-6):,.2f}"


def steps(found: Unbilled) -> list[tuple[str, float]]:
    """The movement as signed steps for a waterfall: label and amount of the currency."""
    signs = {"issued": -1, "elsewhere": -1}
    return [
        (m.replace("_", " "), signs.get(m, 1) * found.total(m) / 1e6)
        for m in MOVES
        if found.total(m) or m in ("opening", "closing")
    ]


def picture(found: Unbilled) -> bytes:
    """A waterfall from the opening to the closing balance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    level = 0.0
    moves = steps(found)
    for at, (label, amount) in enumerate(moves):
        whole = label in ("opening", "closing")
        base = 0.0 if whole else level
        axes.bar(at, amount, bottom=base, color="#35618f" if whole else "#1c6b3a" if amount >= 0 else "#b3541e")
        axes.annotate(f"{amount:,.2f}", (at, max(base, base + amount)), ha="center", va="bottom", fontsize=8)
        level = amount if whole else level + amount
    axes.set_xticks(range(len(moves)), [label for label, _ in moves])
    axes.set_title(f"Unbilled revenue, {deployments_formats().month(found.month)}", loc="left")
    axes.margins(y=0.15)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return small_png(figure)
