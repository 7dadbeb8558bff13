"""Arrow connections share one reading of the server's types and nothing else."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_postgresql
import pytest
from adbc_driver_manager import Error

from meter_pipeline.postgres.arrow_connections import connect
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import AdbcConnection


def _answer(connection: AdbcConnection, query: str) -> tuple[object, ...]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    assert row is not None
    return tuple(row)


def test_the_types_are_read_one_time_for_all_connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(database.url).close()
    monkeypatch.setattr(adbc_driver_postgresql, "connect", lambda url: pytest.fail("the types were read again"))
    for _ in range(3):
        with connect(database.url) as again:
            assert _answer(again, "SELECT '{1,2}'::int[], 'a'::control.person_name") == ([1, 2], "a")


def test_each_connection_is_of_the_database_it_asked_for(server: Database, database: Database) -> None:
    asked = [server, database] * 20

    def named(one: Database) -> str:
        with connect(one.url) as connection:
            return str(_answer(connection, "SELECT current_database()")[0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(named, asked)) == [one.name for one in asked]


def test_one_that_is_closed_closes_no_other(database: Database) -> None:
    with contextlib.closing(connect(database.url)) as stays:
        connect(database.url).close()
        assert _answer(stays, "SELECT 1") == (1,)


def test_without_autocommit_nothing_is_kept_that_was_not_committed(database: Database) -> None:
    with connect(database.url, autocommit=False) as first, first.cursor() as cursor:
        cursor.execute("CREATE TABLE public.written (n int)")
    with connect(database.url) as second:
        assert _answer(second, "SELECT to_regclass('public.written') IS NULL") == (True,)


def test_a_server_that_cannot_be_reached_is_tried_again(server: Database) -> None:
    missing = server.sibling("no_such_database")
    for _ in range(2):
        with pytest.raises(Error, match="no_such_database"):
            connect(missing.url)
    with connect(server.url) as connection:
        assert _answer(connection, "SELECT 1") == (1,)
