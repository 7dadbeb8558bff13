"""A day of a range of service points, with all its faults: usage, metered
quantities, reported reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt

from meter_pipeline.simulator.city import Block, Floats, Ints, block
from meter_pipeline.simulator.plan import Plan, PlantedDefect
from meter_pipeline.simulator.spec import MICRO_PER_QUANTUM, Segment, Spec, meter_id
from meter_pipeline.simulator.usage import day_totals, export_weights, import_weights, share_out

#: The slot in which meters are exchanged is split: the old one measured this share of it.
_EXCHANGE_SPLIT = 0.4
_FLOWS = ("leak", "leak_drift", "burst")
_FACTORS = ("bypass", "reverse", "usage_on_disconnected", "stuck", "vacant", "vacation")


@dataclass(slots=True)
class RowEffects:
    """Differences of a reported row from a plain one. Slots count within the day."""

    missing: npt.NDArray[np.bool_] | None = None
    offset_s: npt.NDArray[np.int64] | None = None
    quality: dict[int, str] = field(default_factory=dict)
    late_days: int = 0
    first_values: Ints | None = None  # what was reported before the correction
    correction_days: int = 0
    rebroadcast_days: int = 0
    bad: list[tuple[int, PlantedDefect]] = field(default_factory=list)
    repeats: list[tuple[int, int, PlantedDefect]] = field(default_factory=list)  # slot, value of the second row


@dataclass(frozen=True, slots=True)
class Exchange:
    """A meter exchange on this day: what each meter measured of it (quanta) and when, in seconds after the
    day's start.
    """

    story: PlantedDefect
    index: int
    old_measured: int
    removed_s: int
    installed_s: int


@dataclass(slots=True)
class DayRows:
    """Reported intervals of a chunk of one head-end on one day, in units of the feed's last decimal (Wh, 0.1 gal, 0.1
    ft3).

    ``ids``, ``channels``, ``index`` have one element per row of ``values``; ``import_total`` and ``export_total`` one
    per service point of the chunk: what the meter standing there measured that day, in quanta of its dial.
    """

    segment: Segment
    day: date
    traits: Block
    ids: list[str]
    channels: list[str]
    index: Ints
    values: Ints
    import_total: Ints
    export_total: Ints
    special: dict[int, RowEffects] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    notes: dict[int, dict[str, int | str]] = field(default_factory=dict)


def solar_ready(traits: Block, stories: list[PlantedDefect], day_index: int) -> Block:
    """The traits with panels that are not yet there taken away. The channel stays: the meter reports zero on it."""
    for story in stories:
        if story.kind == "solar_arrival" and day_index < story.first:
            traits.solar[story.index - traits.first] = 0.0
    return traits


def apply_to_totals(
    spec: Spec, stories: list[PlantedDefect], day: date, first: int, slots: int, total: Ints, export: Ints
) -> dict[int, tuple[int, int, int]]:
    """Change a day's totals in place by the stories that change use; return {row: (flow total, slot, slot after)} of
    constant flows.

    The flow is in the total already: intervals share out the rest by weight and the flow evenly over its window.
    """
    day_index = (day - spec.start).days
    seconds = spec.calendar.seconds(day)
    flows: dict[int, tuple[int, int, int]] = {}
    for story in stories:
        if story.kind == "outage":
            begin, end = story.window(slots)
            a, b = max(story.index, first) - first, min(story.index_last, first + len(total)) - first
            total[a:b] -= total[a:b] * (end - begin) // slots
            export[a:b] -= export[a:b] * (end - begin) // slots
            continue
        row = story.index - first
        if not 0 <= row < len(total):
            continue
        if story.kind in _FACTORS or (story.kind == "move" and day_index >= story.first):
            factor = story.amount
            if story.kind == "move" and day_index < story.first + 2:
                factor = 0.03  # two empty days between the tenants
            if story.kind == "stuck":
                factor = 0.0
            total[row] = round(int(total[row]) * factor)
        elif story.kind in _FLOWS:
            begin, end = story.window(slots)
            share = seconds * (end - begin) // slots
            rate = story.amount * (1 + (day_index - story.first)) if story.kind == "leak_drift" else story.amount
            flow = int(rate * share / 3600)
            flows[row] = (flow, begin, end)
            total[row] += flow
    return flows


def chunk_day(spec: Spec, plan: Plan, segment: Segment, first: int, last: int, day: date) -> DayRows:
    """Reported reads of service points first .. last (excluded) of a head-end on a billing day."""
    traits = block(spec, segment.commodity, first, last)
    day_index = (day - spec.start).days
    panels = np.flatnonzero(traits.solar > 0)
    arrivals = [s for s in plan.of_kind("solar_arrival") if first <= s.index < last]
    traits = solar_ready(traits, arrivals, day_index)
    stories = plan.on(segment.commodity, day_index, first, last)
    slots = spec.calendar.slots(day, segment.interval_minutes)
    total, export = day_totals(spec, traits, day)
    flows = apply_to_totals(spec, stories, day, first, slots, total, export)
    rows = DayRows(segment, day, traits, [], [], np.zeros(0, np.int64), np.zeros((0, slots), np.int64), total, export)
    if segment.file_format == "register":
        return rows
    rows.values = _intervals(spec, traits, stories, day, segment.interval_minutes, panels, total, export, flows)
    replaced = {s.index for s in _exchanges(plan, segment, first, last) if s.first < day_index}
    everyone = np.arange(first, last, dtype=np.int64)
    rows.index = np.concatenate([everyone, panels + first])
    rows.ids = [meter_id(segment.commodity, i, exchanged=i in replaced) for i in rows.index.tolist()]
    main = {"electricity": "E1", "water": "W1", "gas": "G1"}[segment.commodity]
    rows.channels = [main] * len(everyone) + ["B1"] * len(panels)
    export_row = {int(row): len(everyone) + k for k, row in enumerate(panels)}
    added: list[Ints] = []
    for story in stories:
        _report(spec, rows, story, export_row, added)
    if added:
        rows.values = np.concatenate([rows.values, np.stack(added)])
    for row, special in rows.special.items():
        if special.missing is not None:
            rows.values[row][special.missing] = 0
    return rows


def _exchanges(plan: Plan, segment: Segment, first: int, last: int) -> list[PlantedDefect]:
    return [
        s
        for s in plan.of_kind("exchange", "exchange_overlap", "exchange_gap")
        if s.commodity == segment.commodity and first <= s.index < last
    ]


def _intervals(
    spec: Spec,
    traits: Block,
    stories: list[PlantedDefect],
    day: date,
    interval_minutes: int,
    panels: Ints,
    total: Ints,
    export: Ints,
    flows: dict[int, tuple[int, int, int]],
) -> Ints:
    """(meters + panels, slots) true intervals in units of the feed: each row sums to its total exactly."""
    slots = spec.calendar.slots(day, interval_minutes)
    weights = import_weights(spec, traits, day, interval_minutes)
    sun = export_weights(spec, traits, panels, day, interval_minutes) if panels.size else np.zeros((0, slots))
    for story in stories:
        if story.kind == "outage":
            begin, end = story.window(slots)
            a, b = (
                max(story.index, traits.first) - traits.first,
                min(story.index_last, traits.first + traits.size) - traits.first,
            )
            _dark(weights[a:b], begin, end)
            mine = np.flatnonzero((panels >= a) & (panels < b))
            sun[mine, begin:end] = 0.0
    shared = total.copy()
    for row, (flow, _, _) in flows.items():
        shared[row] -= flow
    values = share_out(shared, weights)
    for row, (flow, begin, end) in flows.items():
        edges = flow * np.arange(end - begin + 1, dtype=np.int64) // (end - begin)
        values[row, begin:end] += np.diff(edges)
    if panels.size:
        values = np.concatenate([values, share_out(export[panels], sun)])
        multiplier = np.concatenate([traits.multiplier, traits.multiplier[panels]])
    else:
        multiplier = traits.multiplier
    if (multiplier != 1).any():
        values *= multiplier[:, None]
    return values


def _dark(weights: Floats, begin: int, end: int) -> None:
    """No use in the window; a row that has no other weight keeps one outside it, so that its total does not fall back
    into the window."""
    weights[:, begin:end] = 0.0
    empty = weights.sum(axis=1) == 0
    weights[empty, 0 if begin > 0 else -1] = 1.0


def _special(rows: DayRows, row: int) -> RowEffects:
    return rows.special.setdefault(row, RowEffects())


def _hide(rows: DayRows, row: int, begin: int, end: int) -> None:
    special = _special(rows, row)
    if special.missing is None:
        special.missing = np.zeros(rows.values.shape[1], np.bool_)
    special.missing[begin:end] = True


def _note(rows: DayRows, story: PlantedDefect, **facts: int | str) -> None:
    rows.notes.setdefault(story.number, {}).update(facts)


def _report(spec: Spec, rows: DayRows, story: PlantedDefect, export_row: dict[int, int], added: list[Ints]) -> None:
    """Apply one reporting story to the chunk's rows. A row of a new meter goes to ``added``, its key to the chunk's at
    once."""
    slots = rows.values.shape[1]
    begin, end = story.window(slots)
    first = rows.traits.first
    micro = MICRO_PER_QUANTUM[rows.segment.commodity]
    row = story.index - first
    kind = story.kind
    if kind == "hour_shift":
        if story.head_end == rows.segment.head_end:
            rows.values = np.roll(rows.values, 60 // rows.segment.interval_minutes, axis=1)
        return
    if kind in ("dropout_collector", "dropout_head_end"):
        if story.head_end == rows.segment.head_end:
            for at in range(max(story.index, first), min(story.index_last, first + rows.traits.size)):
                _hide(rows, at - first, begin, end)
                if at - first in export_row:
                    _hide(rows, export_row[at - first], begin, end)
        return
    if not 0 <= row < rows.traits.size or story.head_end != rows.segment.head_end:
        return
    values = rows.values[row]
    if kind in ("gap_interval", "gap_hours", "gap_day", "dropout_meter"):
        _note(rows, story, expected=int(values[begin:end].sum()) * micro)
        _hide(rows, row, begin, end)
        if row in export_row:
            _hide(rows, export_row[row], begin, end)
    elif kind == "spike":
        _note(rows, story, expected=int(values[begin]) * micro)
        values[begin] = max(10 * int(rows.traits.multiplier[row]), int(values.max())) * int(story.amount)
        _note(rows, story, reported=int(values[begin]) * micro)
    elif kind == "negative":
        _note(rows, story, expected=int(values[begin]) * micro)
        values[begin] = -max(int(values[begin]), 10)
        _note(rows, story, reported=int(values[begin]) * micro)
    elif kind == "consecutive":
        _note(rows, story, expected=int(values[begin:end].sum()) * micro)
        values[begin:end] = max(int(values[begin]), 7)
        _note(rows, story, reported=int(values[begin:end].sum()) * micro)
    elif kind in ("clock_drift", "clock_drift_tolerated"):
        _special(rows, row).offset_s = np.full(slots, int(story.amount), np.int64)
    elif kind == "truncated_interval":
        offset = np.zeros(slots, np.int64)
        offset[begin] = int(story.amount) if rows.segment.interval_minutes > 7 else 120
        _special(rows, row).offset_s = offset
        _note(rows, story, expected=int(values[begin]) * micro)
        values[begin] = int(values[begin]) * 2 // 3
    elif kind == "test_mode":
        _note(rows, story, expected=int(values[begin:end].sum()) * micro)
        values[begin:end] = 4 * max(int(values.max()), 25)
        _special(rows, row).quality.update(dict.fromkeys(range(begin, end), "TEST"))
    elif kind == "pulse_overflow":
        _note(rows, story, expected=int(values[begin]) * micro)
        values[begin] = 65_535
        _special(rows, row).quality[begin] = "OVERFLOW"
    elif kind == "late":
        for both in [row, *([export_row[row]] if row in export_row else [])]:
            _special(rows, both).late_days = max(1, int(story.amount))
    elif kind == "correction":
        special = _special(rows, row)
        special.first_values = values.copy()
        special.first_values[begin:end] = special.first_values[begin:end] * 3 // 2 + 11
        special.correction_days = max(1, int(story.amount))
        _note(rows, story, expected=int(values[begin:end].sum()) * micro)
    elif kind == "rebroadcast":
        _special(rows, row).rebroadcast_days = max(1, int(story.amount))
    elif kind in ("duplicate_row", "duplicate_sequence"):
        value = int(values[begin])
        second = value if kind == "duplicate_row" else value + 37
        _special(rows, row).repeats.append((begin, second, story))
        _note(rows, story, expected=value * micro)
    elif kind.startswith("bad_") or kind in ("future_time", "unknown_meter"):
        _special(rows, row).bad.append((begin, story))
        if kind.startswith("bad_"):  # the bad row stands where the good one was: its read is lost
            _note(rows, story, expected=int(values[begin]) * micro)
            _hide(rows, row, begin, begin + 1)
    elif kind in ("exchange", "exchange_overlap", "exchange_gap") and (rows.day - spec.start).days == story.first:
        added.append(_exchange(rows, story, row, begin, end, spec.calendar.seconds(rows.day)))


def _exchange(rows: DayRows, story: PlantedDefect, row: int, begin: int, end: int, seconds: int) -> Ints:
    """Split the row between the old meter and the new one, whose values are returned."""
    interval = rows.segment.interval_minutes * 60
    slots = rows.values.shape[1]
    end = min(max(end, begin + 1), slots - 1)
    multiplier = int(rows.traits.multiplier[row])
    true = rows.values[row].copy()
    removal, installation = {
        "exchange": (begin, begin),
        "exchange_overlap": (end, begin),
        "exchange_gap": (begin, end),
    }[story.kind]

    def before(slot: int) -> int:
        return int(int(true[slot]) // multiplier * _EXCHANGE_SPLIT) * multiplier

    old: Ints = true.copy()
    new: Ints = true.copy()
    old[removal] = before(removal)
    old[removal + 1 :] = 0
    new[installation] = int(true[installation]) - before(installation)
    new[:installation] = 0
    rows.values[row] = old
    rows.ids.append(meter_id(rows.segment.commodity, story.index, exchanged=True))
    rows.channels.append(rows.channels[row])
    rows.index = np.append(rows.index, story.index)
    _hide(rows, row, removal + 1, slots)
    _hide(rows, len(rows.ids) - 1, 0, installation)
    part = int(interval * _EXCHANGE_SPLIT)
    rows.exchanges.append(
        Exchange(
            story,
            story.index,
            int(old.sum()) // multiplier,
            min(removal * interval + part, seconds),
            min(installation * interval + part, seconds),
        )
    )
    rows.import_total[row] = int(new.sum()) // multiplier
    _note(
        rows,
        story,
        expected=int(true.sum()) * MICRO_PER_QUANTUM[rows.segment.commodity],
        old_measured=int(old.sum()) * MICRO_PER_QUANTUM[rows.segment.commodity],
        new_measured=int(new.sum()) * MICRO_PER_QUANTUM[rows.segment.commodity],
    )
    return new
