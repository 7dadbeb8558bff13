"""A few rows of a frame as a relation inside a statement.

A temporary table for each costs five statements and up to 8 ms, and its locks are kept until the transaction ends: a
correction of four years that is tried in one transaction took more of them than a server has.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

if TYPE_CHECKING:  # `exceptions list` loads this module and no library of frames
    import polars as pl

#: More rows than this are copied into a temporary table
MOST_ROWS: Final = 64
#: Of all columns together; a city's usage of a day is a list of one row
_MOST_BYTES: Final = 128 * 1024


def fits(frame: pl.DataFrame) -> bool:
    """Whether a frame is small, and of types that JSON carries exactly: whole numbers, texts, dates, bytes, lists of
    them."""
    return frame.height <= MOST_ROWS and _exact(tuple(frame.dtypes)) and frame.estimated_size() <= _MOST_BYTES


@lru_cache(maxsize=256)
def _exact(kinds: tuple[pl.DataType, ...]) -> bool:
    """Whether JSON carries columns of some types exactly."""
    import polars as pl

    whole = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
    plain = (pl.String, pl.Binary, pl.Boolean, pl.Date, pl.Datetime, pl.Null, *whole)
    return all(isinstance(kind.inner if isinstance(kind, pl.List) else kind, plain) for kind in kinds)


def relation(table: sql.Identifier) -> sql.Composed:
    """SQL of a relation with the table's columns, whose one parameter %(rows)s is the ``text`` of its rows."""
    return sql.SQL("jsonb_populate_recordset(NULL::{}, %(rows)s::jsonb)").format(table)


def text(frame: pl.DataFrame) -> str:
    """A frame's rows as ``relation`` takes them."""
    return json.dumps(frame.to_dicts(), default=_text)


def _text(value: Any) -> str:
    """A value as PostgreSQL reads it from text."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"no row holds {type(value)}")
