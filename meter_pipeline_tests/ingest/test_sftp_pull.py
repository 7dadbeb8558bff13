"""A real SFTP server that hangs up, changes files, and shows another key: each file still comes whole, once."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest

from meter_pipeline.feeds.fetch_rules import Fetch, fault_of
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError, read_head_end
from meter_pipeline.ingest import pull, sftp_pull
from meter_pipeline.ingest.fetched import PullError
from meter_pipeline.ingest.sftp_pull import FetchedFile, fetch_files
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import CALENDAR


class Files(asyncssh.SFTPServer):
    """The files of ``root``. ``script``: what the next reads do."""

    root: ClassVar[Path]
    script: ClassVar[list[str]] = []
    reads: ClassVar[list[int]] = []

    def __init__(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(chan, chroot=str(self.root).encode())
        self.chan = chan

    def read(self, file_obj: Any, offset: int, size: int) -> Any:
        """As the server's, but for its misbehaviour."""
        trick = Files.script.pop(0) if Files.script else ""
        Files.reads.append(offset)
        if trick == "hang up":
            self.chan.get_connection().abort()
        elif trick == "grow":
            path = Files.root / "out" / "a.csv"
            path.write_bytes(path.read_bytes() + b"more\n")
        elif trick == "short":
            return b""
        return super().read(file_obj, offset, size)


class Doorman(asyncssh.SSHServer):
    """Lets one user in."""

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("city", "secret")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, asyncssh.SSHKey]]:
    """A server on a thread of its own: its port and key."""
    Files.root = tmp_path_factory.mktemp("sftp")
    key = asyncssh.generate_private_key("ssh-ed25519")
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    port: list[int] = []

    async def serve() -> None:
        server = await asyncssh.create_server(Doorman, "127.0.0.1", 0, server_host_keys=[key], sftp_factory=Files)
        port.append(server.get_port())
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield port[0], key
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


class QuickClock:
    """The wall clock, without waiting."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Not a moment."""


@pytest.fixture(autouse=True)
def folder(served: tuple[int, asyncssh.SSHKey], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server's folder, with two files at rest."""
    monkeypatch.setenv("SFTP_PASSWORD", "secret")
    Files.script, Files.reads = [], []
    out = Files.root / "out"
    for old in out.glob("*") if out.exists() else []:
        old.unlink() if not old.is_dir() else old.rmdir()
    out.mkdir(exist_ok=True)
    put("a.csv", b"first\n" * 100_000)
    put("b.csv", b"second\n")
    return out


def put(name: str, content: bytes, age: int = 3600) -> None:
    path = Files.root / "out" / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age,) * 2)


def head_end(served: tuple[int, asyncssh.SSHKey], **more: Any) -> HeadEnd:
    port, key = served
    given: dict[str, Any] = {
        "how": "sftp",
        "host": "127.0.0.1",
        "port": port,
        "user": "city",
        "password_env": "SFTP_PASSWORD",
        "host_key": key.get_fingerprint(),
        "folder": "/out",
        "files": "*.csv",
    }
    return HeadEnd("VENDOR", "delimited", fetch=Fetch(**(given | more)))


def go(declared: HeadEnd, inbox: Path) -> list[FetchedFile]:
    return asyncio.run(fetch_files(declared, inbox, clock=QuickClock()))


def test_each_file_comes_once(served: tuple[int, asyncssh.SSHKey], tmp_path: Path) -> None:
    public = " ".join(served[1].export_public_key().decode().split()[:2])
    found = go(head_end(served, host_key=public), tmp_path)
    assert [each.name for each in found] == ["a.csv", "b.csv"]
    assert (tmp_path / "VENDOR" / "a.csv").read_bytes() == b"first\n" * 100_000
    (tmp_path / "VENDOR" / "a.csv").unlink()  # landed, and cleared from the inbox
    assert go(head_end(served), tmp_path) == []
    put("b.csv", b"second, corrected\n", age=600)
    [again] = go(head_end(served), tmp_path)
    assert again.path is not None
    assert again.path.name != "b.csv"
    assert again.path.read_bytes() == b"second, corrected\n"
    assert sorted(p.name for p in (tmp_path / "VENDOR").iterdir()) == [".sftp.json", again.path.name, "b.csv"]


def test_a_fetch_that_was_cut_goes_on_where_it_stopped(served: tuple[int, asyncssh.SSHKey], tmp_path: Path) -> None:
    content = random.Random(1).randbytes(5 * sftp_pull.PIECE + 17)
    put("a.csv", content)
    Files.script = ["", "", "hang up"]
    found = {each.name: each for each in go(head_end(served), tmp_path)}
    assert (tmp_path / "VENDOR" / "a.csv").read_bytes() == content
    assert found["a.csv"].retries == 1
    assert Files.reads.count(0) == 2, "the first bytes of each file were read once"


