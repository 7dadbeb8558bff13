"""Servers that freeze, refuse and come back: writes are cut at the socket, a backlog drains without a storm, and
nothing is lost or doubled."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.ingest import day as day_module
from meter_pipeline.ingest import land
from meter_pipeline.ingest.breaker import Breaker, Rules
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.ingest.retry import Patience
from meter_pipeline.ingest.tables import load
from meter_pipeline.ingest.writer import Writers
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline_tests.ingest.support import (
    CALENDAR,
    CLOCK,
    DAY,
    METERS,
    NORTH,
    Read,
    enrol,
    load_day,
    places,
    write_file,
)

pytestmark = pytest.mark.usefixtures("toy_feed")

SMALL = Limits(batch_least=1, batch_start=1, batch_most=1, writers_start=2)


@pytest.fixture
def own_server() -> Iterator[tuple[embedded.Cluster, Database]]:
    """A server of this test's own: a stopped one must stop nobody else."""
    home = Path(tempfile.mkdtemp(prefix="meter-pipeline-frozen-"))
    home.chmod(0o711)
    cluster = embedded.cluster(home)
    cluster.start("fsync=off", "full_page_writes=off")
    try:
        database = ensure_database(Database(cluster.url("postgres")), "frozen")
        migrate(database)
        yield cluster, database
    finally:
        signal_all(cluster, signal.SIGCONT)
        cluster.delete()
        shutil.rmtree(home, ignore_errors=True)


def signal_all(cluster: embedded.Cluster, number: signal.Signals) -> None:
    """Send a signal to the postmaster and every process of its own."""
    postmaster = int((cluster.data / "postmaster.pid").read_text().split("\n", 1)[0])
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(postmaster)], capture_output=True, text=True, check=False
    ).stdout.split()
    for pid in [postmaster, *map(int, children)]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@pytest.mark.server
def test_a_frozen_server_is_cut_at_the_socket_and_the_day_is_finished_when_it_wakes(
    own_server: tuple[embedded.Cluster, Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's kernel still acknowledges, its own timers stand still: only the watchdog ends the wait. It is thawed
    only after that."""
    cluster, database = own_server
    enrol(database)
    land(
        database,
        CALENDAR,
        write_file(tmp_path, "a", [Read(m, slot, 1000) for m in METERS for slot in range(8)]),
        NORTH,
        places(tmp_path),
        clock=CLOCK,
    )
    frozen, cut = threading.Event(), threading.Event()
    real = load.write_batch

    async def watched(connection: Any, batch: load.Batch) -> bool:
        if not frozen.is_set():
            frozen.set()
            signal_all(cluster, signal.SIGSTOP)
        try:
            return await real(connection, batch)
        except psycopg.OperationalError:
            cut.set()
            raise

    monkeypatch.setattr(load, "write_batch", watched)
    monkeypatch.setattr(day_module, "Writers", functools.partial(Writers, deadline_s=0.5))
    outcomes: list[Any] = []
    run = threading.Thread(target=lambda: outcomes.append(load_day(database, tmp_path, controller=Controller(SMALL))))
    run.start()
    assert frozen.wait(60)
    was_cut = cut.wait(60)
    signal_all(cluster, signal.SIGCONT)
    run.join(120)
    assert was_cut, "the write went on waiting for a server that does not answer"
    [outcome] = outcomes
    assert outcome.writers.watchdog > 0
    assert (outcome.accepted, outcome.balanced) == (48, True)
    assert database.read("SELECT sum(leaf_count)::bigint AS n FROM ledger.entry WHERE kind = 'ingested'").item() == 6


def test_five_days_at_once_after_an_outage_drain_without_a_storm(
    server: Database, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections stay at the pools' caps, an open breaker makes no calls, and every day is whole."""
    enrol(database)
    days = [DAY + timedelta(days=n) for n in range(5)]
    for n in range(5):
        reads = [Read(m, slot + 96 * n, 1000) for m in METERS for slot in range(8, 16)]
        land(database, CALENDAR, write_file(tmp_path, f"f{n}", reads), NORTH, places(tmp_path), clock=CLOCK)
    name = database.read("SELECT current_database() AS n").item()
    real, lock, attempts, most = load.write_batch, threading.Lock(), [0], [0]
    started = threading.Event()

    async def counted(connection: Any, batch: load.Batch) -> bool:
        with lock:
            attempts[0] += 1
            if attempts[0] >= 5:
                started.set()
        return await real(connection, batch)

    monkeypatch.setattr(load, "write_batch", counted)
    outcomes: list[Any] = []

    def run(day: Any) -> None:
        rules = Rules(window=6, least_calls=3, open_s=0.3)
        outcomes.append(load_day(database, tmp_path, day, controller=Controller(SMALL), breaker=Breaker(rules)))

    threads = [threading.Thread(target=run, args=(day,)) for day in days]
    with server.connect("outage", autocommit=True) as outside:
        for thread in threads:
            thread.start()
        assert started.wait(60)
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        outside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'ingest-writer%%'",
            (name,),
        )
        at_outage = attempts[0]
        for _ in range(40):
            threading.Event().wait(0.025)
        during = attempts[0] - at_outage
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        while any(thread.is_alive() for thread in threads):
            row = outside.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'ingest-writer%%'",
                (name,),
            ).fetchone()
            most[0] = max(most[0], int(row[0]) if row else 0)
            threading.Event().wait(0.02)
    assert [o.balanced for o in outcomes] == [True] * 5
    assert sum(o.accepted for o in outcomes) == 5 * 48
    assert most[0] <= 5 * SMALL.writers_most
    assert during <= 5 * 2 * SMALL.writers_most, "a writer that was thrown out found no connection to try with"
    assert attempts[0] <= 30 + sum(o.retries for o in outcomes)
    assert sum(o.retries for o in outcomes) <= 30 * Patience().attempts
    assert database.read("SELECT sum(leaf_count)::bigint AS n FROM ledger.entry WHERE kind = 'ingested'").item() == 30
