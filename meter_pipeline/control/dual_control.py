"""Dual control: one person requests an action, a second person confirms exactly that request, one time, before it
expires.

The checks of this module are enforced again by the constraints of control.dual_decision: the primary key refuses a
replay, CHECKs refuse one person for both and a late confirmation, the foreign key a confirmation of another request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.people import Denial, Refused, canonical, denial
from meter_pipeline.control.tables import dual_requests
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: A shift: long enough to find the second person at night, short enough that the checks still hold.
DEFAULT_LIFE: Final = timedelta(hours=8)
#: The longest the schema allows.
LONGEST_LIFE: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Action:
    """An action of two people: its name, who may request it, who may confirm it, the life of a request, and its
    kinds of ledger entry."""

    name: str
    ask: tuple[str, ...]
    confirm: tuple[str, ...]
    asked_kind: str
    confirmed_kind: str
    refused_kind: str
    life: timedelta = DEFAULT_LIFE


#: Runs in the transaction of the decision, after every check. Does what was requested, or returns the refusal.
Effect: TypeAlias = Callable[[Connection, RequestRow], Denial | None]
#: Runs in the transaction of the request: why it may not be asked, or None.
Guard: TypeAlias = Callable[[Connection], Denial | None]


def digest(action: str, subject: str, body: Mapping[str, Any]) -> bytes:
    """SHA-256 over action, subject and body in canonical JSON."""
    return hashlib.sha256(entries.canonical_json({"action": action, "body": dict(body), "subject": subject})).digest()


def request(
    database: Database,
    action: Action,
    subject: str,
    body: Mapping[str, Any],
    *,
    reason: str,
    by: str,
    life: timedelta | None = None,
    guard: Guard | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RequestRow:
    """Request an action. ``body`` is plain JSON with everything the second person confirms.

    Commits. Raises Refused (recorded) for an unknown name, a person who may not request, a request that is pending
    already, or where ``guard`` refuses.
    """
    now = clock.now()

    def attempt(connection: Connection) -> Denial | int:
        dual_requests.lock_subject(connection, action.name, subject)
        person = canonical(by)
        if person is None:
            return Denial("bad_name", f"{by!r} is no name: lower-case ASCII letters, digits and . _ @ - only")
        if not reason.strip():
            return Denial("no_reason", "a reason must be given")
        if refused := denial(connection, person, action.ask):
            return refused
        allowed = life or action.life
        if not timedelta(0) < allowed <= LONGEST_LIFE:
            return Denial("bad_expiry", "a request lives more than nothing and at most seven days")
        for pending in dual_requests.pending_requests(connection, action.name, subject):
            if pending.expires_at > now:
                until = f"{pending.expires_at:%H:%M} UTC"
                return Denial(
                    "already_asked",
                    f"request {pending.request_id} by {pending.requested_by} waits for confirmation until {until}",
                )
        if guard is not None and (refused := guard(connection)):
            return refused
        seal = digest(action.name, subject, body)
        request_id = dual_requests.insert_request(
            connection, action.name, subject, body, seal, reason, person, now, now + allowed
        )
        entries.append(
            connection,
            action.asked_kind,
            {
                "step": "asked",
                "request": request_id,
                "action": action.name,
                "subject": subject,
                "body": dict(body),
                "digest": seal,
                "reason": reason,
                "requested_by": person,
                "expires_at": now + allowed,
            },
            clock=clock,
            actor=person,
        )
        return request_id

    request_id = _attempt(database, action, subject, by, attempt, clock)
    with database.connect("control", autocommit=True) as connection:
        row = dual_requests.request_by_id(connection, request_id)
    if row is None:
        raise driver.DataError(f"request {request_id} is gone")
    return row


def confirm(
    database: Database,
    action: Action,
    request_id: int,
    *,
    by: str,
    reason: str,
    effect: Effect,
    clock: Clock = SYSTEM_CLOCK,
) -> RequestRow:
    """Confirm a request as a second person; ``effect`` runs in the same transaction as the decision and its ledger
    entry.

    Commits. Raises Refused (recorded, no other change): unknown, replayed, declined or withdrawn, expired, same_person,
    not_authorised, or the denial of ``effect``.
    """
    now = clock.now()
    subject = f"request:{request_id}"

    def attempt(connection: Connection) -> Denial | RequestRow:
        found = dual_requests.request_by_id(connection, request_id)
        if found is None or found.action != action.name:
            return Denial("unknown", f"there is no {action.name} request {request_id}")
        # Asked for again under the lock: another confirmation may have been quicker.
        dual_requests.lock_subject(connection, action.name, found.subject)
        found = dual_requests.request_by_id(connection, request_id)
        if found is None:
            return Denial("unknown", f"there is no {action.name} request {request_id}")
        if refused := _may_confirm(connection, action, found, by, reason, now):
            return refused
        person = canonical(by) or ""
        # Its own savepoint, so that a refusal by the effect leaves the decision undone while the refusal is kept.
        try:
            with connection.transaction():
                dual_requests.insert_decision(connection, found, "confirmed", person, now, reason)
                if refused := effect(connection, found):
                    raise _Undo(refused)
                entries.append(
                    connection,
                    action.confirmed_kind,
                    {
                        "step": "confirmed",
                        "request": request_id,
                        "action": action.name,
                        "subject": found.subject,
                        "body": found.body,
                        "digest": found.digest,
                        "reason": reason,
                        "requested_by": found.requested_by,
                        "confirmed_by": person,
                        "approved_by": person,
                    },
                    clock=clock,
                    actor=person,
                )
        except _Undo as undo:
            return undo.denial
        return found

    confirmed: RequestRow = _attempt(database, action, subject, by, attempt, clock)
    return confirmed


def withdraw(
    connection: Connection,
    action: Action,
    request_row: RequestRow,
    *,
    by: str,
    reason: str,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Withdraw a pending request, in the caller's transaction: by the person who made it, or by the system because
    the facts have changed."""
    dual_requests.insert_decision(connection, request_row, "withdrawn", by, clock.now(), reason)
    entries.append(
        connection,
        action.refused_kind,
        {
            "step": "withdrawn",
            "request": request_row.request_id,
            "subject": request_row.subject,
            "requested_by": request_row.requested_by,
            "by": by,
            "reason": reason,
        },
        clock=clock,
        actor=by,
    )


