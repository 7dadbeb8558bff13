"""SQL of loading a billing day: the stored rows, and the one transaction that writes a batch.

A batch's transaction: share the day's lock and see that the epoch is still ours; write the ledger entries; claim the
batch's rows in raw.load_batch (where a lost reply left them claimed, the batch is committed already and everything is
undone); write the rows; commit. The batch remembers the transaction until its end is known, so that an unknown outcome
can be settled (ingest/unknown_outcome.py) before anything else is tried.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.ingest.tables import dead_letters
from meter_pipeline.ledger.tables.entries import EntryRow, insert_entry_async
from meter_pipeline.postgres import copy_binary, vectors
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import UTC_US

AsyncConnection = psycopg.AsyncConnection[Any]


class DayTakenOverError(RuntimeError):
    """Another run has taken the billing day; this one must stop writing."""


class ClaimOverlap(RuntimeError):
    """Rows of a batch are claimed by another batch that does not hold the same rows: the run's plan is out of date."""


class NotWhole(RuntimeError):
    """Staged rows of a file are in no committed batch: the day is not done, and is not called done."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A transaction that was begun for a batch: the server's process and its transaction number."""

    backend: int
    transaction: int


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of read is stored: the current table, the table of all payloads where there are several, their
    columns and keys."""

    name: str
    table: str
    history: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def partition(self, day: date) -> sql.Identifier:
        """The day's partition of the current table."""
        return sql.Identifier(*f"{self.table}_{day:%Y%m%d}".split("."))

    def copy(self, target: sql.Composable) -> sql.Composed:
        """COPY into a table with this kind's columns."""
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target, names)

    def upsert(self) -> sql.Composed:
        """Incoming rows into the current table; the row that is there gives way, since the new one was folded
        from it.
        """
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        changed = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c))
            for c in self.columns
            if c not in ("billing_day", *self.key)
        )
        return sql.SQL(
            "INSERT INTO {} ({names}) SELECT {names} FROM {} ON CONFLICT ({key}) DO UPDATE SET {changed}"
        ).format(
            sql.Identifier(*self.table.split(".")),
            self.incoming,
            names=names,
            key=sql.SQL(", ").join(map(sql.Identifier, ("billing_day", *self.key))),
            changed=changed,
        )

    def keep(self) -> sql.Composed:
        """Incoming payloads into the history; one that is there stays."""
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return sql.SQL("INSERT INTO {} ({names}) SELECT {names} FROM {} ON CONFLICT DO NOTHING").format(
            sql.Identifier(*self.history.split(".")), self.incoming, names=names
        )

    def touch(self) -> sql.Composed:
        """Note the incoming meters for the validation of a day and the days beside it; not while everyone is noted."""
        return sql.SQL(
            "INSERT INTO raw.touched_meter (billing_day, meter_id, read_day) SELECT %(day)s::date + beside, meter_id, %(day)s::date "
            "FROM (SELECT DISTINCT meter_id FROM {}) AS m, generate_series(-1, 1) AS beside "
            "WHERE NOT EXISTS (SELECT FROM raw.touched_meter WHERE billing_day = %(day)s AND meter_id = '')"
        ).format(self.incoming)

    @property
    def incoming(self) -> sql.Identifier:
        """The session's temporary table for this kind."""
        return sql.Identifier(f"incoming_{self.name}")


INTERVAL: Final = Kind(
    "interval", "raw.interval_day", "raw.interval_payload", vectors.RAW_INTERVAL_DAY.columns, ("meter_id", "channel")
)
REGISTER_COLUMNS: Final = (
    "billing_day",
    "meter_id",
    "channel",
    "read_at",
    "value",
    "unit",
    "sequence",
    "quality",
    "source_version",
    "read_time",
    "payloads",
    "head_end",
    "payload_hash",
    "idempotency_key",
)
REGISTER: Final = Kind(
    "register", "raw.register_read", "raw.register_payload", REGISTER_COLUMNS, ("meter_id", "channel", "read_at")
)
KINDS: Final = (INTERVAL, REGISTER)
#: The first load of a day: its validation has everyone to look at
_TOUCHES_ALL: Final = sql.SQL(
    "INSERT INTO raw.touched_meter (billing_day, meter_id, read_day) SELECT %(day)s::date, '', %(day)s::date "
    "WHERE NOT EXISTS (SELECT FROM raw.touched_meter WHERE billing_day = %(day)s AND meter_id = '')"
)

#: Column types of a kind's frame, for the few rows that come back by cursor and for empty results.
SCHEMA: Final[dict[str, Any]] = {
    **vectors.VECTOR,
    "meter_id": pl.String,
    "channel": pl.String,
    "unit": pl.String,
    "head_end": pl.String,
    "source_version": pl.Int64,
    "read_time": UTC_US,
    "payload_hash": pl.Binary,
    "payloads": pl.Int16,
    "read_at": UTC_US,
    "value": pl.Int64,
    "idempotency_key": pl.Binary,
}
_REGISTER_SCHEMA: Final = {**SCHEMA, "quality": pl.Int16, "sequence": pl.Int32}


