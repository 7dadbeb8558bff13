"""Files fetched from an SFTP server into the inbox, each once.

The server is known by its pinned host key; nothing is sent to any other. A file is fetched when it matches, was not
changed for ``settle_seconds`` and was not fetched before as it is (name, size, time of change). Bytes go to a hidden
file beside a note of what they are of: a fetch that was cut goes on where it stopped, and one whose file changed
meanwhile begins again. Only a whole file, as long as the server says it is, gets a name that the inbox sees. The
server's files are left as they are. What was fetched is noted in ``.sftp.json``; without that note everything is
fetched again, and landing knows the same bytes by their hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import asyncssh

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.feeds.fetch_rules import Fetch
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import archive
from meter_pipeline.ingest.fetched import PullError, secret

#: a connection, a listing, and one piece of a file, in seconds
CONNECT_S: Final = 30.0
ANSWER_S: Final = 60.0
PIECE: Final = 1 << 18
#: largest file that is fetched, as files.py allows
MOST_BYTES: Final = 8 << 30
ATTEMPTS: Final = 4
_NOTE: Final = ".sftp.json"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the server: its name, bytes and second of change."""

    name: str
    size: int
    changed: int

    @property
    def state(self) -> list[int]:
        """Identifies this version of the file among later files of the same name."""
        return [self.size, self.changed]


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One file of a fetch: the inbox file and the attempts beyond the first; ``why`` it could not be fetched."""

    name: str
    path: Path | None
    retries: int = 0
    why: str = ""


class _Pinned(asyncssh.SSHClient):
    """Trusts the one host key that was declared."""

    def __init__(self, pinned: str) -> None:
        self.pinned = pinned
        self.seen = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether the server's key is the pinned one."""
        self.seen = key.get_fingerprint()
        public = key.export_public_key("openssh").decode("ascii").split()
        return self.pinned in (self.seen, " ".join(public[:2]))


async def fetch_files(head_end: HeadEnd, inbox: Path, *, clock: Clock = SYSTEM_CLOCK) -> list[FetchedFile]:
    """Fetch the new files of a head-end's server. Raises PullError where the server cannot be reached, is another than
    the declared one, or does not let us in; a single file that fails is in the result."""
    fetch = head_end.fetch
    if fetch is None or fetch.how != "sftp":
        raise PullError(f'{head_end.name}: no [fetch] with how = "sftp"')
    folder = inbox / head_end.name
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(folder / _NOTE)
    done: dict[str, FetchedFile] = {}
    why = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            await clock.sleep(min(5.0, 0.5 * 2**attempt))
        try:
            async with asyncio.timeout(CONNECT_S):
                connection, _ = await _connect(head_end.name, fetch)
            async with connection, connection.start_sftp_client() as client:
                found = await asyncio.wait_for(_listed(client, fetch, clock.now()), ANSWER_S)
                for each in found:
                    if known.get(each.name) == each.state:
                        continue
                    done[each.name] = await _one(client, fetch, each, folder, attempt)
                    if done[each.name].path is not None:
                        known[each.name] = each.state
                        _keep(folder / _NOTE, known)
                return list(done.values())
        except (asyncssh.PermissionDenied, asyncssh.HostKeyNotVerifiable) as error:
            raise PullError(f"{head_end.name}: {fetch.host}: {_text_of(error)}") from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            why = _text_of(error)
    raise PullError(f"{head_end.name}: {fetch.host}: gave up after {ATTEMPTS} attempts: {why[:300]}")


async def _connect(name: str, fetch: Fetch) -> tuple[asyncssh.SSHClientConnection, _Pinned]:
    """A connection to the declared server. Raises HostKeyNotVerifiable naming the key that the server showed."""
    client = _Pinned(fetch.host_key)
    try:
        connection, _ = await asyncssh.create_connection(
            lambda: client,
            fetch.host,
            fetch.port,
            username=secret(fetch.user_env, name) if fetch.user_env else fetch.user,
            password=secret(fetch.password_env, name) if fetch.password_env else None,
            client_keys=[secret(fetch.key_env, name)] if fetch.key_env else None,
            known_hosts=([], [], []),  # only the pinned key, which _Pinned checks
            agent_path=None,
            config=None,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        message = f"the server's key is {client.seen or 'another'}, not the declared host_key"
        raise asyncssh.HostKeyNotVerifiable(message) from error
    return connection, client


async def _listed(client: asyncssh.SFTPClient, fetch: Fetch, now: datetime) -> list[RemoteFile]:
    """The server's files that match and are at rest, those changed first at first."""
    found: list[RemoteFile] = []
    for entry in await client.readdir(fetch.folder):
        name = entry.filename if isinstance(entry.filename, str) else entry.filename.decode("utf-8", "replace")
        attributes = entry.attrs
        plain = attributes.permissions is None or stat.S_ISREG(attributes.permissions)
        if not plain or name.startswith(".") or not fnmatchcase(name, fetch.files):
            continue
        if "/" in name or "\\" in name or len(name) > 200 or not name.isprintable() or not attributes.size:
            continue
        changed = int(attributes.mtime or 0)
        if now.timestamp() - changed >= fetch.settle_seconds:
            found.append(RemoteFile(name, int(attributes.size), changed))
    return sorted(found, key=lambda each: (each.changed, each.name))


async def _one(client: asyncssh.SFTPClient, fetch: Fetch, file: RemoteFile, folder: Path, retries: int) -> FetchedFile:
    """Fetch one file, going on where an earlier fetch of the same file stopped."""
    if file.size > MOST_BYTES:
        return FetchedFile(file.name, None, retries, f"{file.name} has {file.size} bytes, at most {MOST_BYTES}")
    short = hashlib.blake2b(file.name.encode("utf-8"), digest_size=8).hexdigest()
    part, note = folder / f".{short}.part", folder / f".{short}.of"
    remote = f"{fetch.folder.rstrip('/')}/{file.name}"
    if _read_note(note) != [file.name, *file.state]:
        part.unlink(missing_ok=True)
        note.write_text(json.dumps([file.name, *file.state]), "utf-8")
    have = part.stat().st_size if part.exists() else 0
    async with client.open(remote, "rb") as source:
        with part.open("ab") as kept:
            while have < file.size:
                piece = await asyncio.wait_for(source.read(min(PIECE, file.size - have), have), ANSWER_S)
                if not piece:
                    break
                kept.write(bytes(piece, "utf-8") if isinstance(piece, str) else piece)
                have += len(piece)
            kept.flush()
            os.fsync(kept.fileno())
    now = await asyncio.wait_for(client.stat(remote), ANSWER_S)
    if have != file.size or [int(now.size or 0), int(now.mtime or 0)] != file.state:
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        return FetchedFile(
            file.name, None, retries, f"{file.name} changed while it was fetched: the next pull takes it"
        )
    target = folder / file.name
    if target.exists():
        target = folder / f"{target.stem}.{archive.hash_file(part).hex()[:16]}{target.suffix}"
    part.replace(target)
    note.unlink(missing_ok=True)
    return FetchedFile(file.name, target, retries)


def _known(note: Path) -> dict[str, list[int]]:
    """Returns the files fetched before, by name; empty where the note is lost or torn."""
    kept = _read_note(note)
    return {str(name): list(state) for name, state in kept.items()} if isinstance(kept, dict) else {}


def _read_note(note: Path) -> Any:
    try:
        return json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _keep(note: Path, known: dict[str, list[int]]) -> None:
    half = note.with_suffix(".half")
    half.write_text(json.dumps(known, sort_keys=True), "utf-8")
    half.replace(note)


def _text_of(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())
