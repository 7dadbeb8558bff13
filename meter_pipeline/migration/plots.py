"""The gate as a picture: hours run without a reset against the hours needed, and which conditions are met."""

from __future__ import annotations

from datetime import timedelta

from meter_pipeline.migration.gate import LIVE_HOURS, GateReport
from meter_pipeline.plotting import small_png


def gate_plot(report: GateReport) -> bytes:
    """A PNG under 20 kB."""
    from matplotlib.figure import Figure

    hours = 0.0 if report.clock_started is None else (report.at - report.clock_started) / timedelta(hours=1)
    figure = Figure(figsize=(6.4, 0.34 * len(report.conditions) + 1.3), layout="constrained")
    clock, rows = figure.subplots(2, 1, height_ratios=[1, max(2, len(report.conditions) * 0.55)])
    clock.barh([0], [min(hours, LIVE_HOURS)], color="#2a7f62" if hours >= LIVE_HOURS else "#c9822b")
    clock.set_xlim(0, LIVE_HOURS)
    clock.set_yticks([])
    clock.set_title(
        f"Gate {'green' if report.green else 'shut'}: {hours:.1f} of {LIVE_HOURS} h without a reset",
        loc="left",
        fontsize=10,
    )
    for place, condition in enumerate(reversed(report.conditions)):
        rows.text(
            0.01,
            place,
            "met" if condition.met else "open",
            color="#2a7f62" if condition.met else "#b3261e",
            va="center",
            fontsize=8,
        )
        rows.text(0.10, place, condition.name.replace("_", " "), va="center", fontsize=8)
        rows.text(
            0.45, place, f"{condition.have} (needs {condition.need})"[:70], va="center", fontsize=8, color="#555555"
        )
    rows.set_ylim(-0.7, len(report.conditions) - 0.3)
    rows.set_xlim(0, 1)
    rows.axis("off")
    return small_png(figure)
