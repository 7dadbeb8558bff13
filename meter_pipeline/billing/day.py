"""The billing of a day, from what validation left to committed, reconciled charges."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Final

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DayCharges, joined
from meter_pipeline.billing.day_shards import charges_of, read_shard
from meter_pipeline.billing.leaves import charge_leaves as charge_hashes
from meter_pipeline.billing.leaves import charge_leaves_1
from meter_pipeline.billing.missing_usage import with_missing_usage
from meter_pipeline.billing.positions import matrix
from meter_pipeline.billing.recalculate import KEY, carry_forward
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.sealed_days import keep_revisions
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, services_of_day
from meter_pipeline.billing.tables import adjustments as late
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tables import reconciliation as checks
from meter_pipeline.billing.tariff_freeze import freeze_versions
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.sharding import key_ranges
from meter_pipeline.vee import register_tolerance

#: Services read, computed and written together: their quarter-hours are 10 MB, and eight of these make a hundred
# thousand, so that reading, : computing and writing overlap from soon after the start until soon before the end (4.1 s
# a day; 4.5 with four, 4.7 with twelve).
SERVICES_PER_SHARD: Final = 12_500


@dataclass(slots=True)
class BillingOutcome:
    """What billing a day made of it. Money in millionths of the currency.

    ``changed``: service points written; ``carried``: later days whose charges moved with it; ``sealed``: the day's
    month is sealed, so that differences went to billing.determinant_revision. ``reconciliation``: the day's reconciliation checks.
    ``exceptions``: reason -> services. ``streaks``: services that have been nothing but estimates for
    reconcile.STREAK_DAYS or more. ``adjustments``: proposed because the day moved under statements that were issued
    (``statements_touched``).
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
    reconciliation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=reconcile.SCHEMA))
    exception_rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EXCEPTION_SCHEMA))
    streaks: pl.DataFrame = field(default_factory=pl.DataFrame)
    seconds: dict[str, float] = field(default_factory=dict)
    ledger_entry: int | None = None

    def report(self) -> StageReport:
        """The day for asset metadata."""
        from meter_pipeline.billing.reporting import stage_report

        return stage_report(self)


