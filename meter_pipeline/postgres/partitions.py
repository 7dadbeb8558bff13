"""Daily partitions over their life: made ahead, counted, archived to Parquet, dropped, restored.

A day's content is the bytes of ``COPY (SELECT columns FROM its partition ORDER BY primary key) TO STDOUT (FORMAT
binary)``; the ledger holds its SHA-256, and a restored day must have the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from meter_pipeline.postgres.arrow_connections import connect
from meter_pipeline.postgres.database import Database, scalar

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Connection = psycopg.Connection[Any]

#: Tables with a partition a billing day that leave the database when their retention is over. vee.daily_usage has
# daily partitions too and stays: baselines look back a year, statements two, and it is a hundredth of the bytes.
ARCHIVED: Final = (
    "raw.interval_day",
    "raw.interval_payload",
    "raw.register_read",
    "raw.register_payload",
    "vee.interval_day",
    "vee.register_day",
)
AHEAD: Final = (*ARCHIVED, "vee.daily_usage")
#: Rows written, read and copied at a time: of 96 slots, some 30 MB.
ROWS: Final = 65_536


class ArchiveError(RuntimeError):
    """A file of the archive differs from its catalogue entry; the message names both."""


@dataclass(frozen=True, slots=True)
class DayTable:
    """A row of archive.day_table."""

    billing_day: date
    table: str
    state: str
    rows: int
    size: int
    columns: tuple[str, ...]
    folder: Path
    file: str
    file_sha256: bytes
    content_sha256: bytes
    archived_at: datetime
    ledger_entry: int

    @property
    def path(self) -> Path:
        return self.folder / self.file


_COLUMNS: Final = "billing_day, table_name, state, rows, bytes, columns, folder, file, file_sha256, content_sha256, archived_at, ledger_entry"


def catalogue(connection: Connection, days: Sequence[date] | None = None, state: str | None = None) -> list[DayTable]:
    """Days that were archived, in order; of some days, in one state."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM archive.day_table WHERE (%(d)s::date[] IS NULL OR billing_day = ANY(%(d)s)) AND (%(s)s::text IS NULL OR state = %(s)s) "
        "ORDER BY billing_day, table_name",
        {"d": None if days is None else list(days), "s": state},
    ).fetchall()
    return [
        DayTable(r[0], r[1], r[2], r[3], r[4], tuple(r[5]), Path(r[6]), r[7], bytes(r[8]), bytes(r[9]), r[10], r[11])
        for r in rows
    ]


def archived_in(connection: Connection, first: date, last: date) -> list[date]:
    """Days of a range of which some table is archived and not restored."""
    return [
        r[0]
        for r in connection.execute(
            "SELECT DISTINCT billing_day FROM archive.day_table WHERE state = 'archived' AND billing_day BETWEEN %s AND %s ORDER BY 1",
            (first, last),
        )
    ]


def attached(connection: Connection, before: date | None = None) -> dict[date, list[str]]:
    """Days with attached partitions of the tables that are archived, each with its tables; before a day where one is
    given."""
    rows = connection.execute(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, n.nspname || '.' || p.relname FROM pg_inherits AS i "
        "JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_class AS p ON p.oid = i.inhparent JOIN pg_namespace AS n ON n.oid = p.relnamespace "
        "WHERE n.nspname || '.' || p.relname = ANY(%s) ORDER BY 1, 2",
        (list(ARCHIVED),),
    ).fetchall()
    found: dict[date, list[str]] = {}
    for day, table in rows:
        if before is None or day < before:
            found.setdefault(day, []).append(table)
    return found


def sizes(connection: Connection) -> list[tuple[date, str, str, int, int]]:
    """Every daily partition there is: day, table, state (attached, made ahead or loading), rows as last estimated,
    bytes with keys."""
    return connection.execute(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD'), n.nspname || '.' || left(c.relname, -9), "
        "CASE WHEN c.relispartition THEN 'attached' WHEN pg_relation_size(c.oid) = 0 THEN 'ahead' ELSE 'loading' END, "
        "greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'r' AND c.relname ~ '_[0-9]{8}$' AND n.nspname || '.' || left(c.relname, -9) = ANY(%s) ORDER BY 1, 2",
        (list(AHEAD),),
    ).fetchall()


