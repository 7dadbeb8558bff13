"""Day vectors: a billing day of intervals as one row per meter and channel, and the three ways such rows travel.

Belongs here: the codec between the in-memory day matrix, the vector frame (one Polars row per stored row) and PostgreSQL's binary COPY
format, and the way back through ADBC. Does not belong here: which rows to write, and what a value means.

    DayMatrix  <-> vector frame  (from_matrix, to_matrices: exact both ways, and the frame is a pure function of the matrix)
    vector frame -> COPY BINARY  (encode)
    table -> vector frame        (Query on Database.read, through Arrow)

A vector frame has the columns of VECTOR plus the table's own (meter_id, channel, unit, payload_hash ...). Its narrowing rules are fixed, so that
equal matrices give equal rows byte for byte and a hash over a row is a hash over its content:

* scale is 3 where every present value is a whole thousandth of the base unit, else 6;
* ``values`` (32 bits) where every scaled value fits, else ``wide_values``;
* ``quality`` alone where all present slots share a code and every slot without a value is MISSING, else ``qualities`` too;
* ``sequence`` and ``sequence_step`` where the present slots' numbers follow base + k * step, else ``sequences`` too;
* ``offsets`` only where one is not 0. In the arrays a slot without a value has sequence 0 and offset 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from psycopg import sql
from psycopg.copy import QueuedLibpqWriter

from meter_pipeline.quality import MISSING
from meter_pipeline.schemas.reads import NO_VALUE, UTC_US, DayMatrix
from meter_pipeline.store.database import Database

NO_VALUE_32: Final = np.iinfo(np.int32).min
HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
#: Rows narrowed or encoded at a time: the int64 block of 96 slots stays inside the second-level cache.
BLOCK: Final = 2048

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
_ARRAYS: Final = {"values": np.int32, "wide_values": np.int64, "qualities": np.int16, "sequences": np.int32, "offsets": np.int16}
_ELEMENT_OID: Final = {np.dtype(np.int16): 21, np.dtype(np.int32): 23, np.dtype(np.int64): 20}
_POSTGRES_EPOCH_DAYS: Final = date(2000, 1, 1).toordinal() - date(1970, 1, 1).toordinal()
_POSTGRES_EPOCH_US: Final = _POSTGRES_EPOCH_DAYS * 86_400_000_000

Int64Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class VectorTable:
    """A table of day vectors: its qualified name, the columns that name a row, and the other columns it takes from the matrix's keys.

    Types of ``keys`` and ``extra`` are taken from the frame: String, Binary, Int16, Int32, Int64, Boolean, Date, Datetime UTC.
    ``leave_out`` names vector columns the table does not have (a validated table may carry no offsets, say).
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

    def copy_statement(self) -> sql.Composed:
        """COPY ... FROM STDIN for ``encode``'s bytes."""
        names = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(self.identifier, names)


RAW_EXTRA: Final = ("unit", "head_end", "source_version", "read_time", "payload_hash", "payloads")
RAW_INTERVAL_DAY: Final = VectorTable("raw.interval_day", extra=RAW_EXTRA)
RAW_INTERVAL_PAYLOAD: Final = VectorTable("raw.interval_payload", extra=RAW_EXTRA)


# --- matrix to frame -------------------------------------------------------------------------------------------------------------------


def from_matrix(matrix: DayMatrix, starts_at: datetime) -> pl.DataFrame:
    """The vector frame of a matrix: its keys' columns and VECTOR, one row per matrix row, in the matrix's order.

    ``starts_at``: UTC start of the billing day (BillingCalendar.bounds). Sequences and offsets of slots without a value are not kept.
    """
    blocks = [_narrow(matrix, slice(i, i + BLOCK)) for i in range(0, max(matrix.rows, 1), BLOCK)]
    narrow = pl.concat(blocks, rechunk=True)
    same = pl.DataFrame(
        {
            "billing_day": pl.repeat(matrix.billing_day, matrix.rows, dtype=pl.Date, eager=True),
            "starts_at": pl.repeat(starts_at, matrix.rows, dtype=UTC_US, eager=True),
            "interval_minutes": pl.repeat(matrix.interval_minutes, matrix.rows, dtype=pl.Int16, eager=True),
            "slots": pl.repeat(matrix.slots, matrix.rows, dtype=pl.Int16, eager=True),
        }
    )
    return pl.concat([matrix.keys, same, narrow], how="horizontal")


