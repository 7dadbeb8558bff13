"""SQL of the month-end close: the checklist, the control totals, the request and the seal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]

#: What stands against a point of the close, a row each. Cut at _SHOWN: 100,000 exceptions are one sentence to whoever
# reads the page.
_CHECKS: dict[str, str] = {
    "every day is billed": "SELECT d::date::text FROM generate_series("
    "greatest(%(m)s::date, (SELECT first_billing_day FROM billing.going_live)), %(n)s::date - 1, interval '1 day') AS d "
    # the next day billed, from the index: an EXISTS became a hash join over every charge of the month, 0.6 s for
    # 700,000
    "WHERE (SELECT min(c.billing_day) FROM billing.charge_day AS c WHERE c.billing_day >= d::date) IS DISTINCT FROM d::date ORDER BY d",
    "no reconciliation check is open": "SELECT billing_day || ' ' || joint || ' ' || subject FROM billing.reconciliation "
    "WHERE billing_day >= %(m)s AND billing_day < %(n)s AND cause IN ('open', 'not_loaded') ORDER BY billing_day, joint, subject",
    "every period that ended has its statements": "SELECT cycle_id || ' ' || period_end FROM ref.billing_cycles AS p "
    "WHERE period_end > greatest(%(m)s::date, (SELECT first_billing_day FROM billing.going_live)) AND period_end <= %(n)s "
    "AND NOT EXISTS (SELECT FROM billing.statement AS s WHERE s.cycle_id = p.cycle_id "
    "AND s.period_start = p.period_start) AND NOT EXISTS (SELECT FROM billing.statement_exception AS e WHERE e.cycle_id = p.cycle_id "
    "AND e.period_start = p.period_start AND e.reason = 'billed_by_legacy') "
    "AND EXISTS (SELECT FROM ref.agreements AS a WHERE a.cycle_id = p.cycle_id AND a.valid_from < p.period_end "
    "AND (a.valid_to IS NULL OR a.valid_to > p.period_start)) ORDER BY cycle_id, period_end",
    "no statement waits": "SELECT account_id || ' ' || reason FROM billing.statement_exception AS e "
    "JOIN ref.billing_cycles AS p USING (cycle_id, period_start) WHERE p.period_end > %(m)s AND p.period_end <= %(n)s "
    "AND e.reason NOT IN ('estimate_streak', 'billed_by_legacy') ORDER BY account_id, reason",
    "no late change waits for its adjustment": "SELECT DISTINCT statement_id FROM billing.late_change ORDER BY 1",
    "no adjustment waits": "SELECT adjustment_id FROM billing.adjustment "
    "WHERE posting_month = %(m)s AND status IN ('requested', 'approved') ORDER BY 1",
}
_SHOWN = 20


def checklist(connection: Connection, month: date, following: date) -> list[dict[str, Any]]:
    """Returns each point of the close, whether it is met, and the first 20 rows that contradict it (and whether
    there are more)."""
    points = []
    for point, query in _CHECKS.items():
        against = [
            str(message)
            for (message,) in connection.execute(f"{query} LIMIT {_SHOWN + 1}".encode(), {"m": month, "n": following})
        ]
        detail = ", ".join(against[:_SHOWN]) + (", and more" if len(against) > _SHOWN else "")
        points.append({"point": point, "ok": not against, "detail": detail})
    return points


def periods_ending(connection: Connection, month: date, following: date) -> list[tuple[str, date, date]]:
    """Returns cycle, first day and day after the last of the billing periods with statements that end in a month."""
    rows = connection.execute(
        "SELECT DISTINCT s.cycle_id, s.period_start, s.period_end FROM billing.statement AS s WHERE s.period_end > %s AND s.period_end <= %s ORDER BY 1, 2",
        (month, following),
    ).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]


def checks_found(
    connection: Connection, cycle_id: str, period_end: date, checks: list[str]
) -> list[tuple[str, str, str]]:
    """Returns check, cause and detail of a period's statements from their last reconciliation."""
    return connection.execute(
        "SELECT joint, cause, detail FROM billing.reconciliation WHERE billing_day = %s::date - 1 AND subject = %s AND joint = ANY(%s) ORDER BY 1",
        (period_end, cycle_id, checks),
    ).fetchall()


def lock(connection: Connection) -> None:
    """Wait for open writing transactions and block new ones until the seal is committed (their triggers take the same
    lock, shared)."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('billing.period'))")


def control_totals(connection: Connection, month: date, following: date) -> dict[str, Any]:
    """Returns counts and exact sums of the month."""
    at = {"m": month, "n": following}
    totals: dict[str, Any] = {}
    for name, query in {
        "charge_days": "SELECT count(*), coalesce(sum(total), 0)::text FROM billing.charge_day WHERE billing_day >= %(m)s AND billing_day < %(n)s",
        "determinant_days": "SELECT count(*), coalesce(sum(source_quantity), 0)::text FROM billing.determinant_day "
        "WHERE billing_day >= %(m)s AND billing_day < %(n)s",
        "statements": "SELECT count(*), coalesce(sum(total), 0)::text FROM billing.statement WHERE posting_month = %(m)s",
        "adjustments": "SELECT count(*), coalesce(sum(net), 0)::text FROM billing.adjustment WHERE posting_month = %(m)s AND status = 'posted'",
    }.items():
        row = connection.execute(query.encode(), at).fetchone()
        assert row is not None  # noqa: S101 - an aggregate gives a row
        totals[name] = {"count": row[0], "sum": row[1]}
    by = connection.execute(
        "SELECT component, count(*), sum(amount)::text FROM billing.statement_line WHERE posting_month = %(m)s GROUP BY 1 ORDER BY 1",
        at,
    ).fetchall()
    totals["statement_lines"] = {component: {"count": n, "sum": total} for component, n, total in by}
    return totals


def request(connection: Connection, month: date, person: str, points: list[dict[str, Any]], at: datetime) -> bool:
    """Request a month's close. Returns False where the month is sealed."""
    return (
        connection.execute(
            "INSERT INTO billing.period AS p (month, status, requested_by, requested_at, checklist) VALUES (%s, 'closing', %s, %s, %s) "
            "ON CONFLICT (month) DO UPDATE SET status = 'closing', requested_by = excluded.requested_by, requested_at = excluded.requested_at, "
            "checklist = excluded.checklist WHERE p.status <> 'sealed'",
            (month, person, at, Jsonb(points)),
        ).rowcount
        == 1
    )


def seal(connection: Connection, month: date, values: dict[str, Any]) -> bool:
    """Seal a month whose close was requested. Returns False where it was not requested. The table refuses the person
    who made the request."""
    return (
        connection.execute(
            "UPDATE billing.period SET status = 'sealed', approved_by = %(approved_by)s, sealed_at = %(sealed_at)s, checklist = %(checklist)s, "
            "control_totals = %(control_totals)s, totals_sha256 = %(totals_sha256)s, signature = %(signature)s, ledger_entry = %(ledger_entry)s "
            "WHERE month = %(month)s AND status = 'closing'",
            values
            | {
                "month": month,
                "checklist": Jsonb(values["checklist"]),
                "control_totals": Jsonb(values["control_totals"]),
            },
        ).rowcount
        == 1
    )


def requested_by(connection: Connection, month: date) -> str | None:
    """Returns the person who requested the close of a month that is not sealed yet."""
    row = connection.execute(
        "SELECT requested_by FROM billing.period WHERE month = %s AND status = 'closing'", (month,)
    ).fetchone()
    return None if row is None else str(row[0])
