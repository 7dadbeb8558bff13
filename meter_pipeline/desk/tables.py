"""SQL of the finance desk: pages of long lists by keyset, and the figures of its first page from tables that stay
small.

No query counts or skips through a long list: a page starts where the last one ended, on an index of its table, so
that the hundred thousandth page costs as much as the first. Counts stop at COUNTED.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

Connection: TypeAlias = psycopg.Connection[Any]
Row: TypeAlias = dict[str, Any]

PAGE: Final = 50
#: A count beyond this is shown as "more than": the exact length of a long list helps no one.
COUNTED: Final = 10_000
CASE_FILTERS: Final = ("state", "kind", "commodity", "severity", "service_point_id", "assigned_to")


def rows(
    connection: Connection, query: str | sql.SQL | sql.Composed, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[Row]:
    """A query's rows as dictionaries."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode() if isinstance(query, str) else query, parameters).fetchall()


def one(connection: Connection, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Row | None:
    """A query's first row, or None."""
    found = rows(connection, query, parameters)
    return found[0] if found else None


# --- first page -----------------------------------------------------------------------------------


def overview(connection: Connection) -> Row:
    """Counts of the work that waits for people, each bounded: exceptions undecided and held, dead letters, adjustments,
    resumes, months."""
    found = one(
        connection,
        """
        SELECT (SELECT count(*) FROM (SELECT FROM anomaly.exception_case WHERE state IN ('open', 'assigned') LIMIT %(most)s) c) AS cases,
            (SELECT count(*) FROM (SELECT FROM anomaly.exception_case WHERE hold LIMIT %(most)s) c) AS held,
            (SELECT count(*) FROM (SELECT FROM raw.dead_letter WHERE status IN ('open', 'corrected') LIMIT %(most)s) d) AS letters,
            (SELECT count(*) FROM (SELECT FROM billing.adjustment WHERE status = 'requested' LIMIT %(most)s) a) AS adjustments,
            (SELECT count(*) FROM control.dual_request q WHERE q.action = 'resume' AND q.expires_at > now()
                AND NOT EXISTS (SELECT FROM control.dual_decision d WHERE d.request_id = q.request_id)) AS resumes,
            (SELECT count(*) FROM billing.period WHERE status = 'closing') AS months
        """,
        {"most": COUNTED + 1},
    )
    return found or {}


def billing_days(connection: Connection, before: date | None, limit: int = 14) -> list[Row]:
    """The latest billing days that any file touches, newest first: reads by outcome, flags, services billed, money,
    open reconciliation checks.

    From tables with a few rows a day: the files' days, the runs of detection, the reconciliation checks.
    """
    return rows(
        connection,
        """
        WITH RECURSIVE days AS (
            (SELECT max(billing_day) AS d FROM raw.feed_file_day WHERE %(before)s::date IS NULL OR billing_day < %(before)s)
            UNION ALL
            SELECT (SELECT max(f.billing_day) FROM raw.feed_file_day f WHERE f.billing_day < days.d) FROM days WHERE days.d IS NOT NULL
        ), shown AS (SELECT d AS billing_day FROM days WHERE d IS NOT NULL LIMIT %(limit)s)
        SELECT s.billing_day, f.received, f.accepted, f.again, f.rejected, f.waiting, r.flags, m.services, m.total, m.currency, j.open, j.explained
        FROM shown s
        CROSS JOIN LATERAL (SELECT sum(received)::bigint AS received, coalesce(sum(accepted), 0)::bigint AS accepted,
            coalesce(sum(duplicate + superseded), 0)::bigint AS again, coalesce(sum(rejected), 0)::bigint AS rejected,
            coalesce(sum(received) FILTER (WHERE loaded_at IS NULL), 0)::bigint AS waiting
            FROM raw.feed_file_day WHERE billing_day = s.billing_day) f
        LEFT JOIN anomaly.flag_run r USING (billing_day)
        LEFT JOIN LATERAL (SELECT sum(items)::bigint AS services, sum(actual) AS total, min(unit) AS currency FROM billing.reconciliation
            WHERE billing_day = s.billing_day AND joint = 'lines_to_total') m ON true
        CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE cause IN ('open', 'not_loaded')) AS open,
            count(*) FILTER (WHERE difference <> 0 AND cause NOT IN ('open', 'not_loaded')) AS explained
            FROM billing.reconciliation WHERE billing_day = s.billing_day AND (difference <> 0 OR cause IN ('open', 'not_loaded'))) j
        ORDER BY 1 DESC
        """,
        {"before": before, "limit": limit},
    )


# --- exceptions -----------------------------------------------------------------------------------


def cases(
    connection: Connection, filters: Mapping[str, Sequence[str]], after: tuple[date, str] | None, limit: int = PAGE
) -> list[Row]:
    """Cases that match all filters, newest first, after a (last_day, case_id)."""
    where, values = _case_clauses(filters)
    if after is not None:
        # Two parts, so that the index on (last_day DESC, case_id) is walked from there.
        where.append(sql.SQL("last_day <= %s AND (last_day < %s OR case_id > %s)"))
        values += [after[0], after[0], after[1]]
    query = sql.SQL(
        "SELECT case_id, kind, family, subject, service_point_id, commodity, severity, state, assigned_to, hold, first_day, last_day, days, confidence "
        "FROM anomaly.exception_case WHERE {} ORDER BY last_day DESC, case_id LIMIT %s"
    ).format(sql.SQL(" AND ").join(where) if where else sql.SQL("true"))
    return rows(connection, query, [*values, limit])


def count_cases(connection: Connection, filters: Mapping[str, Sequence[str]]) -> int:
    """How many match, up to COUNTED + 1."""
    where, values = _case_clauses(filters)
    query = sql.SQL("SELECT count(*) AS n FROM (SELECT FROM anomaly.exception_case WHERE {} LIMIT %s) c").format(
        sql.SQL(" AND ").join(where) if where else sql.SQL("true")
    )
    return int(rows(connection, query, [*values, COUNTED + 1])[0]["n"])


def _case_clauses(filters: Mapping[str, Sequence[str]]) -> tuple[list[sql.Composable], list[Any]]:
    clauses: list[sql.Composable] = []
    values: list[Any] = []
    for name, wanted in filters.items():
        if name not in CASE_FILTERS:
            raise ValueError(f"no filter {name}")
        if name == "state" and sorted(wanted) == ["assigned", "open"]:
            clauses.append(sql.SQL("state IN ('open', 'assigned')"))  # spelled as the partial index is
            continue
        clauses.append(sql.SQL("{} = ANY (%s)").format(sql.Identifier(name)))
        values.append(list(wanted))
    return clauses, values


def usage_of_point(connection: Connection, service_point_id: str, first: date, last: date) -> list[Row]:
    """A service point's days: usage and what its newest baseline asks of the weather, in whole units, and the day's
    mean °C; None where either is unknown."""
    return rows(
        connection,
        """
        SELECT u.billing_day, u.unit, (u.quantity_micro / 1000000.0)::float8 AS used, e.expected, e.sigma, e.degrees_c
        FROM vee.daily_usage u
        LEFT JOIN ref.service_points p ON p.service_point_id = u.service_point_id AND p.valid_from <= u.billing_day
            AND (p.valid_to IS NULL OR p.valid_to > u.billing_day)
        LEFT JOIN LATERAL (
            SELECT b.intercept + b.hdd_beta * CASE WHEN b.hourly THEN h.heating ELSE greatest(0, coalesce(b.hdd_balance_f, 0) - t.f) END
                + b.cdd_beta * CASE WHEN b.hourly THEN h.cooling ELSE greatest(0, t.f - coalesce(b.cdd_balance_f, 0)) END
                + CASE WHEN extract(isodow FROM u.billing_day) > 5 THEN b.weekend ELSE 0 END AS expected, coalesce(b.robust_sigma, b.sigma) AS sigma, t.c AS degrees_c
            FROM anomaly.baseline b
            CROSS JOIN LATERAL (SELECT temperature_mean_c * 1.8 + 32 AS f, temperature_mean_c::float8 AS c FROM anomaly.temperature
                WHERE station_id = b.station_id AND weather_day = u.billing_day LIMIT 1) t
            LEFT JOIN LATERAL (SELECT avg(greatest(0, b.hdd_balance_f - c * 1.8 - 32)) AS heating, avg(greatest(0, c * 1.8 + 32 - b.cdd_balance_f)) AS cooling
                FROM anomaly.weather_day w, unnest(w.hourly_c) c
                WHERE w.station_id = b.station_id AND w.weather_day = u.billing_day AND c <> 'NaN' HAVING count(*) > 12) h ON b.hourly
            WHERE b.version = (SELECT version FROM anomaly.baseline_version WHERE as_of <= %(last)s ORDER BY as_of DESC, fitted_at DESC, version DESC LIMIT 1)
                AND b.service_point_id = u.service_point_id AND b.unit = u.unit AND b.status <> 'class_profile'
        ) e ON true
        WHERE u.service_point_id = %(point)s AND u.billing_day BETWEEN %(first)s AND %(last)s AND u.flow = 'import'
        ORDER BY u.billing_day
        """,
        {"point": service_point_id, "first": first, "last": last},
    )


# --- dead letters ---------------------------------------------------------------------------------


def letters(
    connection: Connection,
    status: Sequence[str],
    reason: str | None,
    head_end: str | None,
    after: tuple[datetime, bytes] | None,
    limit: int = PAGE,
) -> list[Row]:
    """Dead letters, oldest first, after a (first_seen, key). ``status`` empty means any."""
    where: list[sql.Composable] = []
    values: list[Any] = []
    if sorted(status) == ["corrected", "open"]:
        where.append(sql.SQL("status IN ('open', 'corrected')"))
    elif status:
        where.append(sql.SQL("status = ANY (%s)"))
        values.append(list(status))
    if reason:
        where.append(sql.SQL("reasons @> jsonb_build_array(jsonb_build_object('code', %s::text))"))
        values.append(reason)
    if head_end:
        where.append(sql.SQL("head_end = %s"))
        values.append(head_end)
    if after is not None:
        where.append(sql.SQL("(first_seen, dead_letter_key) > (%s, %s)"))
        values += list(after)
    query = sql.SQL(
        "SELECT dead_letter_key AS key, file_name, head_end, line, meter_id, reads, reasons, status, first_seen, times, changed_by "
        "FROM raw.dead_letter WHERE {} ORDER BY first_seen, dead_letter_key LIMIT %s"
    ).format(sql.SQL(" AND ").join(where) if where else sql.SQL("true"))
    return rows(connection, query, [*values, limit])


def letter_reasons(connection: Connection) -> list[Row]:
    """Unsettled dead letters by reason and head-end, most first; the oldest COUNTED are looked at."""
    return rows(
        connection,
        "SELECT reason, head_end, count(*) AS letters, sum(reads)::bigint AS reads FROM (SELECT reasons -> 0 ->> 'code' AS reason, head_end, reads "
        "FROM raw.dead_letter WHERE status IN ('open', 'corrected') ORDER BY first_seen LIMIT %s) d GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 50",
        (COUNTED,),
    )


# --- adjustments and bills ------------------------------------------------------------------------


def adjustments(
    connection: Connection, status: str | None, after: tuple[datetime, str] | None, limit: int = PAGE
) -> list[Row]:
    """Adjustments, newest first, before a (requested_at, id)."""
    where: list[sql.Composable] = []
    values: list[Any] = []
    if status:
        where.append(sql.SQL("status = %s"))
        values.append(status)
    if after is not None:
        where.append(sql.SQL("(requested_at, adjustment_id) < (%s, %s)"))
        values += list(after)
    query = sql.SQL(
        "SELECT adjustment_id, statement_id, account_id, reason, evidence, net, gross, approval_required, threshold, status, requested_by, requested_at, "
        "decided_by, decided_at, posting_month FROM billing.adjustment WHERE {} ORDER BY requested_at DESC, adjustment_id DESC LIMIT %s"
    ).format(sql.SQL(" AND ").join(where) if where else sql.SQL("true"))
    return rows(connection, query, [*values, limit])


def adjustment(connection: Connection, adjustment_id: str) -> Row | None:
    """One adjustment with its currency."""
    return one(
        connection,
        "SELECT a.*, s.currency, s.period_start, s.period_end FROM billing.adjustment a JOIN billing.statement s USING (statement_id) WHERE adjustment_id = %s",
        (adjustment_id,),
    )


def adjustment_lines(connection: Connection, adjustment_id: str) -> list[Row]:
    return rows(
        connection,
        "SELECT line_no, action, original_line_no, service_point_id, tariff_id, tariff_version, segment_start, segment_end, name, quantity, unit, amount "
        "FROM billing.adjustment_line WHERE adjustment_id = %s ORDER BY line_no",
        (adjustment_id,),
    )


def statements(
    connection: Connection, account_id: str | None, after: tuple[datetime, str] | None, limit: int = PAGE
) -> list[Row]:
    """Statements, newest first, of an account or of all, before an (issued_at, id)."""
    where: list[sql.Composable] = []
    values: list[Any] = []
    if account_id:
        where.append(sql.SQL("account_id = %s"))
        values.append(account_id)
    if after is not None:
        where.append(sql.SQL("(issued_at, statement_id) < (%s, %s)"))
        values += list(after)
    query = sql.SQL(
        "SELECT statement_id, account_id, cycle_id, period_start, period_end, revision, kind, currency, total, lines, issued_at "
        "FROM billing.statement WHERE {} ORDER BY issued_at DESC, statement_id DESC LIMIT %s"
    ).format(sql.SQL(" AND ").join(where) if where else sql.SQL("true"))
    return rows(connection, query, [*values, limit])


def statement(connection: Connection, statement_id: str) -> Row | None:
    return one(connection, "SELECT * FROM billing.statement WHERE statement_id = %s", (statement_id,))


def statement_lines(connection: Connection, statement_id: str) -> list[Row]:
    return rows(
        connection,
        "SELECT line_no, service_point_id, tariff_id, tariff_version, segment_start, segment_end, name, component, quantity, unit, amount "
        "FROM billing.statement_line WHERE statement_id = %s ORDER BY line_no",
        (statement_id,),
    )


def corrections_of(connection: Connection, statement_id: str) -> list[Row]:
    """Adjustments of a statement that stand or wait for a decision, oldest first."""
    return rows(
        connection,
        "SELECT adjustment_id, reason, net, status, requested_at, decided_by FROM billing.adjustment WHERE statement_id = %s "
        "AND status IN ('requested', 'approved', 'posted') ORDER BY requested_at, adjustment_id",
        (statement_id,),
    )


def explained(connection: Connection, line_id: str) -> list[Row]:
    """Steps of billing.explain_line: step, what, day, subject, detail."""
    return rows(
        connection,
        "SELECT step, what, day, subject, detail FROM billing.explain_line(%s) ORDER BY step, day, subject",
        (line_id,),
    )


def intervals(connection: Connection, service_point_id: str, day: date) -> list[Row]:
    """Every validated interval of a service point's day, each beside the raw read it was made of."""
    return rows(
        connection,
        """
        SELECT v.meter_id, v.channel, v.flow, v.interval_start, v.interval_minutes, v.value, v.unit, v.quality, v.quality_method, v.rules,
            r.value AS raw_value, r.unit AS raw_unit, r.quality AS raw_quality, r.idempotency_key, r.payload_hash
        FROM vee.interval v
        LEFT JOIN raw.interval r ON r.billing_day = %(day)s AND r.billing_day = v.billing_day AND r.meter_id = v.meter_id AND r.channel = v.channel
            AND r.interval_start = v.interval_start
        WHERE v.billing_day = %(day)s AND v.service_point_id = %(point)s ORDER BY v.channel, v.meter_id, v.interval_start
        """,
        {"day": day, "point": service_point_id},
    )


def registers(connection: Connection, service_point_id: str, day: date) -> list[Row]:
    """Register reads of the meters that stood at a service point on a day."""
    return rows(
        connection,
        """
        SELECT r.meter_id, r.channel, r.read_at, raw.quantity(r.value, 6::smallint) AS value, r.unit, r.head_end, raw.quality_flag(r.quality) AS quality,
            r.payload_hash
        FROM (SELECT DISTINCT meter_id FROM ref.installations WHERE service_point_id = %(point)s) i
        JOIN raw.register_read r ON r.meter_id = i.meter_id AND r.billing_day = %(day)s ORDER BY r.meter_id, r.channel, r.read_at
        """,
        {"day": day, "point": service_point_id},
    )


# --- months ---------------------------------------------------------------------------------------


def months(connection: Connection) -> list[Row]:
    """Accounting months anything was billed in or that were asked to close, newest first."""
    return rows(
        connection,
        """
        WITH RECURSIVE billed AS (
            SELECT date_trunc('month', max(billing_day))::date AS month FROM billing.reconciliation
            UNION ALL
            SELECT (SELECT date_trunc('month', max(r.billing_day))::date FROM billing.reconciliation r WHERE r.billing_day < billed.month)
            FROM billed WHERE billed.month IS NOT NULL
        )
        SELECT month, coalesce(p.status, 'open') AS status, p.requested_by, p.requested_at, p.approved_by, p.sealed_at, p.totals_sha256, p.checklist
        FROM (SELECT month FROM billed WHERE month IS NOT NULL UNION SELECT month FROM billing.period) m
        LEFT JOIN billing.period p USING (month) ORDER BY month DESC LIMIT 36
        """,
    )


def reasons(value: Any) -> list[tuple[str, str]]:
    """A dead letter's reasons as (code, detail), whether the driver gave JSON or text."""
    listed = json.loads(value) if isinstance(value, str) else value
    return [(str(r["code"]), str(r["detail"])) for r in listed]
