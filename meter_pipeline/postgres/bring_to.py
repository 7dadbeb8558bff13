"""SQL that replaces a day of a table by the rows of a frame and leaves equal rows unwritten."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres import few_rows
from meter_pipeline.postgres.copy_binary import copy_frame

Connection = psycopg.Connection[Any]


@lru_cache(maxsize=256)
def statements(
    table: str, columns: tuple[str, ...], key: tuple[str, ...], kept: tuple[str, ...], few: bool, among: bool
) -> tuple[bytes, bytes]:
    """SQL that deletes a day's rows that are no more, and SQL that writes the new and the changed ones. ``table``:
    schema and name; ``kept``: columns in which a stored row may differ and stay; ``few``: the rows are the parameter
    %(rows)s (few_rows.py), else they lie in the table ``incoming``; ``among``: of the service points %(only)s alone.

    Made one time for each shape: putting them together took 4 ms of each day of a correction.
    """
    name = sql.Identifier(*table.split("."))
    rows: sql.Composable = few_rows.relation(name) if few else incoming(table)
    delete = sql.SQL(
        "DELETE FROM {n} AS t WHERE billing_day = %(day)s{among} AND NOT EXISTS (SELECT FROM {i} AS i WHERE {same})"
    ).format(
        n=name,
        i=rows,
        # Said outright: with "or all of them" in it the whole day is looked through for one service point.
        among=sql.SQL(" AND service_point_id = ANY(%(only)s)" if among else ""),
        same=sql.SQL(" AND ").join(sql.SQL("i.{0} = t.{0}").format(sql.Identifier(c)) for c in key),
    )
    compared = [c for c in columns if c not in key and c not in kept]
    action: sql.Composable = sql.SQL("DO NOTHING")
    if compared:
        action = sql.SQL("DO UPDATE SET {sets} WHERE ({old}) IS DISTINCT FROM ({new})").format(
            sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in compared),
            old=sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(c)) for c in compared),
            new=sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(c)) for c in compared),
        )
    insert = sql.SQL("INSERT INTO {n} AS t ({c}) SELECT {c} FROM {i} AS i ON CONFLICT ({k}) {action}").format(
        n=name,
        i=rows,
        c=sql.SQL(", ").join(map(sql.Identifier, columns)),
        k=sql.SQL(", ").join(map(sql.Identifier, key)),
        action=action,
    )
    return delete.as_bytes(None), insert.as_bytes(None)


@lru_cache(maxsize=256)
def _joined(delete: bytes, insert: bytes, named: bool) -> bytes:
    """Both statements as one: for a few rows, sending a second one takes as long as it does. It returns a row for each
    row that was deleted or written, with its service point where it is ``named``."""
    told = b"service_point_id" if named else b"true"
    return (
        b"WITH gone AS (%b RETURNING %b AS told), made AS (%b RETURNING %b AS told) SELECT told FROM gone UNION ALL SELECT told FROM made"
        % (delete, told, insert, told)
    )


def incoming(table: str) -> sql.Identifier:
    """The temporary table in which many rows arrive."""
    return sql.Identifier("incoming_" + table.replace(".", "_"))


@dataclass(frozen=True, slots=True)
class Brought:
    """How many rows were written or deleted, and, where they were asked for, the service points of each."""

    rows: int
    points: set[str]


def bring_to(
    connection: Connection,
    table: str,
    rows: pl.DataFrame,
    key: tuple[str, ...],
    values: dict[str, Any],
    *,
    kept: tuple[str, ...] = (),
    named: bool = False,
) -> Brought:
    """Bring a day of a table to exactly ``rows``. ``values``: ``day``, and ``only``, the service points that the rows
    are of, None for all; ``named``: say which service points' rows were written or deleted."""
    few, only = few_rows.fits(rows), values["only"]
    both = statements(table, tuple(rows.columns), key, kept, few, only is not None)
    if few:
        values = values | {"rows": few_rows.text(rows)}
    else:
        create = sql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DROP")
        connection.execute(create.format(incoming(table), sql.Identifier(*table.split("."))))
        copy_frame(connection, incoming(table), rows, rows.columns)
    count, points = 0, set[str]()
    parts = [part + (b" RETURNING service_point_id" if named else b"") for part in (both if rows.height else both[:1])]
    for statement in [_joined(*both, named)] if few and rows.height else parts:
        done = connection.execute(statement, values)
        count += done.rowcount
        points |= {point for (point,) in done.fetchall()} if named else set()
    if not few:
        connection.execute(sql.SQL("DROP TABLE {}").format(incoming(table)))
    return Brought(count, points)
