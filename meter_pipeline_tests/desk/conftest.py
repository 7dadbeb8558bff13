"""The office that most tests of the desk begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.desk.support import Office, open_office


@pytest.fixture
def office(database: Database, tmp_path: Path) -> Iterator[Office]:
    made = open_office(database, tmp_path)
    yield made
    made.desk.close()
