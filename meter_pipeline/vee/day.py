"""The stage: one billing day of raw reads becomes validated intervals and daily usage.

Belongs here: reading in bulk, calling the pure functions in order, writing in one transaction with the ledger. Does not belong here: rules,
estimates, SQL text.

A rerun with the same inputs writes nothing. A row whose content changed gets a new version and keeps the old one with the reason; a row
whose estimates are locked changes only when its raw reads, its register or the thresholds do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.store import validated as store
from meter_pipeline.store.database import Database
from meter_pipeline.store.vectors import RAW_INTERVAL_DAY, from_matrix, read_matrices, to_matrices
from meter_pipeline.vee import assemble, references, results
from meter_pipeline.vee import history as past
from meter_pipeline.vee import row_rules as rr
from meter_pipeline.vee import thresholds as threshold_file
from meter_pipeline.vee.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity, mask_of
from meter_pipeline.vee.interval_rules import code_table
from meter_pipeline.vee.model import DailyHistory, Ints, ValidatedMatrix, VectorHistory, VectorLoader
from meter_pipeline.vee.thresholds import Thresholds
from meter_pipeline.vee.verdict import validate_matrix

#: Days around a billing day in which a register read may close or open it
REGISTER_REACH_DAYS: Final = 100
#: Intervals beside midnight that may anchor an interpolation, in hours
EDGE_HOURS: Final = 3
_WORST: Final = 12


@dataclass(slots=True)
class VeeOutcome:
    """What a validation of a billing day found and changed: counts for metadata and checks, small frames for plots.

    ``expected = actual + estimated + missing`` over interval channels. ``rules``: hits by rule code (rows for row rules, intervals for
    interval rules). ``sum_check``: rows tested and failed. ``usage``: the day's usage as stored. ``worst``: the rows most in need of eyes.
    ``shape``: per slot the validated, estimated and rejected quantity by unit. ``redetermine``: earlier days that a register read of
    this day allows to be trued up.
    """

    billing_day: date
    rules_version: int
    rules_digest: str
    rows: int = 0
    expected: int = 0
    actual: int = 0
    estimated: int = 0
    missing: int = 0
    register_only: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    locked_kept: int = 0
    sum_checked: int = 0
    sum_failed: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    exceptions: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    usage: pl.DataFrame = field(default_factory=pl.DataFrame)
    worst: pl.DataFrame = field(default_factory=pl.DataFrame)
    shape: pl.DataFrame = field(default_factory=pl.DataFrame)
    shifted_head_ends: dict[str, int] = field(default_factory=dict)
    redetermine: list[date] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ledger_entry: int | None = None

    @property
    def balanced(self) -> bool:
        """Whether every expected slot is accounted for."""
        return self.expected == self.actual + self.estimated + self.missing


@dataclass(slots=True)
class _Day:
    """What was read for the day, before judgement."""

    day: date
    start: datetime
    end: datetime
    reference: store.Reference
    rows: list[assemble.DayRows]
    unexpected: pl.DataFrame
    registers: assemble.Registers
    mapped: pl.DataFrame
    account_faults: pl.DataFrame
    windows: pl.DataFrame
    points: pl.DataFrame


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
    vee.register_day, vee.daily_usage, vee.exception, vee.group_day and one ledger entry, in one transaction. Raises psycopg errors.
    """
    t = thresholds or threshold_file.default()
    outcome = VeeOutcome(day, t.version, t.digest)
    watch = _Watch(outcome.seconds)
    now = clock.now()
    final = now >= calendar.bounds(day)[1] + timedelta(days=t.final_after_days)
    read = _read(database, calendar, day, t, now)
    watch("read")
    history = store.read_daily_history(database, day - timedelta(days=t.like_days_back), day - timedelta(days=1))
    days = [day - timedelta(days=k) for k in range(t.high_low_days, 0, -1)]
    like = [past.day_class(d, read.reference.holidays) == past.day_class(day, read.reference.holidays) for d in days]
    available = store.validated_days(database, day - timedelta(days=t.like_days_back), day - timedelta(days=1))
    watch("history")
    validated: list[ValidatedMatrix] = []
    usage_parts: list[pl.DataFrame] = []
    shapes: list[pl.DataFrame] = []
    for rows in read.rows:
        daily = past.align_daily(rows.keys, history, days, like)
        rows.context.estimate_streak = past.estimate_streaks(rows.keys, history, day)
        shape = results.head_end_shapes(rows, day)
        shapes.append(shape)
        _mark_shifts(database, calendar, day, read, rows, shape, available, t, outcome)
        loader = _loader(database, calendar, day, rows, read.reference, available, t)
        validated.append(validate_matrix(rows.matrix, rows.keys, rows.context, daily, loader, t, final=final))
    watch("validate")
    only = _register_only(read, calendar, day)
    register_history = past.align_daily(only, history, days, like)
    with database.connect("vee") as connection:
        store.lock_day(connection, day)
        stored = store.stored_rows(database, day)
        for rows, v in zip(read.rows, validated, strict=True):
            _mark_references(v)
            inputs = results.input_hashes(rows, t.digest, final=final)
            outcome.locked_kept += _keep_locked(database, rows, v, inputs, stored)
            contents = results.content_hashes(v)
            v.keys = _with_columns(v, rows, inputs, contents, final=final)
            usage_parts.append(results.interval_usage(v))
        watch("hash")
        usage_parts.append(results.register_usage(read.registers, only, register_history, t))
        usage = results.daily_usage(usage_parts, day)
        exceptions = _exceptions(read, validated, usage, day, now)
        _write(connection, read, validated, stored, usage, exceptions, shapes, outcome, now=now, actor=actor)
        outcome.ledger_entry = _record(connection, validated, outcome, exceptions, clock, actor)
    watch("write")
    _summarise(outcome, read, validated, usage, exceptions)
    outcome.redetermine = _redetermine(read, history, day)
    watch("summary")
    return outcome


