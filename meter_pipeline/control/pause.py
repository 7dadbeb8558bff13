"""The emergency pause: raise it, read it, request a resume, confirm it.

At most one pause is in force per scope. Raising it again adds evidence and withdraws a pending request to resume,
because that request did not cover the new evidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import dual_control
from meter_pipeline.control.people import Denial, Refused, canonical, denial
from meter_pipeline.control.tables import dual_requests, pauses, register
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.control.tables.pauses import PauseRow
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

COMMODITIES: Final = ("electricity", "water", "gas")
_HEAD_END: Final = re.compile(r"[A-Z0-9-]{1,64}")
#: Points that a person must verify before a request to resume, each with a note of the result.
CHECKLIST: Final = ("ledger", "control_totals", "dead_letters")
#: The service that raises pauses by rule.
WATCHER: Final = "pause-watch"

RESUME: Final = dual_control.Action(
    "resume",
    ask=("operator", "finance"),
    confirm=("finance",),
    asked_kind="pause_requested_resume",
    confirmed_kind="pause_cleared",
    refused_kind="pause_refused",
)
_RAISERS: Final = ("operator", "finance", "engineer")


@dataclass(frozen=True, slots=True)
class Scope:
    """The work a pause stops: all, one commodity, or one head-end. Raises ValueError for another scope."""

    kind: str = "all"
    target: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("all", "commodity", "head_end"):
            raise ValueError(f"a pause holds all, a commodity or a head_end; not {self.kind!r}")
        if (self.kind == "all") != (self.target is None):
            raise ValueError("a scope of all has no target, every other scope has one")
        if self.kind == "commodity" and self.target not in COMMODITIES:
            raise ValueError(f"commodities are {', '.join(COMMODITIES)}; not {self.target!r}")
        if self.kind == "head_end" and not _HEAD_END.fullmatch(self.target or ""):
            raise ValueError(
                f"{self.target!r} is no head-end: upper-case ASCII letters, digits and hyphens, at most 64"
            )

    def words(self) -> str:
        return {"all": "all work", "commodity": f"all {self.target} work", "head_end": f"head-end {self.target}"}[
            self.kind
        ]


ALL: Final = Scope()


@dataclass(frozen=True, slots=True)
class PauseState:
    """A pause that stops the caller's work. ``unreachable``: the flag could not be read, which counts as paused."""

    pause_id: int | None
    scope: Scope
    reason: str
    raised_by: str
    raised_at: datetime
    rule: str | None = None
    pending_request: int | None = None
    pending_by: str | None = None
    pending_until: datetime | None = None
    unreachable: bool = False

    def words(self) -> str:
        """The state in one sentence, for a sensor's skip reason, a log line, a status."""
        if self.unreachable:
            return f"PAUSED because the pause flag cannot be read: {self.reason}"
        source = f"rule {self.rule}" if self.rule else self.raised_by
        text = f"PAUSED ({self.scope.words()}) since {self.raised_at:%Y-%m-%d %H:%M:%S} UTC by {source}: {self.reason}."
        if self.pending_request is None:
            return text + " Nobody has asked to resume."
        pending = f" {self.pending_by} asked to resume (request {self.pending_request});"
        return text + pending + f" a second person in finance must confirm before {self.pending_until:%H:%M} UTC."


