"""The business rows behind the ledger's leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, Final, LiteralString

import polars as pl
from psycopg import sql

from meter_pipeline.ledger.leaf_columns import CHARGE_2, DETERMINANT_1
from meter_pipeline.ledger.tables.entries import Connection
from meter_pipeline.postgres import partitions
from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession, reading
from meter_pipeline.postgres.vectors import ARRAYS, RAW_INTERVAL_DAY, RAW_INTERVAL_PAYLOAD


def exists(connection: Connection, table: str) -> bool:
    """Whether a table is part of this installation."""
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


@contextmanager
def same_snapshot(database: Database, connection: Connection) -> Iterator[ReadSession]:
    """A database whose frames are read in the snapshot of ``connection``'s transaction, which is REPEATABLE READ and
    outlives it."""
    snapshot = _exported(connection)
    with reading(database) as session:
        with session.connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        yield session
        with session.connection.cursor() as cursor:
            cursor.execute("COMMIT")


@contextmanager
def second_session(database: Database, connection: Connection) -> Iterator[Connection]:
    """A read-only connection that sees what ``connection`` sees. The transaction of ``connection`` is REPEATABLE READ
    and ends after this one."""
    snapshot = _exported(connection)
    with database.connect("meter-pipeline-ledger-verify") as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
        yield other


def _exported(connection: Connection) -> str:
    """The name under which other sessions can use the snapshot of a connection's transaction."""
    row = connection.execute("SELECT pg_export_snapshot()").fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM gives a row
    return str(row[0])