class _Watch:
    """Seconds by step, for metadata."""

    def __init__(self, into: dict[str, float]) -> None:
        self.into, self.last = into, time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.into[step], self.last = round(now - self.last, 4), now


def _read(database: Database, calendar: BillingCalendar, day: date, t: Thresholds, now: datetime) -> _Day:
    start, end = calendar.bounds(day)
    start_s, end_s = int(start.timestamp()), int(end.timestamp())
    reference = store.read_reference(database, day, start, end, day - timedelta(days=t.like_days_back))
    windows = assemble.day_windows(assemble.with_units(reference.installations), start_s, end_s)
    points = reference.service_points
    mapped, faults = references.map_accounts(points, reference.agreements, reference.accounts, reference.tariffs, reference.cycles, day)
    accounts = mapped.with_columns(
        tariff_id=pl.when(pl.col("tariff_version").is_not_null()).then(pl.col("tariff_id")),
        cycle_id=pl.when(~pl.col("service_point_id").is_in(faults.filter(pl.col("kind") == "NO_CYCLE")["service_point_id"].implode())).then(
            pl.col("cycle_id")
        ),
    ).drop("tariff_version")
    raw = read_matrices(database, RAW_INTERVAL_DAY, day)
    expected = assemble.expected_rows(windows, points, accounts)
    lengths = {m.interval_minutes for m in raw} | set(expected["interval_minutes"].drop_nulls().to_list())
    slots = {int(m): calendar.slots(day, int(m)) for m in lengths}
    rows, unexpected = assemble.assemble(
        raw, expected, day, start_s, slots, t, int(now.timestamp()), store.read_reused_sequences(database, day)
    )
    reads = store.read_registers(database, day - timedelta(days=1), day + timedelta(days=1))
    registers = assemble.register_series(windows, reads, t)
    lonely = registers.frame.filter(pl.Series((registers.use.quantity == NO_VALUE) | (registers.use.reads == 0)))["meter_id"].unique().sort().to_list()
    if lonely:
        reach = timedelta(days=REGISTER_REACH_DAYS)
        wide = store.read_registers(database, day - reach, day + reach, lonely)
        others = reads.filter(~pl.col("meter_id").is_in(lonely))
        registers = assemble.register_series(windows, pl.concat([others, wide], how="vertical_relaxed"), t)
    for part in rows:
        assemble.attach_registers(part, registers, t)
    return _Day(day, start, end, reference, rows, unexpected, registers, accounts, faults, windows, points)


