"""Registers: dials that add up the metered quantities exactly, roll over, and change with the meter."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from meter_pipeline.simulator.city import Ints, block
from meter_pipeline.simulator.effects import DayRows
from meter_pipeline.simulator.plan import Plan, PlantedDefect
from meter_pipeline.simulator.randomness import draws
from meter_pipeline.simulator.spec import Segment, Spec, meter_id


@dataclass(frozen=True, slots=True)
class RegisterReads:
    """Reads of one chunk: ``dial`` in quanta (the last decimal shown), ``second`` after the day's start at which it was
    read."""

    ids: list[str]
    channels: list[str]
    dial: Ints
    second: Ints

    @classmethod
    def at(cls, ids: list[str], dials: list[int], second: int) -> RegisterReads:
        """Reads of one register of each meter, all at the same time."""
        return cls(ids, ["R1"] * len(ids), np.array(dials, np.int64), np.full(len(ids), second, np.int64))


@dataclass(frozen=True, slots=True)
class ExchangeDials:
    """Dials (quanta) at a meter exchange, for the installations table."""

    commodity: str
    index: int
    day: date
    removed_s: int
    installed_s: int
    removal_read: int
    install_read: int


@dataclass(slots=True)
class Registers:
    """The dials of every service point of a city. ``step`` must be called once per chunk and day, days in order."""

    spec: Spec
    plan: Plan
    imported: dict[str, Ints] = field(default_factory=dict)
    exported: dict[str, Ints] = field(default_factory=dict)
    modulus: dict[str, Ints] = field(default_factory=dict)
    replaced: set[tuple[str, int]] = field(default_factory=set)
    exchanged: list[ExchangeDials] = field(default_factory=list)
    rollovers: list[tuple[str, int, date]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for commodity, count in self.spec.counts.items():
            imported, modulus = np.zeros(count, np.int64), np.zeros(count, np.int64)
            for first in range(0, count, 100_000):
                traits = block(self.spec, commodity, first, min(first + 100_000, count))
                decimals = 3 if commodity == "electricity" else 1
                span = slice(first, first + traits.size)
                modulus[span] = 10 ** (traits.dials + decimals)
                imported[span] = traits.start_dial
            for story in self.plan.of_kind("rollover"):
                if story.commodity == commodity:
                    traits = block(self.spec, commodity, story.index, story.index + 1)
                    daily = int(traits.base[0] + 12 * traits.heat[0])
                    imported[story.index] = modulus[story.index] - max(1, daily * (2 * story.first + 1) // 2)
            self.imported[commodity], self.modulus[commodity] = imported, modulus
            self.exported[commodity] = np.zeros(count, np.int64)

    def opening(self, segment: Segment, first: int, last: int) -> RegisterReads:
        """Dials at the first midnight: reads of the day before the simulated ones, which they close."""
        traits = block(self.spec, segment.commodity, first, last)
        before = self.spec.start - timedelta(days=1)
        return self._reads(
            segment, first, last, np.flatnonzero(traits.solar > 0), {}, set(), self.spec.calendar.seconds(before)
        )

    def step(self, rows: DayRows, panels: Ints) -> RegisterReads:
        """Advance the chunk's dials by a day and read them at its end. ``panels``: rows with an export register."""
        segment, first, size = rows.segment, rows.traits.first, rows.traits.size
        commodity = segment.commodity
        span = slice(first, first + size)
        imported, modulus = self.imported[commodity], self.modulus[commodity][span]
        before = imported[span].copy()
        for exchange in rows.exchanges:
            row = exchange.index - first
            removal = (int(before[row]) + exchange.old_measured) % int(modulus[row])
            install = int(draws(self.spec.seed, f"new-{commodity}", 0, exchange.index, 1, 1)[0, 0]) % 5_000
            self.exchanged.append(
                ExchangeDials(
                    commodity, exchange.index, rows.day, exchange.removed_s, exchange.installed_s, removal, install
                )
            )
            self.replaced.add((commodity, exchange.index))
            before[row] = install
        imported[span] = before + rows.import_total
        self.exported[commodity][span] += rows.export_total
        rolled = imported[span] // modulus != before // modulus
        self.rollovers.extend((commodity, first + int(row), rows.day) for row in np.flatnonzero(rolled))
        stories = self.plan.on(commodity, (rows.day - self.spec.start).days, first, first + size)
        back = {s.index: s for s in stories if s.kind == "register_back"}
        silent = {s.index for s in stories if s.kind == "missing_register"}
        if segment.file_format == "register":
            return self._drive_by(rows, before)
        return self._reads(segment, first, first + size, panels, back, silent, self.spec.calendar.seconds(rows.day))

    def _reads(
        self,
        segment: Segment,
        first: int,
        last: int,
        panels: Ints,
        back: dict[int, PlantedDefect],
        silent: set[int],
        second: int,
    ) -> RegisterReads:
        commodity = segment.commodity
        index = (
            np.array([i for i in range(first, last) if i not in silent], np.int64) if silent else np.arange(first, last)
        )
        dial = self.imported[commodity][index] % self.modulus[commodity][index]
        for story in back.values():
            at = int(np.searchsorted(index, story.index))
            dial[at] = max(0, int(dial[at]) - int(story.amount) - 60_000)
        sunny = panels + first
        exported = self.exported[commodity][sunny] % self.modulus[commodity][sunny]
        ids = [
            meter_id(commodity, i, exchanged=(commodity, i) in self.replaced) for i in index.tolist() + sunny.tolist()
        ]
        channels = ["R1"] * len(index) + ["R2"] * len(sunny)
        dials = np.concatenate([dial, exported])
        return RegisterReads(ids, channels, dials, np.full(len(dials), second, np.int64))

    def _drive_by(self, rows: DayRows, before: Ints) -> RegisterReads:
        """Every third day a vehicle passes: the dial stands where a steady use would have brought it by then."""
        commodity, first, size = rows.segment.commodity, rows.traits.first, rows.traits.size
        index = np.arange(first, first + size, dtype=np.int64)
        visited = (index + rows.day.toordinal()) % 3 == 0
        u = draws(self.spec.seed, "route", rows.day.toordinal(), first, size, 1)[:, 0].astype(np.int64)
        second = 7 * 3600 + u * 36_000 // 65_536
        dial = before + rows.import_total * second // self.spec.calendar.seconds(rows.day)
        ids = [meter_id(commodity, i) for i in index[visited].tolist()]
        return RegisterReads(
            ids, ["R1"] * len(ids), dial[visited] % self.modulus[commodity][index][visited], second[visited]
        )
