"""Whatever breaks while a day is written, running it again gives the tables a quiet run gives, and every payload one
ledger leaf."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.ingest import ingest_billing_day, land
from meter_pipeline.ingest.breaker import Breaker, Rules
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ingest.support import (
    CALENDAR,
    CLOCK,
    DAY,
    METERS,
    NORTH,
    Read,
    enrol,
    options,
    parse,
    places,
    raw_bytes,
    write_file,
)

SMALL = Limits(batch_least=1, batch_start=1, batch_most=1, writers_start=2)
Write = Callable[..., Any]


@pytest.fixture
def day(database: Database, tmp_path: Path) -> Database:
    """Six meters' reads staged."""
    enrol(database)
    reads = [Read(m, slot, 1000 + slot) for m in METERS for slot in range(8)] + [
        Read(m, 3, 10**6, register=True) for m in METERS
    ]
    land(database, CALENDAR, write_file(tmp_path, "a", reads), NORTH, places(tmp_path), parse=parse, clock=CLOCK)
    return database


def run(database: Database, folder: Path, **more: Any) -> Any:
    return ingest_billing_day(database, CALENDAR, DAY, **{**options(folder), "controller": Controller(SMALL), **more})


def leaves(database: Database) -> int:
    return int(
        database.read(
            "SELECT coalesce(sum(leaf_count), 0)::bigint AS n FROM ledger.entry WHERE kind = 'ingested'"
        ).item()
    )


def whole(database: Database) -> None:
    rows = raw_bytes(database)
    assert (len(rows["raw.interval_day"]), len(rows["raw.register_read"])) == (6, 6)
    assert leaves(database) == 12
    with database.connect() as connection:
        totals = raw.control_totals(connection)
    assert totals["balanced"].all()
    assert totals["accepted"].sum() == 54


def test_a_commit_whose_reply_is_lost_counts_once(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = load.write_batch, []

    async def lossy(connection: Any, batch: load.Batch) -> bool:
        done = await real(connection, batch)
        calls.append(done)
        if len(calls) % 3 == 1:
            await connection.close()
            raise psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(load, "write_batch", lossy)
    outcome = run(day, tmp_path)
    assert outcome.retries > 0
    assert outcome.writers.already > 0
    whole(day)


@pytest.mark.parametrize("at", [0, 4, 9])
def test_a_run_killed_at_a_batch_is_finished_by_the_next(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    real, calls = load.write_batch, []

    async def killed(connection: Any, batch: load.Batch) -> bool:
        calls.append(1)
        if len(calls) > at:
            raise psycopg.errors.InsufficientPrivilege("stands for the end of the process: nothing retries it")
        return await real(connection, batch)

    with monkeypatch.context() as patch:
        patch.setattr(load, "write_batch", killed)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(day, tmp_path)
    run(day, tmp_path)
    whole(day)


def test_a_run_killed_before_the_attach_is_finished_by_the_next(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(raw, "attach_partition", lambda *_: (_ for _ in ()).throw(RuntimeError("gone")))
        with pytest.raises(RuntimeError):
            run(day, tmp_path)
    run(day, tmp_path)
    whole(day)


def test_two_runs_of_one_day_at_once_write_it_once(day: Database, tmp_path: Path) -> None:
    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.append(run(day, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o.accepted for o in outcomes) == [0, 54]
    whole(day)


def test_a_run_whose_day_was_taken_stops(day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = load.write_batch

    async def overtaken(connection: Any, batch: load.Batch) -> bool:
        with day.connect() as other:
            raw.take_day(other, DAY, "another", CLOCK.now())
        return await real(connection, batch)

    with monkeypatch.context() as patch:
        patch.setattr(load, "write_batch", overtaken)
        with pytest.raises(load.Fenced):
            run(day, tmp_path)
    assert leaves(day) == 0
    run(day, tmp_path)
    whole(day)


def test_nothing_is_written_while_paused_and_the_work_goes_on_by_itself(day: Database, tmp_path: Path) -> None:
    class Pause:
        asked = 0

        def check(self, commodity: str | None = None, head_end: str | None = None) -> str | None:
            assert (commodity, head_end) == ("electricity", "NORTH")
            Pause.asked += 1
            if Pause.asked <= 6:
                assert leaves(day) == 0
                return "held"
            return None

    outcome = run(day, tmp_path, pause=Pause())
    assert outcome.writers.waited_s > 0
    whole(day)


def test_lost_staging_is_made_again_from_the_archive(day: Database, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "staging")
    run(day, tmp_path)
    whole(day)


def test_torn_staging_is_noticed(day: Database, tmp_path: Path) -> None:
    [staged] = (tmp_path / "staging").glob("*/*.intervals.arrow")
    content = staged.read_bytes()
    staged.write_bytes(content[: len(content) // 2])
    run(day, tmp_path)
    whole(day)


def test_a_terminated_backend_is_retried(day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = load.write_batch, []

    async def terminated(connection: Any, batch: load.Batch) -> bool:
        calls.append(1)
        if len(calls) == 2:
            with day.connect(autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        return await real(connection, batch)

    monkeypatch.setattr(load, "write_batch", terminated)
    assert run(day, tmp_path).retries >= 1
    whole(day)


def test_an_open_breaker_is_shared_told_and_closed_again(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = load.write_batch, []

    async def failing(connection: Any, batch: load.Batch) -> bool:
        calls.append(1)
        if len(calls) <= 4:
            raise psycopg.errors.SerializationFailure("stands for a server that fails")
        return await real(connection, batch)

    monkeypatch.setattr(load, "write_batch", failing)
    breaker = Breaker(Rules(window=4, least_calls=4, open_s=1.5))
    outcome = run(day, tmp_path, breaker=breaker)
    assert outcome.breaker_opened == 1
    assert day.read("SELECT state, times_opened FROM raw.breaker").rows() == [("closed", 1)]
    assert day.read("SELECT (figures ->> 'open')::boolean AS open FROM control.observation WHERE kind = 'breaker'")[
        "open"
    ].to_list() == [False]
    whole(day)
