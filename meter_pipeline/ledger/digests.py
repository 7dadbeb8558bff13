"""SHA-256 of the rows of columns, for the leaves of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from meter_pipeline.ledger.merkle import HASH_SIZE, compiled

#: What an array holds of each row: all rows' bytes, and where each row's begin and end (one number more than rows)
Part: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def digests(texts: pl.Series) -> pl.Series:
    """The SHA-256 of each text's UTF-8 bytes, or of each row's bytes: a Binary column, null where the row is."""
    if not compiled(len(texts)):
        plain = texts.cast(pl.Binary).to_list()
        return pl.Series(
            texts.name, [None if text is None else hashlib.sha256(text).digest() for text in plain], dtype=pl.Binary
        )
    made = row_digests([part_of(texts)]).alias(texts.name)
    return made.set(texts.is_null(), None) if texts.null_count() else made


def row_digests(parts: Sequence[Part]) -> pl.Series:
    """The SHA-256 of each row: its bytes in the first part, then those in the next ones. A Binary column."""
    rows = len(parts[0][1]) - 1
    if compiled(rows):
        from meter_pipeline.ledger import sha256_many

        flat = sha256_many.of_rows(parts)
    else:
        held = [(data.tobytes(), bounds.tolist()) for data, bounds in parts]
        each = (b"".join([data[at[row] : at[row + 1]] for data, at in held]) for row in range(rows))
        flat = np.frombuffer(b"".join([hashlib.sha256(row).digest() for row in each]), np.uint8)
    ends = np.arange(0, (rows + 1) * HASH_SIZE, HASH_SIZE, dtype=np.int64)
    made = pl.from_arrow(
        pa.LargeBinaryArray.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(ends), pa.py_buffer(flat)])
    )
    assert isinstance(made, pl.Series)  # noqa: S101 - one array is one column
    return made


def part_of(column: pl.Series) -> Part:
    """The bytes of a column of texts or bytes; none where a row is null."""
    packed = column.cast(pl.Binary).to_arrow().cast(pa.large_binary())
    _, bounds, content = packed.buffers()
    ends = np.frombuffer(bounds, np.int64)[packed.offset : packed.offset + len(packed) + 1]
    return np.frombuffer(content or b"", np.uint8), ends


def part_of_rows(matrix: npt.NDArray[np.generic]) -> Part:
    """The bytes of a matrix's rows, in its own byte order."""
    data = np.ascontiguousarray(matrix).view(np.uint8).reshape(-1)
    return data, np.arange(len(matrix) + 1, dtype=np.int64) * (data.size // max(len(matrix), 1))
