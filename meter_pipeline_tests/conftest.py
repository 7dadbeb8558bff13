"""One embedded PostgreSQL for the whole test run, one fresh database for each test that asks."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline_tests.support import copy_database, drop_database, end_idle_sessions

Build = Callable[[Database], None]

settings.register_profile(
    "default",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


#: Rooms and files all of whose tests need a server, or start processes of their own.
_NEED_SERVERS = (
    "defs",
    "docs",
    "end_to_end",
    "faults",
    "fuzz",
    "simulation",
    "billing/test_every_check_fails",
    "corrections/test_late_agreements",
    "ingest/test_dead_letters_work",
    "ingest/test_pull_whole",
    "postgres/test_backup",
    "postgres/test_embedded",
    "postgres/test_own_server",
    "test_packaging",
    "test_supervisor",
)


def _needs_server(path: Path) -> bool:
    place = path.relative_to(Path(__file__).parent).with_suffix("")
    return place.parts[0] in _NEED_SERVERS or place.as_posix() in _NEED_SERVERS


def pytest_configure() -> None:
    """No garbage is collected while the files of tests are imported: what imports make stays, and looking through it
    again and again took 5 of the 13 s of processor that each worker's collection cost."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is collected, without looking at what the imports made."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not import what it leaves out: Dagster and the cities of whole days take 6 s a worker."""
    skipped = "not server" in config.getoption("markexpr") and _needs_server(collection_path)
    return True if skipped and collection_path.stem.startswith("test_") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a server, so that `make test-fast` leaves them out."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()) or _needs_server(item.path):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def server() -> Iterator[Database]:
    """The maintenance database of a scratch server."""
    url = os.environ.get("METER_PIPELINE_TEST_DATABASE_URL")
    if url:
        yield Database(url)
        return
    # Not below pytest's own folder: it removes the folders of earlier runs, and one of them may be another run's that
    # still goes on.
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-tests-", dir=_in_memory()))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    # A killed server loses nothing without fsync (only a dead machine does), and a thousand small databases are made in
    # half the time.
    cluster.start("fsync=off", "full_page_writes=off", "max_wal_size=512MB")
    try:
        yield Database(cluster.url("postgres"))
    finally:
        cluster.delete()
        shutil.rmtree(home, ignore_errors=True)


def _in_memory() -> str | None:
    """A folder in memory where the machine has one with room. A database is 1,500 files: ext4, asked to make them just
    after as many were dropped, looks through every inode it freed in the last minute, which was a tenth of all
    processor time of a run."""
    shm = Path("/dev/shm")
    roomy = os.access(shm, os.W_OK) and shm.is_mount() and shutil.disk_usage(shm).free > 8 * 2**30
    return str(shm) if roomy else None


@pytest.fixture(scope="session")
def template(server: Database) -> Database:
    """A migrated database that tests copy."""
    database = ensure_database(server, f"template_{uuid.uuid4().hex[:12]}")
    migrate(database)
    return database


@pytest.fixture
def database(server: Database, template: Database) -> Iterator[Database]:
    """A fresh, migrated, empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    copy_database(server, name, template.name)
    fresh = server.sibling(name)
    try:
        yield fresh
    finally:
        drop_database(server, name)


@pytest.fixture(scope="module")
def _built(server: Database) -> Iterator[dict[Build, Database]]:
    """The databases that this module's ``copy_of`` has built."""
    found: dict[Build, Database] = {}
    yield found
    for database in found.values():
        drop_database(server, database.name)


@pytest.fixture
def copy_of(
    server: Database, template: Database, _built: dict[Build, Database]
) -> Iterator[Callable[[Build], Database]]:
    """``copy_of(build)``: a copy, this test's own, of the database that ``build`` fills. It is filled one time for all
    tests of a module: a month of billing days takes seconds to make and 0.1 s to copy."""
    copies: list[str] = []

    def copy(build: Build) -> Database:
        if build not in _built:
            made = copy_database(server, f"built_{uuid.uuid4().hex[:12]}", template.name)
            _built[build] = made
            build(made)
            end_idle_sessions()
        copies.append(f"copy_{uuid.uuid4().hex[:12]}")
        return copy_database(server, copies[-1], _built[build].name)

    yield copy
    for name in copies:
        drop_database(server, name)


@pytest.fixture
def toy_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read by the toy format of ingest/support.py, also where the product reads an archived file again."""
    from meter_pipeline_tests.ingest.support import parse

    monkeypatch.setattr("meter_pipeline.feeds.parse", parse)


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection to the test's own database."""
    with database.connect("test") as opened:
        yield opened