def make_ahead(connection: Connection, day: date) -> int:
    """The tables of a day, empty and unattached, and the month's of billing. Returns how many daily ones stand ready,
    made now or before.

    They are attached with their first rows: a load into an attached partition would keep keys and compare with what is
    there, at three times the time (benchmarks/load.py), so that attaching them empty would cost every first load its
    fast path.
    """
    created = sum(
        bool(scalar(connection, "SELECT raw.open_partition(%s::regclass, %s)", (table, day)) == "created")
        for table in AHEAD
    )
    connection.execute("SELECT billing.ensure_partitions(%s)", (day,))
    return created


def _part(table: str, day: date) -> sql.Identifier:
    space, name = table.split(".")
    return sql.Identifier(space, f"{name}_{day:%Y%m%d}")


def _order(connection: Connection, table: str) -> sql.Composed:
    keys = connection.execute(
        "SELECT a.attname FROM pg_index AS x CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS k (n, at) "
        "JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.n WHERE x.indrelid = %s::regclass AND x.indisprimary ORDER BY k.at",
        (table,),
    ).fetchall()
    return sql.SQL(", ").join(sql.Identifier(k[0]) for k in keys)


def content_hash(connection: Connection, relation: sql.Identifier, table: str, columns: Sequence[str]) -> bytes:
    """SHA-256 of the rows of a relation with ``table``'s columns and key."""
    digest = hashlib.sha256()
    query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT (FORMAT binary)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), relation, _order(connection, table)
    )
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for block in copy:
            digest.update(block)
    return digest.digest()


def columns_of(connection: Connection, table: str) -> tuple[str, ...]:
    """The table's columns in order."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table,),
    )
    return tuple(r[0] for r in rows)


def freeze(connection: Connection, table: str, day: date) -> tuple[str, ...]:
    """Keep writers out of a day's partition until the transaction ends, readers not; returns its columns."""
    connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(_part(table, day)))
    return columns_of(connection, table)


def partition_hash(connection: Connection, table: str, day: date, columns: Sequence[str]) -> bytes:
    """SHA-256 of a day's partition."""
    return content_hash(connection, _part(table, day), table, columns)


