"""The signer: a process of its own that holds the log's private key and never signs two histories.

Requests: ``{"op": "public", "origin"}`` (makes a key where there is none), ``{"op": "sign", "origin", "size", "root",
"old_size", "proof"}``, ``{"op": "rotate", "origin"}`` (a new key, waiting), ``{"op": "activate", "origin"}`` (the
waiting key takes over from the next signature).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meter_pipeline.ledger import merkle, notes

#: A key that others may read is no key.
_PRIVATE = 0o600
#: A consistency proof of a log of 2^63 entries is 126 hashes; a request needs no more.
_LONGEST = 1 << 16


class SignerRefusedError(RuntimeError):
    """The signer would not sign; ``code`` is stale (behind what was signed), fork, keys or request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def file_name(origin: str) -> str:
    """A log's or witness's files by its name: slashes cannot stand in a file name."""
    return origin.replace("/", "_")


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """All or nothing, and on the disk before this returns."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """One process at a time: checking and recording what was signed must not interleave."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class KeyFolder:
    """Keys and memory of one log: ``NAME.skey`` (0600), ``NAME.vkey``, ``NAME.next.skey`` while a rotation waits,
    ``NAME.signed.json``."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder, self.origin = folder, origin
        self.name = file_name(origin)

    def load(self, suffix: str = "") -> notes.Signer | None:
        path = self.folder / f"{self.name}{suffix}.skey"
        if not path.exists():
            return None
        if path.stat().st_mode & 0o077:
            raise SignerRefusedError("keys", f"{path} can be read by others: chmod 600 and rotate the key")
        return notes.parse_skey(path.read_text("utf-8"))

    def create(self, suffix: str = "") -> notes.Signer:
        signer = notes.new_signer(self.origin)
        write_atomically(self.folder / f"{self.name}{suffix}.skey", signer.skey + "\n", _PRIVATE)
        write_atomically(self.folder / f"{self.name}{suffix}.vkey", signer.verifier.vkey + "\n")
        return signer

    def current(self) -> notes.Signer:
        found = self.load()
        if found is not None:
            return found
        if self.signed_path.exists():
            raise SignerRefusedError(
                "keys", f"the key of {self.origin} is gone though it has signed before; restore it or rotate by hand"
            )
        return self.create()

    def activate(self) -> notes.Signer:
        for kind in ("skey", "vkey"):
            waiting = self.folder / f"{self.name}.next.{kind}"
            if not waiting.exists():
                raise SignerRefusedError("keys", "no key is waiting")
            os.replace(waiting, self.folder / f"{self.name}.{kind}")
        return self.current()

    @property
    def signed_path(self) -> Path:
        return self.folder / f"{self.name}.signed.json"

    def last_signed(self) -> notes.Checkpoint:
        if not self.signed_path.exists():
            return notes.Checkpoint(self.origin, 0, merkle.EMPTY_ROOT)
        stored = json.loads(self.signed_path.read_text("utf-8"))
        return notes.Checkpoint(self.origin, int(stored["size"]), bytes.fromhex(stored["root"]))

    def remember(self, checkpoint: notes.Checkpoint) -> None:
        write_atomically(
            self.signed_path, json.dumps({"size": checkpoint.size, "root": checkpoint.root.hex()}) + "\n", _PRIVATE
        )


def rotation_statement(origin: str, old: str, new: str) -> str:
    """The text that both keys sign when one hands over to the other."""
    return f"mp-key-rotation/1\n{origin}\n{old}\n{new}\n"


def answer(keys: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one request. Raises SignerRefusedError."""
    origin = str(request.get("origin", ""))
    folder = KeyFolder(keys, origin)
    with locked(keys, folder.name):
        match request.get("op"):
            case "public":
                return {"vkey": folder.current().verifier.vkey, "size": folder.last_signed().size}
            case "sign":
                return _sign(folder, request)
            case "rotate":
                old = folder.current()
                new = folder.load(".next") or folder.create(".next")
                statement = rotation_statement(origin, old.verifier.vkey, new.verifier.vkey)
                signatures = [key.sign(statement.encode()).hex() for key in (old, new)]
                return {"old": old.verifier.vkey, "new": new.verifier.vkey, "signatures": signatures}
            case "activate":
                return {"vkey": folder.activate().verifier.vkey}
            case other:
                raise SignerRefusedError("request", f"unknown request {other!r}")


