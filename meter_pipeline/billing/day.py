"""Bills a day: reads validated usage, computes determinants and charges, writes and reconciles them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache, partial
from typing import Any, Final

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DayCharges, joined
from meter_pipeline.billing.back_billing import tables as policies
from meter_pipeline.billing.day_entry import Before, Written, billed_entry
from meter_pipeline.billing.day_reconciliation import BilledRows, SourceRows, day_checks, read_source_rows
from meter_pipeline.billing.day_shards import charges_of, read_shard
from meter_pipeline.billing.leaves import charge_leaves, determinant_leaves
from meter_pipeline.billing.missing_usage import with_missing_usage
from meter_pipeline.billing.positions import matrix
from meter_pipeline.billing.recalculate import KEY, carry_forward
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.sealed_days import keep_revisions, repriced_points
from meter_pipeline.billing.service_agreements import (
    EXCEPTION_SCHEMA,
    NO_EXCEPTIONS,
    DayServices,
    Reference,
    services_of_day,
)
from meter_pipeline.billing.tables import adjustments as late
from meter_pipeline.billing.tables import days, part_of_day
from meter_pipeline.billing.tables import reconciliation as checks
from meter_pipeline.billing.tariff_freeze import freeze_versions
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.virtual_points import with_parts
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.reading import beside, is_shared, is_undone, reading
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.sharding import KeyRange, KeySet, key_ranges

#: Services read, computed and written together: their quarter-hours are 10 MB, and eight of these make a hundred
#: thousand, so that reading, computing and writing overlap from soon after the start until soon before the end (4.1 s
#: a day; 4.5 with four, 4.7 with twelve).
SERVICES_PER_SHARD: Final = 12_500


@dataclass(slots=True)
class BillingOutcome:
    """Result of billing a day. Money in millionths of the currency.

    ``changed``: service points written. ``carried``: later days whose charges changed with it. ``sealed``: the day's
    month is sealed, so that differences were written to billing.determinant_revision. ``reconciliation``: the day's
    reconciliation checks. ``exceptions``: reason -> services. ``streaks``: services with only estimates for
    reconcile.STREAK_DAYS or more. ``adjustments``: proposed because the day changed under issued statements
    (``statements_touched``). ``service_points``: number billed by a run for some of them, None for a whole day; figures
    and frames are then of those. ``unchecked``: service points whose reconciliation checks the caller makes (a
    correction that is previewed makes those of all its days together, several_days_checks.py).
    """

    billing_day: date
    services: int = 0
    charged: int = 0
    total: int = 0
    currency: str = ""
    changed: int = 0
    carried: dict[date, int] = field(default_factory=dict)
    sealed: bool = False
    revisions: int = 0
    statements_touched: int = 0
    adjustments: list[str] = field(default_factory=list)
    estimated_services: int = 0
    exceptions: dict[str, int] = field(default_factory=dict)
    by_component: dict[str, int] = field(default_factory=dict)
    by_period: pl.DataFrame = field(default_factory=pl.DataFrame)
    reconciliation: pl.DataFrame = field(default_factory=lambda: reconcile.NO_ROWS)
    exception_rows: pl.DataFrame = field(default_factory=lambda: NO_EXCEPTIONS)
    streaks: pl.DataFrame = field(default_factory=pl.DataFrame)
    seconds: dict[str, float] = field(default_factory=dict)
    ledger_entry: int | None = None
    service_points: int | None = None
    unchecked: tuple[str, ...] = ()

    def report(self) -> StageReport:
        """The day for asset metadata."""
        from meter_pipeline.billing.report import stage_report

        return stage_report(self)


def bill_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
    shards: int = 0,
    only: Sequence[str] | None = None,
) -> BillingOutcome:
    """Compute and store determinants, charges, exceptions and reconciliation of a billing day. Running it again gives
    the same bytes.

    Reads vee.interval_day, vee.daily_usage, reference data and the position before the day. Writes
    billing.determinant_day, charge_day, exception_day, reconciliation and a ledger entry in one transaction. A day that
    was billed before is compared row by row, and only changed rows are written; the charges of later days are
    recalculated from it, and adjustments of issued statements are proposed.

    ``shards``: ranges of service points the day is computed in (0: ranges of SERVICES_PER_SHARD); the next range is
    read and the last is written while one is computed. The number changes no byte. ``only``: bill these service points
    of a day that was billed before, and the points whose usage is billed with theirs; the others stay as stored, with
    the same bytes as a whole run (a day that is not billed yet is billed whole).

    Raises psycopg errors, and control.pause_check.PausedError where a pause is raised before it writes.
    """
    outcome = BillingOutcome(day)
    with _sessions(database, calendar, outcome, clock, actor) as run:
        validation = part_of_day.last_validation(run.connection, day)
        inputs = _read(run, only)
        computed = _compute(run, inputs, shards)
        result = _persist(run, inputs, computed)
        table = _reconcile(run, result.stored, computed.source)
        part_of_day.note_billed(run.connection, day, validation, inputs.only)
    _summarise(outcome, result.charges, table, inputs.services.tariffs)
    if not is_shared(database) and late.waiting(database):
        from meter_pipeline.billing.adjustments import propose_late_changes

        before_writing(database, clock=clock)
        outcome.adjustments = propose_late_changes(database, calendar, clock=clock, actor=actor)
        run.watch("adjustments")
    return outcome


@dataclass(slots=True)
class _Run:
    """One run of the stage: its sessions, and the threads that read ahead and write behind."""

    database: Database
    connection: Connection
    session: Database
    ahead: Database
    reader: Executor
    writer: Executor
    calendar: BillingCalendar
    outcome: BillingOutcome
    clock: Clock
    actor: str
    begun: float

    @property
    def day(self) -> date:
        return self.outcome.billing_day

    @property
    def undone(self) -> bool:
        """Whether everything written is rolled back at the end, as for a previewed correction."""
        return is_undone(self.database)

    def watch(self, step: str) -> None:
        """Note the seconds since the last step."""
        now = time.perf_counter()
        self.outcome.seconds[step], self.begun = round(now - self.begun, 3), now


@contextmanager
def _sessions(
    database: Database, calendar: BillingCalendar, outcome: BillingOutcome, clock: Clock, actor: str
) -> Iterator[_Run]:
    """The run's sessions and threads. Everything it writes is one transaction."""
    begun = time.perf_counter()
    # The pools are left first: nothing is rolled back while a thread still writes.
    with (
        reading(database) as session,
        reading(database) as ahead,
        database.connect("billing") as connection,
        beside(database, "billing-read") as reader,
        beside(database, "billing-write") as writer,
    ):
        yield _Run(database, connection, session, ahead, reader, writer, calendar, outcome, clock, actor, begun)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of the day besides its usage. ``first_load``: the day has no rows yet and is not sealed. ``only``:
    the service points to bill, None for all."""

    reference: Reference
    services: DayServices
    first_load: bool
    only: tuple[str, ...] | None


def _read(run: _Run, only: Sequence[str] | None) -> _Inputs:
    """Lock billing and read reference data and the services of the day."""
    days.ensure_day(run.connection, run.day)
    run.connection.commit()
    days.lock(run.connection)
    run.outcome.sealed = days.sealed(run.connection, run.day)
    billed = days.is_billed(run.connection, run.day)
    points = tuple(part_of_day.with_virtual_points(run.session, run.day, only)) if only and billed else None
    reference = load_reference(run.session, run.day, run.ahead, points)
    services = with_parts(services_of_day(reference, run.day), reference, run.day)
    run.watch("reference")
    run.outcome.service_points = None if points is None else len(points)
    if points is not None and run.undone:
        run.outcome.unchecked = points
    return _Inputs(reference, services, not run.outcome.sealed and not billed, points)


@dataclass(frozen=True, slots=True)
class _Computed:
    """The day's charges, the ledger leaves of its charges and determinants in order (empty for a run that is rolled
    back), and the source rows for the checks, unless the caller makes these."""

    charges: DayCharges
    leaves: list[bytes]
    determined: list[bytes]
    source: Future[SourceRows] | None


def _compute(run: _Run, inputs: _Inputs, shards: int) -> _Computed:
    """Compute the charges range by range. While one range is computed, the next is read and the last is hashed (and,
    on a first load, written)."""
    day, services = run.day, inputs.services
    before_writing(run.session, clock=run.clock)
    freeze_versions(run.connection, services.tariffs, inputs.reference, run.clock, run.actor)
    ids = services.services["service_point_id"]
    ranges: list[KeyRange | KeySet] = [
        *key_ranges(ids.to_list(), max(1, -(-len(ids) // shards) if shards else SERVICES_PER_SHARD))
    ]
    if inputs.only is not None:
        ranges = [KeySet(inputs.only)]
    results: list[DayCharges] = []
    hashed: list[Future[tuple[list[bytes], list[bytes]]]] = []
    ahead = run.reader.submit(read_shard, run.ahead, run.calendar, day, services, ranges[0])
    source = None
    for following in [*ranges[1:], None]:
        read = ahead.result()
        if following is not None:
            ahead = run.reader.submit(read_shard, run.ahead, run.calendar, day, services, following)
        elif not run.outcome.unchecked:
            source = run.reader.submit(read_source_rows, run.database, run.calendar, day)
        results.append(charges_of(read, run.calendar, day, inputs.reference.holidays))
        if inputs.first_load or not run.undone:
            hashed.append(run.writer.submit(_load_and_hash if inputs.first_load else _hash, run, results[-1]))
    result = joined(results)
    known = with_missing_usage(run.session, run.calendar, day, services, result.exceptions)
    run.watch("charges")
    parts = [part.result() for part in hashed]
    leaves, determined = ([leaf for part in parts for leaf in part[n]] for n in (0, 1))
    return _Computed(replace(result, exceptions=known), leaves, determined, source)


@dataclass(frozen=True, slots=True)
class _Persisted:
    """The day's stored charges, and its rows read back in the transaction that wrote them, unless the caller makes
    the checks."""

    charges: DayCharges
    stored: BilledRows | None


def _persist(run: _Run, inputs: _Inputs, computed: _Computed) -> _Persisted:
    """Write the changed rows, the ledger entry, and the later days and statements that depend on them."""
    before = _before(run, inputs)
    persist = _keep_revisions if run.outcome.sealed else _write_day
    persisted = persist(run, inputs, computed, before)
    policies.note_corrections(run.connection, run.day, run.clock.now())
    run.watch("write")
    return persisted


def _before(run: _Run, inputs: _Inputs) -> Before:
    """Returns the day's rows and the sums of its statements before anything is written. For a run of some service
    points they are read now: where several days share a transaction, they cannot be read later."""
    if inputs.only is None:
        return Before.committed(run.session, run.day)
    return Before.read_stored(run.session, run.connection, run.day, inputs.only, rows=not run.undone)


def _keep_revisions(run: _Run, inputs: _Inputs, computed: _Computed, before: Before) -> _Persisted:
    """A sealed day stays as issued: write the differences to billing.determinant_revision."""
    connection, day = run.connection, run.day
    repriced = repriced_points(connection, run.session, computed.charges, day)
    revised = keep_revisions(connection, run.session, computed.charges, day, run.clock, (inputs.only, repriced))
    run.outcome.revisions = len(revised)
    touched = sorted({*revised, *repriced})
    run.outcome.statements_touched = late.note_late_changes(connection, before.amounts, day, touched, run.clock.now())
    stored = days.read_day(run.session, "charge_day", day, CHARGE_SCHEMA.names(), inputs.only)
    return _Persisted(replace(computed.charges, charges=stored), _read_back(run))


def _write_day(run: _Run, inputs: _Inputs, computed: _Computed, before: Before) -> _Persisted:
    """Write the changed rows of an open day, and recalculate the later days that depend on it."""
    connection, day, result = run.connection, run.day, computed.charges
    changed = _write(connection, result, day, inputs.first_load, inputs.only)
    run.outcome.changed = len(changed)
    if not changed:
        return _Persisted(result, _read_back(run))
    stored = _stored_and_recorded(run, inputs, computed, before, changed)
    run.outcome.carried = carry_forward(
        connection,
        run.session,
        run.calendar,
        result.charges,
        changed,
        day,
        _later_reference(run.session, changed),
        partial(_record_carried, run),
    )
    # After what was carried, which moves the same bills.
    run.outcome.statements_touched = late.note_late_changes(connection, before.amounts, day, changed, run.clock.now())
    return _Persisted(result, stored)


def _stored_and_recorded(
    run: _Run, inputs: _Inputs, computed: _Computed, before: Before, changed: Sequence[str]
) -> BilledRows | None:
    """The rows of the day as they are stored, and the ledger's entry for them: its leaves are folded while the server
    reads the rows back. A run that is undone makes no entry."""
    connection, day = run.connection, run.day
    if run.undone:
        return _read_back(run)
    stood = None if inputs.first_load else before.rows
    hashes = (computed.leaves, computed.determined)
    written = Written(day, changed, {} if stood is None else days.replaced(connection, day))
    entry = run.writer.submit(billed_entry, stood, computed.charges, written, run.clock.now(), run.actor, hashes)
    stored = _read_back(run)
    run.outcome.ledger_entry = ledger.insert(connection, entry.result())
    return stored


def _record_carried(run: _Run, again: DayCharges, points: Sequence[str], later: date, stood: pl.DataFrame) -> None:
    """The ledger's entry for a later day's charges. ``stood``: those that they take the place of."""
    if run.undone:
        return
    written = Written(later, points, days.replaced(run.connection, later))
    entry = billed_entry(lambda _: (stood, None), again, written, run.clock.now(), run.actor)
    ledger.insert(run.connection, entry)


#: Up to so many service points are named in a query; of more the whole city is read
_MOST_NAMED: Final = 5_000


def _later_reference(session: Database, changed: Sequence[str]) -> Callable[[], Reference]:
    """Reference data of the days after one, for the service points that moved on it, read on first use: the days of a
    period share it, and thirty readings of a city took longer than the day itself."""

    @cache
    def read() -> Reference:
        return load_reference(session, date.max, None, changed if len(changed) <= _MOST_NAMED else None)

    return read


def _read_back(run: _Run) -> BilledRows | None:
    """The day's rows as they are stored, None where the checks are left to the caller."""
    return None if run.outcome.unchecked else BilledRows.read(run.connection, run.day)


