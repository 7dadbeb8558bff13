"""What the same day's work costs at least on this machine, stage by stage, with nothing of this product in the way.

- land: the feed files' bytes read, hashed with SHA-256 one time, and parsed by Polars' bare ``read_csv``.
- ingest, validate, flags, bill, ledger: COPY (binary) of the very rows that the stage wrote, into tables of the same
  columns, constraints and indexes, one transaction a stage, committed with the server's durability as it is (fsync on).

Floors of stages that PostgreSQL could overlap are added up, as the stages of a day follow each other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres.database import Database

#: Stage -> schema that it writes. Landing writes files and a few rows a file.
SCHEMAS: Final = {
    "ingest": "raw",
    "validate": "vee",
    "flags": "anomaly",
    "bill": "billing",
    "ledger": "ledger",
}
_CHUNK: Final = 1 << 20
#: Leaf tables of a schema with their stored columns (generated ones are computed by the server), and whether they have
#: a billing day
_TABLES: Final = """
SELECT c.relname, array_agg(a.attname ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''), bool_or(a.attname = 'billing_day')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = %s AND c.relkind = 'r' GROUP BY c.relname ORDER BY c.relname
"""


def run(meters: int = 100_000, interval: int = 15, city: str = "") -> dict[str, Any]:
    """The ratios of `bench day` over the floor, by stage."""
    from benchmarks.day import run as run_day

    return run_day(meters=meters, interval=interval, city=city)


def landing(files: Sequence[Path]) -> float:
    """Seconds to read, hash and parse feed files, one after another. Call it before the day is landed."""
    started = time.perf_counter()
    for path in files:
        content = path.read_bytes()
        hashlib.sha256(content).digest()
        pl.read_csv(content)
    return time.perf_counter() - started


def writing(database: Database, day: date, work: Path) -> dict[str, float]:
    """Seconds to COPY what each stage wrote of a day. ``work``: a folder for the rows meanwhile."""
    return {stage: _copy_again(database, schema, day, work) for stage, schema in SCHEMAS.items()}


def ratios(ours: Mapping[str, float], floor: Mapping[str, float]) -> dict[str, float | None]:
    """Ours over the floor: for the whole (the sum of the stages on both sides) and by stage."""
    whole = sum(ours.values()) / sum(floor.values())
    by_stage = {f"{stage}_over_floor": round(ours[stage] / floor[stage], 2) for stage in ours if floor.get(stage)}
    return {"ours_over_floor": round(whole, 2), **by_stage}


def _copy_again(database: Database, schema: str, day: date, work: Path) -> float:
    kept: list[tuple[str, list[str], Path]] = []
    with database.connect("bench floor") as connection:
        for name, columns, daily in connection.execute(_TABLES, (schema,)).fetchall():
            path = work / f"{schema}.{name}.copy"
            if _copy_out(connection, schema, name, columns, day if daily else None, path):
                kept.append((name, columns, path))
    try:
        with database.connect("bench floor") as connection:
            started = time.perf_counter()
            connection.execute("CREATE SCHEMA IF NOT EXISTS bench_floor")
            for name, columns, path in kept:
                clone = sql.Identifier("bench_floor", f"{schema}_{name}"[:63])
                source = sql.Identifier(schema, name)
                connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(clone, source))
                _copy_in(connection, clone, columns, path)
            connection.commit()
            return time.perf_counter() - started
    finally:
        for _, _, path in kept:
            path.unlink()
        with database.connect("bench floor") as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench_floor CASCADE")


def _copy_out(
    connection: psycopg.Connection[Any], schema: str, name: str, columns: list[str], day: date | None, path: Path
) -> bool:
    """A table's rows of the day into a file; False where it has none."""
    source = sql.Identifier(schema, name)
    where = sql.SQL("") if day is None else sql.SQL(" WHERE billing_day = {}").format(sql.Literal(day))
    found = connection.execute(sql.SQL("SELECT FROM {}{} LIMIT 1").format(source, where)).rowcount
    if not found:
        return False
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT (FORMAT binary)").format(listed, source, where)
    with connection.cursor().copy(query) as copy, path.open("wb") as out:
        for block in copy:
            out.write(block)
    return True


def _copy_in(connection: psycopg.Connection[Any], clone: sql.Identifier, columns: list[str], path: Path) -> None:
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(clone, listed)
    with connection.cursor().copy(query) as copy, path.open("rb") as rows:
        while block := rows.read(_CHUNK):
            copy.write(block)
