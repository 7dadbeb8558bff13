"""Issuing a billing period's statements: read the positions, price, hold back bills that must wait, write, reconcile,
record.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.bill_holds import Period, billed_by_legacy, waiting
from meter_pipeline.billing.estimate_limits.apply import apply_limits, forget_removed_periods
from meter_pipeline.billing.period_prices import price_period
from meter_pipeline.billing.reconcile import STATEMENT_CHECKS, STREAK_DAYS
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segments import covered, stretches
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.statement_rows import write
from meter_pipeline.billing.statements import line_hashes
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tables import reconciliation as checks
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tables.adjustments import revised_points
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.migration import tables as legacy
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.reading import reading


@dataclass(slots=True)
class StatementOutcome:
    """Result of issuing a period's statements; money in millionths. ``accounts``: those whose statement was issued now.
    ``exceptions``: reason -> accounts that wait. ``estimate_streaks``: accounts issued, or to be, that stand on a run
    of estimates of STREAK_DAYS or more."""

    cycle_id: str
    period_start: date
    period_end: date
    issued: int = 0
    accounts: list[str] = field(default_factory=list)
    already: int = 0
    lines: int = 0
    total: int = 0
    currency: str = ""
    exceptions: dict[str, int] = field(default_factory=dict)
    estimate_streaks: int = 0
    beyond_limits: int = 0
    reconciliation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=reconcile.SCHEMA))
    ledger_entry: int | None = None


def issue_statements(
    database: Database,
    calendar: BillingCalendar,
    cycle_id: str,
    period_end: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> StatementOutcome:
    """Issue the statements of the cycle's period that ends on a day; idempotent: an issued statement is never touched
    again.

    An account waits, with a named exception, while a day of its service is not billed, could not be priced or will be
    validated again, an anomaly case holds its bill, the statement before it waits, or the legacy batch bills it while a
    migration is under way. Earlier periods for which accounts of this one wait are tried first, and later ones that
    waited for a statement issued now afterwards. A statement is posted in the month of the
    period's last day, or the first one after it that is not sealed. Raises ValueError where the cycle has no such
    period.
    """
    period_start = store.period(database, cycle_id, period_end)
    if period_start is None:
        raise ValueError(f"cycle {cycle_id} has no period that ends on {period_end}")
    run = _Run(database, calendar, clock)
    for cycle, end, accounts in store.waiting_before(database, cycle_id, period_start, period_end):
        run.issue(cycle, end, accounts)
    outcome = run.issue(cycle_id, period_end)
    _followers(run, outcome)
    return outcome


def issue_waiting(
    database: Database,
    calendar: BillingCalendar,
    past: date,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> list[StatementOutcome]:
    """Try again the statements of every period that ended by a day and still has accounts waiting, oldest first. What
    waits for the bills of a period that was removed from reference data is taken out."""
    run = _Run(database, calendar, clock)
    if store.waits_for_removed_period(database):
        before_writing(database, clock=clock)
        with database.connect("billing statements") as connection:
            days.hold_reference(connection)
            store.drop_removed_periods(connection)
            forget_removed_periods(connection, clock=clock)
    return [run.issue(cycle, end, accounts) for cycle, end, accounts in store.waiting_periods(database, past)]


def _followers(run: _Run, outcome: StatementOutcome) -> None:
    """Issue the later statements that waited for those issued now, and those that waited for these."""
    tried: set[tuple[str, date, str]] = set()
    accounts = outcome.accounts
    while accounts:
        released: list[str] = []
        for cycle, end, waiting_accounts in store.waiting_for(run.database, accounts, run.clock_day()):
            fresh = [a for a in waiting_accounts if (cycle, end, a) not in tried]
            tried |= {(cycle, end, a) for a in fresh}
            released += run.issue(cycle, end, fresh).accounts if fresh else []
        accounts = released


@dataclass(frozen=True, slots=True)
class _Run:
    """Inputs shared by the periods of one call."""

    database: Database
    calendar: BillingCalendar
    clock: Clock

    def clock_day(self) -> date:
        return self.calendar.day_of(self.clock.now()) + timedelta(days=1)

    def issue(self, cycle_id: str, period_end: date, accounts: list[str] | None = None) -> StatementOutcome:
        """One period, or some accounts of it, and with them those that came to it after it was issued, which have
        neither a statement nor a reason for none."""
        period_start = store.period(self.database, cycle_id, period_end)
        if period_start is None:
            raise ValueError(f"cycle {cycle_id} has no period that ends on {period_end}")
        if accounts is not None:
            accounts = sorted({*accounts, *store.without_reason(self.database, cycle_id, period_start, period_end)})
        outcome = StatementOutcome(cycle_id, period_start, period_end)
        outcome.beyond_limits = apply_limits(self.database, cycle_id, period_start, period_end, clock=self.clock)
        with reading(self.database) as session, self.database.connect("billing statements") as connection:
            days.hold_reference(connection)
            days.lock(connection)
            reference = load_reference(session, period_end)
            period = _period(session, reference, outcome, accounts)
            totals = store.charge_totals(session, cycle_id, period_start, period_end, accounts)
            theirs = billed_by_legacy(
                connection, flags.read(connection, STAGE).value, period.wanted, cycle_id, period_start, period_end
            )
            mine = _without(period, theirs["account_id"].to_list())
            faults = pl.concat([theirs, waiting(session, reference, mine, totals)])
            ready = _without(mine, faults["account_id"].unique().to_list())
            found = price_period(session, self.calendar, reference, ready)
            faults = pl.concat([faults, found.faults])
            before_writing(session, clock=self.clock)
            # Pricing a city takes a minute in which the migration may have gone back: what counts is the stage that is
            # held while this is written.
            stage = legacy.stage_in_force(connection) or STAGE.default
            taken = billed_by_legacy(connection, stage, ready.wanted, cycle_id, period_start, period_end)
            faults = pl.concat([faults, taken])
            found = found.without(taken["account_id"].to_list())
            month = days.open_month(connection, period_end - timedelta(days=1))
            noted = _streaks(connection, outcome)
            store.write_exceptions(connection, cycle_id, period_start, pl.concat([faults, noted]), accounts)
            outcome.estimate_streaks = noted["account_id"].n_unique()
            outcome.currency = next((t.currency for t in found.tariffs.values()), "USD")
            if found.priced.segments.height:
                write(connection, session, outcome, found, totals, month, self.clock)
            if outcome.issued or accounts is None:
                outcome.reconciliation = statement_checks(connection, cycle_id, period_start, period_end)
                last = period_end - timedelta(days=1)
                checks.replace(connection, last, outcome.reconciliation, list(STATEMENT_CHECKS), [cycle_id])
            outcome.exceptions = dict(faults.group_by("reason").len().sort("reason").iter_rows())
        return outcome


def _period(database: Database, reference: Reference, outcome: StatementOutcome, accounts: list[str] | None) -> Period:
    """The segments of a period that have no statement yet. Counts those that have."""
    cycle_id, first, past = outcome.cycle_id, outcome.period_start, outcome.period_end
    runs = stretches(reference, cycle_id, first, past)
    if accounts is not None:
        runs = runs.filter(pl.col("account_id").is_in(accounts))
    done = store.issued_accounts(database, cycle_id, first)
    outcome.already = len(done & set(runs["account_id"].to_list()))
    runs = runs.filter(~pl.col("account_id").is_in(sorted(done)))
    revised = revised_points(database, first, past)
    people = runs.filter(pl.col("service_point_id").is_in(revised))["account_id"].unique().sort().to_list()
    return Period(cycle_id, first, past, covered(reference, runs), runs, people)


def _without(period: Period, accounts: list[str]) -> Period:
    kept = ~pl.col("account_id").is_in(accounts)
    revised = [a for a in period.revised if a not in set(accounts)]
    return replace(period, wanted=period.wanted.filter(kept), runs=period.runs.filter(kept), revised=revised)


def _streaks(connection: Connection, outcome: StatementOutcome) -> pl.DataFrame:
    """Accounts that stand on a run of estimates, as exceptions that hold nothing."""
    streaks = checks.period_streaks(connection, outcome.cycle_id, outcome.period_start, outcome.period_end, STREAK_DAYS)
    return streaks.select(
        "account_id",
        pl.lit("estimate_streak").alias("reason"),
        pl.format("{}: {} days of nothing but estimates from {}", "service_point_id", "days", "since").alias("detail"),
    )


def statement_checks(connection: Connection, cycle_id: str, period_start: date, period_end: date) -> pl.DataFrame:
    """lines_to_statement and statement_to_ledger of a period, from what is stored now; empty where nothing was issued.

    Every statement is hashed again from its lines and looked for by that hash among the leaves of the ledger's entries,
    and every leaf for its statement.
    """
    sums = checks.statement_sums(connection, cycle_id, period_start, period_end)
    issued = checks.issued_leaves(connection, cycle_id, period_start, period_end - timedelta(days=1))
    leaves = [flat[k : k + 32] for flat in issued.values() for k in range(0, len(flat), 32)]
    if not sums.height and not leaves:
        return pl.DataFrame(schema=reconcile.SCHEMA)
    now = line_hashes(checks.statement_lines(connection, cycle_id, period_start), sums["statement_id"]).rename(
        {"lines_sha256": "now_sha256"}
    )
    claimed = [
        None if entry is None or leaf is None else issued.get(entry, b"")[leaf * 32 : leaf * 32 + 32]
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
