"""Faults of processes: writers, runs, the server and its backends, killed, stopped and cut off."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

from meter_pipeline.ingest import writer
from meter_pipeline_tests.faults.bench import Bench, Case, spawn, until_up
from meter_pipeline_tests.faults.catalogue import fault


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

        both = [
            context.Process(target=killable, args=(case.database.url, str(case.folder), seed + n, 10**9, False))
            for n in range(2)
        ]
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
        until_up(case.database)
        case.reckon()
    return case


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
                    pid
                    for (pid,) in connection.execute(
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
