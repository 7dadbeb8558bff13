"""Feature flags: values in PostgreSQL, read in the transaction they control; every change is recorded.

A flag is declared in code with its default and its check; the table has only changed values. A change names the version
it replaces, so that two people cannot overwrite each other's change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import dual_control
from meter_pipeline.control.people import Denial, Refused, canonical, denial
from meter_pipeline.control.tables import flags
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: Returns the fault of going from the first value to the second, or None.
Check: TypeAlias = Callable[[Any, Any], str | None]

CHANGE: Final = dual_control.Action(
    "flag",
    ask=("engineer", "operator", "finance"),
    confirm=("finance", "engineer"),
    asked_kind="flag_flipped",
    confirmed_kind="flag_flipped",
    refused_kind="flag_flipped",
)


@dataclass(frozen=True, slots=True)
class Flag:
    """A declared flag. ``check(before, after)`` refuses a step; ``needs_two(before, after)`` returns whether two people
    must make it.

    Values are plain JSON without floats (a share is an integer of hundredths of a percent, or a string).
    """

    name: str
    default: Any
    check: Check = lambda before, after: None
    needs_two: Callable[[Any, Any], bool] = lambda before, after: False


@dataclass(frozen=True, slots=True)
class Value:
    """A flag's value in force; version 0 is the declared default."""

    value: Any
    version: int
    changed_by: str | None = None
    changed_at: datetime | None = None


def read(connection: Connection, flag: Flag, *, lock: Literal["share", "update"] | None = None) -> Value:
    """Returns the value in force, in the caller's transaction.

    ``lock="share"`` keeps the value until the transaction ends, so that everything the transaction writes is written
    under one value. A flag that was never changed has no row to lock; call ``ensure`` where that matters.
    """
    row = flags.flag(connection, flag.name, lock)
    return Value(flag.default, 0) if row is None else Value(row.value, row.version, row.changed_by, row.changed_at)


def ensure(connection: Connection, flag: Flag, *, by: str, clock: Clock = SYSTEM_CLOCK) -> Value:
    """Insert a flag's row with the default, in the caller's transaction, so that it can be locked. Changes no
    existing row."""
    if flags.put_flag(connection, flag.name, flag.default, 1, by, clock.now(), "declared", False, None):
        body = {"flag": flag.name, "from": None, "to": flag.default, "version": 1, "by": by, "reason": "declared"}
        entries.append(connection, "flag_flipped", body, clock=clock, actor=by)
    return read(connection, flag)


def change(
    database: Database,
    flag: Flag,
    value: Any,
    *,
    by: str,
    reason: str,
    expect_version: int | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Value:
    """Set a flag. Commits. Raises Refused (recorded): bad_name, no_reason, not_authorised, stale, not_allowed,
    needs_two."""
    with database.connect("control") as connection:
        outcome = _change(connection, flag, value, by, reason, expect_version, clock)
        if isinstance(outcome, Denial):
            dual_control.record_refusal(
                connection, "flag", f"flag:{flag.name}", by, outcome, kind="flag_flipped", clock=clock
            )
        connection.commit()
    if isinstance(outcome, Denial):
        raise Refused(outcome.code, outcome.words)
    return outcome


def change_in(
    connection: Connection, flag: Flag, value: Any, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> Value:
    """Set a flag inside the caller's transaction: an automatic rollback, or the effect of a confirmed action.

    ``check`` applies; the caller is responsible for ``needs_two``. Raises Refused, not recorded.
    """
    now = read(connection, flag, lock="update")
    if words := flag.check(now.value, value):
        raise Refused("not_allowed", words)
    return _write(connection, flag, now, value, by, reason, None, clock)


def request_change(
    database: Database, flag: Flag, value: Any, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> RequestRow:
    """Request a change that two people must make. Raises Refused (recorded)."""
    with database.connect("control", autocommit=True) as connection:
        now = read(connection, flag)

    def guard(connection: Connection) -> Denial | None:
        words = flag.check(read(connection, flag).value, value)
        return Denial("not_allowed", words) if words else None

    body = {"from": now.value, "to": value, "version": now.version}
    return dual_control.request(
        database, CHANGE, f"flag:{flag.name}", body, reason=reason, by=by, guard=guard, clock=clock
    )


def confirm_change(
    database: Database, flag: Flag, request_id: int, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> Value:
    """Confirm a change as the second person; refused as stale where the flag was changed after the request. Raises
    Refused (recorded)."""

    def effect(connection: Connection, request: RequestRow) -> Denial | None:
        if request.subject != f"flag:{flag.name}":
            return Denial("unknown", f"request {request_id} is for {request.subject}")
        now = read(connection, flag, lock="update")
        if now.version != request.body["version"]:
            return Denial("stale", f"{flag.name} has changed since this was asked; ask again")
        if words := flag.check(now.value, request.body["to"]):
            return Denial("not_allowed", words)
        _write(connection, flag, now, request.body["to"], canonical(by) or by, reason, request.request_id, clock)
        return None

    dual_control.confirm(database, CHANGE, request_id, by=by, reason=reason, effect=effect, clock=clock)
    with database.connect("control", autocommit=True) as connection:
        return read(connection, flag)


def _change(
    connection: Connection, flag: Flag, value: Any, by: str, reason: str, expect_version: int | None, clock: Clock
) -> Value | Denial:
    person = canonical(by)
    if person is None:
        return Denial("bad_name", f"{by!r} is no name: lower-case ASCII letters, digits and . _ @ - only")
    if not reason.strip():
        return Denial("no_reason", "a reason must be given")
    if refused := denial(connection, person, CHANGE.ask):
        return refused
    now = read(connection, flag, lock="update")
    if expect_version is not None and now.version != expect_version:
        return Denial("stale", f"{flag.name} is at version {now.version}, not {expect_version}")
    if words := flag.check(now.value, value):
        return Denial("not_allowed", words)
    if flag.needs_two(now.value, value):
        return Denial("needs_two", f"{flag.name} from {now.value} to {value} takes two people: request it")
    try:
        return _write(connection, flag, now, value, person, reason, None, clock)
    except Refused as refusal:
        return Denial(refusal.code, str(refusal))


def _write(
    connection: Connection,
    flag: Flag,
    now: Value,
    value: Any,
    person: str,
    reason: str,
    request: int | None,
    clock: Clock,
) -> Value:
    at = clock.now()
    if not flags.put_flag(
        connection, flag.name, value, now.version + 1, person, at, reason, request is not None, request
    ):
        raise Refused("stale", f"{flag.name} was changed by somebody else this moment")
    body = {
        "flag": flag.name,
        "from": now.value,
        "to": value,
        "version": now.version + 1,
        "by": person,
        "reason": reason,
        "request": request,
    }
    entries.append(connection, "flag_flipped", body, clock=clock, actor=person)
    return Value(value, now.version + 1, person, at)