#: The billing day of a row, where it is not the column of that name. A statement's is its period's last.
_DAY: Final[dict[str, LiteralString]] = {"billing.statement": "period_end - 1"}
_CHARGE_ARRAYS: Final = (
    "energy_to_date",
    "export_to_date",
    "peaks_to_date",
    "peak_at_to_date",
    "register_days",
    "carry",
    "history",
    "amounts",
)
_DETERMINANT_ARRAYS: Final = ("energy", "export", "peaks", "peak_at")
_VALIDATED: Final = (
    "service_point_id",
    "meter_id",
    "channel",
    "unit",
    "flow",
    "account_id",
    "tariff_id",
    "cycle_id",
    "billed",
    "billing_day",
    "starts_at",
    "version",
    "row_flags",
    "register_difference_micro",
    "unscaled_micro",
    "total_micro",
    "expected",
    "actual",
    "estimated",
    "missing",
    "interval_minutes",
    "slots",
    "scale",
    "quality",
    "content_hash",
)
_VALIDATED_ARRAYS: Final[dict[str, Any]] = {
    "values": pl.Int32,
    "wide_values": pl.Int64,
    "qualities": pl.Int16,
    "flags": pl.Int32,
}
#: Tables whose leaves hash texts only, so that the server can make them: columns and arrays.
_HASHED_BY_SERVER: Final = {
    "billing.charge_day": (CHARGE_2, _CHARGE_ARRAYS),
    "billing.determinant_day": (DETERMINANT_1, _DETERMINANT_ARRAYS),
}
#: Which of their rows have a derived column that is wrong
_WRONG: Final[dict[str, LiteralString]] = {
    "billing.charge_day": "total <> (SELECT coalesce(sum(amount), 0) FROM unnest(amounts) AS amount)"
}
_CHARGE_SELECT: Final = f"SELECT {listed((*CHARGE_2, 'total'), _CHARGE_ARRAYS)}"
_DETERMINANT_SELECT: Final = f"SELECT {listed(DETERMINANT_1, _DETERMINANT_ARRAYS)}"
#: Selects of the tables whose hasher reads chosen columns, one row a row of the table; arrays come as bytes.
_CONTENT: Final[dict[str, str]] = {
    "raw.interval_day": RAW_INTERVAL_DAY.select(),
    "raw.interval_payload": RAW_INTERVAL_PAYLOAD.select(),
    "vee.interval_day": f"SELECT {listed((*_VALIDATED, *_VALIDATED_ARRAYS), _VALIDATED_ARRAYS)} FROM vee.interval_day",
    "vee.interval_day_version": f"SELECT {listed((*_VALIDATED, *_VALIDATED_ARRAYS), _VALIDATED_ARRAYS)} FROM vee.interval_day_version",
    "billing.charge_day": f"{_CHARGE_SELECT} FROM billing.charge_day",
    "billing.charge_day_version": f"{_CHARGE_SELECT} FROM billing.charge_day_version",
    "billing.statement": "SELECT lines_sha256, statement_id, (total * 1000000)::bigint AS total, lines AS said_lines, "
    "(SELECT count(*) FROM billing.statement_line AS l WHERE l.statement_id = t.statement_id) AS line_count, "
    "(SELECT (coalesce(sum(amount), 0) * 1000000)::bigint FROM billing.statement_line AS l WHERE l.statement_id = t.statement_id) AS line_total, "
    "coalesce((SELECT string_agg(concat_ws(E'\\x1f', l.line_no, l.service_point_id, l.tariff_id, "
    "l.tariff_version, l.segment_start, l.segment_end, l.line_key, coalesce((l.quantity * 1000000)::bigint::text, ''), (l.amount * 1000000)::bigint), "
    "E'\\x1e' ORDER BY l.line_no) FROM billing.statement_line AS l WHERE l.statement_id = t.statement_id), '') AS lines FROM billing.statement AS t",
    "billing.determinant_day": f"{_DETERMINANT_SELECT} FROM billing.determinant_day",
    "billing.determinant_day_version": f"{_DETERMINANT_SELECT} FROM billing.determinant_day_version",
    "raw.dead_letter": "SELECT leaf, salt, raw FROM raw.dead_letter WHERE salt IS NOT NULL",
    "billing.adjustment_line": "SELECT adjustment_id, line_no, action, service_point_id, line_key, amount::text AS amount FROM billing.adjustment_line",
}
#: Their arrays, by element type.
_LISTS: Final[dict[str, dict[str, Any]]] = {
    "raw.interval_day": ARRAYS,
    "raw.interval_payload": ARRAYS,
    "vee.interval_day": _VALIDATED_ARRAYS,
    "vee.interval_day_version": _VALIDATED_ARRAYS,
    "billing.charge_day": dict.fromkeys(_CHARGE_ARRAYS, pl.Int64),
    "billing.charge_day_version": dict.fromkeys(_CHARGE_ARRAYS, pl.Int64),
    "billing.determinant_day": dict.fromkeys(_DETERMINANT_ARRAYS, pl.Int64),
    "billing.determinant_day_version": dict.fromkeys(_DETERMINANT_ARRAYS, pl.Int64),
}
#: Rows that hang on the rows of another table: that table, and the column of both.
_HANGS: Final[dict[str, tuple[str, str]]] = {
    "billing.statement_line": ("billing.statement", "statement_id"),
    "billing.statement_segment": ("billing.statement", "statement_id"),
}


def hashes(connection: Connection, table: str, column: str, day: date | None) -> bytes:
    """The leaf of every row of a billing day, or of the whole table, end to end in no order.

    Sixteen values rather than a row each: a hundred thousand rows cost a tenth of the time, and a value has a limit of
    a gigabyte.
    """
    leaf = sql.Identifier(column)
    query = sql.SQL("SELECT string_agg({}, ''::bytea) FROM {}").format(leaf, _table(table)) + _on(table, day)
    query += sql.SQL(" GROUP BY get_byte({}, 0) & 15").format(leaf)
    joined = b"".join(
        [bytes(row[0]) for row in connection.execute(query, [day] if day else [], binary=True).fetchall()]
    )
    return (
        joined + b"".join(partitions.archived_column(connection, table, column, day))
        if table in partitions.ARCHIVED
        else joined
    )


