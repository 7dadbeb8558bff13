"""Rows of reference data against the leaves of their changes.

Every change of reference data has a ledger entry (``reference_imported``) with its record time, a leaf for each changed
row, and the columns that these leaves are over. The leaves are computed again from the rows and their versions as
stored, by record time, and must be those of the entry.

Rows from before history was kept have the record time BEFORE_HISTORY and no leaf of their own. Each entry says how many
there are and one hash over them; the last entry that says so holds them.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from meter_pipeline.ledger import hashsets
from meter_pipeline.ledger.merkle import HASH_SIZE
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import reference_rows as stored
from meter_pipeline.ledger.tables.reference_rows import HistoryTable
from meter_pipeline.postgres.driver import Connection

KIND: Final = "reference_imported"
#: Record time of rows that were there when history began (0105_reference.sql).
BEFORE_HISTORY: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecordedChanges:
    """The ledger's record of the changes at one record time. ``place``: the entry's position in the log;
    ``columns``: by table, the columns its leaves cover (None: the entry is from before entries named them)."""

    instant: datetime
    leaves: bytes
    columns: Mapping[str, Sequence[str]] | None
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Differing:
    """A record time at which rows and leaves differ: the name of the check, and the difference."""

    instant: datetime
    check: str
    why: str
    place: int | None = None


@cache
def _unnamed() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("reference_columns.toml").read_text("utf-8"))
    return found


def columns_of(table: HistoryTable, recorded: RecordedChanges | None) -> tuple[str, ...]:
    """Returns the columns that the leaves of a table's changes cover."""
    if recorded is None:
        return table.columns
    named = _unnamed() if recorded.columns is None else recorded.columns
    return tuple(named.get(table.name, table.columns))


def body_of_changes(connection: Connection) -> dict[str, Any]:
    """Returns the entry's fields beside its leaves: the columns they cover, and the rows from before history was
    kept."""
    tables = stored.history_tables(connection)
    rows, digest = _before(connection, tables, None)
    return {"columns": {t.name: list(t.columns) for t in tables}, "before_history": {"rows": rows, "sha256": digest}}


def _before(
    connection: Connection, tables: Sequence[HistoryTable], recorded: RecordedChanges | None
) -> tuple[int, str]:
    """Returns the number of rows without a record time of their own, and the SHA-256 over their sorted leaves in
    hexadecimal."""
    flat = b"".join(
        leaves
        for table in tables
        for _, leaves in stored.leaves(connection, table, columns_of(table, recorded), [BEFORE_HISTORY], only=True)
    )
    return len(flat) // HASH_SIZE, hashlib.sha256(b"".join(_cut(flat))).hexdigest()


def _cut(flat: bytes) -> list[bytes]:
    """Splits concatenated leaves and sorts them: their order has no meaning."""
    return sorted(flat[at : at + HASH_SIZE] for at in range(0, len(flat), HASH_SIZE))


def differing(connection: Connection, recorded: Iterable[RecordedChanges]) -> tuple[list[Differing], dict[str, int]]:
    """Returns the record times at which stored rows and recorded leaves differ, and the number of compared changes
    by table."""
    by_instant: dict[datetime, RecordedChanges] = {}
    for each in recorded:
        actual = by_instant.get(each.instant)
        by_instant[each.instant] = (
            each if actual is None else RecordedChanges(each.instant, actual.leaves + each.leaves, each.columns)
        )
    found: dict[datetime, list[bytes]] = {}
    counted: dict[str, int] = {}
    tables = stored.history_tables(connection)
    for table in tables:
        for instant, flat in _leaves(connection, table, by_instant):
            found.setdefault(instant, []).append(flat)
            counted[table.name] = counted.get(table.name, 0) + len(flat) // HASH_SIZE
    found.pop(BEFORE_HISTORY, None)
    wrong = []
    for instant in sorted(found.keys() | by_instant.keys()):
        rows, entry = b"".join(found.get(instant, ())), by_instant.get(instant)
        if entry is None:
            wrong.append(Differing(instant, "row without leaf", "rows changed without a ledger entry"))
        elif not hashsets.same(hashsets.of(rows), hashsets.of(entry.leaves)):
            wrong += _named(connection, tables, entry, hashsets.of(rows))
    return wrong, counted


