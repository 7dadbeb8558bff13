"""The bench a fault is tried on: a real server with fsync on, a fresh database a case, files whose every read is known,
and the reckoning after.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import psycopg
from psycopg import sql

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.control import PauseProbe
from meter_pipeline.ingest import land
from meter_pipeline.ingest.breaker import Breaker, Rules
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.day import Loading, load_billing_day
from meter_pipeline.ingest.tables import load
from meter_pipeline.ledger import checkpoints, verification
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import Database, ensure_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline_tests.ingest.support import enrol, places
from meter_pipeline_tests.simulation import invariants
from meter_pipeline_tests.simulation.contents import CALENDAR, CONTENTS, DAY, METERS, NORTH, content, payloads
from meter_pipeline_tests.simulation.real import snapshot
from meter_pipeline_tests.simulation.world import SMALL
from meter_pipeline_tests.support import copy_database

#: A breaker that gives a broken server up as quickly as the real one in proportion, and looks again soon.
QUICK: Final = Rules(open_s=0.2, open_most_s=1.0)


def parse(path: Path, head_end: Any, calendar: BillingCalendar) -> Any:
    """Files of the simulation: the number in the name says what they hold."""
    return content(int(path.name.split("-")[1]))[1]


class FaultClock:
    """The real clocks, with a wall clock that jumps."""

    def __init__(self) -> None:
        self.jump_s = 0.0

    def now(self) -> Any:
        from datetime import UTC, datetime, timedelta

        return datetime.now(UTC) + timedelta(seconds=self.jump_s)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Bench:
    """A scratch cluster. ``lost`` and ``doubled`` are the last reckoning's, also where it failed."""

    def __init__(self, *settings: str, data_on: Path | None = None) -> None:
        self.lost = self.doubled = 0
        self.home = Path(tempfile.mkdtemp(prefix="meter-pipeline-faults-"))
        self.home.chmod(0o711)
        self.cluster = embedded.cluster(data_on or self.home)
        self.settings = (
            "max_connections=40",
            "max_wal_size=256MB",
            "shared_buffers=64MB",
            "maintenance_work_mem=32MB",
            *settings,
        )
        self.cluster.start(*self.settings)
        self.server = Database(self.cluster.url("postgres"))
        with self.server.connect() as connection:
            for name, wanted in (("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")):
                row = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
                assert row is not None
                assert row[0] == wanted, f"{name} is {row[0]}"
        template = ensure_database(self.server, "template_faults")
        migrate(template)
        enrol(template, METERS)
        with template.connect() as connection:
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute("UPDATE ref.channels SET interval_minutes = 60 WHERE kind = 'interval'")
            # No ledger entry here: a sequence that was used before its database was copied forgets, in a crash before
            # the next checkpoint, the numbers it gave since (its page is copied with the look-ahead that was logged
            # elsewhere).

    def close(self) -> None:
        self.cluster.delete()
        shutil.rmtree(self.home, ignore_errors=True)

    def postmaster(self) -> int:
        return int((self.cluster.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def processes(self) -> list[int]:
        """The postmaster and its children."""
        head = self.postmaster()
        children = Path(f"/proc/{head}/task/{head}/children")
        return [head, *(int(pid) for pid in children.read_text().split())] if children.exists() else [head]

    def kill(self) -> None:
        """SIGKILL of every process of the server."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.cluster.running() and time.monotonic() < deadline:
            time.sleep(0.02)

    def start(self) -> None:
        """Start again; a lock left behind makes the first try fail, and postmaster.pid is never deleted."""
        for _ in range(20):
            try:
                self.cluster.start(*self.settings)
                return
            except embedded.EmbeddedError:
                time.sleep(0.2)
        self.cluster.start(*self.settings)

    @contextlib.contextmanager
    def case(self, seed: int, files: int = 3) -> Iterator[Case]:
        """A fresh database, removed afterwards."""
        database = self.server.sibling(f"fault_{uuid.uuid4().hex[:12]}")
        copy_database(self.server, database.name, "template_faults")
        folder = Path(tempfile.mkdtemp(dir=self.home))
        made = Case(self, database, folder, random.Random(seed), seed)
        try:
            made.land(*[made.rng.randrange(CONTENTS) for _ in range(files)])
            with patch("meter_pipeline.feeds.parse", parse):
                yield made
        finally:
            with contextlib.suppress(psycopg.Error), self.server.connect(autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database.name))
                )
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class Case:
    """One database, what was sent to it, what was done to it."""

    bench: Bench
    database: Database
    folder: Path
    rng: random.Random
    seed: int
    sent: dict[bytes, list[invariants.Payload]] = field(default_factory=dict)
    injected: int = 0
    errors: list[str] = field(default_factory=list)
    recovery_s: float = 0.0
    acknowledged: int = 0
    clock: FaultClock = field(default_factory=FaultClock)
    turn: int = 0

    def land(self, *numbers: int, name: str = "file") -> None:
        """Land files by content."""
        for number in numbers:
            self.turn += 1
            path = self.folder / f"{name}-{number}-{self.turn}"
            data = content(number)[0]
            path.write_bytes(data)
            land(self.database, CALENDAR, path, NORTH, places(self.folder), parse=parse, clock=self.clock)
            self.sent[hashlib.sha256(data).digest()] = payloads(number)

    def run(self, database: Database | None = None) -> Any:
        """The day's load, in this process."""
        limits = replace(
            SMALL, batch_start=1, batch_most=1 + self.rng.randrange(2)
        )  # so that there is a third batch to strike
        store = database or self.database
        with PauseProbe(store, application_name="ingest-pause", clock=self.clock) as pause:
            loading = Loading(
                places(self.folder),
                lambda: {"NORTH": NORTH},
                pause,
                Controller(limits),
                Breaker(QUICK, random.Random(self.seed)),
                random.Random(self.seed),
            )
            return load_billing_day(store, CALENDAR, DAY, loading, clock=self.clock, run_id=f"seed {self.seed}")

    def try_run(self, database: Database | None = None) -> Any:
        """The same, where the fault may end it; what it ended with is noted."""
        try:
            return self.run(database)
        except (psycopg.Error, OSError, load.DayTakenOverError) as error:
            self.errors.append(type(error).__name__)
            return None

    @contextlib.contextmanager
    def at_batch(self, number: int, action: Callable[[], Any], *, after: bool = False) -> Iterator[None]:
        """Do something when a run comes to its n-th batch (from 0), before it is sent or after it was committed."""
        real, count, lock = load.write_batch, 0, threading.Lock()

        async def struck(connection: Any, batch: Any) -> bool:
            nonlocal count
            with lock:
                mine, count = count, count + 1
            if mine == number and not after:
                await asyncio.to_thread(action)
            done = await real(connection, batch)
            if mine == number and after:
                await asyncio.to_thread(action)
            return done

        load.write_batch = struck
        try:
            yield
        finally:
            load.write_batch = real

    def failpoint(self, table: str, state: str, times: list[int]) -> None:
        """The server itself refuses: from now on the n-th inserts (from 1) into a table raise this SQLSTATE."""
        with self.database.connect(autocommit=True) as connection:
            connection.execute("CREATE SCHEMA IF NOT EXISTS faults")
            connection.execute("CREATE SEQUENCE IF NOT EXISTS faults.struck; CREATE SEQUENCE IF NOT EXISTS faults.hits")
            connection.execute(
                sql.SQL(
                    "CREATE OR REPLACE FUNCTION faults.strike() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
                    "IF nextval('faults.struck') = ANY({times}) THEN PERFORM nextval('faults.hits'); RAISE EXCEPTION 'injected' USING ERRCODE = {state}; "
                    "END IF; RETURN NEW; END $$"
                ).format(times=sql.Literal(times), state=sql.Literal(state))
            )
            connection.execute(
                sql.SQL(
                    "CREATE TRIGGER a_failpoint BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION faults.strike()"
                ).format(sql.Identifier(*table.split(".")))
            )

    def clear_failpoint(self, table: str) -> None:
        """Take it away; the refusals that struck are counted."""
        with self.database.connect(autocommit=True) as connection:
            connection.execute(sql.SQL("DROP TRIGGER a_failpoint ON {}").format(sql.Identifier(*table.split("."))))
            row = connection.execute(
                "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM faults.hits"
            ).fetchone()
            assert row is not None
            self.injected += int(row[0])
            connection.execute("DROP SCHEMA faults CASCADE")

    def reckon(self, home: str = "home") -> None:
        """The quiet hour: one run, a signed checkpoint, every invariant, the ledger's verification, and the whole input
        once more."""
        began = time.monotonic()
        self.run()
        self.recovery_s = time.monotonic() - began
        self.check()
        before = snapshot(self.database).state()
        for number in sorted({int(path.name.split("-")[1]) for path in self.folder.glob("file-*")}):
            self.land(number, name="again")
        self.run()
        after = snapshot(self.database).state()
        assert after == before, f"I9: SEED={self.seed}: landing everything again changed the store"
        self.verify(home)
        with self.database.connect() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(accepted + duplicate + superseded + rejected), 0)::bigint FROM raw.feed_file_day WHERE loaded_at IS NOT NULL"
            ).fetchone()
            assert row is not None
            self.acknowledged = int(row[0])

    def check(self, finished: bool = True) -> None:
        """Every invariant over the store."""
        if finished:
            checkpoints.checkpoint(self.database, home=self.folder / "home")
        found = snapshot(self.database)
        if finished:
            self.bench.lost, self.bench.doubled = invariants.lost_and_doubled(found, self.sent)
        broken = invariants.broken(found, self.sent, finished=finished)
        assert not broken, f"SEED={self.seed}: {broken[:5]}"

    def verify(self, home: str = "home") -> None:
        """The ledger's own verifier, in full and for the day."""
        checkpoints.checkpoint(self.database, home=self.folder / home)
        outcome = verification.verify(self.database, home=self.folder / home, full=True, days=[DAY])
        assert outcome.ok, f"SEED={self.seed}: {outcome.findings[:5]}"

    def terminate(self, application_name: str) -> None:
        """pg_terminate_backend of every session of that name."""
        with self.database.connect("chaos", autocommit=True) as connection:
            for _ in range(40):
                rows = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s",
                    (application_name + "%",),
                ).fetchall()
                if rows:
                    self.injected += len(rows)
                    return
                time.sleep(0.01)


