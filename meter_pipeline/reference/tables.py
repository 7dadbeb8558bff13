"""Reference data in PostgreSQL: schema ``ref`` written and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.schemas.reference import STRETCHES, TABLES, DatedRows, Table


class Overlapping(ValueError):
    """Rows of one group that are in force at the same time; ``pairs``: table, the first row and the second."""

    def __init__(self, pairs: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
        super().__init__(f"{len(pairs)} pairs of rows overlap")
        self.pairs = pairs


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tables of which the folder is the full export: a stored row that is not in it is ended on ``day`` (tables with
    instants: at ``instant``), or taken out where it begins later or its table has no end. ``share``: more than this
    part of a table's current rows is not ended."""

    tables: frozenset[str]
    day: date
    instant: datetime
    share: Decimal


class TooManyEnded(ValueError):
    """A snapshot that would end more than the stated share of a table's rows."""

    def __init__(self, table: str, ended: int, rows: int) -> None:
        super().__init__(f"{table}: {ended} of {rows} rows would end")
        self.table, self.ended, self.rows = table, ended, rows


#: Tables whose rows end without being stretches: table -> (first day, day after the last)
_CLOSED: Final = {"accounts": ("opened", "closed")}


def write(
    connection: psycopg.Connection[Any],
    rows: Mapping[str, list[tuple[Any, ...]]],
    documents: Mapping[tuple[str, int], bytes],
    snapshot: Snapshot | None = None,
) -> dict[str, int]:
    """Upsert checked rows in the caller's transaction; returns rows by table.

    A row of the file whose dates were corrected has another key than the stored one: it takes that one's place where
    the file holds every other row of the table, so that the stored row is known to be gone. Raises
    psycopg.errors.ForeignKeyViolation for a reference that points nowhere, Overlapping for rows that are in force at
    the same time, TooManyEnded for a snapshot that lacks too many rows: the caller's transaction is then lost, whole.
    """
    counts: dict[str, int] = {}
    for name, table in TABLES.items():
        if name not in rows:
            continue
        identifiers = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        with connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE TEMP TABLE incoming (LIKE ref.{} INCLUDING DEFAULTS) ON COMMIT DROP").format(
                    sql.Identifier(name)
                )
            )
            with cursor.copy(sql.SQL("COPY incoming ({}) FROM STDIN").format(identifiers)) as copy:
                for row in rows[name]:
                    copy.write_row(row)
            if name == "tariffs":
                _replace_versions(connection)
            if name in STRETCHES:
                _replace_corrected(connection, name, table, STRETCHES[name])
            _upsert(connection, name, table)
            if snapshot is not None and name in snapshot.tables:
                _end_missing(connection, name, snapshot)
            cursor.execute("DROP TABLE incoming")
        counts[name] = len(rows[name])
    for (tariff_id, version), body in sorted(documents.items()):
        connection.execute(
            "INSERT INTO ref.tariff_document (tariff_id, version, body, sha256) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (tariff_id, version) DO UPDATE SET body = excluded.body, sha256 = excluded.sha256",
            (
                tariff_id,
                version,
                Jsonb(json.loads(body, parse_float=Decimal), dumps=_exact_json),
                hashlib.sha256(body).digest(),
            ),
        )
    found = [pair for name in counts if name in STRETCHES for pair in _overlaps(connection, name, STRETCHES[name])]
    if found:
        raise Overlapping(found)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    return counts


def content_sha256(rows: Mapping[str, Sequence[tuple[Any, ...]]], documents: Mapping[tuple[str, int], bytes]) -> bytes:
    """The SHA-256 of all rows and documents of an import, as its ledger entry states it."""
    digest = hashlib.sha256()
    for name in TABLES:
        for row in rows.get(name, ()):
            digest.update(repr((name, row)).encode())
    for _, body in sorted(documents.items()):
        digest.update(body)
    return digest.digest()


def _upsert(connection: psycopg.Connection[Any], name: str, table: Table) -> None:
    """Write the incoming rows that are new or differ from the stored ones; the others are not touched."""
    columns = list(table.columns)
    rest = [c for c in columns if c not in table.key]
    sets = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in rest]
    connection.execute(
        sql.SQL(
            "INSERT INTO {t} ({columns}) SELECT {incoming} FROM incoming AS i LEFT JOIN {t} AS t ON {same} "
            "WHERE t.{first} IS NULL OR ({old}) IS DISTINCT FROM ({new}) ON CONFLICT ({key}) {action}"
        ).format(
            t=sql.Identifier("ref", name),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            incoming=_columns(columns, "i"),
            same=_equal(table.key, "t", "i"),
            first=sql.Identifier(table.key[0]),
            old=_columns(columns, "t"),
            new=_columns(columns, "i"),
            key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
            action=sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(sets)) if sets else sql.SQL("DO NOTHING"),
        )
    )


