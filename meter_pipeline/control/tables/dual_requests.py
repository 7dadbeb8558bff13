"""Requests under dual control, the decisions on them, and actions that were refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request under dual control and the decision on it, if any. Times UTC."""

    request_id: int
    action: str
    subject: str
    body: dict[str, Any]
    digest: bytes
    reason: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None


_REQUEST: Final = """
SELECT q.request_id, q.action, q.subject, q.body, q.digest, q.reason, q.requested_by, q.requested_at, q.expires_at,
       d.decision, d.decided_by, d.decided_at
FROM control.dual_request q LEFT JOIN control.dual_decision d USING (request_id)
"""


def insert_request(
    connection: Connection,
    action: str,
    subject: str,
    body: Mapping[str, Any],
    digest: bytes,
    reason: str,
    by: str,
    at: datetime,
    expires_at: datetime,
) -> int:
    """A new request; returns its number."""
    row = connection.execute(
        """INSERT INTO control.dual_request (action, subject, body, digest, reason, requested_by, requested_at, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING request_id""",
        (action, subject, Jsonb(dict(body)), digest, reason, by, at, expires_at),
    ).fetchone()
    if row is None:
        raise psycopg.DataError("the request was not taken")
    return int(row[0])


def lock_subject(connection: Connection, action: str, subject: str) -> None:
    """One request or decision at a time on a subject, until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"control:{action}:{subject}",))


def request_by_id(connection: Connection, request_id: int) -> RequestRow | None:
    with connection.cursor(row_factory=class_row(RequestRow)) as cursor:
        return cursor.execute(_REQUEST + "WHERE q.request_id = %s", (request_id,)).fetchone()


def pending_requests(connection: Connection, action: str | None = None, subject: str | None = None) -> list[RequestRow]:
    """Undecided requests, expired ones included, oldest first."""
    with connection.cursor(row_factory=class_row(RequestRow)) as cursor:
        return cursor.execute(
            _REQUEST
            + """WHERE d.request_id IS NULL AND (%(action)s::text IS NULL OR q.action = %(action)s)
                   AND (%(subject)s::text IS NULL OR q.subject = %(subject)s)
                 ORDER BY q.request_id""",
            {"action": action, "subject": subject},
        ).fetchall()


def insert_decision(
    connection: Connection, request: RequestRow, decision: str, by: str, at: datetime, reason: str
) -> None:
    """The one decision on a request. Raises UniqueViolation on a second, CheckViolation on one person for both or past
    the expiry."""
    connection.execute(
        """INSERT INTO control.dual_decision (request_id, action, subject, requested_by, expires_at, decision, decided_by, decided_at, reason)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            request.request_id,
            request.action,
            request.subject,
            request.requested_by,
            request.expires_at,
            decision,
            by,
            at,
            reason,
        ),
    )


def insert_refusal(
    connection: Connection, action: str, subject: str, actor: str, code: str, detail: str, at: datetime
) -> None:
    connection.execute(
        "INSERT INTO control.refusal (refused_at, action, subject, actor, code, detail) VALUES (%s, %s, %s, %s, %s, %s)",
        (at, action, subject, actor[:200], code, detail),
    )


def refusals(connection: Connection, limit: int = 50) -> list[dict[str, Any]]:
    """The latest refusals, newest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT refused_at, action, subject, actor, code, detail FROM control.refusal ORDER BY refusal_id DESC LIMIT %s",
            (limit,),
        ).fetchall()