def unreachable(error: BaseException, clock: Clock = SYSTEM_CLOCK) -> PauseState:
    """Returns the state to use when the flag cannot be read."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return PauseState(None, ALL, text, "nobody", clock.now(), unreachable=True)


def is_paused(connection: Connection, commodity: str | None = None, head_end: str | None = None) -> PauseState | None:
    """Returns the pause in force for this commodity and head-end, or None. One query, about 0.2 ms; raises
    psycopg.Error.

    Call it on its own connection, never inside the batch's transaction: there the answer would be as old as its
    snapshot. PauseProbe does so.
    """
    row = pauses.active_pause(connection, commodity, head_end)
    return _state(row) if row else None


def active(connection: Connection) -> list[PauseState]:
    """Every pause in force, widest first."""
    return [_state(row) for row in pauses.active_pauses(connection)]


def raise_pause(
    database: Database,
    *,
    reason: str,
    by: str,
    scope: Scope = ALL,
    rule: str | None = None,
    evidence: Mapping[str, Any] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> PauseState:
    """Raise the pause, or add evidence to the one in force. Commits; every writer's next poll after the return sees it.

    Any person of the register may raise it (a wrong pause costs minutes, a missing one money). Raises Refused for an
    unknown name or a person without a duty. ``evidence`` is plain JSON, decimals as strings.
    """
    found = dict(evidence or {})
    with database.connect("control") as connection:
        person = canonical(by)
        refused = (
            Denial("bad_name", f"{by!r} is no name: lower-case ASCII letters, digits and . _ @ - only")
            if person is None
            else Denial("no_reason", "a reason must be given")
            if not reason.strip()
            else None
            if rule is not None
            else denial(connection, person, _RAISERS)
        )
        if refused is not None or person is None:
            why = refused or Denial("bad_name", by)
            dual_control.record_refusal(
                connection, "raise", _subject(scope), by, why, kind="pause_refused", clock=clock
            )
            connection.commit()
            raise Refused(why.code, why.words)
        pause_id = _raise(connection, scope, reason.strip(), rule, found, person, clock)
        row = pauses.pause_by_id(connection, pause_id)
        connection.commit()
    if row is None:
        raise driver.DataError(f"pause {pause_id} is gone")
    return _state(row)


def request_resume(
    database: Database,
    *,
    reason: str,
    by: str,
    checklist: Mapping[str, str],
    scope: Scope = ALL,
    life: timedelta | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> RequestRow:
    """Request the end of the pause in force for a scope. ``checklist``: for ledger, control_totals and dead_letters,
    the checks made and their result.

    Commits. Raises Refused (recorded): not_paused, checklist, already_asked, not_authorised, bad_name, no_reason.
    """
    with database.connect("control", autocommit=True) as connection:
        pause_id = pauses.pause_of_scope(connection, scope.kind, scope.target)
        further = len(pauses.evidence_of(connection, pause_id)) if pause_id is not None else 0
    subject = f"pause:{pause_id}" if pause_id is not None else _subject(scope)
    notes = {key: str(checklist.get(key, "")).strip() for key in CHECKLIST}

    def guard(connection: Connection) -> Denial | None:
        if pause_id is None or pauses.pause_of_scope(connection, scope.kind, scope.target) != pause_id:
            return Denial("not_paused", _no_pause_of(scope, pauses.active_pauses(connection)))
        if missing := [key for key in CHECKLIST if not notes[key]]:
            return Denial("checklist", f"say what was verified of {', '.join(missing)}")
        if unknown := sorted(set(checklist) - set(CHECKLIST)):
            return Denial("checklist", f"the checklist has no {', '.join(unknown)}")
        if len(pauses.evidence_of(connection, pause_id)) != further:
            return Denial("new_evidence", "further evidence came this moment: look at the status again")
        return None

    body = {"scope": scope.kind, "target": scope.target, "checklist": notes, "evidence_seen": further + 1}
    return dual_control.request(
        database, RESUME, subject, body, reason=reason, by=by, life=life, guard=guard, clock=clock
    )


def _no_pause_of(scope: Scope, active: Sequence[PauseRow]) -> str:
    """Returns the message that a scope has no pause, with the pauses in force and the option that selects each."""
    if not active:
        return f"no pause is in force for {scope.words()}"
    option = {"commodity": "--commodity ", "head_end": "--head-end "}
    listed = [
        f"pause {row.pause_id} of {Scope(row.scope, row.target).words()}"
        + (
            f" (give {option[row.scope]}{row.target})"
            if row.scope in option
            else " (give neither --commodity nor --head-end)"
        )
        for row in active
    ]
    return f"no pause is in force for {scope.words()}; in force: {', '.join(listed)}"


def confirm_resume(
    database: Database, request_id: int, *, by: str, reason: str = "confirmed", clock: Clock = SYSTEM_CLOCK
) -> PauseRow:
    """Confirm a resume as a second person; paused work then continues. Commits.

    Raises Refused (recorded, the pause stays): unknown, replayed, withdrawn, expired, same_person, not_authorised,
    not_paused.
    """

    def effect(connection: Connection, request: RequestRow) -> Denial | None:
        pause_id = int(request.subject.removeprefix("pause:"))
        if not pauses.end_pause(connection, pause_id, request_id, clock.now()):
            return Denial("not_paused", f"pause {pause_id} is over")
        return None

    request = dual_control.confirm(database, RESUME, request_id, by=by, reason=reason, effect=effect, clock=clock)
    with database.connect("control", autocommit=True) as connection:
        row = pauses.pause_by_id(connection, int(request.subject.removeprefix("pause:")))
    if row is None:
        raise driver.DataError(f"the pause of request {request_id} is gone")
    return row


def decline_resume(database: Database, request_id: int, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> None:
    """Decline a request to resume, or withdraw one's own."""
    dual_control.decline(database, RESUME, request_id, by=by, reason=reason, clock=clock)


