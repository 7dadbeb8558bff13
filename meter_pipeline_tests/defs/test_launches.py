"""Launches that fail for load: the queue keeps the runs, waits longer each time, and every day runs in the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from meter_pipeline.defs.lib.patient_launches import FIRST_WAIT_S, MOST_WAIT_S, PatientLauncher, wait_s
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.defs.services import Services

DAYS = ("2026-01-05", "2026-01-06")
LOCATION = """
import dagster as dg

@dg.op
def bills_a_day() -> None: ...

@dg.job(executor_def=dg.in_process_executor)
def billing() -> None:
    bills_a_day()

defs = dg.Definitions(jobs=[billing])
"""


@pytest.fixture
def services(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The code server of one small job, not started yet, and the instance of dagster.yaml in this process."""
    location = tmp_path / "location.py"
    location.write_text(LOCATION)
    made = Services(tmp_path / "home", database, location)
    for name in ("DAGSTER_HOME", "METER_PIPELINE_DAGSTER_URL"):
        monkeypatch.setenv(name, made.env[name])
    yield made
    for name in list(made.processes):
        made.stop(name)


def test_runs_wait_longer_after_each_launch_that_fails_and_all_go_in_the_end(services: Services) -> None:
    services.start("code")
    target = GrpcServerTarget(host="127.0.0.1", port=services.code_port, socket=None, location_name="test")
    with (
        dg.DagsterInstance.get() as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
        QueuedRunCoordinatorDaemon(interval_seconds=1) as queue,
    ):
        context = workspace.create_request_context()
        job = context.get_code_location("test").get_repository("__repository__").get_full_job("billing")
        runs = [
            create_run_for_test(
                instance,
                job_name="billing",
                tags={"dagster/partition": day},
                remote_job_origin=job.get_remote_origin(),
                job_code_origin=job.get_python_origin(),
            ).run_id
            for day in DAYS
        ]
        for run in runs:
            instance.submit_run(run, context)
        services.stop("code", signal.SIGKILL)

        now, refused_at = time.time(), list[float]()
        launcher = instance.run_launcher
        assert isinstance(launcher, PatientLauncher)
        while len(refused_at) < 6:
            failed = launcher.failed_launches.in_a_row
            list(queue.run_iteration(workspace, fixed_iteration_time=now))
            refused_at += [now] * (launcher.failed_launches.in_a_row > failed)
            now += FIRST_WAIT_S
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.QUEUED}
        waits = [later - earlier for earlier, later in pairwise(refused_at)]
        assert waits == pytest.approx([wait_s(n) for n in range(5)], abs=FIRST_WAIT_S)

        services.start("code")

        def all_done() -> bool:
            nonlocal now
            now += MOST_WAIT_S
            list(queue.run_iteration(workspace, fixed_iteration_time=now))
            return {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}

        services.until(all_done, 60, "the end of the runs")
        assert sorted(run.tags["dagster/partition"] for run in instance.get_runs()) == list(DAYS)
        assert launcher.failed_launches.in_a_row == 0


class _Late(grpc.RpcError):  # type: ignore[misc]  # grpc has no types
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_process_that_is_slow_to_load_its_code_is_left_to_start_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code server would end a run whose first process finds it taken from it."""

    def late(_launcher: DefaultRunLauncher, _context: Any) -> None:
        raise DagsterUserCodeUnreachableError("60 s are over") from _Late()

    monkeypatch.setattr(DefaultRunLauncher, "launch_run", late)
    launcher = PatientLauncher()
    launcher.launch_run(None)
    assert launcher.failed_launches.in_a_row == 0


def test_the_waits_double_to_a_quarter_of_an_hour() -> None:
    assert [wait_s(n) for n in (0, 1, 2, 3, 5, 6, 1000)] == [15, 30, 60, 120, 480, 900, 900]
