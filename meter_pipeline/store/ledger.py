"""The ledger's tables: every statement the ledger room sends.

Belongs here: SQL over the ledger schema. Does not belong here: hashing, signing, proving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg.rows import class_row

#: kind, canonical bytes, leaf hash, number of leaves, leaves end to end, billing day
EntryRow: TypeAlias = tuple[str, bytes, bytes, int, bytes | None, date | None]

#: Binary parameters: text would send each byte of a batch's leaves as two characters.
INSERT_COLUMNS: Final[LiteralString] = (
    "SELECT coalesce(l.leaf_index, -1) AS leaf_index, coalesce(l.entry_id, e.entry_id) AS entry_id, coalesce(e.kind, '') AS kind,"
    " coalesce(e.body, ''::bytea) AS body, coalesce(e.leaf_hash, ''::bytea) AS entry_hash, coalesce(l.leaf_hash, ''::bytea) AS indexed_hash,"
    " coalesce(e.leaf_count, 0) AS leaf_count, e.leaves, e.billing_day, coalesce(e.recorded_by::text, '') AS recorded_by"
)
#: Places in the log, with the entry there even if someone took it away.
_ENTRY: Final[LiteralString] = _COLUMNS + " FROM ledger.leaf l LEFT JOIN ledger.entry e ON e.entry_id = l.entry_id"
#: Entries, with their place (-1 for none yet).
_WRITTEN: Final[LiteralString] = _COLUMNS + " FROM ledger.entry e LEFT JOIN ledger.leaf l ON l.entry_id = e.entry_id"


def entries(connection: Connection, start: int, end: int) -> Iterator[StoredEntry]:
    """Entries at places [start, end) in order, streamed. A place whose entry is gone comes with empty bytes."""
    with connection.cursor("ledger_entries", row_factory=class_row(StoredEntry)) as cursor:
        cursor.itersize = 500
        cursor.execute(_ENTRY + " WHERE l.leaf_index >= %s AND l.leaf_index < %s ORDER BY l.leaf_index", (start, end), binary=True)
        yield from cursor


def entry_by_id(connection: Connection, entry_id: int) -> StoredEntry | None:
    """One sequenced entry by its staging id."""
    with connection.cursor(row_factory=class_row(StoredEntry), binary=True) as cursor:
        return cursor.execute(_ENTRY + " WHERE l.entry_id = %s", (entry_id,)).fetchone()


def entry_holding(connection: Connection, payload_hash: bytes, kinds: Sequence[str]) -> StoredEntry | None:
    """The latest sequenced entry among whose leaves this payload hash is. ``position`` finds candidates; alignment is the caller's to check."""
    with connection.cursor(row_factory=class_row(StoredEntry), binary=True) as cursor:
        return cursor.execute(
            _ENTRY + " WHERE e.kind = ANY(%s) AND position(%b IN e.leaves) > 0 ORDER BY l.leaf_index DESC LIMIT 1",
            (list(kinds), payload_hash),
        ).fetchone()


def entries_of_day(connection: Connection, day: date, kinds: Sequence[str]) -> list[StoredEntry]:
    """A billing day's entries of some kinds in log order; last those that have no place yet, with place -1."""
    with connection.cursor(row_factory=class_row(StoredEntry), binary=True) as cursor:
        return cursor.execute(
            _WRITTEN + " WHERE e.billing_day = %s AND e.kind = ANY(%s) ORDER BY l.leaf_index NULLS LAST, e.xid, e.entry_id", (day, list(kinds))
        ).fetchall()


def entry_total(connection: Connection) -> int:
    """How many entries there are, sequenced or not."""
    row = connection.execute("SELECT count(*) FROM ledger.entry").fetchone()
    return int(row[0]) if row else 0