def _leaves(
    connection: Connection, table: HistoryTable, by_instant: Mapping[datetime, RecordedChanges]
) -> list[tuple[datetime, bytes]]:
    """Returns the leaves of every change of a table, by record time: one query for those that cover today's columns,
    one more for each other list of columns."""
    others: dict[tuple[str, ...], list[datetime]] = {}
    for instant, recorded in by_instant.items():
        columns = columns_of(table, recorded)
        if columns != table.columns:
            others.setdefault(columns, []).append(instant)
    apart = [instant for instants in others.values() for instant in instants]
    found = stored.leaves(connection, table, table.columns, apart, only=False)
    for columns, instants in others.items():
        found += stored.leaves(connection, table, columns, instants, only=True)
    return found


def _named(
    connection: Connection, tables: Sequence[HistoryTable], recorded: RecordedChanges, rows: hashsets.Hashes
) -> list[Differing]:
    """Returns the rows of a record time without a leaf, by table and key, and the leaves without a row."""
    named = hashsets.of(recorded.leaves)
    strange = {rows[at].tobytes() for at in hashsets.absent(rows, named)}
    wrong = [
        Differing(recorded.instant, "row without leaf", f"ref.{table.name} {key}", recorded.place)
        for table in tables
        if strange
        for key, leaf in stored.changes_at(connection, table, columns_of(table, recorded), recorded.instant)
        if leaf in strange
    ]
    # A changed row is named above; what is left are rows that were taken away.
    gone = len(hashsets.absent(named, rows)) - len(strange)
    if gone > 0 or not wrong:
        why = f"{max(gone, 1)} of its {len(named)} changed rows are not there"
        wrong.append(Differing(recorded.instant, "leaf without row", why, recorded.place))
    return wrong


def said_by_change_sets(connection: Connection) -> list[RecordedChanges]:
    """Returns the recorded changes for a role that may not read the ledger: from ref.change_set, which names the
    entries."""
    return [RecordedChanges(s.known_from, s.leaves or b"", s.columns) for s in stored.change_sets(connection)]


def verify_reference(connection: store.Connection, outcome: VerifyOutcome) -> None:
    """Verify that every row of reference data, and every earlier version of one, matches the entry of its change."""
    tables = stored.history_tables(connection)
    if not tables:
        return
    recorded: list[RecordedChanges] = []
    before: tuple[RecordedChanges, dict[str, Any]] | None = None
    entries: dict[int, RecordedChanges] = {}
    for entry in store.entries_of(connection, (KIND,), None):
        body = json.loads(entry.body)["body"]
        if "known_from" not in body:
            continue  # from before history was kept
        instant = datetime.fromisoformat(body["known_from"])
        each = RecordedChanges(instant, entry.leaves or b"", body.get("columns"), entry.leaf_index)
        recorded.append(each)
        entries[entry.entry_id] = each
        if "before_history" in body:
            before = each, body["before_history"]
    wrong, counted = differing(connection, recorded)
    for name, rows in counted.items():
        outcome.checked[f"changes of ref.{name}"] += rows
    for found in wrong:
        outcome.find(
            found.check, f"reference data of {found.instant:%Y-%m-%d %H:%M:%S.%f} UTC: {found.why}", found.place
        )
    if before is not None:
        rows, digest = _before(connection, tables, before[0])
        if (rows, digest) != (before[1]["rows"], before[1]["sha256"]):
            why = f"{rows} rows from before history was kept, the ledger holds {before[1]['rows']}, or others"
            outcome.find("content", f"reference data: {why}", before[0].place)
    _change_sets(connection, entries, outcome)


def _change_sets(connection: store.Connection, entries: Mapping[int, RecordedChanges], outcome: VerifyOutcome) -> None:
    """Verify that each change set names its entry, that entry's record time and the number of its leaves."""
    sets = stored.change_sets(connection)
    outcome.checked["rows of ref.change_set"] += len(sets)
    for each in sets:
        entry = entries.get(each.entry_id)
        if entry is None or (entry.instant, len(entry.leaves) // HASH_SIZE) != (each.known_from, each.rows):
            outcome.find(
                "derived column", f"ref.change_set {each.known_from}: it is not what entry {each.entry_id} says"
            )
    for missing in sorted(entries.keys() - {each.entry_id for each in sets}):
        outcome.find("derived column", f"ref.change_set: no row names entry {missing}", entries[missing].place)
