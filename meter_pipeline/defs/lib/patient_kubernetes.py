"""Launches of runs as Kubernetes jobs that wait while the cluster is busy, longer each time, and give no run up.

Named in deploy/kubernetes/instance.yaml. Needs the extra ``kubernetes``.
"""

from __future__ import annotations

from typing import Any, Final

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster_k8s import K8sRunLauncher
from dagster_k8s.client import DagsterK8sAPIRetryLimitExceeded, DagsterK8sUnrecoverableAPIError

from meter_pipeline.defs.lib.patient_launches import FailedLaunches

#: The job is there: an earlier launch made it, and its answer was lost.
_CONFLICT: Final = 409
#: The API asks for fewer calls, or its gateway has no answer. Dagster's client repeats 401, 500, 503 and 504 itself.
_BUSY: Final = frozenset({429, 502})
_FORBIDDEN: Final = 403


class PatientKubernetesLauncher(K8sRunLauncher):  # type: ignore[misc]  # dagster_k8s is an extra
    """Launches as Dagster does, and counts launches in a row that Kubernetes could not take."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.failed_launches = FailedLaunches()

    def launch_run(self, context: Any) -> None:
        """Raises DagsterUserCodeUnreachableError, after which the queue keeps the run, where the API does not answer,
        is busy, or the namespace's quota is used up; DagsterK8sUnrecoverableAPIError where it refuses the job."""
        try:
            super().launch_run(context)
        except (DagsterK8sAPIRetryLimitExceeded, DagsterK8sUnrecoverableAPIError) as error:
            answer = error.k8s_api_exception
            status = getattr(answer, "status", None)
            is_made = isinstance(error, DagsterK8sUnrecoverableAPIError) and status == _CONFLICT
            if not is_made:
                if isinstance(error, DagsterK8sUnrecoverableAPIError) and not _is_load(answer, status):
                    raise
                self.failed_launches.count(context.dagster_run.run_id)
                why = f"Kubernetes did not take the run's job now ({status or 'no answer'}); it is launched again"
                raise DagsterUserCodeUnreachableError(why) from error
        self.failed_launches.clear()


def _is_load(answer: Any, status: int | None) -> bool:
    return status in _BUSY or (status == _FORBIDDEN and "exceeded quota" in str(getattr(answer, "body", "")))
