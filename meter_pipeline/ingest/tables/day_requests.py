"""Days asked for: raw.day_request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class RequestCount:
    """How often a day was asked for on the same evidence, and when last (UTC)."""

    evidence: bytes
    times: int
    last_asked: datetime


def asked(connection: Connection) -> dict[date, RequestCount]:
    """Every day that was asked for and has not been forgotten."""
    rows = connection.execute("SELECT billing_day, evidence, times, last_asked FROM raw.day_request")
    return {day: RequestCount(bytes(evidence), times, at) for day, evidence, times, at in rows}


def note(connection: Connection, rows: Sequence[tuple[date, bytes, int]], at: datetime) -> None:
    """Remember that days (with their evidence and the number of this time) are asked for now."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO raw.day_request AS r (billing_day, evidence, times, first_asked, last_asked) VALUES (%s, %s, "
            "%s, %s, %s) ON CONFLICT (billing_day) DO UPDATE SET first_asked = CASE WHEN r.evidence = "
            "excluded.evidence THEN r.first_asked ELSE excluded.first_asked END, evidence = excluded.evidence, times = "
            "excluded.times, last_asked = excluded.last_asked",
            [(day, evidence, times, at, at) for day, evidence, times in rows],
        )


def forget(connection: Connection, waiting: Sequence[date]) -> None:
    """Days that wait no more need no memory."""
    connection.execute("DELETE FROM raw.day_request WHERE billing_day <> ALL(%s)", (list(waiting),))