@dataclass(frozen=True, slots=True)
class FileShare:
    """A batch's share of one staged file: its rows as ranges [first, past), and the outcome of their reads."""

    sha256: bytes
    ranges: tuple[tuple[int, int], ...]
    accepted: int = 0
    duplicate: int = 0
    superseded: int = 0
    rejected: int = 0

    @property
    def multirange(self) -> str:
        """The rows as PostgreSQL writes an int8multirange."""
        return "{" + ",".join(f"[{first},{past})" for first, past in self.ranges) + "}"


@dataclass(slots=True)
class Batch:
    """All that one transaction writes, encoded. ``direct`` goes into the day's unattached partition; ``current`` and
    ``kept`` through the session's temporary table into the current table and the history. ``entries`` are ledger rows
    (ledger.entries.Entry.row). ``attempt``: the transaction whose end is not known; None where there is none.
    ``sent_s``: seconds in which the rows themselves were written, by the clock ``monotonic``."""

    kind: Kind
    day: date
    epoch: int
    pieces: list[FileShare]
    entries: list[EntryRow]
    direct: bytes = b""
    current: bytes = b""
    kept: bytes = b""
    rows: int = 0
    letters: pl.DataFrame | None = None
    attempt: Attempt | None = None
    monotonic: Callable[[], float] = time.monotonic
    sent_s: float = 0.0

    @property
    def size(self) -> int:
        """Bytes to be sent."""
        return len(self.direct) + len(self.current) + len(self.kept)


async def prepare_session(connection: AsyncConnection, monotonic: Callable[[], float]) -> float:
    """Prepare a pooled connection: the temporary tables, and limits so that no statement waits for ever.
    Returns the seconds its commit took, which writes next to nothing: no batch commits quicker."""
    for kind in KINDS:
        await connection.execute(
            sql.SQL(
                "CREATE TEMPORARY TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
            ).format(kind.incoming, sql.Identifier(*kind.table.split(".")))
        )
    await connection.execute(
        "SET lock_timeout = '5s'; SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '30s'"
    )
    began = monotonic()
    await connection.commit()
    return monotonic() - began


async def write_batch(connection: AsyncConnection, batch: Batch) -> bool:
    """Write one batch in one transaction. False: a transaction before, whose reply was lost, has committed it already.

    Raises DayTakenOverError where the day has passed to another run, ClaimOverlap where another batch holds some of the
    rows, psycopg.Error for everything the server refuses. Where the connection went before the end of the transaction
    is known, ``batch.attempt`` stays set.
    """
    try:
        cursor = await connection.execute(
            "SELECT epoch, pg_current_xact_id()::text::int8, pg_backend_pid() FROM raw.day_load WHERE billing_day = %s "
            "FOR SHARE",
            (batch.day,),
        )
        row = await cursor.fetchone()
        if row is None or row[0] != batch.epoch:
            raise DayTakenOverError(f"billing day {batch.day} was taken by another run")
        batch.attempt = Attempt(row[2], row[1])
        entries = [await insert_entry_async(connection, entry) for entry in batch.entries]
        for piece in batch.pieces:
            if not await _claim(connection, batch, piece, entries):
                already = await _claimed_before(connection, batch)
                await connection.rollback()
                batch.attempt = None
                if not already:
                    raise ClaimOverlap(f"other rows are claimed of {batch.day}: rows {piece.multirange} of a file")
                return False
        if batch.letters is not None:
            await dead_letters.write_few(connection, batch.letters)
        began = batch.monotonic()
        if batch.direct:
            await connection.execute(_TOUCHES_ALL, {"day": batch.day})
            await _copy(connection, batch.kind.copy(batch.kind.partition(batch.day)), batch.direct)
        if batch.kept:
            await _copy(connection, batch.kind.copy(batch.kind.incoming), batch.kept)
            await connection.execute(batch.kind.keep())
            await connection.execute(batch.kind.touch(), {"day": batch.day})
            if batch.current:
                await connection.execute(sql.SQL("TRUNCATE {}").format(batch.kind.incoming))
        if batch.current:
            await _copy(connection, batch.kind.copy(batch.kind.incoming), batch.current)
            await connection.execute(batch.kind.upsert())
            await connection.execute(batch.kind.touch(), {"day": batch.day})
        batch.sent_s = batch.monotonic() - began
        await connection.commit()
        batch.attempt = None
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            await connection.rollback()  # raises where the connection is gone: then nothing is known
            batch.attempt = None
        raise
    return True


