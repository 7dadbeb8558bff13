"""The nightly upkeep of partitions: the coming days' tables made, and the days whose time is over archived."""

from datetime import timedelta
from typing import Final

import dagster as dg
from pydantic import Field

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.retention.days import AHEAD_DAYS, KEEP_DAYS, archive_days, make_ahead


class RetentionConfig(dg.Config):
    """How far ahead, and how long days stay. Archiving is off until a deployment says how long, since it takes
    partitions away."""

    ahead_days: int = Field(default=AHEAD_DAYS, ge=1, description="Days whose tables are made ahead.")
    archive: bool = Field(
        default=False, description="Whether older days are archived to Parquet and their partitions dropped."
    )
    keep_days: int = Field(default=KEEP_DAYS, description="Days that stay in the database.")


@dg.op(out=dg.Out(dg.Nothing), pool=policy.POOL)
def keep_up_partitions(context: dg.OpExecutionContext, config: RetentionConfig, municipality: Municipality) -> None:
    """Make the coming days' tables; archive days older than keep_days where that is switched on."""
    database, settings, clock = municipality.database(), municipality.settings(), municipality.clock()
    today = municipality.calendar().day_of(clock.now())
    created = make_ahead(database, today, config.ahead_days)
    context.add_output_metadata({"tables ready": created, "days ahead": config.ahead_days})
    if not config.archive:
        return
    verifier = municipality.acting_as(policy.ROLES[policy.AUDIT]).database()
    done = archive_days(
        database, settings.days, today - timedelta(days=config.keep_days), verifier=verifier, clock=clock
    )
    for day, why in done.kept.items():
        context.log.info("billing day %s stays: %s", day, why)
    context.log.info("%d billing days archived, %d rows", len(done.days), done.rows)


@dg.job(
    executor_def=dg.in_process_executor,
    description="Makes the coming days' tables; archives older days to Parquet where its configuration says so.",
)
def partition_upkeep() -> None:
    keep_up_partitions()


nightly: Final = dg.ScheduleDefinition(
    name="partition_upkeep_nightly",
    job=partition_upkeep,
    cron_schedule="10 2 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
JOBS: Final = (partition_upkeep,)
SCHEDULES: Final = (nightly,)