def _narrow(matrix: DayMatrix, rows: slice) -> pl.DataFrame:
    values = matrix.values[rows]
    n, slots = values.shape
    missing = values == NO_VALUE
    gaps = bool(missing.any())
    present = ~missing if gaps else np.ones((1, 1), np.bool_)
    thousandths = values // 1000
    whole = thousandths * 1000 == values
    if gaps:
        whole |= missing
    coarse = whole.all(axis=1)
    stored = np.where(coarse[:, None], thousandths, values)
    if gaps:
        stored[missing] = 0
    wide = (stored.max(axis=1, initial=0) > 2**31 - 1) | (stored.min(axis=1, initial=0) < -(2**31 - 1))
    narrow_values = stored.astype(np.int32)
    if gaps:
        narrow_values[missing] = NO_VALUE_32
        stored[missing] = NO_VALUE

    quality = matrix.quality[rows]
    first = np.argmax(~missing, axis=1) if gaps else np.zeros(n, np.intp)
    at = np.arange(n)
    any_present = ~missing[at, first] if slots else np.zeros(n, np.bool_)
    shared = np.where(any_present, quality[at, first], np.uint16(MISSING)).astype(np.uint16)
    expected = np.where(missing, np.uint16(MISSING), shared[:, None]) if gaps else shared[:, None]
    mixed_quality = (quality != expected).any(axis=1)

    sequence = matrix.sequence[rows]
    base, step, irregular = _sequence_rule(sequence, missing if gaps else None, first, any_present)

    offsets = None if matrix.offsets is None else np.where(present, matrix.offsets[rows], 0).astype(np.int16)
    off_grid = None if offsets is None else (offsets != 0).any(axis=1)
    return pl.DataFrame(
        {
            "scale": np.where(coarse, 3, 6).astype(np.int16),
            "quality": shared.view(np.int16),
            "sequence": base,
            "sequence_step": step,
            "values": _lists(narrow_values, ~wide),
            "wide_values": _lists(stored, wide),
            "qualities": _lists(np.ascontiguousarray(quality).view(np.int16), mixed_quality),
            "sequences": _lists(np.where(present, sequence, 0).astype(np.int32) if irregular.any() else sequence, irregular),
            "offsets": _lists(offsets, off_grid) if offsets is not None and off_grid is not None else _no_lists(n, pl.Int16),
        }
    )


