"""Every kind of fault, each a function from a bench and a seed to a case that was struck and reckoned.

Belongs here: how a fault is done. Does not belong here: what must hold after it (bench.Case.reckon), how often it is done (run.py).
"""

from __future__ import annotations

import contextlib
import gzip
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from meter_pipeline.control.pause import CHECKLIST, confirm_resume, raise_pause, request_resume
from meter_pipeline.feeds import HeadEnd
from meter_pipeline.feeds import parse as parse_feed
from meter_pipeline.feeds.rejects import FileGrowing
from meter_pipeline.ingest import land, writer
from meter_pipeline.ledger import checkpoints, privileges, verification
from meter_pipeline.ledger.sequencer import SequencerBusyError, sequence
from meter_pipeline.store.database import Database
from meter_pipeline_tests.faults.bench import CALENDAR, NORTH, Bench, Case, parse, spawn
from meter_pipeline_tests.faults.proxy import Proxy, Toxic
from meter_pipeline_tests.ingest.support import places
from meter_pipeline_tests.simulation.contents import CONTENTS, DAY, content, payloads

Strike = Callable[[Bench, int], Case]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind. ``many`` is how often the long suite does it, ``few`` how often the part in ``make test`` does."""

    name: str
    strike: Strike
    many: int
    few: int = 0


FAULTS: Final[list[Fault]] = []


def fault(name: str, many: int, few: int = 0) -> Callable[[Strike], Strike]:
    def keep(strike: Strike) -> Strike:
        FAULTS.append(Fault(name, strike, many, few))
        return strike

    return keep


# -- processes ----------------------------------------------------------------------------------------------------------------------------


def _killed(bench: Bench, seed: int, after: bool) -> Case:
    with bench.case(seed) as case:
        for _ in range(2):
            case.injected += spawn(case, case.rng.randint(1, 45), after) == -signal.SIGKILL
        case.reckon()
    return case


@fault("writer killed (SIGKILL) before a statement", 25, 1)
def _(bench: Bench, seed: int) -> Case:
    return _killed(bench, seed, False)


@fault("writer killed (SIGKILL) after a statement or COMMIT", 25)
def _(bench: Bench, seed: int) -> Case:
    return _killed(bench, seed, True)


@fault("two runs of one day in two processes", 10)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:
        context = multiprocessing.get_context("forkserver")
        from meter_pipeline_tests.faults.bench import killable

        both = [context.Process(target=killable, args=(case.database.url, str(case.folder), seed + n, 10**9, False)) for n in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [0, 0]
        case.injected += 1
        case.reckon()
    return case


@fault("two runs of one day at once", 30, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:
        threads = [threading.Thread(target=case.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        case.injected += 1
        case.reckon()
    return case


@fault("a run whose day another run took", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def take() -> None:
            with case.database.connect(autocommit=True) as connection:
                connection.execute("UPDATE raw.day_load SET epoch = epoch + 1")
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 2), take):
            case.try_run()
        case.reckon()
    return case


# -- the server ---------------------------------------------------------------------------------------------------------------------------


@fault("whole server killed (SIGKILL)", 12, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:

        def kill() -> None:
            bench.kill()
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), kill, after=case.rng.random() < 0.5):
            starter = threading.Thread(target=_start_soon, args=(bench,))
            starter.start()
            case.try_run()
            starter.join()
        bench.start()
        case.reckon()
    return case


def _start_soon(bench: Bench) -> None:
    """Start the server as soon as it is down, as its supervisor would."""
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        if not bench.cluster.running():
            bench.start()
            return
        time.sleep(0.05)


@fault("server restarted (fast shutdown)", 10)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def restart() -> None:
            bench.cluster.stop("fast")
            bench.start()
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), restart):
            case.try_run()
        case.reckon()
    return case


@fault("one backend killed (SIGKILL): the server recovers", 12)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def kill() -> None:
            with case.database.connect("chaos", autocommit=True) as connection:
                rows = connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'ingest-writer%' LIMIT 1"
                ).fetchall()
            for (pid,) in rows:
                os.kill(pid, signal.SIGKILL)
                case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), kill):
            case.try_run()
        _until_up(case.database)
        case.reckon()
    return case


def _until_up(database: Database) -> None:
    for _ in range(200):
        try:
            with database.connect("until-up") as connection:
                connection.execute("SELECT 1")
            return
        except psycopg.Error:
            time.sleep(0.05)
    raise AssertionError("the server did not come back")


@contextlib.contextmanager
def _stopped(pids: list[int], seconds: float) -> Iterator[None]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(seconds, go_on)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@fault("whole server stopped (SIGSTOP)", 8)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case, contextlib.ExitStack() as stack:

        def stop() -> None:
            stack.enter_context(_stopped(bench.processes(), case.rng.uniform(0.5, 2.5)))
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), stop):
            case.try_run()
        stack.close()
        case.reckon()
    return case


@fault("one backend stopped (SIGSTOP) beyond the writer's deadline", 8)
def _(bench: Bench, seed: int) -> Case:
    deadline, writer.WRITE_DEADLINE_S = writer.WRITE_DEADLINE_S, 0.7  # type: ignore[misc]
    with bench.case(seed) as case, contextlib.ExitStack() as stack:
        defaults = writer.Writers.__init__.__defaults__
        assert defaults is not None
        writer.Writers.__init__.__defaults__ = tuple(0.7 if value == deadline else value for value in defaults)

        def stop() -> None:
            with case.database.connect("chaos", autocommit=True) as connection:
                pids = [
                    pid for (pid,) in connection.execute(
                        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'ingest-writer%'"
                    )
                ]
            stack.enter_context(_stopped(pids, 1.6))
            case.injected += len(pids)

        try:
            with case.at_batch(case.rng.randint(0, 2), stop):
                case.try_run()
        finally:
            writer.WRITE_DEADLINE_S = deadline  # type: ignore[misc]
            writer.Writers.__init__.__defaults__ = defaults
        stack.close()
        case.reckon()
    return case


def _terminated(bench: Bench, seed: int, name: str) -> Case:
    with bench.case(seed) as case:
        with contextlib.ExitStack() as stack:
            for number in {case.rng.randint(0, 3), case.rng.randint(0, 3)}:
                stack.enter_context(case.at_batch(number, lambda: case.terminate(name)))
            case.try_run()
        case.reckon()
    return case


@fault("pg_terminate_backend of the writers", 25, 1)
def _(bench: Bench, seed: int) -> Case:
    return _terminated(bench, seed, "ingest-writer")


@fault("pg_terminate_backend of the run's lock", 25, 1)
def _(bench: Bench, seed: int) -> Case:
    return _terminated(bench, seed, "ingest-day")


@fault("pg_terminate_backend of the pause poll", 25)
def _(bench: Bench, seed: int) -> Case:
    return _terminated(bench, seed, "ingest-pause")


@fault("pg_terminate_backend of the monitor", 10)
def _(bench: Bench, seed: int) -> Case:
    return _terminated(bench, seed, "ingest-monitor")


# -- refusals by the server ---------------------------------------------------------------------------------------------------------------


def _refusing(state: str, table: str = "raw.load_batch", most: int = 3) -> Strike:
    def strike(bench: Bench, seed: int) -> Case:
        with bench.case(seed, 3) as case:
            case.failpoint(table, state, list(range(1, 1 + most)))
            try:
                case.try_run()
            finally:
                case.clear_failpoint(table)
            case.reckon()
        return case

    return strike


for _state, _name in (
    ("40001", "serialization failure"), ("40P01", "deadlock detected"), ("53100", "disk full reported"), ("53200", "out of memory reported"),
    ("53300", "too many connections reported"), ("55P03", "lock not available"), ("57014", "statement cancelled"), ("57P03", "server starting up"),
    ("58030", "input/output error reported"),
):  # fmt: skip
    fault(f"{_name} ({_state}) at a batch", 25, _state in ("40001", "53100"))(_refusing(_state))
fault("ledger insert refused (42501): the data write aborts with it", 20, 1)(_refusing("42501", "ledger.entry", 1))
fault("dead-letter insert refused: the batch is not acknowledged", 15)(_refusing("53100", "raw.dead_letter", 1))


@fault("table locked by another session", 10, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def hold() -> None:
            case.injected += 1

            def keep() -> None:
                with case.database.connect("chaos") as connection:
                    connection.execute("LOCK TABLE raw.load_batch IN ACCESS EXCLUSIVE MODE")
                    time.sleep(0.6)

            threading.Thread(target=keep).start()
            time.sleep(0.05)

        with case.at_batch(case.rng.randint(0, 2), hold):
            case.try_run()
        case.reckon()
    return case


@fault("too many connections (server full)", 6)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        held: list[psycopg.Connection[Any]] = []

        def fill() -> None:
            case.terminate("ingest-writer")
            with contextlib.suppress(psycopg.Error):
                while len(held) < 100:
                    held.append(case.database.connect("chaos"))
            case.injected += 1
            threading.Timer(0.8, lambda: [each.close() for each in held]).start()

        with case.at_batch(case.rng.randint(0, 2), fill):
            case.try_run()
        for each in held:
            each.close()
        _until_up(case.database)
        case.reckon()
    return case


@fault("deadlock of two sessions", 10)
def _(bench: Bench, seed: int) -> Case:
    """A session takes the day's row after a batch does, and waits for the batch's own table before: the server ends one of the two."""
    with bench.case(seed) as case:

        def tangle() -> None:
            case.injected += 1

            def other() -> None:
                with contextlib.suppress(psycopg.Error), case.database.connect("chaos") as connection:
                    connection.execute("SET deadlock_timeout = '50ms'; SET lock_timeout = '1s'")
                    connection.execute("LOCK TABLE raw.load_batch IN ACCESS EXCLUSIVE MODE")
                    time.sleep(0.1)
                    connection.execute("UPDATE raw.day_load SET holder = holder")

            threading.Thread(target=other).start()
            time.sleep(0.03)

        with case.at_batch(case.rng.randint(0, 2), tangle):
            case.try_run()
        case.reckon()
    return case


# -- the network --------------------------------------------------------------------------------------------------------------------------


def _network(toxic: Callable[[random.Random], Toxic], heals_after_s: float | None = None, counts: bool = False) -> Strike:
    def strike(bench: Bench, seed: int) -> Case:
        with bench.case(seed) as case:
            proxy = Proxy(bench.cluster.socket / ".s.PGSQL.5432", seed)
            through = Database(f"postgresql://postgres@127.0.0.1:{proxy.port}/{case.database.name}")
            try:
                proxy.toxic = toxic(case.rng) if heals_after_s is None else Toxic()
                if heals_after_s is not None:

                    def strike_now() -> None:
                        proxy.toxic = toxic(case.rng)
                        threading.Timer(heals_after_s, lambda: setattr(proxy, "toxic", Toxic())).start()

                    with case.at_batch(case.rng.randint(0, 2), strike_now):
                        case.try_run(through)
                else:
                    case.try_run(through)
                case.injected += proxy.struck if counts else 1
            finally:
                proxy.close()
            case.reckon()
        return case

    return strike


fault("connection reset before COMMIT is sent", 60, 2)(_network(lambda rng: Toxic(reset_before_commit=rng.randint(1, 5)), counts=True))
fault("connection reset after COMMIT, before its reply", 60, 2)(_network(lambda rng: Toxic(reset_after_commit=rng.randint(1, 5)), counts=True))
fault("latency of 20 ms", 6)(_network(lambda _: Toxic(latency_s=0.02)))
fault("jitter up to 40 ms", 6)(_network(lambda _: Toxic(jitter_s=0.04)))
fault("packets sliced to 1 to 7 bytes", 10)(_network(lambda rng: Toxic(slice_bytes=rng.randint(1, 7))))
fault("link cut after so many bytes", 25)(_network(lambda rng: Toxic(limit_bytes=rng.randint(3000, 30_000)), counts=True))
fault("half-open link for 1 s", 8)(_network(lambda _: Toxic(half_open=True), heals_after_s=1.0))
fault("connections refused for 0.6 s", 10)(_network(lambda _: Toxic(refuse=True, reset_before_commit=0), heals_after_s=0.6))


# -- people, time, files ------------------------------------------------------------------------------------------------------------------


@fault("pause raised in the middle of a run", 12, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:
        def pause() -> None:
            raise_pause(case.database, reason="fault suite", by="ann")
            case.injected += 1
            threading.Timer(0.4, resume).start()

        def resume() -> None:
            asked = request_resume(case.database, reason="looked", by="ann", checklist=dict.fromkeys(CHECKLIST, "looked"))
            confirm_resume(case.database, asked.request_id, by="ben")

        with case.at_batch(case.rng.randint(0, 2), pause):
            case.try_run()
        timer = next((each for each in threading.enumerate() if isinstance(each, threading.Timer)), None)
        if timer is not None:
            timer.join()
        case.reckon()
    return case


@fault("wall clock jumps an hour", 10, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:

        def jump() -> None:
            case.clock.jump_s += case.rng.choice((-3600.0, 3600.0))
            case.injected += 1

        with case.at_batch(case.rng.randint(0, 3), jump):
            case.try_run()
        case.reckon()
    return case


@fault("the same file again, under other names", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        number = case.rng.randrange(CONTENTS)
        for name in ("file", "other", "third"):
            case.land(number, name=name)
            if case.rng.random() < 0.5:
                case.run()
        case.injected += 2
        case.reckon()
    return case


@fault("corrections in any order", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 0) as case:
        numbers = case.rng.sample(range(CONTENTS), 6)
        for at in range(0, 6, 2):
            case.land(*numbers[at : at + 2])
            case.run()
        case.injected += 6
        case.reckon()
    return case


@fault("a value no table takes, among good ones", 20, 1)
def _(bench: Bench, seed: int) -> Case:
    poisoned = [number for number in range(CONTENTS) if any(payload.poison for payload in payloads(number))]
    with bench.case(seed) as case:
        number = case.rng.choice(poisoned)
        case.land(number)
        case.injected += sum(payload.poison for payload in payloads(number))
        case.reckon()
    return case


@fault("staged reads lost", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        shutil.rmtree(case.folder / "staging", ignore_errors=True)
        case.injected += 1
        case.reckon()
    return case


@fault("staged reads torn", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        for path in (case.folder / "staging").glob("*/*.arrow"):
            body = path.read_bytes()
            path.write_bytes(body[: case.rng.randrange(len(body))])
            case.injected += 1
        case.reckon()
    return case


_CSV: Final = HeadEnd("C", "delimited", interval_minutes=60, unit="kWh", zone="UTC", columns={"meter_id": "m", "time": "t", "value": "v"})


@fault("file cut short, or growing while it is read", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    """A truncated archive is refused whole and registers no reads; a growing file is held."""
    with bench.case(seed) as case:
        path = case.folder / "cut.csv.gz"
        whole = gzip.compress(b"m,t,v\n" + b"M-0,2024-03-10T08:00:00Z,1\n" * 50)
        path.write_bytes(whole[: case.rng.randrange(20, len(whole) - 1)])
        landed = land(case.database, CALENDAR, path, _CSV, places(case.folder), clock=case.clock)
        assert landed.refused is not None
        assert landed.received == 0
        case.sent[landed.sha256] = []
        growing = case.folder / "growing.csv"
        growing.write_bytes(b"m,t,v\n" + b"M-0,2024-03-10T08:00:00Z,1\n" * 10)

        def parse_while(path: Path, head_end: HeadEnd, calendar: Any) -> Any:
            parsed = parse_feed(path, head_end, calendar)
            with path.open("ab") as more:
                more.write(b"M-0,2024-03-10T09:00:00Z,1\n")
            return parsed

        with pytest.raises((ValueError, FileGrowing)):
            land(case.database, CALENDAR, growing, _CSV, places(case.folder), parse=parse_while, clock=case.clock)
        case.injected += 2
        case.reckon()
    return case


@fault("landing killed between archive and register", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        number = case.rng.randrange(CONTENTS)
        case.failpoint("raw.feed_file", "57P01", [1])
        path = case.folder / f"file-{number}-9"
        path.write_bytes(content(number)[0])
        with contextlib.suppress(psycopg.Error):
            land(case.database, CALENDAR, path, NORTH, places(case.folder), parse=parse, clock=case.clock)
        case.clear_failpoint("raw.feed_file")
        case.land(number)
        case.reckon()
    return case


# -- the ledger ---------------------------------------------------------------------------------------------------------------------------


@fault("sequencer terminated in the middle of a round", 15)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        case.run()
        case.failpoint("ledger.tree_head", "57P01", [1])
        with contextlib.suppress(psycopg.Error), case.database.connect("sequencer") as connection:
            sequence(connection)
        case.clear_failpoint("ledger.tree_head")
        case.reckon()
    return case


@fault("two sequencers at once", 15, 1)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed) as case:
        case.run()
        failed: list[BaseException] = []

        def order() -> None:
            try:
                with case.database.connect("sequencer") as connection:
                    sequence(connection)
            except SequencerBusyError:
                pass
            except psycopg.Error as error:
                failed.append(error)

        threads = [threading.Thread(target=order) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        case.injected += 2
        case.reckon()
    return case


@fault("restored from an older backup: the verifier says so, the files heal it", 3)
def _(bench: Bench, seed: int) -> Case:
    """A copy of the data folder is put back. The log is shorter than what was verified; landing the archive's files again brings every read back."""
    with bench.case(seed) as case:
        case.reckon()
        numbers = sorted({int(path.name.split("-")[1]) for path in case.folder.glob("file-*")})
        bench.cluster.stop("fast")
        backup = bench.home / f"backup-{seed}"
        shutil.copytree(bench.cluster.data, backup, symlinks=True)
        bench.start()
        fresh = [number for number in range(CONTENTS) if number not in numbers][:2]
        case.land(*fresh)
        case.reckon()
        bench.cluster.stop("fast")
        owner = bench.cluster.data.stat()
        shutil.rmtree(bench.cluster.data)
        shutil.copytree(backup, bench.cluster.data, symlinks=True)
        for path in (bench.cluster.data, *bench.cluster.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        bench.cluster.data.chmod(0o700)
        shutil.rmtree(backup)
        bench.start()
        outcome = verification.verify(case.database, home=case.folder / "home", full=True, days=[DAY])
        assert any(finding.check == "memory" for finding in outcome.findings), "a shorter log went unseen"
        with pytest.raises(Exception, match=r"."):
            checkpoints.checkpoint(case.database, home=case.folder / "home")
        case.land(*fresh, name="healed")
        shutil.rmtree(case.folder / "home")  # people decide that the restored log is the log: new keys, new memory
        with case.database.connect("dba", autocommit=True) as connection:
            connection.execute(
                "ALTER TABLE ledger.checkpoint DISABLE TRIGGER ALL; DELETE FROM ledger.checkpoint; ALTER TABLE ledger.checkpoint ENABLE TRIGGER ALL;"
                "ALTER TABLE ledger.checkpoint ENABLE ALWAYS TRIGGER only_grows; ALTER TABLE ledger.checkpoint ENABLE ALWAYS TRIGGER never_truncated"
            )
        with case.database.connect("dba") as connection:
            privileges.record(connection, accepted_by="ann", reason="restored from a backup")
        case.injected += 1
        case.reckon()
    return case


@fault("flipped byte in a table's file: never silent", 6)
def _(bench: Bench, seed: int) -> Case:
    with bench.case(seed, 3) as case:
        case.reckon()
        with case.database.connect(autocommit=True) as connection:
            row = connection.execute(
                "SELECT pg_relation_filepath(c.oid) FROM pg_class c WHERE c.relname ~ '^(interval_day|register_read)_[0-9]{8}$' "
                "AND pg_relation_size(c.oid) > 0 LIMIT 1"
            ).fetchone()
            connection.execute("CHECKPOINT")
        assert row is not None
        path = bench.cluster.data / row[0]
        bench.cluster.stop("fast")
        good = path.read_bytes()
        at = case.rng.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << case.rng.randrange(8))]) + good[at + 1 :])
        bench.start()
        noticed = False
        try:
            noticed = not verification.verify(case.database, home=case.folder / "home", full=True, days=[DAY]).ok
        except psycopg.errors.DataCorrupted:
            noticed = True
        assert noticed, f"byte {at} of {path.name} was changed and nobody noticed"
        case.injected += 1
        bench.cluster.stop("fast")
        path.write_bytes(good)  # the good page from the backup
        bench.start()
        case.recovery_s = 0.0
        case.check()
        case.verify()
    return case