def _reconcile(run: _Run, stored: BilledRows | None, source: Future[SourceRows] | None) -> pl.DataFrame:
    """Compare every step of the day with the one before, from the tables; keep the result. Nothing where the checks are
    left to the caller."""
    connection, day = run.connection, run.day
    if stored is None or source is None:
        return reconcile.NO_ROWS
    table = day_checks(connection, run.calendar, day, stored, source.result())
    run.outcome.streaks = checks.estimate_streaks(connection, day, reconcile.STREAK_DAYS)
    checks.index_leaves(connection, day)
    if checks.replace(connection, day, table, reconcile.DAY_CHECKS):
        open_rows = table.filter(pl.col("cause") == "open").height
        body = {"billing_day": day, "joints": table.height, "open": open_rows}
        ledger.append(connection, "reconciled", body, clock=run.clock, actor=run.actor)
    run.watch("reconcile")
    return table


def _load_and_hash(run: _Run, result: DayCharges) -> tuple[list[bytes], list[bytes]]:
    """Write a shard of a day that has no rows yet; the leaves of its charges and of its determinants."""
    before_writing(run.session, clock=run.clock)
    days.load(run.connection, "determinant_day", run.day, result.determinants)
    days.load(run.connection, "charge_day", run.day, result.charges)
    return _hash(run, result)


