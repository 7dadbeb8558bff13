"""A billing period priced again, from the usage known now: what a correction of an issued statement stands on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA, accrue
from meter_pipeline.billing.recalculate import groups_of
from meter_pipeline.billing.reference import load_reference
from meter_pipeline.billing.segment_positions import gather
from meter_pipeline.billing.segments import segments
from meter_pipeline.billing.service_agreements import bind
from meter_pipeline.billing.statements import Priced, price_segments
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database


def reprice(
    database: Database,
    calendar: BillingCalendar,
    account_ids: Sequence[str],
    cycle_id: str,
    period_start: date,
    period_end: date,
) -> Priced:
    """Some accounts' period priced from the usage known now, revisions of sealed days included."""
    reference = load_reference(database, period_end)
    reference = replace(
        reference, agreements=reference.agreements.filter(pl.col("account_id").is_in(list(account_ids))), frozen={}
    )
    wanted = segments(reference, cycle_id, period_start, period_end)
    points = wanted["service_point_id"].unique().sort().to_list()
    later = adjustments.revisions(database, period_start, period_end, points)
    charges: dict[date, pl.DataFrame] = {}
    position = pl.DataFrame(schema=CHARGE_SCHEMA)
    day = period_start
    while day < period_end:
        held = days.read_day(database, "determinant_day", day, DETERMINANT_SCHEMA.names(), points).cast(
            DETERMINANT_SCHEMA
        )
        held = _with_revisions(held, later.filter(pl.col("billing_day") == day))
        bound = bind(reference, day)
        accrued = accrue(groups_of(bound, held, day, calendar), position, calendar).charges
        charges[day] = accrued
        position = pl.concat(
            [position.filter(~pl.col("service_point_id").is_in(accrued["service_point_id"].to_list())), accrued]
        )
        day += timedelta(days=1)
    rows, tariffs = gather(
        database, reference, wanted, cycle_id, period_start, lambda at: pl.concat([charges[d] for d in at])
    )
    return price_segments(rows, tariffs, period_start, period_end)


def _with_revisions(held: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    if not later.height:
        return held
    rows = [json.loads(text) for text in later["determinants"].to_list()]
    for row in rows:
        row.update(
            {c: date.fromisoformat(row[c]) for c in ("billing_day", "period_start", "period_end", "stretch_start")}
        )
    newer = pl.DataFrame(rows, schema=DETERMINANT_SCHEMA)
    return pl.concat([held.filter(~pl.col("service_point_id").is_in(newer["service_point_id"].to_list())), newer]).sort(
        "service_point_id"
    )