def hashed_by_server(connection: Connection, table: str, encoding: str | None, day: date) -> bytes | None:
    """The leaf of every row of a billing day, end to end in no order, made by the server from the row's columns. None
    where it cannot make them: the day is archived, or the encoding has more than texts.

    An array's text is written without its outer braces: one with a null, or of two dimensions, gives another leaf.
    """
    if table not in _HASHED_BY_SERVER or partitions.archived_table(connection, table, day) is not None:
        return None
    columns, arrays = _HASHED_BY_SERVER[table]
    parts = [
        sql.SQL("left(substr({}::text, 2), -1)" if name in arrays else "{}").format(sql.Identifier(name))
        for name in columns
    ]
    query = sql.SQL(
        "SELECT string_agg(sha256(convert_to(concat_ws(E'\\x1f', {}, {}), 'UTF8')), ''::bytea) "
        "FROM {} WHERE billing_day = %s GROUP BY hashtext(service_point_id) & 15"
    ).format(sql.Literal(encoding), sql.SQL(", ").join(parts), _table(table))
    return b"".join([bytes(row[0]) for row in connection.execute(query, [day], binary=True).fetchall()])


def wrongly_derived(connection: Connection, tables: Sequence[str], day: date) -> int:
    """How many rows of a billing day have a derived column that is not what the others give."""
    counts = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT count(*) FROM {} WHERE billing_day = %(day)s AND " + _WRONG[table]).format(_table(table))
        for table in tables
        if table in _WRONG
    )
    query = sql.SQL("SELECT coalesce(sum(count), 0)::bigint FROM ({}) AS counts").format(counts)
    row = connection.execute(query, {"day": day}).fetchone() if set(tables) & set(_WRONG) else None
    return int(row[0]) if row else 0


def _table(table: str) -> sql.Identifier:
    return sql.Identifier(*table.split("."))


def _on(table: str, day: date | None, place: LiteralString = "%s") -> sql.Composable:
    if day is None:
        return sql.SQL("")
    if table in _HANGS:
        owner, key = _HANGS[table]
        return (
            sql.SQL(" WHERE {0} IN (SELECT {0} FROM {1}").format(sql.Identifier(key), _table(owner))
            + _on(owner, day, place)
            + sql.SQL(")")
        )
    return sql.SQL(" WHERE ") + sql.SQL(_DAY.get(table, "billing_day")) + sql.SQL(" = ") + sql.SQL(place)


def names_of_points(connection: Connection, day: date, points: Sequence[str]) -> dict[str, tuple[str, str]]:
    """By table of a day's rows, the column and the names (joined by commas) by which those of some service points are
    found: reads by the meters that the day has at them."""
    rows = connection.execute(
        "SELECT meter_id FROM vee.interval_day WHERE billing_day = %(d)s AND service_point_id = ANY(%(p)s) "
        "UNION SELECT meter_id FROM vee.register_day WHERE billing_day = %(d)s AND service_point_id = ANY(%(p)s) ORDER BY 1",
        {"d": day, "p": list(points)},
    ).fetchall()
    meters = ("meter_id", ",".join(str(meter) for (meter,) in rows))
    named = ("service_point_id", ",".join(points))
    raw = dict.fromkeys((table for table, _ in _PAYLOADS), meters)
    return raw | dict.fromkeys(_OF_POINTS, named)


#: Tables of a day with rows by service point
_OF_POINTS: Final = (
    "vee.interval_day",
    "vee.interval_day_version",
    "billing.charge_day",
    "billing.determinant_day",
)


