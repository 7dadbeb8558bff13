"""Sessions that read many frames over one Arrow connection."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Any, Final, ParamSpec, TypeVar

import polars as pl

from meter_pipeline.postgres.arrow import fetch, fetch_parts
from meter_pipeline.postgres.arrow_connections import connect
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import AdbcConnection

Item = TypeVar("Item")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class ReadSession(Database):
    """A database whose frames are all read over one connection: a billing day needs fifteen reads.

    Each read is its own transaction, so that it sees everything committed before it and holds no lock after it.
    """

    #: A psycopg connection in one_transaction.py.
    connection: AdbcConnection = None
    #: Frames that were read already, by query and parameters, and results computed from them, where the session keeps
    #: them.
    memory: dict[Any, Any] | None = None

    @property
    def shared(self) -> bool:
        """Whether all sessions of the database are this one."""
        return False

    @property
    def undone(self) -> bool:
        """Whether everything written is rolled back at the end."""
        return False

    def first_time(self, what: str) -> bool:
        """Whether something is done for the first time in the transaction that the sessions share."""
        return True

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        return fetch(self.connection, query, parameters)

    def parts(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[pl.DataFrame]:
        """As ``read``, in parts of about 16 MiB while the server still sends: an empty frame, then the rows."""
        return fetch_parts(self.connection, query, parameters)


def is_shared(database: Database) -> bool:
    """Whether all sessions of a database are one transaction (one_transaction.py)."""
    return isinstance(database, ReadSession) and database.shared


def first_time(database: Database, what: str) -> bool:
    """Whether something that a transaction needs to do one time is still to be done in it: several days of a
    correction share one. Always where sessions are transactions of their own."""
    return not isinstance(database, ReadSession) or database.first_time(what)


def is_undone(database: Database) -> bool:
    """Whether the session's writes are rolled back at the end (one_transaction.py)."""
    return isinstance(database, ReadSession) and database.undone


