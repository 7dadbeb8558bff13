"""A line of a bill, explained: from the line to the tariff version, determinants, intervals, estimates, raw payloads
and ledger entries.
"""

from __future__ import annotations

from typing import Any

from meter_pipeline.billing.tables.explain import explain_line
from meter_pipeline.postgres.database import Database


def explain(database: Database, line_id: str) -> dict[str, Any] | None:
    """The explanation of a line (``STATEMENT_ID.LINE_NO``), or None where there is no such line."""
    steps = explain_line(database, line_id)
    if not steps:
        return None
    by: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        by.setdefault(step["what"], []).append({"day": step["day"], "subject": step["subject"], **step["detail"]})
    estimated = sum(int(day.get("estimated") or 0) for day in by.get("day", []))
    return {
        "line_id": line_id,
        "line": by["line"][0],
        "statement": by["statement"][0],
        "tariff": by.get("tariff", [None])[0],
        "determinant": by.get("determinant", [None])[0],
        "days": by.get("day", []),
        "validated": by.get("validated", []),
        "estimated_intervals": estimated,
        "payloads": by.get("payload", []) + by.get("register", []),
        "ledger": by.get("ledger", []),
        "adjustments": by.get("adjustment", []),
    }