def parts(
    database: ReadSession, table: str, day: date | None, only: tuple[str, str] | None = None
) -> Iterator[pl.DataFrame]:
    """Every row of a billing day, or of the whole table, through Arrow and a part at a time: what its hasher needs of
    it. ``only``: a column and the names, joined by commas, of the rows that are wanted."""
    archived = partitions.archived_frame(database, table, day) if day is not None else None
    if archived is not None:
        yield archived
        return
    query = _CONTENT.get(table) or f"SELECT * FROM {table}"
    narrowed = "" if only is None else f" AND {only[0]} = ANY(string_to_array($2, ','))"
    values = ((day,) if day else ()) + (() if only is None else (only[1],))
    for part in database.parts(query + _on(table, day, "$1").as_string(None) + narrowed, values):
        yield lists(part, _LISTS.get(table, {}))


def rows(connection: Connection, table: str, day: date | None) -> Iterator[str]:
    """Every row of a billing day, or of the whole table, as PostgreSQL's own JSON text, streamed. Instants are ISO
    8601, bytes ``\\x`` hex."""
    query = sql.SQL("SELECT row_to_json(t)::text FROM {} AS t").format(_table(table)) + _on(table, day)
    with connection.cursor("ledger_rows") as cursor:
        cursor.itersize = 2000
        cursor.execute(query, [day] if day else [])
        for (text,) in cursor:
            yield text


def archived_rows(database: Database, connection: Connection, table: str, day: date | None) -> Iterator[str]:
    """The rows of an archived day, as ``rows`` gives those of a partition; none where the day is not archived."""
    row = (
        partitions.archived_table(connection, table, day) if day is not None and table in partitions.ARCHIVED else None
    )
    if row is not None:
        with partitions.as_temporary(database, row) as beside, beside.cursor("archived_rows") as cursor:
            cursor.itersize = 2000
            cursor.execute("SELECT row_to_json(t)::text FROM archived_rows AS t")
            for (text,) in cursor:
                yield text


#: Key columns of text beside the identifiers: their order does not depend on the database's language.
_TEXT_KEYS: Final = frozenset({"channel", "flow", "unit"})


def stored_content(
    database: Database,
    connection: Connection,
    recorded: tuple[str, Sequence[str], Sequence[str]],
    of: int | tuple[str, str],
    day: date | None,
) -> tuple[int, str]:
    """``content`` of a table, its columns and its key (``said``), in the archive where the day lies there."""
    table, columns, key = recorded
    row = (
        partitions.archived_table(connection, table, day) if day is not None and table in partitions.ARCHIVED else None
    )
    if row is None:
        return content(connection, table, columns, key, of)
    with partitions.as_temporary(database, row) as beside:
        return content(beside, "archived_rows", columns, key, of)


def content(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    key: Sequence[str],
    of: int | tuple[str, str],
) -> tuple[int, str]:
    """How many rows a table has, and their columns as one text: mp-content/1. ``of``: the rows of the statements that
    name an entry, or those with a value in a column."""
    parts = sql.SQL(", ").join(sql.SQL("coalesce({}::text, '')").format(sql.Identifier(name)) for name in columns)
    order = sql.SQL(", ").join(
        sql.SQL('{} COLLATE "C"' if name.endswith("_id") or name in _TEXT_KEYS else "{}").format(sql.Identifier(name))
        for name in key
    )
    if isinstance(of, int):
        which: sql.Composable = sql.SQL(
            "statement_id IN (SELECT statement_id FROM billing.statement WHERE ledger_entry = %s)"
        )
        value: int | str = of
    else:
        which, value = sql.SQL("{} = %s").format(sql.Identifier(of[0])), of[1]
    query = sql.SQL(
        "SELECT count(*), coalesce(string_agg(concat_ws(E'\\x1f', {}), E'\\x1e' ORDER BY {}), '') FROM {} WHERE {}"
    ).format(parts, order, _table(table), which)
    row = connection.execute(query, [value]).fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")


