"""Rows of reference data with record time, as the leaves of their changes have them.

A change is a row of ref.NAME that began to be known at an instant (``known_from``), the one that ended then (a row of
ref.NAME_version with that ``known_until``), or both. Its leaf is SHA-256 of the JSON text, as PostgreSQL writes jsonb,
of table, old row and new row, over the columns that the change's ledger entry names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from psycopg import sql

from meter_pipeline.ledger.tables.entries import Connection


@dataclass(frozen=True, slots=True)
class HistoryTable:
    """A reference table that keeps its history; ``columns`` without known_until."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """A row of ref.change_set, with the leaves and column names of its ledger entry (None where that is not there)."""

    known_from: datetime
    entry_id: int
    rows: int
    leaves: bytes | None
    columns: dict[str, list[str]] | None


_HISTORY: Final[LiteralString] = """
SELECT c.relname, (SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_constraint AS p, unnest(p.conkey) WITH ORDINALITY AS k (column_no, n), pg_attribute AS a
    WHERE p.conrelid = c.oid AND p.contype = 'p' AND a.attrelid = c.oid AND a.attnum = k.column_no),
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('ref') AND c.relkind = 'r' AND to_regclass(format('ref.%I', c.relname || '_version')) IS NOT NULL
ORDER BY c.relname COLLATE "C"
"""


def history_tables(connection: Connection) -> list[HistoryTable]:
    """The reference tables that keep their history, by name."""
    found = connection.execute(_HISTORY).fetchall()
    return [HistoryTable(str(name), tuple(key), tuple(columns)) for name, key, columns in found]


def _changes(table: HistoryTable, columns: Sequence[str], which: LiteralString) -> sql.Composed:
    """A query of (key as text, instant, leaf) of the changes of a table at the instants that ``which`` says, the leaf
    over some of its columns."""
    return sql.SQL(
        "SELECT concat_ws(' ', {keys}) AS key, instant, "
        "sha256(convert_to(jsonb_build_object('table', {named}, 'old', o.row, 'new', n.row)::text, 'UTF8')) AS leaf FROM "
        "(SELECT {keys}, known_from AS instant, to_jsonb(t) - {without} AS row FROM {table} AS t WHERE known_from {which} UNION ALL "
        "SELECT {keys}, known_from, to_jsonb(v) - {without} FROM {version} AS v WHERE known_from {which}) AS n FULL JOIN "
        "(SELECT {keys}, known_until AS instant, to_jsonb(v) - {without} AS row FROM {version} AS v WHERE known_until {which}) AS o "
        "USING ({keys}, instant)"
    ).format(
        keys=sql.SQL(", ").join(map(sql.Identifier, table.key)),
        named=sql.Literal(table.name),
        without=sql.SQL("{}::text[]").format(
            sql.Literal(["known_until", *(c for c in table.columns if c not in columns)])
        ),
        which=sql.SQL(which),
        table=sql.Identifier("ref", table.name),
        version=sql.Identifier("ref", f"{table.name}_version"),
    )


def leaves(
    connection: Connection, table: HistoryTable, columns: Sequence[str], instants: Sequence[datetime], *, only: bool
) -> list[tuple[datetime, bytes]]:
    """(instant, leaves of its changes end to end) of a table: of some instants (``only``), or of all others."""
    changes = _changes(table, columns, "= ANY (%(instants)s)" if only else "<> ALL (%(instants)s)")
    query = sql.SQL("SELECT instant, string_agg(leaf, ''::bytea) FROM ({}) AS c GROUP BY 1").format(changes)
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    found = connection.execute(query, {"instants": list(instants)}, binary=True).fetchall()
    return [(instant, bytes(flat)) for instant, flat in found]


def changes_at(
    connection: Connection, table: HistoryTable, columns: Sequence[str], instant: datetime
) -> list[tuple[str, bytes]]:
    """(key as text, leaf) of the changes of a table at an instant."""
    query = sql.SQL("SELECT key, leaf FROM ({}) AS c ORDER BY 1").format(_changes(table, columns, "= %(instant)s"))
    connection.execute("SET LOCAL TimeZone = 'UTC'")
    return [(str(key), bytes(leaf)) for key, leaf in connection.execute(query, {"instant": instant}).fetchall()]


def change_sets(connection: Connection) -> list[ChangeSet]:
    """Every change set, in order of its record time. The ledger is read through functions that give of it only what the
    entries of reference data say."""
    found = connection.execute(
        "SELECT known_from, ledger_entry, rows, ref.ledger_leaves(ledger_entry), ref.ledger_columns(ledger_entry) FROM ref.change_set ORDER BY 1"
    ).fetchall()
    return [
        ChangeSet(at, int(entry), int(rows), None if flat is None else bytes(flat), named)
        for at, entry, rows, flat, named in found
    ]
