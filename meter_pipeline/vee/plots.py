"""Small pictures of a validated day: PNG bytes under 20 kB, for asset metadata and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.plotting import small_png
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.units import MICRO
from meter_pipeline.vee.rules.catalogue import ROW_RULES, codes

QUALITY_WORDS: Final = {
    "A": "actual",
    "V": "of several kinds",
    "F": "final substitute",
    "S": "substitute",
    "E": "forward estimate",
    "N": "null",
    "M": "nothing came",
}
_INK: Final = {"actual": "#35618f", "estimated": "#d98b2b", "rejected": "#b3372f", "register": "#4a4a4a"}


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def load_shape(shape: pl.DataFrame, title: str) -> bytes:
    """The day's load by slot: validated, estimated on top, and rejected, one panel per unit, flow and interval
    length."""
    panels = shape.select("unit", "flow", "interval_minutes").unique(maintain_order=True).rows()[:4]
    figure, axes = _figure(6.4, 1.0 + 1.5 * max(len(panels), 1), max(len(panels), 1))
    for axis, (unit, flow, minutes) in zip(axes[:, 0], panels, strict=False):
        part = shape.filter(
            (pl.col("unit") == unit) & (pl.col("flow") == flow) & (pl.col("interval_minutes") == minutes)
        ).sort("slot")
        hour = part["slot"].to_numpy() * minutes / 60
        actual, estimated = part["actual"].to_numpy() / MICRO, part["estimated"].to_numpy() / MICRO
        axis.fill_between(hour, actual, color=_INK["actual"], step="post", linewidth=0, label="validated as read")
        axis.fill_between(
            hour, actual, actual + estimated, color=_INK["estimated"], step="post", linewidth=0, label="estimated"
        )
        axis.step(
            hour,
            part["rejected"].to_numpy() / MICRO,
            color=_INK["rejected"],
            where="post",
            linewidth=0.8,
            label="rejected",
        )
        axis.set_ylabel(f"{unit} {flow}", fontsize=7)
        axis.tick_params(labelsize=6)
        axis.set_xlim(0, max(float(hour.max()) if hour.size else 24.0, 1.0))
    axes[0, 0].set_title(title, fontsize=9)
    axes[0, 0].legend(fontsize=6, ncols=3, frameon=False)
    axes[-1, 0].set_xlabel("hour of the billing day", fontsize=7)
    return small_png(figure)


def estimates_by_method(methods: Mapping[str, int], title: str) -> bytes:
    """Bars of estimated intervals by quality flag and method."""
    figure, axes = _figure(4.6, 0.8 + 0.25 * max(len(methods), 1))
    axis = axes[0, 0]
    names = sorted(methods, key=lambda n: methods[n])
    axis.barh(names, [methods[n] for n in names], color=_INK["estimated"])
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    return small_png(figure)


def meter_day(
    raw: np.ndarray[Any, Any],
    final: np.ndarray[Any, Any],
    codes_of: np.ndarray[Any, Any],
    minutes: int,
    unit: str,
    title: str,
) -> bytes:
    """One meter's day: raw, final and estimated values. Arrays (slots,) in micro units with NO_VALUE for none."""
    figure, axes = _figure(6.4, 2.2)
    _draw_meter(axes[0, 0], raw, final, codes_of, minutes)
    axes[0, 0].set_title(title, fontsize=8)
    axes[0, 0].set_ylabel(unit, fontsize=7)
    axes[0, 0].legend(fontsize=6, frameon=False, ncols=3)
    return small_png(figure)


