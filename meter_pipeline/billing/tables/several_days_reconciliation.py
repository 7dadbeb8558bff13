"""Queries behind the reconciliation of several billing days of a few service points, which one statement reads.

A row's ``service_point_id`` is the service point and the day (``named``), so that the comparisons of one day
(billing/reconcile.py) compare all days at once. One day's own queries are in reconciliation.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import polars as pl
import psycopg

from meter_pipeline.billing.tables import reconciliation as one_day

Connection = psycopg.Connection[Any]

#: Between a service point and a day: no id holds it
_BETWEEN: Final = "\x1e"
_ON: Final = "billing_day = ANY(%(days)s) AND service_point_id = ANY(%(points)s)"
_NAMED: Final = "concat(service_point_id, E'\\x1e', billing_day)"


def named(point: str, day: date) -> str:
    """A service point on a day."""
    return f"{point}{_BETWEEN}{day}"


def parted(name: str) -> tuple[str, date]:
    """The service point and the day of a name that ``named`` made."""
    point, _, day = name.rpartition(_BETWEEN)
    return point, date.fromisoformat(day)


def determinants(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """The rows of ``stored_determinants`` for each of the days, named by ``named``."""
    return one_day.determinants_where(connection, _NAMED, _ON, _values(days, points))


def charges(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """The rows of ``stored_charges`` for each of the days, named by ``named``."""
    return one_day.charges_where(connection, _NAMED, _ON, _values(days, points))


def positions_of_the_day_before(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """As ``stored_charges(before=True)`` of the day before each, under the name of the day itself."""
    following = "concat(service_point_id, E'\\x1e', billing_day + 1)"
    before = [date.fromordinal(day.toordinal() - 1) for day in days]
    return one_day.charges_where(connection, following, _ON, _values(before, points), before=True)


def usage(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """As ``validated_usage`` of days on which nothing is billed at another service point."""
    return one_day.usage_where(connection, _NAMED, _ON, _values(days, points))


def days_with_parts(connection: Connection, days: Sequence[date]) -> list[date]:
    """Those of some days on which usage of one service point is billed at another."""
    rows = connection.execute(
        "SELECT DISTINCT d.day FROM unnest(%s::date[]) AS d (day) JOIN ref.service_attributes AS a ON a.attribute IN ('totals_into', 'deducts_from') "
        "AND a.valid_from <= d.day AND (a.valid_to IS NULL OR a.valid_to > d.day) ORDER BY 1",
        (list(days),),
    ).fetchall()
    return [day for (day,) in rows]


def excused(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """The rows of one day's ``excused`` for each of the days, named by ``named``."""
    return one_day.excused_where(connection, _NAMED, _ON, _values(days, points))


def revised(connection: Connection, days: Sequence[date], points: Sequence[str]) -> pl.DataFrame:
    """The rows of one day's ``revised`` for each of the days, named by ``named``."""
    return one_day.revised_where(connection, _NAMED, _ON, _values(days, points))


def replace(connection: Connection, frame: pl.DataFrame, checks: Sequence[str], of: Sequence[tuple[str, date]]) -> None:
    """Bring the rows of the given checks of some service points and days to exactly ``frame`` (billing_day, and the
    columns of ``reconcile.SCHEMA``); equal rows are left untouched."""
    columns = ("billing_day", "joint", "subject", "unit", "cause", "expected", "actual", "items", "detail")
    rows = json.dumps(frame.select(columns).to_dicts(), default=str)
    values = {
        "checks": list(checks),
        "subjects": [point for point, _ in of],
        "days": [day for _, day in of],
        "rows": rows,
    }
    incoming = (
        "jsonb_to_recordset(%(rows)s::jsonb) AS i (billing_day date, joint text, subject text, unit text, cause text, expected numeric, "
        "actual numeric, items bigint, detail text)"
    )
    key = "billing_day, joint, subject, unit, cause"
    connection.execute(
        "DELETE FROM billing.reconciliation AS t USING unnest(%(subjects)s::text[], %(days)s::date[]) AS o (subject, day) "
        "WHERE t.billing_day = o.day AND t.subject = o.subject AND t.joint = ANY(%(checks)s) AND NOT EXISTS (SELECT FROM "
        f"{incoming} WHERE (i.billing_day, i.joint, i.subject, i.unit, i.cause) = (t.billing_day, t.joint, t.subject, t.unit, t.cause))".encode(),
        values,
    )
    connection.execute(
        f"INSERT INTO billing.reconciliation AS t ({', '.join(columns)}) SELECT {', '.join(columns)} FROM {incoming} "
        f"ON CONFLICT ({key}) DO UPDATE SET expected = excluded.expected, actual = excluded.actual, items = excluded.items, detail = excluded.detail "
        "WHERE (t.expected, t.actual, t.items, t.detail) IS DISTINCT FROM (excluded.expected, excluded.actual, excluded.items, excluded.detail)".encode(),
        values,
    )


def _values(days: Sequence[date], points: Sequence[str]) -> dict[str, Any]:
    return {"days": list(days), "points": list(points)}
