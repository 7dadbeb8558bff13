"""Issuing a billing period's statements: read the positions, price, hold back what must wait, write, reconcile, record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.reconcile import STREAK_DAYS
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.service_agreements import Bound, Reference, bind
from meter_pipeline.billing.statements import (
    Priced,
    before_columns,
    line_hashes,
    money_text,
    numbered,
    price_segments,
    year_before,
)
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tables import reconciliation as joints
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import DemandCharge
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE, bills_customers
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger import entries as ledger
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
        theirs = _billed_by_legacy(
            connection, flags.read(connection, STAGE).value, wanted, cycle_id, period_start, period_end
        )
        faults = pl.concat(
            [
                theirs,
                _waiting(database, wanted.join(theirs, on="account_id", how="anti"), totals, period_start, period_end),
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
        before_writing(database, clock=clock)
        # Pricing a city takes a minute in which the migration may have gone back: what counts is the stage that is held
        # while this is written.
        taken = _billed_by_legacy(
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
            _write(connection, database, outcome, result, ready, totals, month, clock, actor)
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


def _billed_by_legacy(
    connection: Any, value: dict[str, Any], wanted: pl.DataFrame, cycle_id: str, period_start: date, period_end: date
) -> pl.DataFrame:
    """Accounts whose period the legacy batch bills under a value of the migration's stage: account_id, reason, detail.

    A flip never changes whose bill a period was, in complete neither, or a rerun would bill it twice: an account once
    left to legacy for the period stays so, and the side recorded for its last day counts. Only where neither was
    decided is it the stage's.
    """
    left = store.left_to_legacy(connection, cycle_id, period_start)
    sides = legacy.authorities(connection, period_end - timedelta(days=1))
    routes = legacy.routes(connection) if value["stage"] == "live" else {}

    def theirs(account: str) -> bool:
        if account in left:
            return True
        return (
            bool(sides[account] == "legacy")
            if account in sides
            else not bills_customers(value, account, routes.get(account))
        )

    accounts = [a for a in wanted["account_id"].unique().sort().to_list() if theirs(a)]
    return pl.DataFrame({"account_id": accounts}, {"account_id": pl.String}).with_columns(
        pl.lit("billed_by_legacy").alias("reason"), pl.lit(f"the migration is in {value['stage']}").alias("detail")
    )


def _waiting(
    database: Database, wanted: pl.DataFrame, totals: pl.DataFrame, period_start: date, period_end: date
) -> pl.DataFrame:
    """Accounts that must wait: account_id, reason, detail."""
    expected = wanted.with_columns((pl.col("segment_end") - pl.col("segment_start")).dt.total_days().alias("expected"))
    key = ["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    behind = (
        expected.join(totals, on=key, how="left")
        .with_columns(pl.col("billed_days").fill_null(0))
        .filter(pl.col("billed_days") != pl.col("expected"))
        .select(
            "account_id",
            pl.lit("days_missing").alias("reason"),
            pl.format("{}: {} of {} days charged", "service_point_id", "billed_days", "expected").alias("detail"),
        )
    )
    held = wanted.join(store.held_service_points(database, period_start, period_end), on="service_point_id").select(
        "account_id",
        pl.lit("held").alias("reason"),
        pl.format("{}: case {}", "service_point_id", "case_id").alias("detail"),
    )
    return pl.concat([behind, held]).unique().sort(pl.all())


def gather(
    database: Database,
    reference: Reference,
    ready: pl.DataFrame,
    cycle_id: str,
    period_start: date,
    positions: Callable[[list[date]], pl.DataFrame],
) -> tuple[pl.DataFrame, dict[tuple[str, int], Tariff]]:
    """Segments with their positions, attributes and what earlier periods carry into them; the tariffs they are priced
    with.

    ``positions``: CHARGE_SCHEMA rows of some billing days.
    """
    tariffs: dict[tuple[str, int], Tariff] = {}
    if not ready.height:
        return ready, tariffs
    ends = ready.with_columns(pl.col("segment_end").dt.offset_by("-1d").alias("billing_day"))
    key = ["billing_day", "service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    reached = positions(ends["billing_day"].unique().sort().to_list())
    rows = ends.join(reached.drop("cycle_id", "period_start"), on=key)
    inner = ready.filter(pl.col("segment_start") > pl.col("stretch_start"))
    eves = [d - timedelta(days=1) for d in inner["segment_start"].unique().to_list()]
    before = positions(eves) if eves else pl.DataFrame(schema=CHARGE_SCHEMA)
    rows = rows.join(
        before_columns(before),
        on=["service_point_id", "account_id", "tariff_id", "stretch_start", "segment_start"],
        how="left",
    )
    attributes = []
    for day in sorted(set(rows["billing_day"].to_list())):
        bound: Bound = bind(reference, day)
        tariffs |= bound.tariffs
        attributes.append(
            bound.services.select(
                "service_point_id",
                pl.lit(day).alias("billing_day"),
                "customer_class",
                "meter_size",
                "jurisdiction",
                "rate_code",
                "budget_per_day",
                "winter_average_per_day",
            )
        )
    rows = rows.join(pl.concat(attributes), on=["service_point_id", "billing_day"], how="left")
    return _with_carried(database, rows, tariffs, cycle_id, period_start), tariffs


def _with_carried(
    database: Database, rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff], cycle_id: str, period_start: date
) -> pl.DataFrame:
    """Adds carry_in (the credit the period before left) and history_in (the highest peak a ratchet looks back on)."""
    months = max(
        (c.ratchet.months for t in tariffs.values() for c in t.charges if isinstance(c, DemandCharge) and c.ratchet),
        default=0,
    )
    needed = months or any(t.metering == "net_metering" for t in tariffs.values())
    empty = pl.lit(None, pl.List(pl.Int64))
    rows = _with_year(database, rows, tariffs, cycle_id, period_start)
    if not needed:
        return rows.with_columns(empty.alias("carry_in"), empty.alias("history_in"))
    since = (pl.Series([period_start]).dt.offset_by(f"-{max(months, 1)}mo"))[0]
    earlier = store.earlier_segments(database, cycle_id, period_start, since)
    key = ["service_point_id", "account_id", "tariff_id"]
    carried = earlier.group_by(key).agg(pl.col("carry_out").sort_by("segment_end").last().alias("carry_in"))
    wide = (
        earlier.select(*key, "peaks")
        .filter(pl.col("peaks").list.len() > 0)
        .with_row_index("row")
        .explode("peaks", empty_as_null=True)
        .with_columns(pl.int_range(pl.len()).over("row").alias("register"))
        .group_by(*key, "register")
        .agg(pl.col("peaks").max())
        .sort("register")
        .group_by(key, maintain_order=True)
        .agg(pl.col("peaks").alias("history_in"))
    )
    return rows.join(carried, on=key, how="left").join(wide, on=key, how="left")


def _with_year(
    database: Database, rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff], cycle_id: str, period_start: date
) -> pl.DataFrame:
    """Adds year_lines and year_days: what the earlier statements of the billing year charged, corrections included, and
    the days they covered."""
    yearly = {
        tariff_id: year_before(t, period_start)
        for (tariff_id, _), t in sorted(tariffs.items())
        if t.annual_minimum is not None
    }
    frames = [
        store.year_so_far(database, cycle_id, tariff_id, since, period_start) for tariff_id, since in yearly.items()
    ]
    if not frames:
        return rows.with_columns(pl.lit(None, pl.Int64).alias("year_lines"), pl.lit(None, pl.Int64).alias("year_days"))
    return rows.join(pl.concat(frames), on=["service_point_id", "account_id", "tariff_id"], how="left")


def _write(
    connection: Any,
    database: Database,
    outcome: StatementOutcome,
    result: Priced,
    ready: pl.DataFrame,
    totals: pl.DataFrame,
    month: date,
    clock: Clock,
    actor: str,
) -> None:
    lines = numbered(result.lines, outcome.cycle_id, outcome.period_start)
    suffix = f".{outcome.cycle_id}.{outcome.period_start:%Y%m%d}.0"
    ids = result.segments["account_id"].unique() + suffix
    hashes = line_hashes(lines, ids)
    accrued = totals.group_by("account_id").agg(pl.col("accrued").sum())
    people = ready.group_by("account_id").agg(pl.col("first").all(), pl.col("final").all())
    kind = (
        pl.when(pl.col("first") & pl.col("final"))
        .then(pl.lit("first_and_final"))
        .when(pl.col("first"))
        .then(pl.lit("first"))
        .when(pl.col("final"))
        .then(pl.lit("final"))
        .otherwise(pl.lit("regular"))
    )
    statements = (
        result.segments.group_by("account_id")
        .agg(pl.col("total", "period_end", "credit", "ratchet", "year_end").sum())
        .sort("account_id")
        .join(people, on="account_id")
        .join(accrued, on="account_id", how="left")
        .join(lines.group_by("account_id").agg(pl.len().cast(pl.Int32).alias("lines")), on="account_id", how="left")
        .with_columns(
            pl.concat_str([pl.col("account_id"), pl.lit(suffix)]).alias("statement_id"),
            pl.col("lines", "accrued").fill_null(0),
        )
        .join(hashes, on="statement_id", how="left")
        .sort("account_id")
        .with_row_index("leaf")
    )
    now = clock.now()
    body = {
        "billing_day": outcome.period_end - timedelta(days=1),
        "cycle_id": outcome.cycle_id,
        "period_start": outcome.period_start,
        "period_end": outcome.period_end,
        "statements": statements.height,
        "lines": lines.height,
        "total_micro": int(statements["total"].sum()),
        "posting_month": month,
    }
    outcome.ledger_entry = ledger.append(
        connection, "bill_issued", body, statements["lines_sha256"].to_list(), clock=clock, actor=actor
    )
    head = statements.select(
        "statement_id",
        "account_id",
        pl.lit(outcome.cycle_id).alias("cycle_id"),
        pl.lit(outcome.period_start).alias("period_start"),
        pl.lit(outcome.period_end).alias("period_end"),
        pl.lit(0).alias("revision"),
        kind.alias("kind"),
        pl.lit(month).alias("posting_month"),
        pl.lit(outcome.currency).alias("currency"),
        money_text("total"),
        money_text("accrued"),
        "lines",
        pl.concat_str([pl.lit("\\x"), pl.col("lines_sha256").bin.encode("hex")]).alias("lines_sha256"),
        pl.lit(now.isoformat()).alias("issued_at"),
        money_text("period_end").alias("period_end_due"),
        money_text("credit").alias("credit_carried"),
        money_text("ratchet").alias("ratchet_due"),
        money_text("year_end").alias("year_end_due"),
        pl.lit(outcome.ledger_entry).alias("ledger_entry"),
        pl.col("leaf").alias("ledger_leaf"),
    )
    store.copy_csv(connection, "billing.statement", head)
    store.copy_csv(
        connection,
        "billing.statement_line",
        lines.select(
            "statement_id",
            "line_no",
            "service_point_id",
            "tariff_id",
            "tariff_version",
            "segment_start",
            "segment_end",
            "line_key",
            "name",
            "component",
            pl.when(pl.col("quantity").is_not_null()).then(money_text("quantity")).alias("quantity"),
            "unit",
            money_text("amount"),
            pl.lit(month).alias("posting_month"),
        ),
    )
    counted = store.determinant_totals(database, outcome.cycle_id, outcome.period_start, outcome.period_end)
    stretch = ready.select("service_point_id", "account_id", "segment_start", "tariff_version", "stretch_start")
    store.copy_csv(
        connection,
        "billing.statement_segment",
        result.segments.join(stretch, on=["service_point_id", "account_id", "segment_start", "tariff_version"])
        .join(counted, on=["service_point_id", "stretch_start", "tariff_version"], how="left")
        .select(
            pl.concat_str([pl.col("account_id"), pl.lit(suffix)]).alias("statement_id"),
            "service_point_id",
            "tariff_id",
            "tariff_version",
            "segment_start",
            "segment_end",
            "days",
            "unit",
            *(store.array_text(c) for c in ("energy", "peaks", "peak_at", "carry_out")),
            pl.col("slots", "estimated").fill_null(0),
            pl.lit(month).alias("posting_month"),
        ),
    )
    outcome.issued, outcome.lines, outcome.total = statements.height, lines.height, int(statements["total"].sum())


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
