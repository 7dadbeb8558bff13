"""A proxy that keeps every COMMIT back for so long: a distant server, a slow disk, a synchronous standby.

Forwards from 127.0.0.1 to a server's Unix socket or address, a thread each way a connection. Only what answers a COMMIT
waits; everything else goes through at once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

_CHUNK = 1 << 18


@dataclass(slots=True)
class _Link:
    """One connection; ``committing`` while the answer to a COMMIT is awaited."""

    client: socket.socket
    server: socket.socket
    committing: threading.Event = field(default_factory=threading.Event)


def _up(link: _Link) -> None:
    with contextlib.suppress(OSError):
        while data := link.client.recv(_CHUNK):
            if b"COMMIT\0" in data[-64:]:
                link.committing.set()
            link.server.sendall(data)
    _close(link)


def _down(link: _Link, added_s: float) -> None:
    with contextlib.suppress(OSError):
        while data := link.server.recv(_CHUNK):
            if link.committing.is_set():
                link.committing.clear()
                time.sleep(added_s)
            link.client.sendall(data)
    _close(link)


def _close(link: _Link) -> None:
    for line in (link.client, link.server):
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    folder = dict(parse_qsl(parts.query)).get("host", "")
    if folder.startswith("/"):
        line = socket.socket(socket.AF_UNIX)
        line.connect(f"{folder}/.s.PGSQL.{parts.port or 5432}")
        return line
    return socket.create_connection((parts.hostname or "localhost", parts.port or 5432))


@contextlib.contextmanager
def added(url: str, seconds: float) -> Iterator[str]:
    """The URL of the same database, every COMMIT of which takes so many seconds longer."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link = _Link(client, _connected(url))
                threading.Thread(target=_up, args=(link,), daemon=True).start()
                threading.Thread(target=_down, args=(link, seconds), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{listener.getsockname()[1]}{parts.path}?sslmode=disable"
    finally:
        listener.close()
