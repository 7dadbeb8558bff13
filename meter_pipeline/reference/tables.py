"""Reference data in PostgreSQL: schema ``ref`` written and read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reference import TABLES


def write(
    connection: psycopg.Connection[Any],
    rows: Mapping[str, list[tuple[Any, ...]]],
    documents: Mapping[tuple[str, int], bytes],
    source: str,
) -> tuple[dict[str, int], bytes]:
    """Upsert checked rows in the caller's transaction; returns rows by table and the SHA-256 of all that was given.

    Raises psycopg.errors.ForeignKeyViolation for a reference that points nowhere: the caller's transaction is then
    lost, whole.
    """
    digest = hashlib.sha256()
    counts: dict[str, int] = {}
    for name, table in TABLES.items():
        if name not in rows:
            continue
        columns = list(table.columns)
        identifiers = sql.SQL(", ").join(map(sql.Identifier, columns))
        rest = [c for c in columns if c not in table.key]
        with connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE TEMP TABLE incoming (LIKE ref.{}) ON COMMIT DROP").format(sql.Identifier(name))
            )
            with cursor.copy(sql.SQL("COPY incoming ({}) FROM STDIN").format(identifiers)) as copy:
                for row in rows[name]:
                    copy.write_row(row)
                    digest.update(repr((name, row)).encode())
            action = (
                sql.SQL("DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})").format(
                    sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in rest),
                    sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(c)) for c in rest),
                    sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(c)) for c in rest),
                )
                if rest
                else sql.SQL("DO NOTHING")
            )
            cursor.execute(
                sql.SQL("INSERT INTO ref.{} AS t ({}) SELECT {} FROM incoming ON CONFLICT ({}) ").format(
                    sql.Identifier(name), identifiers, identifiers, sql.SQL(", ").join(map(sql.Identifier, table.key))
                )
                + action
            )
            cursor.execute("DROP TABLE incoming")
        counts[name] = len(rows[name])
    for (tariff_id, version), body in sorted(documents.items()):
        digest.update(body)
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
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    connection.execute(
        "INSERT INTO ref.import (content_sha256, source, rows) VALUES (%s, %s, %s)",
        (digest.digest(), source, Jsonb(counts)),
    )
    return counts, digest.digest()


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


#: Rows of a table from which its first readers would notice that nobody has vacuumed it
_SETTLE_FROM = 10_000


def settle(database: Database, counts: Mapping[str, int]) -> None:
    """Vacuum and analyse the tables of a large import, after its commit: the first billing day would otherwise mark
    every row itself and plan without statistics. Tables of somebody else's are left to autovacuum (the server warns and
    goes on)."""
    large = [name for name, rows in counts.items() if rows >= _SETTLE_FROM]
    if large:
        with database.connect("meter-pipeline reference", autocommit=True) as connection:
            connection.execute(
                sql.SQL("VACUUM (ANALYZE) {}").format(sql.SQL(", ").join(sql.Identifier("ref", name) for name in large))
            )


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
