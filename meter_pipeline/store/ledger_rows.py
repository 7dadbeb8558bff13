"""The business rows behind the ledger's leaves.

Belongs here: reading hashes and rows of any table named in ledger/sources.py, from their partitions and, for days that were archived, from the
archive's files. Does not belong here: what they must equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import polars as pl
from psycopg import sql

from meter_pipeline.store import partitions
from meter_pipeline.store.database import Database
from meter_pipeline.store.ledger import Connection


def exists(connection: Connection, table: str) -> bool:
    """Whether a table is part of this installation."""
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


def hashes(connection: Connection, table: str, column: str, day: date | None) -> list[bytes]:
    """The leaf of every row of a billing day, or of the whole table."""
    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(*table.split("."))) + _on(day)
    held = [bytes(row[0]) for row in connection.execute(query, [day] if day else [], binary=True).fetchall()]
    return held + partitions.archived_column(connection, table, column, day) if table in partitions.ARCHIVED else held


def _on(day: date | None) -> sql.SQL:
    return sql.SQL("") if day is None else sql.SQL(" WHERE billing_day = %s")


def frame(database: Database, table: str, day: date | None) -> pl.DataFrame:
    """Every row of a billing day, or of the whole table, through Arrow, all columns."""
    if day is None:
        return database.read(f"SELECT * FROM {table}")
    archived = partitions.archived_frame(database, table, day)
    if archived is not None:
        return archived
    return database.read(f"SELECT * FROM {table} WHERE billing_day = $1", (day,))


def rows(connection: Connection, table: str, day: date | None) -> Iterator[str]:
    """Every row of a billing day, or of the whole table, as PostgreSQL's own JSON text, streamed. Instants are ISO 8601, bytes ``\\x`` hex."""
    query = sql.SQL("SELECT row_to_json(t)::text FROM {} AS t").format(sql.Identifier(*table.split("."))) + _on(day)
    with connection.cursor("ledger_rows") as cursor:
        cursor.itersize = 2000
        cursor.execute(query, [day] if day else [])
        for (text,) in cursor:
            yield text


def archived_rows(database: Database, connection: Connection, table: str, day: date | None) -> Iterator[str]:
    """The rows of an archived day, as ``rows`` gives those of a partition; none where the day is not archived."""
    row = partitions.archived_table(connection, table, day) if day is not None and table in partitions.ARCHIVED else None
    if row is not None:
        with partitions.as_temporary(database, row) as beside, beside.cursor("archived_rows") as cursor:
            cursor.itersize = 2000
            cursor.execute("SELECT row_to_json(t)::text FROM archived_rows AS t")
            for (text,) in cursor:
                yield text


def days_of(connection: Connection, table: str) -> list[date]:
    """Billing days a table has rows of, archived ones among them."""
    query = sql.SQL("SELECT DISTINCT billing_day FROM {} ORDER BY 1").format(sql.Identifier(*table.split(".")))
    held = {row[0] for row in connection.execute(query).fetchall()}
    return sorted(held | {row.billing_day for row in partitions.catalogue(connection, state="archived") if row.table == table and row.rows})


def control_totals(connection: Connection) -> list[dict[str, Any]]:
    """The store's own control totals of every feed file; empty where there is no raw store."""
    if not exists(connection, "raw.control_total"):
        return []
    rows = connection.execute(
        "SELECT encode(sha256, 'hex'), file_name, received, accepted, duplicate, superseded, rejected, waiting FROM raw.control_total ORDER BY 1"
    ).fetchall()
    names = ("sha256", "file_name", "received", "accepted", "duplicate", "superseded", "rejected", "waiting")
    return [dict(zip(names, row, strict=True)) for row in rows]


#: Tables of payloads, and which of their rows are a payload rather than a fold of several.
_PAYLOADS: Final = (
    ("raw.interval_day", " AND payloads = 1"),
    ("raw.interval_payload", ""),
    ("raw.register_read", " AND payloads = 1"),
    ("raw.register_payload", ""),
)


def payloads_of_meter(connection: Connection, meter_id: str, day: date, channel: str | None) -> list[tuple[bytes, dict[str, Any]]]:
    """(payload hash, row) of every payload of a meter on a billing day."""
    found: list[tuple[bytes, dict[str, Any]]] = []
    for table, single in _PAYLOADS:
        if exists(connection, table):
            query = sql.SQL("SELECT payload_hash, row_to_json(t) FROM {} AS t WHERE billing_day = %s AND meter_id = %s").format(
                sql.Identifier(*table.split("."))
            )
            query += sql.SQL(" AND (%s::text IS NULL OR channel = %s)") + sql.SQL(single) + sql.SQL(" ORDER BY channel, payload_hash")
            rows = connection.execute(query, (day, meter_id, channel, channel)).fetchall()
            found += [(bytes(payload_hash), {"table": table, **row}) for payload_hash, row in rows]
    return found


def statement(connection: Connection, statement_id: str) -> tuple[bytes, dict[str, Any]] | None:
    """(leaf, row) of a statement."""
    if not exists(connection, "billing.statement"):
        return None
    row = connection.execute(
        "SELECT lines_sha256, row_to_json(t) FROM billing.statement AS t WHERE statement_id = %s", (statement_id,)
    ).fetchone()
    return None if row is None else (bytes(row[0]), {"table": "billing.statement", **row[1]})
