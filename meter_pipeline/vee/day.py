"""The stage: one billing day of raw reads becomes validated intervals and daily usage.

Belongs here: reading in bulk, calling the pure functions in order, writing in one transaction with the ledger. Does not belong here: rules,
estimates, SQL text.

A rerun with the same inputs writes nothing. A row whose content changed gets a new version and keeps the old one with the reason; a row
whose estimates are locked changes only when its raw reads, its register or the thresholds do.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.gate import before_writing
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.store import edits as edit_store
from meter_pipeline.store import true_up as requests
from meter_pipeline.store import validated as store
from meter_pipeline.store.database import Database
from meter_pipeline.store.raw import still_asked
from meter_pipeline.store.vectors import from_matrix, to_matrices
from meter_pipeline.vee import assemble, edits, references, results, stretches, true_up
from meter_pipeline.vee import history as past
from meter_pipeline.vee import row_rules as rr
from meter_pipeline.vee import thresholds as threshold_file
from meter_pipeline.vee.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity
from meter_pipeline.vee.interval_rules import code_table
from meter_pipeline.vee.loading import DayInputs, StoredVectors, mark_shifts, read_day
from meter_pipeline.vee.model import ValidatedMatrix
from meter_pipeline.vee.outcome import VeeOutcome, estimates_by_method, summarise
from meter_pipeline.vee.thresholds import Thresholds
from meter_pipeline.vee.verdict import validate_matrix


def validate_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
    thresholds: Thresholds | None = None,
    actor: str = "vee",
) -> VeeOutcome:
    """Validate, estimate and store a billing day; idempotent, byte for byte.

    Reads raw.interval_day, raw.register_read, reference data and earlier validated days; writes vee.interval_day (and versions),
    vee.register_day, vee.daily_usage, vee.exception, vee.group_day and one ledger entry, in one transaction. Raises psycopg errors, and
    control.gate.Held where a pause is raised before it has written: then nothing is.
    """
    t = thresholds or threshold_file.default()
    outcome = VeeOutcome(day, t.version, t.digest)
    with store.reading(database) as session, database.connect("vee") as connection:
        store.lock_day(connection, day)
        asked = requests.pending(connection, day)
        _validate(connection, session, calendar, day, t, outcome, clock, actor)
        # a request made while this ran is about reads this may not have seen: it waits for the next run
        requests.done(connection, day, asked, clock.now())
    return outcome


def _validate(
    connection: Any, session: Database, calendar: BillingCalendar, day: date, t: Thresholds, outcome: VeeOutcome, clock: Clock, actor: str
) -> None:
    watch = _Watch(outcome.seconds)
    now = clock.now()
    # Estimates stay open while a head-end that is pulled is still being asked for the day: it may have been away when the day closed.
    final = now >= calendar.bounds(day)[1] + timedelta(days=t.final_after_days) and not still_asked(connection, day, now, t.final_after_days)
    read = read_day(session, calendar, day, t, now)
    watch("read")
    history = store.read_usage_history(session, day - timedelta(days=t.like_days_back), day - timedelta(days=1))
    days = [day - timedelta(days=k) for k in range(t.high_low_days, 0, -1)]
    like = [past.day_class(d, read.reference.holidays) == past.day_class(day, read.reference.holidays) for d in days]
    available = store.validated_days(session, day - timedelta(days=t.like_days_back), day - timedelta(days=1))
    watch("history")
    validated: list[ValidatedMatrix] = []
    usage_parts: list[pl.DataFrame] = []
    shapes: list[pl.DataFrame] = []
    overrides = edit_store.standing(session, day)
    edited = [edits.apply(overrides, rows) for rows in read.rows]
    better: list[requests.Request] = []
    for rows, own in zip(read.rows, edited, strict=True):
        daily = past.align_daily(rows.keys, history, days, like)
        rows.context.estimate_streak = past.estimate_streaks(rows.keys, history, day)
        shape = results.head_end_shapes(rows, day)
        shapes.append(mark_shifts(session, calendar, day, read, rows, shape, available, t, outcome))
        loader = StoredVectors(session, calendar, day, rows, read.reference, available, t)
        enclosed = stretches.find(rows, read.registers, calendar, day, t)
        others = stretches.attach(session, rows, enclosed, day)
        v = validate_matrix(rows.matrix, rows.keys, rows.context, daily, loader, t, final=final)
        edits.mark(v, own)
        better += stretches.settle(rows, v, enclosed, others, day)
        validated.append(v)
    watch("validate")
    only = _register_only(read, calendar, day)
    register_history = past.align_daily(only, history, days, like)
    stored = store.stored_rows(session, day)
    for rows, v in zip(read.rows, validated, strict=True):
        _mark_references(v)
        inputs = results.input_hashes(rows, t.digest, final=final)
        outcome.locked_kept += _keep_locked(session, rows, v, inputs, stored)
        contents = results.content_hashes(v)
        v.keys = _with_columns(v, rows, inputs, contents, final=final)
        usage_parts.append(results.interval_usage(v))
    watch("hash")
    usage_parts.append(results.register_usage(read.registers, only, register_history, t, results.class_means(validated, t.profile_min_rows)))
    usage = results.daily_usage(usage_parts, day)
    exceptions = _exceptions(read, validated, usage, day, now)
    before_writing(session, clock=clock)
    written = _write(connection, read, validated, edited, stored, usage, exceptions, shapes, outcome, now=now, actor=actor)
    outcome.ledger_entry = _record(connection, validated, written, outcome, exceptions, clock, actor)
    watch("write")
    summarise(outcome, validated, usage, exceptions)
    watch("summary")
    settled = past.whole_points(history, day - timedelta(days=1))
    found = true_up.find(session, calendar, day, read.windows, read.registers, settled, t)
    outcome.redetermine = requests.ask(connection, [*found, *better], now)
    watch("true-up")


class _Watch:
    """Seconds by step, for metadata."""

    def __init__(self, into: dict[str, float]) -> None:
        self.into, self.last = into, time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.into[step], self.last = round(now - self.last, 4), now


def _mark_references(v: ValidatedMatrix) -> None:
    lacking = v.keys.select(pl.col("account_id").is_null() | pl.col("tariff_id").is_null() | pl.col("cycle_id").is_null()).to_series().to_numpy()
    v.row_flags |= np.where(lacking, rr.REFERENCE.mask, 0)


def _keep_locked(database: Database, rows: assemble.DayRows, v: ValidatedMatrix, inputs: list[bytes], stored: pl.DataFrame) -> int:
    """Put stored final estimates back where a row's own inputs are the same: history that grew meanwhile does not move them."""
    locked = stored.filter(pl.col("locked"))
    if not locked.height:
        return 0
    key = ["service_point_id", "meter_id", "channel"]
    same = (
        v.keys.select(key).with_row_index("row").with_columns(input=pl.Series(inputs, dtype=pl.Binary))
        .join(locked.select(*key, "input_hash"), on=key).filter(pl.col("input") == pl.col("input_hash"))
    )
    if not same.height:
        return 0
    frame = store.read_vectors(database, store.INTERVAL_DAY, v.billing_day, same["meter_id"].unique().sort().to_list())
    kept = 0
    for m in to_matrices(frame):
        if m.interval_minutes != rows.matrix.interval_minutes or m.slots != rows.matrix.slots:
            continue
        found = m.keys.with_row_index("source").join(same.select(*key, "row"), on=key)
        source, at = found["source"].to_numpy(), found["row"].to_numpy()
        v.values[at], v.quality[at] = m.values[source], m.quality[source]
        v.total[at] = found["total_micro"].to_numpy()
        v.unscaled[at] = found["unscaled_micro"].to_numpy()
        stable = np.int64(~(rr.REFERENCE.mask))
        v.row_flags[at] = (found["row_flags"].to_numpy() & stable) | (v.row_flags[at] & rr.REFERENCE.mask)
        for name in ("actual", "estimated", "missing"):
            getattr(v, name)[at] = found[name].to_numpy()
        for row, note in zip(at, found["notes"].to_list(), strict=True):
            v.anchors.pop(int(row), None)
            if note:
                v.anchors[int(row)] = note
        kept += found.height
    return kept


