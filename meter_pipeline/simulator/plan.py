"""The faults of a simulation with place and time: drawn from the seed before any read exists.

Each service point has at most one story, so that a detector's answer about it can be judged. Benign events (a move, a
vacation, solar panels) are planted and named too: taking one for a fault is a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.simulator.city import block
from meter_pipeline.simulator.randomness import generator
from meter_pipeline.simulator.spec import Segment, Spec


@dataclass(frozen=True, slots=True)
class PointTraits:
    """The few traits that decide which defect can befall which service point, of every service point of a commodity."""

    customer_class: npt.NDArray[np.int8]
    sunny: npt.NDArray[np.bool_]
    ratio: npt.NDArray[np.bool_]
    time_of_use: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, spec: Spec, commodity: str) -> PointTraits:
        parts = []
        for first in range(0, spec.counts[commodity], 50_000):
            traits = block(spec, commodity, first, min(first + 50_000, spec.counts[commodity]))
            parts.append(
                (traits.customer_class.astype(np.int8), traits.solar > 0, traits.multiplier > 1, traits.time_of_use)
            )
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


Traits = Callable[[PointTraits, int], bool]


@dataclass(frozen=True, slots=True)
class PlantedDefect:
    """One story of one service point (or of a group, ``index`` to ``index_last``), from the first to the last day
    (indices, both included).

    ``amount`` is the kind's own measure: a factor of use, quanta per hour, seconds of drift, days of delay. ``slot``
    and ``slots`` are the window in a day, in hundredths of the day, so that they mean the same at any interval length.
    """

    kind: str
    commodity: str
    head_end: str
    index: int
    first: int
    last: int
    amount: float = 0.0
    slot: float = 0.0
    slots: float = 1.0
    index_last: int = -1
    number: int = -1

    def window(self, slots: int) -> tuple[int, int]:
        """The half-open range of slots in a day that has so many: at least one."""
        start = min(int(self.slot * slots), slots - 1)
        return start, max(start + 1, min(slots, int((self.slot + self.slots) * slots)))


@dataclass(frozen=True, slots=True)
class Kind:
    """How often a defect is planted: meters per thousand of each commodity it can befall, on which feeds, and whether
    it is a fault."""

    name: str
    per_thousand: dict[str, float]
    span: str  # day: one day; rest: from a day to the end; days: a few days
    amount: tuple[float, float] = (0.0, 0.0)
    length: tuple[int, int] = (1, 1)  # days, for span "days"
    window: tuple[float, float] = (1.0, 1.0)  # share of the day
    formats: tuple[str, ...] = ("delimited", "jsonl", "nem12", "cmep")
    eligible: Traits | None = None


def _residential(seen: PointTraits, at: int) -> bool:
    return int(seen.customer_class[at]) == 0 and not seen.sunny[at]


def _solar(seen: PointTraits, at: int) -> bool:
    return bool(seen.sunny[at])


def _plain(seen: PointTraits, at: int) -> bool:
    return not seen.sunny[at]


def _tiered(seen: PointTraits, at: int) -> bool:
    return _residential(seen, at) and not seen.time_of_use[at]


def _current_transformer(seen: PointTraits, at: int) -> bool:
    return bool(seen.ratio[at])


def _all(rate: float) -> dict[str, float]:
    return {"electricity": rate, "water": rate, "gas": rate}


_TEXT: Final = ("delimited",)
_EDITED: Final = ("delimited", "jsonl")

#: Kinds that change the metered quantity: the register agrees with the intervals.
USAGE_KINDS: Final = (
    Kind("leak", {"water": 8}, "rest", (20, 150)),
    Kind("leak_drift", {"water": 4}, "rest", (1.5, 5)),
    Kind("burst", {"water": 3}, "day", (2_000, 6_000), window=(0.15, 0.4)),
    Kind("bypass", {"electricity": 3, "gas": 1}, "rest", (0.08, 0.4), eligible=_plain),
    Kind("reverse", {"electricity": 1.5, "water": 1}, "days", (-0.9, -0.3), (3, 20), eligible=_plain),
    Kind("usage_on_disconnected", {"electricity": 1.5, "water": 1}, "days", (0.3, 0.8), (4, 30), eligible=_residential),
    Kind("stuck", {"electricity": 1.5, "water": 3, "gas": 3}, "days", (0, 0), (5, 25), eligible=_plain),
    Kind("vacant", _all(2), "days", (0, 0), (3, 40), eligible=_residential),
    Kind("move", _all(3), "rest", (0.5, 1.9), eligible=_residential),
    Kind("vacation", _all(4), "days", (0.12, 0.3), (4, 12), eligible=_residential),
    Kind("solar_arrival", {"electricity": 2}, "rest", eligible=_solar),
)
#: Kinds that change which meter measures, or how its dial shows it.
METER_KINDS: Final = (
    Kind("exchange", _all(2), "day", window=(0.0, 0.01), formats=("delimited", "jsonl"), eligible=_plain),
    Kind(
        "exchange_overlap",
        {"electricity": 1.5, "water": 1},
        "day",
        window=(0.04, 0.15),
        formats=_EDITED,
        eligible=_plain,
    ),
    Kind(
        "exchange_gap", {"electricity": 1.5, "water": 1}, "day", window=(0.04, 0.15), formats=_EDITED, eligible=_plain
    ),
    Kind("rollover", _all(1.5), "day", eligible=_plain),
    Kind("register_back", {"electricity": 1, "water": 1}, "day", (50, 400)),
    Kind("missing_register", _all(2), "day"),
    Kind("no_agreement", _all(1), "rest"),
)
#: Kinds that change what is reported: the register keeps the truth.
REPORT_KINDS: Final = (
    Kind("gap_interval", {"electricity": 4}, "day", window=(0.01, 0.08)),
    Kind("gap_hours", _all(4), "day", window=(0.1, 0.8)),
    Kind("gap_day", _all(2), "day"),
    Kind("dropout_meter", _all(2), "days", length=(2, 10)),
    Kind("spike", {"electricity": 3}, "day", (15, 60), window=(0.0, 0.0)),
    Kind("negative", {"electricity": 1, "water": 1, "gas": 1}, "day", window=(0.0, 0.0), formats=_EDITED),
    Kind("consecutive", {"electricity": 1.5}, "day", window=(0.25, 0.5)),
    Kind("clock_drift_tolerated", {"electricity": 2}, "days", (5, 25), (1, 3), formats=_EDITED, eligible=_plain),
    Kind("clock_drift", {"electricity": 1.5}, "days", (240, 420), (1, 2), formats=_EDITED, eligible=_plain),
    Kind(
        "truncated_interval", {"electricity": 1}, "day", (240, 420), window=(0.0, 0.0), formats=_EDITED, eligible=_plain
    ),
    Kind("test_mode", {"electricity": 1}, "day", window=(0.04, 0.1), formats=_EDITED),
    Kind("pulse_overflow", {"electricity": 1}, "day", window=(0.0, 0.0), formats=_EDITED),
    Kind("late", _all(4), "day", (1, 4), formats=_EDITED),
    Kind("correction", _all(2), "day", (1, 3), window=(0.1, 0.3), formats=_EDITED),
    Kind("rebroadcast", _all(2), "day", (1, 2), formats=_TEXT),
    Kind("duplicate_row", {"electricity": 1}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("duplicate_sequence", {"electricity": 1, "water": 1}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_nan", {"electricity": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_huge", {"electricity": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_text", {"electricity": 0.5, "water": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_truncated_row", {"electricity": 0.5, "gas": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_missing_zone", {"electricity": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("bad_encoding", {"electricity": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("future_time", {"electricity": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
    Kind("unknown_meter", {"electricity": 0.5, "water": 0.5}, "day", window=(0.0, 0.0), formats=_TEXT),
)
#: Kinds that live in the reference tables: a contract that changes within a cycle, and a ratio that was entered wrong.
PAPER_KINDS: Final = (
    Kind("tariff_change", {"electricity": 1.5}, "rest", eligible=_tiered),
    Kind("wrong_multiplier", {"electricity": 1}, "rest", eligible=_current_transformer),
)
KINDS: Final = USAGE_KINDS + METER_KINDS + REPORT_KINDS + PAPER_KINDS
#: Events of ordinary life: in the truth so that they can be distinguished from faults.
BENIGN: Final = frozenset(
    {
        "vacant",
        "move",
        "vacation",
        "solar_arrival",
        "exchange",
        "exchange_overlap",
        "exchange_gap",
        "rollover",
        "outage",
        "clock_drift_tolerated",
        "late",
        "correction",
        "rebroadcast",
        "duplicate_file",
        "tariff_change",
    }
)
_MOST_STORIES = 0.6  # of a commodity's meters, so that a small city keeps ordinary ones


class Plan:
    """Every story of a city, with the ones of a day and range of meters found quickly."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        drawn = _draw(spec) if spec.defects else iter(())
        self.stories: list[PlantedDefect] = [replace(story, number=n) for n, story in enumerate(drawn)]
        self._by_day: dict[tuple[str, int], list[PlantedDefect]] = {}
        for story in self.stories:
            for day in range(story.first, min(story.last, spec.days - 1) + 1):
                self._by_day.setdefault((story.commodity, day), []).append(story)
        for found in self._by_day.values():
            found.sort(key=lambda s: (s.index, s.kind))

    def on(self, commodity: str, day: int, first: int, last: int) -> list[PlantedDefect]:
        """Stories under way on a day (index) that touch service points first .. last (excluded), in order."""
        return [
            s
            for s in self._by_day.get((commodity, day), ())
            if first <= s.index < last or (s.index_last >= 0 and s.index < last and s.index_last > first)
        ]

    def of_kind(self, *kinds: str) -> list[PlantedDefect]:
        return [s for s in self.stories if s.kind in kinds]


