"""Which accounts' bills of a period wait, and why."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl

from meter_pipeline.billing.service_agreements import UNPRICED
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.control.migration_stage import bills_customers
from meter_pipeline.migration import tables as legacy
from meter_pipeline.postgres.database import Database


def billed_by_legacy(
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


def waiting(
    database: Database, wanted: pl.DataFrame, totals: pl.DataFrame, period_start: date, period_end: date
) -> pl.DataFrame:
    """Accounts that must wait: account_id, reason, detail."""
    key = ["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    # A change of meter size cuts a version's days in two segments; they are counted together.
    expected = wanted.group_by(key).agg(
        (pl.col("segment_end") - pl.col("segment_start")).dt.total_days().sum().alias("expected")
    )
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
        pl.format("{}: {}", "service_point_id", "held").alias("detail"),
    )
    unpriced = (
        wanted.select("account_id", "service_point_id")
        .unique()
        .join(
            store.unpriced_days(database, period_start, period_end, sorted(UNPRICED)),
            on=["account_id", "service_point_id"],
        )
        .select(
            "account_id",
            pl.lit("not_charged").alias("reason"),
            pl.format(
                "{}: {} {} from {}, {} days", "service_point_id", "reason", "detail", "billing_day", "days"
            ).alias("detail"),
        )
    )
    return pl.concat([behind, held, unpriced]).unique().sort(pl.all())
