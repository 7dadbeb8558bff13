"""Frames into PostgreSQL by binary COPY."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import psycopg
from psycopg import sql
from psycopg.copy import QueuedLibpqWriter

from meter_pipeline.postgres.array_bytes import array_type

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_ELEMENT_OID: Final = {np.dtype(np.int16): 21, np.dtype(np.int32): 23, np.dtype(np.int64): 20}
_POSTGRES_EPOCH_DAYS: Final = date(2000, 1, 1).toordinal() - date(1970, 1, 1).toordinal()
_POSTGRES_EPOCH_US: Final = _POSTGRES_EPOCH_DAYS * 86_400_000_000


def encode(frame: pl.DataFrame, columns: Sequence[str]) -> bytes:
    """The rows of a frame in PostgreSQL's binary COPY format, without HEADER and TRAILER.

    A NumPy structured dtype is the COPY tuple itself, so that encoding is a few strided assignments: one dtype for each
    run of equal text lengths and null patterns, of which a city has a handful. Rows keep their order within a dtype,
    not across. Any frame will do: columns of String, Binary, Int16, Int32, Int64, Boolean, Date, Datetime (UTC) and
    lists of integers (each list of a group equally long).
    """
    return Encoder(frame, columns).rows(0, frame.height)


class Encoder:
    """``encode`` for a frame whose rows are wanted a few thousand at a time.

    Reading the columns from Polars takes 3 ms for 21 columns, however few the rows, so BLOCK rows are read together; a
    range of them is then encoded by NumPy alone. Thread-safe: at worst two threads prepare the same block."""

    #: Rows prepared together: 20 MB of rows with 96 slots. A month's backlog of a million meters is never held twice.
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
            # Batches are cut from first to last, a few at a time: earlier blocks are not needed again.
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
    return b"".join(
        _encode_alike(readers, rows, len(rows)) for rows in (first + np.flatnonzero(part == k) for k in kinds)
    )


@dataclass(slots=True)
class _Reader:
    """One column: sizes (bytes, elements, or -1 for null by row; None where fixed and never null) and a way to write
    it."""

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
        return _Reader(
            series.name, sizes if null_at is None else np.where(null_at, -1, sizes), None, ends[:-1] - ends[0], data
        )
    if isinstance(kind, pl.List):
        # As above: the child array itself, without a copy. A Polars expression takes 0.3 ms, however few the rows.
        lists = series.to_arrow()
        ends = np.frombuffer(lists.buffers()[1], np.int64)[lists.offset : lists.offset + len(lists) + 1]
        sizes = np.diff(ends)
        return _Reader(
            series.name,
            sizes if null_at is None else np.where(null_at, -1, sizes),
            None,
            ends[:-1],
            lists.values.to_numpy(),
        )
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
    template: list[tuple[str, Any]] = [("fields", len(readers))]
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
            array = array_type(reader.data.dtype, size)
            fields.append((f"a{i}", array))
            head = (1, 0, _ELEMENT_OID[reader.data.dtype], size, 1)
            template += [(f"n{i}", array.itemsize), (f"a{i}", (*head, [(reader.data.dtype.itemsize, 0)] * size))]
            writes.append((f"a{i}", _block(reader, rows, n, size)))
    kind = np.dtype(fields)
    one = np.zeros(1, kind)
    for name, value in template:
        one[name] = value
    out = np.empty(n, kind)
    out[:] = one[0]
    for name, picked in writes:
        if name[0] == "a":
            out[name]["of"]["value"] = picked
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


#: Rows encoded at a time
_BLOCK: Final = 8192


def encoded_blocks(frame: pl.DataFrame, columns: Sequence[str]) -> Iterator[bytes]:
    """``encode`` a block at a time, so that no more than one block's bytes are held."""
    encoder = Encoder(frame, columns)
    for i in range(0, frame.height, _BLOCK):
        yield encoder.rows(i, min(i + _BLOCK, frame.height))


def copy_blocks(connection: psycopg.Connection[Any], statement: sql.Composed, blocks: Iterable[bytes]) -> None:
    """Run a COPY ... FROM STDIN (FORMAT binary) with encoded rows, inside the caller's transaction.

    A thread of the driver's sends what is encoded, so that this one encodes the next block while the server takes the
    last.
    """
    with connection.cursor() as cursor, cursor.copy(statement, writer=QueuedLibpqWriter(cursor)) as copy:
        copy.write(HEADER)
        for block in blocks:
            copy.write(block)
        copy.write(TRAILER)


def copy_frame(
    connection: psycopg.Connection[Any], table: sql.Identifier, frame: pl.DataFrame, columns: Sequence[str]
) -> None:
    """COPY some columns of a frame into any table, inside the caller's transaction."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        table, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    copy_blocks(connection, statement, encoded_blocks(frame, columns))
