"""SQL of statements whose days changed after issue: the list of late changes, and the reason each waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database

Connection = psycopg.Connection[Any]

#: Findings that hold a read against its own past. Data that contradict each other correct no issued bill; an unusual
#: read may be true: what it comes to is proposed, and waits for a second person whatever its size.
UNUSUAL: Final = ("READ_HIGH", "READ_LOW", "HIGH", "LOW")
_HELD: Final = """
(SELECT {said} FROM anomaly.validation_finding AS f JOIN billing.statement_segment AS g ON g.statement_id = c.statement_id
    AND f.service_point_id = g.service_point_id AND f.billing_day >= g.segment_start AND f.billing_day < g.segment_end
    WHERE f.action = 'hold' AND f.released_at IS NULL AND f.kind {which}(string_to_array($2, ',')))"""


def late_changes(database: Database, checks: Sequence[str]) -> pl.DataFrame:
    """Returns the late changes without an adjustment: statement_id, cycle_id, period_start, period_end, ``evidence``
    (the days that changed), ``corrected_on`` (the day of the correction of reference data that changed them, null where
    reads did), ``noticed_at`` of the last of them, ``waits_for``: the reason the adjustment cannot be computed yet,
    null where it can, and ``unusual``: unusual findings of its days that no person has released, null without any.

    One read that closes a month changes every day of it. The statement is corrected after the last of the requested
    days is validated and billed again, by one adjustment, which is compared with the threshold as a whole; and after
    files of its meters' head-ends that wait to be loaded, except for days before the first billed one. Days with an
    open reconciliation, and days on hold by validation, correct no statement.
    """
    evidence = "'validation of ' || min(f.billing_day) || ' found ' || string_agg(DISTINCT f.kind, ', ') || ': released by a person, or corrected'"
    return database.read(
        f"""
        SELECT c.statement_id, s.cycle_id, s.period_start, s.period_end, max(c.noticed_at) AS noticed_at,
            string_agg(c.billing_day || ' ' || c.service_point_id, ', ' ORDER BY c.billing_day, c.service_point_id) AS evidence,
            max(c.corrected_on) AS corrected_on,
            coalesce(
                (SELECT 'day ' || min(t.billing_day) || ' will be validated again' FROM vee.true_up AS t
                    JOIN billing.statement_segment AS g ON g.statement_id = c.statement_id AND t.billing_day >= g.segment_start
                    AND t.billing_day < g.segment_end AND (t.service_points IS NULL OR g.service_point_id = ANY(t.service_points))
                    WHERE t.done_at IS NULL),
                (SELECT 'reads of ' || min(d.billing_day) || ' wait to be loaded' FROM raw.feed_file_day AS d JOIN raw.feed_file AS f USING (sha256)
                    WHERE d.loaded_at IS NULL AND d.billing_day >= greatest(s.period_start, (SELECT min(billing_day) FROM billing.charge_day))
                    AND d.billing_day < s.period_end AND EXISTS (SELECT FROM billing.statement_segment AS g JOIN ref.installations AS i
                        USING (service_point_id) JOIN ref.meters AS m USING (meter_id) WHERE g.statement_id = c.statement_id AND (m.head_end = f.head_end
                        OR EXISTS (SELECT FROM ref.meter_values AS w WHERE w.meter_id = m.meter_id AND w.head_end = f.head_end)))),
                (SELECT 'reconciliation of ' || o.billing_day || ' is open: ' || o.joint || ' of ' || o.service_point_id
                    FROM billing.open_service AS o WHERE o.billing_day = ANY(array_agg(c.billing_day)) AND o.joint = ANY(string_to_array($1, ','))
                    AND (o.service_point_id = 'all' OR o.service_point_id = ANY(array_agg(c.service_point_id)) OR o.service_point_id IN
                        (SELECT g.service_point_id FROM billing.statement_segment AS g WHERE g.statement_id = c.statement_id)) ORDER BY 1 LIMIT 1),
                (SELECT 'day ' || min(u.billing_day) || ' is validated and not billed again yet' FROM billing.statement_segment AS g
                    JOIN vee.daily_usage AS u ON u.service_point_id = g.service_point_id
                    AND u.billing_day >= g.segment_start AND u.billing_day < g.segment_end
                    JOIN billing.determinant_day AS d ON d.billing_day = u.billing_day AND d.service_point_id = u.service_point_id
                    LEFT JOIN LATERAL (SELECT r.determinants AS j FROM billing.determinant_revision AS r WHERE r.billing_day = u.billing_day
                        AND r.service_point_id = u.service_point_id ORDER BY r.revision DESC LIMIT 1) AS r ON true
                    WHERE g.statement_id = c.statement_id AND r.j IS DISTINCT FROM 'null' AND u.flow IN ('import', 'export')
                    AND u.quantity_micro <> CASE
                        WHEN u.flow = 'import' AND u.unit = coalesce(r.j ->> 'source_unit', d.source_unit)
                            THEN coalesce((r.j ->> 'source_quantity')::bigint, d.source_quantity)
                        WHEN u.flow = 'import' AND u.unit = coalesce(r.j ->> 'other_unit', d.other_unit)
                            THEN coalesce((r.j ->> 'other_quantity')::bigint, d.other_quantity)
                        WHEN u.flow = 'export' AND u.unit = coalesce(r.j ->> 'source_unit', d.source_unit)
                            THEN coalesce((r.j ->> 'source_export')::bigint, d.source_export) END
                    AND NOT EXISTS (SELECT FROM billing.exception_day AS e WHERE e.billing_day = u.billing_day
                        AND e.service_point_id = u.service_point_id)),
                {_HELD.format(said=evidence, which="<> ALL")}
            ) AS waits_for,
            {_HELD.format(said="string_agg(DISTINCT f.kind, ', ')", which="= ANY")} AS unusual
        FROM billing.late_change AS c JOIN billing.statement AS s USING (statement_id)
        GROUP BY 1, 2, 3, 4 ORDER BY 2, 3, 1
        """,
        [",".join(checks), ",".join(UNUSUAL)],
    )


def take_late_change(connection: Connection, statement_id: str, until: datetime) -> bool:
    """Remove the late changes of a statement up to ``until`` from the list, in the transaction that proposes its
    adjustment. Returns False where another run did."""
    return (
        connection.execute(
            "DELETE FROM billing.late_change WHERE statement_id = %s AND noticed_at <= %s", (statement_id, until)
        ).rowcount
        > 0
    )


def note_waits(connection: Connection, waits: Sequence[tuple[str, str]]) -> None:
    """Store the reason why statements on the list wait: (statement_id, reason)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE billing.late_change SET waits_for = %(why)s WHERE statement_id = %(id)s AND waits_for IS DISTINCT FROM %(why)s",
            [{"id": statement_id, "why": why} for statement_id, why in waits],
        )