async def _claim(connection: AsyncConnection, batch: Batch, piece: FileShare, entries: list[int]) -> bool:
    """Claim a piece's rows. False where some of them are claimed; waits for a transaction that is claiming them."""
    claimed = await connection.execute(
        "INSERT INTO raw.load_batch (sha256, billing_day, kind, first_row, rows, accepted, duplicate, superseded, "
        "rejected, ledger_entries) VALUES (%s, %s, %s, %s, %s::int8multirange, %s, %s, %s, %s, %s) "
        "ON CONFLICT DO NOTHING",
        (
            piece.sha256,
            batch.day,
            batch.kind.name,
            piece.ranges[0][0],
            piece.multirange,
            piece.accepted,
            piece.duplicate,
            piece.superseded,
            piece.rejected,
            entries,
        ),
    )
    return bool(claimed.rowcount)


async def _claimed_before(connection: AsyncConnection, batch: Batch) -> bool:
    """Whether each piece of the batch is claimed as it is, by a transaction before whose reply was lost."""
    for piece in batch.pieces:
        cursor = await connection.execute(
            "SELECT rows = %s::int8multirange FROM raw.load_batch WHERE sha256 = %s AND billing_day = "
            "%s AND kind = %s AND rows && %s::int8multirange",
            (piece.multirange, piece.sha256, batch.day, batch.kind.name, piece.multirange),
        )
        rows = await cursor.fetchall()
        if len(rows) != 1 or not rows[0][0]:
            return False
    return True


async def _copy(connection: AsyncConnection, statement: sql.Composed, body: bytes) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write(copy_binary.HEADER)
        # libpq copies each block into its own buffer: a slice at a time keeps that buffer small.
        view = memoryview(body)
        for start in range(0, len(view), _SLICE):
            await copy.write(view[start : start + _SLICE])
        await copy.write(copy_binary.TRAILER)


_SLICE: Final = 1 << 18


def present(database: Database, kind: Kind, day: date, keys: pl.DataFrame) -> pl.DataFrame:
    """Returns the stored rows of these keys: the key, payload_hash and payloads of the current row."""
    return _read(database, kind, kind.table, day, keys, (*kind.key, "payload_hash", "payloads"))


def kept_hashes(database: Database, kind: Kind, day: date, keys: pl.DataFrame) -> pl.DataFrame:
    """Hashes of all payloads kept in the history for these keys."""
    return _read(database, kind, kind.history, day, keys, (*kind.key, "payload_hash"))


def current_rows(database: Database, kind: Kind, day: date, keys: pl.DataFrame) -> pl.DataFrame:
    """Whole current rows of these keys."""
    return _read(database, kind, kind.table, day, keys, kind.columns)


def kept_rows(database: Database, kind: Kind, day: date, keys: pl.DataFrame) -> pl.DataFrame:
    """Whole payloads kept in the history for these keys."""
    return _read(database, kind, kind.history, day, keys, kind.columns)


#: Up to so many keys are named in the query and come back by cursor (an Arrow connection alone costs 50 ms); beyond,
# the whole day is read through Arrow and joined here, which is quicker than so many index look-ups.
_NAMED_KEYS: Final = 2000


def _read(
    database: Database, kind: Kind, table: str, day: date, keys: pl.DataFrame, columns: Sequence[str]
) -> pl.DataFrame:
    types = _REGISTER_SCHEMA if kind.name == "register" else SCHEMA
    schema = {c: types[c] for c in columns}
    listed = ", ".join(f'"{c}"' for c in columns)
    wanted = keys.select(kind.key)
    if not wanted.height:
        return pl.DataFrame(schema=schema)
    if wanted.height > _NAMED_KEYS:
        frame = database.read(f"SELECT {listed} FROM {table} WHERE billing_day = $1", [day])
        if not frame.height:
            return pl.DataFrame(schema=schema)
        frame = frame.cast({c: t for c, t in schema.items() if frame.schema[c] != t})
        return frame.join(wanted.unique(), on=list(kind.key), how="semi", maintain_order="left")
    # A day of its own in the partition's name is pruned at planning; the key's index does the rest.
    picked = ", ".join(f"k.{c}" for c in kind.key)
    arrays = ", ".join("%s::timestamptz[]" if wanted.schema[c] == UTC_US else "%s::text[]" for c in kind.key)
    query = (
        f"SELECT {listed} FROM {table} WHERE billing_day = %s AND ({', '.join(kind.key)}) IN "
        f"(SELECT {picked} FROM unnest({arrays}) AS k ({', '.join(kind.key)}))"
    )
    with database.connect("ingest-read", autocommit=True) as connection, connection.cursor(binary=True) as cursor:
        cursor.execute(query.encode(), (day, *(wanted[c].to_list() for c in kind.key)))
        return pl.DataFrame(cursor.fetchall(), schema=schema, orient="row")