def _with_columns(v: ValidatedMatrix, rows: assemble.DayRows, inputs: list[bytes], contents: list[bytes], *, final: bool) -> pl.DataFrame:
    extra = results.interval_keys(v, rows, inputs, contents, final=final)
    return extra.with_columns(v.keys["commodity"], v.keys["customer_class"], v.keys["has_point"])


def _register_only(read: DayInputs, calendar: BillingCalendar, day: date) -> pl.DataFrame:
    """Series of register-only meters with class and account, aligned for ``results.register_usage``."""
    return (
        read.registers.frame.with_row_index("index")
        .filter(pl.col("register_only"))
        .join(read.points.select("service_point_id", "customer_class"), on="service_point_id", how="inner")
        .join(read.mapped, on="service_point_id", how="left")
        .with_columns(day_seconds=pl.lit(calendar.seconds(day), pl.Int64))
        .sort("service_point_id", "meter_id", "channel")
    )


def _exceptions(read: DayInputs, validated: list[ValidatedMatrix], usage: pl.DataFrame, day: date, now: datetime) -> pl.DataFrame:
    """All exceptions of the day, one row per kind and row, sorted by key."""
    text = {c: pl.lit("").alias(c) for c in ("meter_id", "channel")}
    used = usage["service_point_id"].unique().implode() if usage.height else pl.Series([], dtype=pl.String).implode()
    parts = [
        read.account_faults.filter(pl.col("service_point_id").is_in(used)).select(
            "kind", "service_point_id", text["meter_id"], text["channel"], pl.lit("fail").alias("severity"), "detail"
        )
    ]
    if read.unexpected.height:
        parts.append(
            read.unexpected.select(
                pl.when(pl.col("declared")).then(pl.lit("INTERVAL_SIZE")).otherwise(pl.lit("UNKNOWN_METER")).alias("kind"),
                pl.lit("").alias("service_point_id"), "meter_id", "channel", pl.lit("fail").alias("severity"),
                pl.format("{} minutes, unit {}", "interval_minutes", "unit").alias("detail"),
            )
        )
    start_s, end_s = int(read.start.timestamp()), int(read.end.timestamp())
    moved = (
        read.windows.filter(pl.col("billed") & ((pl.col("begin_s") > start_s) | (pl.col("end_s") < end_s))).group_by("meter_id", "channel")
        .agg(pl.col("service_point_id").n_unique().alias("points"), pl.col("service_point_id").unique().sort().str.join(" ").alias("detail"))
        .filter(pl.col("points") > 1)
    )
    parts.append(
        moved.select(
            pl.lit("TRANSFERRED").alias("kind"), pl.lit("").alias("service_point_id"), "meter_id", "channel", pl.lit("inform").alias("severity"), "detail"
        )
    )
    for v in validated:
        parts.append(results.row_exceptions(v).filter(~pl.col("kind").is_in(["REFERENCE"])))
        orphan = v.keys.filter(~pl.col("has_point"))
        parts.append(
            orphan.select(
                pl.lit("NO_SERVICE_POINT").alias("kind"), "service_point_id", "meter_id", "channel", pl.lit("fail").alias("severity"),
                pl.lit(references.KINDS["NO_SERVICE_POINT"]).alias("detail"),
            )
        )
    if usage.height:
        only = usage.filter(pl.col("source") == "register")
        parts += [
            only.filter((pl.col("row_flags") & rule.mask) != 0).select(
                pl.lit(rule.code).alias("kind"), "service_point_id", text["meter_id"], text["channel"], pl.lit("fail").alias("severity"),
                pl.lit(rule.about).alias("detail"),
            )
            for rule in (rr.DECREASE, rr.DIALS, rr.NOT_ESTIMATED)
        ]
    return (
        pl.concat(parts, how="vertical_relaxed")
        .with_columns(billing_day=pl.lit(day, pl.Date), first_seen=pl.lit(now), detail=pl.col("detail").fill_null(""))
        .unique(["kind", "service_point_id", "meter_id", "channel"], keep="first", maintain_order=True)
        .sort("kind", "service_point_id", "meter_id", "channel")
        .select(store.EXCEPTION)
    )