def write_file(
    database: Database, connection: Connection, table: str, day: date, columns: Sequence[str], path: Path
) -> tuple[int, bytes]:
    """A day's partition as Parquet, on disk before this returns (file and folder synced); returns rows and SHA-256 of
    the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}.part")
    name = ", ".join(f'"{c}"' for c in columns)
    query = f"SELECT {name} FROM {_part(table, day).as_string(connection)} ORDER BY {_order(connection, table).as_string(connection)}"
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    with (
        connect(database.with_options(options=database.session_options)) as reader,
        reader.cursor() as cursor,
    ):
        cursor.execute(query)
        batches = cursor.fetch_record_batch()
        with open(written, "wb") as file:
            with pq.ParquetWriter(file, batches.schema, compression="zstd", compression_level=9) as writer:
                for batch in batches:
                    rows += batch.num_rows
                    writer.write_table(pa.Table.from_batches([batch]), row_group_size=ROWS)
            file.flush()
            os.fsync(file.fileno())
    digest = hashlib.sha256(written.read_bytes()).digest()
    written.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return rows, digest


def blocks(path: Path, keep: pl.Expr | None = None) -> Iterator[pl.DataFrame]:
    """The rows of an archived file, some at a time; those that ``keep`` names where it is given."""
    import polars as pl
    import pyarrow.parquet as pq

    if keep is not None:
        found = pl.scan_parquet(path).filter(keep).collect()
        if found.height:
            yield found
        return
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a batch never arrives as a series
            yield frame


def hash_of_file(connection: Connection, table: str, columns: Sequence[str], path: Path) -> bytes:
    """The content hash of a restored file: its rows copied into a temporary table like ``table``, and out
    again."""
    from meter_pipeline.postgres.copy_binary import copy_frame

    temporary = sql.Identifier("archive_check")
    connection.execute(
        sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(temporary, sql.Identifier(*table.split(".")))
    )
    for frame in blocks(path):
        copy_frame(connection, temporary, frame, columns)
    found = content_hash(connection, temporary, table, columns)
    connection.execute(sql.SQL("DROP TABLE {}").format(temporary))
    return found


def put_on_record(connection: Connection, row: DayTable, now: datetime) -> None:
    """The catalogue's row of a day that leaves."""
    connection.execute(
        f"INSERT INTO archive.day_table ({_COLUMNS}, changed_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (billing_day, table_name) DO UPDATE SET state = excluded.state, rows = excluded.rows, bytes = excluded.bytes, "
        "columns = excluded.columns, folder = excluded.folder, file = excluded.file, file_sha256 = excluded.file_sha256, "
        "content_sha256 = excluded.content_sha256, archived_at = excluded.archived_at, ledger_entry = excluded.ledger_entry, "
        "changed_at = excluded.changed_at",
        (
            row.billing_day,
            row.table,
            row.state,
            row.rows,
            row.size,
            list(row.columns),
            str(row.folder),
            row.file,
            row.file_sha256,
            row.content_sha256,
            row.archived_at,
            row.ledger_entry,
            now,
        ),
    )


def drop(connection: Connection, table: str, day: date) -> None:
    """Detach and drop the partition of a day this transaction put on record. Waits 10 s at most for readers of the
    table."""
    connection.execute("SET LOCAL lock_timeout = '10s'")
    connection.execute("SELECT archive.drop_partition(%s::regclass, %s)", (table, day))


def restore(connection: Connection, row: DayTable, now: datetime) -> None:
    """An archived day of a table into a partition again, attached in the caller's transaction, its content proven.

    Raises ArchiveError where the file is missing or holds something else; then nothing may commit.
    """
    from meter_pipeline.postgres.copy_binary import copy_frame

    if not row.path.is_file():
        raise ArchiveError(f"{row.path}, which holds billing day {row.billing_day} of {row.table}, is not there")
    if hashlib.sha256(row.path.read_bytes()).digest() != row.file_sha256:
        raise ArchiveError(f"{row.path} is not the file that was archived: its SHA-256 is another")
    connection.execute(
        "UPDATE archive.day_table SET state = 'restored', changed_at = %s WHERE billing_day = %s AND table_name = %s",
        (now, row.billing_day, row.table),
    )
    connection.execute("SELECT raw.open_partition(%s::regclass, %s)", (row.table, row.billing_day))
    for frame in blocks(row.path):
        copy_frame(connection, _part(row.table, row.billing_day), frame, row.columns)
    if (found := partition_hash(connection, row.table, row.billing_day, row.columns)) != row.content_sha256:
        raise ArchiveError(
            f"billing day {row.billing_day} of {row.table} restores to {found.hex()}, archived was {row.content_sha256.hex()}"
        )
    connection.execute("SELECT raw.attach_partition(%s::regclass, %s)", (row.table, row.billing_day))


def archived_table(connection: Connection, table: str, day: date) -> DayTable | None:
    """The catalogue's row of a day that is archived and not restored."""
    return next((row for row in catalogue(connection, [day], "archived") if row.table == table), None)


def archived_column(connection: Connection, table: str, column: str, day: date | None) -> list[bytes]:
    """One column's values of the archived rows of a day, or of all days: which the table's partitions no longer
    hold."""
    import polars as pl

    found: list[bytes] = []
    for row in catalogue(connection, None if day is None else [day], "archived"):
        if row.table == table:
            found += pl.read_parquet(row.path, columns=[column])[column].to_list()
    return found


