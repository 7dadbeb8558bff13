"""The ledger's tables: every statement the ledger room sends."""

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
INSERT_ENTRY: Final[LiteralString] = (
    "INSERT INTO ledger.entry (kind, body, leaf_hash, leaf_count, leaves, billing_day) VALUES (%s, %b, %b, %s, %b, %s) RETURNING entry_id"
)
#: One sequencer per database: an advisory lock of this class, held to the end of its transaction.
SEQUENCER_LOCK: Final = 0x6D70_6C65_6467  # "mpledg"
CHECKPOINT_LOCK: Final = SEQUENCER_LOCK + 1
#: A month of days of 100,000 meters.
GROWTH_ENTRIES: Final = 20_000

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The tree after a round of sequencing."""

    tree_size: int
    root_hash: bytes
    horizon: int
    cluster_id: int


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry with its place in the log."""

    leaf_index: int
    entry_id: int
    kind: str
    body: bytes
    entry_hash: bytes
    indexed_hash: bytes
    leaf_count: int
    leaves: bytes | None
    billing_day: date | None
    recorded_by: str


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed tree head."""

    tree_size: int
    note: str
    key_id: str


@dataclass(frozen=True, slots=True)
class StoredCosignature:
    """A witness's line under a checkpoint."""

    tree_size: int
    name: str
    line: str


def insert_entry(connection: Connection, row: EntryRow) -> int:
    """Write one entry in the caller's transaction; returns its staging id."""
    found = connection.execute(INSERT_ENTRY, row).fetchone()
    if found is None:
        raise psycopg.DataError("the ledger took no entry")
    return int(found[0])


async def insert_entry_async(connection: psycopg.AsyncConnection[Any], row: EntryRow) -> int:
    """As insert_entry, on an asyncio connection."""
    found = await (await connection.execute(INSERT_ENTRY, row)).fetchone()
    if found is None:
        raise psycopg.DataError("the ledger took no entry")
    return int(found[0])


# Sequencing


def take_sequencer_lock(connection: Connection, wait_s: float) -> bool:
    """Become the only sequencer until the transaction ends. False where another holds on for longer than ``wait_s``."""
    if wait_s <= 0:
        row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (SEQUENCER_LOCK,)).fetchone()
        return bool(row and row[0])
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{max(1, round(wait_s * 1000))}ms",))
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (SEQUENCER_LOCK,))
            connection.execute("SELECT set_config('lock_timeout', '0', true)")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


@contextmanager
def checkpoint_lock(connection: Connection) -> Iterator[None]:
    """One checkpoint at a time: two that finish out of order would ask the signer to sign a shorter log after a longer
    one.

    A session lock, so that it spans the sequencer's transaction and the signer's answer; waits for at most a minute.
    """
    connection.execute("SELECT set_config('lock_timeout', '60s', false)")
    connection.execute("SELECT pg_advisory_lock(%s)", (CHECKPOINT_LOCK,))
    connection.execute("SELECT set_config('lock_timeout', '0', false)")
    connection.commit()
    try:
        yield
    finally:
        if not connection.broken:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s)", (CHECKPOINT_LOCK,))
            connection.commit()


def ensure_log(connection: Connection, origin_prefix: str) -> str:
    """The log's origin; made on first use from the prefix and eight random hex digits, so that another database is
    another log."""
    row = connection.execute("SELECT origin FROM ledger.log").fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO ledger.log (origin) VALUES (%s || '/' || substr(md5(gen_random_uuid()::text), 1, 8)) ON CONFLICT DO NOTHING",
            (origin_prefix,),
        )
        row = connection.execute("SELECT origin FROM ledger.log").fetchone()
        assert row is not None  # noqa: S101 - just inserted
    return str(row[0])


def origin(connection: Connection) -> str | None:
    """The log's origin, or None where nothing was ever sequenced."""
    row = connection.execute("SELECT origin FROM ledger.log").fetchone()
    return None if row is None else str(row[0])


