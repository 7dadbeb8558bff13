"""The pool's limit: the pause as Dagster's queue knows it."""

import os
from typing import Final

import dagster as dg

from meter_pipeline.control.pause import PauseState
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality

#: Runs of the pool at a time. Two on two cores; the instance's max_concurrent_runs must be larger, so that the jobs
# that raise and end a pause find a place while runs that wait take every place of the pool.
DEFAULT_RUNS: Final = 2


def pool_limit() -> int:
    """How many runs the pool lets through when nothing is paused: METER_PIPELINE_RUNS, or 2."""
    return max(1, int(os.environ.get("METER_PIPELINE_RUNS") or DEFAULT_RUNS))


def current_limit(instance: dg.DagsterInstance) -> int | None:
    """The pool's limit in force, or None where it has no row (which Dagster takes for no limit)."""
    return next(
        (
            row.limit
            for row in instance.event_log_storage.get_pool_limits()
            if row.name == policy.POOL and not row.from_default
        ),
        None,
    )


def set_limit(instance: dg.DagsterInstance, limit: int) -> bool:
    """Give the pool its limit; True if that was a change."""
    if current_limit(instance) == limit:
        return False
    instance.event_log_storage.set_concurrency_slots(policy.POOL, limit)
    return True


def open_or_shut(instance: dg.DagsterInstance, municipality: Municipality) -> tuple[PauseState | None, int]:
    """Give the pool the limit that the flag asks for; the pause in force and the limit.

    A pool without a row is no pool, so the row is made at deploy. Jobs and commands that raise or end a pause call this
    at once; the sensor, every few seconds, for what comes by other ways.
    """
    with PauseProbe(municipality.database(), application_name="pause-pool") as probe:
        state = probe.check()
    limit = 0 if state else pool_limit()
    set_limit(instance, limit)
    return state, limit