def note_import(connection: psycopg.Connection[Any], digest: bytes, source: str, counts: Mapping[str, int]) -> None:
    """Keep that a folder was imported, with the hash of all it held."""
    connection.execute(
        "INSERT INTO ref.import (content_sha256, source, rows) VALUES (%s, %s, %s)",
        (digest, source, Jsonb(dict(counts))),
    )


def last_change(connection: psycopg.Connection[Any], names: Sequence[str] = (*TABLES, "tariff_document")) -> str:
    """The record time of the last change of some reference tables, as text. Waits for a transaction that changes
    reference data; from here on this transaction alone may make the next change."""
    connection.execute("SELECT ref.record_time()")
    times = " UNION ALL ".join(
        f"SELECT max(known_from) AS at FROM ref.{n} UNION ALL SELECT max(known_until) FROM ref.{n}_version"
        for n in names
    )
    return str(scalar(connection, f"SELECT max(at)::text FROM ({times}) AS t"))


def imported_rows(connection: psycopg.Connection[Any], files: bytes) -> dict[str, int] | None:
    """Rows by table of the folder that was imported last, where it is the one with these ``files`` (SHA-256) and no
    reference row changed since."""
    row = connection.execute(
        "SELECT last_change, rows FROM ref.imported_folder WHERE files_sha256 = %s", (files,)
    ).fetchone()
    return dict(row[1]) if row is not None and row[0] == last_change(connection) else None


def note_folder(connection: psycopg.Connection[Any], files: bytes, counts: Mapping[str, int]) -> None:
    """Keep which folder was imported last, in the transaction that imported it."""
    connection.execute(
        "INSERT INTO ref.imported_folder (files_sha256, last_change, rows) VALUES (%s, %s, %s) ON CONFLICT (only_row) DO UPDATE "
        "SET files_sha256 = excluded.files_sha256, last_change = excluded.last_change, rows = excluded.rows",
        (files, last_change(connection), Jsonb(dict(counts))),
    )


def _end_missing(connection: psycopg.Connection[Any], name: str, snapshot: Snapshot) -> None:
    """End the rows of a table that the incoming ones lack; those that begin later, that have no end, or on whose days
    the incoming ones say something else, are taken out."""
    stretch = STRETCHES.get(name)
    starts, ends = (stretch.starts, stretch.ends) if stretch is not None else _CLOSED.get(name, (None, None))
    on = snapshot.instant if name == "installations" else snapshot.day
    missing = sql.SQL("NOT EXISTS (SELECT FROM incoming AS i WHERE {})").format(_equal(TABLES[name].key, "t", "i"))
    parts: dict[str, sql.Composable] = {"t": sql.Identifier("ref", name), "missing": missing, "on": sql.Literal(on)}
    if starts is None or ends is None:
        parts["current"] = sql.SQL("true")
    else:
        parts |= {"s": sql.Identifier(starts), "e": sql.Identifier(ends)}
        parts["current"] = sql.SQL("(t.{e} IS NULL OR t.{e} > {on})").format(**parts)
    found = connection.execute(
        sql.SQL("SELECT count(*) FILTER (WHERE {missing}), count(*) FROM {t} AS t WHERE {current}").format(**parts)
    ).fetchone()
    gone, rows = found or (0, 0)
    if gone > snapshot.share * rows:
        raise TooManyEnded(name, gone, rows)
    if starts is None:
        connection.execute(sql.SQL("DELETE FROM {t} AS t WHERE {missing}").format(**parts))
        return
    connection.execute(sql.SQL("DELETE FROM {t} AS t WHERE {missing} AND t.{s} >= {on}").format(**parts))
    if stretch is not None:
        # The export says what holds on those days: a row it lacks never did.
        parts |= {"group": _equal(stretch.group, "t", "i"), "overlap": _overlap(stretch, "t", "i")}
        contradicted = sql.SQL("EXISTS (SELECT FROM incoming AS i WHERE {group} AND {overlap})").format(**parts)
        connection.execute(sql.SQL("DELETE FROM {t} AS t WHERE {missing} AND {c}").format(**parts, c=contradicted))
    connection.execute(
        sql.SQL("UPDATE {t} AS t SET {e} = {on} WHERE {missing} AND {current} AND t.{s} < {on}").format(**parts)
    )


