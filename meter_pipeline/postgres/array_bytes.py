"""Arrays of whole numbers in PostgreSQL's binary formats, and out of the server as bytes.

``raw.array_bytes`` gives the bytes of an array: as the server stores it, or as array_send writes it where the owner of
the database is no superuser. Both are read here. 100,000 day vectors of 96 values take 0.07 s of the server as stored,
0.42 s by array_send, and 1.0 s as arrays, element by element through Arrow's reader.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

#: What stands before the elements of an array of one dimension, in both formats: dimensions, nulls, element type,
# length, first index. An empty array has no dimension, and no length or index therefore.
_HEAD: Final = 20
_EMPTY: Final = 12
#: How an array of one dimension begins as it is stored: array_send writes the number the other way round.
_STORED: Final = b"\x01\x00\x00\x00"
#: Arrays that are taken one by one: a row's twelve took 2 ms of each day of a correction when they were laid out
_FEW: Final = 4
_NUMPY: Final[dict[Any, Any]] = {
    pl.Int16: np.dtype(np.int16),
    pl.Int32: np.dtype(np.int32),
    pl.Int64: np.dtype(np.int64),
}

#: PostgreSQL's numbers of smallint, integer and bigint (pg_type.oid), by an element's size in bytes
_TYPES: Final = {2: 21, 4: 23, 8: 20}


def array_type(number: np.dtype[Any], length: int) -> np.dtype[Any]:
    """An array of one dimension in the format that array_send writes and binary COPY reads."""
    element = [("size", ">i4"), ("value", number.newbyteorder(">"))]
    return np.dtype(
        [
            ("dimensions", ">i4"),
            ("nulls", ">i4"),
            ("type", ">i4"),
            ("length", ">i4"),
            ("first", ">i4"),
            ("of", element, (length,)),
        ]
    )


def stored_type(number: np.dtype[Any], length: int) -> np.dtype[Any]:
    """An array of one dimension as a little-endian server stores it (ArrayType in PostgreSQL's utils/array.h).
    ``nulls`` is 0 where no element is null."""
    return np.dtype(
        [
            ("dimensions", "<i4"),
            ("nulls", "<i4"),
            ("type", "<i4"),
            ("length", "<i4"),
            ("first", "<i4"),
            ("of", number.newbyteorder("<"), (length,)),
        ]
    )


def listed(columns: Iterable[str], arrays: Container[str]) -> str:
    """Columns for a query, quoted, those of ``arrays`` (of smallint, integer or bigint) as bytes. ``lists`` takes them
    from there."""
    return ", ".join(f'raw.array_bytes("{name}") AS "{name}"' if name in arrays else f'"{name}"' for name in columns)


def lists(frame: pl.DataFrame, columns: Mapping[str, Any]) -> pl.DataFrame:
    """The frame with the byte columns named made lists of their element types (Int16, Int32 or Int64), as if read as
    arrays.

    ValueError where an array has more than one dimension, a null among its elements, or another type's.
    """
    return frame.with_columns(_list(frame[name], kind) for name, kind in columns.items() if name in frame.columns)


def _list(column: pl.Series, kind: Any) -> pl.Series:
    if column.null_count() == len(column):
        return pl.Series(column.name, [None] * len(column), dtype=pl.List(kind))
    if len(column) <= _FEW:
        few = [None if packed is None else _numbers(column.name, packed, _NUMPY[kind]) for packed in column]
        return pl.Series(column.name, few, dtype=pl.List(kind))
    packed, here = column.to_arrow(), column.is_not_null().to_numpy()
    _, bounds, content = packed.buffers()
    starts = np.frombuffer(bounds, np.int64)[packed.offset : packed.offset + len(packed) + 1]
    data, number = np.frombuffer(content, np.uint8), _NUMPY[kind]
    sizes = np.diff(starts)
    filled = np.flatnonzero(sizes > _EMPTY)
    stored = len(filled) > 0 and data[starts[filled[0]] :][: len(_STORED)].tobytes() == _STORED
    width = number.itemsize + (0 if stored else 4)
    counts = np.where(here, np.maximum(sizes - _HEAD, 0) // width, 0)
    if (here & (sizes != np.where(counts > 0, _HEAD + counts * width, _EMPTY))).any():
        raise _refused(column.name, number)
    places = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    values = np.empty(int(places[-1]), number)
    lengths = np.unique(counts[here]).tolist()
    if lengths == [counts[0]] and lengths[0] and here.all():
        taken = data[starts[0] : starts[-1]]
        values.reshape(-1, lengths[0])[:] = _elements(column.name, taken, lengths[0], number, stored=stored)
    else:
        for length in filter(None, lengths):
            alike = np.flatnonzero(counts == length)
            taken = data[starts[alike][:, None] + np.arange(_HEAD + length * width)].ravel()
            found = _elements(column.name, taken, length, number, stored=stored)
            values[places[alike][:, None] + np.arange(length)] = found
    decoded = pl.from_arrow(
        pa.LargeListArray.from_arrays(pa.array(places), pa.array(values), mask=None if here.all() else pa.array(~here))
    )
    assert isinstance(decoded, pl.Series)  # noqa: S101 - one array is one column
    return decoded.alias(column.name)


def _numbers(name: str, packed: bytes, number: np.dtype[Any]) -> list[int]:
    """The elements of one array."""
    stored = packed.startswith(_STORED)
    width = number.itemsize + (0 if stored else 4)
    count = max(len(packed) - _HEAD, 0) // width
    if len(packed) != (_HEAD + count * width if count else _EMPTY):
        raise _refused(name, number)
    if not count:
        return []
    numbers: list[int] = _elements(name, np.frombuffer(packed, np.uint8), count, number, stored=stored)[0].tolist()
    return numbers


def _elements(name: str, data: npt.NDArray[np.uint8], length: int, number: Any, *, stored: bool) -> npt.NDArray[Any]:
    """The elements, a row an array, of arrays of one length that lie end to end: a view. ``stored``: as the server
    stores them, otherwise as array_send writes them."""
    arrays = data.view((stored_type if stored else array_type)(number, length))
    sizes = number.itemsize if stored else arrays["of"]["size"]
    if (
        (arrays["dimensions"] != 1).any()
        or (arrays["nulls"] != 0).any()
        or (arrays["type"] != _TYPES[number.itemsize]).any()
        or (arrays["length"] != length).any()
        or np.any(sizes != number.itemsize)
    ):
        raise _refused(name, number)
    values: npt.NDArray[Any] = arrays["of"] if stored else arrays["of"]["value"]
    return values


def _refused(name: str, number: Any) -> ValueError:
    return ValueError(
        f"column {name}: not arrays of one dimension with elements of {number.itemsize} bytes and no null"
    )
