"""A TCP proxy in front of a PostgreSQL server that does to connections what networks do."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Toxic:
    """What is done to the traffic. ``reset_before_commit`` and ``reset_after_commit`` count down the COMMITs to let
    pass (-1: never)."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0
    limit_bytes: int = 0
    reset_before_commit: int = -1
    reset_after_commit: int = -1
    half_open: bool = False
    refuse: bool = False


class Proxy:
    """Listens on 127.0.0.1 and forwards to the server's Unix socket. ``struck`` counts resets and refusals."""

    def __init__(self, target: Path, seed: int) -> None:
        self.target, self.rng, self.toxic, self.struck = target, random.Random(seed), Toxic(), 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._stop = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._stop = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._open:
            self._reset(line)

    def _accept(self) -> None:
        while not self._stop:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.toxic.refuse:
                self.struck += 1
                self._reset(client)
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.target))
            except OSError:
                self._reset(client)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            state: dict[str, Any] = {"bytes": 0, "committing": False}
            for source, sink, up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, up, state), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool, state: dict[str, Any]) -> None:
        try:
            while data := source.recv(65_536):
                toxic = self.toxic
                while toxic.half_open and not self._stop:
                    time.sleep(0.02)  # swallowed: neither side hears anything
                    toxic = self.toxic
                if up and b"COMMIT\0" in data:
                    if self._count("reset_before_commit"):
                        break
                    state["committing"] = True
                elif not up and state["committing"]:
                    state["committing"] = False
                    if self._count("reset_after_commit"):
                        break
                if toxic.latency_s or toxic.jitter_s:
                    time.sleep(toxic.latency_s + self.rng.random() * toxic.jitter_s)
                state["bytes"] += len(data)
                if toxic.limit_bytes and state["bytes"] > toxic.limit_bytes:
                    self.struck += 1
                    break
                if toxic.slice_bytes and len(data) < 4096:
                    for at in range(0, len(data), toxic.slice_bytes):
                        sink.sendall(data[at : at + toxic.slice_bytes])
                else:
                    sink.sendall(data)
        except OSError:
            pass
        self._reset(source)
        self._reset(sink)

    def _count(self, name: str) -> bool:
        with self._lock:
            left = getattr(self.toxic, name)
            if left < 0:
                return False
            setattr(self.toxic, name, left - 1)
            if left == 0:
                self.struck += 1
            return bool(left == 0)

    @staticmethod
    def _reset(line: socket.socket) -> None:
        """RST, not FIN: no lingering, and the thread that reads this end woken first, or its reference would keep the
        line open."""
        with contextlib.suppress(OSError):
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RD if line.family == socket.AF_INET else socket.SHUT_RDWR)
        line.close()