def status(connection: Connection, history: int = 10) -> dict[str, Any]:
    """Returns plain data: paused, words, the pauses in force with their evidence and pending requests, the latest
    earlier pauses, refusals."""
    active = pauses.active_pauses(connection)
    return {
        "paused": bool(active),
        "words": " ".join(_state(row).words() for row in active) or "Running: no pause is in force.",
        "active": [
            _document(row) | {"further_evidence": pauses.evidence_of(connection, row.pause_id)} for row in active
        ],
        "pending": [_request_document(row) for row in dual_requests.pending_requests(connection, RESUME.name)],
        "history": [_document(row) for row in pauses.recent_pauses(connection, history) if row.state == "resumed"],
        "refusals": dual_requests.refusals(connection, history),
        "finance_registered": register.anybody_with(connection, "finance"),
    }


def _raise(
    connection: Connection,
    scope: Scope,
    reason: str,
    rule: str | None,
    evidence: dict[str, Any],
    person: str,
    clock: Clock,
) -> int:
    now = clock.now()
    # Three times round at most: a pause may appear between the look and the insert, or end between the look and the
    # lock.
    for _ in range(3):
        pause_id = pauses.pause_of_scope(connection, scope.kind, scope.target)
        if pause_id is not None:
            # The lock that a request and a confirmation take too: one of them at a time acts on a pause.
            dual_requests.lock_subject(connection, RESUME.name, f"pause:{pause_id}")
            if pauses.pause_of_scope(connection, scope.kind, scope.target) != pause_id:
                continue
            return _add_evidence(connection, pause_id, scope, reason, rule, evidence, person, clock)
        pause_id = pauses.insert_pause(connection, scope.kind, scope.target, reason, rule, evidence, person, now)
        if pause_id is not None:
            body = {
                "pause": pause_id,
                "scope": scope.kind,
                "target": scope.target,
                "reason": reason,
                "rule": rule,
                "evidence": evidence,
                "raised_by": person,
            }
            entries.append(connection, "pause_set", body, clock=clock, actor=person)
            return pause_id
    raise driver.errors.SerializationFailure("the pause was raised and ended by others three times over")


def _add_evidence(
    connection: Connection,
    pause_id: int,
    scope: Scope,
    reason: str,
    rule: str | None,
    evidence: dict[str, Any],
    person: str,
    clock: Clock,
) -> int:
    if rule is not None and pauses.same_evidence(connection, pause_id, rule, evidence):
        return pause_id  # the watcher sees the same trouble every minute; once is enough
    pauses.insert_evidence(connection, pause_id, reason, rule, evidence, person, clock.now())
    for pending in dual_requests.pending_requests(connection, RESUME.name, f"pause:{pause_id}"):
        dual_control.withdraw(
            connection, RESUME, pending, by=person, reason=f"further evidence: {reason}"[:2000], clock=clock
        )
    body = {
        "pause": pause_id,
        "scope": scope.kind,
        "target": scope.target,
        "reason": reason,
        "rule": rule,
        "evidence": evidence,
        "raised_by": person,
        "further": True,
    }
    entries.append(connection, "pause_set", body, clock=clock, actor=person)
    return pause_id


def _subject(scope: Scope) -> str:
    return "pause" if scope.target is None else f"pause of {scope.kind} {scope.target}"


def _state(row: PauseRow) -> PauseState:
    return PauseState(
        row.pause_id,
        Scope(row.scope, row.target),
        row.reason,
        row.raised_by,
        row.raised_at,
        row.rule,
        row.pending_request,
        row.pending_by,
        row.pending_until,
    )


def _document(row: PauseRow) -> dict[str, Any]:
    return {
        "pause": row.pause_id,
        "scope": row.scope,
        "target": row.target,
        "state": row.state,
        "reason": row.reason,
        "rule": row.rule,
        "evidence": row.evidence,
        "raised_by": row.raised_by,
        "raised_at": row.raised_at,
        "resume_request": row.resume_request,
        "resumed_at": row.resumed_at,
    }


def _request_document(row: RequestRow) -> dict[str, Any]:
    return {
        "request": row.request_id,
        "subject": row.subject,
        "requested_by": row.requested_by,
        "requested_at": row.requested_at,
        "reason": row.reason,
        "checklist": row.body.get("checklist", {}),
        "expires_at": row.expires_at,
        "digest": row.digest,
    }
