"""The emergency pauses and the evidence they were raised on."""

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
class PauseRow:
    """A row of control.emergency_pause with the request that waits on it, if any. Times UTC."""

    pause_id: int
    scope: str
    target: str | None
    state: str
    reason: str
    rule: str | None
    evidence: dict[str, Any]
    raised_by: str
    raised_at: datetime
    resume_request: int | None
    resumed_at: datetime | None
    pending_request: int | None
    pending_by: str | None
    pending_until: datetime | None


_PAUSE: Final = """
SELECT p.pause_id, p.scope, p.target, p.state, p.reason, p.rule, p.evidence, p.raised_by, p.raised_at, p.resume_request, p.resumed_at,
       r.request_id AS pending_request, r.requested_by AS pending_by, r.expires_at AS pending_until
FROM control.emergency_pause p
LEFT JOIN LATERAL (
    SELECT q.request_id, q.requested_by, q.expires_at FROM control.dual_request q
    WHERE p.state = 'paused' AND q.action = 'resume' AND q.subject = p.resume_subject
      AND NOT EXISTS (SELECT FROM control.dual_decision d WHERE d.request_id = q.request_id)
    ORDER BY q.request_id DESC LIMIT 1
) r ON true
"""


#: The query of a writer before each batch. Scopes a writer does not name do not hold it; all is first, then the oldest.
ACTIVE: Final = (
    _PAUSE
    + """
WHERE p.state = 'paused'
  AND (p.scope = 'all' OR (p.scope = 'commodity' AND p.target = %(commodity)s) OR (p.scope = 'head_end' AND p.target = %(head_end)s))
ORDER BY p.scope <> 'all', p.pause_id LIMIT 1
"""
)


def active_pause(connection: Connection, commodity: str | None, head_end: str | None) -> PauseRow | None:
    """The pause that holds work of this commodity and head-end, or None."""
    with connection.cursor(row_factory=class_row(PauseRow)) as cursor:
        return cursor.execute(ACTIVE, {"commodity": commodity, "head_end": head_end}).fetchone()


def active_pauses(connection: Connection) -> list[PauseRow]:
    """Every pause in force, widest first."""
    with connection.cursor(row_factory=class_row(PauseRow)) as cursor:
        return cursor.execute(_PAUSE + "WHERE p.state = 'paused' ORDER BY p.scope <> 'all', p.pause_id").fetchall()


def recent_pauses(connection: Connection, limit: int) -> list[PauseRow]:
    """The latest pauses, over or in force, newest first."""
    with connection.cursor(row_factory=class_row(PauseRow)) as cursor:
        return cursor.execute(_PAUSE + "ORDER BY p.pause_id DESC LIMIT %s", (limit,)).fetchall()


def pause_by_id(connection: Connection, pause_id: int) -> PauseRow | None:
    with connection.cursor(row_factory=class_row(PauseRow)) as cursor:
        return cursor.execute(_PAUSE + "WHERE p.pause_id = %s", (pause_id,)).fetchone()


def pause_of_scope(connection: Connection, scope: str, target: str | None) -> int | None:
    """The id of the pause in force for exactly this scope. Take lock_subject before you act on it: a row lock would
    need the right to change it."""
    query = "SELECT pause_id FROM control.emergency_pause WHERE state = 'paused' AND scope = %s AND target IS NOT DISTINCT FROM %s"
    row = connection.execute(query, (scope, target)).fetchone()
    return row[0] if row else None


def insert_pause(
    connection: Connection,
    scope: str,
    target: str | None,
    reason: str,
    rule: str | None,
    evidence: Mapping[str, Any],
    by: str,
    at: datetime,
) -> int | None:
    """A new pause, or None where one is in force for the scope (another process was quicker)."""
    row = connection.execute(
        """INSERT INTO control.emergency_pause (scope, target, reason, rule, evidence, raised_by, raised_at) VALUES (%s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (scope, (coalesce(target, ''))) WHERE state = 'paused' DO NOTHING RETURNING pause_id""",
        (scope, target, reason, rule, Jsonb(dict(evidence)), by, at),
    ).fetchone()
    return row[0] if row else None


def insert_evidence(
    connection: Connection,
    pause_id: int,
    reason: str,
    rule: str | None,
    evidence: Mapping[str, Any],
    by: str,
    at: datetime,
) -> None:
    connection.execute(
        "INSERT INTO control.pause_evidence (pause_id, reason, rule, evidence, raised_by, raised_at) VALUES (%s, %s, %s, %s, %s, %s)",
        (pause_id, reason, rule, Jsonb(dict(evidence)), by, at),
    )


def evidence_of(connection: Connection, pause_id: int) -> list[dict[str, Any]]:
    """Further evidence that came while the pause was in force, oldest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT reason, rule, evidence, raised_by, raised_at FROM control.pause_evidence WHERE pause_id = %s ORDER BY evidence_id",
            (pause_id,),
        ).fetchall()


def same_evidence(connection: Connection, pause_id: int, rule: str, evidence: Mapping[str, Any]) -> bool:
    """Whether this pause already rests on exactly this finding of this rule."""
    row = connection.execute(
        """SELECT EXISTS (SELECT FROM control.emergency_pause WHERE pause_id = %(id)s AND rule = %(rule)s AND evidence = %(evidence)s)
               OR EXISTS (SELECT FROM control.pause_evidence WHERE pause_id = %(id)s AND rule = %(rule)s AND evidence = %(evidence)s)""",
        {"id": pause_id, "rule": rule, "evidence": Jsonb(dict(evidence))},
    ).fetchone()
    return bool(row and row[0])


def last_resumed_at(connection: Connection) -> datetime | None:
    """Returns when people last ended a pause. Evidence from before that time raises no new pause."""
    row = connection.execute("SELECT max(resumed_at) FROM control.emergency_pause").fetchone()
    return row[0] if row else None


def end_pause(connection: Connection, pause_id: int, request_id: int, at: datetime) -> bool:
    """End a pause by its confirmed request; False if it was over already. The foreign key demands the confirmation."""
    done = connection.execute(
        """UPDATE control.emergency_pause SET state = 'resumed', resume_request = %s, resume_decision = 'confirmed', resumed_at = %s
           WHERE pause_id = %s AND state = 'paused'""",
        (request_id, at, pause_id),
    )
    return done.rowcount == 1
