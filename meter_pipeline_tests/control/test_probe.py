"""A writer asks on a connection of its own, takes silence for a pause, and goes on by itself."""

from __future__ import annotations

import socket
import threading
import time

from meter_pipeline.control import pause
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.control.test_pause import ask


def test_an_unreachable_flag_counts_as_paused() -> None:
    with PauseProbe(Database("postgresql://nobody@127.0.0.1:9/none")) as probe:
        state = probe.check()
    assert state is not None
    assert state.unreachable
    assert "cannot be read" in state.words()


def test_a_frozen_server_counts_as_paused_within_the_deadline(database: Database) -> None:
    """The flag's table is locked: the server lives, the answer does not come."""
    with PauseProbe(database, poll_deadline_s=0.2) as probe, database.connect() as blocker:
        assert probe.check() is None
        blocker.execute("LOCK TABLE control.emergency_pause IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        state = probe.check()
        took = time.monotonic() - began
        assert state is not None
        assert state.unreachable
        assert took < 2
        blocker.rollback()
        assert probe.check() is None


def test_a_server_that_never_answers_counts_as_paused() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"
        with PauseProbe(Database(url)) as probe:
            state = probe.check()
    assert state is not None
    assert state.unreachable


def test_a_lost_connection_is_made_again(database: Database) -> None:
    with PauseProbe(database) as probe:
        assert probe.check() is None
        with database.connect(autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pause-probe'"
            )
        assert probe.check() is None


def test_a_writer_waits_and_goes_on_by_itself(database: Database) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    request = ask(database)
    looks: list[float] = []
    with PauseProbe(database, interval_s=0.05) as probe:
        later = threading.Timer(0.3, lambda: pause.confirm_resume(database, request, by="bob"))
        later.start()
        waited = probe.wait_until_resumed(on_wait=lambda state, seconds: looks.append(seconds))
        later.join()
        assert probe.wait_until_resumed() == 0.0
    assert 0.25 < waited < 3
    assert looks[0] < 0.1
    assert looks == sorted(looks)


def test_a_wait_can_be_ended(database: Database) -> None:
    pause.raise_pause(database, reason="stop", by="ann")
    stop = threading.Event()
    stop.set()
    with PauseProbe(database, interval_s=0.01) as probe:
        assert probe.wait_until_resumed(stop=stop) < 1
