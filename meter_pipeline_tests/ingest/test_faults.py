"""Whatever breaks while a day is written, running it again gives the tables a quiet run gives, and every payload one
ledger leaf."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meter_pipeline.ingest import land
from meter_pipeline.ingest.breaker import Breaker, Rules
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.watchdog import cut
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
    raw_bytes,
    write_file,
)

pytestmark = pytest.mark.usefixtures("toy_feed")

SMALL = Limits(batch_least=1, batch_start=1, batch_most=1, writers_start=2)
Write = Callable[..., Any]


@pytest.fixture
def day(database: Database, tmp_path: Path) -> Database:
    """Six meters' reads staged."""
    enrol(database)
    reads = [Read(m, slot, 1000 + slot) for m in METERS for slot in range(8)] + [
        Read(m, 3, 10**6, register=True) for m in METERS
    ]
    land(database, CALENDAR, write_file(tmp_path, "a", reads), NORTH, places(tmp_path), clock=CLOCK)
    return database


def run(database: Database, folder: Path, **more: Any) -> Any:
    return load_day(database, folder, **{"controller": Controller(SMALL), **more})


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
        with pytest.raises(load.DayTakenOverError):
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


def hang_first_commit(database: Database, seconds: float) -> None:
    """The first batch's COMMIT takes so long on the server: a stalled disk, or a synchronous standby that is away."""
    with database.connect(autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE IF NOT EXISTS public.hang; ALTER SEQUENCE public.hang RESTART")
        connection.execute(
            f"CREATE OR REPLACE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('public.hang') = 1 THEN PERFORM pg_sleep({seconds}); END IF; RETURN NULL; END $$".encode()
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON raw.load_batch DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.hang()"
        )


@pytest.mark.parametrize(("hangs_s", "committed"), [(1.0, True), (110.0, False)])
@pytest.mark.parametrize("later", [False, True])
def test_a_commit_that_hangs_after_its_link_is_reset_is_settled_before_anything_else(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs_s: float, committed: bool, later: bool
) -> None:
    if later:
        run(day, tmp_path)
        reads = [Read(m, slot, 2000 + slot, version=2) for m in METERS for slot in range(8)]
        land(day, CALENDAR, write_file(tmp_path, "b", reads), NORTH, places(tmp_path), clock=CLOCK)
    hang_first_commit(day, hangs_s)
    real = load.write_batch
    begun: list[int] = []

    async def cut_while_it_commits(connection: Any, batch: load.Batch) -> bool:
        begun.append(batch.rows)
        if len(begun) == 1:
            asyncio.get_running_loop().call_later(0.3, cut, connection)
        return await real(connection, batch)

    monkeypatch.setattr(load, "write_batch", cut_while_it_commits)
    wide = Controller(Limits(batch_least=1, batch_start=6, batch_most=6, writers_start=2))
    outcome = run(day, tmp_path, controller=wide)
    assert outcome.writers.settled == 1
    assert outcome.writers.already == committed
    assert set(begun) == {6}, "no half was tried"
    assert outcome.balanced
    if later:
        assert (outcome.received, outcome.accepted) == (48, 48)
        assert len(raw_bytes(day)["raw.interval_day"]) == 6
    else:
        whole(day)


def test_claims_of_overlapping_rows_exclude_each_other(day: Database, tmp_path: Path) -> None:
    with day.connect(autocommit=True) as connection:
        claim = (
            "INSERT INTO raw.load_batch (sha256, billing_day, kind, first_row, rows) SELECT decode(repeat(%s, 32), "
            "'hex'), %s, %s, lower(r), r FROM (VALUES (%s::int8multirange)) AS v (r)"
        )
        connection.execute(claim, ("aa", DAY, "interval", "{[0,84)}"))
        for rows in ("{[42,84)}", "{[83,90)}", "{[0,1),[100,101)}"):
            with pytest.raises(psycopg.errors.IntegrityError):
                connection.execute(claim, ("aa", DAY, "interval", rows))
        for sha256, kind, rows in (
            ("aa", "interval", "{[84,90)}"),
            ("aa", "register", "{[0,84)}"),
            ("bb", "interval", "{[0,84)}"),
        ):
            connection.execute(claim, (sha256, DAY, kind, rows))


def test_a_batch_of_which_another_holds_some_rows_ends_the_run(day: Database, tmp_path: Path) -> None:
    """Never read as "written already": the rows that the other batch lacks would be lost."""
    with day.connect(autocommit=True) as connection:
        connection.execute(
            "INSERT INTO raw.load_batch (sha256, billing_day, kind, first_row, rows) SELECT sha256, billing_day, "
            "'interval', 3, '{[3,4)}' FROM raw.feed_file_day"
        )
        connection.execute("CREATE TABLE kept AS TABLE raw.load_batch; TRUNCATE raw.load_batch")
    real = load.write_batch
    begun: list[int] = []

    async def late_claim(connection: Any, batch: load.Batch) -> bool:
        if not begun:
            begun.append(1)
            with day.connect(autocommit=True) as other:
                other.execute("INSERT INTO raw.load_batch SELECT * FROM kept")
        return await real(connection, batch)

    wide = Controller(Limits(batch_least=1, batch_start=6, batch_most=6, writers_start=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "write_batch", late_claim)
        with pytest.raises(load.ClaimOverlap):
            run(day, tmp_path, controller=wide)


def test_a_day_is_not_done_while_a_staged_row_is_unclaimed(
    day: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "write_batch", _says_it_wrote)
    with pytest.raises(load.NotWhole, match="6 of 6 interval rows"):
        run(day, tmp_path)
    monkeypatch.undo()
    run(day, tmp_path)
    whole(day)


async def _says_it_wrote(connection: Any, batch: load.Batch) -> bool:
    return True
