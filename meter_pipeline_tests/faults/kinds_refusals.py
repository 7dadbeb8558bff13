"""Faults that the server reports: refused batches, locks, deadlocks, no connection left."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import psycopg

from meter_pipeline_tests.faults.bench import Bench, Case, until_up
from meter_pipeline_tests.faults.catalogue import Strike, fault


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
    ("40001", "serialization failure"),
    ("40P01", "deadlock detected"),
    ("53100", "disk full reported"),
    ("53200", "out of memory reported"),
    ("53300", "too many connections reported"),
    ("55P03", "lock not available"),
    ("57014", "statement cancelled"),
    ("57P03", "server starting up"),
    ("58030", "input/output error reported"),
):
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

        def release() -> None:
            for each in held:
                each.close()

        def fill() -> None:
            case.terminate("ingest-writer")
            with contextlib.suppress(psycopg.Error):
                while len(held) < 100:
                    held.append(case.database.connect("chaos"))
            case.injected += 1
            threading.Timer(0.8, release).start()

        with case.at_batch(case.rng.randint(0, 2), fill):
            case.try_run()
        for each in held:
            each.close()
        until_up(case.database)
        case.reckon()
    return case


@fault("deadlock of two sessions", 10)
def _(bench: Bench, seed: int) -> Case:
    """A session takes the day's row after a batch does, and waits for the batch's own table before: the server ends one
    of the two."""
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
