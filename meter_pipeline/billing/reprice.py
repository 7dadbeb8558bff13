"""A billing period priced again, from the usage known now: what a correction of an issued statement stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA, accrue
from meter_pipeline.billing.recalculate import groups_of
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segment_positions import gather
from meter_pipeline.billing.segments import segments, stretches, uncovered
from meter_pipeline.billing.service_agreements import services_of_day
from meter_pipeline.billing.statements import Priced
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.usage_change import UsageChange
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Repriced:
    """A period priced again.

    ``accrued``: account_id and the sum of its days' charges, in millionths; ``blocked``: account_id and why its period
    cannot be priced, in which case it has no lines that mean anything.
    """

    priced: Priced
    accrued: pl.DataFrame
    blocked: pl.DataFrame
    tariffs: dict[tuple[str, int], Tariff]


def reprice(
    database: Database,
    calendar: BillingCalendar,
    account_ids: Sequence[str],
    cycle_id: str,
    period_start: date,
    period_end: date,
    change: UsageChange | None = None,
) -> Repriced:
    """Some accounts' period priced from the usage known now, revisions of sealed days included;
    ``change``: with another usage of one of their services.

    Tariff versions keep the documents that bills were made with. A segment with a day that is not charged, or a stretch
    of days that no tariff version covers, blocks its account.
    """
    reference = load_reference(database, period_end, points=days.points_of(database, account_ids))
    theirs = pl.col("account_id").is_in(list(account_ids)) & (pl.col("valid_from") <= period_end)
    reference = replace(reference, agreements=reference.agreements.filter(theirs))
    wanted = segments(reference, cycle_id, period_start, period_end)
    points = wanted["service_point_id"].unique().sort().to_list()
    later = adjustments.revisions(database, period_start, period_end, points)
    charges: dict[date, pl.DataFrame] = {}
    position = pl.DataFrame(schema=CHARGE_SCHEMA)
    for day, stored in days.read_days(
        database, "determinant_day", (period_start, period_end), DETERMINANT_SCHEMA.names(), points
    ):
        stored = stored.cast(DETERMINANT_SCHEMA)
        if later.height:
            stored = _with_revisions(stored, later.filter(pl.col("billing_day") == day))
        if change is not None:
            stored = change.determinants(stored)
        bound = services_of_day(reference, day)
        accrued = accrue(groups_of(bound, stored, day, calendar), position, calendar, charges_alone=True).charges
        charges[day] = accrued
        position = pl.concat(
            [position.filter(~pl.col("service_point_id").is_in(accrued["service_point_id"].to_list())), accrued]
        )
    blocked = pl.concat(
        [uncovered(stretches(reference, cycle_id, period_start, period_end), wanted), _unreached(wanted, charges)]
    ).sort(pl.all())
    blocked = blocked.group_by("account_id", maintain_order=True).agg(pl.col("detail").str.join(", "))
    kept = wanted.join(blocked, on="account_id", how="anti")
    found = gather(database, reference, kept, cycle_id, period_start, lambda at: pl.concat([charges[d] for d in at]))
    if change is not None:
        found = replace(found, tariffs={key: change.tariff(tariff) for key, tariff in found.tariffs.items()})
    accounts = found.rows["account_id"].unique().sort().to_list()
    priced = found.price(accounts, period_end) if accounts else Priced.empty()
    # Days after a change of the billing cycle are charged in the other cycle's period.
    totals = pl.concat(
        [c.filter(pl.col("cycle_id") == cycle_id).select("account_id", "total") for c in charges.values()]
    )
    return Repriced(
        priced,
        totals.group_by("account_id").agg(pl.col("total").sum().alias("accrued")),
        pl.concat([blocked, priced.refused.select(blocked.columns)]),
        found.tariffs,
    )


def _unreached(wanted: pl.DataFrame, charges: Mapping[date, pl.DataFrame]) -> pl.DataFrame:
    """Segments that some day of is not charged: account_id, detail."""
    key = ["service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    counted = (
        pl.concat([c.select("billing_day", *key) for c in charges.values()])
        .join(wanted.select(*key, "segment_start", "segment_end"), on=key)
        .filter((pl.col("billing_day") >= pl.col("segment_start")) & (pl.col("billing_day") < pl.col("segment_end")))
        .group_by(*key, "segment_start")
        .agg(pl.len().cast(pl.Int64).alias("there"))
    )
    expected = (pl.col("segment_end") - pl.col("segment_start")).dt.total_days()
    return (
        wanted.join(counted, on=[*key, "segment_start"], how="left")
        .with_columns(pl.col("there").fill_null(0), expected.alias("expected"))
        .filter(pl.col("there") != pl.col("expected"))
        .select(
            "account_id",
            pl.format("{}: {} of {} days charged", "service_point_id", "there", "expected").alias("detail"),
        )
    )


def _with_revisions(stored: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    if not later.height:
        return stored
    rows = [row for text in later["determinants"].to_list() if (row := json.loads(text)) is not None]
    for row in rows:
        row.update(
            {c: date.fromisoformat(row[c]) for c in ("billing_day", "period_start", "period_end", "stretch_start")}
        )
    newer = pl.DataFrame(rows, schema=DETERMINANT_SCHEMA)
    kept = stored.filter(~pl.col("service_point_id").is_in(later["service_point_id"].to_list()))
    return pl.concat([kept, newer]).sort("service_point_id")