def bill_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
    shards: int = 0,
) -> BillingOutcome:
    """Determinants, charges, exceptions and reconciliation of a billing day; idempotent, byte for byte.

    Reads vee.interval_day, vee.daily_usage, reference data and the position before the day; writes
    billing.determinant_day, charge_day, exception_day and reconciliation and a ledger entry in one transaction. A day
    that was billed before is compared row by row and only what changed is written; charges of later days that stand on
    it are brought forward, and adjustments of statements already issued from it are proposed. The day is worked through
    in ``shards`` ranges of service points (0: of SERVICES_PER_SHARD): the next is read and the last written while one
    is computed. How many there are changes no byte. Raises psycopg errors, and control.pause_check.PausedError where a pause is
    raised before it writes.
    """
    outcome = BillingOutcome(day)
    begun = time.perf_counter()

    def watch(step: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        outcome.seconds[step], begun = round(now - begun, 3), now

    # The pools are left first: nothing is rolled back while a thread still writes.
    with (
        reading(database) as session,
        reading(database) as beside,
        database.connect("billing") as connection,
        ThreadPoolExecutor(1, "billing-read") as reader,
        ThreadPoolExecutor(1, "billing-write") as writer,
    ):
        days.ensure_day(connection, day)
        connection.commit()
        days.lock(connection)
        reference = load_reference(session, day, beside)
        bound = services_of_day(reference, day)
        watch("reference")
        outcome.sealed = days.sealed(connection, day)
        first_load = not outcome.sealed and not days.is_billed(connection, day)
        before_writing(session, clock=clock)
        freeze_versions(connection, bound.tariffs, reference, clock, actor)
        ids = bound.services["service_point_id"]
        ranges = key_ranges(ids.to_list(), max(1, -(-len(ids) // shards) if shards else SERVICES_PER_SHARD))
        results: list[DayCharges] = []
        hashed: list[Future[list[bytes]]] = []
        ahead = reader.submit(read_shard, beside, day, bound, ranges[0])
        for following in [*ranges[1:], None]:
            read = ahead.result()
            if following is not None:
                ahead = reader.submit(read_shard, beside, day, bound, following)
            else:
                standing = reader.submit(_standing, database, calendar, day)
            results.append(charges_of(read, calendar, day, reference.holidays))
            hashed.append(writer.submit(_load if first_load else _hash, connection, session, results[-1], day, clock))
        result = joined(results)
        known = with_missing_usage(session, calendar, day, bound.services, result.exceptions)
        result = replace(result, exceptions=known)
        watch("charges")
        leaves = [leaf for part in hashed for leaf in part.result()]
        if outcome.sealed:
            revised = keep_revisions(connection, session, result, day, clock)
            outcome.revisions = len(revised)
            outcome.statements_touched = late.note_late_changes(connection, day, revised, clock.now())
            stored = days.read_day(session, "charge_day", day, CHARGE_SCHEMA.names())
            result = replace(result, charges=stored)
            own = _Own.seen(connection, day)
        else:
            changed = _write(connection, result, day, first_load)
            outcome.changed = len(changed)
            # Its leaves are folded while the server reads back what it holds.
            entry = (
                writer.submit(_entry, None if first_load else session, result, changed, day, clock, actor, leaves)
                if changed
                else None
            )
            own = _Own.seen(connection, day)
            if entry is not None:
                outcome.statements_touched = late.note_late_changes(connection, day, changed, clock.now())
                outcome.ledger_entry = ledger.insert(connection, entry.result())
                outcome.carried = carry_forward(
                    connection,
                    session,
                    calendar,
                    result.charges,
                    changed,
                    day,
                    lambda later: load_reference(session, later),
                    lambda again, written, later: ledger.insert(
                        connection, _entry(session, again, written, later, clock, actor)
                    ),
                )
        watch("write")
        currency = next((t.currency for t in bound.tariffs.values()), "USD")
        table = day_checks(connection, calendar, day, own, standing.result())
        outcome.streaks = checks.estimate_streaks(connection, day, reconcile.STREAK_DAYS)
        checks.index_leaves(connection, day)
        if checks.replace(connection, day, table, list(reconcile.DAY_CHECKS)):
            open_rows = table.filter(pl.col("cause") == "open").height
            ledger.append(
                connection,
                "reconciled",
                {"billing_day": day, "joints": table.height, "open": open_rows},
                clock=clock,
                actor=actor,
            )
        watch("reconcile")
    _summarise(outcome, result, table, bound.tariffs, currency)
    # A day that does not reconcile corrects no bill: what it changed waits on the list until it does.
    if late.waiting(database) and "open" not in table["cause"].to_list():
        from meter_pipeline.billing.adjustments import propose_late_changes

        before_writing(database, clock=clock)
        outcome.adjustments = propose_late_changes(database, calendar, clock=clock, actor=actor)
        watch("adjustments")
    return outcome


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the day's reconciliation checks compare that billing does not write: reads, validated rows, and the positions of the day
    before."""

    files: list[checks.Row]
    channel_days: list[checks.Row]
    registers: list[checks.Row]
    usage: pl.DataFrame
    prior_day: pl.DataFrame

    @classmethod
    def seen(cls, connection: Any, calendar: BillingCalendar, day: date) -> _Standing:
        """As a connection sees it."""
        return cls(
            checks.files(connection, day),
            checks.channel_days(connection, day),
            checks.registers(connection, day, *calendar.bounds(day), register_tolerance()),
            checks.validated_usage(connection, day),
            checks.stored_charges(connection, day - timedelta(days=1), before=True),
        )


def _standing(database: Database, calendar: BillingCalendar, day: date) -> _Standing:
    """Read beside the stage's own writing, which touches none of it: a second of a hundred thousand services' seven."""
    with database.connect("billing joints") as connection:
        return _Standing.seen(connection, calendar, day)


@dataclass(frozen=True, slots=True)
class _Own:
    """What billing holds of the day, read back in the transaction that wrote it."""

    determinants: pl.DataFrame
    charges: pl.DataFrame

    @classmethod
    def seen(cls, connection: Any, day: date) -> _Own:
        """As a connection sees it."""
        return cls(checks.stored_determinants(connection, day), checks.stored_charges(connection, day))


def day_checks(
    connection: Any, calendar: BillingCalendar, day: date, own: _Own | None = None, standing: _Standing | None = None
) -> pl.DataFrame:
    """The day's reconciliation checks, each side read from its own table. ``own`` and ``standing``: what was read already."""
    own, other = own or _Own.seen(connection, day), standing or _Standing.seen(connection, calendar, day)
    held, charges, prior_day = own.determinants, own.charges, other.prior_day
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    alone = charges.filter(pl.col("stretch_start") < day - timedelta(days=1)).join(prior_day, on=key, how="anti")
    excused = checks.excused(connection, day)
    return reconcile.table(
        {
            "file_to_reads": other.files,
            "reads_to_validated": other.channel_days,
            "intervals_to_register": other.registers,
            "validated_to_determinants": reconcile.usage_rows(
                other.usage, held, excused, checks.revised(connection, day)
            ),
            "determinants_to_lines": reconcile.charged_rows(
                held, charges, prior_day, checks.positions_before(connection, day, alone), excused
            ),
            "lines_to_total": reconcile.line_rows(charges),
        }
    )


def _load(connection: Any, database: Database, result: DayCharges, day: date, clock: Clock) -> list[bytes]:
    """A shard of a day that has no rows yet, and its leaves."""
    before_writing(database, clock=clock)
    days.load(connection, "determinant_day", day, result.determinants)
    days.load(connection, "charge_day", day, result.charges)
    return charge_hashes(result.charges).to_list()


def _hash(connection: Any, database: Database, result: DayCharges, day: date, clock: Clock) -> list[bytes]:
    """A shard of a day whose rows are compared with those that are there, when all are known: its leaves."""
    del connection, database, day, clock
    return charge_hashes(result.charges).to_list()


def _write(connection: Any, result: DayCharges, day: date, loaded: bool) -> list[str]:
    """The day's rows; returns the service points whose determinants or charges changed. ``loaded``: all were new and
    are written."""
    changed: list[str] = result.determinants["service_point_id"].to_list()
    if not loaded:
        written = set(days.bring_to(connection, "determinant_day", day, result.determinants, KEY))
        written |= set(days.bring_to(connection, "charge_day", day, result.charges, KEY))
        changed = sorted(written)
    faults = result.exceptions.select(pl.lit(day).alias("billing_day"), *EXCEPTION_SCHEMA.names())
    days.bring_to(connection, "exception_day", day, faults, (*KEY, "reason", "detail"))
    return changed


def _entry(
    before: Database | None,
    result: DayCharges,
    changed: Sequence[str],
    day: date,
    clock: Clock,
    actor: str,
    hashes: list[bytes] | None = None,
) -> ledger.Entry:
    """The ledger's entry for what was written; leaves are the written charge rows (``hashes``: those of all of them,
    where they are at hand).

    Behind them stand the leaves of the rows that these took the place of: as many as ``retired`` says, rows no more.
    ``before`` reads what was committed, that is those rows; None for a day that had none.
    """
    charges = result.charges
    if len(changed) < charges.height:
        charges, hashes = charges.filter(pl.col("service_point_id").is_in(changed)), None
    gone: list[bytes] = []
    if before is not None:
        held = days.read_day(before, "charge_day", day, CHARGE_SCHEMA.names(), changed)
        # A row billed before mp-charge/2 has a leaf of the older encoding.
        gone = [*charge_hashes(held).to_list(), *charge_leaves_1(held).to_list()]
    body = {
        "billing_day": day,
        "services": charges.height,
        "total_micro": int(charges["total"].sum() or 0),
        "changed": len(changed),
        "retired": len(gone),
    }
    leaves = b"".join([*(charge_hashes(charges).to_list() if hashes is None else hashes), *gone])
    return ledger.encode("billed", body, leaves or None, at=clock.now(), actor=actor)


def _summarise(
    outcome: BillingOutcome,
    result: DayCharges,
    table: pl.DataFrame,
    tariffs: Mapping[tuple[str, int], Tariff],
    currency: str,
) -> None:
    outcome.services, outcome.charged = result.determinants.height, result.charges.height
    outcome.total, outcome.currency = int(result.charges["total"].sum() or 0), currency
    outcome.estimated_services = result.determinants.filter(pl.col("estimated") > 0).height
    outcome.exceptions = dict(result.exceptions.group_by("reason").len().sort("reason").iter_rows())
    outcome.exception_rows, outcome.reconciliation = result.exceptions, table
    used: list[dict[str, Any]] = []
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        held = (pl.col("tariff_id") == tariff_id) & (pl.col("tariff_version") == version)
        amounts = matrix(result.charges.filter(held)["amounts"], len(tariff.day_keys)).sum(axis=0)
        component = {line.day_key: line.component for line in tariff.lines}
        for key, amount in zip(tariff.day_keys, amounts, strict=True):
            outcome.by_component[component[key]] = outcome.by_component.get(component[key], 0) + int(amount)
        energy = matrix(result.determinants.filter(held)["energy"], len(tariff.schedule.periods)).sum(axis=0)
        used += [
            {"tariff": tariff_id, "period": p, "unit": tariff.unit, "quantity": int(q)}
            for p, q in zip(tariff.schedule.periods, energy, strict=True)
        ]
    outcome.by_period = pl.DataFrame(
        used, schema={"tariff": pl.String, "period": pl.String, "unit": pl.String, "quantity": pl.Int64}
    )
