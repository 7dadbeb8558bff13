"""SQL of a close report of a day or a month."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database

Connection = psycopg.Connection[Any]
#: Cases and letters a report lists; the rest it counts.
LISTED: Final = 40


def cases(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Undecided cases seen in the days, those that hold a bill first, then by severity."""
    return database.read(
        "SELECT case_id, kind, severity, state, assigned_to, hold, first_day, last_day, days FROM anomaly.exception_case "
        "WHERE state IN ('open', 'assigned') AND last_day >= $1 AND first_day <= $2 "
        "ORDER BY hold DESC, array_position(ARRAY['severe', 'warn', 'inform'], severity), last_day DESC, case_id LIMIT $3",
        [first, last, LISTED],
    ).to_dicts()


def case_counts(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Cases seen in the days by state: how many, and how many hold a bill."""
    return database.read(
        "SELECT state, count(*) AS cases, count(*) FILTER (WHERE hold) AS held FROM anomaly.exception_case WHERE last_day >= $1 AND first_day <= $2 "
        "GROUP BY 1 ORDER BY 1",
        [first, last],
    ).to_dicts()


def letters(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Dead letters of files that touch the days, by first reason and status."""
    return database.read(
        "SELECT d.reasons -> 0 ->> 'code' AS reason, d.head_end, d.status, count(*) AS letters, sum(d.reads)::bigint AS reads FROM raw.dead_letter d "
        "WHERE d.file_sha256 IN (SELECT sha256 FROM raw.feed_file_day WHERE billing_day BETWEEN $1 AND $2) GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT $3",
        [first, last, LISTED],
    ).to_dicts()


def reconciliation_checks(database: Database, first: date, last: date) -> pl.DataFrame:
    """Reconciliation by check, unit and cause, what is open first: joint, unit, cause, expected, actual, difference
    (text), items (rows)."""
    return database.read(
        "SELECT joint, unit, cause, sum(expected)::text AS expected, sum(actual)::text AS actual, sum(difference)::text AS difference, "
        "sum(items)::bigint AS items FROM billing.reconciliation WHERE billing_day BETWEEN $1 AND $2 GROUP BY 1, 2, 3 "
        "ORDER BY cause NOT IN ('open', 'not_loaded'), joint, unit, cause",
        [first, last],
    )


def charges(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Money by component and currency, exact text."""
    return database.read(
        "SELECT l.component, v.currency, (sum(l.amount) / 1000000)::numeric(24, 2)::text AS amount FROM billing.charge_day c "
        "JOIN billing.tariff_version v ON v.tariff_id = c.tariff_id AND v.version = c.tariff_version "
        "CROSS JOIN LATERAL unnest(v.day_components, c.amounts) AS l (component, amount) WHERE c.billing_day BETWEEN $1 AND $2 GROUP BY 1, 2 ORDER BY 2, 1",
        [first, last],
    ).to_dicts()


def history(database: Database, last: date, count: int = 28) -> list[dict[str, Any]]:
    """The days up to ``last``, oldest first: reads received, services billed, money (float, for a picture only)."""
    return database.read(
        "SELECT d::date AS day, (SELECT sum(received)::bigint FROM raw.feed_file_day f WHERE f.billing_day = d::date) AS received, "
        "(SELECT sum(actual)::float8 FROM billing.reconciliation r WHERE r.billing_day = d::date AND joint = 'lines_to_total') AS charged "
        "FROM generate_series($1::date - $2::int + 1, $1::date, interval '1 day') AS d ORDER BY 1",
        [last, count],
    ).to_dicts()


def load(database: Database, day: date) -> list[dict[str, Any]]:
    """The day's load of complete meters by hour of the day and unit, whole units (float, for a picture only)."""
    return database.read(
        "SELECT g.unit, ((s.slot - 1) * g.interval_minutes / 60)::int AS hour, (sum(s.value) / 1000000)::float8 AS value "
        "FROM vee.group_day g CROSS JOIN LATERAL unnest(g.profile) WITH ORDINALITY AS s (value, slot) "
        "WHERE g.billing_day = $1 AND g.flow = 'import' GROUP BY 1, 2 ORDER BY 1, 2",
        [day],
    ).to_dicts()


def statements(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Statements of periods that ended with the days (period_end is the day after), by cycle and currency."""
    return database.read(
        "SELECT s.cycle_id, s.period_start, s.period_end, s.currency, count(*) AS statements, sum(s.total)::numeric(24, 2)::text AS total "
        "FROM billing.statement s JOIN ref.billing_cycles p ON p.cycle_id = s.cycle_id AND p.period_start = s.period_start "
        "WHERE s.period_end > $1 AND s.period_end <= $2::date + 1 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2",
        [first, last],
    ).to_dicts()


def waiting_statements(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Accounts of those periods whose bill waits, by reason."""
    return database.read(
        "SELECT e.cycle_id, e.reason, count(DISTINCT e.account_id) AS accounts FROM billing.statement_exception e "
        "JOIN ref.billing_cycles p USING (cycle_id, period_start) WHERE p.period_end > $1 AND p.period_end <= $2::date + 1 GROUP BY 1, 2 ORDER BY 1, 2",
        [first, last],
    ).to_dicts()


def adjustments(database: Database, month: date) -> list[dict[str, Any]]:
    """Adjustments posted in a month, by status."""
    return database.read(
        "SELECT status, count(*) AS adjustments, sum(net)::text AS net FROM billing.adjustment WHERE posting_month = $1 GROUP BY 1 ORDER BY 1",
        [month],
    ).to_dicts()


def period(connection: Connection, month: date) -> dict[str, Any] | None:
    """Returns an accounting month's row, where its close was ever requested."""
    names = (
        "status",
        "requested_by",
        "requested_at",
        "approved_by",
        "sealed_at",
        "control_totals",
        "totals_sha256",
        "signature",
        "ledger_entry",
    )
    row = connection.execute(
        "SELECT status, requested_by, requested_at, approved_by, sealed_at, control_totals, totals_sha256, signature, ledger_entry "
        "FROM billing.period WHERE month = %s",
        (month,),
    ).fetchone()
    return None if row is None else dict(zip(names, row, strict=True))


def leak_adjustments(database: Database, month: date) -> list[dict[str, Any]]:
    """Adjustments for leaks that are posted in a month or wait for a decision, with their bases."""
    return database.rows(
        "SELECT adjustment_id, service_point_id, unit, used::text AS used, normal::text AS normal, forgiven::text AS forgiven, "
        "sewer_forgiven::text AS sewer_forgiven, net::text AS net, status FROM analyst.leak_adjustments "
        "WHERE posting_month = $1 AND status IN ('requested', 'approved', 'posted') ORDER BY 1 LIMIT 200",
        [month],
    )


def estimated_bills(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Services without a read in periods that end in some days: how many in a row, why, what the limit does, how
    many."""
    return database.rows(
        "SELECT in_a_row, cause, action, count(*) AS bills FROM analyst.estimated_bills WHERE period_end > $1 AND period_end <= $2 "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        [first, date.fromordinal(last.toordinal() + 1)],
    )


def unit_charges(database: Database, first: date, last: date) -> list[dict[str, Any]]:
    """Charges by units that no meter counts over some days, by charge: service points, units on the last of the days
    that has any, days charged, amount (exact text)."""
    return database.rows(
        "WITH charged AS (SELECT * FROM analyst.unit_charges WHERE billing_day BETWEEN $1 AND $2), "
        "latest AS (SELECT max(billing_day) AS day FROM charged) "
        "SELECT tariff_id, code, name, unit, currency, count(DISTINCT service_point_id) AS service_points, "
        "sum(units) FILTER (WHERE billing_day = (SELECT day FROM latest))::text AS units, count(*) AS service_days, "
        "sum(amount)::numeric(24, 2)::text AS amount FROM charged GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2",
        [first, last],
    )


def rules_in_force(database: Database, day: date) -> dict[str, int]:
    """Returns how many rows of each of the month's rules are in force on a day."""
    rules = ("leak_adjustment_rules", "estimate_limits", "winter_average_rules")
    counts = ", ".join(
        f"(SELECT count(*) FROM ref.{rule} WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1))::int AS {rule}"
        for rule in rules
    )
    (row,) = database.rows(f"SELECT {counts}", [day])
    return {name: int(n) for name, n in row.items()}