def _draw(spec: Spec) -> Iterator[PlantedDefect]:
    for commodity, count in spec.counts.items():
        if count == 0:
            continue
        segments = [s for s in spec.segments if s.commodity == commodity and s.file_format != "register"]
        seen = PointTraits.of(spec, commodity)
        order = generator(spec.seed, f"stories-{commodity}").permutation(count).tolist()
        cursor = 0
        for kind in KINDS:
            rate = kind.per_thousand.get(commodity, 0.0)
            if not rate:
                continue
            wanted = round(count * rate * spec.intensity / 1000)
            if count >= 40 and spec.intensity > 0:
                wanted = max(1, wanted)
            found = 0
            skipped: list[int] = []
            while (
                found < wanted
                and cursor < len(order)
                and len(order) - cursor + len(skipped) > count * (1 - _MOST_STORIES)
            ):
                index = order[cursor]
                cursor += 1
                segment = next((s for s in segments if s.first <= index < s.last), None)
                if segment is None or not _fits(kind, segment, seen, index):
                    skipped.append(index)
                    continue
                yield _story(spec, kind, segment, index)
                found += 1
            order[cursor:cursor] = skipped
        yield from _outages(spec, commodity, segments)
    yield from _head_ends(spec)


def _fits(kind: Kind, segment: Segment, seen: PointTraits, index: int) -> bool:
    return segment.file_format in kind.formats and (kind.eligible is None or kind.eligible(seen, index))


