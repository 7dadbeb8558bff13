"""The stage: one billing day of raw reads becomes validated intervals and daily usage.

A rerun with the same inputs writes nothing. A row whose content changed gets a new version and keeps the old one with
the reason; a row whose estimates are locked changes only when its raw reads, its register or the thresholds do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.postgres.days_together import NotTogetherError
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.reading import beside, is_shared, is_undone, reading
from meter_pipeline.postgres.vectors import to_matrices
from meter_pipeline.set_aside import without_faults
from meter_pipeline.sharding import between
from meter_pipeline.vee import findings, output_frames
from meter_pipeline.vee.dated_thresholds import thresholds_on
from meter_pipeline.vee.estimation import history as past
from meter_pipeline.vee.estimation import multi_day_registers, past_usage
from meter_pipeline.vee.handed_on import hand_on
from meter_pipeline.vee.loading import DayInputs, Shifts, Touched, find_shifts, shifted
from meter_pipeline.vee.locked import keep_locked
from meter_pipeline.vee.part_of_day import PartOfDay, WholeDayNeededError, looked_at, refuse_others
from meter_pipeline.vee.registers import assemble, read_rules, true_up
from meter_pipeline.vee.registers.usage import RegisterUsage, register_usage
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.model import ValidatedMatrix
from meter_pipeline.vee.rules.policy import Policies
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.streaming import ROWS, DayContext, Streamed, ValidatedShard, parts_of, read_day_context, stream
from meter_pipeline.vee.summary import Summary, VeeOutcome
from meter_pipeline.vee.tables import checks, part_of_day, validated
from meter_pipeline.vee.tables import true_up as requests
from meter_pipeline.vee.tables.past_usage import read_past_usage
from meter_pipeline.vee.validate import validate_matrix
from meter_pipeline.vee.writing import Changes, Writer


def validate_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
    thresholds: Thresholds | None = None,
    actor: str = "vee",
    shards: int = 0,
    policies: Policies | None = None,
    only: Touched | None = None,
) -> VeeOutcome:
    """Validate, estimate and store a billing day. Running it again gives the same bytes.

    Reads raw.interval_day, raw.register_read, reference data and earlier validated days. Writes vee.interval_day (and
    versions), vee.register_day, vee.daily_usage, vee.exception, vee.group_day and one ledger entry, in one transaction.

    ``shards``: ranges of service points that the intervals are read in (0: ranges of sharding.INTERVALS_PER_SHARD); the
    number changes no byte. ``policies``: the consequence of each finding (by default the packaged ones); findings that
    hold a bill or open a case go to the exception queue in the same transaction. ``only``: validate these service
    points and meters of a day that was validated before, and leave the others as stored. The bytes are those of the
    whole day; part_of_day.py lists the cases in which the whole day is validated anyway (NotTogetherError where the day
    shares a transaction with others).

    Raises psycopg errors, and control.pause_check.PausedError where a pause is raised before the first write.
    """
    how = _How(clock, thresholds or thresholds_on(database, day), actor, shards, policies)
    if only is None:
        return _validated(database, calendar, day, how, None)
    if not (only.service_points or only.meters):
        return hand_on(database, calendar, day, how.thresholds, clock, only.billed)
    try:
        return _validated(database, calendar, day, how, only)
    except WholeDayNeededError as needed:
        if is_shared(database) and not is_undone(database):
            raise NotTogetherError(str(needed)) from needed
        outcome = _validated(database, calendar, day, how, None)
        outcome.whole_because = str(needed)
        return outcome


@dataclass(frozen=True, slots=True)
class _How:
    """The settings of a validation, the same for every day."""

    clock: Clock
    thresholds: Thresholds
    actor: str
    shards: int
    policies: Policies | None


def _validated(database: Database, calendar: BillingCalendar, day: date, how: _How, only: Touched | None) -> VeeOutcome:
    """Validate a day, or a part of it, in one transaction."""
    watch, clock = _Watch({}), how.clock
    with reading(database) as session, reading(database) as ahead, database.connect("vee") as connection:
        day_lock.hold(connection, DayLock.VALIDATE, day)
        requests_of_day, noted = looked_at(session, connection, day)
        one_shard = ROWS if how.shards <= 1 else 0
        context = read_day_context(
            connection, session, ahead, calendar, day, how.thresholds, clock.now(), one_shard, watch, how.policies, only
        )
        if context.part is not None:
            touched = context.part.touched
            billed = () if only is None else only.billed
            mine = requests.pending(connection, day, touched.service_points, billed)
            requests_of_day = [request for request in requests_of_day if request in mine]
            noted = [touch for touch in noted if touch[1] in touched.meters]
        run = _Run(database, connection, context, clock, how.actor, watch)
        intervals = _validate_intervals(run, how.shards)
        registers = _validate_registers(run, intervals)
        outcome = _persist(run, intervals, registers)
        # a request made while this ran is about reads this may not have seen: it waits for the next run
        requests.done(connection, day, requests_of_day, clock.now())
        part_of_day.forget(connection, [number for number, _ in noted])
        of = intervals.writer.only
        part_of_day.note_validation(connection, day, of if of is None or only is None else sorted({*of, *only.billed}))
    return outcome


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the stage. Everything it writes is one transaction of ``connection``."""

    database: Database
    connection: Connection
    context: DayContext
    clock: Clock
    actor: str
    watch: _Watch

    @property
    def day(self) -> date:
        return self.context.read.day


