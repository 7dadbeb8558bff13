"""Frames out of PostgreSQL through Arrow (ADBC)."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final

import polars as pl
from psycopg import sql

from meter_pipeline.postgres.arrow_connections import connect
from meter_pipeline.postgres.driver import AdbcConnection

#: Types whose values may stand in the query's text: a date cannot hold SQL. Strings are quoted by psycopg,
# those beyond doubt only.
_WRITTEN: Final = (date, datetime, int, bool)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:,/ -]{0,200}")
_PLACE: Final = re.compile(r"\$(\d+)\b")


def fetch(connection: AdbcConnection, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """A query's result. Parameters are $1, $2 ...; numeric columns arrive as text.

    The driver streams by COPY only what has no bound parameters, and otherwise waits for the whole result before it
    reads the first row: 1.4 s against 1.0 s for 100,000 day vectors. Dates, whole numbers and plain names are therefore
    written into the text; with anything else, all are bound.
    """
    with _answer(connection, query, parameters) as cursor:
        return _frame(cursor.fetch_arrow_table())


def fetch_parts(connection: AdbcConnection, query: str, parameters: Sequence[Any] = ()) -> Iterator[pl.DataFrame]:
    """As ``fetch``, some 16 MiB at a time while the server still sends; an empty frame first."""
    with _answer(connection, query, parameters) as cursor:
        reader = cursor.fetch_record_batch()
        yield _frame(reader.schema.empty_table())
        for batch in reader:
            yield _frame(batch)


@contextlib.contextmanager
def _answer(connection: AdbcConnection, query: str, parameters: Sequence[Any]) -> Iterator[Any]:
    if parameters and all(map(_may_be_written, parameters)):
        query, parameters = (
            _PLACE.sub(lambda place: sql.Literal(parameters[int(place[1]) - 1]).as_string(None), query),
            (),
        )
    with connection.cursor() as cursor:
        cursor.execute(query, parameters=list(parameters) or None)
        yield cursor


def _may_be_written(value: Any) -> bool:
    return type(value) in _WRITTEN or (type(value) is str and _PLAIN.fullmatch(value) is not None)


def _frame(arrow_table: Any) -> pl.DataFrame:
    frame = pl.from_arrow(arrow_table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table never arrives as a series
    return frame


#: One connection a thread, kept for its last URL: a stage reads a dozen times.
_kept = threading.local()


def kept(url: str) -> Any:
    """This thread's connection to a database, opened if it was another or none."""
    if getattr(_kept, "url", None) != url or _kept.process != os.getpid():
        forget()
        _kept.connection, _kept.url, _kept.process = connect(url), url, os.getpid()
    return _kept.connection


def forget() -> None:
    """Close this thread's connection; in a forked child only forget it, since the socket is the parent's."""
    connection = getattr(_kept, "connection", None)
    if connection is not None and _kept.process == os.getpid():
        with contextlib.suppress(Exception):
            connection.close()
    _kept.connection = _kept.url = None
    _kept.process = 0


atexit.register(forget)  # the driver's own clean-up at exit finds its modules gone and complains