def _columns(names: Sequence[str], alias: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(c)) for c in names)


def _equal(names: Sequence[str], one: str, other: str) -> sql.Composed:
    return sql.SQL("({}) = ({})").format(_columns(names, one), _columns(names, other))


def _overlap(how: DatedRows, one: str, other: str) -> sql.Composed:
    """SQL: two rows are in force at the same time."""
    return sql.SQL("({o}.{e} IS NULL OR {a}.{s} < {o}.{e}) AND ({a}.{e} IS NULL OR {o}.{s} < {a}.{e})").format(
        a=sql.Identifier(one), o=sql.Identifier(other), s=sql.Identifier(how.starts), e=sql.Identifier(how.ends)
    )


def _replace_corrected(connection: psycopg.Connection[Any], name: str, table: Table, how: DatedRows) -> None:
    """Delete the stored rows whose dates the incoming ones correct.

    Such a row is not in the file, overlaps exactly one new row of the same identity, and every other stored row is in
    the file: a file of some rows only says nothing about those it leaves out.
    """
    stored, parts = sql.Identifier("ref", name), {"same_key": _equal(table.key, "t", "i")}
    connection.execute(
        sql.SQL(
            "CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT t.* FROM {stored} AS t WHERE NOT EXISTS (SELECT FROM incoming AS i WHERE {same_key})"
        ).format(stored=stored, **parts)
    )
    connection.execute(
        sql.SQL(
            "WITH fresh AS (SELECT i.* FROM incoming AS i WHERE NOT EXISTS (SELECT FROM {stored} AS t WHERE {same_key})), "
            "pairs AS (SELECT {old}, count(*) OVER (PARTITION BY {old}) AS of_old, count(*) OVER (PARTITION BY {new}) AS of_new "
            "FROM gone AS g JOIN fresh AS f ON {identity} AND {overlap}), "
            "told AS (SELECT * FROM pairs WHERE of_old = 1 AND of_new = 1) "
            "DELETE FROM {stored} AS t USING told WHERE {of_told} AND (SELECT count(*) FROM told) = (SELECT count(*) FROM gone)"
        ).format(
            stored=stored,
            old=_columns(table.key, "g"),
            new=_columns(table.key, "f"),
            identity=_equal(how.identity, "g", "f"),
            overlap=_overlap(how, "g", "f"),
            of_told=_equal(table.key, "t", "told"),
            **parts,
        )
    )
    connection.execute("DROP TABLE gone")


def _replace_versions(connection: psycopg.Connection[Any]) -> None:
    """Take out the stored version of a tariff whose place an incoming one takes: the incoming one has a higher number,
    begins and ends on the same days, and the file lacks the stored one. The stored one's document stays, and with it
    every bill that was made with it."""
    connection.execute(
        "DELETE FROM ref.tariffs AS t USING incoming AS i WHERE i.tariff_id = t.tariff_id AND i.version > t.version AND i.valid_from = t.valid_from "
        "AND i.valid_to IS NOT DISTINCT FROM t.valid_to AND NOT EXISTS (SELECT FROM incoming AS k WHERE (k.tariff_id, k.version) = (t.tariff_id, t.version))"
    )


def _overlaps(
    connection: psycopg.Connection[Any], name: str, how: DatedRows
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The first pairs of rows of a table that are in force at the same time."""
    columns = list(TABLES[name].columns)
    order = list(dict.fromkeys((how.starts, *TABLES[name].key)))
    rows = connection.execute(
        sql.SQL(
            "SELECT {one}, {other} FROM {t} AS a JOIN {t} AS b ON {group} AND {before} AND {overlap} ORDER BY {order} LIMIT 20"
        ).format(
            one=_columns(columns, "a"),
            other=_columns(columns, "b"),
            t=sql.Identifier("ref", name),
            group=_equal(how.group, "a", "b"),
            before=sql.SQL("({}) < ({})").format(_columns(order, "a"), _columns(order, "b")),
            overlap=_overlap(how, "a", "b"),
            order=_columns([*how.group, how.starts], "b"),
        )
    ).fetchall()
    n = len(columns)
    return [(name, dict(zip(columns, r[:n], strict=True)), dict(zip(columns, r[n:], strict=True))) for r in rows]


def remove(connection: psycopg.Connection[Any], name: str, key: Sequence[str]) -> dict[str, Any] | None:
    """Delete the row of a key (as text, in the order of the table's key); the row, or None where there is none."""
    return _changed(connection, name, key, sql.SQL("DELETE FROM {t} AS t WHERE {key}"))


def end(connection: psycopg.Connection[Any], name: str, key: Sequence[str], on: str) -> dict[str, Any] | None:
    """End the stretch of a key on a date or an instant (excluded); the row as it is then, or None where there
    is none.
    """
    change = sql.SQL("UPDATE {{t}} AS t SET {} = {} WHERE {{key}}").format(
        sql.Identifier(STRETCHES[name].ends), sql.Literal(on)
    )
    return _changed(connection, name, key, sql.SQL(change.as_string(connection)))


def _changed(
    connection: psycopg.Connection[Any], name: str, key: Sequence[str], change: sql.SQL
) -> dict[str, Any] | None:
    table = TABLES[name]
    columns = list(table.columns)
    where = sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(c), sql.Literal(v)) for c, v in zip(table.key, key, strict=True)
    )
    statement = change.format(t=sql.Identifier("ref", name), key=where) + sql.SQL(" RETURNING {}").format(
        _columns(columns, "t")
    )
    row = connection.execute(statement).fetchone()
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    return None if row is None else dict(zip(columns, row, strict=True))