def kinds_between(connection: Connection, start: int, end: int) -> dict[str, int]:
    """Entries by kind at places [start, end)."""
    return dict(
        connection.execute(
            "SELECT e.kind, count(*) FROM ledger.leaf l JOIN ledger.entry e USING (entry_id) WHERE l.leaf_index >= %s AND l.leaf_index < %s"
            " GROUP BY e.kind ORDER BY e.kind",
            (start, end),
        ).fetchall()
    )


# Checkpoints


def insert_checkpoint(connection: Connection, tree_size: int, note: str, key_id: str) -> None:
    """Keep a signed note; the same note again does nothing."""
    connection.execute(
        "INSERT INTO ledger.checkpoint (tree_size, note, key_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (tree_size, note, key_id)
    )


def checkpoints(connection: Connection) -> list[StoredCheckpoint]:
    """Every checkpoint, smallest first."""
    with connection.cursor(row_factory=class_row(StoredCheckpoint)) as cursor:
        return cursor.execute("SELECT tree_size, note, key_id FROM ledger.checkpoint ORDER BY tree_size").fetchall()


def latest_checkpoint(connection: Connection) -> StoredCheckpoint | None:
    """The largest checkpoint."""
    with connection.cursor(row_factory=class_row(StoredCheckpoint)) as cursor:
        return cursor.execute("SELECT tree_size, note, key_id FROM ledger.checkpoint ORDER BY tree_size DESC LIMIT 1").fetchone()


def insert_cosignature(connection: Connection, tree_size: int, name: str, key_id: str, line: str) -> None:
    """Keep a witness's line."""
    connection.execute(
        "INSERT INTO ledger.cosignature (tree_size, name, key_id, line) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (tree_size, name, key_id, line),
    )


def cosignatures(connection: Connection) -> list[StoredCosignature]:
    """Every cosignature by tree size."""
    with connection.cursor(row_factory=class_row(StoredCosignature)) as cursor:
        return cursor.execute("SELECT tree_size, name, line FROM ledger.cosignature ORDER BY tree_size, received_at, key_id").fetchall()


def insert_anchor(connection: Connection, tree_size: int, kind: str, token: bytes) -> None:
    """Keep an outside authority's time stamp."""
    connection.execute("INSERT INTO ledger.anchor (tree_size, kind, token) VALUES (%s, %s, %b)", (tree_size, kind, token))


def anchors(connection: Connection) -> list[tuple[int, str, bytes]]:
    """Every time stamp: (tree size, kind, token)."""
    return connection.execute("SELECT tree_size, kind, token FROM ledger.anchor ORDER BY tree_size, received_at").fetchall()


def growth(connection: Connection) -> list[tuple[Any, int, int]]:
    """(day, entries, leaves) by the UTC day they were recorded on."""
    return connection.execute(
        "SELECT (recorded_at AT TIME ZONE 'UTC')::date AS day, count(*), coalesce(sum(leaf_count), 0)::bigint FROM ledger.entry GROUP BY 1 ORDER BY 1"
    ).fetchall()


# Personal data


def insert_personal(connection: Connection, payload_hash: bytes, salt: bytes, payload: bytes) -> None:
    """Keep a payload that holds personal data beside its salted hash."""
    connection.execute("INSERT INTO ledger.personal (payload_hash, salt, payload) VALUES (%b, %b, %b)", (payload_hash, salt, payload))


def erase_personal(connection: Connection, payload_hash: bytes) -> bool:
    """Empty a payload and its salt. False where there is none or it is erased already."""
    done = connection.execute(
        "UPDATE ledger.personal SET salt = NULL, payload = NULL WHERE payload_hash = %b AND payload IS NOT NULL", (payload_hash,)
    )
    return done.rowcount == 1


def personal(connection: Connection) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """(payload hash, salt, payload) of every personal payload; the last two None once erased."""
    with connection.cursor("ledger_personal") as cursor:
        cursor.execute("SELECT payload_hash, salt, payload FROM ledger.personal ORDER BY payload_hash", binary=True)
        yield from cursor