def _write(
    connection: Any, read: DayInputs, validated: list[ValidatedMatrix], edited: list[edits.Applied], stored: pl.DataFrame, usage: pl.DataFrame, exceptions: pl.DataFrame,
    shapes: list[pl.DataFrame], outcome: VeeOutcome, *, now: datetime, actor: str,
) -> list[pl.DataFrame]:
    """Write what changed; returns the keys of the rows written, with their hashes and flags."""
    day = read.day
    key = list(store.INTERVAL_DAY.keys)
    store.write_rules(connection, published_rules())
    first = store.open_day(connection, day)
    current: list[pl.DataFrame] = []
    new_versions: list[pl.DataFrame] = []
    for v, own in zip(validated, edited, strict=True):
        at = np.flatnonzero(v.keys["has_point"].to_numpy())
        keys = v.keys.filter("has_point").select(*key, *store.EXTRA)
        known = keys.join(stored.select(*key, "version", "input_hash", "content_hash", "locked"), on=key, how="left", maintain_order="left", suffix="_old")
        changed = (known["content_hash_old"].is_null() | (known["content_hash_old"] != known["content_hash"])).to_numpy()
        current.append(known.select(key))
        outcome.unchanged += int((~changed).sum())
        outcome.inserted += int(known["content_hash_old"].is_null().sum())
        rows = np.flatnonzero(changed)
        if not rows.size:
            continue
        versions = known["version_old"].fill_null(0) + 1
        written = keys.with_columns(version=versions.cast(pl.Int32))[rows]
        new_versions.append(written.select(*key, "content_hash", "row_flags"))
        whole = rows.size == v.keys.height
        values, codes = (v.values, v.quality) if whole else (v.values[at[rows]], v.quality[at[rows]])
        matrix = DayMatrix(day, v.raw.interval_minutes, written, values, codes, np.zeros(values.shape, np.int32))
        frame = from_matrix(matrix, read.start)
        replaced = known[rows].filter(pl.col("content_hash_old").is_not_null())
        outcome.updated += replaced.height
        moved = pl.col("input_hash") != pl.col("input_hash_old")
        reasons = replaced.select(*key, reason=pl.when(moved).then(pl.lit("inputs")).otherwise(pl.lit("re-estimated")))
        reasons = reasons.join(edits.authors(own, v), on=key, how="left", maintain_order="left").select(
            *key, pl.coalesce("said", "reason").alias("reason"), "by"
        )
        store.write_intervals(connection, day, frame, pl.DataFrame(schema=dict.fromkeys(key, pl.String)), first, now=now, actor=actor, reasons=reasons)
    gone = stored.join(pl.concat(current), on=key, how="anti") if current else stored
    if gone.height:
        outcome.withdrawn = gone.height
        withdrawn = gone.select(*key, pl.lit("withdrawn").alias("reason"))
        store.write_intervals(connection, day, pl.DataFrame(), withdrawn, False, now=now, actor=actor, reasons=withdrawn)
    registers = _register_frame(read)
    shape = pl.concat(shapes) if shapes else pl.DataFrame()
    for table, frame, columns, names in (
        ("vee.register_day", registers, store.REGISTER_DAY, ("billing_day", *key)),
        ("vee.daily_usage", usage, store.DAILY_USAGE, ("billing_day", "service_point_id", "flow", "unit")),
    ):
        if first and frame.height:
            store.first_rows(connection, table, day, frame, columns)
        elif not first:
            store.replace_rows(connection, table, day, frame, columns, names)
    if first:
        store.attach_day(connection, day)
    store.write_usage_history(connection, day, usage)
    store.replace_rows(connection, "vee.exception", day, exceptions, store.EXCEPTION, ("billing_day", "kind", *key))
    if shape.height:
        store.replace_rows(connection, "vee.group_day", day, shape, store.GROUP_DAY, ("billing_day", "head_end", "unit", "flow", "interval_minutes"))
    return new_versions


