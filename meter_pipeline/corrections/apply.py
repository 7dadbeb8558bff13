"""Applies a correction in one transaction: new versions of rows, requests to run the days it changes, and ledger
entries.

One person applies a correction that changes no issued money. Where issued money changes, one person requests it by the
digest of a preview and another confirms it. A correction is refused where the data of its preview changed in the
meantime.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions, dual_control
from meter_pipeline.control.people import Denial
from meter_pipeline.control.tables.dual_requests import RequestRow
from meter_pipeline.corrections import tables
from meter_pipeline.corrections.impact import ask, pairs_of
from meter_pipeline.corrections.preview import refuse_archived, state_of
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.reference import Fault, ReferenceRefused, history, importing
from meter_pipeline.reference.importing import FolderRead, RowChange, read_changed, write_folder
from meter_pipeline.reference.tables import Snapshot, record_time, settle

#: Two people make a correction that changes money already issued: anybody who works the queues asks, finance confirms.
CORRECTION: Final = dual_control.Action(
    "reference_correction",
    decisions.WORK,
    decisions.FINANCE,
    "reference_imported",
    "reference_imported",
    "reference_imported",
    life=dual_control.LONGEST_LIFE,
)


@dataclass(slots=True)
class AppliedChanges:
    """Result of an import: rows by table, rows that changed, days requested, and the number of issued statements on
    these days."""

    rows: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    days: list[date] = field(default_factory=list)
    service_points: int = 0
    issued: int = 0


def import_folder(
    database: Database,
    calendar: BillingCalendar,
    folder: Path,
    *,
    snapshot: Snapshot | None = None,
    by: str | None = None,
    why: str = "",
    clock: Clock = SYSTEM_CLOCK,
) -> AppliedChanges:
    """Import a folder and request the days it changes.

    Raises ReferenceRefused with every fault; and where the import changes issued statements while the register of
    people has entries, because then two people are needed (``request``, ``approve``).
    """
    folder_read = read_changed(database, folder, snapshot)
    if not isinstance(folder_read, FolderRead):
        return AppliedChanges(folder_read)
    with database.connect("meter-pipeline reference") as connection:
        counts = write_folder(connection, folder_read, snapshot=snapshot, by=by, why=why)
        made = _reach(connection, calendar, clock)
        made.rows = counts
        if made.issued and tables.has_people(connection):
            message = f"it reaches {made.issued} issued statements, so two people make it: meter-pipeline reference import {folder} --dry-run"
            raise ReferenceRefused([Fault(str(folder), 0, "", message)])
    settle(database, counts)
    return made


def change_row(
    database: Database, calendar: BillingCalendar, change: RowChange, *, clock: Clock = SYSTEM_CLOCK
) -> tuple[dict[str, Any], AppliedChanges]:
    """End or remove one row and request the days this changes. Returns the row and the changes applied. Raises
    ReferenceRefused as ``import_folder`` does."""
    with database.connect("meter-pipeline reference") as connection:
        row = importing.change_row(connection, change)
        made = _reach(connection, calendar, clock)
        made.rows = {change.table: 1}
        if made.issued and tables.has_people(connection):
            message = (
                f"it reaches {made.issued} issued statements, so two people make it: give the command --dry-run first"
            )
            raise ReferenceRefused([Fault(change.table, 0, "", message)])
    return row, made


def _reach(connection: Connection, calendar: BillingCalendar, clock: Clock) -> AppliedChanges:
    """Request the days that the rows written in this transaction change."""
    changed = history.changes(connection)
    if not changed:
        return AppliedChanges()
    by_table = dict(Counter(change.table for change in changed))
    pairs = pairs_of(connection, calendar, changed, tables.stored_days(connection))
    if not pairs.height:
        return AppliedChanges(changed=by_table)
    refuse_archived(connection, pairs)
    _, issued, _ = tables.statements(connection, pairs)
    instant = record_time(connection)
    evidence = hashlib.sha256(str(instant).encode()).digest()
    days = ask(connection, pairs, changed, evidence, calendar.day_of(clock.now()), clock.now())
    return AppliedChanges({}, by_table, days, pairs["service_point_id"].n_unique(), issued)


def request(database: Database, digest: bytes, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> RequestRow:
    """Request a previewed correction, to be confirmed by a second person. Raises control.people.Refused, and
    ReferenceRefused for a digest without a preview or with one that was applied."""
    with database.connect("meter-pipeline correction") as connection:
        found = _open(connection, digest)
    summary: Mapping[str, Any] = found["summary"]
    body = {
        "digest": digest.hex(),
        "source": Path(found["source"]).name,
        "days": summary["days"],
        "service_points": summary["service_points"],
        "statements": summary["statements"],
        "old": summary["money"]["old"],
        "new": summary["money"]["new"],
        "difference": summary["money"]["difference"],
    }
    return dual_control.request(database, CORRECTION, digest.hex(), body, reason=reason, by=by, clock=clock)


def approve(
    database: Database, request_id: int, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK
) -> AppliedChanges:
    """Confirm a correction as the second person and apply it in the same transaction. Raises control.people.Refused:
    unknown, same_person, expired, moved (the data of the preview changed)."""
    made = AppliedChanges()

    def effect(connection: Connection, row: RequestRow) -> Denial | None:
        nonlocal made
        digest = bytes.fromhex(str(row.subject))
        try:
            made = _make(connection, digest, by=by, asked_by=row.requested_by, why=row.reason, clock=clock)
        except ReferenceRefused as refused:
            return Denial("moved", str(refused.faults[0].why))
        return None

    dual_control.confirm(database, CORRECTION, request_id, by=by, reason=reason, effect=effect, clock=clock)
    return made


def apply(database: Database, digest: bytes, *, by: str, why: str, clock: Clock = SYSTEM_CLOCK) -> AppliedChanges:
    """Apply a previewed correction that changes no issued money, as one person. Raises ReferenceRefused where it
    changes issued money, or where the data changed since the preview."""
    with database.connect("meter-pipeline correction") as connection:
        if _open(connection, digest)["issued"]:
            message = f"it changes issued money, so two people make it: meter-pipeline reference request {digest.hex()}"
            raise ReferenceRefused([Fault("the preview", 0, "", message)])
        return _make(connection, digest, by=by, asked_by=None, why=why, clock=clock)


def _open(connection: Connection, digest: bytes) -> dict[str, Any]:
    """Returns a preview that is not applied yet. Raises ReferenceRefused."""
    found = tables.kept(connection, digest)
    if found is None:
        raise ReferenceRefused(
            [Fault("the preview", 0, "", f"no preview has the digest {digest.hex()}; preview it again")]
        )
    if found["applied_at"] is not None:
        raise ReferenceRefused(
            [Fault("the preview", 0, "", f"it was made at {found['applied_at']:%Y-%m-%d %H:%M} UTC")]
        )
    return found


def _make(
    connection: Connection, digest: bytes, *, by: str, asked_by: str | None, why: str, clock: Clock
) -> AppliedChanges:
    """Write a preview's rows, its requests and its ledger entry, in the caller's transaction."""
    mark = tables.reference_mark(connection)
    found = _open(connection, digest)
    pairs = pl.DataFrame(
        [(point, date.fromisoformat(day)) for day, points in found["reached"].items() for point in points],
        schema={"service_point_id": pl.String, "billing_day": pl.Date},
        orient="row",
    ).sort("billing_day", "service_point_id")
    points = pairs["service_point_id"].unique().sort().to_list()
    first = min(pairs["billing_day"].to_list(), default=None)
    if bytes.fromhex(state_of(connection, mark, points, first)) != bytes(found["state"]):
        message = "reference data, usage or bills that it stands on moved since it was previewed; preview it again"
        raise ReferenceRefused([Fault("the preview", 0, "", message)])
    tables.write(connection, found["changes"])
    body = {"source": Path(found["source"]).name, "correction": digest.hex(), "reason": why}
    if asked_by is not None:
        body |= {"requested_by": asked_by, "approved_by": by}
    history.record(connection, body, source=found["source"], reason=why, by=by)
    corrected_on = date.fromisoformat(found["summary"].get("corrected_on", clock.now().date().isoformat()))
    changed = history.changes(connection)
    days = ask(connection, pairs, changed, digest, corrected_on, clock.now()) if pairs.height else []
    tables.applied(connection, digest, clock.now())
    rows = dict(Counter(str(change["table"]) for change in json.loads(found["changes"])))
    return AppliedChanges(rows, rows, days, len(points), int(found["summary"]["statements"]["issued"]))


def decline(database: Database, request_id: int, *, by: str, reason: str, clock: Clock = SYSTEM_CLOCK) -> None:
    """Decline a requested correction. Raises control.people.Refused where no request waits."""
    dual_control.decline(database, CORRECTION, request_id, by=by, reason=reason, clock=clock)
