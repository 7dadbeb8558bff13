"""Where a run's steps execute: in its own process (the default), in Celery workers, or in Kubernetes jobs.

METER_PIPELINE_EXECUTOR is read when definitions are loaded: ``in_process``, ``celery`` or ``k8s``;
``build_defs(executor=...)`` overrides it. The engines are optional: dagster-celery and dagster-k8s are imported only
where they are asked for.
"""

from __future__ import annotations

import os
from typing import Any, Final

import dagster as dg

IN_PROCESS: Final = "in_process"
KINDS: Final = (IN_PROCESS, "celery", "k8s")

#: A task is taken off the broker when its step is done, not when it begins, and goes back where its worker is lost: a
# killed worker's step is done by another. Steps are idempotent, so that one done twice writes nothing the second
# time. One task at a time: a step is minutes, not milliseconds.
CELERY_CONFIG: Final = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
    "task_default_queue": "dagster",
    "task_default_priority": 5,
}


def kind() -> str:
    """The engine asked for. Raises ValueError for one there is not."""
    name = os.environ.get("METER_PIPELINE_EXECUTOR", "").lower() or IN_PROCESS
    if name not in KINDS:
        raise ValueError(f"METER_PIPELINE_EXECUTOR is {name!r}; it is one of {', '.join(KINDS)}")
    return name


def executor(name: str | None = None) -> dg.ExecutorDefinition:
    """The executor of every job that bills. One process a run by default: the multiprocess executor costs
    about five seconds a step, more than a small city's whole day."""
    name = name or kind()
    if name == "celery":
        from dagster_celery import celery_executor

        celery: dg.ExecutorDefinition = celery_executor.configured(celery_args(), name="celery")
        return celery
    if name == "k8s":
        from dagster_k8s import k8s_job_executor

        kubernetes: dg.ExecutorDefinition = k8s_job_executor
        return kubernetes
    return dg.in_process_executor


def celery_args() -> dict[str, Any]:
    """What the executor and the workers must both know: METER_PIPELINE_BROKER (RabbitMQ), METER_PIPELINE_RESULTS
    (rpc:// by default)."""
    return {
        "broker": os.environ.get("METER_PIPELINE_BROKER", "pyamqp://guest@localhost:5672//"),
        "backend": os.environ.get("METER_PIPELINE_RESULTS", "rpc://"),
        "config_source": dict(CELERY_CONFIG),
    }