def _hash(_: _Run, result: DayCharges) -> tuple[list[bytes], list[bytes]]:
    """The leaves of a shard's charges and of its determinants."""
    return charge_leaves(result.charges).to_list(), determinant_leaves(result.determinants).to_list()


def _write(
    connection: Connection, result: DayCharges, day: date, loaded: bool, only: Sequence[str] | None
) -> list[str]:
    """The day's rows; returns the service points whose determinants or charges changed. ``loaded``: all were new and
    are written; ``only``: the service points that the rows are of."""
    among = None if only is None else list(only)
    changed: list[str] = result.determinants["service_point_id"].to_list()
    if not loaded:
        written = set(days.bring_to(connection, "determinant_day", day, result.determinants, KEY, only=among))
        written |= set(days.bring_to(connection, "charge_day", day, result.charges, KEY, only=among))
        changed = sorted(written)
    faults = result.exceptions.select(pl.lit(day).alias("billing_day"), *EXCEPTION_SCHEMA.names())
    days.bring_to(connection, "exception_day", day, faults, (*KEY, "reason", "detail"), only=among)
    return changed


def _summarise(
    outcome: BillingOutcome,
    result: DayCharges,
    table: pl.DataFrame,
    tariffs: Mapping[tuple[str, int], Tariff],
) -> None:
    currency = next((t.currency for t in tariffs.values()), "USD")
    outcome.services, outcome.charged = result.determinants.height, result.charges.height
    outcome.total, outcome.currency = int(result.charges["total"].sum() or 0), currency
    outcome.estimated_services = result.determinants.filter(pl.col("estimated") > 0).height
    outcome.exceptions = dict(result.exceptions.group_by("reason").len().sort("reason").iter_rows())
    outcome.exception_rows, outcome.reconciliation = result.exceptions, table
    used: list[dict[str, Any]] = []
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        of_tariff = (pl.col("tariff_id") == tariff_id) & (pl.col("tariff_version") == version)
        amounts = matrix(result.charges.filter(of_tariff)["amounts"], len(tariff.day_keys)).sum(axis=0)
        component = {line.day_key: line.component for line in tariff.lines}
        for key, amount in zip(tariff.day_keys, amounts, strict=True):
            outcome.by_component[component[key]] = outcome.by_component.get(component[key], 0) + int(amount)
        energy = matrix(result.determinants.filter(of_tariff)["energy"], len(tariff.schedule.periods)).sum(axis=0)
        used += [
            {"tariff": tariff_id, "period": p, "unit": tariff.unit, "quantity": int(q)}
            for p, q in zip(tariff.schedule.periods, energy, strict=True)
        ]
    outcome.by_period = pl.DataFrame(
        used, schema={"tariff": pl.String, "period": pl.String, "unit": pl.String, "quantity": pl.Int64}
    )
