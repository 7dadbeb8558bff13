"""The control schema's tables: every statement the control room sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = psycopg.Connection[Any]

#: First key of pg_advisory_lock for a billing day; the second is the day's ordinal.
BILLING_DAY_LOCK: Final = 0x6D705F64  # "mp_d"


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


@dataclass(frozen=True, slots=True)
class FlagRow:
    """A feature flag in force."""

    flag: str
    value: Any
    version: int
    changed_by: str
    changed_at: datetime
    reason: str
    request: int | None


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

#: What a writer asks before each batch. Scopes a writer does not name do not hold it; all is first, then the oldest.
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
    """When people last ended a pause: what was seen before has been answered for."""
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


def person(connection: Connection, name: str) -> tuple[list[str], bool] | None:
    """The duties of a person and whether they may still act, or None."""
    row = connection.execute("SELECT duties, active FROM control.person WHERE person = %s", (name,)).fetchone()
    return (row[0], row[1]) if row else None


def anybody_with(connection: Connection, duty: str) -> bool:
    """Whether the register names an active person for a duty."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM control.person WHERE active AND %s = ANY (duties))", (duty,)
    ).fetchone()
    return bool(row and row[0])


def has_people(connection: Connection) -> bool:
    """Whether the register names a person, active or not."""
    row = connection.execute("SELECT EXISTS (SELECT FROM control.person)").fetchone()
    return bool(row and row[0])


def first_entry(connection: Connection) -> tuple[str, datetime] | None:
    """Who made the register's first entry still unchanged, and when."""
    return connection.execute(
        "SELECT changed_by, changed_at FROM control.person ORDER BY changed_at, person LIMIT 1"
    ).fetchone()


def person_of_os_user(connection: Connection, os_user: str) -> str | None:
    """The active person whom an operating system user proves."""
    row = connection.execute("SELECT person FROM control.person WHERE os_user = %s AND active", (os_user,)).fetchone()
    return str(row[0]) if row else None


def put_os_user(connection: Connection, name: str, os_user: str | None) -> None:
    connection.execute("UPDATE control.person SET os_user = %s WHERE person = %s", (os_user, name))


def take_shell(connection: Connection, shell: bytes, name: str, at: datetime) -> str:
    """Who acts in a shell session: this person where no person has before."""
    connection.execute(
        "INSERT INTO control.shell (shell, person, first_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (shell, name, at),
    )
    row = connection.execute("SELECT person FROM control.shell WHERE shell = %s", (shell,)).fetchone()
    return str(row[0]) if row else name


def put_code(connection: Connection, sha256: bytes, name: str, at: datetime, expires_at: datetime) -> None:
    connection.execute(
        "INSERT INTO control.sign_code (code_sha256, person, made_at, expires_at) VALUES (%s, %s, %s, %s)",
        (sha256, name, at, expires_at),
    )


def use_code(connection: Connection, sha256: bytes, at: datetime) -> str | None:
    """The person of a code that is still good, which it is no more after this; None for any other."""
    row = connection.execute(
        "SELECT person FROM control.sign_code WHERE code_sha256 = %s AND expires_at > %s", (sha256, at)
    ).fetchone()
    if row is None:
        return None
    used = connection.execute(
        "INSERT INTO control.sign_code_use (code_sha256, used_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", (sha256, at)
    )
    return str(row[0]) if used.rowcount == 1 else None


def sessions_ended(connection: Connection, name: str) -> datetime | None:
    """Desk sessions of a person that began before this instant are over."""
    row = connection.execute("SELECT sessions_ended_at FROM control.person WHERE person = %s", (name,)).fetchone()
    return row[0] if row else None


def put_person(connection: Connection, name: str, duties: Sequence[str], active: bool, by: str, at: datetime) -> None:
    connection.execute(
        """INSERT INTO control.person (person, duties, active, changed_by, changed_at) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (person) DO UPDATE SET (duties, active, changed_by, changed_at)
             = (EXCLUDED.duties, EXCLUDED.active, EXCLUDED.changed_by, EXCLUDED.changed_at)""",
        (name, sorted(duties), active, by, at),
    )
    if not active:
        connection.execute("UPDATE control.person SET sessions_ended_at = clock_timestamp() WHERE person = %s", (name,))


def people(connection: Connection) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT person, duties, active, changed_by, changed_at FROM control.person ORDER BY person"
        ).fetchall()


_FLAG_LOCK: Final = {None: b"", "share": b" FOR SHARE", "update": b" FOR UPDATE"}


def flag(connection: Connection, name: str, lock: str | None = None) -> FlagRow | None:
    """A flag in force; ``lock`` share or update holds it as it is until the transaction ends."""
    query = (
        b"SELECT flag, value, version, changed_by, changed_at, reason, request FROM control.flag WHERE flag = %s"
        + _FLAG_LOCK[lock]
    )
    with connection.cursor(row_factory=class_row(FlagRow)) as cursor:
        return cursor.execute(query, (name,)).fetchone()


def flags(connection: Connection) -> list[FlagRow]:
    with connection.cursor(row_factory=class_row(FlagRow)) as cursor:
        return cursor.execute(
            "SELECT flag, value, version, changed_by, changed_at, reason, request FROM control.flag ORDER BY flag"
        ).fetchall()


