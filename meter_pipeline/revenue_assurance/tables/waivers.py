"""SQL of back-billing waivers: the rows of the rules, and the adjustment lines that they explain."""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.Connection[Any]

#: Back-billing rows of corrections of bills whose period holds any of the days, beside the sums of the lines that they
#: explain: those of the correction, and those of the policy adjustment that goes with it.
_WAIVERS: Final = """
SELECT b.adjustment_id, b.service_point_id, b.full_amount, b.allowed, b.waived, b.interest, a.status, coalesce(p.status, a.status) AS policy_status,
    (SELECT coalesce(sum(l.amount), 0) FROM billing.adjustment_line AS l WHERE l.adjustment_id = b.adjustment_id
        AND l.service_point_id = b.service_point_id) AS corrected,
    (SELECT coalesce(-sum(l.amount) FILTER (WHERE l.component <> 'interest'), 0) FROM billing.adjustment_line AS l
        WHERE l.adjustment_id = b.policy_adjustment AND l.service_point_id = b.service_point_id) AS taken_back,
    (SELECT coalesce(-sum(l.amount) FILTER (WHERE l.component = 'interest'), 0) FROM billing.adjustment_line AS l
        WHERE l.adjustment_id = b.policy_adjustment AND l.service_point_id = b.service_point_id) AS credited
FROM billing.statement AS s JOIN billing.adjustment AS a USING (statement_id) JOIN billing.back_billing AS b USING (adjustment_id)
LEFT JOIN billing.adjustment AS p ON p.adjustment_id = b.policy_adjustment
WHERE s.period_start < %(past)s AND s.period_end > %(first)s AND a.status <> 'superseded' ORDER BY 1, 2
"""
_WITHOUT_RULE: Final = """
SELECT a.adjustment_id FROM billing.statement AS s JOIN billing.adjustment AS a USING (statement_id)
WHERE s.period_start < %(past)s AND s.period_end > %(first)s AND a.reason = 'policy' AND a.status <> 'superseded'
    AND NOT EXISTS (SELECT FROM billing.back_billing AS b WHERE b.policy_adjustment = a.adjustment_id) ORDER BY 1
"""


def waivers(connection: Connection, first: date, past: date) -> list[dict[str, Any]]:
    """Corrections under a back-billing rule of bills of periods that hold any day of [first, past)."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_WAIVERS.encode(), {"first": first, "past": past}).fetchall()


def waivers_without_rule(connection: Connection, first: date, past: date) -> list[str]:
    """Policy adjustments that no row explains."""
    return [str(name) for (name,) in connection.execute(_WITHOUT_RULE.encode(), {"first": first, "past": past})]
