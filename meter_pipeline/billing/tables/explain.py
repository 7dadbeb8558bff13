"""What stands behind a statement's line, from the SQL function billing.explain_line."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any, Final

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.partitions import ARCHIVED, archived_in, reading_with_archive

_STEPS: Final = (
    "SELECT step, what, day, subject, detail::text AS detail FROM billing.explain_line($1) ORDER BY step, day, subject"
)


def explain_line(database: Database, line_id: str) -> list[dict[str, Any]]:
    """Steps from a line to its payloads: step, what, day, subject and detail. Empty for an unknown line."""
    wanted, points = _days_behind(database, line_id)
    if wanted:
        with reading_with_archive(database, wanted, points, ()) as session:
            rows = session.read(_STEPS, [line_id]).to_dicts()
    else:
        rows = database.rows(_STEPS, [line_id])
    return [row | {"detail": json.loads(row["detail"])} for row in rows]


#: Of a line that counts a winter average: the value in force on its last day, and where it was worked out, what it
#: stands on
_WINTER: Final = """
SELECT DISTINCT a.value, a.valid_from, w.source, w.unit, w.periods::text AS periods FROM billing.statement_line AS l
JOIN ref.tariff_document AS d ON d.tariff_id = l.tariff_id AND d.version = l.tariff_version
CROSS JOIN LATERAL jsonb_array_elements(d.body -> 'charges') AS c (charge)
JOIN ref.service_attributes AS a ON a.service_point_id = l.service_point_id AND a.attribute = 'winter_average_per_day'
    AND a.valid_from < l.segment_end AND (a.valid_to IS NULL OR a.valid_to >= l.segment_end)
LEFT JOIN billing.winter_average AS w ON w.service_point_id = a.service_point_id AND w.effective = a.valid_from
    AND w.per_day = (a.value::numeric * 1000000)::bigint
WHERE l.statement_id = regexp_replace($1, '\\.[0-9]+$', '') AND l.line_no = substring($1 FROM '\\.([0-9]{1,9})$')::integer
    AND c.charge ->> 'code' = split_part(l.line_key, '/', 1) AND c.charge ->> 'basis' LIKE 'winter_average%'
"""


def winter_average(database: Database, line_id: str) -> dict[str, Any] | None:
    """The winter average that a line counts, a day in its unit: value, its first day, source (computed, default, or
    imported where it was not worked out here) and the bills that it stands on. None where the line counts none."""
    found = database.rows(_WINTER, [line_id])
    if not found:
        return None
    row = found[0]
    periods = json.loads(row["periods"]) if row["periods"] else []
    return row | {"source": row["source"] or "imported", "periods": periods}


def _days_behind(database: Database, line_id: str) -> tuple[list[tuple[date, str]], list[str]]:
    """Archived days and tables behind a line, and its service point."""
    with database.connect("explain") as connection:
        line = connection.execute(
            "SELECT service_point_id, segment_start, segment_end FROM billing.statement_line WHERE statement_id = regexp_replace(%(l)s, '\\.[0-9]+$', '') "
            "AND line_no = substring(%(l)s FROM '\\.([0-9]{1,9})$')::integer",
            {"l": line_id},
        ).fetchone()
        if line is None or line[1] is None or line[2] is None:
            return [], []
        days = archived_in(connection, line[1], line[2] - timedelta(days=1))
    return [(day, table) for day in days for table in ARCHIVED], [line[0]]
