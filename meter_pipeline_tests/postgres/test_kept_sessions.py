"""A session that is used again is as new; one that is gone is replaced."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from meter_pipeline.postgres import kept_sessions
from meter_pipeline.postgres.database import Database, scalar


@pytest.fixture(autouse=True)
def _none_kept() -> Iterator[None]:
    kept_sessions.forget()
    yield
    kept_sessions.forget()


def pid(connection: psycopg.Connection[Any]) -> int:
    return int(scalar(connection, "SELECT pg_backend_pid()"))


def alive(database: Database) -> set[int]:
    """Other sessions of a database."""
    rows = database.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    return {row["pid"] for row in rows}


def test_a_session_is_used_again_and_nothing_is_left_of_its_first_use(database: Database) -> None:
    with database.connect("first") as connection:
        used = pid(connection)
        connection.execute("CREATE TABLE public.kept (a int)")
    with contextlib.suppress(ZeroDivisionError), database.connect("second") as connection:
        assert pid(connection) == used
        connection.execute("CREATE TEMP TABLE mine AS SELECT 1 AS a")
        connection.execute("SET lock_timeout = '5s'")
        connection.execute("SELECT pg_advisory_lock(7)")
        connection.execute("PREPARE asked AS SELECT 1")
        connection.execute("LISTEN news")
        connection.commit()
        connection.execute("INSERT INTO public.kept VALUES (1)")
        connection.execute("DECLARE open_one CURSOR WITH HOLD FOR SELECT 1")
        raise ZeroDivisionError
    with database.connect("third") as connection:
        assert pid(connection) == used
        assert scalar(connection, "SELECT to_regclass('pg_temp.mine')") is None
        assert scalar(connection, "SHOW lock_timeout") == "0"
        assert scalar(connection, "SHOW idle_session_timeout") == "0"
        assert scalar(connection, "SHOW TimeZone") == "UTC"
        assert scalar(connection, "SHOW application_name") == "third"
        for counted in ("pg_prepared_statements", "pg_cursors", "pg_listening_channels()", "public.kept"):
            assert scalar(connection, f"SELECT count(*) FROM {counted}") == 0, counted
        assert scalar(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        connection.execute("DROP TABLE public.kept")


def test_a_role_stays_with_its_sessions(database: Database) -> None:
    """Also after a statement that took the role off; and no other role gets the session."""
    role = database.acting_as("pg_read_all_data")
    with role.connect() as connection:
        used = pid(connection)
        connection.execute("RESET ROLE")
        connection.execute("SET ROLE NONE")
        assert scalar(connection, "SELECT current_user = session_user")
    with database.connect() as connection:
        assert pid(connection) != used
        assert scalar(connection, "SELECT current_user = session_user")
    with role.connect() as connection:
        assert (pid(connection), scalar(connection, "SELECT current_user::text")) == (used, "pg_read_all_data")
    with database.connect(role="pg_read_all_stats") as connection:
        assert scalar(connection, "SELECT current_user::text") == "pg_read_all_stats"


def test_two_at_a_time_are_two_and_idle_ones_are_few(database: Database) -> None:
    with contextlib.ExitStack() as opened:
        found = [pid(opened.enter_context(database.connect())) for _ in range(kept_sessions.MOST + 3)]
    assert len(set(found)) == len(found)
    deadline = time.monotonic() + 10
    while len(alive(database)) > kept_sessions.MOST - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(alive(database)) == kept_sessions.MOST - 1  # the one that asks is kept too
    kept_sessions.forget()
    with database.connect() as connection:
        assert pid(connection) not in found


def test_a_closed_connection_is_of_no_use(database: Database) -> None:
    connection = database.connect()
    cursor = connection.execute("SELECT 1")
    connection.close()
    connection.close()
    assert connection.closed
    assert not connection.broken
    for use in (connection.commit, lambda: connection.execute("SELECT 1"), lambda: cursor.execute("SELECT 1")):
        with pytest.raises(psycopg.OperationalError):
            use()


def test_a_session_that_is_gone_or_amid_a_statement_is_not_given_again(database: Database, server: Database) -> None:
    with database.connect() as connection:
        used = pid(connection)
    with server.connect(autocommit=True) as other:
        assert scalar(other, "SELECT pg_terminate_backend(%s, 5000)", (used,))
    with database.connect() as connection:
        again = pid(connection)
        assert again != used
        copying = connection.cursor()
        with (
            contextlib.suppress(ZeroDivisionError),
            copying.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy,
        ):
            copy.read()
            connection.close()
            raise ZeroDivisionError
    with database.connect() as connection:
        assert pid(connection) != again
        assert scalar(connection, "SELECT 1") == 1


def test_threads_never_share_and_autocommit_is_the_callers(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE public.counted (thread int, pid int)")

    def write(thread: int) -> None:
        for _ in range(20):
            with database.connect(autocommit=bool(thread % 2)) as connection:
                connection.execute("INSERT INTO public.counted VALUES (%s, pg_backend_pid())", (thread,))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.rows("SELECT count(*) AS n FROM public.counted") == [{"n": 80}]


def test_a_forked_child_leaves_its_parents_sessions_alone(database: Database) -> None:
    with database.connect() as connection:
        used = pid(connection)
    child = os.fork()
    if child == 0:
        with database.connect() as connection:
            os._exit(0 if pid(connection) != used else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with database.connect() as connection:
        assert pid(connection) == used