def archived_frame(database: Database, table: str, day: date | None) -> pl.DataFrame | None:
    """The archived rows of a day of a table; None where it is not archived."""
    import polars as pl

    if day is None or table not in ARCHIVED:
        return None
    with database.connect("archive") as connection:
        row = archived_table(connection, table, day)
    return None if row is None else pl.read_parquet(row.path)


@contextlib.contextmanager
def as_temporary(database: Database, row: DayTable) -> Iterator[Connection]:
    """A connection with an archived day's rows in the temporary table archived_rows, for who may only read: nothing
    else is made."""
    from meter_pipeline.postgres.copy_binary import copy_frame

    with database.connect("archive") as connection:
        connection.execute(
            sql.SQL("CREATE TEMP TABLE archived_rows (LIKE {}) ON COMMIT DROP").format(
                sql.Identifier(*row.table.split("."))
            )
        )
        for frame in blocks(row.path):
            copy_frame(connection, sql.Identifier("archived_rows"), frame, row.columns)
        yield connection
        connection.rollback()


def _whole(frame: pl.DataFrame) -> pa.Table:
    """The frame's rows as lists that begin where their buffers do. ADBC 1.8 sends the first elements of the buffer for
    a list that is a slice of a longer one, as those of a filtered frame are: other meters' values, in silence."""
    import pyarrow as pa

    return frame.to_arrow().combine_chunks().take(pa.array(range(frame.height), pa.int64()))


@contextlib.contextmanager
def reading_with_archive(
    database: Database, wanted: Sequence[tuple[date, str]], points: Sequence[str], meters: Sequence[str]
) -> Iterator[Database]:
    """A session that reads some archived days as if they had never left: the rows of a few service points and meters in
    partitions of a transaction that is undone at its end. Days that are not archived cost nothing.

    ``wanted``: days and tables. ``points`` and ``meters`` narrow the rows, by service point in vee and by meter in raw
    (meters that the archived vee rows of the points name are added).
    """
    with database.connect("archive") as connection:
        needed = set(wanted)
        rows = (
            [
                r
                for r in catalogue(connection, sorted({d for d, _ in wanted}), "archived")
                if (r.billing_day, r.table) in needed
            ]
            if needed
            else []
        )
    from meter_pipeline.postgres.reading import ReadSession, reading

    if not rows:
        with reading(database) as session:
            yield session
        return
    import polars as pl

    known = set(meters)
    connection_ = connect(database.with_options(options=database.session_options), autocommit=False)
    try:
        with connection_.cursor() as cursor:
            for row in sorted(
                rows, key=lambda r: (r.billing_day, r.table), reverse=True
            ):  # vee before raw, for the meters it names
                keep = (
                    pl.col("service_point_id").is_in(list(points)) | pl.col("meter_id").is_in(list(meters))
                    if row.table.startswith("vee.")
                    else None
                )
                frame = next(blocks(row.path, pl.col("meter_id").is_in(sorted(known)) if keep is None else keep), None)
                if frame is None:
                    continue
                if keep is not None:
                    known |= set(frame["meter_id"].to_list())
                cursor.execute(
                    "UPDATE archive.day_table SET state = 'restored' WHERE billing_day = $1 AND table_name = $2",
                    (row.billing_day, row.table),
                )
                cursor.execute("SELECT raw.open_partition($1::text::regclass, $2)", (row.table, row.billing_day))
                cursor.fetchall()
                space, name = row.table.split(".")
                cursor.adbc_ingest(
                    f"{name}_{row.billing_day:%Y%m%d}", _whole(frame), mode="append", db_schema_name=space
                )
                cursor.execute("SELECT raw.attach_partition($1::text::regclass, $2)", (row.table, row.billing_day))
                cursor.fetchall()
        yield ReadSession(database.url, database.role, connection_)
    finally:
        connection_.rollback()
        connection_.close()
