"""The office that most tests of the desk begin with."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.desk.support import Office, furnish, open_office
from meter_pipeline_tests.support import copy_database, drop_database, end_idle_sessions


@pytest.fixture(scope="session")
def furnished(
    server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, Path, str]]:
    """An office that tests copy: its database, its folder, the adjustment that waits. Furnishing takes 0.7 s."""
    made = copy_database(server, f"office_{uuid.uuid4().hex[:12]}", template.name)
    folder = tmp_path_factory.mktemp("office")
    adjustment = furnish(made, folder)
    end_idle_sessions()
    yield made, folder, adjustment
    drop_database(server, made.name)


@pytest.fixture
def office(server: Database, furnished: tuple[Database, Path, str], tmp_path: Path) -> Iterator[Office]:
    """A copy, the test's own."""
    template, folder, adjustment = furnished
    database = copy_database(server, f"copy_{uuid.uuid4().hex[:12]}", template.name)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    made = open_office(database, tmp_path, adjustment)
    yield made
    made.desk.close()
    drop_database(server, database.name)
