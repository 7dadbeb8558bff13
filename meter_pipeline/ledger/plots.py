"""The log's growth as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.plotting import small_png


def growth_plot(growth: Sequence[tuple[date, int, int]]) -> bytes:
    """Entries by the UTC day they were recorded on, and payload hashes kept in all: a PNG under 20 kB."""
    from itertools import accumulate

    from matplotlib.figure import Figure

    days, entries, leaves = (
        [row[0] for row in growth],
        [row[1] for row in growth],
        list(accumulate(row[2] for row in growth)),
    )
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    left = figure.subplots()
    places = range(len(days))
    left.bar(places, entries, color="#3b6ea5", width=0.8)
    left.set_ylabel("entries a day", color="#3b6ea5", fontsize=9)
    right = left.twinx()
    right.plot(places, leaves, color="#c9822b", marker="o" if len(days) < 30 else None, linewidth=1.5)
    right.set_ylabel("payload hashes in all", color="#c9822b", fontsize=9)
    right.set_ylim(bottom=0)
    step = max(1, len(days) // 6)
    left.set_xticks(list(places)[::step], [deployments_formats().short_day(day) for day in days[::step]], fontsize=8)
    left.set_title(
        f"Ledger: {sum(entries):,} entries, {leaves[-1] if leaves else 0:,} payload hashes", loc="left", fontsize=10
    )
    return small_png(figure)
