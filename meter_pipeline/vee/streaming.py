"""The day's intervals shard by shard: read, judged and handed on, so that a city of any size needs the memory of a few shards.

Belongs here: the walk over the shards, what it keeps of each, what one shard must know of the others. Does not belong here: rules and estimates
(verdict.py), SQL, what is written (writing.py).

Two things cross shards. An estimate may stand on the shape of its class, so rows that need one are left open until every shard has been through,
and are then judged again with all their peers known. And a head-end's clock may be off by hours, which only its whole fleet tells: that is looked
for at the end, and where it is found (hardly ever) the day is gone through once more. Both are sums of integers, so no result depends on the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.sharding import INTERVALS_PER_SHARD, between, cuts
from meter_pipeline.store.database import Database
from meter_pipeline.store.validated import UsageHistory
from meter_pipeline.vee import edits, results, stretches
from meter_pipeline.vee import history as past
from meter_pipeline.vee.assemble import DayRows
from meter_pipeline.vee.loading import DayInputs, Shifts, StoredVectors, mark_shifts, read_rows
from meter_pipeline.vee.model import ValidatedMatrix
from meter_pipeline.vee.thresholds import Thresholds
from meter_pipeline.vee.verdict import Peers

#: Rows of a shard, of quarter-hours
ROWS: Final = INTERVALS_PER_SHARD // 96


@dataclass(slots=True)
class City:
    """What the shards of a day share; none of it is changed. ``ahead`` is a second session, over which the next shard is read."""

    session: Database
    ahead: Database
    calendar: BillingCalendar
    read: DayInputs
    thresholds: Thresholds
    final: bool
    history: UsageHistory
    days: list[date]
    like: list[bool]
    available: list[date]
    overrides: pl.DataFrame


@dataclass(slots=True)
class Judged:
    """One matrix of a shard, judged: its rows, what was made of them, who edited them, the stretches of days its registers enclose."""

    rows: DayRows
    validated: ValidatedMatrix
    edited: edits.Applied
    enclosed: list[stretches.Stretch]
    others: stretches.Others

    def without(self, points: pl.Series) -> Judged:
        """The same without the rows of some service points."""
        keep = np.flatnonzero(~self.rows.keys["service_point_id"].is_in(points.implode()).to_numpy())
        if keep.size == self.rows.keys.height:
            return self
        place = {int(row): k for k, row in enumerate(keep)}
        return Judged(
            self.rows.take(keep), self.validated.take(keep), {place[row]: edit for row, edit in self.edited.items() if row in place},
            [replace(s, row=place[s.row]) for s in self.enclosed if s.row in place],
            {place[row]: found for row, found in self.others.items() if row in place},
        )  # fmt: skip


@dataclass(slots=True)
class Streamed:
    """What is kept of the shards besides what was handed on: shapes of the head-ends, raw rows nobody expects, days to be asked for again."""

    shapes: list[pl.DataFrame] = field(default_factory=list)
    unexpected: list[pl.DataFrame] = field(default_factory=list)
    again: stretches.Again = field(default_factory=dict)


#: Says from the shapes of a whole day which head-ends are shifted
FindShifts = Callable[[pl.DataFrame], Shifts]


def stream(
    city: City, validate: Callable[..., ValidatedMatrix], hand_on: Callable[[Judged], None], shards: int, shifts: Shifts, find: FindShifts
) -> tuple[Streamed, Shifts]:
    """Judge every shard of the day and hand it on. Returns what was kept, and the shifts found: where they are not ``shifts``, what was handed on
    was judged without knowing them and the day is to be streamed again. A day of one shard knows them before it judges."""
    kept = Streamed()
    expected = city.read.expected
    pieces = cuts(expected["service_point_id"], ROWS, 1 if city.read.vectors is not None else shards)
    peers = None if len(pieces) == 1 else Peers()
    open_points: list[pl.Series] = []
    with ThreadPoolExecutor(1, "vee-ahead") as reader:
        for rows, unexpected in _each(city, reader, [expected.slice(first, past - first) for first, past in pieces]):
            edited = [edits.apply(city.overrides, part) for part in rows]
            shapes = [results.head_end_shapes(part, city.read.day) for part in rows]
            kept.shapes += shapes
            kept.unexpected.append(unexpected)
            if peers is None:
                shifts = find(results.added_shapes(shapes))
            judged = [_judge(city, validate, part, own, peers, shifts) for part, own in zip(rows, edited, strict=True)]
            waiting = [j.validated.keys["service_point_id"][j.validated.left_open] for j in judged if j.validated.left_open.size]
            if waiting:
                open_points.append(pl.concat(waiting).unique())
                judged = [j.without(open_points[-1]) for j in judged]
            _settle(judged, kept, city.read.day, hand_on)
        if peers is not None and open_points:
            peers.whole = True
            again = expected.filter(pl.col("service_point_id").is_in(pl.concat(open_points).implode()))
            parts = [again.slice(first, past - first) for first, past in cuts(again["service_point_id"], ROWS)]
            for rows, _ in _each(city, reader, parts):
                # their shapes are counted already
                judged = [_judge(city, validate, part, edits.apply(city.overrides, part), peers, shifts) for part in rows]
                _settle(judged, kept, city.read.day, hand_on)
    return kept, shifts if peers is None else find(results.added_shapes(kept.shapes))


def _each(city: City, reader: ThreadPoolExecutor, parts: Sequence[pl.DataFrame]) -> Iterator[tuple[list[DayRows], pl.DataFrame]]:
    """The rows of each part, the next one being read while one is worked on."""
    coming = reader.submit(read_rows, city.ahead, city.calendar, city.read, parts[0], city.thresholds)
    for following in parts[1:]:
        now, coming = coming, reader.submit(read_rows, city.ahead, city.calendar, city.read, following, city.thresholds)
        yield now.result()
    yield coming.result()


def _settle(judged: Sequence[Judged], kept: Streamed, day: date, hand_on: Callable[[Judged], None]) -> None:
    for one in judged:
        if one.rows.keys.height:
            stretches.settle(one.rows, one.validated, one.enclosed, one.others, day, kept.again)
            hand_on(one)


def _judge(city: City, validate: Callable[..., ValidatedMatrix], rows: DayRows, edited: edits.Applied, peers: Peers | None, shifts: Shifts) -> Judged:
    read, t, day = city.read, city.thresholds, city.read.day
    points = rows.keys["service_point_id"]
    mark_shifts(rows, shifts)
    history = city.history.around(points)
    daily = past.align_daily(rows.keys, history, city.days, city.like)
    rows.context.estimate_streak = past.estimate_streaks(rows.keys, history, day)
    loader = StoredVectors(city.session, city.calendar, day, rows, read.reference, city.available, t)
    enclosed = stretches.find(rows, read.registers.of_rows(*between(read.registers.frame, points)), city.calendar, day, t)
    others = stretches.attach(city.session, rows, enclosed, day)
    v = validate(rows.matrix, rows.keys, rows.context, daily, loader, t, final=city.final, peers=peers)
    edits.mark(v, edited)
    return Judged(rows, v, edited, enclosed, others)