@dataclass(frozen=True, slots=True)
class _Intervals:
    """The interval rows of the day, validated and written shard by shard, with their sums."""

    writer: Writer
    gathered: _Gathered
    streamed: Streamed
    shifts: Shifts


def _validate_intervals(run: _Run, shards: int) -> _Intervals:
    """Validate and write the intervals. Where the last shard shows that a head-end's clock is shifted, do it a
    second time with that shift."""
    context, day, now = run.context, run.day, run.clock.now()
    only = None if context.part is None else context.part.touched.service_points
    stored = validated.stored_rows(context.session, day, only)
    writer = Writer(run.connection, run.database, day, context.read.start, now, run.clock, run.actor, stored, only)
    run.watch("history")
    parts = parts_of(context.read.expected, 1 if context.read.vectors is not None else shards)
    before_writing(run.database, clock=run.clock)
    writer.begin()
    if writer.first and context.part is not None:
        raise WholeDayNeededError("the day was not validated yet")
    shifts: Shifts = {}
    t = context.thresholds
    while True:
        gathered = _Gathered(Summary(VeeOutcome(day, t.version, t.digest, seconds=run.watch.into)))
        streamed, found = _stream(context, writer, gathered, parts, shifts)
        if found == shifts or context.read.vectors is not None:
            break
        writer.undo()
        shifts = found
    gathered.summary.outcome.shifted_head_ends = {" ".join(name[:3]): hours for name, hours in found.items()}
    run.watch("validate")
    return _Intervals(writer, gathered, streamed, found)


@dataclass(frozen=True, slots=True)
class _Registers:
    """Usage and findings of the day's register-only meters, and the days to validate again because of their reads."""

    usage: RegisterUsage
    findings: list[pl.DataFrame]
    true_ups: list[requests.Request]


def _validate_registers(run: _Run, intervals: _Intervals) -> _Registers:
    """Validate the reads of register-only meters and compute their usage of the day."""
    context, day = run.context, run.day
    read, t = context.read, context.thresholds
    series = _register_only(read, context.calendar, day)
    means = output_frames.class_means(intervals.gathered.class_sums, t.profile_min_rows)
    stored = None if context.part is None else context.part.movement
    moved: list[tuple[pl.DataFrame, read_rules.ReadFindings]] = []
    bounds = int(read.start.timestamp()), int(read.end.timestamp())
    points = series["service_point_id"].unique().sort().to_list()
    billed = read_past_usage(context.session, day - timedelta(days=past_usage.STRETCH_DAYS), day, points)

    def of(points: Sequence[str]) -> tuple[RegisterUsage, list[pl.DataFrame]]:
        mine = series.filter(pl.col("service_point_id").is_in(list(points)))
        daily = past.align_daily(mine, context.history, context.days, context.like)
        earlier = past_usage.stretches(mine, billed, context.calendar)
        judged = read_rules.judge(read.registers, mine, daily, t, bounds, stored, earlier)
        moved.append((mine, judged))
        used = register_usage(read.registers, mine, daily, t, means, judged)
        return used, findings.register_findings(used, mine, context.policy)

    (usage, found), faults = without_faults(points, of)
    read.aside.update(faults)
    if context.part is not None:
        if usage.of_others:
            # a correction is tried in one transaction that nothing rolls back but its end
            intervals.writer.undo()
        refuse_others(usage.of_others)
    elif moved:
        read_rules.count_in(intervals.streamed.moved, *moved[-1])
    true_ups = _true_ups(context, past.whole_points(context.history, day - timedelta(days=1)))
    return _Registers(usage, found, true_ups)