def _loader(
    database: Database, calendar: BillingCalendar, day: date, rows: assemble.DayRows, reference: store.Reference, available: list[date],
    t: Thresholds,
) -> VectorLoader:
    """Reads the vectors of the rows that need estimates: like days, days of similar temperature, the edges of the days beside."""
    minutes, slots = rows.matrix.interval_minutes, rows.matrix.slots
    edge = min(max(EDGE_HOURS * 60 // minutes, 1), slots)
    like = past.like_days(day, reference.holidays, t.like_days_back, set(available))[-2 * t.like_days :]
    today = reference.temperatures.get(day, float("nan"))
    near = sorted(
        (abs(reference.temperatures[d] - today), day - d, d) for d in available if d in reference.temperatures and today == today
    )[: t.proxy_days * 2]
    chosen = sorted({*like, *(d for gap, _, d in near if gap <= t.proxy_celsius)})

    def load(wanted: Ints) -> VectorHistory:
        keys = rows.keys[wanted].select("service_point_id", "meter_id", "channel", "flow", "unit").with_row_index("row")
        meters = keys["meter_id"].unique().sort().to_list()
        n = wanted.size
        out = VectorHistory.empty(n, slots, edge)
        out.days = chosen
        out.values = np.full((len(chosen), n, slots), NO_VALUE, np.int64)
        out.usable = np.zeros((len(chosen), n, slots), np.bool_)
        out.like = np.array([d in like for d in chosen], np.bool_)
        out.temperature = np.array([reference.temperatures.get(d, np.nan) for d in chosen], np.float64)
        out.day_temperature = today
        for k, other in enumerate(chosen):
            to = past.slot_map(calendar.zone, day, other, minutes)
            for at, m in _validated_rows(database, other, meters, keys, minutes):
                usable = _usable(m)
                whole = usable.all(axis=1) & (m.keys["expected"].to_numpy() == m.slots)
                out.values[k, at] = m.values[:, to]
                out.usable[k, at] = usable[:, to] & whole[:, None]
        before = day - timedelta(days=1)
        if before in available:
            for at, m in _validated_rows(database, before, meters, keys, minutes):
                out.before[at] = np.where(_usable(m), m.values, NO_VALUE)[:, -edge:]
        frame = store.read_vectors(database, RAW_INTERVAL_DAY, day + timedelta(days=1), meters)
        for m in to_matrices(frame) if frame.height else []:
            if m.interval_minutes == minutes:
                found = m.keys.select("meter_id", "channel").with_row_index("source").join(keys, on=["meter_id", "channel"])
                anchors = np.where((m.quality == quality.ACTUAL) & (m.values >= 0), m.values, NO_VALUE)
                out.after[found["row"].to_numpy()] = anchors[found["source"].to_numpy(), :edge]
        return out

    return load


def _usable(m: DayMatrix) -> Any:
    return (m.values != NO_VALUE) & ~code_table("estimate")[m.quality] & ~code_table("outage")[m.quality]


def _validated_rows(database: Database, day: date, meters: list[str], keys: pl.DataFrame, minutes: int) -> list[tuple[Ints, DayMatrix]]:
    """Validated vectors of a day with the row (of ``keys``) each belongs to; a new meter takes its service point's old one's days."""
    frame = store.read_vectors(database, store.INTERVAL_DAY, day, meters)
    out = []
    for m in to_matrices(frame) if frame.height else []:
        if m.interval_minutes != minutes:
            continue
        found = m.keys.select("service_point_id", "meter_id", "channel").with_row_index("source").join(keys, on=["service_point_id", "meter_id", "channel"])
        source = found["source"].to_numpy()
        picked = DayMatrix(m.billing_day, minutes, m.keys[source], m.values[source], m.quality[source], m.sequence[source])
        out.append((found["row"].to_numpy(), picked))
    return out


def _mark_shifts(
    database: Database, calendar: BillingCalendar, day: date, read: _Day, rows: assemble.DayRows, shape: pl.DataFrame, available: list[date],
    t: Thresholds, outcome: VeeOutcome,
) -> None:
    """Flag the rows of a head-end whose whole day lies shifted by hours against its own history."""
    like = past.like_days(day, read.reference.holidays, t.like_days_back, set(available))[-t.like_days :]
    if not like or not shape.height:
        return
    groups = store.read_groups(database, like)
    for head_end, unit, flow, members, profile in shape.select("head_end", "unit", "flow", "members", "profile").iter_rows():
        if members < t.shift_min_rows:
            continue
        usual = np.zeros(rows.matrix.slots, np.float64)
        same = groups.filter(
            (pl.col("head_end") == head_end) & (pl.col("unit") == unit) & (pl.col("flow") == flow)
            & (pl.col("interval_minutes") == rows.matrix.interval_minutes)
        )
        for other, count, sums in same.select("billing_day", "members", "profile").sort("billing_day").iter_rows():
            to = past.slot_map(calendar.zone, day, other, rows.matrix.interval_minutes)
            usual += np.array(sums, np.float64)[to] / max(count, 1)
        hours = past.hour_shift(np.array(profile, np.float64) / members, usual, rows.matrix.interval_minutes, t.shift_margin)
        if same.height and hours:
            outcome.shifted_head_ends[f"{head_end} {unit} {flow}"] = hours
            mine = ((pl.col("head_end") == head_end) & (pl.col("unit") == unit) & (pl.col("flow") == flow))
            rows.context.register_flags |= np.where(rows.keys.select(mine).to_series().to_numpy(), rr.HOUR_SHIFT.mask, 0)


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


def _register_only(read: _Day, calendar: BillingCalendar, day: date) -> pl.DataFrame:
    """Series of register-only meters with class and account, aligned for ``results.register_usage``."""
    return (
        read.registers.frame.with_row_index("index")
        .filter(pl.col("register_only"))
        .join(read.points.select("service_point_id", "customer_class"), on="service_point_id", how="inner")
        .join(read.mapped, on="service_point_id", how="left")
        .with_columns(day_seconds=pl.lit(calendar.seconds(day), pl.Int64))
        .sort("service_point_id", "meter_id", "channel")
    )


def _exceptions(read: _Day, validated: list[ValidatedMatrix], usage: pl.DataFrame, day: date, now: datetime) -> pl.DataFrame:
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
    moved = (
        read.windows.filter(pl.col("billed")).group_by("meter_id", "channel")
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
    only = usage.filter((pl.col("source") == "register") & ((pl.col("row_flags") & mask_of(ROW_RULES, Severity.FAIL, Role.INITIAL)) != 0)) if usage.height else usage
    for code in (rr.DECREASE, rr.DIALS, rr.NOT_ESTIMATED):
        if only.height:
            parts.append(
                only.filter((pl.col("row_flags") & code.mask) != 0).select(
                    pl.lit(code.code).alias("kind"), "service_point_id", text["meter_id"], text["channel"], pl.lit("fail").alias("severity"),
                    pl.lit(code.about).alias("detail"),
                )
            )
    return (
        pl.concat(parts, how="vertical_relaxed")
        .with_columns(billing_day=pl.lit(day, pl.Date), first_seen=pl.lit(now), detail=pl.col("detail").fill_null(""))
        .unique(["kind", "service_point_id", "meter_id", "channel"], keep="first", maintain_order=True)
        .sort("kind", "service_point_id", "meter_id", "channel")
        .select(store.EXCEPTION)
    )


def _write(
    connection: Any, read: _Day, validated: list[ValidatedMatrix], stored: pl.DataFrame, usage: pl.DataFrame, exceptions: pl.DataFrame,
    shapes: list[pl.DataFrame], outcome: VeeOutcome, *, now: datetime, actor: str,
) -> None:
    day = read.day
    key = list(store.INTERVAL_DAY.keys)
    store.write_rules(connection, published_rules())
    first = store.open_day(connection, day)
    current: list[pl.DataFrame] = []
    for v in validated:
        keep = v.keys["has_point"].to_numpy()
        at = np.flatnonzero(keep)
        keys = v.keys.filter(pl.Series(keep)).select(*key, *store.EXTRA)
        matrix = DayMatrix(day, v.raw.interval_minutes, keys, v.values[at], v.quality[at], np.zeros((1, 1), np.int32))
        known = keys.join(stored.select(*key, "version", "input_hash", "content_hash", "locked"), on=key, how="left", maintain_order="left", suffix="_old")
        changed = (known["content_hash_old"].is_null() | (known["content_hash_old"] != known["content_hash"])).to_numpy()
        current.append(known.select(key))
        outcome.unchanged += int((~changed).sum())
        outcome.inserted += int(known["content_hash_old"].is_null().sum())
        rows = np.flatnonzero(changed)
        if not rows.size:
            continue
        versions = known["version_old"].fill_null(0) + 1
        matrix = DayMatrix(
            day, v.raw.interval_minutes, keys.with_columns(version=versions.cast(pl.Int32))[rows], matrix.values[rows], matrix.quality[rows],
            np.zeros((rows.size, v.raw.slots), np.int32),
        )
        frame = from_matrix(matrix, read.start)
        replaced = known[rows].filter(pl.col("content_hash_old").is_not_null())
        outcome.updated += replaced.height
        reasons = replaced.select(*key, reason=pl.when(pl.col("input_hash") != pl.col("input_hash_old")).then(pl.lit("inputs")).otherwise(pl.lit("re-estimated")))
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
    store.replace_rows(connection, "vee.exception", day, exceptions, store.EXCEPTION, ("billing_day", "kind", *key))
    if shape.height:
        store.replace_rows(connection, "vee.group_day", day, shape, store.GROUP_DAY, ("billing_day", "head_end", "unit", "flow", "interval_minutes"))


def _register_frame(read: _Day) -> pl.DataFrame:
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


def _record(connection: Any, validated: list[ValidatedMatrix], outcome: VeeOutcome, exceptions: pl.DataFrame, clock: Clock, actor: str) -> int | None:
    """One ledger entry for the day, in the same transaction; none where nothing changed."""
    if not (outcome.inserted or outcome.updated or outcome.withdrawn):
        return None
    leaves = [h for v in validated for h in v.keys.filter(pl.col("has_point"))["content_hash"].to_list()]
    body = {
        "billing_day": outcome.billing_day.isoformat(), "rules_version": outcome.rules_version, "rules_sha256": outcome.rules_digest,
        "inserted": outcome.inserted, "updated": outcome.updated, "unchanged": outcome.unchanged, "withdrawn": outcome.withdrawn,
        "estimated_intervals": int(sum(int(v.estimated.sum()) for v in validated)), "exceptions": exceptions.height,
    }
    return ledger.append(connection, "validated", body, leaves or None, clock=clock, actor=actor)


def _summarise(outcome: VeeOutcome, read: _Day, validated: list[ValidatedMatrix], usage: pl.DataFrame, exceptions: pl.DataFrame) -> None:
    for v in validated:
        outcome.rows += v.keys.height
        outcome.expected += int(v.expected.sum())
        outcome.actual += int(v.actual.sum())
        outcome.estimated += int(v.estimated.sum())
        outcome.missing += int(v.missing.sum())
        tested = v.difference != NO_VALUE
        outcome.sum_checked += int(tested.sum())
        outcome.sum_failed += int((v.row_flags & ROW_RULES["SUM_CHECK"].mask != 0).sum())
        for rule in ROW_RULES.values():
            hits = int((v.row_flags & rule.mask != 0).sum())
            if hits:
                outcome.rules[rule.code] = outcome.rules.get(rule.code, 0) + hits
        flagged = v.flags[v.flags.any(axis=1)]
        for rule in INTERVAL_RULES.values():
            hits = int((flagged & np.int32(rule.mask) != 0).sum()) if flagged.size else 0
            if hits:
                outcome.rules[rule.code] = outcome.rules.get(rule.code, 0) + hits
        rows = np.flatnonzero(v.estimated > 0)
        found, counts = np.unique(v.quality[rows][code_table("estimate")[v.quality[rows]]], return_counts=True)
        for code, count in zip(found, counts, strict=True):
            word = quality.unpack(int(code))
            name = f"{word.flag}{word.method or ''}"
            outcome.methods[name] = outcome.methods.get(name, 0) + int(count)
    outcome.register_only = int((usage["source"] == "register").sum()) if usage.height else 0
    outcome.exceptions = dict(sorted(exceptions.group_by("kind").len().iter_rows())) if exceptions.height else {}
    if usage.height:
        outcome.totals = dict(sorted(usage.group_by(pl.format("{} {}", "flow", "unit")).agg(pl.col("quantity_micro").sum()).iter_rows()))
    outcome.usage = usage
    outcome.worst = worst_rows(validated)
    outcome.shape = day_shape(validated)


def worst_rows(validated: list[ValidatedMatrix], most: int = _WORST) -> pl.DataFrame:
    """The rows most in need of eyes: failing rules first, then the largest miss of a sum check, then the most estimates."""
    failing = mask_of(ROW_RULES, Severity.FAIL, Role.INITIAL) & ~rr.REFERENCE.mask
    parts = []
    for v in validated:
        miss = np.where(v.difference != NO_VALUE, np.abs(v.total - np.where(v.difference == NO_VALUE, 0, v.difference)), 0)
        fails = (v.row_flags & failing != 0).astype(np.int64)
        order = np.lexsort((-v.estimated, -miss, -fails))[:most]
        part = v.keys[order].select("service_point_id", "meter_id", "channel", "unit").with_columns(
            interval_minutes=pl.lit(v.raw.interval_minutes, pl.Int32), total_micro=pl.Series(v.total[order]), miss_micro=pl.Series(miss[order]),
            estimated=pl.Series(v.estimated[order]), expected=pl.Series(v.expected[order]), row_flags=pl.Series(v.row_flags[order]),
            failed=pl.Series(fails[order]),
        )
        parts.append(part)
    if not parts:
        return pl.DataFrame()
    return pl.concat(parts).filter((pl.col("failed") > 0) | (pl.col("estimated") > 0)).sort(
        "failed", "miss_micro", "estimated", "meter_id", "channel", descending=[True, True, True, False, False]
    ).head(most)


def day_shape(validated: list[ValidatedMatrix]) -> pl.DataFrame:
    """Per interval length, unit and slot: quantity validated as read, quantity estimated, and quantity rejected, micro units."""
    parts = []
    table = code_table("estimate")
    for v in validated:
        numbers = v.keys.select(pl.struct("unit", "flow").rank("dense")).to_series().to_numpy()
        for g in np.unique(numbers):
            at = np.flatnonzero(numbers == g)
            touched = at[(v.estimated[at] > 0) | v.flags[at].any(axis=1)]
            held = v.values[touched] != NO_VALUE
            estimated = np.where(held & table[v.quality[touched]], v.values[touched], 0).sum(axis=0)
            raw = v.raw.values[touched]
            rejected = np.where((raw != NO_VALUE) & (raw != v.values[touched]), np.abs(raw), 0).sum(axis=0)
            everything = np.where(v.values[at] == NO_VALUE, 0, v.values[at]).sum(axis=0)
            unit, flow = v.keys.select("unit", "flow").row(int(at[0]))
            parts.append(
                pl.DataFrame({"slot": np.arange(v.raw.slots), "actual": everything - estimated, "estimated": estimated, "rejected": rejected})
                .with_columns(unit=pl.lit(unit), flow=pl.lit(flow), interval_minutes=pl.lit(v.raw.interval_minutes, pl.Int32))
            )
    return pl.concat(parts) if parts else pl.DataFrame()


def _redetermine(read: _Day, history: pl.DataFrame, day: date) -> list[date]:
    """Earlier days with forward estimates of service points whose register was read today."""
    if not history.height:
        return []
    only = read.registers.frame.with_columns(reads=pl.Series(read.registers.use.reads)).filter((pl.col("reads") > 0) & pl.col("register_only"))
    waiting = history.filter(pl.col("forward")).join(only.select("service_point_id", "flow", "unit").unique(), on=["service_point_id", "flow", "unit"], how="semi")
    return sorted(d for d in waiting["billing_day"].unique().to_list() if d < day)
