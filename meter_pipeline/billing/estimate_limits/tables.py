"""Estimated bills in PostgreSQL: rules, services of a period without a read, their causes, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from meter_pipeline.postgres.database import Database

Connection = psycopg.Connection[Any]

#: Rules of validation that say that nothing came
_NOTHING = "'NO_DATA', 'GAPS', 'NOT_ESTIMATED', 'PROLONGED_ESTIMATION', 'READ_OVERDUE', 'ESTIMATED'"


def rules(database: Database) -> list[dict[str, Any]]:
    """All rules."""
    return database.rows(
        "SELECT customer_class, commodity, cause, most_bills, action, count_on_bill, valid_from, valid_to FROM ref.estimate_limits "
        "ORDER BY customer_class, commodity, cause, valid_from"
    )


def estimated(connection: Connection, cycle_id: str, first: date, past: date) -> list[dict[str, Any]]:
    """Services of a period whose every day is estimated: account_id, service_point_id, customer_class, commodity,
    issued (whether the bill is out), days and rejected (days on which something came and failed validation)."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "WITH whole AS (SELECT account_id, service_point_id, count(*)::int AS days FROM billing.determinant_day WHERE cycle_id = %(c)s "
            "AND billing_day >= %(f)s AND billing_day < %(p)s GROUP BY 1, 2 HAVING bool_and(slots > 0 AND estimated >= slots)) "
            "SELECT w.account_id, w.service_point_id, w.days, coalesce(v.customer_class, a.customer_class) AS customer_class, "
            "coalesce((SELECT min(s.commodity) FROM ref.service_points AS s "
            "WHERE s.service_point_id = w.service_point_id), '') AS commodity, EXISTS (SELECT FROM billing.statement AS s WHERE s.account_id = w.account_id "
            "AND s.cycle_id = %(c)s AND s.period_start = %(f)s) AS issued, (SELECT count(DISTINCT e.billing_day)::int FROM vee.exception AS e "
            "WHERE e.service_point_id = w.service_point_id AND e.billing_day >= %(f)s AND e.billing_day < %(p)s AND e.severity = 'fail' "
            f"AND e.kind NOT IN ({_NOTHING})) AS rejected "
            "FROM whole AS w JOIN ref.accounts AS a USING (account_id) LEFT JOIN ref.account_values AS v ON v.account_id = a.account_id "
            "AND v.valid_from < %(p)s AND (v.valid_to IS NULL OR v.valid_to >= %(p)s) ORDER BY 2, 1".encode(),
            {"c": cycle_id, "f": first, "p": past},
        ).fetchall()


def before(connection: Connection, account_id: str, service_point_id: str, first: date) -> list[tuple[date, str]]:
    """Earlier estimated bills of a service that stand: first day and cause, the latest first. One that a later read
    corrected is none."""
    rows = connection.execute(
        "SELECT e.period_start, e.period_end, e.cause FROM billing.estimated_bill AS e JOIN billing.statement AS s USING (account_id, cycle_id, period_start) "
        "WHERE e.account_id = %s AND e.service_point_id = %s AND e.period_end <= %s AND NOT EXISTS (SELECT FROM billing.adjustment AS a "
        "WHERE a.statement_id = s.statement_id AND a.reason = 'late_actual' AND a.status = 'posted') ORDER BY e.period_end DESC",
        (account_id, service_point_id, first),
    ).fetchall()
    found, at = [], first
    for start, end, cause in rows:
        if end != at:
            break
        found.append((start, str(cause)))
        at = start
    return found


def kept(connection: Connection, cycle_id: str, first: date) -> list[tuple[str, str]]:
    """Services of a period that stand as estimated and whose bill is not out: account and service point."""
    rows = connection.execute(
        "SELECT e.account_id, e.service_point_id FROM billing.estimated_bill AS e WHERE e.cycle_id = %s AND e.period_start = %s AND NOT EXISTS "
        "(SELECT FROM billing.statement AS s WHERE s.account_id = e.account_id AND s.cycle_id = e.cycle_id AND s.period_start = e.period_start)",
        (cycle_id, first),
    ).fetchall()
    return [(str(a), str(p)) for a, p in rows]


def of_removed_periods(connection: Connection) -> list[dict[str, Any]]:
    """Estimated bills that are not out, of periods that reference data does not have any more: account_id,
    service_point_id, cycle_id, period_start, period_end."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT account_id, service_point_id, cycle_id, period_start, period_end FROM billing.estimated_bill AS e "
            "WHERE NOT EXISTS (SELECT FROM ref.billing_cycles AS p WHERE p.cycle_id = e.cycle_id AND p.period_start = e.period_start) "
            "AND NOT EXISTS (SELECT FROM billing.statement AS s WHERE s.account_id = e.account_id AND s.cycle_id = e.cycle_id "
            "AND s.period_start = e.period_start) ORDER BY 1, 2, 3, 4"
        ).fetchall()


def forget(connection: Connection, cycle_id: str, first: date, services: Sequence[tuple[str, str]]) -> None:
    """Take back services of a period that have a read now."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "DELETE FROM billing.estimated_bill WHERE cycle_id = %s AND period_start = %s AND account_id = %s AND service_point_id = %s",
            [(cycle_id, first, account, point) for account, point in services],
        )


def keep(connection: Connection, rows: Sequence[dict[str, Any]], at: datetime) -> None:
    """Keep estimated bills, in the place of what stood of them."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO billing.estimated_bill (account_id, service_point_id, cycle_id, period_start, period_end, cause, in_a_row, of_cause, action, "
            "most_bills, shown, rule, noted_at) VALUES (%(account_id)s, %(service_point_id)s, %(cycle_id)s, %(period_start)s, %(period_end)s, %(cause)s, "
            "%(in_a_row)s, %(of_cause)s, %(action)s, %(most_bills)s, %(shown)s, %(rule)s, %(at)s) ON CONFLICT (account_id, service_point_id, cycle_id, "
            "period_start) DO UPDATE SET cause = excluded.cause, in_a_row = excluded.in_a_row, of_cause = excluded.of_cause, action = excluded.action, "
            "most_bills = excluded.most_bills, shown = excluded.shown, rule = excluded.rule",
            [row | {"at": at} for row in rows],
        )