def _persist(run: _Run, intervals: _Intervals, registers: _Registers) -> VeeOutcome:
    """Write the day's usage, findings, cases, requests and ledger entry. Compare the stored rows with the rows read."""
    context, day, connection, now = run.context, run.day, run.connection, run.clock.now()
    read, policy, summary = context.read, context.policy, intervals.gathered.summary
    outcome, streamed = summary.outcome, intervals.streamed
    usage, faults = _daily_usage([*intervals.gathered.usage, registers.usage.frame], day)
    usage = intervals.writer.put_usage(read, usage, registers.usage.quantity, faults, outcome)
    read.aside.update(faults)
    bounds, only = context.calendar.bounds(day), intervals.writer.only
    stored = checks.stored_rows(connection, day, bounds, read.aside, only)
    # A channel that was lost holds its service's bill: the others of the service would be billed as if they were all.
    read.aside.update(stored.services)
    of_rows = [*intervals.gathered.exceptions, *registers.findings]
    exceptions = findings.day_findings(read, streamed.unexpected, of_rows, usage, policy, now)
    if context.part is not None:
        exceptions = findings.joined(exceptions, context.part.other_exceptions())
        _count_others(context, context.part, intervals.writer, summary)
    else:
        part_of_day.write_class_movement(connection, day, streamed.moved.text())
    shape = shifted(output_frames.added_shapes(streamed.shapes), intervals.shifts)
    intervals.writer.finish(exceptions, shape)
    outcome.ledger_entry = _record(run, intervals.writer, summary, exceptions)
    outcome.held, outcome.cases_opened = _into_queue(connection, day, findings.queued(exceptions, policy), run.clock)
    outcome.stored = checks.stored_day(connection, day, bounds, stored, context.thresholds.register_tolerance, only)
    run.watch("write")
    summary.finish(usage, exceptions)
    run.watch("summary")
    again = multi_day_registers.asked(streamed.again, day)
    outcome.redetermine = requests.ask(connection, [*registers.true_ups, *again], now)
    part_of_day.note_asked(
        context.session, [(r.billing_day, r.read_day, r.evidence) for r in [*registers.true_ups, *again]]
    )
    run.watch("true-up")
    return outcome


def _count_others(context: DayContext, part: PartOfDay, writer: Writer, summary: Summary) -> None:
    """Add the figures of the rows that this run leaves unchanged, for the ledger entry."""
    outcome = summary.outcome
    outcome.service_points = len(part.touched.service_points)
    outcome.unchanged += part.others.rows
    outcome.estimated += part.others.estimated
    written = writer.written()
    if (written["row_flags"] & rr.ESTIMATED.mask != 0).any():
        frame = part_of_day.other_estimates(context.session, context.read.day, part.touched.service_points)
        summary.add_estimates(to_matrices(frame) if frame.height else [])


def _true_ups(context: DayContext, settled: pl.Series) -> list[requests.Request]:
    """Returns the days to validate again because of the day's reads. A service that cannot be compared is reported
    and requests no day."""
    read, t = context.read, context.thresholds
    points = read.registers.frame.filter("register_only")["service_point_id"].unique().sort().to_list()

    def find(some: Sequence[str]) -> list[requests.Request]:
        mine = read.registers if len(some) == len(points) else read.registers.of_points(some)
        return true_up.find(context.session, context.calendar, read.day, read.windows, mine, settled, t)

    if not points:
        return []
    found, faults = without_faults(points, find)
    read.aside.update(faults)
    return found


