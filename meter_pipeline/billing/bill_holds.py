"""Which accounts' bills of a period wait, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.credit_moves import arrivals
from meter_pipeline.billing.reconcile import DAY_CHECKS
from meter_pipeline.billing.segments import uncovered
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.control.migration_stage import bills_customers
from meter_pipeline.migration import tables as legacy
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: Why an account's bill waits (billing.statement_exception)
HOLD_SCHEMA: Final = pl.Schema({"account_id": pl.String(), "reason": pl.String(), "detail": pl.String()})


def billed_by_legacy(
    connection: Connection,
    value: dict[str, Any],
    wanted: pl.DataFrame,
    cycle_id: str,
    period_start: date,
    period_end: date,
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


@dataclass(frozen=True, slots=True)
class Period:
    """A cycle's billing period as statements are issued for it. ``wanted``: its segments that have no statement yet;
    ``runs``: its stretches (billing/segments.py); ``revised``: accounts with later reads of days in sealed months,
    which are priced from their revisions."""

    cycle_id: str
    start: date
    end: date
    wanted: pl.DataFrame
    runs: pl.DataFrame
    revised: list[str]


def waiting(database: Database, reference: Reference, period: Period, totals: pl.DataFrame) -> pl.DataFrame:
    """Accounts of a period that must wait: account_id, reason, detail.

    ``totals``: days charged by segment (tables.statements.charge_totals).
    """
    wanted = period.wanted
    if not wanted.height:
        return pl.DataFrame(schema=HOLD_SCHEMA)
    on_hold = wanted.join(store.held_service_points(database, period.start, period.end), on="service_point_id").select(
        "account_id",
        pl.lit("held").alias("reason"),
        pl.format("{}: {}", "service_point_id", "held").alias("detail"),
    )
    found = [
        _days_missing(wanted.filter(~pl.col("account_id").is_in(period.revised)), totals),
        on_hold,
        _not_charged(database, period),
        _not_reconciled(database, period),
        _true_ups(database, period),
        _earlier(database, reference, period),
    ]
    return pl.concat([f.cast(HOLD_SCHEMA) for f in found]).unique().sort(pl.all())


def _days_missing(wanted: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    """Segments with days that are not charged."""
    key = ["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    # A change of meter size cuts a version's days in two segments; they are counted together.
    expected = wanted.group_by(key).agg(
        (pl.col("segment_end") - pl.col("segment_start")).dt.total_days().sum().alias("expected")
    )
    return (
        expected.join(totals, on=key, how="left")
        .with_columns(pl.col("billed_days").fill_null(0))
        .filter(pl.col("billed_days") != pl.col("expected"))
        .select(
            "account_id",
            pl.lit("days_missing").alias("reason"),
            pl.format("{}: {} of {} days charged", "service_point_id", "billed_days", "expected").alias("detail"),
        )
    )


def _not_charged(database: Database, period: Period) -> pl.DataFrame:
    """Accounts with a day that could not be priced as it was used, or whose use is unknown."""
    found = store.day_exceptions(database, period.start, period.end)
    findings = (
        period.runs.select("account_id", "service_point_id", "stretch_start", "stretch_end")
        .join(found.drop("account_id"), on="service_point_id")
        .filter((pl.col("billing_day") >= pl.col("stretch_start")) & (pl.col("billing_day") < pl.col("stretch_end")))
        .group_by("account_id", "service_point_id", "reason")
        .agg(
            pl.len().alias("days"),
            pl.col("billing_day").min().alias("first"),
            pl.col("detail").sort_by("billing_day").first(),
        )
        .select(
            "account_id",
            pl.format("{}: {} {} from {}, {} days", "service_point_id", "reason", "detail", "first", "days").alias(
                "detail"
            ),
        )
    )
    # A day between two versions is such a day too; only one that was never run has no exception that says so.
    unexplained = uncovered(period.runs, period.wanted).join(findings, on="account_id", how="anti")
    alone = pl.concat([findings, unexplained])
    return alone.select("account_id", pl.lit("not_charged").alias("reason"), "detail")


def _not_reconciled(database: Database, period: Period) -> pl.DataFrame:
    """Accounts with a day of a service on which a reconciliation check is open."""
    found = store.open_services(database, period.start, period.end, DAY_CHECKS)
    runs = period.runs.select("account_id", "service_point_id", "stretch_start", "stretch_end")
    findings = pl.concat(
        [
            runs.join(found, on="service_point_id"),
            runs.join(found.filter(pl.col("service_point_id") == "all").drop("service_point_id"), how="cross"),
        ],
        how="diagonal",
    )
    return findings.filter(
        (pl.col("billing_day") >= pl.col("stretch_start")) & (pl.col("billing_day") < pl.col("stretch_end"))
    ).select(
        "account_id",
        pl.lit("not_reconciled").alias("reason"),
        pl.format("{}: {} of {} is open", "service_point_id", "joint", "billing_day").alias("detail"),
    )


def _true_ups(database: Database, period: Period) -> pl.DataFrame:
    """Accounts with a day that will be validated or billed again, so that their bill will change."""
    pending = store.true_up_days(database, period.start, period.end)
    everyone = pending.filter(pl.col("service_point_id").is_null()).select("billing_day", "what")
    runs = period.runs.select("account_id", "service_point_id", "stretch_start", "stretch_end")
    named = pending.filter(pl.col("service_point_id").is_not_null())
    findings = pl.concat([runs.join(named, on="service_point_id"), runs.join(everyone, how="cross")], how="diagonal")
    return (
        findings.filter(
            (pl.col("billing_day") >= pl.col("stretch_start")) & (pl.col("billing_day") < pl.col("stretch_end"))
        )
        .group_by("account_id", "service_point_id", "what")
        .agg(pl.col("billing_day").n_unique().alias("days"), pl.col("billing_day").min().alias("first"))
        .select(
            "account_id",
            pl.lit("true_up_waiting").alias("reason"),
            pl.format("{}: {} days from {} will be {} again", "service_point_id", "days", "first", "what").alias(
                "detail"
            ),
        )
    )


def _earlier(database: Database, reference: Reference, period: Period) -> pl.DataFrame:
    """Accounts whose statement before this one is not issued: what it carries (a credit, a ratchet's peak) is not
    known.

    The statement before is that of the same account at the service point for the day before the stretch begins,
    whatever tariff or cycle it was on; and the last one of the service point from which credit moves here. A period
    that had begun before the first day that was ever billed here is not waited for.
    """
    opened = store.first_billed_day(database)
    if opened is None:
        return pl.DataFrame(schema=HOLD_SCHEMA)
    prior_day = pl.col("stretch_start").dt.offset_by("-1d")
    before = (
        period.runs.select("account_id", "service_point_id", prior_day.alias("prior_day"))
        .join(
            reference.agreements.select("account_id", "service_point_id", "cycle_id", "valid_from", "valid_to"),
            on=["account_id", "service_point_id"],
        )
        .filter(
            (pl.col("valid_from") <= pl.col("prior_day"))
            & (pl.col("valid_to").is_null() | (pl.col("valid_to") > pl.col("prior_day")))
        )
        .join(reference.billing_cycles, on="cycle_id")
        .filter((pl.col("period_start") <= pl.col("prior_day")) & (pl.col("period_end") > pl.col("prior_day")))
        .filter(pl.col("period_start") >= opened)
        .filter((pl.col("cycle_id") != period.cycle_id) | (pl.col("period_start") != period.start))
        .select("account_id", "cycle_id", "period_start")
    )
    left = [
        (bill.account, *bill.period)
        for bill, _ in arrivals(reference, period.runs)
        if bill.period[1] >= opened and bill.period != (period.cycle_id, period.start)
    ]
    before = pl.concat([before, pl.DataFrame(left, schema=before.schema, orient="row")]).unique()
    if not before.height:
        return pl.DataFrame(schema=HOLD_SCHEMA)
    settled = store.settled_accounts(database, before.select("cycle_id", "period_start").unique().rows())
    return before.join(settled, on=["account_id", "cycle_id", "period_start"], how="anti").select(
        "account_id",
        pl.lit("earlier_statement").alias("reason"),
        pl.format("{} {} is not issued", "cycle_id", "period_start").alias("detail"),
    )