def decline(
    database: Database, action: Action, request_id: int, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Decline a request, as a second person or as the person who made it. Raises Refused where no request waits."""

    def attempt(connection: Connection) -> Denial | None:
        found = dual_requests.request_by_id(connection, request_id)
        person = canonical(by)
        if found is None or found.action != action.name:
            return Denial("unknown", f"there is no {action.name} request {request_id}")
        dual_requests.lock_subject(connection, action.name, found.subject)
        found = dual_requests.request_by_id(connection, request_id)
        if person is None:
            return Denial("bad_name", f"{by!r} is no name")
        if found is None or found.decision is not None:
            return Denial("replayed", f"request {request_id} has been decided")
        if refused := denial(connection, person, (*action.ask, *action.confirm)):
            return refused
        if person == found.requested_by:
            withdraw(connection, action, found, by=person, reason=reason, clock=clock)
            return None
        dual_requests.insert_decision(connection, found, "declined", person, clock.now(), reason)
        body = {
            "step": "declined",
            "request": request_id,
            "subject": found.subject,
            "requested_by": found.requested_by,
            "refused_by": person,
            "reason": reason,
        }
        entries.append(connection, action.refused_kind, body, clock=clock, actor=person)
        return None

    _attempt(database, action, f"request:{request_id}", by, attempt, clock)


class _Undo(Exception):
    def __init__(self, why: Denial) -> None:
        super().__init__(why.words)
        self.denial = why


def _may_confirm(
    connection: Connection,
    action: Action,
    found: RequestRow,
    by: str,
    reason: str,
    now: Any,
) -> Denial | None:
    person = canonical(by)
    if person is None:
        return Denial("bad_name", f"{by!r} is no name: lower-case ASCII letters, digits and . _ @ - only")
    if not reason.strip():
        return Denial("no_reason", "a reason must be given")
    match found.decision:
        case "confirmed":
            when = f"{found.decided_at:%Y-%m-%d %H:%M} UTC"
            return Denial(
                "replayed",
                f"request {found.request_id} was confirmed by {found.decided_by} at {when}; a confirmation counts once",
            )
        case "declined" | "withdrawn":
            return Denial(
                "withdrawn", f"request {found.request_id} was {found.decision} by {found.decided_by}; ask again"
            )
    if now >= found.expires_at:
        return Denial(
            "expired", f"request {found.request_id} expired at {found.expires_at:%Y-%m-%d %H:%M} UTC; ask again"
        )
    if person == found.requested_by:
        return Denial("same_person", f"{person} asked for this; a second person must confirm it")
    return denial(connection, person, action.confirm)


def _attempt(
    database: Database, action: Action, subject: str, by: str, attempt: Callable[[Connection], Any], clock: Clock
) -> Any:
    """Run one action in a transaction; record a denial in that transaction, commit it, and then raise."""
    with database.connect("control") as connection:
        outcome = attempt(connection)
        if isinstance(outcome, Denial):
            record_refusal(connection, action.name, subject, by, outcome, kind=action.refused_kind, clock=clock)
        connection.commit()
    if isinstance(outcome, Denial):
        raise Refused(outcome.code, outcome.words)
    return outcome


def record_refusal(
    connection: Connection, action: str, subject: str, by: str, why: Denial, *, kind: str, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Record a refusal in its table and on the ledger, in the caller's transaction."""
    # PostgreSQL stores no NUL and no lone surrogate, and the name is text that a person typed.
    actor = by.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")[:200]
    dual_requests.insert_refusal(connection, action, subject, actor, why.code, why.words, clock.now())
    entries.append(
        connection,
        kind,
        {
            "step": "refused",
            "action": action,
            "subject": subject,
            "actor": actor,
            "code": why.code,
            "detail": why.words,
        },
        clock=clock,
    )
