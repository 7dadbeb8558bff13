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