def _story(spec: Spec, kind: Kind, segment: Segment, index: int) -> PlantedDefect:
    draw = generator(spec.seed, f"story-{kind.name}-{segment.commodity}", index)
    days = spec.days
    # Long runs leave a season of ordinary days first, so that a baseline exists when the fault begins.
    earliest = min(days - 1, days // 3) if days >= 90 and kind.span != "day" else 0
    latest = max(earliest + 1, days - 20) if days >= 90 and kind.span != "day" else days
    first = int(draw.integers(earliest, latest))
    if (
        kind.name in ("exchange", "exchange_overlap", "exchange_gap", "solar_arrival", "move", "tariff_change")
        and days > 1
    ):
        first = max(first, 1)
    if kind.name == "wrong_multiplier":
        first = 0  # it was wrong from the day the meter was installed
    length = int(draw.integers(kind.length[0], kind.length[1] + 1))
    last = {"day": first, "rest": days - 1, "days": min(days - 1, first + length - 1)}[kind.span]
    amount = kind.amount[0] + (kind.amount[1] - kind.amount[0]) * float(draw.integers(0, 1 << 20)) / (1 << 20)
    share = kind.window[0] + (kind.window[1] - kind.window[0]) * float(draw.integers(0, 1 << 20)) / (1 << 20)
    # Midnight is left alone: a defect at the very edge of a day belongs to two.
    slot = 0.0 if share >= 1.0 else 0.06 + float(draw.integers(0, 1 << 20)) / (1 << 20) * max(0.0, 0.88 - share)
    return PlantedDefect(kind.name, segment.commodity, segment.head_end, index, first, last, amount, slot, share)


def _outages(spec: Spec, commodity: str, segments: list[Segment]) -> Iterator[PlantedDefect]:
    """Feeders without power for some hours: neighbours fall to zero together."""
    if commodity != "electricity" or spec.intensity <= 0:
        return
    count = spec.counts[commodity]
    draw = generator(spec.seed, "outages")
    size = max(4, min(400, count // 40))
    for _ in range(max(1, count * spec.days // 200_000) if count >= 40 else 0):
        first = int(draw.integers(0, max(1, count - size)))
        day = int(draw.integers(0, spec.days))
        slot = 0.1 + float(draw.integers(0, 1 << 20)) / (1 << 20) * 0.5
        hours = 0.05 + float(draw.integers(0, 1 << 20)) / (1 << 20) * 0.2
        yield PlantedDefect("outage", commodity, "", first, day, day, 0.0, slot, hours, first + size)


def _head_ends(spec: Spec) -> Iterator[PlantedDefect]:
    """Faults of a collector or of a whole head-end: one of each, and more in a long range."""
    segments = {s.head_end: s for s in spec.segments}
    ami, small, mesh, water = (segments.get(name) for name in ("AMI", "CMEP", "MESH", "WATER"))
    if spec.intensity <= 0:
        return
    for time in range(max(1, spec.days // 40)):
        draw = generator(spec.seed, "head-ends", time)
        if ami is not None and ami.meters >= 40:
            size = collector_size(spec)
            collector = int(draw.integers(0, max(1, ami.meters // size)))
            day = int(draw.integers(0, spec.days))
            first = ami.first + collector * size
            yield PlantedDefect(
                "dropout_collector", "electricity", "AMI", first, day, day, 0.0, 0.3, 0.25, min(first + size, ami.last)
            )
        if small is not None and small.meters >= 4 and spec.days >= 2 and time <= spec.days // 80:
            day = int(draw.integers(1, spec.days))
            yield PlantedDefect(
                "dropout_head_end", "electricity", "CMEP", small.first, day, day, 0.0, 0.2, 0.1, small.last
            )
        if mesh is not None and mesh.meters >= 4 and spec.days >= 3 and time <= spec.days // 160:
            day = int(draw.integers(2, spec.days))
            yield PlantedDefect("hour_shift", "electricity", "MESH", mesh.first, day, day, 3600.0, 0.0, 1.0, mesh.last)
        if water is not None and spec.days >= 2 and water.meters >= 10 and time == 0:
            day = int(draw.integers(0, spec.days))
            yield PlantedDefect("duplicate_file", "water", "WATER", -1, day, day, 1.0)


def collector_size(spec: Spec) -> int:
    """Meters behind one collector."""
    return max(5, min(500, spec.counts["electricity"] // 20))


def affected(story: PlantedDefect) -> range:
    """Indices of the service points a story touches."""
    if story.index_last >= 0:
        return range(story.index, story.index_last)
    return range(story.index, story.index + 1) if story.index >= 0 else range(0)