def remembered(database: Database, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """As ``read``, for tables that no stage writes. A transaction that is rolled back reads the same rows one time;
    if someone changes them in the meantime, the preview is refused when it is applied. So do the days of a correction
    that share a transaction (days_together.py): reference data is kept as it is, and what comes of reads and edits
    is looked at by the next run (``remember_asked`` of vee/tables/part_of_day.py)."""
    if not isinstance(database, ReadSession) or database.memory is None:
        return database.read(query, parameters)
    key = (query, *parameters)
    if key not in database.memory:
        database.memory[key] = database.read(query, parameters)
    found: pl.DataFrame = database.memory[key]
    return found


def made_once(database: Database, what: Sequence[Any], frames: Sequence[object], make: Callable[[], Item]) -> Item:
    """``make()``, called one time for the same ``what`` and the very same ``frames`` where the session remembers: what
    hundreds of days of a correction would each make of the same reference data. Nobody may change what is returned."""
    if not isinstance(database, ReadSession) or database.memory is None:
        return make()
    key = (*what, *map(id, frames))
    if key not in database.memory:
        # The frames are kept, so that no other object is taken for one of them.
        database.memory[key] = make(), tuple(frames)
    item: Item = database.memory[key][0]
    return item


def expect_days(database: Database, days: Sequence[date]) -> None:
    """Say which days the transaction is about to run, in order: ``of_day`` reads their rows together."""
    if isinstance(database, ReadSession) and database.memory is not None:
        database.memory[_EXPECTED], database.memory[_AHEAD] = sorted(days), {}


_EXPECTED: Final = ("expected days",)
_AHEAD: Final = ("rows of days ahead",)
#: So many days from one on are read together
_MOST_DAYS: Final = 31


def of_day(database: Database, query: str, day: date, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """The rows of a day, of a ``query`` over the days from $1 to $2 that names its ``billing_day``: for rows that only
    the day's own run writes. A transaction that remembers reads those of the expected days that follow with them and
    gives each day's rows out one time: a day that runs again reads again."""
    memory = database.memory if isinstance(database, ReadSession) and database.memory is not None else {}
    expected = memory.get(_EXPECTED, [])
    if day not in expected:
        return database.read(query, (day, day, *parameters)).drop("billing_day")
    kept: dict[date, pl.DataFrame] = memory[_AHEAD].setdefault((query, *parameters), {})
    if day not in kept:
        several = [each for each in expected if 0 <= (each - day).days < _MOST_DAYS]
        found = database.read(query, (day, several[-1], *parameters))
        parts = found.partition_by("billing_day", as_dict=True, include_key=False, maintain_order=True)
        nothing = found.clear().drop("billing_day")
        kept.update({each: parts.get((each,), nothing) for each in several})
    return kept.pop(day)


def remembers(database: Database) -> bool:
    """Whether ``remembered`` reads the same rows one time."""
    return isinstance(database, ReadSession) and database.memory is not None


@contextlib.contextmanager
def ahead(items: Generator[Item]) -> Iterator[Iterator[Item]]:
    """Yields the same items; another thread makes up to four of them in advance."""
    done: Any = object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        waiting = deque(pool.submit(next, items, done) for _ in range(4))

        def taken() -> Iterator[Item]:
            while (item := waiting.popleft().result()) is not done:
                waiting.append(pool.submit(next, items, done))
                yield item

        try:
            yield taken()
        finally:
            pool.shutdown(cancel_futures=True)
            items.close()


@contextlib.contextmanager
def reading(database: Database) -> Iterator[ReadSession]:
    """Opens a session for many reads of frames. Its connection is then kept for the next stage of the process. A
    session that shares one transaction (one_transaction.py) is returned unchanged."""
    if isinstance(database, ReadSession) and database.shared:
        yield database
        return
    url = database.with_options(options=f"{database.session_options} -c default_transaction_read_only=on")
    connection = _SHELF.take(url)
    try:
        yield ReadSession(database.url, database.role, connection)
    except BaseException:
        with contextlib.suppress(Exception):
            connection.close()
        raise
    _SHELF.give(url, connection)


def beside(database: Database, name: str) -> Executor:
    """Opens one thread that reads or writes beside its caller. Where all sessions share one transaction, each call
    runs in the caller instead: the sessions take turns anyway, and a small day that ran again started five threads."""
    return _AtOnce() if is_shared(database) else ThreadPoolExecutor(1, name)


class _AtOnce(Executor):
    """Runs each call when it is submitted."""

    def submit(self, fn: Callable[P, Item], /, *args: P.args, **kwargs: P.kwargs) -> Future[Item]:
        future: Future[Item] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Shelf:
    """Keeps Arrow connections between uses: a billing day has four stages.

    At most two are kept, of the last database only. A connection that the server has closed is replaced. A forked child
    does not use its parent's connections.
    """

    def __init__(self) -> None:
        self._lock, self._url, self._process = Lock(), "", 0
        self._kept: list[AdbcConnection] = []
        atexit.register(self.clear)

    def take(self, url: str) -> AdbcConnection:
        """Returns a connection that works."""
        while (connection := self._pop(url)) is not None:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
                    cursor.fetchone()
                return connection
            except Exception:
                with contextlib.suppress(Exception):
                    connection.close()
        return connect(url)

    def _pop(self, url: str) -> AdbcConnection | None:
        with self._lock:
            return self._kept.pop() if self._kept and (self._url, self._process) == (url, os.getpid()) else None

    def give(self, url: str, connection: AdbcConnection) -> None:
        """Keep a connection for the next use."""
        with self._lock:
            if (self._url, self._process) != (url, os.getpid()):
                old, self._kept = (self._kept if self._process == os.getpid() else []), []
                self._url, self._process = url, os.getpid()
            else:
                old, self._kept = self._kept[1:], self._kept[:1]
            self._kept.append(connection)
        self._close(old)

    def clear(self) -> None:
        """Close the kept connections: before a database is dropped, and at exit."""
        with self._lock:
            old, self._kept = (self._kept if self._process == os.getpid() else []), []
        self._close(old)

    @staticmethod
    def _close(connections: list[AdbcConnection]) -> None:
        for connection in connections:
            with contextlib.suppress(Exception):
                connection.close()


_SHELF: Final = _Shelf()


def forget() -> None:
    """Close the connections that are kept between stages: before a database is dropped."""
    _SHELF.clear()
