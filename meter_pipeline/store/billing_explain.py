"""What stands behind a statement's line, from the SQL function billing.explain_line.

Belongs here: the query. Does not belong here: how it is told.
"""

from __future__ import annotations

import json
from typing import Any

from meter_pipeline.store.database import Database


def explain_line(database: Database, line_id: str) -> list[dict[str, Any]]:
    """Steps from a line to its payloads: step, what, day, subject and detail. Empty for an unknown line."""
    frame = database.read("SELECT step, what, day, subject, detail::text AS detail FROM billing.explain_line($1) ORDER BY step, day, subject", [line_id])
    return [row | {"detail": json.loads(row["detail"])} for row in frame.to_dicts()]
