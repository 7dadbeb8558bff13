"""Day vectors: a billing day of intervals as one row per meter and channel, and the three ways such rows travel.

    DayMatrix  <-> vector frame  (from_matrix, to_matrices: exact both ways, and the frame is a pure function of the
    matrix) vector frame -> COPY BINARY  (copy_binary.encode) table -> vector frame        (Database.read, through
    Arrow)

A vector frame has the columns of VECTOR plus the table's own (meter_id, channel, unit, payload_hash ...). Its narrowing
rules are fixed, so that equal matrices give equal rows byte for byte and a hash over a row is a hash over its content:

* scale is 3 where every present value is a whole thousandth of the base unit, else 6;
* ``values`` (32 bits) where every scaled value fits, else ``wide_values``;
* ``quality`` alone where all present slots share a code and every slot without a value is MISSING, else ``qualities``
  too;
* ``sequence`` and ``sequence_step`` where the present slots' numbers follow base + k * step, else ``sequences`` too;
* ``offsets`` only where one is not 0. In the arrays a slot without a value has sequence 0 and offset 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.copy_binary import copy_blocks, encoded_blocks
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.narrowing import NO_VALUE_32, narrowed
from meter_pipeline.quality import MISSING
from meter_pipeline.schemas.reads import NO_VALUE, UTC_US, DayMatrix

#: Columns of every vector frame. Array columns are null where the scalar beside them says it all.
VECTOR: Final[dict[str, Any]] = {
    "billing_day": pl.Date,
    "starts_at": UTC_US,
    "interval_minutes": pl.Int16,
    "slots": pl.Int16,
    "scale": pl.Int16,
    "quality": pl.Int16,
    "sequence": pl.Int32,
    "sequence_step": pl.Int32,
    "values": pl.List(pl.Int32),
    "wide_values": pl.List(pl.Int64),
    "qualities": pl.List(pl.Int16),
    "sequences": pl.List(pl.Int32),
    "offsets": pl.List(pl.Int16),
}
#: Its array columns, by element type.
ARRAYS: Final[dict[str, Any]] = {name: kind.inner for name, kind in VECTOR.items() if isinstance(kind, pl.List)}


@dataclass(frozen=True, slots=True)
class VectorTable:
    """A table of day vectors: its qualified name, the columns that name a row, and the other columns it takes from the
    matrix's keys.

    Types of ``keys`` and ``extra`` are taken from the frame: String, Binary, Int16, Int32, Int64, Boolean, Date,
    Datetime UTC. ``leave_out`` names vector columns the table does not have (a validated table may carry no offsets,
    say).
    """

    name: str
    keys: tuple[str, ...] = ("meter_id", "channel")
    extra: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, in the order in which COPY sends them."""
        return (*self.keys, *self.extra, *(c for c in VECTOR if c not in self.leave_out))

    @property
    def identifier(self) -> sql.Identifier:
        """The table's name, quoted."""
        return sql.Identifier(*self.name.split("."))

    def partition(self, day: date) -> VectorTable:
        """The same columns in the partition of one billing day."""
        return VectorTable(f"{self.name}_{day:%Y%m%d}", self.keys, self.extra, self.leave_out)

    def select(self) -> str:
        """SELECT ... FROM, its arrays as bytes: ``lists(frame, ARRAYS)`` makes the vector frame of what it gives."""
        return f"SELECT {listed(self.columns, ARRAYS)} FROM {self.name}"

    def copy_statement(self) -> sql.Composed:
        """COPY ... FROM STDIN for ``encode``'s bytes."""
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(self.identifier, names)


RAW_EXTRA: Final = ("unit", "head_end", "source_version", "read_time", "payload_hash", "payloads")
RAW_INTERVAL_DAY: Final = VectorTable("raw.interval_day", extra=RAW_EXTRA)
RAW_INTERVAL_PAYLOAD: Final = VectorTable("raw.interval_payload", extra=RAW_EXTRA)


# --- matrix to frame ------------------------------------------------------------------------------


def from_matrix(matrix: DayMatrix, starts_at: datetime) -> pl.DataFrame:
    """The vector frame of a matrix: its keys' columns and VECTOR, one row per matrix row, in the matrix's order.

    ``starts_at``: UTC start of the billing day (BillingCalendar.bounds). Sequences and offsets of slots without a value
    are not kept.
    """
    narrow = _narrow(matrix)
    same = pl.DataFrame(
        {
            "billing_day": pl.repeat(matrix.billing_day, matrix.rows, dtype=pl.Date, eager=True),
            "starts_at": pl.repeat(starts_at, matrix.rows, dtype=UTC_US, eager=True),
            "interval_minutes": pl.repeat(matrix.interval_minutes, matrix.rows, dtype=pl.Int16, eager=True),
            "slots": pl.repeat(matrix.slots, matrix.rows, dtype=pl.Int16, eager=True),
        }
    )
    return pl.concat([matrix.keys, same, narrow], how="horizontal")


