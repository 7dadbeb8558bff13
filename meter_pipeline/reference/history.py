"""Record time of reference data: the changes of a transaction, the rows known at an instant, and the ledger entry with
a leaf for each changed row.

Triggers of schema ``ref`` keep the versions (0105_reference.sql); this module reads them. A row is JSON as PostgreSQL
writes it: numbers exact, instants in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from meter_pipeline.ledger import entries, reference_rows
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.reference import tables
from meter_pipeline.reference.tables import record_time
from meter_pipeline.schemas.reference import STRETCHES, TABLES

#: Columns of record time, which are no part of what a row says.
RECORD_TIME: Final = frozenset({"known_from", "known_until"})
#: Columns by which a row that has no stretch says from when and until when it holds.
_OTHER_STARTS: Final = {"accounts": "opened", "weather": "weather_day", "holidays": "holiday"}
#: Key of the tariff documents, which come as files beside the tables.
_DOCUMENT_KEY: Final = ("tariff_id", "version")


@dataclass(frozen=True, slots=True)
class Change:
    """One changed row: the old row (None: a new row) and the new row (None: removed), without record time."""

    table: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None

    @property
    def key(self) -> tuple[str, ...]:
        """The row's key as text; of the old row where there was one."""
        row = self.old or self.new or {}
        return tuple(str(row[c]) for c in key_of(self.table))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns whose value changed; every column of a new or removed row."""
        old, new = self.old or {}, self.new or {}
        return tuple(c for c in dict.fromkeys((*old, *new)) if old.get(c) != new.get(c))

    @property
    def starts(self) -> str | None:
        """The first day on which the row is in force (the earlier of old and new), or None for a row without dates."""
        column = STRETCHES[self.table].starts if self.table in STRETCHES else _OTHER_STARTS.get(self.table)
        found = [str(row[column]) for row in (self.old, self.new) if column is not None and row is not None]
        return min(found, default=None)


def key_of(table: str) -> tuple[str, ...]:
    """The key columns of a reference table, documents included."""
    return TABLES[table].key if table in TABLES else _DOCUMENT_KEY


def changes(connection: Connection) -> list[Change]:
    """Returns the changes of the caller's transaction so far, by table and key. A row whose dates were corrected has
    a new key: its old and its new row are one change."""
    instant = record_time(connection)
    if instant is None:
        return []
    return _with_moved(
        [Change(table, _row(old), _row(new)) for table, old, new in tables.changed_rows(connection, instant)]
    )


def _row(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    row: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return {c: v for c, v in row.items() if c not in RECORD_TIME}


def _with_moved(found: Sequence[Change]) -> list[Change]:
    """Pairs each removed row with the one new row that replaces it (same identity, the only one of each)."""
    by_identity: dict[tuple[Any, ...], list[Change]] = {}
    for change in found:
        if change.table in STRETCHES and (change.old is None) != (change.new is None):
            row = change.old or change.new or {}
            identity = (change.table, *(row[c] for c in STRETCHES[change.table].identity))
            by_identity.setdefault(identity, []).append(change)
    moved: dict[int, Change] = {}
    for pair in by_identity.values():
        gone, fresh = [c for c in pair if c.new is None], [c for c in pair if c.old is None]
        if len(gone) == len(fresh) == 1:
            moved[id(gone[0])] = Change(gone[0].table, gone[0].old, fresh[0].new)
            moved[id(fresh[0])] = moved[id(gone[0])]
    # The pair is one change, in the place of the row that was taken out.
    return [moved.get(id(c), c) for c in found if c.old is not None or id(c) not in moved]


def record(connection: Connection, body: Mapping[str, Any], *, source: str, reason: str, by: str | None) -> int | None:
    """Write the ledger entry of the caller's transaction, with a leaf for each changed row, and its change set.
    Returns the entry's id, or None without changes. Call it last: later changes have no leaf."""
    instant = record_time(connection)
    if instant is None:
        return None
    rows = tables.changed_leaves(connection, instant)
    if not rows:
        return None
    changed: dict[str, int] = {}
    for table, _ in rows:
        changed[table] = changed.get(table, 0) + 1
    entry_body = {**body, "changed": changed, "known_from": instant, **reference_rows.body_of_changes(connection)}
    entry = entries.append(connection, "reference_imported", entry_body, [leaf for _, leaf in rows], actor=by)
    tables.note_change_set(connection, (instant, entry, by, source, reason, len(rows)))
    return entry


def rows_as_of(database: Database, table: str, instant: datetime) -> list[dict[str, Any]]:
    """Returns a reference table as known at an instant, by key, with ``known_from``. Numbers are Decimal."""
    return tables.rows_as_of(database, table, key_of(table), instant)


def unproven(connection: Connection) -> list[tuple[datetime, str]]:
    """Returns the record times whose rows differ from the ledger's record, with the difference. Empty while every
    changed row has its leaf.

    The leaves are computed again from the stored versions, over the columns that the entry names, and compared with
    those of the entry that ref.change_set names. Rows from before history was kept (2000) have none.
    """
    found, _ = reference_rows.differing(connection, reference_rows.said_by_change_sets(connection))
    return [(each.instant, each.why) for each in found]


def unproven_by_table(connection: Connection) -> dict[str, list[str]]:
    """Returns the result of ``unproven`` by reference table, as text. A tariff's document counts for its tariff;
    missing rows that no version names count for every table."""
    found: dict[str, list[str]] = {name: [] for name in TABLES}
    for instant, why in unproven(connection):
        table = why.removeprefix("ref.").partition(" ")[0] if why.startswith("ref.") else None
        table = "tariffs" if table == "tariff_document" else table
        for name in [table] if table in found else TABLES:
            found[name].append(f"{instant:%Y-%m-%d %H:%M:%S} UTC: {why}")
    return found


def data_version(connection: Connection, table: str) -> str:
    """Returns a text that changes exactly when a row of a reference table changes: its last record time and its
    number of rows."""
    at, rows = tables.version_of(connection, table)
    return f"{rows} rows" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}, {rows} rows"


def changes_per_day(connection: Connection, table: str, zone: str) -> list[tuple[date, int]]:
    """Returns the number of rows of a reference table that were added, changed or removed, by civil day of a zone."""
    return tables.changes_per_day(connection, table, key_of(table), zone)