def test_a_server_that_always_hangs_up_is_given_up_and_the_next_pull_goes_on(
    served: tuple[int, asyncssh.SSHKey], tmp_path: Path
) -> None:
    content = random.Random(2).randbytes(6 * sftp_pull.PIECE)
    put("a.csv", content)
    Files.script = ["", "hang up"] * 20
    with pytest.raises(PullError, match="gave up after"):
        go(head_end(served), tmp_path)
    Files.script = []
    go(head_end(served), tmp_path)
    assert (tmp_path / "VENDOR" / "a.csv").read_bytes() == content


@pytest.mark.parametrize("trick", ["grow", "short"])
def test_a_file_that_changes_or_ends_early_waits_for_the_next_pull(
    served: tuple[int, asyncssh.SSHKey], tmp_path: Path, trick: str
) -> None:
    Files.script = [trick]
    found = {each.name: each for each in go(head_end(served), tmp_path)}
    assert found["a.csv"].path is None
    assert "changed while it was fetched" in found["a.csv"].why
    assert found["b.csv"].path is not None
    put("a.csv", b"whole\n")
    [again] = go(head_end(served), tmp_path)
    assert again.path is not None
    assert again.path.read_bytes() == b"whole\n"


def test_files_being_written_folders_links_and_other_names_are_left(
    served: tuple[int, asyncssh.SSHKey], folder: Path, tmp_path: Path
) -> None:
    put("now.csv", b"half a fi", age=0)
    put(".hidden.csv", b"x")
    put("c.txt", b"x")
    put("empty.csv", b"")
    (folder / "sub.csv").mkdir()
    assert [each.name for each in go(head_end(served), tmp_path)] == ["a.csv", "b.csv"]


def test_another_server_and_a_wrong_password_get_nothing(
    served: tuple[int, asyncssh.SSHKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").get_fingerprint()
    with pytest.raises(PullError, match=f"the server's key is {served[1].get_fingerprint().replace('+', '.')}"):
        go(head_end(served, host_key=other), tmp_path)
    monkeypatch.setenv("SFTP_PASSWORD", "guess")
    with pytest.raises(PullError, match="denied"):
        go(head_end(served), tmp_path)
    monkeypatch.delenv("SFTP_PASSWORD")
    with pytest.raises(PullError, match="the environment has no SFTP_PASSWORD"):
        go(head_end(served), tmp_path)


def test_declarations_say_what_is_missing(tmp_path: Path) -> None:
    base = 'format = "cmep"\n[fetch]\nhow = "sftp"\nhost = "h"\nuser = "u"\npassword_env = "P"\n'
    key = f'host_key = "SHA256:{"x" * 43}"\n'
    path = tmp_path / "vendor.toml"
    path.write_text(base + key)
    declared = read_head_end(path)
    assert declared.is_pulled
    assert declared.fetch is not None
    assert fault_of(declared.fetch) is None
    for text, said in (
        (base, "host_key"),
        (base + 'host_key = "no key"\n', "host_key"),
        (base + key + 'files = "a/b"\n', "files"),
        (base + key + 'folder = "../up"\n', "folder"),
        (base + key + 'fodler = "x"\n', "did you mean folder"),
        (base.replace("sftp", "ftp") + key, "how must be one of sftp, report"),
        (base + key + "again_days = [3, 1]\n", "again_days"),
    ):
        path.write_text(text)
        with pytest.raises(HeadEndError, match=said):
            read_head_end(path)


def test_a_round_of_pulls_fetches_and_says_what_came(
    served: tuple[int, asyncssh.SSHKey], tmp_path: Path, database: Database
) -> None:
    asked = [head_end(served)]
    first = pull.pull(database, CALENDAR, asked, tmp_path)
    assert [(a.outcome, a.ok, a.file) for a in first.pulls] == [
        ("fetched", True, "VENDOR/a.csv"),
        ("fetched", True, "VENDOR/b.csv"),
    ]
    assert [a.outcome for a in pull.pull(database, CALENDAR, asked, tmp_path).pulls] == ["nothing new"]
    wrong = head_end(served, host_key=f"SHA256:{'x' * 43}")
    [failed] = pull.pull(database, CALENDAR, [wrong], tmp_path).pulls
    assert not failed.ok
    assert "not the declared host_key" in failed.outcome
