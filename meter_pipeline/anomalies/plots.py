"""Pictures of what was flagged: usage beside what the weather asked for.

Belongs here: PNG bytes below 20 kB, for the stage's metadata and for a case. Does not belong here: choosing what to show a person next.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from meter_pipeline.anomalies.facts import History
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.window import Floats, Window
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.store.database import Database

_INK, _SOFT, _BAND, _FLAG = "#1b3a4b", "#7a8b99", "#dbe7ee", "#c8442b"
_SHOWN = 4


def flagged_points_png(window: Window, history: History, found: pl.DataFrame) -> bytes | None:
    """Up to four service points of the day's most certain cases, six weeks each: usage, expectation and its three sigma, the flagged day."""
    told = found.filter(pl.col("kind").is_in([k for k, v in KINDS.items() if v.case]) & (pl.col("row") >= 0))
    told = told.sort("confidence", "row", descending=[True, False]).unique("row", keep="first", maintain_order=True).head(_SHOWN)
    if told.is_empty():
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.5 * told.height + 0.4), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(told.height, 1, sharex=True, squeeze=False)[:, 0]
    for axis, (row, kind) in zip(axes, told.select("row", "kind").iter_rows(), strict=True):
        _draw(axis, history.days, history.usage[row], window.expected[row], float(window.sigma[row]), [len(history.days) - 1])
        axis.set_title(f"{history.points[row]}: {kind}", fontsize=8, loc="left", color=_INK)
        axis.set_ylabel(history.unit, fontsize=7)
    return _png(figure)


def case_png(days: Sequence[date], usage: Floats, expected: Floats, sigma: float, flagged: Sequence[date], unit: str, title: str) -> bytes:
    """One service point over many days, the flagged ones marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.2), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    marked = set(flagged)
    _draw(axis, list(days), usage, expected, sigma, [i for i, d in enumerate(days) if d in marked])
    axis.set_title(title, fontsize=8, loc="left", color=_INK)
    axis.set_ylabel(unit, fontsize=7)
    return _png(figure)


def _draw(axis: Any, days: Sequence[date], usage: Floats, expected: Floats, sigma: float, flagged: Sequence[int]) -> None:
    at = np.arange(len(days))
    if np.isfinite(expected).any():
        axis.fill_between(at, np.maximum(expected - 3 * sigma, 0), expected + 3 * sigma, color=_BAND, linewidth=0)
        axis.plot(at, expected, color=_SOFT, linewidth=0.9, label="expected")
    axis.plot(at, usage, color=_INK, linewidth=1.1, label="used")
    shown = [i for i in flagged if np.isfinite(usage[i])]
    axis.plot(at[shown], usage[shown], "o", color=_FLAG, markersize=4)
    for i in flagged:
        axis.axvline(i, color=_FLAG, linewidth=0.5, alpha=0.4)
    ticks = np.linspace(0, len(days) - 1, min(5, len(days))).astype(int)
    axis.set_xticks(ticks, [days[i].isoformat() for i in ticks], fontsize=6)
    axis.tick_params(axis="y", labelsize=6, length=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01)


def _png(figure: Any) -> bytes:
    """Bytes with a small palette: four panels stay near 10 kB."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    data = buffer.getvalue()
    if len(data) < 20_000:
        return data
    from PIL import Image

    small = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(small, "PNG", optimize=True)
    return small.getvalue()


def plot_case(database: Database, calendar: BillingCalendar, case: Mapping[str, Any]) -> bytes:
    """The picture of a case (show_case's document): six weeks before it to its last day, usage over expectation, flagged days marked.

    Raises QueueError for a case about a group, which has no usage of its own.
    """
    from meter_pipeline.anomalies import facts as packing
    from meter_pipeline.anomalies.day import build_window
    from meter_pipeline.anomalies.queue import QueueError
    from meter_pipeline.baselines.weather import serve
    from meter_pipeline.store import anomalies as store

    point, last = str(case["service_point_id"]), case["last_day"]
    if not point:
        raise QueueError(f"{case['case_id']} is about {case['subject']}: a group has no usage to draw")
    days = calendar.days(max(case["first_day"] - timedelta(days=42), last - timedelta(days=180)), last)
    with database.reader() as read:
        packed, lists = store.read_facts(read, days[0], last)
        points = store.read_points(read, last, calendar.bounds(last)[1])
        version = store.baseline_version(read, last)
        baselines = store.read_baselines(read, version) if version else pl.DataFrame()
        stations, temperatures = store.read_stations(read), store.read_temperatures(read, days[0], last)
        holidays = store.read_holidays(read, days[0], last)
    unit = case["flags"][-1]["unit"] if case["flags"] else ""
    if not packed.height or not unit:
        raise QueueError(f"nothing is kept of {point} on the days of {case['case_id']}")
    history = packing.assemble(packed, lists, case["commodity"], unit, days, last)
    placed = pl.DataFrame({"service_point_id": history.points}).join(points, on="service_point_id", how="left", maintain_order="left")
    window = build_window(history, placed, serve(placed, stations, temperatures, days), baselines, holidays, {})
    row = int(np.searchsorted(history.points, point))
    flagged = [f["billing_day"] for f in case["flags"]]
    title = f"{point}: {case['kind']}, {case['state']}"
    return case_png(days, history.usage[row], window.expected[row], float(window.sigma[row]), flagged, unit, title)