def worst_meters(meters: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Small multiples of the worst meters: mappings with raw, final, quality, minutes, unit, name, row_flags."""
    shown = list(meters)[:6]
    figure, axes = _figure(6.4, 0.6 + 1.15 * max((len(shown) + 1) // 2, 1), max((len(shown) + 1) // 2, 1), 2)
    for axis, meter in zip(axes.ravel(), shown, strict=False):
        _draw_meter(axis, meter["raw"], meter["final"], meter["quality"], meter["minutes"])
        hits = ", ".join(codes(ROW_RULES, int(meter["row_flags"])))
        axis.set_title(f"{meter['name']}: {hits}"[:58], fontsize=6)
    for axis in axes.ravel()[len(shown) :]:
        axis.axis("off")
    figure.suptitle(title, fontsize=8)
    return small_png(figure)


def sum_checks(worst: pl.DataFrame, title: str) -> bytes | None:
    """Bars of the channel-days furthest from their register, in percent of it: ``worst`` as from outcome.worst_rows;
    None where all agree."""
    off = worst.filter(pl.col("miss_micro") > 0).head(12).reverse()
    if not off.height:
        return None
    figure, axes = _figure(6.4, 0.8 + 0.22 * off.height)
    axis = axes[0, 0]
    names = [f"{meter} {channel}" for meter, channel in off.select("meter_id", "channel").iter_rows()]
    at, failed = np.arange(off.height), (off["row_flags"].to_numpy() & ROW_RULES["SUM_CHECK"].mask) != 0
    miss = off["miss_micro"].to_numpy() / MICRO
    share = 100 * miss / np.maximum(np.abs(off["total_micro"].to_numpy() / MICRO), 1e-6)
    axis.barh(at, share, color=np.where(failed, _INK["rejected"], _INK["register"]))
    for k in range(off.height):
        axis.text(share[k], at[k], f" {miss[k]:g} {off['unit'][k]}", va="center", fontsize=6)
    axis.set_yticks(at, names, fontsize=6)
    axis.set_xlabel(
        "percent of the day's intervals that the register does not bear out; red: the sum check failed", fontsize=6
    )
    axis.tick_params(axis="x", labelsize=6)
    axis.margins(x=0.2)
    axis.set_title(title, fontsize=9)
    return small_png(figure)


def usage_by_quality(usage: pl.DataFrame, title: str) -> bytes:
    """Service points of each commodity and flow by the worst quality of their day: columns commodity, flow, quality (a
    flag), points."""
    groups = usage.select("commodity", "flow").unique(maintain_order=True).sort("commodity", "flow").rows()
    figure, axes = _figure(6.4, 0.9 + 0.3 * max(len(groups), 1))
    axis, left = axes[0, 0], np.zeros(len(groups))
    colours = {
        "A": _INK["actual"],
        "V": "#6d8fb5",
        "F": "#7a9a5b",
        "S": _INK["estimated"],
        "E": "#e3b778",
        "N": _INK["rejected"],
        "M": _INK["register"],
    }
    for flag, colour in colours.items():
        found = {
            (c, f): n for c, f, q, n in usage.select("commodity", "flow", "quality", "points").iter_rows() if q == flag
        }
        if not found:
            continue
        wide = np.array([found.get(group, 0) for group in groups], float)
        axis.barh(np.arange(len(groups)), wide, left=left, color=colour, label=QUALITY_WORDS[flag])
        left += wide
    axis.set_yticks(np.arange(len(groups)), [" ".join(group) for group in groups], fontsize=7)
    axis.tick_params(axis="x", labelsize=6)
    axis.set_xlabel("service points", fontsize=7)
    axis.legend(fontsize=6, ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.suptitle(title, fontsize=9)
    return small_png(figure)


def _draw_meter(
    axis: Any, raw: np.ndarray[Any, Any], final: np.ndarray[Any, Any], codes_of: np.ndarray[Any, Any], minutes: int
) -> None:
    hour = np.arange(final.size) * minutes / 60
    estimated = np.isin(codes_of >> 13, [quality.FLAGS.index(f) for f in "SFE"]) & (final != NO_VALUE)
    shown = np.where(final == NO_VALUE, np.nan, final / MICRO)
    axis.step(hour, shown, where="post", color=_INK["actual"], linewidth=0.9, label="final")
    axis.plot(hour[estimated], shown[estimated], ".", color=_INK["estimated"], markersize=3, label="estimated")
    rejected = (raw != NO_VALUE) & (raw != final)
    top = float(np.nanmax(shown)) if np.isfinite(shown).any() else 1.0
    axis.plot(
        hour[rejected],
        np.clip(raw[rejected] / MICRO, -0.2 * top, 1.6 * top),
        "x",
        color=_INK["rejected"],
        markersize=3,
        label="rejected",
    )
    axis.tick_params(labelsize=5)
    # Six small panels: each tick is measured several times over by the layout, which was half of the time of the
    # picture.
    axis.set_xticks(range(0, int(final.size * minutes / 60) + 1, 6))
    axis.locator_params(axis="y", nbins=3)
