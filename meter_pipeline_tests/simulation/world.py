"""One simulated deployment: files that arrive, runs that load them, people who pause, and everything that goes wrong.

    python -m meter_pipeline_tests.simulation.run --seeds 1000

Every history ends with a quiet hour: faults stop, pauses end, one run loads what waits. Then the invariants are
checked; then the whole input is landed and loaded once more, which must change nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import errors

from meter_pipeline.control import PauseProbe, probe
from meter_pipeline.ingest import (
    FileFolders,
    archive,
    day,
    dead_letter_rows,
    land,
    landing,
    plain_files,
    staging,
    unknown_outcome,
    writer,
)
from meter_pipeline.ingest.breaker import Breaker
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.ingest.day import Loading, load_billing_day
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.ledger.sequencer import SequencerBusyError, sequence
from meter_pipeline.postgres import copy_binary, vectors
from meter_pipeline.schemas.reads import NO_VALUE, ParsedFeed
from meter_pipeline_tests.simulation import invariants
from meter_pipeline_tests.simulation.contents import (
    CALENDAR,
    CHANNELS,
    CONTENTS,
    DAY,
    NORTH,
    SimulatedFile,
    content,
    declared,
    parse,
    payloads,
    prepared,
)
from meter_pipeline_tests.simulation.driver import SimulatedDatabase, SimulatedPool
from meter_pipeline_tests.simulation.invariants import Current, Payload, Snapshot
from meter_pipeline_tests.simulation.scheduler import Killed, Process, Scheduler, VirtualClock, VirtualPolicy, current
from meter_pipeline_tests.simulation.server import Faults, Server
from meter_pipeline_tests.simulation.statements import totals

FOLDERS: Final = FileFolders(Path("archive"), Path("staging"))
SMALL: Final = Limits(batch_least=1, batch_start=2, batch_most=3, writers_start=2, writers_most=3)
#: A batch may begin this long after a pause is visible, because it asked before: the answer to a poll may take 2 s
# (control.probe), a connection half a second more (writer.POLL_STALE_S), and the way to the server its few
# milliseconds.
DRAIN_S: Final = probe.POLL_DEADLINE_S + writer.POLL_STALE_S + 0.1


@dataclass(slots=True)
class Disk:
    """Staged files and the archive."""

    staged: dict[str, staging.StagedDay] = field(default_factory=dict)
    archived: dict[str, int] = field(default_factory=dict)


_world: list[World] = []


def world() -> World:
    return _world[-1]


class _Inline:
    """Stands for the archive's thread."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*arguments))
        return future


@contextlib.contextmanager
def _deadline(connection: Any, seconds: float) -> Iterator[None]:
    connection.inner.deadline = seconds
    try:
        yield
    finally:
        connection.inner.deadline = None


def _staged_write(folder: Any, sha256: bytes, day: date, staged: staging.StagedDay) -> str:
    current().step()
    path = staging.relative_path(sha256, day)
    world().disk.staged[path] = staged
    return path


def _staged_read(folder: Any, path: str) -> staging.StagedDay:
    current().step()
    found = world().disk.staged.get(path)
    if found is None or (not world().server.quiet and world().rng.random() < world().lost_staging):
        world().server.injected["staging lost"] += 1
        raise OSError(path)
    return found


def _staged_remove(folder: Any, path: str) -> None:
    current().step()
    world().disk.staged.pop(path, None)


def _archived(folder: Any, path: SimulatedFile, sha256: bytes) -> bytes:
    current().step()
    world().disk.archived[sha256.hex()] = path.number
    return sha256


