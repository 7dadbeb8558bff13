"""Validates a day's intervals shard by shard. Memory is that of a few shards, whatever the number of meters.

Two results need every shard:

- An estimate may use the load shape of its customer class. Rows that need one stay open until every shard is read, and
  are then validated with the sums of the whole class.
- The clock of a head-end may be off by hours, which only all its meters show. The shift is computed after the last
  shard; where there is one (rarely), the day is validated a second time with it.

Both are sums of integers, so no result depends on how the day is cut into shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.ingest.tables.raw import still_asked
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.set_aside import without_faults
from meter_pipeline.sharding import INTERVALS_PER_SHARD, between, cuts
from meter_pipeline.vee import edits, output_frames
from meter_pipeline.vee.estimation import history as past
from meter_pipeline.vee.estimation import multi_day_registers
from meter_pipeline.vee.loading import DayInputs, Shifts, StoredVectors, Touched, mark_shifts, read_day, read_rows
from meter_pipeline.vee.part_of_day import PartOfDay, WholeDayNeededError, read_part, refuse_profiles
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.rules import policy as policy_file
from meter_pipeline.vee.rules.model import DailyHistory, ValidatedMatrix
from meter_pipeline.vee.rules.movement import ClassMovement
from meter_pipeline.vee.rules.policy import DayPolicy, Policies
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import edits as edit_store
from meter_pipeline.vee.tables import usage_history
from meter_pipeline.vee.tables import validated as store
from meter_pipeline.vee.tables.past_usage import read_past_usage
from meter_pipeline.vee.tables.usage_history import UsageHistory
from meter_pipeline.vee.validate import Peers, UnknownPeers

#: Rows of a shard, of quarter-hours
ROWS: Final = INTERVALS_PER_SHARD // 96


@dataclass(slots=True)
class DayContext:
    """What the shards of a day share; none of it is changed. ``ahead`` is a second session, over which the next shard
    is read."""

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
    policy: DayPolicy
    several: pl.DataFrame
    by_meter: pl.DataFrame
    part: PartOfDay | None = None


def read_day_context(
    connection: Connection,
    session: Database,
    ahead: Database,
    calendar: BillingCalendar,
    day: date,
    t: Thresholds,
    now: datetime,
    one_shard: int,
    watch: Callable[[str], None] = lambda _: None,
    policies: Policies | None = None,
    only: Touched | None = None,
) -> DayContext:
    """Read the inputs that the shards of a day share. ``one_shard``: up to how many rows the day's vectors are read at
    once; ``watch`` is called after each step; ``only``: the part of the day that is validated. Raises
    WholeDayNeededError."""
    # Estimates stay open while a head-end that is pulled is still being asked for the day: it may have been away when
    # the day closed.
    final = now >= calendar.bounds(day)[1] + timedelta(days=t.final_after_days) and not still_asked(
        connection, day, now, t.final_after_days
    )
    part = None if only is None else read_part(session, calendar, day, only, t, final=final)
    touched = None if part is None else part.touched
    read = read_day(session, calendar, day, t, now, one_shard if part is None else 1 << 62, touched)
    watch("read")
    earliest, prior_day = day - timedelta(days=t.like_days_back), day - timedelta(days=1)
    history = (
        usage_history.read_usage_history(session, earliest, prior_day)
        if touched is None
        else usage_history.read_usage_of(session, earliest, prior_day, touched.service_points)
    )
    days = [day - timedelta(days=k) for k in range(t.high_low_days, 0, -1)]
    points = None if touched is None else touched.service_points
    history = replace(history, past=read_past_usage(session, days[0], day, points))
    like = [past.day_class(d, read.reference.holidays) == past.day_class(day, read.reference.holidays) for d in days]
    available = store.validated_days(session, day - timedelta(days=t.like_days_back), day - timedelta(days=1))
    return DayContext(
        session,
        ahead,
        calendar,
        read,
        t,
        final,
        history,
        days,
        like,
        available,
        edit_store.standing(session, day),
        (policies or policy_file.default()).on(day),
        *_several(session, read, days, None if touched is None else touched.service_points),
        part,
    )


def _several(
    session: Database, read: DayInputs, days: list[date], among: Sequence[str] | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Expected rows of service points that have several meters of one flow and unit, or had them on one of the days,
    and what each of their channels was put at on those days: there one meter's history is not its service point's."""
    now = read.expected.filter(pl.struct("service_point_id", "flow", "unit").is_duplicated())["service_point_id"]
    span = days[0], days[-1]
    before = (
        store.several_meters(session, *span)
        if among is None
        else usage_history.several_meters_of(session, *span, among)
    )
    points = sorted({*now.to_list(), *before})
    rows = read.expected.filter(pl.col("service_point_id").is_in(points))
    return rows, store.read_meter_days(session, days[0], days[-1], points) if points else pl.DataFrame()


