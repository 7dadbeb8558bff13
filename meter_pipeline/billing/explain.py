"""A line of a bill, explained: from the line to the tariff version, determinants, intervals, estimates, raw payloads
and ledger entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meter_pipeline.billing.back_billing.tables import of_adjustments
from meter_pipeline.billing.tables.explain import explain_line, winter_average
from meter_pipeline.money import money_text
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection


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
        "policy": _policy(database, by.get("adjustment", [])),
        "winter_average": winter_average(database, line_id),
    }


def _policy(database: Database, adjustments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not adjustments:
        return []
    with database.connect("explain", autocommit=True) as connection:
        return policy(connection, adjustments)


def policy(connection: Connection, adjustments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What back-billing rules made of a line's adjustments: rule and amounts in words and exact decimal text."""
    found = of_adjustments(connection, sorted({str(adjustment["subject"]) for adjustment in adjustments}))
    return [
        {
            "adjustment_id": row["adjustment_id"],
            "service_point_id": row["service_point_id"],
            "rule": f"{row['rule_commodity']}, {row['rule_class']} from {row['rule_from']} ({row['source']})",
            "corrected_on": row["corrected_on"],
            "limit_day": row["limit_day"],
            "full": money_text(row["full_amount"], row["currency"]),
            "allowed": money_text(row["allowed"], row["currency"]),
            "waived": money_text(row["waived"], row["currency"]),
            "interest": money_text(row["interest"], row["currency"]),
            "instalments": row["instalments"],
            "why": row["why"],
        }
        for row in found
    ]