def used_documents(
    connection: psycopg.Connection[Any], versions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], bytes]:
    """The stored documents of those of some tariff versions that something was billed with."""
    found = connection.execute(
        "SELECT d.tariff_id, d.version, d.body::text FROM ref.tariff_document AS d JOIN billing.tariff_version AS v USING (tariff_id, version) "
        "WHERE (d.tariff_id, d.version) IN (SELECT * FROM unnest(%s::text[], %s::int[]))",
        ([t for t, _ in versions], [v for _, v in versions]),
    )
    return {(str(t), int(v)): str(body).encode() for t, v, body in found}


#: Rows of a table from which readers would notice missing statistics
_SETTLE_FROM = 10_000


def settle(database: Database, counts: Mapping[str, int]) -> None:
    """Vacuum and analyse the tables of a large import, after its commit: the first billing day would otherwise mark
    every row itself and plan without statistics. Not where no reference row changed since they were vacuumed. Tables of
    another owner are left to autovacuum (the server warns and goes on)."""
    large = [name for name, rows in counts.items() if rows >= _SETTLE_FROM]
    if not large:
        return
    with database.connect("meter-pipeline reference", autocommit=True) as connection:
        due = connection.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'ref' AND relname = ANY(%s) AND (last_vacuum IS NULL "
            "OR last_analyze IS NULL OR least(last_vacuum, last_analyze) <= (SELECT max(known_from) FROM ref.change_set)) ORDER BY 1",
            (large,),
        ).fetchall()
        if due:
            tables = sql.SQL(", ").join(sql.Identifier("ref", name) for (name,) in due)
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(tables))


def spelled(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Ids that the customer system writes otherwise than in capitals: the kind of each, and the id."""
    return connection.execute("SELECT kind, id FROM ref.id_spellings WHERE written <> id ORDER BY 1, 2").fetchall()


def read_table(database: Database, name: str) -> pl.DataFrame:
    """A reference table as a frame sorted by key; decimals as exact text in Decimal columns, instants UTC."""
    table = TABLES[name]
    selected = ", ".join(f"{c}::text AS {c}" if k.rstrip("?") == "decimal" else c for c, k in table.columns.items())
    frame = database.read(f"SELECT {selected} FROM ref.{name} ORDER BY {', '.join(table.key)}")
    return frame.with_columns(
        pl.col(c).cast(pl.Decimal(18, 6)) for c, k in table.columns.items() if k.rstrip("?") == "decimal"
    )


def _exact_json(value: Any) -> str:
    # A float in a tariff would lose digits on the way: numbers are parsed as Decimal and written as they stood.
    match value:
        case Decimal():
            return format(value, "f")
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{_exact_json(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_exact_json, value)) + "]"
        case _:
            return json.dumps(value)


def record_time(connection: psycopg.Connection[Any]) -> datetime | None:
    """The record time of the caller's transaction; None where it has written no reference row."""
    found = scalar(connection, "SELECT nullif(current_setting('meter_pipeline.record_time', true), '')::timestamptz")
    return found if isinstance(found, datetime) else None


def changed_rows(connection: psycopg.Connection[Any], instant: datetime) -> list[tuple[str, str | None, str | None]]:
    """Rows changed at a record time: table, the row before and after as JSON text (None: there was none)."""
    return connection.execute("SELECT table_name, old::text, new::text FROM ref.changes_at(%s)", (instant,)).fetchall()


def changed_leaves(connection: psycopg.Connection[Any], instant: datetime) -> list[tuple[str, bytes]]:
    """Rows changed at a record time: table and the leaf of the ledger, in the leaves' order."""
    return connection.execute("SELECT table_name, leaf FROM ref.changes_at(%s)", (instant,)).fetchall()


def note_change_set(connection: psycopg.Connection[Any], row: tuple[datetime, int, str | None, str, str, int]) -> None:
    """Write a change set: record time, ledger entry, who made it (None: the session's user), source, reason, rows."""
    connection.execute(
        "INSERT INTO ref.change_set (known_from, ledger_entry, made_by, source, reason, rows) "
        "VALUES (%s, %s, coalesce(%s, current_user), %s, %s, %s)",
        row,
    )


def rows_as_of(database: Database, table: str, key: Sequence[str], instant: datetime) -> list[dict[str, Any]]:
    """A reference table as it was known at an instant, by key, with ``known_from``. Numbers are Decimal."""
    query = sql.SQL("SELECT * FROM ref.{} (%s) ORDER BY {}").format(
        sql.Identifier(f"{table}_as_of"), sql.SQL(", ").join(map(sql.Identifier, key))
    )
    with database.connect("meter-pipeline reference") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, (instant,)).fetchall()


