"""The daily schedule: the billing day that closed at midnight, in the utility's own zone."""

from __future__ import annotations

from typing import Any

import dagster as dg

from meter_pipeline.defs.detection.jobs import refit_job
from meter_pipeline.defs.ingest.jobs import pull_head_ends
from meter_pipeline.defs.jobs import billing_day_job
from meter_pipeline.defs.lib.automation import schedule_status
from meter_pipeline.settings import load_settings

#: After 04:00 no zone changes its clocks, and the head-ends' night files are in (settlement data is due by noon: field
# practice).
HOUR = 5


def daily_schedule(engine: str | None = None) -> Any:  # dagster does not export the type of an unresolved schedule
    """05:00 local time, yesterday's partition; the zone is the partitions' own (a second one is refused by Dagster)."""
    return dg.build_schedule_from_partitioned_job(
        billing_day_job(engine),
        name="close_of_billing_day",
        hour_of_day=HOUR,
        default_status=schedule_status(),
    )


def weekly_refit() -> dg.ScheduleDefinition:
    """Baselines move with the season, not with the day: refitted each Sunday after the day's close, in the utility's
    zone."""
    return dg.ScheduleDefinition(
        name="refit_baselines_weekly",
        job=refit_job,
        cron_schedule="30 6 * * 0",
        execution_timezone=load_settings().utility().zone,
        default_status=schedule_status(),
    )


def pull_schedule() -> dg.ScheduleDefinition:
    """Every three hours from a quarter past midnight: a day that closed is asked for before the 05:00 run, and a
    missing one eight times a day."""
    return dg.ScheduleDefinition(
        name="pull_missing_days",
        job=pull_head_ends,
        cron_schedule="15 */3 * * *",
        execution_timezone=load_settings().utility().zone,
        default_status=schedule_status(),
    )
