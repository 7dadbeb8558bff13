"""A folder that was imported last is not read again; every change of its files or of stored rows is seen."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.corrections import apply
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.reference import import_folder, importing, read_folder
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline_tests.billing.support import CHICAGO
from meter_pipeline_tests.reference.rows import remove_row
from meter_pipeline_tests.reference.test_importing import SMALL, document, folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were read."""
    found: list[Path] = []

    def read(path: Path) -> Any:
        found.append(path)
        return original(path)

    original = read_folder
    monkeypatch.setattr(importing, "read_folder", read)
    return found


def installations(database: Database) -> object:
    with database.connect() as connection:
        return scalar(connection, "SELECT count(*) FROM ref.installations")


def test_the_same_files_are_not_read_again(database: Database, tmp_path: Path, reads: list[Path]) -> None:
    first = import_folder(database, folder(tmp_path))
    assert import_folder(database, folder(tmp_path)) == first
    assert apply.import_folder(database, CHICAGO, folder(tmp_path)).rows == first
    assert len(reads) == 1


def test_a_row_that_somebody_changed_since_is_imported_again(
    database: Database, tmp_path: Path, reads: list[Path]
) -> None:
    import_folder(database, folder(tmp_path))
    remove_row(database, "installations", ["M1", "2026-01-01T06:00:00Z"], by="ben", why="typed twice")
    assert installations(database) == 0
    import_folder(database, folder(tmp_path))
    assert (installations(database), len(reads)) == (1, 2)
    # A change past the program, which makes no change set, counts too.
    with database.connect() as connection:
        connection.execute("UPDATE ref.channels SET multiplier = 7")
    import_folder(database, folder(tmp_path))
    with database.connect() as connection:
        assert scalar(connection, "SELECT count(*) FROM ref.channels WHERE multiplier = 7") == 0
    assert len(reads) == 3


def test_other_bytes_are_read_and_then_are_the_known_ones(
    database: Database, tmp_path: Path, reads: list[Path]
) -> None:
    import_folder(database, folder(tmp_path))
    made = folder(tmp_path)
    (made / "channels.csv").write_bytes(SMALL["channels"].replace("\n", "\r\n").encode())  # says the same
    import_folder(database, made)
    import_folder(database, made)
    assert len(reads) == 2
    (made / "tariffs" / "t1.json").write_text(document("0.5"))
    import_folder(database, made)
    assert len(reads) == 3


def test_a_snapshot_is_always_read(database: Database, tmp_path: Path, reads: list[Path]) -> None:
    import_folder(database, folder(tmp_path))
    every = Snapshot(frozenset({"accounts"}), date(2026, 7, 1), datetime(2026, 7, 1, tzinfo=UTC), Decimal("0.1"))
    import_folder(database, folder(tmp_path), snapshot=every)
    assert len(reads) == 2
