"""The simulated server and a real PostgreSQL, held to one history: the same rules done to both, the same invariants
asked of both, equal states."""

from __future__ import annotations

import contextlib
import hashlib
import random
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.control import PauseProbe
from meter_pipeline.ingest import land
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.day import Loading, load_billing_day
from meter_pipeline.ingest.tables import load
from meter_pipeline.ledger.sequencer import sequence
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import enrol, places
from meter_pipeline_tests.simulation import invariants
from meter_pipeline_tests.simulation import world as simulation
from meter_pipeline_tests.simulation.contents import CALENDAR, DAY, METERS, NORTH, content, payloads
from meter_pipeline_tests.simulation.driver import SimulatedPool
from meter_pipeline_tests.simulation.real import snapshot
from meter_pipeline_tests.simulation.server import Faults
from meter_pipeline_tests.simulation.world import SMALL, Profile, World
from meter_pipeline_tests.support import copy_database

contents = st.integers(0, 59)
moments = st.integers(0, 5)


@contextlib.contextmanager
def trouble(kind: str, at: int) -> Iterator[None]:
    """The same fault at the same batch of either side: before its transaction, or after its commit."""
    real, count = load.write_batch, 0

    async def faulty(connection: Any, batch: Any) -> bool:
        nonlocal count
        count += 1
        if count == at + 1 and kind == "stop":
            raise psycopg.errors.InsufficientPrivilege("stands for the end of the process")
        done = await real(connection, batch)
        if count == at + 1 and kind == "reply lost":
            await connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return done

    load.write_batch = faulty
    try:
        yield
    finally:
        load.write_batch = real


class SameRules(RuleBasedStateMachine):
    """Every rule is done to both sides."""

    server: ClassVar[Database]
    template: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="same-rules-"))
        self.database = self.server.sibling(f"rules_{uuid.uuid4().hex[:12]}")
        copy_database(self.server, self.database.name, self.template.name)
        enrol(self.database, METERS)
        with self.database.connect() as connection:
            connection.execute("UPDATE ref.channels SET interval_minutes = 60 WHERE kind = 'interval'")
        self.world = World(1, Profile("quiet", Faults()))
        self.world.lost_staging = 0.0
        self.world.steady = True
        self.sent: dict[bytes, list[invariants.Payload]] = {}
        self.heads: list[tuple[int, bytes]] = []
        self.numbers: dict[str, int] = {}

    def teardown(self) -> None:
        with self.server.connect(autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{self.database.name}" WITH (FORCE)'.encode())

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        SimulatedPool.server = self.world.server
        simulation._world.append(self.world)
        try:
            with simulation.installed():
                yield
        finally:
            simulation._world.pop()

    def _both(self, kind: str, at: int, sim: Any, real: Any) -> None:
        """Do it to both; they must end alike."""
        with self.simulated(), trouble(kind, at):
            process = self.world.scheduler.spawn("rule", sim)
            self.world.scheduler.run()
        with trouble(kind, at):
            try:
                real()
                error: BaseException | None = None
            except psycopg.Error as found:
                error = found
        assert type(process.error) is type(error), (process.error, error)

    def _parse(self, path: Path, head_end: Any, calendar: Any) -> Any:
        return content(int(path.name.split("-")[1]))[1]

    def _load_real(self) -> None:
        with PauseProbe(self.database, application_name="ingest-pause") as pause:
            loading = Loading(
                places(self.folder),
                lambda: {"NORTH": NORTH},
                pause,
                Controller(replace(SMALL, batch_start=2), enabled=False),
                rng=random.Random(1),
            )
            load_billing_day(self.database, CALENDAR, DAY, loading, run_id="run")

    @initialize(number=contents)
    def begins(self, number: int) -> None:
        self.lands(number)

    @rule(number=contents)
    def lands(self, number: int) -> None:
        data = content(number)[0]
        path = self.folder / f"file-{number}-0"
        path.write_bytes(data)
        self.sent[hashlib.sha256(data).digest()] = payloads(number)

        def real() -> None:
            land(self.database, CALENDAR, path, NORTH, places(self.folder), parse=self._parse, clock=SYSTEM_CLOCK)

        self._both("", 0, lambda: self.world.lander([number]), real)

    @rule(at=moments, kind=st.sampled_from(["", "", "stop", "reply lost"]))
    def loads(self, at: int, kind: str) -> None:
        self._both(kind, at, lambda: self.world.load(1), self._load_real)

    @rule()
    def orders(self) -> None:
        def real() -> None:
            with self.database.connect("ledger") as connection:
                head = sequence(connection)
            self.heads.append((head.size, head.root))

        self._both("", 0, self.world.order, real)

    @rule()
    def loads_and_orders(self) -> None:
        """The quiet hour: nothing may wait after it."""
        self.loads(0, "")
        self.orders()
        for found, heads in ((self.world.snapshot(), self.world.heads), (snapshot(self.database), self.heads)):
            assert invariants.broken(found, self.sent, heads) == []

    @invariant()
    def holds(self) -> None:
        one, other = self.world.snapshot(), snapshot(self.database)
        for found, heads in ((one, self.world.heads), (other, self.heads)):
            assert invariants.broken(found, self.sent, heads, finished=False) == []
        assert one.state() == other.state()
        assert sorted(entry[0] for entry in one.entries.values()) == sorted(
            entry[0] for entry in other.entries.values()
        )
        assert one.open_partitions == other.open_partitions


def run(server: Database, template: Database, examples: int, steps: int) -> None:
    SameRules.server, SameRules.template = server, template
    run_state_machine_as_test(
        SameRules, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True)
    )


def test_the_simulated_server_and_postgresql_agree(server: Database, template: Database) -> None:
    run(server, template, 4, 8)


@pytest.mark.slow
def test_the_simulated_server_and_postgresql_agree_for_long(server: Database, template: Database) -> None:
    run(server, template, 60, 15)
