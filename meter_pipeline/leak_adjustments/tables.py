"""Leak adjustments in PostgreSQL: rules, the bills of a service, confirmed leaks, and existing adjustments."""

from __future__ import annotations

from datetime import date
from typing import Any

from meter_pipeline.postgres.database import Database


def rules(database: Database) -> list[dict[str, Any]]:
    """All rules."""
    return database.rows(
        "SELECT customer_class, seasons, normal_periods, least_periods, share_percent, sewer_codes, sewer_share_percent, months_between, most_bills, "
        "evidence, valid_from, valid_to FROM ref.leak_adjustment_rules ORDER BY customer_class, valid_from"
    )


def bills(database: Database, service_point_id: str) -> list[dict[str, Any]]:
    """Returns the bases of a service point's bills, as corrected, oldest first: statement_id, account_id,
    customer_class, unit, period_start, period_end, first_day, past_day, days, quantity in millionths, and whether all
    of it is estimated."""
    return database.rows(
        "SELECT e.statement_id, s.account_id, coalesce(v.customer_class, a.customer_class) AS customer_class, e.unit, "
        "s.period_start, s.period_end, min(e.segment_start) AS first_day, "
        "max(e.segment_end) AS past_day, sum(e.segment_end - e.segment_start)::int AS days, "
        "sum((SELECT coalesce(sum(x), 0) FROM unnest(e.energy) AS x))::bigint AS quantity, "
        "coalesce(bool_and(g.slots > 0 AND g.estimated >= g.slots), false) AS estimated "
        "FROM billing.segment_in_effect AS e JOIN billing.statement AS s USING (statement_id) JOIN ref.accounts AS a USING (account_id) "
        "LEFT JOIN ref.account_values AS v ON v.account_id = a.account_id AND v.valid_from < s.period_end AND (v.valid_to IS NULL OR v.valid_to >= s.period_end) "
        "LEFT JOIN billing.statement_segment AS g ON g.statement_id = e.statement_id AND g.service_point_id = e.service_point_id "
        "AND g.segment_start = e.segment_start WHERE e.service_point_id = $1 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY s.period_end, 1",
        [service_point_id],
    )


def leaks(database: Database, service_point_id: str, but: str) -> list[tuple[date, date, str]]:
    """Other confirmed leaks of a service point: first and last day, case."""
    found = database.rows(
        "SELECT first_day, last_day, case_id FROM anomaly.exception_case WHERE state = 'confirmed' AND family IN ('flow', 'burst') "
        "AND service_point_id = $1 AND case_id <> $2 ORDER BY 1",
        [service_point_id, but],
    )
    return [(r["first_day"], r["last_day"], r["case_id"]) for r in found]


def made(database: Database, service_point_id: str) -> list[dict[str, Any]]:
    """Leak adjustments of a service point that were not refused: adjustment_id, statement_id, case_id, period_end,
    status."""
    return database.rows(
        "SELECT l.adjustment_id, a.statement_id, l.case_id, l.period_end, a.status FROM billing.leak_adjustment AS l "
        "JOIN billing.adjustment AS a USING (adjustment_id) WHERE l.service_point_id = $1 AND a.status NOT IN ('refused', 'superseded') ORDER BY 1",
        [service_point_id],
    )
