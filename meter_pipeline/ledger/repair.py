"""Repair of leaves that an entry of the ledger has wrong: two people stand for an entry that puts them right.

An entry is never changed. Where a fault of this software wrote one whose leaves are not those of the rows it stands
for, every later verification finds leaves without rows, and rows without leaves. A repair is an entry of its own: its
leaves are those of the rows as they are, then those that it retires; its body names the source, the day, the reason and
both people. It stays in the log for ever, the next checkpoint signs it, and every verification counts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import numpy as np

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import dual_control
from meter_pipeline.control.people import Denial
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.ledger import entries, hashsets
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.row_checks import REPAIR, compared, contents_of, tables_of
from meter_pipeline.ledger.row_rules import Hasher, rules_of
from meter_pipeline.ledger.sources import SOURCES
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

ACTION: Final = dual_control.Action(
    "ledger_repair",
    ask=("engineer", "operator", "finance"),
    confirm=("finance",),
    asked_kind="verified",
    confirmed_kind="verified",
    refused_kind="verified",
)


class RepairError(ValueError):
    """A repair that cannot be made; the message says why."""


def differences(
    database: Database, name: str, day: date | None, hashers: Mapping[str, Hasher]
) -> tuple[list[bytes], list[bytes]]:
    """Leaves of rows that no entry has, and leaves of entries that no row has, of a source on a billing day.

    Raises RepairError for a source there is none of, and where rows are not what their own hashes say: those are
    corrected, not blessed.
    """
    source = next((source for source in SOURCES if source.name == name), None)
    if source is None:
        raise RepairError(f"sources are {', '.join(source.name for source in SOURCES)}; not {name!r}")
    rules, outcome = rules_of(hashers), VerifyOutcome(None, 0, 0, b"")
    with database.connect("ledger repair") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        tables, at = tables_of(connection, source, rules), day if source.by_day else None
        wanted = [(table, at) for table in tables if table.encoding in rules]
        with contents_of(database, connection, wanted) as contents:
            live, allowed, by_table = compared(connection, source, tables, at, outcome, rules, contents)
    if outcome.findings:
        raise RepairError(f"{outcome.findings[0].check}: {outcome.findings[0].detail}")
    added = [carried[row].tobytes() for carried in by_table for row in hashsets.absent(carried, allowed)]
    gone = [live.hashes[row].tobytes() for row in hashsets.absent(live.hashes, np.concatenate(by_table))]
    return added, gone


def _body(name: str, day: date | None, added: list[bytes], gone: list[bytes]) -> dict[str, Any]:
    """The text that the second person confirms: the leaves themselves, by their hash."""
    leaves = hashlib.sha256(b"".join(sorted(added)) + b"\x1e" + b"".join(sorted(gone))).hexdigest()
    dated = {} if day is None else {"day": day.isoformat()}
    return {"source": name, "added": len(added), "retired": len(gone), "leaves": leaves} | dated


def request(
    database: Database,
    name: str,
    day: date | None,
    hashers: Mapping[str, Hasher],
    *,
    by: str,
    reason: str,
    clock: Clock = SYSTEM_CLOCK,
) -> RequestRow:
    """Ask for a repair. Raises RepairError where nothing differs, Refused (recorded) for a person who may not."""
    added, gone = differences(database, name, day, hashers)
    if not added and not gone:
        raise RepairError(f"rows and leaves of {name} agree")
    subject = f"ledger:{name}:{day or 'all'}"
    return dual_control.request(
        database, ACTION, subject, _body(name, day, added, gone), reason=reason, by=by, clock=clock
    )


def confirm(
    database: Database,
    request_id: int,
    hashers: Mapping[str, Hasher],
    *,
    by: str,
    reason: str,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Confirm a repair as the second person: the differences are worked out again and must be those that were asked
    for. Returns the number of leaves. Raises Refused (recorded), RepairError."""
    made = 0

    def effect(connection: Connection, request: RequestRow) -> Denial | None:
        nonlocal made
        name, day_text = str(request.body["source"]), request.body.get("day")
        day = date.fromisoformat(day_text) if day_text else None
        added, gone = differences(database, name, day, hashers)
        if _body(name, day, added, gone) != request.body:
            return Denial("stale", "what differs is no longer what was asked for; ask again")
        body: dict[str, Any] = {
            "step": REPAIR,
            "source": name,
            "retired": len(gone),
            "reason": request.reason,
            "requested_by": request.requested_by,
            "approved_by": by,
            "request": request.request_id,
        }
        if day is not None:
            body["billing_day"] = day
        entries.append(connection, "verified", body, [*added, *gone], clock=clock, actor=by)
        made = len(added) + len(gone)
        return None

    dual_control.confirm(database, ACTION, request_id, by=by, reason=reason, effect=effect, clock=clock)
    return made