@dataclass(slots=True)
class ValidatedShard:
    """One validated matrix of a shard: its rows, their validated values, the edits applied to them, and the spans of
    days that its registers enclose."""

    rows: DayRows
    validated: ValidatedMatrix
    edited: edits.Applied
    enclosed: list[multi_day_registers.RegisterSpan]
    others: multi_day_registers.Others

    def without(self, points: pl.Series) -> ValidatedShard:
        """The same without the rows of some service points."""
        keep = np.flatnonzero(~self.rows.keys["service_point_id"].is_in(points.implode()).to_numpy())
        if keep.size == self.rows.keys.height:
            return self
        place = {int(row): k for k, row in enumerate(keep)}
        return ValidatedShard(
            self.rows.take(keep),
            self.validated.take(keep),
            {place[row]: edit for row, edit in self.edited.items() if row in place},
            [replace(s, row=place[s.row]) for s in self.enclosed if s.row in place],
            {place[row]: found for row, found in self.others.items() if row in place},
        )


@dataclass(slots=True)
class Streamed:
    """What a day keeps of its shards after their rows are written: load shapes by head-end, raw rows of meters that are
    not expected, days to validate again, and the change of usage by class."""

    shapes: list[pl.DataFrame] = field(default_factory=list)
    unexpected: list[pl.DataFrame] = field(default_factory=list)
    again: multi_day_registers.Again = field(default_factory=dict)
    moved: ClassMovement = field(default_factory=ClassMovement)

    def count_in(self, validated: Sequence[ValidatedShard]) -> None:
        """Add the change of usage by class of some matrices."""
        for one in validated:
            v = one.validated
            self.moved.add(v.raw.interval_minutes, one.rows.keys, one.rows.context.group, v.moved)


@dataclass(slots=True)
class ShardResult:
    """One shard of several, validated.

    ``validated``: all its matrices. ``waiting``: service points whose rows need the sums of every shard.
    ``validated_shards``: the matrices without those. ``peers``: the sums of its own complete rows."""

    validated_shards: list[ValidatedShard]
    shapes: list[pl.DataFrame]
    unexpected: pl.DataFrame
    waiting: pl.Series | None
    peers: Peers
    validated: list[ValidatedShard]


#: Says from the shapes of a whole day which head-ends are shifted
FindShifts = Callable[[pl.DataFrame], Shifts]


def parts_of(expected: pl.DataFrame, shards: int) -> list[pl.DataFrame]:
    """The expected rows cut into shards: ``shards`` of them, or (0) as many as keep to ROWS."""
    ids = expected["service_point_id"]
    return [expected.slice(first, past - first) for first, past in cuts(ids, ROWS, shards)]


def validate_shard(
    context: DayContext,
    validate: Callable[..., ValidatedMatrix],
    rows: list[DayRows],
    unexpected: pl.DataFrame,
    shifts: Shifts,
) -> ShardResult:
    """One shard of several, validated as far as possible without the other shards."""
    peers = Peers()
    shapes = [output_frames.head_end_shapes(part, context.read.day) for part in rows]
    validated_shards = [_validate_sound(context, validate, part, peers, shifts) for part in rows]
    validated = list(validated_shards)
    open_rows = [
        j.validated.keys["service_point_id"][j.validated.left_open]
        for j in validated_shards
        if j.validated.left_open.size
    ]
    waiting = pl.concat(open_rows).unique().sort() if open_rows else None
    if waiting is not None:
        validated_shards = [j.without(waiting) for j in validated_shards]
    return ShardResult(validated_shards, shapes, unexpected, waiting, peers, validated)