def latest_head(connection: Connection) -> Head | None:
    """The largest tree."""
    with connection.cursor(row_factory=class_row(Head)) as cursor:
        return cursor.execute(
            "SELECT tree_size, root_hash, horizon::text::bigint AS horizon, cluster_id FROM ledger.tree_head ORDER BY tree_size DESC LIMIT 1"
        ).fetchone()


def heads(connection: Connection) -> list[Head]:
    """Every tree head, smallest first."""
    with connection.cursor(row_factory=class_row(Head)) as cursor:
        return cursor.execute(
            "SELECT tree_size, root_hash, horizon::text::bigint AS horizon, cluster_id FROM ledger.tree_head ORDER BY tree_size"
        ).fetchall()


def snapshot_horizon(connection: Connection) -> tuple[int, int]:
    """(oldest transaction still running, this server's system identifier). Transactions older than the first are all
    visible or gone."""
    row = connection.execute(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, (SELECT system_identifier FROM pg_control_system())"
    ).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives a row
    return int(row[0]), int(row[1])


def unsequenced(connection: Connection, from_xid: int) -> list[tuple[int, bytes]]:
    """(entry_id, leaf_hash) of committed entries of transactions from ``from_xid`` on that have no place yet, in a
    fixed order."""
    return connection.execute(
        "SELECT e.entry_id, e.leaf_hash FROM ledger.entry e WHERE e.xid >= %s::text::xid8"
        " AND NOT EXISTS (SELECT FROM ledger.leaf l WHERE l.entry_id = e.entry_id) ORDER BY e.xid, e.entry_id",
        (str(from_xid),),
    ).fetchall()


def insert_leaves(connection: Connection, first: int, entries: Sequence[tuple[int, bytes]]) -> None:
    """Give entries their places from ``first`` on. Not by COPY, which row security refuses to anyone it binds."""
    connection.execute(
        "INSERT INTO ledger.leaf (leaf_index, entry_id, leaf_hash) SELECT %s + at - 1, id, hash"
        " FROM unnest(%b::bigint[], %b::bytea[]) WITH ORDINALITY AS given (id, hash, at)",
        (first, [entry_id for entry_id, _ in entries], [leaf_hash for _, leaf_hash in entries]),
    )


