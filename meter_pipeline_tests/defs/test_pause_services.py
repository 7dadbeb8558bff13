"""The pause against real Dagster services with the real daemon, driven through GraphQL as the UI does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter_pipeline.control import pause
from meter_pipeline.defs.lib import policy
from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline_tests.control.test_pause import ask
from meter_pipeline_tests.defs.services import Services

LOCATION = Path(__file__).with_name("paused_location.py")
CHECKED = {"verified_ledger": "size 10", "verified_control_totals": "balanced", "verified_dead_letters": "none"}


@pytest.fixture
def writes(database: Database) -> Database:
    """A database with the table the test's asset writes."""
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE test_batch (day date, batch int, run_id text, written_at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (day, batch))"
        )
    return database


@pytest.fixture
def services(writes: Database, tmp_path: Path) -> Iterator[Services]:
    with Services(tmp_path / "home", writes, LOCATION) as running:
        yield running


def batches(database: Database) -> int:
    with database.connect(autocommit=True) as connection:
        return int(scalar(connection, "SELECT count(*) FROM test_batch"))


def written_by_day(database: Database) -> dict[int, int]:
    """Day of the month -> batches."""
    with database.connect(autocommit=True) as connection:
        return dict(
            connection.execute("SELECT extract(day FROM day)::int, count(*)::int FROM test_batch GROUP BY 1").fetchall()
        )


def days(count: int) -> list[str]:
    return [f"2026-01-{n:02d}" for n in range(1, count + 1)]


