"""The outbox of alerts: control.notification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An alert that is due."""

    notification_id: int
    dedupe_key: str
    severity: Literal["info", "warning", "critical"]
    title: str
    body: str
    delivered: dict[str, str]
    attempts: int


def insert(connection: Connection, key: str, severity: str, title: str, body: str, at: datetime) -> bool:
    """A new alert, due at once; False where the key is known."""
    done = connection.execute(
        """INSERT INTO control.notification (dedupe_key, severity, title, body, created_at, next_attempt_at) VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT (dedupe_key) DO NOTHING""",
        (key, severity, title, body, at, at),
    )
    return done.rowcount == 1


def next_due(connection: Connection, now: datetime) -> Outgoing | None:
    """The oldest alert that is due and that no other process is sending, locked until the transaction ends."""
    with connection.cursor(row_factory=class_row(Outgoing)) as cursor:
        return cursor.execute(
            """SELECT notification_id, dedupe_key, severity, title, body, delivered, attempts FROM control.notification
               WHERE next_attempt_at <= %s ORDER BY next_attempt_at, notification_id LIMIT 1 FOR UPDATE SKIP LOCKED""",
            (now,),
        ).fetchone()


def record(
    connection: Connection,
    notification_id: int,
    delivered: Mapping[str, str],
    attempts: int,
    again: datetime | None,
    error: str | None,
) -> None:
    """Result of one delivery attempt."""
    connection.execute(
        "UPDATE control.notification SET delivered = %s, attempts = %s, next_attempt_at = %s, last_error = %s WHERE notification_id = %s",
        (Jsonb(dict(delivered)), attempts, again, error, notification_id),
    )
