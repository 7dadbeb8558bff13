"""Issuing a billing period's statements: read the positions, price, hold back what must wait, write, reconcile, record."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_holds import billed_by_legacy, waiting
from meter_pipeline.billing.reconcile import STREAK_DAYS
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segment_positions import gather
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.statement_rows import write
from meter_pipeline.billing.statements import (
    Priced,
    line_hashes,
    price_segments,
)
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tables import reconciliation as joints
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.migration import tables as legacy
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading


@dataclass(slots=True)
class StatementOutcome:
    """What issuing a period's statements did; money in millionths. ``exceptions``: reason -> accounts that wait.
    ``estimate_streaks``: accounts issued, or to be, that stand on a run of estimates of STREAK_DAYS or more."""

    cycle_id: str
    period_start: date
    period_end: date
    issued: int = 0
    already: int = 0
    lines: int = 0
    total: int = 0
    currency: str = ""
    exceptions: dict[str, int] = field(default_factory=dict)
    estimate_streaks: int = 0
    reconciliation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=reconcile.SCHEMA))
    ledger_entry: int | None = None


def issue_statements(
    database: Database,
    calendar: BillingCalendar,
    cycle_id: str,
    period_end: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str = "billing",
    posting_day: date | None = None,
) -> StatementOutcome:
    """Issue the statements of the cycle's period that ends on a day; idempotent: an issued statement is never touched
    again.

    An account waits, with a named exception, while a day of its service is not billed, one of its services could not be
    charged, an anomaly case holds its bill, or the legacy batch bills it while a migration is under way.
    ``posting_day``: by default the period's last day; the statement is posted in its month, or the first one after it
    that is not sealed. Raises ValueError where the cycle has no such period.
    """
    del calendar  # the period is in civil days; the calendar is taken so that every stage is called alike
    period_start = store.period(database, cycle_id, period_end)
    if period_start is None:
        raise ValueError(f"cycle {cycle_id} has no period that ends on {period_end}")
    outcome = StatementOutcome(cycle_id, period_start, period_end)
    with reading(database) as session, database.connect("billing statements") as connection:
        database = session
        days.lock(connection)
        reference = load_reference(database, period_end)
        wanted = segments(reference, cycle_id, period_start, period_end)
        done = store.issued_accounts(database, cycle_id, period_start)
        outcome.already = len(done & set(wanted["account_id"].to_list()))
        wanted = wanted.filter(~pl.col("account_id").is_in(sorted(done)))
        totals = store.charge_totals(database, cycle_id, period_start, period_end)
        theirs = billed_by_legacy(
            connection, flags.read(connection, STAGE).value, wanted, cycle_id, period_start, period_end
        )
        faults = pl.concat(
            [
                theirs,
                waiting(database, wanted.join(theirs, on="account_id", how="anti"), totals, period_start, period_end),
            ]
        )
        ready = wanted.filter(~pl.col("account_id").is_in(faults["account_id"].unique().to_list()))
        rows, tariffs = gather(
            database,
            reference,
            ready,
            cycle_id,
            period_start,
            lambda at: store.positions(session, at, CHARGE_SCHEMA.names()).cast(CHARGE_SCHEMA),
        )
        result = price_segments(rows, tariffs, period_start, period_end)
        if result.refused.height:
            not_charged = result.refused.select("account_id", pl.lit("not_charged").alias("reason"), "detail")
            faults = pl.concat([faults, not_charged])
            ready = ready.join(result.refused, on="account_id", how="anti")
        before_writing(database, clock=clock)
        # Pricing a city takes a minute in which the migration may have gone back: what counts is the stage that is held
        # while this is written.
        taken = billed_by_legacy(
            connection, legacy.stage_in_force(connection) or STAGE.default, ready, cycle_id, period_start, period_end
        )
        if taken.height:
            faults, ready = pl.concat([faults, taken]), ready.join(taken, on="account_id", how="anti")
            result = Priced(
                result.lines.join(taken, on="account_id", how="anti"),
                result.segments.join(taken, on="account_id", how="anti"),
            )
        month = days.open_month(connection, posting_day or period_end - timedelta(days=1))
        streaks = joints.period_streaks(connection, cycle_id, period_start, period_end, STREAK_DAYS)
        noted = streaks.select(
            "account_id",
            pl.lit("estimate_streak").alias("reason"),
            pl.format("{}: {} days of nothing but estimates from {}", "service_point_id", "days", "since").alias(
                "detail"
            ),
        )
        store.write_exceptions(connection, cycle_id, period_start, pl.concat([faults, noted]))
        outcome.estimate_streaks = noted["account_id"].n_unique()
        outcome.currency = next((t.currency for t in tariffs.values()), "USD")
        if result.segments.height:
            write(connection, database, outcome, result, ready, totals, month, clock, actor)
        outcome.reconciliation = statement_joints(connection, cycle_id, period_start, period_end)
        joints.replace(
            connection,
            period_end - timedelta(days=1),
            outcome.reconciliation,
            list(reconcile.STATEMENT_JOINTS),
            cycle_id,
        )
        outcome.exceptions = dict(faults.group_by("reason").len().sort("reason").iter_rows())
    return outcome


def statement_joints(connection: Any, cycle_id: str, period_start: date, period_end: date) -> pl.DataFrame:
    """lines_to_statement and statement_to_ledger of a period, from what is stored now; empty where nothing was issued.

    Every statement is hashed again from its lines and looked for by that hash among the leaves of the ledger's entries,
    and every leaf for its statement.
    """
    sums = joints.statement_sums(connection, cycle_id, period_start, period_end)
    held = joints.issued_leaves(connection, cycle_id, period_start, period_end - timedelta(days=1))
    leaves = [flat[k : k + 32] for flat in held.values() for k in range(0, len(flat), 32)]
    if not sums.height and not leaves:
        return pl.DataFrame(schema=reconcile.SCHEMA)
    now = line_hashes(joints.statement_lines(connection, cycle_id, period_start), sums["statement_id"]).rename(
        {"lines_sha256": "now_sha256"}
    )
    claimed = [
        None if entry is None or leaf is None else held.get(entry, b"")[leaf * 32 : leaf * 32 + 32]
        for entry, leaf in sums.select("ledger_entry", "ledger_leaf").iter_rows()
    ]
    statements = sums.select("statement_id", "lines_sha256").join(
        now, on="statement_id", how="left", maintain_order="left"
    )
    statements = statements.with_columns(pl.Series("claimed", claimed, pl.Binary))
    return reconcile.table(
        {
            "lines_to_statement": reconcile.statement_rows(sums, cycle_id),
            "statement_to_ledger": reconcile.ledger_rows(statements, leaves, cycle_id),
        }
    )
