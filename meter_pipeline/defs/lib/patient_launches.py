"""Launches that wait for a busy machine, longer each time, and give no run up.

Where the code server does not answer, the queue keeps the run and launches nothing more for a while: Dagster gives a
run up at the first such launch, and waits equally long each time where it is told to try again. Where the answer takes
too long the run's process is loading its code, and starts the run when it has. Named in dagster.yaml; the launcher of
Kubernetes is in patient_kubernetes.py.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, Final

import grpc
from dagster._core.errors import DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator, RunQueueConfig

#: Seconds until the next launch after the first one that failed, twice as long after each further one, and the most.
FIRST_WAIT_S: Final = 15
MOST_WAIT_S: Final = 900
#: Times that a run goes back to the queue before it fails: ten days of the longest wait.
MOST_LAUNCHES: Final = 1000


def wait_s(failed: int) -> int:
    """Seconds to wait after a launch that fails when ``failed`` launches before it have failed, one after the other."""
    return min(FIRST_WAIT_S << min(failed, 20), MOST_WAIT_S)


class FailedLaunches:
    """Counts launches that fail in a row, by run."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._counting = threading.Lock()

    @property
    def in_a_row(self) -> int:
        """Launches that failed since the last one that did not, of the run that was tried most often."""
        with self._counting:
            return max(self._failed.values(), default=0)

    def count(self, run_id: str) -> None:
        """One more launch of a run failed."""
        with self._counting:
            self._failed[run_id] += 1

    def clear(self) -> None:
        """A launch did not fail."""
        with self._counting:
            self._failed.clear()


class PatientLauncher(DefaultRunLauncher):
    """Launches as Dagster does; waits for a run's process that is slow, and counts launches that fail in a row."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.failed_launches = FailedLaunches()

    def launch_run(self, context: Any) -> None:
        """Raises DagsterUserCodeUnreachableError or DagsterCodeLocationLoadError where there is no code server.

        A process that still loads its code when the call's time is over is left to start its run. If it dies the code
        server ends the run, and if nothing comes of it run_monitoring's start_timeout_seconds does.
        """
        try:
            super().launch_run(context)
        except (DagsterUserCodeUnreachableError, DagsterCodeLocationLoadError) as error:
            if _took_too_long(error):
                return
            self.failed_launches.count(context.dagster_run.run_id)
            raise
        self.failed_launches.clear()


def _took_too_long(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.DEADLINE_EXCEEDED


class PatientQueue(QueuedRunCoordinator[Any]):
    """Dagster's queue of runs, which waits longer after each launch in a row that failed for load."""

    def get_run_queue_config(self) -> RunQueueConfig:
        """The daemon calls this at each look at the queue."""
        failed = self._instance.run_launcher.failed_launches.in_a_row
        return (
            super()
            .get_run_queue_config()
            ._replace(max_user_code_failure_retries=MOST_LAUNCHES, user_code_failure_retry_delay=wait_s(failed))
        )
