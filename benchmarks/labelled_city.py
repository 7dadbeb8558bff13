"""A simulated city as detectors see it, with the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

import numpy as np

from meter_pipeline.anomalies.detect import lowest_and_sustained
from meter_pipeline.simulator.city import block
from meter_pipeline.simulator.effects import apply_to_totals, chunk_day, solar_ready
from meter_pipeline.simulator.plan import Plan, PlantedDefect, collector_size
from meter_pipeline.simulator.spec import MICRO_PER_QUANTUM, UNIT, Spec
from meter_pipeline.simulator.usage import day_totals, fahrenheit

#: story -> kinds of case that count as having found it, and the class it is reported under
FOUND_BY: dict[str, tuple[str, ...]] = {
    "leak": ("leak", "leak_drift"),
    "leak_drift": ("leak", "leak_drift"),
    "burst": ("burst", "spike"),
    "bypass": ("tamper_fall",),
    "usage_on_disconnected": ("usage_on_disconnected",),
    "reverse": ("reverse",),
    "stuck": ("stuck",),
    "dropout_meter": ("dropout_meter",),
    "dropout_collector": ("dropout_collector",),
    "dropout_head_end": ("dropout_head_end",),
}
REPORTED: dict[str, tuple[str, ...]] = {
    "leak": ("leak",),
    "leak_drift": ("leak_drift",),
    "burst": ("burst",),
    "tampering": ("bypass", "usage_on_disconnected"),
    "reverse": ("reverse",),
    "stuck": ("stuck",),
    "dropout": ("dropout_meter", "dropout_collector", "dropout_head_end"),
}


@dataclass(slots=True)
class CommodityDays:
    """Matrices (points, days) of one commodity, in whole units; layout as anomalies.window.Window."""

    commodity: str
    unit: str
    usage: np.ndarray
    coverage: np.ndarray
    export: np.ndarray
    customer_class: np.ndarray
    station: np.ndarray
    disconnected: np.ndarray
    head_end: np.ndarray
    collector: np.ndarray
    night: np.ndarray | None = None
    sustained: np.ndarray | None = None

    def points(self, which: slice | np.ndarray) -> CommodityDays:
        """Some of the points."""
        arrays: dict[str, np.ndarray | None] = {f.name: getattr(self, f.name) for f in fields(self)[2:]}
        chosen: dict[str, Any] = {name: None if values is None else values[which] for name, values in arrays.items()}
        return replace(self, **chosen)


@dataclass(slots=True)
class LabelledCity:
    """All commodities, their weather (stations, days) in °F, and the stories."""

    spec: Spec
    temperatures_f: np.ndarray
    parts: list[CommodityDays]
    stories: list[PlantedDefect]
    head_ends: list[str]
    collectors: list[str] = field(default_factory=list)


def labelled_city(spec: Spec) -> LabelledCity:
    """Simulate every day of the city. Reads that a story hides lower ``coverage``; their usage stays, as an estimate
    would stand there."""
    plan = Plan(spec)
    names = sorted({segment.head_end for segment in spec.segments})
    size = collector_size(spec)
    temperatures = np.stack([fahrenheit(spec, spec.day(d)) for d in range(spec.days)], axis=1)
    city = LabelledCity(spec, temperatures, [], plan.stories, names)
    for commodity, count in spec.counts.items():
        if not count:
            continue
        shape = (count, spec.days)
        traits = block(spec, commodity, 0, count)
        part = CommodityDays(
            commodity,
            UNIT[commodity],
            np.empty(shape),
            np.ones(shape),
            np.zeros(shape),
            traits.customer_class,
            traits.station,
            np.zeros(shape, bool),
            np.full(count, -1),
            np.full(count, -1),
        )
        for segment in (s for s in spec.segments if s.commodity == commodity):
            part.head_end[segment.first : segment.last] = names.index(segment.head_end)
            if segment.head_end == "AMI":
                base = len(city.collectors)
                behind = (np.arange(segment.first, segment.last) - segment.first) // size
                part.collector[segment.first : segment.last] = base + behind
                city.collectors += [f"AMI-{k}" for k in range(int(behind.max()) + 1)]
        if commodity == "water":
            part.night, part.sustained = np.full(shape, np.nan), np.full(shape, np.nan)
        for d in range(spec.days):
            _day(spec, plan, part, d, count)
        for story in plan.stories:
            if story.commodity == commodity and story.kind in (
                "usage_on_disconnected",
                "vacant",
            ):  # off or inactive in the reference
                part.disconnected[story.index, story.first : story.last + 1] = True
        quantum = MICRO_PER_QUANTUM[commodity] / 1e6 * traits.multiplier[:, None]
        part.usage *= quantum
        part.export *= quantum
        city.parts.append(part)
    return city


def _day(spec: Spec, plan: Plan, part: CommodityDays, d: int, count: int) -> None:
    day = spec.start + timedelta(days=d)
    stories = plan.on(part.commodity, d, 0, count)
    if part.night is not None and part.sustained is not None:
        segment = next(s for s in spec.segments if s.commodity == part.commodity)
        rows = chunk_day(spec, plan, segment, 0, count, day)
        part.usage[:, d], part.export[:, d] = rows.import_total, rows.export_total
        hourly = rows.values[:count] * (MICRO_PER_QUANTUM[part.commodity] / 1e6)
        low, held = lowest_and_sustained(hourly)
        hidden = [row for row, special in rows.special.items() if special.missing is not None and row < count]
        low[hidden], held[hidden] = np.nan, np.nan
        part.night[:, d], part.sustained[:, d] = low, held
    else:
        traits = block(spec, part.commodity, 0, count)
        traits = solar_ready(traits, [s for s in plan.of_kind("solar_arrival") if s.commodity == part.commodity], d)
        total, export = day_totals(spec, traits, day)
        apply_to_totals(spec, stories, day, 0, 24, total, export)
        part.usage[:, d], part.export[:, d] = total, export
    for story in stories:
        begin, end = story.window(24 if part.commodity != "electricity" else 96)
        share = (end - begin) / (24 if part.commodity != "electricity" else 96)
        if story.kind in ("gap_interval", "gap_hours", "gap_day", "dropout_meter"):
            part.coverage[story.index, d] = 1 - share
        elif story.kind in ("dropout_collector", "dropout_head_end"):
            part.coverage[story.index : story.index_last, d] = 1 - share
