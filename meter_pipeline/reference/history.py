"""Record time of reference data in PostgreSQL: what a transaction changed, what was known at an instant, and the ledger
entry with a leaf for each changed row.

Triggers of schema ``ref`` keep the versions (migration 0440); this module reads them. A row is JSON as PostgreSQL writes
it: numbers exact, instants in UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.schemas.reference import STRETCHES, TABLES

Connection = psycopg.Connection[Any]

#: Columns of record time, which are no part of what a row says.
RECORD_TIME: Final = frozenset({"known_from", "known_until"})
#: Columns by which a row that has no stretch says from when and until when it holds.
_OTHER_STARTS: Final = {"accounts": "opened", "weather": "weather_day", "holidays": "holiday"}
#: Key of the tariff documents, which come as files beside the tables.
_DOCUMENT_KEY: Final = ("tariff_id", "version")


@dataclass(frozen=True, slots=True)
class Change:
    """One changed row: what stood before (None: a new row) and what stands now (None: taken out), without record time."""

    table: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None

    @property
    def key(self) -> tuple[str, ...]:
        """The row's key as text, as it was before where there was a row."""
        row = self.old or self.new or {}
        return tuple(str(row[c]) for c in key_of(self.table))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns whose value changed; every column of a new row or of one taken out."""
        old, new = self.old or {}, self.new or {}
        return tuple(c for c in dict.fromkeys((*old, *new)) if old.get(c) != new.get(c))

    @property
    def starts(self) -> str | None:
        """From when the row holds (the earlier of old and new), or None for a row without dates."""
        column = STRETCHES[self.table].starts if self.table in STRETCHES else _OTHER_STARTS.get(self.table)
        found = [str(row[column]) for row in (self.old, self.new) if column is not None and row is not None]
        return min(found, default=None)


def key_of(table: str) -> tuple[str, ...]:
    """The key columns of a reference table, documents included."""
    return TABLES[table].key if table in TABLES else _DOCUMENT_KEY


def record_time(connection: Connection) -> datetime | None:
    """The record time of the caller's transaction; None where it has written no reference row."""
    found = scalar(connection, "SELECT nullif(current_setting('meter_pipeline.record_time', true), '')::timestamptz")
    return found if isinstance(found, datetime) else None


def changes(connection: Connection) -> list[Change]:
    """What the caller's transaction changed so far, by table and key. A row whose dates were corrected has a new key: its
    old and its new row are one change."""
    instant = record_time(connection)
    if instant is None:
        return []
    rows = connection.execute("SELECT table_name, old::text, new::text FROM ref.changes_at(%s)", (instant,)).fetchall()
    return _with_moved([Change(table, _row(old), _row(new)) for table, old, new in rows])


def _row(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    row: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return {c: v for c, v in row.items() if c not in RECORD_TIME}


def _with_moved(found: Sequence[Change]) -> list[Change]:
    """Changes with each row taken out beside the one new row that takes its place (same identity, the only one of each)."""
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
    """Write the ledger entry of what the caller's transaction changed, with a leaf for each changed row, and its change
    set; the entry's id, or None where nothing changed. Call it last: what is changed after it has no leaf."""
    instant = record_time(connection)
    if instant is None:
        return None
    rows = connection.execute("SELECT table_name, leaf FROM ref.changes_at(%s)", (instant,)).fetchall()
    if not rows:
        return None
    changed: dict[str, int] = {}
    for table, _ in rows:
        changed[table] = changed.get(table, 0) + 1
    said = {**body, "changed": changed, "known_from": instant}
    entry = entries.append(connection, "reference_imported", said, [leaf for _, leaf in rows], actor=by)
    connection.execute(
        "INSERT INTO ref.change_set (known_from, ledger_entry, made_by, source, reason, rows) "
        "VALUES (%s, %s, coalesce(%s, current_user), %s, %s, %s)",
        (instant, entry, by, source, reason, len(rows)),
    )
    return entry


def rows_as_of(database: Database, table: str, instant: datetime) -> list[dict[str, Any]]:
    """A reference table as it was known at an instant, by key, with ``known_from``. Numbers are Decimal."""
    query = sql.SQL("SELECT * FROM ref.{} (%s) ORDER BY {}").format(
        sql.Identifier(f"{table}_as_of"), sql.SQL(", ").join(map(sql.Identifier, key_of(table)))
    )
    with database.connect("meter-pipeline reference") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, (instant,)).fetchall()


def unproven(connection: Connection) -> list[tuple[datetime, str]]:
    """Record times whose rows are not what the ledger holds of them, and why. Empty while every changed row has its leaf.

    The leaves are computed again from the stored versions and compared, in order, with those of the entry that
    ref.change_set names. Rows from before history was kept (2000) have none.
    """
    names = [n for (n,) in connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'ref'::regnamespace AND relkind = 'r' "
        "AND to_regclass('ref.' || quote_ident(relname || '_version')) IS NOT NULL ORDER BY 1"
    )]  # fmt: skip
    parts = [
        part.format(sql.Identifier("ref", name), sql.Identifier("ref", f"{name}_version"))
        for name in names
        for part in (sql.SQL("SELECT known_from FROM {0}"), sql.SQL("SELECT unnest(ARRAY[known_from, known_until]) FROM {1}"))
    ]  # fmt: skip
    query = sql.SQL(
        "SELECT t.known_from, e.leaves, c.known_from IS NOT NULL FROM (SELECT DISTINCT known_from FROM ({}) AS every_row "
        "WHERE known_from > '2000-01-01 00:00:00Z') AS t FULL JOIN ref.change_set AS c USING (known_from) "
        "LEFT JOIN ledger.entry AS e ON e.entry_id = c.ledger_entry ORDER BY 1"
    ).format(sql.SQL(" UNION ALL ").join(parts))
    found = []
    for instant, leaves, listed in connection.execute(query).fetchall():
        now = b"".join(bytes(leaf) for (leaf,) in connection.execute("SELECT leaf FROM ref.changes_at(%s)", (instant,)))
        if not listed:
            found.append((instant, "rows changed without a ledger entry"))
        elif leaves is None or bytes(leaves) != now:
            found.append((instant, "the rows are not those of the ledger entry's leaves"))
    return found
