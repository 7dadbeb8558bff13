"""Sessions of the server between their uses. A small billing day opens eleven; each new one costs 2 ms of processor and
reads the catalogue again, which together was a quarter of the day.

A session that is closed goes to a shelf, as new: rolled back, its locks, temporary tables, settings and prepared
statements gone, its role the one it was opened in. A process keeps at most ``MOST`` idle sessions. The server ends one
that stays idle for ``IDLE_S``, and none is used again ``AGE_S`` after it was opened.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import psycopg
from psycopg.pq import Escaping, ExecStatus, PGconn, PipelineStatus, TransactionStatus

#: Idle sessions of a process.
MOST: Final = 4
IDLE_S: Final = 10
AGE_S: Final = 60.0
#: A server that has not made a session as new by then has stopped; the session ends.
_GIVE_BACK_S: Final = 1.0

#: The statements of DISCARD ALL, and RESET ROLE, which sets the role of the start-up options again: DISCARD ALL
#: drops it. DISCARD ALL is also refused beside a ROLLBACK.
_AS_NEW: Final = (
    "CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; "
    f"DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES; SET idle_session_timeout = '{IDLE_S}s'"
)
#: Stands in the wrapper of a closed session.
_GONE: Final = PGconn.connect_start(b"host=/nowhere")
_GONE.finish()


@dataclass(frozen=True, slots=True)
class _Origin:
    """URL and options of a session, when it was opened (monotonic), its first name, and how long its server may take
    to answer."""

    url: str
    options: str
    opened: float
    name: str
    timeout_s: int


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that goes to the shelf when it is closed."""

    origin: _Origin | None = None

    def close(self) -> None:
        """Give the session back. The wrapper is closed for good."""
        if self.origin is None or self.closed:
            super().close()
            return
        given, self.pgconn, self._closed = self.pgconn, _GONE, True
        if _as_new(given, self.origin):
            _SHELF.give(given, self.origin)
        else:
            given.finish()


def connect(url: str, options: str, name: str, timeout_s: int, *, autocommit: bool) -> Session:
    """A session from the shelf, or a new one. Raises psycopg.OperationalError where the server cannot be reached
    within ``timeout_s``."""
    taken = _SHELF.take(url, options, name)
    if taken is None:
        made = Session.connect(
            url, application_name=name, autocommit=autocommit, options=options, connect_timeout=timeout_s
        )
        made.origin = _Origin(url, options, time.monotonic(), name, timeout_s)
        return made
    session = Session(taken[0])
    session.origin = taken[1]
    session.autocommit = autocommit
    return session


def forget() -> None:
    """End the idle sessions of this process: before a database is dropped, and at exit."""
    _SHELF.clear()


def _as_new(given: Any, origin: _Origin) -> bool:
    """Make a session as new; whether that was done, and it is young enough to be kept."""
    state = given.transaction_status
    if state == TransactionStatus.IDLE:
        undo = ""
    elif state in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        undo = "ROLLBACK; "
    else:
        return False
    if given.pipeline_status != PipelineStatus.OFF or time.monotonic() - origin.opened > AGE_S:
        return False
    return _done(given, (undo + _AS_NEW).encode(), _GIVE_BACK_S)


def _done(session: Any, statements: bytes, timeout_s: float) -> bool:
    """Whether the server carried out some statements in time."""
    deadline, fine = time.monotonic() + timeout_s, True
    try:
        session.send_query(statements)
        while session.flush():
            time.sleep(0.001)
        ready = select.poll()
        ready.register(session.socket, select.POLLIN)
        while True:
            while session.is_busy():
                if not ready.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                    return False
                session.consume_input()
            result = session.get_result()
            if result is None:
                return fine and session.transaction_status == TransactionStatus.IDLE
            fine &= result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
    except psycopg.Error:
        return False


class _Shelf:
    """Idle sessions, the last given one last. A forked child leaves its parent's alone."""

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()
        self._idle: list[tuple[Any, _Origin]] = []
        #: A forked child never frees its parent's sessions: that would end them.
        self._parents: list[tuple[Any, _Origin]] = []
        atexit.register(self.clear)

    def take(self, url: str, options: str, name: str) -> tuple[Any, _Origin] | None:
        """A session that answers, named anew."""
        while (found := self._pop(url, options)) is not None:
            session, origin = found
            words = b"RESET idle_session_timeout"
            if name != origin.name:
                words += b"; SET application_name = " + bytes(Escaping(session).escape_literal(name.encode()))
            if time.monotonic() - origin.opened < AGE_S and _done(session, words, origin.timeout_s):
                return found
            session.finish()
        return None

    def _pop(self, url: str, options: str) -> tuple[Any, _Origin] | None:
        with self._lock:
            self._leave_the_parents()
            for place in reversed(range(len(self._idle))):
                origin = self._idle[place][1]
                if (origin.url, origin.options) == (url, options):
                    return self._idle.pop(place)
        return None

    def give(self, session: Any, origin: _Origin) -> None:
        """Keep a session; past ``MOST`` the one that was idle longest ends."""
        with self._lock:
            self._leave_the_parents()
            self._idle.append((session, origin))
            over, self._idle = self._idle[:-MOST], self._idle[-MOST:]
        for old, _ in over:
            old.finish()

    def clear(self) -> None:
        """End all."""
        with self._lock:
            self._leave_the_parents()
            over, self._idle = self._idle, []
        for old, _ in over:
            with contextlib.suppress(psycopg.Error):
                old.finish()

    def _leave_the_parents(self) -> None:
        if self._process != os.getpid():
            self._parents += self._idle
            self._idle, self._process = [], os.getpid()


_SHELF: Final = _Shelf()
