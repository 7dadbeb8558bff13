"""The signing key lives in a process of its own: the pipeline asks over a socket, a command or a child's pipe, and
never opens the key."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline.ledger import checkpoints, entries, notes, verification
from meter_pipeline.ledger.signer import SignerRefusedError
from meter_pipeline.ledger.signing import SIGNER_VARIABLE, SignerProcess, signer_client
from meter_pipeline.postgres.database import Database

_opened: list[str] = []
_listening = False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open":
        _opened.append(str(arguments[0]))


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file this process opens meanwhile."""
    global _listening  # an audit hook stays for the life of a process, so there is one, and a switch
    if not _opened:
        sys.addaudithook(_watch)
    _opened[:] = ["hooked"]
    _listening = True
    try:
        yield _opened
    finally:
        _listening = False


def other_user(name: str) -> pwd.struct_passwd | None:
    """A user that this process may act as and that can run this interpreter, which may lie in somebody's home."""
    if os.geteuid() != 0:
        return None
    found = pwd.getpwnam(name)
    try:
        subprocess.run(
            [sys.executable, "-c", "import meter_pipeline"],
            user=found.pw_uid,
            group=found.pw_gid,
            extra_groups=[],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """A signer as a service, of another user where this one may choose; gives its socket. Its keys are in
    tmp_path/signer."""
    keys, run = tmp_path / "signer", tmp_path / "run"
    keys.mkdir(mode=0o700)
    run.mkdir()
    user = other_user("nobody")
    if user is not None:
        for folder in (keys, run):
            os.chown(folder, user.pw_uid, user.pw_gid)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
    command = [
        sys.executable,
        "-m",
        "meter_pipeline.ledger.signer",
        "--keys",
        str(keys),
        "--listen",
        str(run / "socket"),
    ]
    process = subprocess.Popen(
        command,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        env={"PATH": "/usr/bin"},
    )
    try:
        for _ in range(600):
            if (run / "socket").exists():
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield run / "socket"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_a_service_signs_and_the_pipeline_never_opens_a_key(
    database: Database, tmp_path: Path, service: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNER_VARIABLE, f"unix:{service}")
    with database.connect("test") as connection:
        entries.append(connection, "reconciled", {"n": 1})
    done = checkpoints.checkpoint(database, home=tmp_path)
    rotated = checkpoints.rotate_key(database, home=tmp_path, requested_by="operator-1")
    assert verification.verify(database, home=tmp_path).ok
    assert done.vkey != rotated.vkey
    assert notes.parse_vkey(rotated.vkey).name == done.origin
    assert len(opened) > 1
    assert [path for path in opened if "skey" in path or str(tmp_path / "signer") in path] == []
    assert not list(tmp_path.rglob("keys/*.skey"))
    (key,) = (tmp_path / "signer").glob("*[!t].skey")
    assert key.stat().st_mode & 0o777 == 0o600
    assert service.stat().st_mode & 0o777 == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")
def test_another_user_can_neither_read_the_key_nor_ask(database: Database, tmp_path: Path, service: Path) -> None:
    checkpoints.checkpoint(database, home=tmp_path, signer=signer_client(tmp_path, f"unix:{service}"))
    (key,) = (tmp_path / "signer").glob("*.skey")
    attempt = f"import socket; s = socket.socket(socket.AF_UNIX)\ntry: open({str(key)!r})\nexcept PermissionError: print('no key')\n"
    attempt += f"try: s.connect({str(service)!r})\nexcept PermissionError: print('no socket')"
    other = pwd.getpwnam("daemon")
    for folder in (tmp_path, *tmp_path.parents):  # so that it is the key's own mode that refuses, and the socket's
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    said = subprocess.run(
        ["/usr/bin/env", "python3", "-c", attempt],
        user=other.pw_uid,
        group=other.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout.split("\n")[:2] == ["no key", "no socket"], said.stderr


def test_a_signer_that_is_gone_is_said_to_be_unreachable(tmp_path: Path) -> None:
    with pytest.raises(SignerRefusedError) as refused:
        signer_client(tmp_path, f"unix:{tmp_path / 'nobody'}").public("city/log/1")
    assert refused.value.code == "unreachable"
    with pytest.raises(SignerRefusedError) as refused:
        signer_client(tmp_path, "false").public("city/log/1")
    assert refused.value.code == "unreachable"


def test_a_killed_child_is_started_again_and_one_child_is_kept(tmp_path: Path, opened: list[str]) -> None:
    client = signer_client(tmp_path / "a", "")
    key, _ = client.public("city/log/1")
    child = client.reach
    assert isinstance(child, SignerProcess)
    first = child.process
    assert first is not None
    first.kill()
    first.wait()
    assert client.public("city/log/1")[0] == key
    assert signer_client(tmp_path / "a", "").reach is child
    assert signer_client(tmp_path / "b", "").reach is not child
    assert child.process is None
    assert [path for path in opened if path.endswith("skey")] == []


def test_a_nonsense_request_is_refused_and_the_next_one_answered(tmp_path: Path, service: Path) -> None:
    reach = signer_client(tmp_path, f"unix:{service}").reach
    assert '"refused"' in reach.exchange("nonsense")
    assert '"refused"' in reach.exchange('{"op": "sign", "origin": "city/log/1"}')
    assert '"vkey"' in reach.exchange('{"op": "public", "origin": "city/log/1"}')