@dataclass(slots=True)
class _Gathered:
    """The results kept of every shard: sums and names, no intervals."""

    summary: Summary
    usage: list[pl.DataFrame] = field(default_factory=list)
    class_sums: list[pl.DataFrame] = field(default_factory=list)
    exceptions: list[pl.DataFrame] = field(default_factory=list)


def _stream(
    context: DayContext,
    writer: Writer,
    gathered: _Gathered,
    parts: list[pl.DataFrame],
    shifts: Shifts,
) -> tuple[Streamed, Shifts]:
    """Every shard judged on this thread and written on another, while a third reads the next: PostgreSQL works while we
    compute."""
    pending: deque[Future[None]] = deque()

    def hand_on(shard: ValidatedShard) -> None:
        while len(pending) > 1:
            pending.popleft().result()
        pending.append(pool.submit(_finish, context, writer, gathered, shard))

    def find(shape: pl.DataFrame) -> Shifts:
        return find_shifts(
            context.session,
            context.calendar,
            context.read.day,
            context.read.reference.holidays,
            shape,
            context.available,
            context.thresholds,
        )

    with beside(context.session, "vee-write") as pool:
        streamed = stream(context, validate_matrix, hand_on, parts, shifts, find)
        while pending:
            pending.popleft().result()
    return streamed


@dataclass(frozen=True, slots=True)
class _Ready:
    """A shard as it is written: its matrix, what of it is kept, and how many locked estimates stood."""

    matrix: ValidatedMatrix
    changes: Changes
    usage: pl.DataFrame
    class_sums: pl.DataFrame
    exceptions: pl.DataFrame
    locked_kept: int


def _finish(context: DayContext, writer: Writer, gathered: _Gathered, shard: ValidatedShard) -> None:
    """A validated shard into the store, and what is kept of it into ``gathered``. A service that cannot be made ready
    or written is set aside."""
    points = shard.rows.keys["service_point_id"].unique().sort().to_list()

    def ready(some: Sequence[str]) -> _Ready | None:
        if not some:
            return None
        others = pl.Series(sorted(set(points) - set(some)), dtype=pl.String)
        return _ready(context, writer, shard.without(others) if len(others) else shard)

    found, faults = without_faults(points, ready)
    if found is not None and (unwritten := writer.write(found.changes, gathered.summary.outcome)):
        faults |= unwritten
        found = ready([point for point in points if point not in faults])
    context.read.aside.update(faults)
    if found is not None:
        gathered.summary.outcome.locked_kept += found.locked_kept
        gathered.usage.append(found.usage)
        gathered.class_sums.append(found.class_sums)
        gathered.exceptions.append(found.exceptions)
        gathered.summary.add(found.matrix)


def _ready(context: DayContext, writer: Writer, shard: ValidatedShard) -> _Ready:
    rows, v = shard.rows, shard.validated
    first, beyond = between(writer.stored, v.keys["service_point_id"])
    stored = writer.stored.slice(first, beyond - first)
    _mark_references(v)
    inputs = output_frames.input_hashes(
        rows, context.thresholds.digest, final=context.final, estimates_more=context.policy.estimates_more
    )
    kept = keep_locked(writer.database, rows, v, inputs, stored)
    v.keys = _with_columns(v, rows, inputs, output_frames.content_hashes(v), final=context.final)
    return _Ready(
        v,
        writer.changes(v, shard.edited, stored),
        output_frames.interval_usage(v),
        output_frames.class_sums(v),
        findings.row_findings(v, context.policy),
        kept,
    )


def _daily_usage(parts: list[pl.DataFrame], day: date) -> tuple[pl.DataFrame, dict[str, str]]:
    """The day's usage by service point, and by service point why that of some cannot be worked out."""
    points = output_frames.points_of(parts)

    def of(some: Sequence[str]) -> pl.DataFrame:
        if len(some) == len(points):
            return output_frames.daily_usage(parts, day)
        mine = pl.col("service_point_id").is_in(list(some))
        return output_frames.daily_usage([part.filter(mine) for part in parts if part.height], day)

    return without_faults(points, of)


