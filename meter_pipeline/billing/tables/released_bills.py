"""Bills and corrections that waited for a hold which is gone: a person released it, or the data were corrected."""

from __future__ import annotations

from datetime import date

from meter_pipeline.billing.tables.late_changes import UNUSUAL
from meter_pipeline.postgres.database import Database, scalar

_RELEASED = f"""
WITH bill AS (
    SELECT p.period_end - 1 AS day, concat_ws(' ', 'bill', e.account_id, e.cycle_id, e.period_start) AS what
    FROM billing.statement_exception AS e JOIN ref.billing_cycles AS p USING (cycle_id, period_start)
    WHERE e.reason = 'held' AND NOT EXISTS (
        SELECT FROM anomaly.bill_hold AS h JOIN ref.agreements AS a ON a.service_point_id = h.service_point_id AND a.account_id = e.account_id
            AND a.valid_from < p.period_end AND (a.valid_to IS NULL OR a.valid_to > p.period_start)
        WHERE h.first_day < p.period_end AND (h.last_day IS NULL OR h.last_day >= p.period_start))
),
correction AS (
    SELECT c.billing_day AS day, concat_ws(' ', 'correction', c.statement_id, c.billing_day, c.service_point_id) AS what
    FROM billing.late_change AS c WHERE c.waits_for LIKE 'validation of %' AND NOT EXISTS (
        SELECT FROM anomaly.validation_finding AS f JOIN billing.statement_segment AS g ON g.statement_id = c.statement_id
            AND f.service_point_id = g.service_point_id AND f.billing_day >= g.segment_start AND f.billing_day < g.segment_end
        WHERE f.action = 'hold' AND f.released_at IS NULL AND f.kind NOT IN ({", ".join(f"'{kind}'" for kind in UNUSUAL)}))
)
SELECT day, array_agg(what ORDER BY what) FROM (SELECT * FROM bill UNION SELECT * FROM correction) AS found GROUP BY 1 ORDER BY 1
"""


def released_bills(database: Database) -> list[tuple[date, list[bytes]]]:
    """Billing days whose run issues the bills, or works out the corrections, that were held and are not any more, each
    with what asks for it. The run takes them off the list, whether they can be issued or wait for something else."""
    with database.connect("released bills") as connection:
        if not scalar(connection, "SELECT to_regclass('anomaly.bill_hold') IS NOT NULL"):
            return []
        rows = connection.execute(_RELEASED.encode()).fetchall()
    return [(day, [text.encode() for text in what]) for day, what in rows]
