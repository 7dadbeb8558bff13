"""A database of which every session is one connection in one transaction: the stages run as they are and see what they
wrote. At the end it is undone and leaves nothing, or commits as a whole.

Connections and commits are half of what a day costs where a run is for a few service points. Its statements are never
prepared: the plan of a prepared one holds every day's partition, which it locks and opens each time. Over 420 days the
server spent no less without (62 s, 58 s with prepared ones).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock
from typing import Any, Final

import polars as pl
import psycopg
from psycopg.rows import dict_row

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession

#: Types of PostgreSQL by oid as they arrive through Arrow (postgres/arrow.py): numeric and JSON as text.
_TYPES: Final[dict[int, Any]] = {
    16: pl.Boolean,
    17: pl.Binary,
    19: pl.String,
    20: pl.Int64,
    21: pl.Int16,
    23: pl.Int32,
    25: pl.String,
    700: pl.Float32,
    701: pl.Float64,
    1005: pl.List(pl.Int16),
    1007: pl.List(pl.Int32),
    1009: pl.List(pl.String),
    1016: pl.List(pl.Int64),
    1043: pl.String,
    1082: pl.Date,
    1114: pl.Datetime("us"),
    1182: pl.List(pl.Date),
    1184: pl.Datetime("us", "UTC"),
    1700: pl.String,
}
_NUMERIC: Final = 1700


class NotUndoable(RuntimeError):
    """A session asked to roll back its own part, which the shared transaction cannot do."""


@dataclass(frozen=True, slots=True)
class OneTransaction(ReadSession):
    """``connection`` for everybody: connect(), reading() and every thread take turns on it. Commits wait for the end,
    which is a rollback unless the transaction is ``kept``; deferred constraints are checked at each of them all the
    same."""

    lock: Any = None
    kept: bool = False
    #: Names of the steps done in the transaction already (``first_time``)
    done: set[str] = field(default_factory=set)

    @property
    def shared(self) -> bool:
        return True

    @property
    def undone(self) -> bool:
        return not self.kept

    def remembering(self) -> OneTransaction:
        """The same transaction, which reads one time what ``remembered`` and ``made_once`` keep."""
        return replace(self, memory={})

    def first_time(self, what: str) -> bool:
        if what in self.done:
            return False
        self.done.add(what)
        return True

    def acting_as(self, role: str | None) -> Database:
        return self

    def connect(self, application_name: str = "", *, autocommit: bool = False, role: str | None = None) -> Any:
        del application_name, autocommit, role
        return _Session(self.connection, self.lock)

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        with self.lock, psycopg.RawCursor(self.connection) as cursor:
            cursor.execute(query, parameters or None, binary=True)
            return _frame(cursor)

    def parts(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[pl.DataFrame]:
        found = self.read(query, parameters)
        yield found.clear()
        yield found

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self.lock, psycopg.RawCursor(self.connection, row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()


@contextlib.contextmanager
def undone(database: Database, application_name: str) -> Iterator[OneTransaction]:
    """A transaction on a database that is rolled back when the block ends, whatever happened in it."""
    with database.connect(application_name) as connection:
        connection.prepare_threshold = None
        try:
            yield OneTransaction(database.url, database.role, connection, {}, RLock())
        finally:
            connection.rollback()


@contextlib.contextmanager
def together(database: Database, application_name: str) -> Iterator[OneTransaction]:
    """A transaction on a database that commits when the block ends without an error. A process that is killed in it
    leaves nothing of it."""
    with database.connect(application_name) as connection:
        connection.prepare_threshold = None
        yield OneTransaction(database.url, database.role, connection, None, RLock(), kept=True)


def _frame(cursor: Any) -> pl.DataFrame:
    rows = cursor.fetchall()
    names = tuple((column.name, column.type_code) for column in cursor.description)
    if not rows:
        return _empty(names)
    columns = []
    for (name, code), values in zip(names, zip(*rows, strict=True), strict=True):
        kind = _TYPES.get(code, pl.String)
        if code not in _TYPES or code == _NUMERIC:
            values = tuple(None if v is None else str(v) for v in values)
        columns.append(pl.Series(name, values, dtype=kind))
    return pl.DataFrame(columns)


@lru_cache(maxsize=512)
def _empty(names: tuple[tuple[str, int], ...]) -> pl.DataFrame:
    """A frame without rows, of columns by name and PostgreSQL's type. Half of what a part of a day reads is one, and
    putting one together takes as long as its query."""
    return pl.DataFrame(schema={name: _TYPES.get(code, pl.String) for name, code in names})


def _only_reads(query: Any) -> bool:
    """Whether a statement is a SELECT. What a function that it calls leaves to be checked is checked with the next
    session that writes, and at the end."""
    return isinstance(query, str | bytes) and query[:7] in ("SELECT ", b"SELECT ")


class _Session:
    """A stage's connection: its statements take their turn, its commits are checked and kept for the end."""

    def __init__(self, connection: psycopg.Connection[Any], lock: Any) -> None:
        self._connection, self._lock, self._wrote = connection, lock, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.commit()

    def execute(self, query: Any, *parameters: Any, **options: Any) -> Any:
        self._wrote = self._wrote or not _only_reads(query)
        with self._lock:
            return self._connection.execute(query, *parameters, **options)

    def cursor(self, *parameters: Any, **options: Any) -> _Cursor:
        self._wrote = True
        return _Cursor(self._connection.cursor(*parameters, **options), self._lock)

    @contextlib.contextmanager
    def transaction(self, *parameters: Any, **options: Any) -> Iterator[Any]:
        with self._lock, self._connection.transaction(*parameters, **options) as inner:
            yield inner

    def commit(self) -> None:
        """Check deferred constraints where the session may have written: half of the sessions of a day only read."""
        if self._wrote:
            with self._lock:
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
            self._wrote = False

    def rollback(self) -> None:
        raise NotUndoable("a stage took back its work while it was only tried")

    def close(self) -> None:
        """The connection is everybody's and stays open."""


class _Cursor:
    """A cursor of the shared connection; a COPY holds the connection until it ends."""

    def __init__(self, cursor: psycopg.Cursor[Any], lock: Any) -> None:
        self._cursor, self._lock = cursor, lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *error: object) -> None:
        self._cursor.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def execute(self, *parameters: Any, **options: Any) -> Any:
        with self._lock:
            return self._cursor.execute(*parameters, **options)

    def executemany(self, *parameters: Any, **options: Any) -> None:
        with self._lock:
            self._cursor.executemany(*parameters, **options)

    @contextlib.contextmanager
    def copy(self, *parameters: Any, **options: Any) -> Iterator[Any]:
        with self._lock, self._cursor.copy(*parameters, **options) as copy:
            yield copy