def _sign(folder: KeyFolder, request: Mapping[str, Any]) -> dict[str, Any]:
    wanted = notes.Checkpoint(folder.origin, int(request["size"]), bytes.fromhex(request["root"]))
    last = folder.last_signed()
    if wanted.size < last.size:
        raise SignerRefusedError(
            "shorter",
            f"the log has {wanted.size} entries; {last.size} were signed: it was cut or an older copy was restored",
        )
    if int(request["old_size"]) != last.size:
        raise SignerRefusedError("stale", f"{last.size} entries were signed, not {request['old_size']}")
    try:
        merkle.verify_consistency(
            last.size, wanted.size, last.root, wanted.root, [bytes.fromhex(step) for step in request["proof"]]
        )
    except merkle.ProofError as error:
        raise SignerRefusedError(
            "fork", f"the log of {wanted.size} entries does not extend the {last.size} signed before: {error}"
        ) from error
    signer = folder.current()
    folder.remember(wanted)  # before the signature leaves: a crash may lose a signature, never sign twice
    return {"line": notes.sign_checkpoint(wanted, signer).line, "vkey": signer.verifier.vkey}


def reply(keys: Path, request: str) -> str:
    """The answer to one request, as JSON: what was asked for, or ``{"refused", "reason"}``."""
    try:
        return json.dumps(answer(keys, json.loads(request)))
    except (SignerRefusedError, notes.NoteError, KeyError, TypeError, ValueError, OSError) as error:
        return json.dumps({"refused": getattr(error, "code", "request"), "reason": str(error)})


class _Connection(socketserver.StreamRequestHandler):
    """One client: a request a line, an answer a line."""

    timeout = 60

    def handle(self) -> None:
        keys: Path = self.server.keys  # type: ignore[attr-defined]  # set by listen
        while line := self.rfile.readline(_LONGEST + 1):
            if len(line) > _LONGEST:
                return
            self.wfile.write(reply(keys, line.decode("utf-8", "replace")).encode() + b"\n")


class _Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def listen(keys: Path, path: Path) -> socketserver.BaseServer:
    """A server on a Unix socket at ``path``, to be run with serve_forever. Its owner and group may ask, no other user
    (0660)."""
    path.unlink(missing_ok=True)  # a socket that an earlier process left
    before = os.umask(0o117)
    try:
        server = _Listener(str(path), _Connection)
    finally:
        os.umask(before)
    server.keys = keys  # type: ignore[attr-defined]  # read by _Connection
    return server


def main() -> int:
    """Answer. Exit 1 where the only request was refused."""
    parser = argparse.ArgumentParser(description="Sign checkpoints of the audit ledger; JSON requests, one a line.")
    parser.add_argument("--keys", type=Path, required=True, help="folder of keys, readable by this user only")
    parser.add_argument("--listen", type=Path, metavar="SOCKET", help="serve on a Unix socket until stopped")
    parser.add_argument("--stay", action="store_true", help="answer every line of stdin, not only the first request")
    arguments = parser.parse_args()
    if arguments.listen is not None:
        with listen(arguments.keys, arguments.listen) as server:
            signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
            server.serve_forever()
        return 0
    if arguments.stay:
        for line in sys.stdin:
            print(reply(arguments.keys, line), flush=True)
        return 0
    answer = reply(arguments.keys, sys.stdin.read())
    print(answer)
    return 1 if "refused" in json.loads(answer) else 0


if __name__ == "__main__":
    sys.exit(main())
