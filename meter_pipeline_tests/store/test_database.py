"""The store promises: sessions in UTC, checksums on, frames read back through Arrow, passwords never shown."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from meter_pipeline.store import embedded
from meter_pipeline.store.database import Database, scalar
from meter_pipeline.store.migrations import migrate


def test_a_session_is_in_utc_and_pages_are_checksummed(database: Database) -> None:
    with database.connect() as connection:
        assert scalar(connection, "SHOW TimeZone") == "UTC"
        assert scalar(connection, "SHOW data_checksums") == "on"


def test_migrating_twice_applies_nothing_the_second_time(database: Database) -> None:
    assert migrate(database) == 0


def test_frames_come_back_with_zone_and_arrays(database: Database) -> None:
    frame = database.read("SELECT timestamptz '2026-11-01 06:00Z' AS t, ARRAY[1, 2, NULL]::int4[] AS v, $1::int8 AS n", [7])
    assert frame["t"][0] == datetime(2026, 11, 1, 6, tzinfo=UTC)
    assert frame["v"].to_list() == [[1, 2, None]]
    assert frame["n"].to_list() == [7]


def test_a_password_is_not_in_the_safe_url() -> None:
    assert "secret" not in Database("postgresql://ann:secret@db:5432/meters?sslmode=require").safe_url


def test_the_embedded_server_starts_durable_and_closed_to_others() -> None:
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-tests-"))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start()
    try:
        with Database(cluster.url("postgres")).connect() as connection:
            for setting, value in (("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on"), ("listen_addresses", "")):
                assert scalar(connection, f"SHOW {setting}") == value
        assert cluster.socket.stat().st_mode & 0o077 == 0
        assert cluster.data.stat().st_mode & 0o077 == 0
    finally:
        cluster.delete()
        shutil.rmtree(home)