class _Watch:
    """Seconds by step, for metadata."""

    def __init__(self, into: dict[str, float]) -> None:
        self.into, self.last = into, time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.into[step], self.last = round(now - self.last, 4), now


def _mark_references(v: ValidatedMatrix) -> None:
    lacking = (
        v.keys.select(pl.col("account_id").is_null() | pl.col("tariff_id").is_null() | pl.col("cycle_id").is_null())
        .to_series()
        .to_numpy()
    )
    v.row_flags |= np.where(lacking, rr.REFERENCE.mask, 0)


def _with_columns(
    v: ValidatedMatrix, rows: assemble.DayRows, inputs: pl.Series, contents: pl.Series, *, final: bool
) -> pl.DataFrame:
    extra = output_frames.interval_keys(v, rows, inputs, contents, final=final)
    return extra.with_columns(v.keys["commodity"], v.keys["customer_class"], v.keys["has_point"])


def _register_only(read: DayInputs, calendar: BillingCalendar, day: date) -> pl.DataFrame:
    """Series of register-only meters with class, status and account, aligned for ``registers.usage.register_usage``."""
    points = read.points.select("service_point_id", "customer_class", "status", "status_since")
    began = {d: calendar.start_s(d) for d in points["status_since"].unique().to_list()}
    points = points.with_columns(
        status_since_s=pl.col("status_since").replace_strict(list(began), list(began.values()), return_dtype=pl.Int64)
    )
    return (
        read.registers.frame.with_row_index("index")
        .filter(pl.col("register_only"))
        .join(points, on="service_point_id", how="inner")
        .join(read.mapped, on="service_point_id", how="left")
        .with_columns(day_seconds=pl.lit(calendar.seconds(day), pl.Int64))
        .sort("service_point_id", "meter_id", "channel")
    )


def _into_queue(connection: Connection, day: date, queued: pl.DataFrame, clock: Clock) -> tuple[int, int]:
    """Bring the exception queue in line with the day's findings. Returns service points whose bill waits, and new
    cases."""
    from meter_pipeline.anomalies.validation.cases import (
        bring_up_to_date,  # here: detection is not loaded to explain a day
    )

    opened = bring_up_to_date(connection, day, queued, clock=clock)
    return queued.filter(pl.col("action") == "hold")["service_point_id"].n_unique(), opened


def _record(run: _Run, writer: Writer, summary: Summary, exceptions: pl.DataFrame) -> int | None:
    """Ledger entries for the day, in the same transaction: each new version of a row is a leaf once, and the day's
    usage and registers are said as a whole. None where nothing changed."""
    outcome, connection, clock, actor = summary.outcome, run.connection, run.clock, run.actor
    written, contents = writer.written(), writer.contents()
    if not (outcome.inserted or outcome.updated or outcome.withdrawn or contents):
        return None
    leaves = written["content_hash"].to_list()
    filled = written.filter((pl.col("row_flags") & rr.ESTIMATED.mask) != 0)["content_hash"].to_list()
    if filled:
        entry_body = {
            "billing_day": outcome.billing_day.isoformat(),
            "rules_version": outcome.rules_version,
            "channel_days": len(filled),
            "intervals_by_method": dict(sorted(outcome.methods.items())),
            "total_micro": summary.estimated_micro,
        }
        ledger.append(connection, "estimated", entry_body, filled, clock=clock, actor=actor)
    body = {
        "billing_day": outcome.billing_day.isoformat(),
        "rules_version": outcome.rules_version,
        "rules_sha256": outcome.rules_digest,
        "inserted": outcome.inserted,
        "updated": outcome.updated,
        "unchanged": outcome.unchanged,
        "withdrawn": outcome.withdrawn,
        "estimated_intervals": outcome.estimated,
        "exceptions": exceptions.height,
        "held": exceptions.filter(pl.col("action") == "hold")["service_point_id"].n_unique(),
    }
    if contents:
        body["content"] = contents
    return ledger.append(connection, "validated", body, leaves or None, clock=clock, actor=actor)
