"""Alerts: failed runs, stale backfills, and everything the control room finds worth telling; then delivery."""

import time
from typing import Final

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus  # the only place 1.13 has them

from meter_pipeline.control import alerts, notify
from meter_pipeline.control.notify import Alert
from meter_pipeline.control.rules import load_thresholds
from meter_pipeline.defs.lib.resources import Municipality

#: A backfill still requested after this long is stuck or forgotten (dagster #27789): a year of days takes ten minutes
# here.
STALE_BACKFILL_S: Final = 6 * 3600


@dg.run_failure_sensor(
    name="failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Puts an alert about every failed run into the outbox.",
)
def failed_runs(context: dg.RunFailureSensorContext, municipality: Municipality) -> None:
    """One alert a failed run, with its first error."""
    run = context.dagster_run
    day = run.tags.get("dagster/partition", "")
    body = f"Run {run.run_id} of {run.job_name}{f' for {day}' if day else ''}: {context.failure_event.message}"
    with municipality.database().connect("alerts") as connection:
        notify.tell(
            connection,
            Alert(f"run:{run.run_id}:failed", "warning", f"{run.job_name} failed{f' for {day}' if day else ''}", body),
        )


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds conditions that need a person (pauses, waiting requests, stale backfills, overdue items) and sends alerts by mail and webhook.",
)
def send_alerts(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.SkipReason:
    """Fill the outbox, then deliver the due notifications."""
    database, clock = municipality.database(), municipality.clock()
    stale = [
        Alert(
            f"backfill:{b.backfill_id}:stale",
            "warning",
            f"Backfill {b.backfill_id} is unfinished after 6 hours",
            "See it in the UI under Runs, Backfills.",
        )
        for b in context.instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED]))
        if time.time() - b.backfill_timestamp > STALE_BACKFILL_S
    ]
    with database.connect("alerts") as connection:
        new_alerts = sum(
            notify.tell(connection, alert, clock=clock)
            for alert in [*stale, *alerts.find(connection, load_thresholds(), clock=clock)]
        )
    done = notify.deliver(database, notify.channels(), clock=clock)
    return dg.SkipReason(
        f"{new_alerts} new alerts; {done['sent']} sent, {done['failed']} to be tried again, {done['given_up']} given up."
    )


SENSORS: Final = (failed_runs, send_alerts)
