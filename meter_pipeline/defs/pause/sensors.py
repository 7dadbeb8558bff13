"""The pause and the queue: the flag becomes the pool's limit, lost runs are ended, and the rules are looked at."""

import os
from typing import Final

import dagster as dg

from meter_pipeline.control import pause
from meter_pipeline.control.tables import runs
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.pause_pool import open_or_shut
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import LOST_AFTER_S

#: How a sensor describes the queue's state.
_RESTORED: Final = "Running: no pause is in force. Pool {pool} lets {limit} runs through."


@dg.sensor(
    name="emergency_pause",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Turns EMERGENCY_PAUSE into pool limit 0, so that the queue holds every run, and back when two people have resumed.",
)
def emergency_pause(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.SkipReason:
    """The state in words is the tick's skip reason; the tick requests nothing."""
    state, limit = open_or_shut(context.instance, municipality)
    if state is not None:
        return dg.SkipReason(
            f"{state.words()} Pool {policy.POOL} is at 0: queued runs wait, running ones stop at their next batch."
        )
    words = _RESTORED.format(pool=policy.POOL, limit=limit)
    with municipality.database().connect("pause-sensor", autocommit=True) as connection:
        partial = pause.active(connection)
    return dg.SkipReason(" ".join([words, *(f"But {one.words()}" for one in partial)]))


@dg.sensor(
    name="pause_watch",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises the pause by itself: open breaker, dead-letter burst, broken control total, ledger that does not verify, variance.",
)
def pause_watch(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.SkipReason:
    """One round of the rules; the findings in words."""
    from meter_pipeline.control.rules import DEFAULT_FILE, load_thresholds
    from meter_pipeline.control.watch import watch

    limits = load_thresholds(type(DEFAULT_FILE)(os.environ.get("METER_PIPELINE_THRESHOLDS") or DEFAULT_FILE))
    done = watch(municipality.database(), limits, clock=municipality.clock())
    if done.findings:
        return dg.SkipReason("RAISED: " + "; ".join(f"{f.rule}: {f.reason}" for f in done.findings)[:1500])
    return dg.SkipReason(
        f"Nothing to raise by thresholds {limits.stamp}: breakers, dead letters, control totals, ledger and variances are within them."
    )


@dg.sensor(
    name="lost_runs",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose worker is gone (killed together with its code server, which Dagster does not notice), so that they are retried.",
)
def lost_runs(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.SkipReason:
    """A started run that has sent heartbeats and fallen silent is failed; the run's billing-day lock went with its
    connection."""
    started = context.instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    with municipality.database().connect("lost-runs", autocommit=True) as connection:
        beats = runs.presence(connection, [run.run_id for run in started])
    lost = [run for run in started if run.run_id in beats and beats[run.run_id][0] > LOST_AFTER_S]
    for run in lost:
        words = f"No heartbeat for {beats[run.run_id][0]:.0f} s: the worker is gone. Nothing is half done; the run may be retried."
        context.instance.report_run_failed(run, words)
    if lost:
        return dg.SkipReason(f"Ended {len(lost)} runs without a worker: " + ", ".join(run.run_id[:8] for run in lost))
    waiting = sum(is_waiting for _, is_waiting in beats.values())
    return dg.SkipReason(
        f"{len(started)} runs started, {len(beats)} with a heartbeat, {waiting} of them held by a pause, none lost."
    )


SENSORS: Final = (emergency_pause, pause_watch, lost_runs)