def states(connection: Connection, table: str, key: str, wanted: Sequence[str] | None = None) -> dict[str, Any]:
    """Rows of a table by their key, each as column -> text, null where null: all, or those of ``wanted`` keys."""
    query = sql.SQL(
        "SELECT {key}, (SELECT jsonb_object_agg(c.key, c.value) FROM jsonb_each_text(to_jsonb(t)) AS c) FROM {table} AS t "
        "WHERE %(w)s::text[] IS NULL OR {key} = ANY(%(w)s) ORDER BY 1"
    ).format(key=sql.Identifier(key), table=_table(table))
    return dict(connection.execute(query, {"w": None if wanted is None else list(wanted)}).fetchall())


def days_of(connection: Connection, table: str) -> list[date]:
    """Billing days a table has rows of, archived ones among them."""
    query = sql.SQL("SELECT DISTINCT {} FROM {} ORDER BY 1").format(
        sql.SQL(_DAY.get(table, "billing_day")), _table(table)
    )
    days = {row[0] for row in connection.execute(query).fetchall()}
    return sorted(
        days
        | {
            row.billing_day
            for row in partitions.catalogue(connection, state="archived")
            if row.table == table and row.rows
        }
    )


def control_totals(connection: Connection) -> list[dict[str, Any]]:
    """The store's own control totals of every feed file; empty where there is no raw store."""
    if not exists(connection, "raw.control_total"):
        return []
    rows = connection.execute(
        "SELECT encode(sha256, 'hex'), file_name, received, accepted, duplicate, superseded, rejected, waiting FROM raw.control_total ORDER BY 1"
    ).fetchall()
    names = ("sha256", "file_name", "received", "accepted", "duplicate", "superseded", "rejected", "waiting")
    return [dict(zip(names, row, strict=True)) for row in rows]


#: Tables of payloads, and which of their rows are a payload rather than several merged.
_PAYLOADS: Final = (
    ("raw.interval_day", " AND payloads = 1"),
    ("raw.interval_payload", ""),
    ("raw.register_read", " AND payloads = 1"),
    ("raw.register_payload", ""),
)


def payloads_of_meter(
    connection: Connection, meter_id: str, day: date, channel: str | None
) -> list[tuple[bytes, dict[str, Any]]]:
    """(payload hash, row) of every payload of a meter on a billing day."""
    found: list[tuple[bytes, dict[str, Any]]] = []
    for table, single in _PAYLOADS:
        if exists(connection, table):
            query = sql.SQL(
                "SELECT payload_hash, row_to_json(t) FROM {} AS t WHERE billing_day = %s AND meter_id = %s"
            ).format(sql.Identifier(*table.split(".")))
            query += (
                sql.SQL(" AND (%s::text IS NULL OR channel = %s)")
                + sql.SQL(single)
                + sql.SQL(" ORDER BY channel, payload_hash")
            )
            rows = connection.execute(query, (day, meter_id, channel, channel)).fetchall()
            found += [(bytes(payload_hash), {"table": table, **row}) for payload_hash, row in rows]
    return found


def statement(connection: Connection, statement_id: str) -> tuple[bytes, dict[str, Any]] | None:
    """(leaf, row) of a statement, its lines under ``lines``: the columns its leaf is over, quantities and money as
    exact text."""
    if not exists(connection, "billing.statement"):
        return None
    row = connection.execute(
        "SELECT lines_sha256, row_to_json(t), coalesce((SELECT json_agg(json_build_object('line_no', l.line_no, 'service_point_id', l.service_point_id,"
        " 'tariff_id', l.tariff_id, 'tariff_version', l.tariff_version, 'segment_start', l.segment_start, 'segment_end', l.segment_end, 'line_key',"
        " l.line_key, 'name', l.name, 'quantity', l.quantity::text, 'unit', l.unit, 'amount', l.amount::text) ORDER BY l.line_no)"
        " FROM billing.statement_line AS l WHERE l.statement_id = t.statement_id), '[]')"
        " FROM billing.statement AS t WHERE statement_id = %s",
        (statement_id,),
    ).fetchone()
    return None if row is None else (bytes(row[0]), {"table": "billing.statement", **row[1], "lines": row[2]})
