"""Migrations 0101 to 0112 make what the 75 of release 0.2.0 made, and a database of that release goes on from them.

The server is one of its own, because roles are the server's. Its owner has CREATEROLE and is no superuser, so that
owners and memberships are compared too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline.postgres import embedded, readiness
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.migrations import MIGRATIONS, REPLACED, SkippedReleaseError, migrate, shipped
from meter_pipeline_tests.postgres.catalogue import catalogue
from meter_pipeline_tests.postgres.old_chain import unpack
from meter_pipeline_tests.postgres.test_own_server import no_roles

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def cluster() -> Iterator[embedded.Cluster]:
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-chain-"))
    home.chmod(0o711)
    made = embedded.cluster(home)
    made.start("fsync=off", "full_page_writes=off")
    try:
        with Database(made.url("postgres")).connect(autocommit=True) as connection:
            connection.execute("CREATE ROLE dba LOGIN CREATEROLE")
        yield made
    finally:
        made.delete()
        shutil.rmtree(home, ignore_errors=True)


def empty(cluster: embedded.Cluster, name: str) -> Database:
    """A database without tables on a server without our roles."""
    with Database(cluster.url("postgres")).connect(autocommit=True) as connection:
        no_roles(connection)
        connection.execute(f"CREATE DATABASE {name} OWNER dba".encode())
    return Database(cluster.url(name, "dba"))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("migrations"))


@pytest.fixture(scope="module")
def squashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0101 to 0112 alone: later migrations have no counterpart in the old chain."""
    folder = tmp_path_factory.mktemp("squashed")
    for path in MIGRATIONS.glob("01*.sql"):
        shutil.copy(path, folder)
    return folder


def test_the_squashed_chain_makes_what_the_old_one_made_and_goes_on_from_it(
    cluster: embedded.Cluster, old: Path, squashed: Path
) -> None:
    assert shipped(old) == REPLACED
    assert migrate(empty(cluster, "mp_new"), squashed) == 12
    made = catalogue(Database(cluster.url("mp_new")))
    database = empty(cluster, "mp_old")
    assert migrate(database, old) == 75
    before = catalogue(Database(cluster.url("mp_old")))
    assert sorted(set(before) ^ set(made))[:20] == []
    assert before == made
    assert len([line for line in made if line.startswith(("row: ", "role: "))]) == 15, "15 roles, and no row"

    later = {version for version in shipped() if version > "0199"}
    assert migrate(database) == len(later)
    assert migrate(database) == 0
    assert readiness.migrations_applied(database) == REPLACED | shipped()


def test_a_database_of_an_earlier_release_is_told_which_one_to_pass_through(
    cluster: embedded.Cluster, old: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    for path in old.glob("*.sql"):
        if path.name < "0020":
            shutil.copy(path, part)
    database = empty(cluster, "mp_old")
    migrate(database, part)
    applied = readiness.migrations_applied(database)
    with pytest.raises(
        SkippedReleaseError, match=r"lacks migration 0020\): upgrade it with release 0\.2\.0 first"
    ) as told:
        migrate(database)
    assert len(str(told.value).splitlines()) == 1
    assert readiness.migrations_applied(database) == applied
