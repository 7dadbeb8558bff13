"""Steps of the migration taken by people: the next stage, a larger cohort, and the cut-over, which two people sign over
one fresh green report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import dual_control, flags
from meter_pipeline.control.migration_stage import STAGE, STAGES, needs_two
from meter_pipeline.control.people import Denial, Refused
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.ledger import entries
from meter_pipeline.migration import tables
from meter_pipeline.migration.gate import FRESH
from meter_pipeline.postgres.database import Database

CUT_OVER: Final = dual_control.Action(
    "cut_over",
    ask=("engineer", "operator", "finance"),
    confirm=("finance",),
    asked_kind="migration_stage",
    confirmed_kind="cutover_signed",
    refused_kind="migration_stage",
)
SUBJECT: Final = "migration"


def current(database: Database, *, by: str = "meter-pipeline", clock: Clock = SYSTEM_CLOCK) -> flags.Value:
    """The stage in force."""
    with database.connect("migration") as connection:
        value = flags.ensure(connection, STAGE, by=by, clock=clock)
        connection.commit()
    return value


def peek(database: Database) -> flags.Value:
    """The stage in force, for whoever only reads."""
    with database.connect("migration", autocommit=True) as connection:
        return flags.read(connection, STAGE)


def step(
    database: Database, value: Mapping[str, Any], *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> flags.Value:
    """Take a step that one person may take. Raises Refused: needs_two where two must, not_allowed where no one may."""
    before = current(database, by=by, clock=clock)
    after = flags.change(database, STAGE, dict(value), by=by, reason=reason, clock=clock)
    _record(database, before.value, after.value, by, reason, clock)
    return after


def request_step(
    database: Database,
    value: Mapping[str, Any],
    report_sha256: str,
    *,
    by: str,
    reason: str,
    clock: Clock = SYSTEM_CLOCK,
) -> RequestRow:
    """Ask for a step that makes us bill more accounts (``off`` too), over the gate report of that hash.

    Refused (recorded) unless the report is kept, green and less than an hour old, and the step is the next one.
    """
    before = current(database, by=by, clock=clock)

    def guard(connection: tables.Connection) -> Denial | None:
        if words := STAGE.check(flags.read(connection, STAGE).value, dict(value)):
            return Denial("not_allowed", words)
        if not needs_two(before.value, value):
            return Denial("not_needed", "one person may take this step")
        return _report_holds(connection, report_sha256, clock)

    body = {"from": before.value, "to": dict(value), "version": before.version, "report": report_sha256}
    return dual_control.request(database, CUT_OVER, SUBJECT, body, reason=reason, by=by, guard=guard, clock=clock)


def confirm_step(
    database: Database, request_id: int, report_sha256: str, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> flags.Value:
    """Sign as the second person, naming the same report. Refused (recorded) when the report has gone stale or is
    another, or the stage has moved."""

    def effect(connection: tables.Connection, request: RequestRow) -> Denial | None:
        if request.body["report"] != report_sha256:
            return Denial("digest_differs", "this is not the report the first person signed")
        if refused := _report_holds(connection, report_sha256, clock):
            return refused
        now = flags.read(connection, STAGE, lock="update")
        if now.version != request.body["version"]:
            return Denial("stale", "the stage has moved since this was asked; ask again")
        try:
            flags.change_in(connection, STAGE, request.body["to"], by=by, reason=reason, clock=clock)
        except Refused as refused_step:
            return Denial(refused_step.code, str(refused_step))
        entries.append(
            connection,
            "migration_stage",
            {
                "from": request.body["from"],
                "to": request.body["to"],
                "reason": reason,
                "by": by,
                "report": report_sha256,
                "automatic": False,
            },
            clock=clock,
            actor=by,
        )
        return None

    dual_control.confirm(database, CUT_OVER, request_id, by=by, reason=reason, effect=effect, clock=clock)
    return current(database, by=by, clock=clock)


def _report_holds(connection: tables.Connection, sha256: str, clock: Clock) -> Denial | None:
    found = tables.report(connection, sha256)
    if found is None:
        return Denial("no_report", f"no gate report {sha256[:16]}")
    at, green, _ = found
    if not green:
        return Denial("not_green", "the gate was not green in that report")
    if not (clock.now() - at) <= FRESH:
        return Denial("stale_report", f"the report is of {at:%Y-%m-%d %H:%M} UTC: older than an hour")
    return None


def _record(
    database: Database, before: Mapping[str, Any], after: Mapping[str, Any], by: str, reason: str, clock: Clock
) -> None:
    with database.connect("migration") as connection:
        body = {"from": dict(before), "to": dict(after), "reason": reason, "by": by, "automatic": False}
        entries.append(connection, "migration_stage", body, clock=clock, actor=by)
        # A step forward stands on the clock and leaves it; a step back says that something was wrong.
        if STAGES.index(str(before["stage"])) > STAGES.index(str(after["stage"])):
            tables.note_event(connection, clock.now(), f"back to stage {after['stage']}")
        connection.commit()