def _sequence_rule(
    sequence: npt.NDArray[np.int32], missing: npt.NDArray[np.bool_] | None, first: npt.NDArray[np.intp], any_present: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Base and step of each row's sequence numbers, and whether a row follows no such rule (base and step are 0 there)."""
    n, slots = sequence.shape
    at = np.arange(n)
    slot = np.arange(slots, dtype=np.int64)
    if missing is None:
        second = np.full(n, min(1, slots - 1), np.intp)
    else:
        later = ~missing & (slot > first[:, None])
        second = np.where(later.any(axis=1), np.argmax(later, axis=1), first)
    one = sequence[at, first].astype(np.int64)
    rise = sequence[at, second].astype(np.int64) - one
    run = np.maximum(second - first, 1)
    step = rise // run
    base = one - first * step
    follows = base[:, None] + slot * step[:, None] == sequence
    if missing is not None:
        follows |= missing
    last = base + (slots - 1) * step
    regular = follows.all(axis=1) & (np.abs(base) < 2**31) & (np.abs(last) < 2**31) & (np.abs(step) < 2**31)
    keep = regular & any_present
    return np.where(keep, base, 0).astype(np.int32), np.where(keep, step, 0).astype(np.int32), ~regular & any_present


def _lists(matrix: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> pl.Series:
    """A list column with the matrix's rows where asked and null elsewhere."""
    n, slots = matrix.shape
    inner = pl.Series(matrix.ravel())
    if where.all() and n:
        return inner.reshape((n, slots)).arr.to_list()
    if not where.any():
        return _no_lists(n, inner.dtype)
    kept = pl.Series(np.ascontiguousarray(matrix[where]).ravel()).reshape((int(where.sum()), slots)).arr.to_list()
    index = np.where(where, np.cumsum(where) - 1, 0)
    column = kept.gather(pl.Series(index, dtype=pl.UInt32))
    return pl.select(pl.when(pl.Series(where)).then(column)).to_series()


def _no_lists(n: int, inner: Any) -> pl.Series:
    return pl.repeat(None, n, dtype=pl.List(inner), eager=True)


# --- frame to matrices -----------------------------------------------------------------------------------------------------------------


def to_matrices(frame: pl.DataFrame, keys: Sequence[str] | None = None) -> list[DayMatrix]:
    """The day matrices of a vector frame: one per (billing day, interval length, slots), rows in the frame's order.

    ``keys``: columns to carry in the matrix's keys; by default all that are not VECTOR's. Columns of VECTOR that the frame lacks are taken
    as absent arrays or 0.
    """
    absent = {c: t for c, t in VECTOR.items() if c not in frame.columns and c not in ("billing_day", "interval_minutes", "slots")}
    if absent:
        frame = frame.with_columns(pl.lit(None if c in _ARRAYS else 0, dtype=t).alias(c) for c, t in absent.items() if c != "starts_at")
    carried = list(keys) if keys is not None else [c for c in frame.columns if c not in VECTOR]
    layout = ["billing_day", "interval_minutes", "slots"]
    found = frame.select(layout).unique().sort(layout)
    parts = [frame] if found.height == 1 else [frame.filter(*(pl.col(c) == v for c, v in zip(layout, r, strict=True))) for r in found.iter_rows()]
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
        full = stored.astype(np.int64) * factor[rows]
        full[stored == none] = NO_VALUE
        values[rows] = full
    missing = values == NO_VALUE
    quality = np.repeat(frame["quality"].to_numpy().view(np.uint16)[:, None], slots, axis=1)
    quality[missing] = MISSING
    rows, codes = _dense(frame["qualities"], slots)
    if rows is not None:
        quality[rows] = codes.view(np.uint16)
    base, step = frame["sequence"].to_numpy(), frame["sequence_step"].to_numpy()
    if base.any() or step.any():
        sequence = base[:, None] + np.arange(slots, dtype=np.int32) * step[:, None]
        sequence[missing] = 0
    else:
        sequence = np.zeros((n, slots), np.int32)  # tables without numbers: pages that nobody touches cost nothing
    rows, numbers = _dense(frame["sequences"], slots)
    if rows is not None:
        sequence[rows] = numbers
    offsets = None
    rows, behind = _dense(frame["offsets"], slots)
    if rows is not None:
        offsets = np.zeros((n, slots), np.int16)
        offsets[rows] = behind
    return DayMatrix(day, int(minutes), frame.select(carried), values, quality, sequence.astype(np.int32, copy=False), offsets)


def _dense(column: pl.Series, slots: int) -> tuple[Any, npt.NDArray[Any]]:
    """The rows of a list column that are not null (a slice where all are) and their elements as a matrix; None where there are none."""
    if column.null_count() == len(column):
        return None, np.zeros((0, slots), np.int64)
    rows: Any = slice(None)
    if column.null_count():
        rows = np.flatnonzero(column.is_not_null().to_numpy())
        column = column.drop_nulls()
    return rows, column.explode().to_numpy().reshape(-1, slots)


# --- frame to COPY BINARY --------------------------------------------------------------------------------------------------------------


def encode(frame: pl.DataFrame, columns: Sequence[str]) -> bytes:
    """The rows of a frame in PostgreSQL's binary COPY format, without HEADER and TRAILER.

    A NumPy structured dtype is the COPY tuple itself, so that encoding is a few strided assignments: one dtype for each run of equal text
    lengths and null patterns, of which a city has a handful. Rows keep their order within a dtype, not across. Any frame will do: columns
    of String, Binary, Int16, Int32, Int64, Boolean, Date, Datetime (UTC) and lists of integers (each list of a group equally long).
    """
    return Encoder(frame, columns).rows(0, frame.height)


class Encoder:
    """``encode`` for a frame whose rows are wanted a few thousand at a time: what Polars must be asked (21 columns, 3 ms however few the rows) is
    asked once for BLOCK rows, and a range of them is then NumPy alone. Thread-safe: two threads at worst prepare the same block."""

    #: Rows prepared together: of 96 slots, 20 MB, so that a month's backlog of a million meters never lies in memory twice.
    BLOCK: Final = 32_768

    def __init__(self, frame: pl.DataFrame, columns: Sequence[str]) -> None:
        self._frame, self._columns = frame, columns
        self._prepared: dict[int, tuple[list[_Reader], npt.NDArray[np.int64]]] = {}

    def rows(self, first: int, past: int) -> bytes:
        """Rows [first, past), encoded."""
        parts = []
        while first < past:
            block = first // self.BLOCK
            start = block * self.BLOCK
            stop = min(past, start + self.BLOCK)
            readers, code = self._block(block)
            parts.append(_encode_rows(readers, code, first - start, stop - start))
            first = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, block: int) -> tuple[list[_Reader], npt.NDArray[np.int64]]:
        found = self._prepared.get(block)
        if found is None:
            found = _prepare(self._frame.slice(block * self.BLOCK, self.BLOCK), self._columns)
            # Batches are cut from first to last, a few at once: the blocks behind them are done with.
            self._prepared = {k: v for k, v in self._prepared.items() if k >= block - 1} | {block: found}
        return found


def _prepare(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[list[_Reader], npt.NDArray[np.int64]]:
    """Readers of the columns, and a number by row that is equal where all sizes are."""
    readers = [_reader(frame[c]) for c in columns]
    code = np.zeros(frame.height, np.int64)
    for reader in readers:
        if reader.sizes is not None:
            top = int(reader.sizes.max()) + 2
            code = code * top + (reader.sizes + 1)
            if int(code.max()) > 2**52:
                code = np.unique(code, return_inverse=True)[1].astype(np.int64)
    return readers, code


def _encode_rows(readers: list[_Reader], code: npt.NDArray[np.int64], first: int, past: int) -> bytes:
    part = code[first:past]
    if bool((part == part[0]).all()):
        return _encode_alike(readers, slice(first, past), past - first)
    kinds = np.unique(part)
    return b"".join(_encode_alike(readers, rows, len(rows)) for rows in (first + np.flatnonzero(part == k) for k in kinds))


@dataclass(slots=True)
class _Reader:
    """One column: sizes (bytes, elements, or -1 for null by row; None where fixed and never null) and a way to write it."""

    name: str
    sizes: npt.NDArray[np.int64] | None
    fixed: npt.NDArray[Any] | None = None
    starts: npt.NDArray[np.int64] | None = None
    data: npt.NDArray[Any] | None = None


def _reader(series: pl.Series) -> _Reader:
    kind = series.dtype
    nulls = series.null_count()
    null_at = series.is_null().to_numpy() if nulls else None
    if kind in (pl.String, pl.Binary):
        # Arrow's own offsets and bytes: a Python object for each text costs forty times as much.
        packed = series.to_arrow()
        _, bounds, content = packed.buffers()
        ends = np.frombuffer(bounds, np.int64)[packed.offset : packed.offset + len(packed) + 1]
        data = np.frombuffer(content, np.uint8)[ends[0] : ends[-1]] if content is not None else np.zeros(0, np.uint8)
        sizes = np.diff(ends)
        return _Reader(series.name, sizes if null_at is None else np.where(null_at, -1, sizes), None, ends[:-1] - ends[0], data)
    if isinstance(kind, pl.List):
        # As above: the child array as it lies, without a copy and without an expression (0.3 ms each, however few the rows).
        lists = series.to_arrow()
        ends = np.frombuffer(lists.buffers()[1], np.int64)[lists.offset : lists.offset + len(lists) + 1]
        sizes = np.diff(ends)
        return _Reader(series.name, sizes if null_at is None else np.where(null_at, -1, sizes), None, ends[:-1], lists.values.to_numpy())
    if isinstance(kind, pl.Datetime) and kind.time_unit != "us":
        series = series.dt.cast_time_unit("us")
    whole = series.to_physical()
    if nulls:
        whole = whole.fill_null(False if kind == pl.Boolean else 0)
    if kind == pl.Date:
        fixed: npt.NDArray[Any] = whole.to_numpy() - _POSTGRES_EPOCH_DAYS
    elif isinstance(kind, pl.Datetime):
        fixed = whole.to_numpy() - _POSTGRES_EPOCH_US
    elif kind == pl.Boolean:
        fixed = whole.to_numpy().astype(np.int8)
    elif kind in (pl.Int16, pl.Int32, pl.Int64):
        fixed = whole.to_numpy()
    else:
        raise TypeError(f"column {series.name}: no binary COPY of {kind}")
    return _Reader(series.name, None if null_at is None else np.where(null_at, -1, 0).astype(np.int64), fixed)


def _encode_alike(readers: Sequence[_Reader], rows: Any, n: int) -> bytes:
    """Encode rows that share every text length, array length and null pattern."""
    fields: list[tuple[Any, ...]] = [("fields", ">i2")]
    template: list[tuple[str, int]] = [("fields", len(readers))]
    probe = rows.start if isinstance(rows, slice) else rows[0]
    writes: list[tuple[str, npt.NDArray[Any]]] = []
    for i, reader in enumerate(readers):
        size = 0 if reader.sizes is None else int(reader.sizes[probe])
        fields.append((f"n{i}", ">i4"))
        if size < 0:
            template.append((f"n{i}", -1))
        elif reader.fixed is not None:
            picked = reader.fixed[rows]
            fields.append((f"v{i}", picked.dtype.newbyteorder(">")))
            template.append((f"n{i}", picked.dtype.itemsize))
            writes.append((f"v{i}", picked))
        elif reader.data is not None and reader.starts is not None and reader.data.dtype == np.uint8:
            template.append((f"n{i}", size))
            if size:
                fields.append((f"v{i}", np.uint8, (size,)))
                writes.append((f"v{i}", _block(reader, rows, n, size)))
        elif reader.data is not None:
            width = reader.data.dtype.itemsize
            element = [("l", ">i4"), ("v", reader.data.dtype.newbyteorder(">"))]
            fields += [(f"d{i}", ">i4"), (f"h{i}", ">i4"), (f"o{i}", ">i4"), (f"m{i}", ">i4"), (f"b{i}", ">i4"), (f"e{i}", element, (size,))]
            template += [(f"n{i}", 20 + size * (4 + width)), (f"d{i}", 1), (f"h{i}", 0), (f"o{i}", _ELEMENT_OID[reader.data.dtype])]
            template += [(f"m{i}", size), (f"b{i}", 1)]
            writes.append((f"e{i}", _block(reader, rows, n, size)))
    kind = np.dtype(fields)
    one = np.zeros(1, kind)
    for name, value in template:
        one[name] = value
    for name, _ in writes:
        if name[0] == "e":
            one[name]["l"] = kind.fields[name][0].base["v"].itemsize  # type: ignore[index]
    out = np.empty(n, kind)
    out[:] = one[0]
    for name, picked in writes:
        if name[0] == "e":
            out[name]["v"] = picked
        else:
            out[name] = picked
    return out.tobytes()


def _block(reader: _Reader, rows: Any, n: int, size: int) -> npt.NDArray[Any]:
    """(n, size) elements of the given rows, as a view where they lie one after another."""
    assert reader.data is not None  # noqa: S101 - readers of variable size carry both
    assert reader.starts is not None  # noqa: S101
    if isinstance(rows, slice):
        begin = int(reader.starts[rows.start])
        return reader.data[begin : begin + n * size].reshape(n, size)
    starts = reader.starts[rows]
    if n and int(starts[-1]) - int(starts[0]) == (n - 1) * size and bool((np.diff(starts) == size).all()):
        return reader.data[starts[0] : starts[0] + n * size].reshape(n, size)
    picked: npt.NDArray[Any] = reader.data[starts[:, None] + np.arange(size)]
    return picked


# --- the database ----------------------------------------------------------------------------------------------------------------------


def encoded_blocks(frame: pl.DataFrame, columns: Sequence[str], rows: int = 8192) -> Iterator[bytes]:
    """``encode`` a block at a time, so that no more than one block's bytes are held."""
    encoder = Encoder(frame, columns)
    for i in range(0, frame.height, rows):
        yield encoder.rows(i, min(i + rows, frame.height))


def copy_rows(connection: psycopg.Connection[Any], table: VectorTable, frame: pl.DataFrame) -> int:
    """COPY a vector frame (with the table's own columns) into a table, inside the caller's transaction. Returns the rows sent."""
    copy_blocks(connection, table.copy_statement(), encoded_blocks(frame, table.columns))
    return frame.height


def copy_blocks(connection: psycopg.Connection[Any], statement: sql.Composed, blocks: Iterable[bytes]) -> None:
    """Run a COPY ... FROM STDIN (FORMAT binary) with encoded rows, inside the caller's transaction.

    A thread of the driver's sends what is encoded, so that this one encodes the next block while the server takes the last.
    """
    with connection.cursor() as cursor, cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
        copy.write(HEADER)
        for block in blocks:
            copy.write(block)
        copy.write(TRAILER)


def copy_frame(connection: psycopg.Connection[Any], table: sql.Identifier, frame: pl.DataFrame, columns: Sequence[str]) -> None:
    """COPY some columns of a frame into any table, inside the caller's transaction."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, sql.SQL(", ").join(map(sql.Identifier, columns)))
    copy_blocks(connection, statement, encoded_blocks(frame, columns))


def write_matrices(connection: psycopg.Connection[Any], table: VectorTable, matrices: Sequence[DayMatrix], starts_at: datetime) -> int:
    """COPY day matrices, whose keys carry the table's own columns, inside the caller's transaction. Returns the rows sent."""
    return sum(copy_rows(connection, table, from_matrix(matrix, starts_at)) for matrix in matrices)


def read_frame(database: Database, table: VectorTable, day: date, where: str = "", parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """The vector frame of a billing day, sorted by key, through Arrow. Empty (with no columns promised) where the day has none.

    ``where`` narrows further, as SQL text with $2, $3 ... for ``parameters`` ($1 is the day): " AND channel = $2".
    """
    columns = ", ".join(f'"{c}"' for c in table.columns)
    order = ", ".join(f'"{c}"' for c in table.keys)
    query = f"SELECT {columns} FROM {table.name} WHERE billing_day = $1{where} ORDER BY {order}"
    frame = database.read(query, (day, *parameters))
    return frame.with_columns(pl.col(pl.Datetime).cast(UTC_US)) if frame.height else frame


def read_matrices(database: Database, table: VectorTable, day: date, where: str = "", parameters: Sequence[Any] = ()) -> list[DayMatrix]:
    """The day matrices of a billing day: one per interval length, rows sorted by key, keys carrying the table's own columns."""
    frame = read_frame(database, table, day, where, parameters)
    return to_matrices(frame) if frame.height else []


def day_start(frame: pl.DataFrame) -> datetime:
    """The UTC start of the billing day of a vector frame's first row."""
    start = frame["starts_at"][0]
    assert isinstance(start, datetime)  # noqa: S101 - the column's type
    return start.astimezone(UTC)
