"""A billing day in Celery workers over a real broker, one of them killed in the middle of its step: the same bytes as
in one process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from meter_pipeline.deployment import environment
from meter_pipeline.ingest import land_inbox
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import load_settings
from meter_pipeline.simulator import Spec, simulate
from meter_pipeline_tests.defs.broker import available, rabbitmq
from meter_pipeline_tests.defs.content import content
from meter_pipeline_tests.support import ROOT, copy_database

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not available(), reason="no rabbitmq-server on this machine"),
    pytest.mark.skipif(importlib.util.find_spec("dagster_celery") is None, reason="the extra celery is not installed"),
]

DAY = date(2026, 3, 2)
PATIENCE_S = 1200.0


@contextlib.contextmanager
def copy_of(server: Database, built: Database) -> Iterator[Database]:
    """A copy of a database, dropped afterwards."""
    name = f"copy_{uuid.uuid4().hex[:12]}"
    with server.connect(autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (built.name,))
    yield copy_database(server, name, built.name)
    with server.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class Place:
    """A deployment's home and environment around one copy of the database."""

    def __init__(self, database: Database, folder: Path, origin: Path, broker: str) -> None:
        self.database, self.folder = database, folder
        shutil.copytree(origin, folder)
        self.settings = replace(
            load_settings(),
            home=folder / "home",
            data=folder / "city",
            inbox=folder / "city" / "inbox",
            database_url=database.url,
        )
        self.environment = (
            os.environ
            | environment(self.settings, database)
            | {
                "METER_PIPELINE_BROKER": broker,
                "METER_PIPELINE_ROLES": "off",
            }
        )

    def execute(self, engine: str) -> subprocess.Popen[bytes]:
        """The billing day's job, in a process of its own, as the run launcher starts it."""
        tags = json.dumps({"dagster/partition": DAY.isoformat()})
        command = [
            sys.executable,
            "-m",
            "dagster",
            "job",
            "execute",
            "-m",
            "meter_pipeline.definitions",
            "-j",
            "billing_day",
            "--tags",
            tags,
        ]
        with open(self.folder / f"run-{engine}.log", "wb") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | {"METER_PIPELINE_EXECUTOR": engine},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "meter_pipeline.defs.celery_app",
            "worker",
            "--concurrency",
            "1",
            "--queues",
            "dagster",
            "--without-gossip",
            "--without-mingle",
            "--hostname",
            f"{name}@%h",
            "--loglevel",
            "INFO",
        ]
        with open(self.folder / f"{name}.log", "wb") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | {"METER_PIPELINE_EXECUTOR": "celery"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


def finished(run: subprocess.Popen[bytes], place: Place, engine: str) -> None:
    try:
        code = run.wait(PATIENCE_S)
    finally:
        end(run)
    assert code == 0, place.said(f"run-{engine}")[-4000:]


def end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def hold_the_writer(
    hand: psycopg.Connection[Any],
    there: Place,
    run: subprocess.Popen[bytes],
    workers: dict[str, subprocess.Popen[bytes]],
) -> str:
    """The step that validates stops where it would write: computed, in its transaction, nothing committed. Returns its
    worker."""
    hand.execute("SELECT pg_advisory_lock(hashtextextended('vee.interval_day_' || %s, 0))", (f"{DAY:%Y%m%d}",))
    wait_for(
        hand,
        "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE NOT l.granted AND l.locktype = 'advisory' "
        "AND a.application_name = 'vee'",
        there,
        run,
    )
    return holder(there, workers, run)


def wait_for(hand: psycopg.Connection[Any], query: str, there: Place, run: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE_S
    while hand.execute(query).fetchone() != (True,):
        assert time.monotonic() < until, there.said("run-celery")[-3000:] + there.said("first")[-2000:]
        assert run.poll() is None, there.said("run-celery")[-4000:]
        time.sleep(0.1)


def test_a_day_in_workers_of_which_one_is_killed_leaves_the_same_bytes(
    server: Database, template: Database, tmp_path: Path
) -> None:
    """Begun by the worker that was killed, done by another."""
    with copy_of(server, template) as built, contextlib.ExitStack() as stack:
        origin = tmp_path / "origin"
        simulate(Spec(meters=40, days=1, start=DAY, seed=5, interval_minutes=60, history_days=30), origin / "city")
        settings = replace(
            load_settings(),
            home=origin / "home",
            data=origin / "city",
            inbox=origin / "city" / "inbox",
            database_url=built.url,
        )
        settings.home.mkdir()
        import_folder(built, origin / "city" / "reference")
        land_inbox(built, settings.calendar(), settings, run_id="test")
        broker_home = tmp_path / "broker"
        broker_home.mkdir()
        broker = stack.enter_context(rabbitmq(broker_home))
        here = Place(stack.enter_context(copy_of(server, built)), tmp_path / "here", origin, broker)
        there = Place(stack.enter_context(copy_of(server, built)), tmp_path / "there", origin, broker)

        run = here.execute("in_process")
        finished(run, here, "in_process")

        workers = {name: there.worker(name) for name in ("first", "second", "third")}
        for process in workers.values():
            stack.callback(end, process)
        with there.database.connect("the test's hand", autocommit=True) as hand:
            run = there.execute("celery")
            stack.callback(end, run)
            killed = hold_the_writer(hand, there, run, workers)
            end(workers[killed])
            hand.execute("ROLLBACK")
            hand.execute("SELECT pg_advisory_unlock_all()")
        finished(run, there, "celery")
        done = {name: there.said(name).count("] succeeded in") for name in workers}
        assert sum(count > 0 for name, count in done.items() if name != killed) >= 1, done
        starts = there.database.read(
            "SELECT count(*) AS n FROM dagster.event_logs WHERE dagster_event_type = 'STEP_START' AND step_key LIKE $1",
            ("%validated_intervals",),
        )
        assert starts["n"][0] == 2
        left = content(here.database)
        assert len(left) > 30
        assert content(there.database) == left
        assert there.database.read("SELECT count(*) AS n FROM billing.charge_day")["n"][0] > 0


def holder(place: Place, workers: dict[str, subprocess.Popen[bytes]], run: subprocess.Popen[bytes]) -> str:
    """A worker that took a task and has not finished it: where one step runs, its worker."""
    taken, done = (re.compile(rf"Task execute_plan\[[-0-9a-f]+\] {word}") for word in ("received", "succeeded"))
    until = time.monotonic() + PATIENCE_S
    while True:
        busy = [name for name in workers if len(taken.findall(place.said(name))) > len(done.findall(place.said(name)))]
        if busy:
            return busy[0]
        assert time.monotonic() < until, place.said("run-celery")[-3000:]
        assert run.poll() is None, place.said("run-celery")[-4000:]
        time.sleep(0.1)