def stream(
    context: DayContext,
    validate: Callable[..., ValidatedMatrix],
    hand_on: Callable[[ValidatedShard], None],
    parts: list[pl.DataFrame],
    shifts: Shifts,
    find: FindShifts,
) -> tuple[Streamed, Shifts]:
    """Validate every shard of the day and pass it to ``hand_on``. ``parts``: the expected rows of each shard.

    Returns what was kept and the clock shifts found. Where these differ from ``shifts``, the shards were validated
    without them, and the caller streams the day again. A day of one shard computes its shifts before it validates.
    """
    kept = Streamed()
    if len(parts) == 1:
        return kept, _stream_whole(context, validate, hand_on, parts[0], kept, find)
    peers, open_points = Peers(), []
    with ThreadPoolExecutor(1, "vee-ahead") as reader:
        for piece in _pieces(context, reader, validate, parts, shifts):
            kept.shapes += piece.shapes
            kept.unexpected.append(piece.unexpected)
            kept.count_in(piece.validated)
            peers.merge(piece.peers)
            if piece.waiting is not None:
                open_points.append(piece.waiting)
            _settle(piece.validated_shards, kept, context.read.day, hand_on)
        if open_points:
            peers.whole = True
            expected = pl.concat(parts)
            again = expected.filter(pl.col("service_point_id").is_in(pl.concat(open_points).implode()))
            for rows, _ in _each(context, reader, parts_of(again, 0)):
                # their shapes are counted already
                validated_shards = [_validate_sound(context, validate, part, peers, shifts) for part in rows]
                _settle(validated_shards, kept, context.read.day, hand_on)
    return kept, find(output_frames.added_shapes(kept.shapes))


def _stream_whole(
    context: DayContext,
    validate: Callable[..., ValidatedMatrix],
    hand_on: Callable[[ValidatedShard], None],
    expected: pl.DataFrame,
    kept: Streamed,
    find: FindShifts,
) -> Shifts:
    """The day, or the part of it that is validated, as one shard."""
    rows, unexpected = _read_sound(context, expected)
    kept.shapes += [output_frames.head_end_shapes(part, context.read.day) for part in rows]
    kept.unexpected.append(unexpected)
    if context.part is not None:
        kept.shapes = [context.part.whole_shapes(output_frames.added_shapes(kept.shapes))]
    shifts = find(output_frames.added_shapes(kept.shapes))
    if context.part is not None and shifts:
        raise WholeDayNeededError("a head-end's clock is off on the day")
    peers = None if context.part is None else UnknownPeers(whole=True)
    validated_shards = [_validate_sound(context, validate, part, peers, shifts) for part in rows]
    kept.count_in(validated_shards)
    if context.part is not None:
        refuse_profiles(one.validated for one in validated_shards)
    _settle(validated_shards, kept, context.read.day, hand_on)
    return shifts


def _pieces(
    context: DayContext,
    reader: ThreadPoolExecutor,
    validate: Callable[..., ValidatedMatrix],
    parts: Sequence[pl.DataFrame],
    shifts: Shifts,
) -> Iterator[ShardResult]:
    """Every shard, the next one being read while one is worked on."""

    for rows, unexpected in _each(context, reader, parts):
        yield validate_shard(context, validate, rows, unexpected, shifts)


def _each(
    context: DayContext, reader: ThreadPoolExecutor, parts: Sequence[pl.DataFrame]
) -> Iterator[tuple[list[DayRows], pl.DataFrame]]:
    coming = reader.submit(_read_sound, context, parts[0])
    for following in parts[1:]:
        now, coming = coming, reader.submit(_read_sound, context, following)
        yield now.result()
    yield coming.result()


