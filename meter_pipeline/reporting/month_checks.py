"""Whether a month's leak adjustments, estimated bills and charges by the unit are what they should be: each asked of
other tables than those they were made from. Each function says what is wrong, in words."""

from __future__ import annotations

from datetime import date
from typing import Any

from meter_pipeline.postgres.database import Database


def leaks_off_their_lines(database: Database, month: date) -> list[str]:
    """Adjustments for leaks of a month that are not the sum of their lines, charge more than before, or stand on no
    confirmed case."""
    rows = database.rows(
        "SELECT a.adjustment_id, a.net::text AS net, l.amount::text AS lines, c.state FROM billing.adjustment AS a "
        "LEFT JOIN billing.leak_adjustment AS k USING (adjustment_id) LEFT JOIN anomaly.exception_case AS c USING (case_id) "
        "LEFT JOIN LATERAL (SELECT coalesce(sum(x.amount), 0) AS amount FROM billing.adjustment_line AS x WHERE x.adjustment_id = a.adjustment_id) AS l "
        "ON true WHERE a.reason = 'leak' AND a.posting_month = $1 AND a.status IN ('requested', 'approved', 'posted') "
        "AND (a.net IS DISTINCT FROM l.amount OR a.net > 0 OR c.state IS DISTINCT FROM 'confirmed') ORDER BY 1",
        [month],
    )
    return [
        f"{r['adjustment_id']}: {r['net']}, its lines {r['lines']}, its case {r['state'] or 'missing'}" for r in rows
    ]


def estimates_miscounted(database: Database, first: date, last: date) -> list[str]:
    """Estimated bills of periods that end from the day after ``first`` to the day after ``last`` whose count is not one
    more than that of the bill that ends where they begin."""
    rows = database.rows(
        "SELECT e.account_id, e.service_point_id, e.period_end, e.in_a_row FROM billing.estimated_bill AS e WHERE e.period_end > $1 AND e.period_end <= $2::date + 1 "
        "AND e.in_a_row > 1 AND NOT EXISTS (SELECT FROM billing.estimated_bill AS b WHERE b.account_id = e.account_id "
        "AND b.service_point_id = e.service_point_id AND b.period_end = e.period_start AND b.in_a_row = e.in_a_row - 1) ORDER BY 1, 2, 3",
        [first, last],
    )
    return [
        f"{r['account_id']} {r['service_point_id']} to {r['period_end']}: {r['in_a_row']} in a row, and no {r['in_a_row'] - 1} before it"
        for r in rows
    ]


def limits_passed(database: Database, first: date, last: date) -> list[str]:
    """Bills of these periods that the limit holds and that are out, while no person decided their case."""
    rows = database.rows(
        "SELECT s.statement_id, e.in_a_row FROM billing.estimated_bill AS e JOIN billing.statement AS s USING (account_id, cycle_id, period_start) "
        "WHERE e.period_end > $1 AND e.period_end <= $2::date + 1 AND e.action = 'hold' AND NOT EXISTS (SELECT FROM anomaly.exception_case AS c "
        "WHERE c.kind = 'estimate_limit' AND c.service_point_id = e.service_point_id AND c.first_day = e.period_start AND c.state IN "
        "('confirmed', 'dismissed')) ORDER BY 1",
        [first, last],
    )
    return [f"{r['statement_id']} is the estimated bill number {r['in_a_row']} in a row and is out" for r in rows]


def counts_not_charged(database: Database, first: date, last: date) -> list[str]:
    """Counts of services in force on the last billed day of a range, by the reference data, that the tariff of the
    service charges for, while the day has no charge for them; and charges without a count."""
    rows = database.rows(
        "WITH latest AS (SELECT max(billing_day) AS day FROM billing.charge_day WHERE billing_day BETWEEN $1 AND $2), "
        "counted AS (SELECT DISTINCT t.tariff_id, c ->> 'code' AS code, c ->> 'times' AS unit FROM ref.tariffs AS t "
        "JOIN ref.tariff_document AS d USING (tariff_id, version) CROSS JOIN latest CROSS JOIN LATERAL jsonb_array_elements(d.body -> 'charges') AS c "
        "WHERE c ->> 'times' IS NOT NULL AND t.valid_from <= latest.day AND (t.valid_to IS NULL OR t.valid_to > latest.day)), "
        "wanted AS (SELECT g.service_point_id, k.tariff_id, k.code, k.unit, a.value FROM latest JOIN ref.agreements AS g "
        "ON g.valid_from <= latest.day AND (g.valid_to IS NULL OR g.valid_to > latest.day) JOIN counted AS k USING (tariff_id) "
        "JOIN ref.service_attributes AS a ON a.service_point_id = g.service_point_id AND a.attribute = k.unit "
        "AND a.valid_from <= latest.day AND (a.valid_to IS NULL OR a.valid_to > latest.day)), "
        "charged AS (SELECT u.service_point_id, u.tariff_id, u.code, u.units FROM analyst.unit_charges AS u "
        "WHERE u.billing_day = (SELECT day FROM latest)) "
        "SELECT coalesce(w.service_point_id, c.service_point_id) AS point, coalesce(w.code, c.code) AS code, w.value, c.units::text AS units, "
        "c.service_point_id IS NOT NULL AS charged FROM wanted AS w FULL JOIN charged AS c USING (service_point_id, tariff_id, code) "
        "WHERE (c.service_point_id IS NULL AND NOT EXISTS (SELECT FROM billing.exception_day AS e CROSS JOIN latest WHERE e.billing_day = latest.day "
        "AND e.service_point_id = w.service_point_id AND e.reason <> 'no_usage')) OR c.units IS DISTINCT FROM coalesce(w.value::numeric, c.units) "
        "OR c.units IS NULL ORDER BY 1, 2",
        [first, last],
    )
    return [f"{r['point']} {r['code']}: {_count(r)}" for r in rows]


def _count(row: dict[str, Any]) -> str:
    if not row["charged"]:
        return f"{row['value']} in force and no charge"
    if row["units"] is None:
        return "charged, and no count is in force"
    return f"{row['units']} charged, {row['value']} in force"
