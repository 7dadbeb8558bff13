"""The picture of a reference table's changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.plotting import small_png

#: Days in the picture
_MOST: Final = 60


def changes(table: str, days: Sequence[tuple[date, int]], last: date) -> bytes:
    """Rows changed on each of the _MOST days up to ``last``, as a PNG; empty where no row changed in them."""
    first = last - timedelta(days=_MOST - 1)
    shown = {day: rows for day, rows in days if first <= day <= last}
    if not shown:
        return b""
    from matplotlib.figure import Figure

    shown_as = deployments_formats()
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.add_subplot()
    every = [first + timedelta(days=k) for k in range(_MOST)]
    axes.bar(range(_MOST), [shown.get(day, 0) for day in every], color="#2d6cb5")
    ticks = range(0, _MOST, 10)
    axes.set_xticks(list(ticks), [shown_as.short_day(every[k]) for k in ticks])
    axes.set_ylabel("rows changed")
    axes.set_title(f"{table}: rows changed a day, to {shown_as.day(last)}", fontsize=9)
    return small_png(figure)
