"""The reconciliation checks of several billing days of a few service points, compared at once.

A correction that is tried reaches hundreds of days of one service point; day by day its checks took a sixth of its
time. Only open causes of the service points are kept: their bills and corrections wait, and the rest is undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import polars as pl

from meter_pipeline.billing import reconcile
from meter_pipeline.billing.tables import reconciliation as one_day
from meter_pipeline.billing.tables import several_days_reconciliation as store
from meter_pipeline.billing.tables import source_reconciliation as before_billing
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.vee import register_tolerance_on

#: Days whose rows one statement reads
_MOST_DAYS: Final = 92


def keep_several_days_checks(
    database: Database, calendar: BillingCalendar, billed: Mapping[date, Sequence[str]]
) -> None:
    """Compare what was billed of some service points on each day, and keep what is open in billing.reconciliation."""
    days = sorted(day for day, points in billed.items() if points)
    with database.connect("billing reconciliation") as connection:
        for first in range(0, len(days), _MOST_DAYS):
            some = days[first : first + _MOST_DAYS]
            pairs = [(point, day) for day in some for point in billed[day]]
            points = sorted({point for point, _ in pairs})
            found = several_days_checks(connection, calendar, some, points)
            named = pl.DataFrame(pairs, schema={"subject": pl.String, "billing_day": pl.Date}, orient="row")
            mine = found.join(named, on=["subject", "billing_day"], how="semi", maintain_order="left")
            store.replace(connection, mine, reconcile.DAY_CHECKS, pairs)


def several_days_checks(
    connection: Connection, calendar: BillingCalendar, days: Sequence[date], points: Sequence[str]
) -> pl.DataFrame:
    """The rows of ``day_checks`` of each day whose cause is open and whose subject is one of the service points:
    billing_day, and the columns of ``reconcile.SCHEMA``, sorted."""
    determinants, charges = store.determinants(connection, days, points), store.charges(connection, days, points)
    prior = store.positions_of_the_day_before(connection, days, points)
    excused, revised = store.excused(connection, days, points), store.revised(connection, days, points)
    table = reconcile.table(
        {
            "reads_to_validated": _open(before_billing.channel_days_of(connection, days, points)),
            "intervals_to_register": _open(_registers(connection, calendar, days, points)),
            "registers_to_usage": _open(before_billing.register_usage_of(connection, days, points)),
            "validated_to_determinants": reconcile.usage_rows(
                _usage(connection, days, points), determinants, excused, revised
            ),
            "determinants_to_lines": reconcile.charged_rows(
                determinants, charges, prior, _older(connection, charges, prior), excused
            ),
            "lines_to_total": reconcile.line_rows(charges),
        }
    )
    found = table.filter(pl.col("cause") == "open")
    whose = [store.parted(name) for name in found["subject"].to_list()]
    return (
        found.with_columns(
            pl.Series("subject", [point for point, _ in whose], pl.String),
            pl.Series("billing_day", [day for _, day in whose], pl.Date),
        )
        .filter(pl.col("subject").is_in(list(points)))
        .sort("billing_day", "joint", "subject", "unit", "cause")
    )


def _open(rows: Sequence[tuple[date, before_billing.Row]]) -> list[before_billing.Row]:
    """The rows of an open cause, their service point named with its day."""
    return [(store.named(row[0], day), *row[1:]) for day, row in rows if row[2] == "open"]


def _registers(
    connection: Connection, calendar: BillingCalendar, days: Sequence[date], points: Sequence[str]
) -> list[tuple[date, before_billing.Row]]:
    found: list[tuple[date, before_billing.Row]] = []
    for day in before_billing.days_beside_register(connection, days, points):
        tolerance = register_tolerance_on(connection, day)
        rows = before_billing.registers(connection, day, calendar.bounds(day), tolerance, points)
        found += [(day, row) for row in rows]
    return found


def _usage(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    apart = store.days_with_parts(connection, days)
    parts = [store.usage(connection, [day for day in days if day not in set(apart)], points)]
    for day in apart:
        of_day = one_day.validated_usage(connection, day, points)
        parts.append(of_day.with_columns(pl.col("service_point_id") + store.named("", day)))
    return pl.concat(parts)


def _older(connection: Connection, charges: pl.DataFrame, prior: pl.DataFrame) -> pl.DataFrame:
    """The last positions before the day before, of stretches that have none on it."""
    key = ["service_point_id", "account_id", "tariff_id", "stretch_start"]
    day = pl.col("service_point_id").str.slice(-10).str.to_date()
    alone = charges.with_columns(day=day).filter(pl.col("stretch_start") < pl.col("day") - timedelta(days=1))
    alone = alone.join(prior, on=key, how="anti").with_columns(pl.col("service_point_id").str.head(-11))
    found = [prior.clear()]
    for (of,), rows in alone.group_by(["day"], maintain_order=True):
        older = one_day.positions_before(connection, of, rows)
        found.append(older.with_columns(pl.col("service_point_id") + store.named("", of)))
    return pl.concat(found)