def _narrow(matrix: DayMatrix) -> pl.DataFrame:
    n, slots = matrix.values.shape
    found = narrowed(matrix.values, matrix.quality, matrix.sequence)
    wide, irregular, offsets = found.wide, found.irregular, matrix.offsets
    kept = None if offsets is None else np.where(matrix.values != NO_VALUE, offsets, 0).astype(np.int16)
    stored = np.zeros((0, slots), np.int64)
    if wide.any():
        stored = matrix.values[wide]
        stored = np.where(found.coarse[wide][:, None] & (stored != NO_VALUE), stored // 1000, stored)
    numbers = np.where(matrix.values[irregular] != NO_VALUE, matrix.sequence[irregular], 0).astype(np.int32)
    mixed = np.ascontiguousarray(matrix.quality[found.mixed]).view(np.int16)
    return pl.DataFrame(
        {
            "scale": np.where(found.coarse, 3, 6).astype(np.int16),
            "quality": found.quality.view(np.int16),
            "sequence": found.base,
            "sequence_step": found.step,
            "values": _lists(found.values if not wide.any() else found.values[~wide], ~wide),
            "wide_values": _lists(stored, wide),
            "qualities": _lists(mixed, found.mixed),
            "sequences": _lists(numbers, irregular),
            "offsets": _no_lists(n, pl.Int16)
            if kept is None
            else _lists(kept[(off_grid := (kept != 0).any(axis=1))], off_grid),
        }
    )


def _lists(rows: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> pl.Series:
    """A list column with the matrix's rows in the places asked for, and null elsewhere."""
    count, slots = rows.shape
    inner = pl.Series(rows.ravel())
    if not count:
        return _no_lists(len(where), inner.dtype)
    kept = inner.reshape((count, slots)).arr.to_list()
    if where.all():
        return kept
    index = np.where(where, np.cumsum(where) - 1, 0)
    column = kept.gather(pl.Series(index, dtype=pl.UInt32))
    return pl.select(pl.when(pl.Series(where)).then(column)).to_series()


def _no_lists(n: int, inner: Any) -> pl.Series:
    # not pl.repeat: a query for each is 0.3 ms, and 6 where other threads keep Polars' own busy
    return pl.Series([None], dtype=pl.List(inner)).new_from_index(0, n)


# --- frame to matrices ----------------------------------------------------------------------------


def to_matrices(frame: pl.DataFrame, keys: Sequence[str] | None = None) -> list[DayMatrix]:
    """The day matrices of a vector frame: one per (billing day, interval length, slots), rows in the frame's order.

    ``keys``: columns to carry in the matrix's keys; by default all that are not VECTOR's. Columns of VECTOR that the
    frame lacks are taken as absent arrays or 0.
    """
    absent = {
        c: t
        for c, t in VECTOR.items()
        if c not in frame.columns and c not in ("billing_day", "interval_minutes", "slots")
    }
    if absent:
        frame = frame.with_columns(
            pl.lit(None if c in ARRAYS else 0, dtype=t).alias(c) for c, t in absent.items() if c != "starts_at"
        )
    carried = list(keys) if keys is not None else [c for c in frame.columns if c not in VECTOR]
    layout = ["billing_day", "interval_minutes", "slots"]
    found = frame.select(layout).unique().sort(layout)
    parts = (
        [frame]
        if found.height == 1
        else [frame.filter(*(pl.col(c) == v for c, v in zip(layout, r, strict=True))) for r in found.iter_rows()]
    )
    return [_widen(part, carried) for part in parts if part.height]


def _widen(frame: pl.DataFrame, carried: list[str]) -> DayMatrix:
    day, minutes, slots = frame["billing_day"][0], frame["interval_minutes"][0], frame["slots"][0]
    n = frame.height
    values = np.empty((n, slots), np.int64)
    scale = frame["scale"].to_numpy()
    factor = (10 ** (6 - scale.astype(np.int64)))[:, None]
    for column, none in (("values", NO_VALUE_32), ("wide_values", NO_VALUE)):
        rows, stored = _dense(frame[column], slots)
        if rows is None:
            continue
        if isinstance(rows, slice):
            np.multiply(stored, factor, out=values)
        else:
            values[rows] = np.multiply(stored, factor[rows], dtype=np.int64)
        absent = stored == none
        if absent.any():
            values[rows] = np.where(absent, NO_VALUE, values[rows])
    missing = values == NO_VALUE
    gaps = bool(missing.any())
    quality = np.repeat(frame["quality"].to_numpy().view(np.uint16)[:, None], slots, axis=1)
    if gaps:
        quality[missing] = MISSING
    rows, codes = _dense(frame["qualities"], slots)
    if rows is not None:
        quality[rows] = codes.view(np.uint16)
    base, step = frame["sequence"].to_numpy(), frame["sequence_step"].to_numpy()
    if base.any() or step.any():
        sequence = base[:, None] + np.arange(slots, dtype=np.int32) * step[:, None]
        if gaps:
            sequence[missing] = 0
    else:
        sequence = np.zeros((n, slots), np.int32)  # tables without numbers: untouched pages use no memory
    rows, numbers = _dense(frame["sequences"], slots)
    if rows is not None:
        sequence[rows] = numbers
    offsets = None
    rows, behind = _dense(frame["offsets"], slots)
    if rows is not None:
        offsets = np.zeros((n, slots), np.int16)
        offsets[rows] = behind
    return DayMatrix(
        day, int(minutes), frame.select(carried), values, quality, sequence.astype(np.int32, copy=False), offsets
    )


def misshapen(frame: pl.DataFrame) -> pl.Series:
    """Rows of a vector frame that are no day vectors, as booleans: an array is longer or shorter than the row's slots,
    or the row has both kinds of values or neither. Nothing here writes such a row; verification meets them where a row
    was changed by hand, and to_matrices cannot read them."""
    wrong = pl.col("values").is_null() == pl.col("wide_values").is_null()
    for name in (*ARRAYS, "flags"):
        if name in frame.columns and frame[name].null_count() < frame.height:
            wrong |= (pl.col(name).list.len() != pl.col("slots")).fill_null(False)
    return frame.select(wrong.alias("misshapen")).to_series()


def _dense(column: pl.Series, slots: int) -> tuple[Any, npt.NDArray[Any]]:
    """The rows of a list column that are not null (a slice where all are) and their elements as a matrix; None where
    there are none."""
    if column.null_count() == len(column):
        return None, np.zeros((0, slots), np.int64)
    rows: Any = slice(None)
    if column.null_count():
        rows = np.flatnonzero(column.is_not_null().to_numpy())
        column = column.drop_nulls()
    return rows, column.explode().to_numpy().reshape(-1, slots)


# --- the database ---------------------------------------------------------------------------------


def copy_rows(connection: psycopg.Connection[Any], table: VectorTable, frame: pl.DataFrame) -> int:
    """COPY a vector frame (with the table's own columns) into a table, inside the caller's transaction. Returns the
    rows sent."""
    copy_blocks(connection, table.copy_statement(), encoded_blocks(frame, table.columns))
    return frame.height


def write_matrices(
    connection: psycopg.Connection[Any], table: VectorTable, matrices: Sequence[DayMatrix], starts_at: datetime
) -> int:
    """COPY day matrices, whose keys carry the table's own columns, inside the caller's transaction. Returns the rows
    sent."""
    return sum(copy_rows(connection, table, from_matrix(matrix, starts_at)) for matrix in matrices)


def read_frame(
    database: Database, table: VectorTable, day: date, where: str = "", parameters: Sequence[Any] = ()
) -> pl.DataFrame:
    """The vector frame of a billing day, sorted by key, through Arrow. Empty (with no columns promised) where the day
    has none.

    ``where`` narrows further, as SQL text with $2, $3 ... for ``parameters`` ($1 is the day): " AND channel = $2".
    """
    order = ", ".join(f'"{c}"' for c in table.keys)
    query = f"{table.select()} WHERE billing_day = $1{where} ORDER BY {order}"
    frame = lists(database.read(query, (day, *parameters)), ARRAYS)
    return frame.with_columns(pl.col(pl.Datetime).cast(UTC_US)) if frame.height else frame


def read_matrices(
    database: Database, table: VectorTable, day: date, where: str = "", parameters: Sequence[Any] = ()
) -> list[DayMatrix]:
    """The day matrices of a billing day: one per interval length, rows sorted by key, keys carrying the table's own
    columns."""
    frame = read_frame(database, table, day, where, parameters)
    return to_matrices(frame) if frame.height else []


def day_start(frame: pl.DataFrame) -> datetime:
    """The UTC start of the billing day of a vector frame's first row."""
    start = frame["starts_at"][0]
    assert isinstance(start, datetime)  # noqa: S101 - the column's type
    return start.astimezone(UTC)
