"""Arrow connections to PostgreSQL that ask for the server's types one time in a process.

The driver reads every type and every column of a database before its first connection, and again for each connection
that it is asked for by URL: 27 ms of the client's processor and as much of the server's, a fifth of a small billing
day. The types that queries return are PostgreSQL's own, and those have the same numbers in every database of a server
(a domain is returned as the type it stands on), so one reading serves all connections.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from meter_pipeline.postgres.driver import AdbcConnection

if TYPE_CHECKING:
    from adbc_driver_manager import AdbcDatabase

#: Process, scheme, user and host, and the libpq options that say which server it is.
_Server = tuple[int, str, str, tuple[tuple[str, str], ...]]
_types: Final[dict[_Server, AdbcDatabase]] = {}
_lock: Final = Lock()


class _KeptTypes:
    """Stands for the driver in a connection, which closes what it is given when it is closed itself."""

    def close(self) -> None:
        """The driver stays open for the next connection. It holds no socket."""


def connect(url: str, *, autocommit: bool = True) -> AdbcConnection:
    """A new connection. The caller closes it. Raises the driver's errors where the server cannot be reached."""
    import adbc_driver_postgresql
    from adbc_driver_manager import AdbcConnection as Handle
    from adbc_driver_manager import dbapi

    server = _server(url)
    # The URL is the driver's state, not the connection's: another thread must not set it before this one has connected.
    with _lock:
        types = _types.get(server)
        if types is None:
            types = _types[server] = adbc_driver_postgresql.connect(url)
        else:
            types.set_options(uri=url)
        handle = Handle(types)
    return dbapi.Connection(_KeptTypes(), handle, autocommit=autocommit)


def _server(url: str) -> _Server:
    """A server, seen from one process: a forked child reads the types for itself."""
    parts = urlsplit(url)
    options = tuple(sorted((k, v) for k, v in parse_qsl(parts.query) if k in ("host", "port", "user", "service")))
    return os.getpid(), parts.scheme, parts.netloc, options