def killable(url: str, folder: str, seed: int, at: int, after: bool) -> None:
    """A run in a process of its own, that kills itself at its n-th statement on an asyncio connection, before or after
    it."""
    count = 0

    def struck(name: str) -> None:
        real = getattr(psycopg.AsyncConnection, name)

        async def call(self: Any, *arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            mine = count
            done = await real(self, *arguments, **more)
            if mine == at and after:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        setattr(psycopg.AsyncConnection, name, call)

    for name in ("execute", "commit"):
        struck(name)
    database, clock = Database(url), FaultClock()
    with PauseProbe(database, application_name="ingest-pause", clock=clock) as pause:
        loading = Loading(
            places(Path(folder)),
            lambda: {"NORTH": NORTH},
            pause,
            Controller(replace(SMALL, batch_start=1 + seed % 3)),
            rng=random.Random(seed),
        )
        load_billing_day(database, CALENDAR, DAY, loading, clock=clock, run_id=f"seed {seed}")


def spawn(case: Case, at: int, after: bool) -> int | None:
    """Run ``killable``; its exit code (-9 where it was killed)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["meter_pipeline_tests.faults.bench"])
    process = context.Process(target=killable, args=(case.database.url, str(case.folder), case.seed, at, after))
    process.start()
    process.join(60)
    return process.exitcode


def until_up(database: Database) -> None:
    """Wait, ten seconds at most, until the server takes connections."""
    for _ in range(200):
        try:
            with database.connect("until-up") as connection:
                connection.execute("SELECT 1")
            return
        except psycopg.Error:
            time.sleep(0.05)
    raise AssertionError("the server did not come back")
