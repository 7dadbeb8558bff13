"""The ledger's tables: every statement the ledger room sends.

Belongs here: SQL over the ledger schema. Does not belong here: hashing, signing, proving.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import psycopg

#: kind, canonical bytes, leaf hash, number of leaves, leaves end to end
EntryRow: TypeAlias = tuple[str, bytes, bytes, int, bytes | None]

#: Binary parameters: text would send each byte of a batch's leaves as two characters.
INSERT_ENTRY: Final = (
    "INSERT INTO ledger.entry (kind, body, leaf_hash, leaf_count, leaves) VALUES (%s, %b, %b, %s, %b) RETURNING entry_id"
)


def insert_entry(connection: psycopg.Connection[Any], row: EntryRow) -> int:
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
