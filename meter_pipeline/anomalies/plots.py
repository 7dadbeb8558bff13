"""Pictures of flagged days: usage beside its expectation by weather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from meter_pipeline.anomalies.commodity_points import CommodityPoints
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.window import Floats
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.plotting import small_png
from meter_pipeline.postgres.database import Database

_INK, _SOFT, _BAND, _FLAG, _WARM = "#1b3a4b", "#7a8b99", "#dbe7ee", "#c8442b", "#e3b778"
_SHOWN = 4


def weather_png(recent: pl.DataFrame, day: date) -> bytes:
    """Mean temperatures (station_id, weather_day, temperature_mean_c) up to a billing day, a line a station, six
    stations at most; the day marked."""
    from matplotlib.dates import num2date
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    stations = recent["station_id"].unique().sort().to_list()
    for station in stations[:6]:
        of_station = recent.filter(pl.col("station_id") == station).sort("weather_day")
        axes.plot(
            of_station["weather_day"].to_list(),
            of_station["temperature_mean_c"].to_list(),
            marker=".",
            linewidth=1.2,
            label=station,
        )
    axes.axvline(day, color=_FLAG, linewidth=0.9)  # type: ignore[arg-type]
    axes.set_ylabel("mean °C", fontsize=9)
    axes.tick_params(labelsize=8)
    shown = deployments_formats()
    axes.xaxis.set_major_formatter(lambda at, _: shown.short_day(num2date(at).date()))
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(
        f"Weather of {shown.day(day)}" + (f"; {len(stations) - 6} stations more" if len(stations) > 6 else ""),
        loc="left",
        fontsize=10,
    )
    return small_png(figure)


def flagged_points_png(city: CommodityPoints, found: pl.DataFrame) -> bytes | None:
    """Up to four service points of the day's most certain cases, six weeks each: usage, expectation and its three sigma
    over the day's mean temperature, the flagged day marked."""
    top_flags = found.filter(pl.col("kind").is_in([k for k, v in KINDS.items() if v.case]) & (pl.col("row") >= 0))
    top_flags = (
        top_flags.sort("confidence", "row", descending=[True, False])
        .unique("row", keep="first", maintain_order=True)
        .head(_SHOWN)
    )
    if top_flags.is_empty():
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, days = top_flags["row"].to_numpy(), city.weeks.days
    window = city.window(rows)
    figure = Figure(figsize=(6.4, 1.5 * top_flags.height + 0.4), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(top_flags.height, 1, sharex=True, squeeze=False)[:, 0]
    for i, (axis, kind) in enumerate(zip(axes, top_flags["kind"], strict=True)):
        _draw(
            axis,
            days,
            window.usage[i],
            window.expected[i],
            float(window.sigma[i]),
            [len(days) - 1],
            city.degrees_f(rows[i]),
        )
        axis.set_title(f"{city.weeks.points[rows[i]]}: {kind}", fontsize=8, loc="left", color=_INK)
        axis.set_ylabel(window.unit, fontsize=7)
    return small_png(figure)


def case_png(
    days: Sequence[date],
    usage: Floats,
    expected: Floats,
    sigma: float,
    flagged: Sequence[date],
    unit: str,
    title: str,
    degrees_f: Floats | None = None,
) -> bytes:
    """One service point over many days and their mean temperatures, the flagged ones marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.2), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    marked = set(flagged)
    _draw(axis, list(days), usage, expected, sigma, [i for i, d in enumerate(days) if d in marked], degrees_f)
    axis.set_title(title, fontsize=8, loc="left", color=_INK)
    axis.set_ylabel(unit, fontsize=7)
    return small_png(figure)


def _draw(
    axis: Any,
    days: Sequence[date],
    usage: Floats,
    expected: Floats,
    sigma: float,
    flagged: Sequence[int],
    degrees_f: Floats | None,
) -> None:
    at = np.arange(len(days))
    if degrees_f is not None and np.isfinite(degrees_f).any():
        weather = axis.twinx()
        weather.plot(at, degrees_f, color=_WARM, linewidth=0.8)
        weather.set_ylabel("mean °F", fontsize=6, color=_WARM)
        weather.tick_params(axis="y", labelsize=6, length=2, colors=_WARM)
        weather.spines[["top"]].set_visible(False)
        weather.set_zorder(axis.get_zorder() - 1)
        axis.patch.set_visible(False)
    if np.isfinite(expected).any():
        axis.fill_between(at, np.maximum(expected - 3 * sigma, 0), expected + 3 * sigma, color=_BAND, linewidth=0)
        axis.plot(at, expected, color=_SOFT, linewidth=0.9, label="expected")
    axis.plot(at, usage, color=_INK, linewidth=1.1, label="used")
    shown = [i for i in flagged if np.isfinite(usage[i])]
    axis.plot(at[shown], usage[shown], "o", color=_FLAG, markersize=4)
    for i in flagged:
        axis.axvline(i, color=_FLAG, linewidth=0.5, alpha=0.4)
    ticks = np.linspace(0, len(days) - 1, min(5, len(days))).astype(int)
    axis.set_xticks(ticks, [deployments_formats().short_day(days[i]) for i in ticks], fontsize=6)
    axis.tick_params(axis="y", labelsize=6, length=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01)


def plot_case(database: Database, calendar: BillingCalendar, case: Mapping[str, Any]) -> bytes:
    """The picture of a case (show_case's document): six weeks before it to its last day, usage over expectation,
    flagged days marked.

    Raises QueueError for a case about a group, which has no usage of its own.
    """
    from meter_pipeline.anomalies import daily_features as packing
    from meter_pipeline.anomalies.commodity_points import read_surroundings
    from meter_pipeline.anomalies.queue import QueueError
    from meter_pipeline.anomalies.tables import detection

    point, last = str(case["service_point_id"]), case["last_day"]
    if not point:
        raise QueueError(f"{case['case_id']} is about {case['subject']}: a group has no usage to draw")
    days = calendar.days(max(case["first_day"] - timedelta(days=42), last - timedelta(days=180)), last)
    with database.reader() as read:
        packed, lists = detection.read_facts(read, days[0], last)
        given, _ = read_surroundings(read, calendar, days, service_point_id=point)
    unit = case["flags"][-1]["unit"] if case["flags"] else ""
    if not packed.height or not unit:
        raise QueueError(f"nothing is kept of {point} on the days of {case['case_id']}")
    city = CommodityPoints(packing.PackedDays(packed, lists, case["commodity"], unit, days, last), given)
    rows = np.flatnonzero(city.weeks.points == point)
    if rows.size == 0:
        raise QueueError(f"nothing is kept of {point} on {last}")
    window = city.window(rows)
    flagged = [f["billing_day"] for f in case["flags"]]
    title = f"{point}: {case['kind']}, {case['state']}"
    return case_png(
        days,
        window.usage[0],
        window.expected[0],
        float(window.sigma[0]),
        flagged,
        unit,
        title,
        city.degrees_f(int(rows[0])),
    )