def test_runs_launched_while_paused_write_nothing_and_finish_by_themselves(
    services: Services, writes: Database
) -> None:
    """One launched in the gap before the sensor's tick starts and waits before its first write; one launched after it
    waits in the queue."""
    services.until(lambda: services.pool_limit(policy.POOL) == 2, 30, "the pool's limit")
    pause.raise_pause(writes, reason="odd reads", by="oli")
    runs = [services.launch("write_days", tags={"dagster/partition": "2026-02-01"})]
    services.until(lambda: services.pool_limit(policy.POOL) == 0, 30, "limit 0")
    runs.append(services.launch("write_days", tags={"dagster/partition": "2026-02-02"}))
    time.sleep(3)
    assert batches(writes) == 0
    assert services.run(runs[1])["status"] == "QUEUED"
    pause.confirm_resume(writes, ask(writes), by="fay")
    assert [services.finished(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    assert batches(writes) == 8


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_thirty_days_launched_while_paused_start_nothing_survive_a_daemon_restart_and_complete(
    services: Services, writes: Database
) -> None:
    """As from the UI's backfill button. Printed: seconds from the resume to the first batch and to the last
    run's end.
    """
    services.until(lambda: services.pool_limit(policy.POOL) == 2, 60, "the pool's limit")
    pause.raise_pause(writes, reason="odd reads", by="oli")
    services.until(lambda: services.pool_limit(policy.POOL) == 0, 60, "limit 0")
    backfill = services.backfill("written", days(30))
    services.until(lambda: len(services.statuses()) == 30, 120, "the backfill's runs")
    services.stop("daemon", signal.SIGKILL)
    services.start("daemon")
    time.sleep(15)
    assert services.statuses() == ["QUEUED"] * 30
    assert batches(writes) == 0
    pause.confirm_resume(writes, ask(writes), by="fay")
    resumed = time.monotonic()
    services.until(lambda: batches(writes) > 0, 120, "the first batch")
    first = time.monotonic() - resumed
    services.until(lambda: batches(writes) == 120, 1200, "the last day")
    last = time.monotonic() - resumed
    services.until(lambda: services.backfill_status(backfill) == "COMPLETED_SUCCESS", 120, "the backfill's end")
    print(
        f"first batch {first:.1f} s after the resume, all 30 days {last:.1f} s, backfill closed {time.monotonic() - resumed:.1f} s"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_backfill_launched_while_paused_holds_and_finishes_by_itself(services: Services, writes: Database) -> None:
    """Raised, asked and confirmed as jobs from the Launchpad, while every place of the pool is taken; the daemon is
    restarted on the way."""
    services.until(lambda: services.pool_limit(policy.POOL) == 2, 30, "the pool's limit")
    config = {"ops": {"raise_the_pause": {"config": {"raised_by": "oli", "reason": "odd reads"}}}}
    assert services.finished(services.launch("raise_emergency_pause", config)) == "SUCCESS"
    # The gap: a run launched before the sensor's tick starts, and waits before its first write.
    services.backfill("written", days(3))
    services.until(lambda: services.pool_limit(policy.POOL) == 0, 30, "limit 0")
    services.stop("daemon", signal.SIGKILL)
    services.start("daemon")
    services.until(lambda: len(services.statuses()) == 4, 60, "the backfill's runs")
    time.sleep(3)
    assert batches(writes) == 0

    asked = {"ops": {"ask_to_resume": {"config": {"requested_by": "oli", "reason": "fixed", **CHECKED}}}}
    assert services.finished(services.launch("request_resume", asked)) == "SUCCESS"
    with writes.connect(autocommit=True) as connection:
        request = int(pause.status(connection)["pending"][0]["request"])
    for person, outcome in (("oli", "FAILURE"), ("fay", "SUCCESS")):
        confirm = {
            "ops": {"confirm_the_resume": {"config": {"request": request, "confirmed_by": person, "reason": "looked"}}}
        }
        assert services.finished(services.launch("confirm_resume", confirm)) == outcome
    services.until(lambda: batches(writes) == 12, 60, "the held days")
    services.until(lambda: services.statuses().count("SUCCESS") == 6, 30, "the runs' ends")
    with writes.connect(autocommit=True) as connection:
        assert [r["code"] for r in pause.status(connection)["refusals"]] == ["same_person"]


@pytest.mark.slow
def test_a_pause_longer_than_the_runtime_limit_kills_nothing(writes: Database, tmp_path: Path) -> None:
    """The limit is 8 s, the pause 25: the waiting run lives on and completes; a run that hangs without a pause would
    have been ended."""
    with Services(
        tmp_path / "home", writes, LOCATION, env={"PAUSED_BATCHES": "40", "PAUSED_BATCH_S": "0.1"}, max_runtime=8
    ) as services:
        services.until(lambda: services.pool_limit(policy.POOL) == 2, 30, "the pool's limit")
        run = services.launch("write_days", tags={"dagster/partition": "2026-02-01"})
        services.until(lambda: batches(writes) >= 3, 60, "the first batches")
        pause.raise_pause(writes, reason="stop", by="oli")
        time.sleep(25)
        assert services.run(run)["status"] == "STARTED"
        pause.confirm_resume(writes, ask(writes), by="fay")
        assert services.finished(run) == "SUCCESS"
        assert batches(writes) == 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_with_its_code_server_is_found_and_its_work_run_again(
    services: Services, writes: Database
) -> None:
    """Dagster notices nothing of it; the heartbeat does. The retry finds the day free and the slot is given back."""
    services.stop("code")
    services.env["PAUSED_BATCHES"] = "300"
    services.start("code")
    services.until(services._answers, 60, "the location")
    run = services.launch("write_days", tags={"dagster/partition": "2026-02-01"})
    services.until(lambda: batches(writes) >= 3, 60, "the first batches")
    services.stop("code", signal.SIGKILL)  # its run workers with it
    services.env["PAUSED_BATCHES"] = "4"
    services.start("code")
    assert services.finished(run, 180) == "FAILURE"
    services.until(lambda: services.statuses().count("SUCCESS") == 1, 180, "the retry")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["worker", "code", "daemon"])
def test_whichever_process_is_killed_the_days_are_written_whole_and_no_slot_is_kept(
    services: Services, writes: Database, who: str
) -> None:
    """One of two runs is at work and one waits for its place when a process is killed; what a machine's supervisor
    does, the test does: start it again."""
    services.stop("code")
    services.env["PAUSED_BATCHES"] = "100"
    services.start("code")
    services.until(services._answers, 60, "the location")
    services.until(lambda: services.pool_limit(policy.POOL) == 2, 60, "the pool's limit")
    runs = [services.launch("write_days", tags={"dagster/partition": f"2026-02-0{n}"}) for n in (1, 2, 3)]
    services.until(lambda: batches(writes) >= 5, 90, "the first batches")
    with writes.connect(autocommit=True) as connection:
        worker = int(
            scalar(connection, "SELECT pid FROM control.presence WHERE ended_at IS NULL ORDER BY seen_at LIMIT 1")
        )
    if who == "worker":
        os.kill(worker, signal.SIGKILL)
    else:
        os.kill(services.processes[who].pid, signal.SIGKILL)
        services.processes.pop(who).wait(10)
        time.sleep(2)
        services.start(who)
    services.until(lambda: written_by_day(writes) == {1: 100, 2: 100, 3: 100}, 300, "every day whole")
    ended = services.until(
        lambda: (s := [services.status(run) for run in runs]) and all(one in ("SUCCESS", "FAILURE") for one in s) and s,
        120,
        "the end of the runs",
    )
    services.until(lambda: services.statuses().count("SUCCESS") == 3, 120, "three days done, a killed one by its retry")
    print(who, ended, services.statuses())
    assert ended.count("FAILURE") <= (0 if who == "daemon" else 2)

    def kept() -> int:
        with writes.connect(autocommit=True) as connection:
            return int(
                scalar(
                    connection,
                    "SELECT count(*) FROM dagster.concurrency_slots WHERE run_id IS NOT NULL AND NOT deleted",
                )
            )

    services.until(lambda: kept() == 0, 60, "the slots")
