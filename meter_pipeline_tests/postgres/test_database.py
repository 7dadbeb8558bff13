"""The store promises: sessions in UTC, checksums on, frames read back through Arrow, passwords never shown."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import pytest

from meter_pipeline.postgres import arrow, embedded
from meter_pipeline.postgres.database import Database, connection_lost, scalar
from meter_pipeline.postgres.migrations import migrate


def test_a_session_is_in_utc_and_pages_are_checksummed(database: Database) -> None:
    with database.connect() as connection:
        assert scalar(connection, "SHOW TimeZone") == "UTC"
        assert scalar(connection, "SHOW data_checksums") == "on"


def test_migrating_twice_applies_nothing_the_second_time(database: Database) -> None:
    assert migrate(database) == 0


def test_frames_come_back_with_zone_and_arrays(database: Database) -> None:
    frame = database.read(
        "SELECT timestamptz '2026-11-01 06:00Z' AS t, ARRAY[1, 2, NULL]::int4[] AS v, $1::int8 AS n", [7]
    )
    assert frame["t"][0] == datetime(2026, 11, 1, 6, tzinfo=UTC)
    assert frame["v"].to_list() == [[1, 2, None]]
    assert frame["n"].to_list() == [7]


def _cut(database: Database, pid: int) -> None:
    with database.connect(autocommit=True) as connection:
        assert scalar(connection, "SELECT pg_terminate_backend(%s)", (pid,))
        while scalar(connection, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)):
            time.sleep(0.01)


def test_a_read_after_the_server_closed_the_session_is_done_again(database: Database) -> None:
    """Drivers before ADBC 1.11 ended the process here."""
    pid = database.read("SELECT pg_backend_pid() AS pid").item()
    _cut(database, pid)
    assert database.read("SELECT pg_backend_pid() AS pid").item() != pid


def test_a_read_that_the_server_cuts_in_its_middle_is_done_again(database: Database) -> None:
    pid = database.read("SELECT pg_backend_pid() AS pid").item()

    def cut_soon() -> None:
        time.sleep(0.3)
        _cut(database, pid)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(cut_soon)
        assert database.read("SELECT pg_sleep(1)::text AS slept, 7 AS seven")["seven"].to_list() == [7]
        coming.result()


def test_a_stream_that_is_cut_is_no_short_answer(database: Database) -> None:
    with contextlib.closing(adbc.connect(database.url, autocommit=True)) as session:
        pid = arrow.fetch(session, "SELECT pg_backend_pid() AS pid").item()
        parts = arrow.fetch_parts(session, "SELECT g, repeat('x', 200) AS text FROM generate_series(1, 2000000) AS g")
        assert next(parts).height == 0
        assert next(parts).height > 0
        _cut(database, pid)
        with pytest.raises(OSError, match="libpq") as lost:
            sum(part.height for part in parts)
        assert connection_lost(lost.value)


def test_a_password_is_not_in_the_safe_url() -> None:
    assert "secret" not in Database("postgresql://ann:secret@db:5432/meters?sslmode=require").safe_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:secret@db:5432/meters?sslmode=require&password=secret", "postgresql://ann@db:5432/meters"),
        ("postgresql:///meters?host=/run/postgresql&user=ann", "postgresql:///meters?host=/run/postgresql"),
        ("postgresql:///?service=billing", "postgresql:///?service=billing"),
    ],
)
def test_the_safe_url_says_which_server_it_is(url: str, shown: str) -> None:
    assert Database(url).safe_url == shown


def test_the_embedded_server_starts_durable_and_closed_to_others() -> None:
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-tests-"))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start()
    try:
        with Database(cluster.url("postgres")).connect() as connection:
            for setting, value in (
                ("fsync", "on"),
                ("synchronous_commit", "on"),
                ("full_page_writes", "on"),
                ("listen_addresses", ""),
            ):
                assert scalar(connection, f"SHOW {setting}") == value
        assert cluster.socket.stat().st_mode & 0o077 == 0
        assert cluster.data.stat().st_mode & 0o077 == 0
    finally:
        cluster.delete()
        shutil.rmtree(home)
