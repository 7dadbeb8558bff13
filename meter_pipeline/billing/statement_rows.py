"""Issued statements as rows: the statement, its lines and segments, and the ledger entry that records them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from meter_pipeline.billing.statements import line_hashes, money_text, numbered
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.clock import Clock
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.ledger.contents import content_of
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

if TYPE_CHECKING:
    from meter_pipeline.billing.bill_run import StatementOutcome
    from meter_pipeline.billing.period_prices import PeriodPrices


#: Columns of a segment's row but for the statement or adjustment it belongs to and the month it is posted in
SEGMENT_COLUMNS: Final = (
    "service_point_id",
    "tariff_id",
    "tariff_version",
    "segment_start",
    "segment_end",
    "days",
    "unit",
    "energy",
    "peaks",
    "peak_at",
    "carry_out",
    "credit_out",
    "slots",
    "estimated",
)


def write(
    connection: Connection,
    database: Database,
    outcome: StatementOutcome,
    found: PeriodPrices,
    totals: pl.DataFrame,
    month: date,
    clock: Clock,
) -> None:
    """Write the statements that ``found`` prices and record them. ``totals``: days charged by segment."""
    result = found.priced
    period = outcome.cycle_id, outcome.period_start, outcome.period_end
    suffix = f".{outcome.cycle_id}.{outcome.period_start:%Y%m%d}.0"
    lines = numbered(result.lines, outcome.cycle_id, outcome.period_start)
    statements = _statements(found, lines, totals, suffix)
    head = _heads(statements, outcome, month, clock.now())
    billed = _lines(lines, month)
    rows = segment_rows(database, result.segments, found.wanted, period)
    named = pl.concat_str([pl.col("account_id"), pl.lit(suffix)]).alias("statement_id")
    segments = rows.select(named, *SEGMENT_COLUMNS, pl.lit(month).alias("posting_month"))
    body: dict[str, Any] = {
        "billing_day": outcome.period_end - timedelta(days=1),
        "cycle_id": outcome.cycle_id,
        "period_start": outcome.period_start,
        "period_end": outcome.period_end,
        "statements": statements.height,
        "lines": lines.height,
        "total_micro": int(statements["total"].sum()),
        "posting_month": month,
        # Every column, so that a change of any is found: the leaves cover the lines' prices alone.
        "content": [
            content_of("billing.statement", head.drop("lines_sha256", "issued_at", "ledger_leaf"), ["statement_id"]),
            content_of("billing.statement_line", billed, ["statement_id", "line_no"]),
            content_of("billing.statement_segment", segments, ["statement_id", "service_point_id", "segment_start"]),
        ],
    }
    outcome.ledger_entry = ledger.append(
        connection, "bill_issued", body, statements["lines_sha256"].to_list(), clock=clock, actor="billing"
    )
    store.copy_csv(
        connection, "billing.statement", head.with_columns(pl.lit(outcome.ledger_entry).alias("ledger_entry"))
    )
    store.copy_csv(connection, "billing.statement_line", billed)
    store.copy_csv(connection, "billing.statement_segment", segments)
    outcome.issued, outcome.lines, outcome.total = statements.height, lines.height, int(statements["total"].sum())
    outcome.accounts = statements["account_id"].to_list()


def _statements(found: PeriodPrices, lines: pl.DataFrame, totals: pl.DataFrame, suffix: str) -> pl.DataFrame:
    """One row a statement in the order of accounts: its sums in millionths, the hash of its lines, whether it is an
    account's first or final one, and its ``leaf`` number."""
    result = found.priced
    hashes = line_hashes(lines, result.segments["account_id"].unique() + suffix)
    accrued = totals.group_by("account_id").agg(pl.col("accrued").sum())
    people = found.wanted.group_by("account_id").agg(pl.col("first").all(), pl.col("final").all())
    return (
        result.segments.group_by("account_id")
        .agg(pl.col("total", "period_end", "credit", "ratchet", "year_end").sum())
        .sort("account_id")
        .join(people, on="account_id")
        .join(accrued, on="account_id", how="left")
        .join(found.accrued.rename({"accrued": "now"}), on="account_id", how="left")
        .join(lines.group_by("account_id").agg(pl.len().cast(pl.Int32).alias("lines")), on="account_id", how="left")
        .with_columns(
            pl.concat_str([pl.col("account_id"), pl.lit(suffix)]).alias("statement_id"),
            pl.col("lines", "accrued").fill_null(0),
        )
        .with_columns((pl.coalesce("now", "accrued") - pl.col("accrued")).alias("sealed_days"))
        .join(hashes, on="statement_id", how="left")
        .sort("account_id")
        .with_row_index("leaf")
    )


def _heads(statements: pl.DataFrame, outcome: StatementOutcome, month: date, now: datetime) -> pl.DataFrame:
    """Rows of billing.statement without the ledger entry."""
    kind = (
        pl.when(pl.col("first") & pl.col("final"))
        .then(pl.lit("first_and_final"))
        .when(pl.col("first"))
        .then(pl.lit("first"))
        .when(pl.col("final"))
        .then(pl.lit("final"))
        .otherwise(pl.lit("regular"))
    )
    return statements.select(
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
        money_text("sealed_days").alias("sealed_days_due"),
        pl.col("leaf").alias("ledger_leaf"),
    )


def _lines(lines: pl.DataFrame, month: date) -> pl.DataFrame:
    """Rows of billing.statement_line."""
    return lines.select(
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
    )


def segment_rows(
    database: Database, segments: pl.DataFrame, wanted: pl.DataFrame, period: tuple[str, date, date]
) -> pl.DataFrame:
    """Priced segments as rows of billing.statement_segment: account_id and SEGMENT_COLUMNS, lists as the text of
    arrays.

    ``wanted``: the segments as they were asked for; ``period``: cycle, first day and the day after the last.
    """
    counted = _counted(database, period, wanted)
    stretch = wanted.select("service_point_id", "account_id", "segment_start", "tariff_version", "stretch_start")
    lists = ("energy", "peaks", "peak_at", "carry_out")
    return (
        segments.join(stretch, on=["service_point_id", "account_id", "segment_start", "tariff_version"])
        .join(counted, on=["service_point_id", "stretch_start", "segment_start", "tariff_version"], how="left")
        .with_columns(*(store.array_text(c) for c in lists), pl.col("slots", "estimated").fill_null(0))
        .select("account_id", *SEGMENT_COLUMNS)
    )


def _counted(database: Database, period: tuple[str, date, date], ready: pl.DataFrame) -> pl.DataFrame:
    """Intervals and estimates of each segment: service_point_id, stretch_start, segment_start, tariff_version, slots,
    estimated. Counted by version; where an attribute cut a version's days in two, day by day."""
    totals = store.determinant_totals(database, *period)
    key = ["service_point_id", "stretch_start", "tariff_version"]
    named = [*key, "segment_start"]
    whole = ready.filter(pl.len().over(key) == 1).select(named).join(totals, on=key)
    cut = ready.filter(pl.len().over(key) > 1).select(*named, "segment_end")
    if not cut.height:
        return whole
    points = cut["service_point_id"].to_list()
    days = store.determinant_counts(database, *period[1:], points)
    inside = cut.join(days, on="service_point_id").filter(
        (pl.col("billing_day") >= pl.col("segment_start")) & (pl.col("billing_day") < pl.col("segment_end"))
    )
    counted = inside.group_by(named).agg(pl.col("slots", "estimated").sum())
    return pl.concat([whole, counted.select(whole.columns)], how="vertical_relaxed")