def _settle(
    validated_shards: Sequence[ValidatedShard], kept: Streamed, day: date, hand_on: Callable[[ValidatedShard], None]
) -> None:
    for one in validated_shards:
        if one.rows.keys.height:
            multi_day_registers.settle(one.rows, one.validated, one.enclosed, one.others, day, kept.again)
            hand_on(one)


def _own_histories(context: DayContext, rows: DayRows, daily: DailyHistory) -> None:
    """Give rows of service points with several meters their own meter's history in the place of the service point's."""
    if not context.several.height:
        return
    at = np.flatnonzero(rows.keys["service_point_id"].is_in(context.several["service_point_id"].implode()).to_numpy())
    if not at.size:
        return
    mine = rows.keys[at]
    points = mine["service_point_id"].unique().implode()
    present, earlier = (f.filter(pl.col("service_point_id").is_in(points)) for f in (context.several, context.by_meter))
    daily.totals[at], daily.actual[at] = past.own_daily(mine, present, earlier, context.days)
    rows.context.estimate_streak[at] = past.own_streaks(daily.totals[at], daily.actual[at])


def _read_sound(context: DayContext, expected: pl.DataFrame) -> tuple[list[DayRows], pl.DataFrame]:
    """The rows under judgement of some expected ones, and raw rows that are not expected. A service whose rows cannot
    be laid out is set aside."""
    points = expected["service_point_id"].unique().sort().to_list()

    def laid_out(some: Sequence[str]) -> tuple[list[DayRows], pl.DataFrame]:
        mine = expected if len(some) == len(points) else expected.filter(pl.col("service_point_id").is_in(list(some)))
        return read_rows(context.ahead, context.calendar, context.read, mine, context.thresholds)

    found, faults = without_faults(points, laid_out)
    context.read.aside.update(faults)
    return found


def _validate_sound(
    context: DayContext, validate: Callable[..., ValidatedMatrix], rows: DayRows, peers: Peers | None, shifts: Shifts
) -> ValidatedShard:
    """Rows of one interval length, validated. A service that cannot be validated is set aside."""
    named = rows.keys["service_point_id"]
    points = named.unique().sort().to_list()

    def validate_some(some: Sequence[str]) -> tuple[ValidatedShard, Peers | None]:
        whole = len(some) == len(points)
        mine = rows if whole else rows.take(np.flatnonzero(named.is_in(list(some)).to_numpy()))
        # counts of a failed attempt must not be added twice
        own = None if peers is None else peers.copy()
        return _validate_rows(context, validate, mine, edits.apply(context.overrides, mine), own, shifts), own

    (found, counted), faults = without_faults(points, validate_some)
    if peers is not None and counted is not None:
        peers.sums = counted.sums
    context.read.aside.update(faults)
    return found


def _validate_rows(
    context: DayContext,
    validate: Callable[..., ValidatedMatrix],
    rows: DayRows,
    edited: edits.Applied,
    peers: Peers | None,
    shifts: Shifts,
) -> ValidatedShard:
    read, t, day = context.read, context.thresholds, context.read.day
    points = rows.keys["service_point_id"]
    mark_shifts(rows, shifts)
    history = context.history.around(points)
    daily = past.align_daily(rows.keys, history, context.days, context.like)
    rows.context.estimate_streak = past.estimate_streaks(rows.keys, history, day)
    _own_histories(context, rows, daily)
    loader = StoredVectors(context.session, context.calendar, day, rows, read.reference, context.available, t)
    enclosed = multi_day_registers.find(
        rows, read.registers.of_rows(*between(read.registers.frame, points)), context.calendar, day, t
    )
    others = multi_day_registers.attach(context.session, rows, enclosed, day)
    stored = None if context.part is None else context.part.movement
    movement = None if stored is None else stored.movement(rows.matrix.interval_minutes, rows.keys, rows.context.group)
    v = validate(
        rows.matrix,
        rows.keys,
        rows.context,
        daily,
        loader,
        t,
        final=context.final,
        peers=peers,
        policy=context.policy,
        movement=movement,
    )
    edits.mark(v, edited)
    return ValidatedShard(rows, v, edited, enclosed, others)
