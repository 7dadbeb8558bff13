"""The pipeline's side of the signer: a request to another process.

Three ways to a signer, by METER_PIPELINE_LEDGER_SIGNER: ``unix:PATH``, the socket of a signer that runs as a service of
its own user; a command that answers one request as the signer does (``ssh ...``, ``sudo -u ...``); nothing, and a child
of this process holds the keys: right for one machine and one person, since the child has this process's user. The child
stays for the next question, because starting one costs 0.2 s.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from meter_pipeline.ledger.signer import SignerRefusedError

#: Where the signer is: a socket, or a command; see the module.
SIGNER_VARIABLE: Final = "METER_PIPELINE_LEDGER_SIGNER"
_SOCKET: Final = "unix:"
_TIMEOUT_S: Final = 60


class SignerTransport(Protocol):
    """A way to the signer: one request's JSON in, one answer's JSON out. Raises OSError or subprocess.SubprocessError
    where there is none."""

    def exchange(self, request: str) -> str: ...

    def start(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Command:
    """A command that reads a JSON request on stdin and prints a JSON answer."""

    words: tuple[str, ...]

    def exchange(self, request: str) -> str:
        return subprocess.run(  # noqa: S603 - the operator's own command, no shell
            self.words,
            input=request,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=_environment(),
        ).stdout

    def start(self) -> None:
        """Nothing to do: it starts with each question."""


@dataclass(frozen=True, slots=True)
class Socket:
    """The Unix socket of a signer that runs as a service."""

    path: Path

    def exchange(self, request: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(self.path))
            connection.sendall(request.encode() + b"\n")
            with connection.makefile("rb") as answer:
                return answer.readline().decode()

    def start(self) -> None:
        """Nothing to do: it runs."""


class SignerProcess:
    """A signer that this process started over a folder of keys, kept for the next question; it ends when this process
    does.

    One at a time: another folder's takes the place of the last. A process that was forked starts its own.
    """

    _shared: SignerProcess | None = None
    _lock: Final = threading.Lock()

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        self.owner = os.getpid()
        self.process: subprocess.Popen[str] | None = None

    @classmethod
    def of(cls, keys: Path) -> SignerProcess:
        """The child over a folder of keys, running or yet to be started."""
        with cls._lock:
            process = cls._shared
            if process is None or process.keys != keys or process.owner != os.getpid():
                if process is not None and process.owner == os.getpid():
                    process.stop()
                cls._shared = process = cls(keys)
            return process

    def start(self) -> None:
        """Start it now, so that it is up when it is asked."""
        with self._lock:
            self._started()

    def _started(self) -> None:
        if self.process is None or self.process.poll() is not None:
            words = [sys.executable, "-m", "meter_pipeline.ledger.signer", "--keys", str(self.keys), "--stay"]
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
            )
            atexit.register(self.stop)

    def exchange(self, request: str) -> str:
        with self._lock:
            answer = self._ask(request)
            # A child that was killed between requests: another one knows what it knew, from the folder.
            return answer or self._ask(request)

    def _ask(self, request: str) -> str:
        self._started()
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None  # noqa: S101, PT018 - just started
        watchdog = threading.Timer(_TIMEOUT_S, self.process.kill)
        watchdog.start()
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline()
        except BrokenPipeError:
            return ""
        finally:
            watchdog.cancel()

    def stop(self) -> None:
        """End it: it goes when its input ends."""
        process, self.process = self.process, None
        atexit.unregister(self.stop)
        if process is None or self.owner != os.getpid():
            return
        for end in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if end is not None:
                    end.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class SignerClient:
    """Asks the signer, whatever the ``reach``."""

    reach: SignerTransport

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer. Raises SignerRefusedError with the signer's own code, or ``unreachable``."""
        try:
            answer: dict[str, Any] = json.loads(self.reach.exchange(json.dumps(request)))
        except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as error:
            raise SignerRefusedError("unreachable", f"the signer gave no answer: {error}") from error
        if "refused" in answer:
            raise SignerRefusedError(str(answer["refused"]), str(answer.get("reason", "")))
        return answer

    def start(self) -> None:
        """Have the signer up before it is asked, where this process starts it."""
        self.reach.start()

    def public(self, origin: str) -> tuple[str, int]:
        """(verifier key, size last signed); a log's first question makes its key."""
        answer = self.ask({"op": "public", "origin": origin})
        return str(answer["vkey"]), int(answer["size"])

    def sign(self, origin: str, size: int, root: bytes, old_size: int, proof: Sequence[bytes]) -> tuple[str, str]:
        """(signature line, verifier key) for a tree head that extends the one signed last."""
        answer = self.ask(
            {
                "op": "sign",
                "origin": origin,
                "size": size,
                "root": root.hex(),
                "old_size": old_size,
                "proof": [step.hex() for step in proof],
            }
        )
        return str(answer["line"]), str(answer["vkey"])

    def rotate(self, origin: str) -> dict[str, Any]:
        """Make a new key and have both sign the hand-over; the new one waits for activate."""
        return self.ask({"op": "rotate", "origin": origin})

    def activate(self, origin: str) -> str:
        """Let the waiting key take over; returns its verifier key."""
        return str(self.ask({"op": "activate", "origin": origin})["vkey"])


def signer_client(keys: Path, chosen: str | None = None) -> SignerClient:
    """The signer of METER_PIPELINE_LEDGER_SIGNER (or ``chosen``, in the same form), or a child of this process over
    ``keys``."""
    chosen = chosen if chosen is not None else os.environ.get(SIGNER_VARIABLE)
    if not chosen:
        return SignerClient(SignerProcess.of(keys))
    if chosen.startswith(_SOCKET):
        return SignerClient(Socket(Path(chosen.removeprefix(_SOCKET))))
    return SignerClient(Command(tuple(shlex.split(chosen))))


def _environment() -> dict[str, str]:
    """Nothing of the database goes to the signer."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "METER_PIPELINE_DATABASE"))}
