"""Adjustments in and out of the store. The rules that money stands on (two people, threshold, sealed months) are
constraints and triggers; what is here cannot get round them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]

LINE_COLUMNS = (
    "line_no",
    "action",
    "original_line_no",
    "service_point_id",
    "tariff_id",
    "tariff_version",
    "segment_start",
    "segment_end",
    "line_key",
    "name",
    "component",
    "quantity",
    "unit",
    "amount",
)


def statements(database: Database, statement_ids: Sequence[str]) -> pl.DataFrame:
    """Account, cycle, period and currency of some statements."""
    return database.read(
        "SELECT statement_id, account_id, cycle_id, period_start, period_end, currency FROM billing.statement "
        "WHERE statement_id = ANY(string_to_array($1, ',')) ORDER BY 1",
        [",".join(statement_ids)],
    )


def effective_lines(database: Database, statement_ids: Sequence[str]) -> pl.DataFrame:
    """What statements say now: their lines with every adjustment that was not refused, in millionths, per line key and
    segment."""
    return database.read(
        "SELECT statement_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, max(name) AS name, "
        "max(component) AS component, max(unit) AS unit, (sum(quantity) * 1000000)::bigint AS quantity, (sum(amount) * 1000000)::bigint AS amount, "
        "max(original)::int AS original_line_no FROM ("
        "SELECT statement_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key, name, component, unit, quantity, "
        "amount, line_no AS original FROM billing.statement_line WHERE statement_id = ANY(string_to_array($1, ',')) UNION ALL "
        "SELECT a.statement_id, l.service_point_id, l.tariff_id, l.tariff_version, l.segment_start, l.segment_end, l.line_key, l.name, l.component, "
        "l.unit, CASE WHEN l.action = 'cancel' THEN -l.quantity ELSE l.quantity END, l.amount, NULL FROM billing.adjustment_line AS l "
        "JOIN billing.adjustment AS a USING (adjustment_id) WHERE a.statement_id = ANY(string_to_array($1, ',')) AND a.status <> 'refused') AS all_lines "
        "GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 5, 7",
        [",".join(statement_ids)],
    )


def revisions(database: Database, first: date, past: date, service_points: Sequence[str]) -> pl.DataFrame:
    """The latest determinants that arrived for sealed days: billing_day, service_point_id, determinants (JSON text)."""
    return database.read(
        "SELECT DISTINCT ON (billing_day, service_point_id) billing_day, service_point_id, determinants::text AS determinants "
        "FROM billing.determinant_revision WHERE billing_day >= $1 AND billing_day < $2 AND service_point_id = ANY(string_to_array($3, ',')) "
        "ORDER BY billing_day, service_point_id, revision DESC",
        [first, past, ",".join(service_points)],
    )


def note_late_changes(connection: Connection, day: date, service_points: Sequence[str], at: datetime) -> int:
    """Remember which issued statements stand on a day of some service points that has just changed; returns how many."""
    issued = "SELECT EXISTS (SELECT FROM billing.statement WHERE period_start <= %(d)s AND period_end > %(d)s)"
    if not scalar(connection, issued, {"d": day}):
        return 0  # a city's ids need not be sent to be looked for in nothing
    return connection.execute(
        "INSERT INTO billing.late_change (statement_id, billing_day, service_point_id, noticed_at) "
        "SELECT DISTINCT statement_id, %(d)s::date, service_point_id, %(t)s::timestamptz FROM billing.statement_segment "
        "WHERE service_point_id = ANY(%(s)s) AND segment_start <= %(d)s AND segment_end > %(d)s ON CONFLICT DO NOTHING",
        {"d": day, "s": list(service_points), "t": at},
    ).rowcount


def waiting(database: Database) -> bool:
    """Whether any statement waits for its adjustment."""
    return bool(database.read("SELECT EXISTS (SELECT FROM billing.late_change) AS w")["w"][0])


def late_changes(database: Database) -> pl.DataFrame:
    """What waits for an adjustment: statement_id, cycle_id, period_start, period_end and ``evidence``, the days that
    changed."""
    return database.read(
        "SELECT c.statement_id, s.cycle_id, s.period_start, s.period_end, string_agg(c.billing_day || ' ' || c.service_point_id, ', ' "
        "ORDER BY c.billing_day, c.service_point_id) AS evidence FROM billing.late_change AS c JOIN billing.statement AS s USING (statement_id) "
        "GROUP BY 1, 2, 3, 4 ORDER BY 2, 3, 1"
    )


def take_late_change(connection: Connection, statement_id: str) -> bool:
    """Strike a statement off the list in the transaction that proposes its adjustment; False where another did."""
    return connection.execute("DELETE FROM billing.late_change WHERE statement_id = %s", (statement_id,)).rowcount > 0


def unapproved(connection: Connection, statement_id: str) -> Decimal:
    """What of a statement changed hands already without a second person: small corrections one after another must not
    add up past the threshold."""
    row = connection.execute(
        "SELECT coalesce(sum(gross), 0) FROM billing.adjustment WHERE statement_id = %s AND status = 'posted' AND decided_by IS NULL",
        (statement_id,),
    ).fetchone()
    return Decimal(row[0]) if row else Decimal(0)


def insert(connection: Connection, row: dict[str, Any], lines: Sequence[Sequence[Any]]) -> str:
    """A new adjustment and its lines; returns its id, the statement's next."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('billing.adjustment ' || %s))", (row["statement_id"],))
    found = connection.execute(
        "SELECT count(*) FROM billing.adjustment WHERE statement_id = %s", (row["statement_id"],)
    ).fetchone()
    adjustment_id = f"{row['statement_id']}.A{(found[0] if found else 0) + 1}"
    connection.execute(
        "INSERT INTO billing.adjustment (adjustment_id, statement_id, account_id, reason, evidence, net, gross, approval_required, threshold, "
        "status, requested_by, requested_at, posting_month) VALUES (%(adjustment_id)s, %(statement_id)s, %(account_id)s, %(reason)s, "
        "%(evidence)s, %(net)s, %(gross)s, %(approval_required)s, %(threshold)s, 'requested', %(requested_by)s, %(requested_at)s, %(posting_month)s)",
        row | {"adjustment_id": adjustment_id},
    )
    with connection.cursor() as cursor:
        names = ", ".join(LINE_COLUMNS)
        cursor.executemany(
            f"INSERT INTO billing.adjustment_line (adjustment_id, posting_month, {names}) VALUES (%s, %s, {', '.join(['%s'] * len(LINE_COLUMNS))})",
            [(adjustment_id, row["posting_month"], *line) for line in lines],
        )
    return adjustment_id


