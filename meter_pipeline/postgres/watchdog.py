"""Deadlines that hold against a server that has stopped answering.

A stopped server (SIGSTOP, a frozen VM) still has a kernel that acknowledges packets, so keepalives and tcp_user_timeout
see nothing, its own statement_timeout does not run, and a cancelled psycopg call came back after 11 s. Shutting the
socket down wakes the waiting call at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg


def cut(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Shut down a connection's socket: a call waiting on it fails with OperationalError, and the connection is of no
    further use."""
    # A duplicate, so that closing our view of the socket leaves libpq its own descriptor.
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection if the block is not done within ``seconds``; costs about 0.1 ms."""
    timer = threading.Timer(seconds, cut, args=(connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