@contextlib.contextmanager
def _opened(path: SimulatedFile) -> Iterator[Any]:
    found = path.stat()
    yield SimpleNamespace(
        source=path,
        path=path,
        size=found.st_size,
        modified_ns=found.st_mtime_ns,
        unchanged=lambda: True,
        beginning=lambda most: path.data[:most],
    )


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """The seams: pool, sockets, disk, threads and loop are the simulation's; everything else is the product."""
    changes: list[tuple[Any, str, Any]] = [
        (writer, "AsyncConnectionPool", SimulatedPool),
        (writer, "cut_socket", lambda connection: connection.inner.cut()),
        (unknown_outcome, "cut_socket", lambda connection: connection.inner.cut()),
        (probe, "deadline", _deadline),
        (staging, "write", _staged_write),
        (staging, "read", _staged_read),
        (staging, "remove", _staged_remove),
        (archive, "hash_file", lambda path: hashlib.sha256(path.data).digest()),
        (archive, "store", _archived),
        (landing, "ThreadPoolExecutor", _Inline),
        (landing, "staged_days", lambda parsed, *_: _memo(parsed)),
        (plain_files, "opened", _opened),
        (dead_letter_rows, "new_salt", lambda key: hashlib.sha256(b"salt" + key).digest()),
        (raw, "channels", lambda _: CHANNELS),
        (vectors, "encoded_blocks", _encoded_blocks),
        (day._Day, "_staged_again", lambda self, item: world().staged_again(item)),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    policy = asyncio.get_event_loop_policy()
    loud = logging.getLogger("asyncio").level
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        asyncio.set_event_loop_policy(VirtualPolicy())
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        asyncio.set_event_loop_policy(policy)
        logging.getLogger("asyncio").setLevel(loud)


_by_parsed: dict[int, int] = {}
_encoded: dict[str, bytes] = {}
_encode: Final = copy_binary.encoded_blocks


def _encoded_blocks(frame: pl.DataFrame, columns: Any) -> list[bytes]:
    """COPY's bytes of a frame, row by row: a pure function of each, remembered because the same few payloads come in
    every history."""
    parts = []
    for at, row in enumerate(frame.select(columns).rows()):
        key = repr(row)
        if key not in _encoded:
            _encoded[key] = b"".join(_encode(frame.slice(at, 1), columns))
        parts.append(_encoded[key])
    return parts


def _memo(parsed: ParsedFeed) -> Any:
    if not _by_parsed:
        _by_parsed.update({id(content(number)[1]): number for number in range(CONTENTS)})
    return prepared(_by_parsed[id(parsed)])


@dataclass(slots=True)
class Profile:
    """How bad a history is."""

    name: str
    faults: Faults = field(default_factory=Faults)
    kills: int = 0
    crashes: int = 0
    freezes: int = 0
    pauses: int = 0
    jumps: int = 0
    terminates: int = 0
    #: whether every run must succeed by itself: nothing happens that a run cannot get over
    mild: bool = False


_TRANSIENT: Final[tuple[Any, ...]] = (
    "reset",
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.AdminShutdown,
)
_EVERYBODY: Final = ("ingest", "landing", "ledger")


def profile(rng: random.Random) -> Profile:
    """One of ten kinds of trouble."""
    match rng.randrange(10):
        case 0:
            return Profile("quiet", pauses=rng.randint(0, 1), mild=True)
        case 1:
            return Profile("transient", Faults(before=0.02, errors=_TRANSIENT), mild=True)
        case 2:
            return Profile("replies lost", Faults(after_commit=0.15), mild=True)
        case 3:
            return Profile(
                "exhausted",
                Faults(before=0.03, refuse_connect=0.2, slow=0.1, errors=(errors.DiskFull, errors.OutOfMemory)),
                pauses=1,
            )
        case 4:
            return Profile("killed", Faults(after_commit=0.05), kills=rng.randint(1, 3))
        case 5:
            return Profile(
                "server killed", Faults(after_commit=0.05), crashes=rng.randint(1, 2), kills=rng.randint(0, 1)
            )
        case 6:
            return Profile(
                "server stopped", Faults(slow=0.05), freezes=rng.randint(1, 2), pauses=rng.randint(0, 1), jumps=1
            )
        case 7:
            return Profile("sessions terminated", Faults(after_commit=0.02), terminates=rng.randint(1, 4))
        case 8:
            return Profile("commits hang", Faults(hung_commit=0.25, after_commit=0.02), mild=True)
        case _:
            faults = Faults(
                before=0.02,
                after_commit=0.05,
                hung_commit=0.02,
                slow=0.05,
                refuse_connect=0.05,
                errors=(*_TRANSIENT, errors.QueryCanceled, errors.DiskFull),
                roles=_EVERYBODY,
            )
            kills, crashes, freezes, pauses, jumps = (rng.randint(0, most) for most in (2, 1, 1, 2, 1))
            return Profile("everything", faults, kills, crashes, freezes, pauses, jumps)


class World:
    """A history."""

    def __init__(self, seed: int, trouble: Profile | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.profile = trouble or profile(self.rng)
        self.scheduler = Scheduler(random.Random(self.rng.random()))
        self.server = Server(self.scheduler, random.Random(self.rng.random()), self.profile.faults)
        self.database: Any = SimulatedDatabase(self.server)
        self.clock = VirtualClock(self.scheduler)
        self.disk = Disk()
        self.lost_staging = 0.02
        #: batches of one size, so that another deployment's can be compared with them
        self.steady = False
        self.sent: dict[bytes, list[Payload]] = {}
        self.heads: list[tuple[int, bytes]] = []
        self.runs: list[Process] = []
        self.faults: list[str] = []
        self.acknowledged = 0

    def staged_again(self, item: Any) -> staging.StagedDay:
        """Reading an archived file again; parsing is not what is simulated."""
        return prepared(self.disk.archived[item.sha256.hex()])[0][item.billing_day]

    # -- processes ---------------------------------------------------------------------------------

    def lander(self, numbers: list[int], patience: int = 40) -> None:
        """The sensor: lands what lies in the inbox, again and again until it is landed."""
        for turn, number in enumerate(numbers):
            path: Any = SimulatedFile(number, f"file-{number}-{turn}")
            sha256 = hashlib.sha256(path.data).digest()
            for _ in range(patience):
                # What a failed landing committed all the same was sent.
                self.sent.setdefault(sha256, payloads(number))
                try:
                    land(
                        self.database,
                        CALENDAR,
                        path,
                        NORTH,
                        FOLDERS,
                        parse=parse,
                        clock=self.clock,
                        channels=declared(),
                    )
                    break
                except (psycopg.Error, OSError):
                    current().sleep(1.0)
            else:
                raise AssertionError(f"{path.name} was never landed")
            current().sleep(self.rng.expovariate(0.5))

    def load(self, seed: int) -> Any:
        """A run of raw_reads."""
        with PauseProbe(self.database, application_name="ingest-pause", clock=self.clock) as pause:
            loading = Loading(
                FOLDERS,
                lambda: {"NORTH": NORTH},
                pause,
                Controller(replace(SMALL, batch_start=1 + seed % 3), enabled=not self.steady),
                Breaker(rng=random.Random(seed)),
                random.Random(seed),
            )
            outcome = load_billing_day(self.database, CALENDAR, DAY, loading, clock=self.clock, run_id=f"run-{seed}")
        self.acknowledged += outcome.accepted + outcome.duplicate + outcome.superseded
        if not outcome.balanced:
            self.faults.append("I3: a run's control totals do not balance")
        return outcome

    def order(self) -> None:
        """A round of the sequencer."""
        with self.database.connect("ledger") as connection, contextlib.suppress(SequencerBusyError):
            head = sequence(connection)
            self.heads.append((head.size, head.root))

    def pauser(self, scope: str, target: str | None, held_s: float) -> None:
        """An operator, whose own connection is never faulty: raise, wait, end."""
        server = self.server
        table = server.table("control.emergency_pause")
        while server.scheduler.now < max(server.down_until, server.frozen_until):
            current().sleep(0.5)
        number = len(table.rows) + 1
        server.state[-number] = "committed"
        from meter_pipeline_tests.simulation.server import Version

        table.rows[number] = [Version(-number, {"state": "paused", "scope": scope, "target": target})]
        began = server.scheduler.now
        current().sleep(held_s)
        table.rows[number] = [Version(-number, {"state": "resumed", "scope": scope, "target": target})]
        server.pauses.append((began, server.scheduler.now, target))

    # -- a history ---------------------------------------------------------------------------------

    def play(self) -> None:
        """The faulty part."""
        rng, spawn = self.rng, self.scheduler.spawn
        numbers = [rng.randrange(CONTENTS) for _ in range(rng.randint(1, 4))]
        numbers += [rng.choice(numbers) for _ in range(rng.randint(0, 1))]
        halfway = rng.randint(0, len(numbers))
        spawn("lander", lambda: self.lander(numbers[:halfway]))
        if rng.random() < 0.3:
            spawn("lander-2", lambda: self.lander(numbers[:1]))
        for n in range(rng.randint(1, 3)):
            run = spawn(f"run-{n}", lambda n=n: self.load(self.seed * 10 + n), rng.uniform(0, 4))  # type: ignore[misc]
            run.skew_s = rng.uniform(-3600, 3600) if self.profile.jumps else 0.0
            self.runs.append(run)
        spawn("lander-3", lambda: self.lander(numbers[halfway:]), rng.uniform(0, 6))
        at = rng.uniform(0, 4)

        def order() -> None:
            spawn("sequencer", self._order_or_not)

        for _ in range(rng.randint(0, 3)):
            self.scheduler.wake(order, at)
            at += 0.0 if rng.random() < 0.6 else rng.uniform(0, 3)
        for _ in range(self.profile.terminates):
            name = rng.choice(
                ("ingest-day", "ingest-day", "ingest-writer", "ingest-monitor", "ingest-pause", "landing")
            )
            self.scheduler.wake(lambda name=name: self.server.terminate(name), rng.uniform(0, 4))  # type: ignore[misc]
        for _ in range(self.profile.kills):
            rng.choice(self.runs).kill_at = rng.randint(1, 150)
        for _ in range(self.profile.crashes):
            down = rng.uniform(0.1, 4)
            self.scheduler.wake(lambda down=down: self.server.crash(down), rng.uniform(0, 4))  # type: ignore[misc]
        for _ in range(self.profile.freezes):
            stopped = rng.choice((0.5, 3.0, 45.0, 100.0))
            self.scheduler.wake(lambda stopped=stopped: self.server.freeze(stopped), rng.uniform(0, 4))  # type: ignore[misc]
        for _ in range(self.profile.pauses):
            scope, target = rng.choice((("all", None), ("commodity", "electricity"), ("head_end", "NORTH")))
            held = rng.uniform(0.5, 90)
            spawn("operator", lambda s=scope, t=target, h=held: self.pauser(s, t, h), rng.uniform(0, 4))  # type: ignore[misc]
        for _ in range(self.profile.jumps):
            self.clock.jumps.append((rng.uniform(0, 4), rng.choice((-3600.0, 3600.0, 1.0))))
        self.scheduler.run()
        self._look_at_processes()

    def _order_or_not(self) -> None:
        try:
            self.order()
        except psycopg.Error:
            if self.profile.name != "everything" and not (
                self.profile.crashes or self.profile.freezes or self.profile.terminates
            ):
                raise

    def quiet_hour(self, again: bool = False) -> None:
        """Faults are over: one run, one round of the sequencer."""
        self.server.quiet = True
        self.scheduler.wake(lambda: None, 120)
        self.scheduler.run()

        def last() -> None:
            if again:
                self.lander(sorted(set(self.disk.archived.values())))
            self.load(self.seed * 10 + 9)
            self.order()

        process = self.scheduler.spawn("last", last)
        self.scheduler.run()
        if process.error is not None:
            raise process.error

    def _look_at_processes(self) -> None:
        for process in self.scheduler.processes:
            error = process.error
            if error is None or isinstance(error, Killed) or process.killed:
                continue
            if isinstance(error, AssertionError):
                raise error
            allowed = (psycopg.Error, OSError, load.DayTakenOverError) if not self.profile.mild else ()
            if not isinstance(error, allowed):
                error.add_note(f"{process.name} in a history of kind {self.profile.name!r}")
                raise error
            if isinstance(error, load.DayTakenOverError) and not (
                self.profile.crashes or self.profile.freezes or self.profile.kills or self.profile.terminates
            ):
                raise error

    def check(self, finished: bool = True) -> None:
        """Every invariant."""
        self.faults += invariants.broken(self.snapshot(), self.sent, self.heads, finished=finished)
        for at, application, process in self.server.batches:
            for began, ended, _ in self.server.pauses:
                if application.startswith("ingest-writer") and began + DRAIN_S < at < ended:
                    self.faults.append(
                        f"I7: {process} began a batch at {at:.2f} s, paused from {began:.2f} to {ended:.2f} s"
                    )
        if self.server.most_writers > SMALL.writers_most:
            self.faults.append(f"I10: {self.server.most_writers} writers at once")
        # Ten seconds more: what a thread does here in line (a poll of the pause, on a stopped server) holds up the
        # watchdog's timer.
        if self.server.longest_wait > writer.WRITE_DEADLINE_S + 10:
            self.faults.append(f"I10: a writer waited {self.server.longest_wait:.0f} s for a stopped server")
        leaked = [each.application_name for each in self.server.connections if not each.process.killed]
        if leaked:
            self.faults.append(f"I10: connections left open: {leaked}")
        if not all(row[-1] for row in totals(self.server, None)):
            self.faults.append("I3: raw.control_total does not balance")
        if self.faults:
            raise AssertionError("; ".join(self.faults[:5]))

    def snapshot(self) -> Snapshot:
        """What the simulated server holds."""
        server, found = self.server, Snapshot()
        found.files = {sha256: dict(row) for sha256, row in server.table("raw.feed_file").scan()}
        found.file_days = {key: dict(row) for key, row in server.table("raw.feed_file_day").scan()}
        for name, state in server.partitions.items():
            if state == "open":
                found.open_partitions += 1
                continue
            kind = "interval" if "interval" in name else "register"
            for _, row in server.table(name).scan():
                key = (
                    kind,
                    (row["meter_id"], row["channel"])
                    if kind == "interval"
                    else (row["meter_id"], row["channel"], row["read_at"]),
                )
                if "_payload_" in name:
                    found.history.setdefault(key, []).append(row["payload_hash"])
                else:
                    found.current[key] = Current(row["payload_hash"], row["payloads"], slots_of(row, kind))
        found.letters = {key: row["reads"] for key, row in server.table("raw.dead_letter").scan()}
        found.batches = [row for _, row in server.table("raw.load_batch").scan()]
        found.entries = {n: (row["kind"], row["body"], row["leaves"]) for n, row in server.table("ledger.entry").scan()}
        found.leaves = {n: (row["entry_id"], row["hash"]) for n, row in server.table("ledger.leaf").scan()}
        found.heads = {size: row["root"] for size, row in server.table("ledger.tree_head").scan()}
        found.touched = {(row["day"], row["meter"]) for _, row in server.table("raw.touched_meter").scan()}
        return found


def slots_of(row: dict[str, Any], kind: str) -> dict[int, int]:
    """Values by slot in micro base units."""
    if kind == "register":
        return {0: row["value"]}
    listed = row["values"] if row["values"] is not None else row["wide_values"]
    none = -(2**31) if row["values"] is not None else NO_VALUE
    return {
        slot: value * 10 ** (6 - row["scale"])
        for slot, value in enumerate(listed)
        if value != none and value is not None
    }


def history(seed: int, trouble: Profile | None = None) -> World:
    """Play a seed's history to its end and check it. Raises AssertionError naming what broke; the message begins with
    SEED."""
    made = World(seed, trouble)
    SimulatedPool.server = made.server
    _world.append(made)
    try:
        made.play()
        made.check(finished=False)
        made.quiet_hour()
        made.check()
        before = made.snapshot().state()
        made.quiet_hour(again=True)
        made.check()
        if made.snapshot().state() != before:
            raise AssertionError("I9: landing and loading everything again changed the store")
    except Exception as error:
        raise AssertionError(f"SEED={seed} ({made.profile.name}): {type(error).__name__}: {error}") from error
    except BaseExceptionGroup as error:
        raise AssertionError(f"SEED={seed} ({made.profile.name}): {error.exceptions}") from error
    finally:
        _world.pop()
    return made


@contextlib.contextmanager
def _rare_collection() -> Iterator[Callable[[], int]]:
    """Python's collector at our call alone: left to itself it takes an eighth of a history, going through imports that
    never change."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


def histories(seeds: range, trouble: Profile | None = None) -> Counter[str]:
    """Many histories; how many of each kind, and how often each fault struck."""
    counts: Counter[str] = Counter()
    with installed(), _rare_collection() as collect:
        for number, seed in enumerate(seeds):
            if number % 50 == 49:
                collect()
            done = history(seed, trouble)
            counts["histories"] += 1
            counts[f"kind: {done.profile.name}"] += 1
            counts["reads acknowledged"] += done.acknowledged
            counts["virtual seconds"] += int(done.scheduler.now)
            counts.update({f"fault: {name}": n for name, n in done.server.injected.items()})
            counts["fault: process killed"] += sum(process.killed for process in done.scheduler.processes)
    return counts