def decide(connection: Connection, adjustment_id: str, status: str, person: str, at: datetime) -> dict[str, Any] | None:
    """Move a requested adjustment to approved or refused; None where it is not waiting. The table refuses the person
    who asked."""
    return _row(
        connection,
        "UPDATE billing.adjustment SET status = %s, decided_by = %s, decided_at = %s WHERE adjustment_id = %s AND status = 'requested' "
        "RETURNING statement_id, requested_by, net, gross",
        (status, person, at, adjustment_id),
    )


def post(connection: Connection, adjustment_id: str, at: datetime) -> dict[str, Any] | None:
    """Post an adjustment that was approved, or that needs no approval; None where it is not there yet."""
    return _row(
        connection,
        "UPDATE billing.adjustment SET status = 'posted', posted_at = %s WHERE adjustment_id = %s "
        "AND (status = 'approved' OR (status = 'requested' AND NOT approval_required)) RETURNING statement_id, net, gross, posting_month",
        (at, adjustment_id),
    )


def lines(connection: Connection, adjustment_id: str) -> list[tuple[Any, ...]]:
    """An adjustment's lines."""
    return connection.execute(
        "SELECT line_no, action, service_point_id, line_key, amount FROM billing.adjustment_line WHERE adjustment_id = %s ORDER BY line_no",
        (adjustment_id,),
    ).fetchall()


def listed(database: Database) -> pl.DataFrame:
    """Adjustments, newest last."""
    return database.read(
        "SELECT adjustment_id, account_id, reason, net::text AS net, gross::text AS gross, status, requested_by, decided_by, "
        "posting_month FROM billing.adjustment ORDER BY requested_at, adjustment_id"
    )


def amount(value: int) -> Decimal:
    """Millionths as the column's exact decimal."""
    return Decimal(value).scaleb(-6)


def _row(connection: Connection, query: str, parameters: Sequence[Any]) -> dict[str, Any] | None:
    cursor = connection.execute(query.encode(), parameters)
    row = cursor.fetchone()
    if row is None or cursor.description is None:
        return None
    return {column.name: value for column, value in zip(cursor.description, row, strict=True)}