def changes_per_day(
    connection: psycopg.Connection[Any], table: str, key: Sequence[str], zone: str
) -> list[tuple[date, int]]:
    """Rows of a reference table that were added, changed or taken out, by civil day of a zone; rows of before history
    was kept are left out."""
    same = " AND ".join(f"n.{column} = v.{column}" for column in key)
    query = (
        f"WITH every AS (SELECT {', '.join(key)}, known_from FROM ref.{table} UNION ALL SELECT {', '.join(key)}, known_from FROM ref.{table}_version), "
        "moved AS (SELECT known_from AS at FROM every WHERE known_from > '2000-01-01 00:00:00Z' UNION ALL "
        f"SELECT v.known_until FROM ref.{table}_version AS v WHERE NOT EXISTS (SELECT FROM every AS n WHERE {same} AND n.known_from = v.known_until)) "
        "SELECT (at AT TIME ZONE %s)::date, count(*) FROM moved GROUP BY 1 ORDER BY 1"
    )
    return connection.execute(query.encode(), (zone,)).fetchall()


def version_of(connection: psycopg.Connection[Any], table: str) -> tuple[datetime | None, int]:
    """When a reference table last changed (record time), and how many rows it has."""
    query = (
        f"SELECT greatest((SELECT max(known_from) FROM ref.{table}), (SELECT max(known_until) FROM ref.{table}_version)), "
        f"(SELECT count(*) FROM ref.{table})"
    )
    row = connection.execute(query.encode()).fetchone()
    return (None, 0) if row is None else (row[0], int(row[1]))


def billed_in_themselves(connection: psycopg.Connection[Any]) -> list[tuple[list[str], date]]:
    """Circles of service points of which each is billed at the next (totals_into, deducts_from), from the least one on,
    and the first day on which all of them hold."""
    rows = connection.execute(
        """
        WITH RECURSIVE part AS (
            SELECT service_point_id COLLATE "C" AS member, upper(btrim(value)) COLLATE "C" AS target, daterange(valid_from, valid_to) AS held
            FROM ref.service_attributes WHERE attribute IN ('totals_into', 'deducts_from')),
        way AS (
            SELECT member AS first, target AS at, held, ARRAY[member] AS path FROM part
            UNION ALL SELECT w.first, p.target, w.held * p.held, w.path || p.member FROM way AS w JOIN part AS p ON p.member = w.at
            WHERE w.at <> ALL (w.path) AND w.held && p.held)
        SELECT path, min(lower(held)) FROM way WHERE at = first AND first = (SELECT min(x) FROM unnest(path) AS x) GROUP BY 1 ORDER BY 1
        """
    ).fetchall()
    return [(list(path), since) for path, since in rows]


def sums_of_registers(connection: psycopg.Connection[Any], table: str) -> list[tuple[str, str, str]]:
    """Rows of channels or channel_values that name a register as the one to add up to: meter, channel, and the channel
    named."""
    name = sql.Identifier("ref", table)
    query = sql.SQL(
        "SELECT DISTINCT v.meter_id, v.channel, v.sums_to FROM {} AS v JOIN ref.channels AS c ON c.meter_id = v.meter_id AND c.channel = v.sums_to "
        "WHERE c.kind = 'register' ORDER BY 1, 2, 3"
    )
    return connection.execute(query.format(name)).fetchall()