def insert_nodes(connection: Connection, nodes: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep the roots of completed subtrees: (level, index, hash)."""
    connection.execute(
        "INSERT INTO ledger.node (level, node_index, node_hash) SELECT * FROM unnest(%s::smallint[], %s::bigint[], %b::bytea[])",
        ([level for level, _, _ in nodes], [index for _, index, _ in nodes], [node for _, _, node in nodes]),
    )


def insert_head(connection: Connection, head: Head) -> None:
    """Record the tree. A second head of the same size is refused by the key."""
    connection.execute(
        "INSERT INTO ledger.tree_head (tree_size, root_hash, horizon, cluster_id) VALUES (%s, %s, %s::text::xid8, %s)",
        (head.tree_size, head.root_hash, str(head.horizon), head.cluster_id),
    )


def leaf_hashes(connection: Connection, start: int, end: int) -> bytes:
    """Leaf hashes of places [start, end), end to end; shorter where places are missing."""
    rows = connection.execute(
        "SELECT leaf_hash FROM ledger.leaf WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index",
        (start, end),
        binary=True,
    ).fetchall()
    return b"".join([bytes(row[0]) for row in rows])


def node_hashes(connection: Connection, level: int, start: int, end: int) -> bytes:
    """Hashes of nodes [start, end) of a level that is a multiple of 8 above 0."""
    rows = connection.execute(
        "SELECT node_hash FROM ledger.node WHERE level = %s AND node_index >= %s AND node_index < %s ORDER BY node_index",
        (level, start, end),
        binary=True,
    ).fetchall()
    return b"".join([bytes(row[0]) for row in rows])


# Reading entries

_COLUMNS: Final[LiteralString] = (
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
        cursor.execute(
            _ENTRY + " WHERE l.leaf_index >= %s AND l.leaf_index < %s ORDER BY l.leaf_index", (start, end), binary=True
        )
        yield from cursor


def bodies(connection: Connection, start: int, end: int) -> list[bytes]:
    """Bodies of the entries at places [start, end); empty where an entry is gone. Their leaves stay where they are."""
    rows = connection.execute(
        "SELECT coalesce(e.body, ''::bytea) FROM ledger.leaf l LEFT JOIN ledger.entry e ON e.entry_id = l.entry_id"
        " WHERE l.leaf_index >= %s AND l.leaf_index < %s ORDER BY l.leaf_index",
        (start, end),
        binary=True,
    ).fetchall()
    return [bytes(row[0]) for row in rows]


def entry_holding(
    connection: Connection, payload_hash: bytes, kinds: Sequence[str], day: date | None
) -> StoredEntry | None:
    """The first sequenced entry (of a billing day, where given) among whose leaves this payload hash is."""
    with connection.cursor(row_factory=class_row(StoredEntry)) as cursor:
        candidates = cursor.execute(
            _ENTRY + " WHERE e.kind = ANY(%(kinds)s) AND (%(day)s::date IS NULL OR e.billing_day = %(day)s)"
            " AND position(%(hash)b IN e.leaves) > 0 ORDER BY l.leaf_index",
            {"kinds": list(kinds), "day": day, "hash": payload_hash},
            binary=True,
        )
        # A match across the seam of two hashes is possible in theory and no match.
        return next((entry for entry in candidates if payload_hash in _cut(entry.leaves or b"")), None)


def _cut(flat: bytes) -> list[bytes]:
    return [flat[at : at + 32] for at in range(0, len(flat), 32)]


def entries_of(connection: Connection, kinds: Sequence[str], day: date | None) -> list[StoredEntry]:
    """Entries of some kinds, of a billing day or all, in log order; last those that have no place yet, with
    place -1.
    """
    with connection.cursor(row_factory=class_row(StoredEntry), binary=True) as cursor:
        return cursor.execute(
            _WRITTEN + " WHERE (%(day)s::date IS NULL OR e.billing_day = %(day)s) AND e.kind = ANY(%(kinds)s)"
            " ORDER BY l.leaf_index NULLS LAST, e.xid, e.entry_id",
            {"day": day, "kinds": list(kinds)},
        ).fetchall()


def bodies_of(connection: Connection, kinds: Sequence[str], day: date | None) -> list[tuple[str, dict[str, Any]]]:
    """(kind, body) of entries of some kinds, of a billing day or all, in the order they were written."""
    rows = connection.execute(
        "SELECT kind, convert_from(body, 'UTF8')::jsonb -> 'body' FROM ledger.entry "
        "WHERE (%(day)s::date IS NULL OR billing_day = %(day)s) AND kind = ANY(%(kinds)s) ORDER BY entry_id",
        {"day": day, "kinds": list(kinds)},
    ).fetchall()
    return [(str(kind), body) for kind, body in rows]


def may_sign(connection: Connection) -> bool:
    """Whether this role may order the log and keep checkpoints."""
    row = connection.execute("SELECT has_column_privilege('ledger.checkpoint', 'note', 'INSERT')").fetchone()
    return bool(row and row[0])


def days_of_kinds(connection: Connection, kinds: Sequence[str]) -> list[date]:
    """Billing days that entries of some kinds, with leaves, are about."""
    rows = connection.execute(
        "SELECT DISTINCT billing_day FROM ledger.entry WHERE kind = ANY(%s) AND billing_day IS NOT NULL AND leaf_count > 0",
        (list(kinds),),
    ).fetchall()
    return sorted(row[0] for row in rows)


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
        "INSERT INTO ledger.checkpoint (tree_size, note, key_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (tree_size, note, key_id),
    )


def checkpoints(connection: Connection) -> list[StoredCheckpoint]:
    """Every checkpoint, smallest first."""
    with connection.cursor(row_factory=class_row(StoredCheckpoint)) as cursor:
        return cursor.execute("SELECT tree_size, note, key_id FROM ledger.checkpoint ORDER BY tree_size").fetchall()


def latest_checkpoint(connection: Connection) -> StoredCheckpoint | None:
    """The largest checkpoint."""
    with connection.cursor(row_factory=class_row(StoredCheckpoint)) as cursor:
        return cursor.execute(
            "SELECT tree_size, note, key_id FROM ledger.checkpoint ORDER BY tree_size DESC LIMIT 1"
        ).fetchone()


def insert_cosignature(connection: Connection, tree_size: int, name: str, key_id: str, line: str) -> None:
    """Keep a witness's line."""
    connection.execute(
        "INSERT INTO ledger.cosignature (tree_size, name, key_id, line) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (tree_size, name, key_id, line),
    )


def cosignatures(connection: Connection) -> list[StoredCosignature]:
    """Every cosignature by tree size."""
    with connection.cursor(row_factory=class_row(StoredCosignature)) as cursor:
        return cursor.execute(
            "SELECT tree_size, name, line FROM ledger.cosignature ORDER BY tree_size, received_at, key_id"
        ).fetchall()


def insert_anchor(connection: Connection, tree_size: int, kind: str, token: bytes) -> None:
    """Keep an outside authority's time stamp."""
    connection.execute(
        "INSERT INTO ledger.anchor (tree_size, kind, token) VALUES (%s, %s, %b)", (tree_size, kind, token)
    )


def has_anchor(connection: Connection, tree_size: int) -> bool:
    """Whether a checkpoint has a time stamp."""
    return (
        connection.execute("SELECT 1 FROM ledger.anchor WHERE tree_size = %s LIMIT 1", (tree_size,)).fetchone()
        is not None
    )


def anchors(connection: Connection) -> list[tuple[int, str, bytes]]:
    """Every time stamp: (tree size, kind, token)."""
    return connection.execute(
        "SELECT tree_size, kind, token FROM ledger.anchor ORDER BY tree_size, received_at"
    ).fetchall()


def growth(connection: Connection) -> list[tuple[Any, int, int]]:
    """(day, entries, leaves) by the UTC day they were recorded on, of the last GROWTH_ENTRIES: a plot, not a reason to
    read the whole log."""
    return connection.execute(
        "SELECT (recorded_at AT TIME ZONE 'UTC')::date AS day, count(*), coalesce(sum(leaf_count), 0)::bigint FROM ledger.entry"
        " WHERE entry_id > (SELECT max(entry_id) FROM ledger.entry) - %s GROUP BY 1 ORDER BY 1",
        (GROWTH_ENTRIES,),
    ).fetchall()


# Personal data


def insert_personal(connection: Connection, payload_hash: bytes, salt: bytes, payload: bytes) -> None:
    """Keep a payload that holds personal data beside its salted hash."""
    connection.execute(
        "INSERT INTO ledger.personal (payload_hash, salt, payload) VALUES (%b, %b, %b)", (payload_hash, salt, payload)
    )


def erase_personal(connection: Connection, payload_hash: bytes) -> bool:
    """Empty a payload and its salt. False where there is none or it is erased already."""
    done = connection.execute(
        "UPDATE ledger.personal SET salt = NULL, payload = NULL WHERE payload_hash = %b AND payload IS NOT NULL",
        (payload_hash,),
    )
    return done.rowcount == 1


def personal(connection: Connection) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """(payload hash, salt, payload) of every personal payload; the last two None once erased."""
    with connection.cursor("ledger_personal") as cursor:
        cursor.execute("SELECT payload_hash, salt, payload FROM ledger.personal ORDER BY payload_hash", binary=True)
        yield from cursor