def _register_frame(read: DayInputs) -> pl.DataFrame:
    use = read.registers.use
    return read.registers.frame.select("service_point_id", "meter_id", "channel", "unit").with_columns(
        billing_day=pl.lit(read.day, pl.Date),
        quantity_micro=pl.select(pl.when(pl.Series(use.quantity != NO_VALUE)).then(pl.Series(use.quantity))).to_series(),
        gap_seconds=pl.Series(use.gap_s), causes=pl.Series(use.causes), reads=pl.Series(use.reads.astype(np.int32)),
        closed=pl.Series(use.closed), broken=pl.Series(use.broken),
    ).unique(["service_point_id", "meter_id", "channel"], keep="last", maintain_order=True).select(store.REGISTER_DAY)


def published_rules() -> list[tuple[str, int, str, str, str, str]]:
    """The list of rules as the store keeps it: scope, bit, code, severity for first reads, source, about."""
    return [
        (scope, rule.bit, rule.code, rule.severity.get(Role.INITIAL, Severity.INFORM).name.lower(), rule.source, rule.about)
        for scope, registry in (("interval", INTERVAL_RULES), ("row", ROW_RULES))
        for rule in registry.values()
    ]


def _record(
    connection: Any, validated: list[ValidatedMatrix], written: list[pl.DataFrame], outcome: VeeOutcome, exceptions: pl.DataFrame, clock: Clock,
    actor: str,
) -> int | None:
    """Ledger entries for the day, in the same transaction: each new version of a row is a leaf once. None where nothing changed."""
    if not (outcome.inserted or outcome.updated or outcome.withdrawn):
        return None
    leaves = [h for frame in written for h in frame["content_hash"].to_list()]
    filled = [h for frame in written for h in frame.filter((pl.col("row_flags") & rr.ESTIMATED.mask) != 0)["content_hash"].to_list()]
    if filled:
        methods: Counter[str] = Counter()
        for v in validated:
            methods.update(estimates_by_method(v))
        said = {
            "billing_day": outcome.billing_day.isoformat(), "rules_version": outcome.rules_version, "channel_days": len(filled),
            "intervals_by_method": dict(sorted(methods.items())), "total_micro": sum(_estimated_micro(v) for v in validated),
        }
        ledger.append(connection, "estimated", said, filled, clock=clock, actor=actor)
    body = {
        "billing_day": outcome.billing_day.isoformat(), "rules_version": outcome.rules_version, "rules_sha256": outcome.rules_digest,
        "inserted": outcome.inserted, "updated": outcome.updated, "unchanged": outcome.unchanged, "withdrawn": outcome.withdrawn,
        "estimated_intervals": int(sum(int(v.estimated.sum()) for v in validated)), "exceptions": exceptions.height,
    }
    return ledger.append(connection, "validated", body, leaves or None, clock=clock, actor=actor)


def _estimated_micro(v: ValidatedMatrix) -> int:
    rows = np.flatnonzero(v.estimated > 0)
    held = code_table("estimate")[v.quality[rows]] & (v.values[rows] != NO_VALUE)
    return int(np.where(held, v.values[rows], 0).sum())