def put_flag(
    connection: Connection,
    name: str,
    value: Any,
    version: int,
    by: str,
    at: datetime,
    reason: str,
    dual: bool,
    request: int | None,
) -> bool:
    """Set a flag to its next version and keep the change; False where another process has set that version already."""
    decision = "confirmed" if request is not None else None
    row = connection.execute(
        """INSERT INTO control.flag AS f (flag, value, version, changed_by, changed_at, reason, dual, request, decision)
           VALUES (%(flag)s, %(value)s, %(version)s, %(by)s, %(at)s, %(reason)s, %(dual)s, %(request)s, %(decision)s)
           ON CONFLICT (flag) DO UPDATE SET (value, version, changed_by, changed_at, reason, dual, request, decision)
             = (EXCLUDED.value, EXCLUDED.version, EXCLUDED.changed_by, EXCLUDED.changed_at, EXCLUDED.reason, EXCLUDED.dual, EXCLUDED.request,
                EXCLUDED.decision)
           WHERE f.version = EXCLUDED.version - 1 RETURNING 1""",
        {
            "flag": name,
            "value": Jsonb(value),
            "version": version,
            "by": by,
            "at": at,
            "reason": reason,
            "dual": dual,
            "request": request,
            "decision": decision,
        },
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "INSERT INTO control.flag_change (flag, version, value, changed_by, changed_at, reason, request) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (name, version, Jsonb(value), by, at, reason, request),
    )
    return True


def flag_changes(connection: Connection, name: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT version, value, changed_by, changed_at, reason, request FROM control.flag_change WHERE flag = %s ORDER BY version",
            (name,),
        ).fetchall()


def try_lock_day(connection: Connection, day: date) -> bool:
    """Take the session's lock on a billing day if it is free. It goes with the connection, so a killed run leaves none
    behind."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (BILLING_DAY_LOCK, day.toordinal())).fetchone()
    return bool(row and row[0])


def locked_days(connection: Connection) -> dict[date, int]:
    """Billing days some run holds, with the holder's backend pid."""
    rows = connection.execute(
        """SELECT objid::bigint, pid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = %s AND objsubid = 2 AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
        (BILLING_DAY_LOCK,),
    ).fetchall()
    return {date.fromordinal(int(ordinal)): int(pid) for ordinal, pid in rows}


def beat(connection: Connection, run_id: str, host: str, process_id: int, waiting: bool) -> None:
    """A run's heartbeat, by the server's clock."""
    connection.execute(
        """INSERT INTO control.presence AS p (run_id, host, process_id, started_at, seen_at, waiting_since)
           VALUES (%(run)s, %(host)s, %(pid)s, clock_timestamp(), clock_timestamp(), CASE WHEN %(waiting)s THEN clock_timestamp() END)
           ON CONFLICT (run_id) DO UPDATE SET host = EXCLUDED.host, process_id = EXCLUDED.process_id, seen_at = EXCLUDED.seen_at, ended_at = NULL,
             waiting_since = CASE WHEN %(waiting)s THEN coalesce(p.waiting_since, EXCLUDED.seen_at) END""",
        {"run": run_id, "host": host, "pid": process_id, "waiting": waiting},
    )


def leave(connection: Connection, run_id: str) -> None:
    """A run ended in good order."""
    connection.execute(
        "UPDATE control.presence SET ended_at = clock_timestamp(), waiting_since = NULL WHERE run_id = %s", (run_id,)
    )


def presence(connection: Connection, run_ids: Sequence[str]) -> dict[str, tuple[float, bool]]:
    """By run: seconds since its last heartbeat (server clock) and whether it waits for a pause."""
    rows = connection.execute(
        """SELECT run_id, extract(epoch FROM clock_timestamp() - seen_at)::float8, waiting_since IS NOT NULL FROM control.presence
           WHERE run_id = ANY (%s) AND ended_at IS NULL""",
        (list(run_ids),),
    ).fetchall()
    return {run_id: (float(age), waiting) for run_id, age, waiting in rows}


def observe(connection: Connection, kind: str, subject: str, at: datetime, figures: Mapping[str, Any]) -> None:
    """Keep the latest figure of a kind and subject; an older one never replaces a newer."""
    connection.execute(
        """INSERT INTO control.observation AS o (kind, subject, observed_at, figures) VALUES (%s, %s, %s, %s)
           ON CONFLICT (kind, subject) DO UPDATE SET observed_at = EXCLUDED.observed_at, figures = EXCLUDED.figures
           WHERE o.observed_at <= EXCLUDED.observed_at""",
        (kind, subject, at, Jsonb(dict(figures))),
    )


def observations(connection: Connection, kind: str, since: datetime | None = None) -> list[dict[str, Any]]:
    """The latest figures of a kind, newest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """SELECT kind, subject, observed_at, figures FROM control.observation
               WHERE kind = %(kind)s AND (%(since)s::timestamptz IS NULL OR observed_at > %(since)s) ORDER BY observed_at DESC, subject""",
            {"kind": kind, "since": since},
        ).fetchall()
