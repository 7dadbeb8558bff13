"""Feed arrival: new files are landed, and exactly the billing days they touch are run, late reads included.

Two sensors, because a file's billing days are known only once it is parsed, and a tick must be over in a second.
"""

import hashlib
import time
from collections.abc import Iterator
from datetime import date
from itertools import chain
from pathlib import Path

import dagster as dg

from meter_pipeline.defs.ingest.jobs import land_feeds
from meter_pipeline.defs.jobs import billing_day_job
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.automation import sensor_status
from meter_pipeline.defs.lib.partitions import billing_days
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.ingest import day_requests, plain_files

#: A file younger than this may still be written; one that grows while it is read is refused and tried again.
SETTLED_S = 2.0
#: A landing that failed as a whole (the server was away) is asked for again; the same listing within this time is one
# request.
ASK_AGAIN_S = 600.0
#: Requests a tick makes at most: a year's backlog arrives over several ticks, and the queue stays readable.
MOST_REQUESTS = 100
#: Runs under way that are looked at before a day is asked for once more.
MOST_RUNS_LOOKED_AT = 1000
#: A run in one of these states may still load its day.
UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def waiting_files(inbox: Path, now: float) -> list[tuple[str, int, int]]:
    """Settled plain files of the inbox as (path below it, bytes, modified ns), sorted; hidden and half-written names
    are left alone."""
    return [
        (entry.path, entry.size, entry.modified_ns)
        for entry in plain_files.entries(inbox)
        if entry.fault is None and now - entry.modified_ns / 1e9 >= SETTLED_S
    ]


def listing_key(files: list[tuple[str, int, int]]) -> str:
    """One short key of a listing: the same files make the same request, which Dagster then runs once."""
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


@dg.sensor(
    name="feed_arrival",
    job=land_feeds,
    minimum_interval_seconds=15,
    default_status=sensor_status(),
    description="Notices files in the inbox and has them landed.",
)
def feed_arrival(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.RunRequest | dg.SkipReason:
    """Request one landing run for new files: one for each listing, and again after ten minutes if its files are still
    not landed."""
    from meter_pipeline.ingest import new_files

    settings = municipality.settings()
    now = time.time()
    files = waiting_files(settings.inbox, now)
    fresh = set(new_files(municipality.database(), settings.inbox, [name for name, _, _ in files])) if files else set()
    if not fresh:
        return dg.SkipReason(f"nothing new in {settings.inbox} ({len(files)} files, all landed)")
    key = listing_key([file for file in files if file[0] in fresh])
    return dg.RunRequest(run_key=f"{key}:{int(now // ASK_AGAIN_S)}", tags={"meter_pipeline/files": str(len(fresh))})


def days_under_way(instance: dg.DagsterInstance, job_name: str) -> set[date]:
    """Days of this job's runs that are queued, starting or running."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(UNDER_WAY)), limit=MOST_RUNS_LOOKED_AT)
    days = (run.tags.get("dagster/partition", "") for run in runs)
    return {date.fromisoformat(day) for day in days if day}


def touched_days_sensor(engine: str | None = None) -> dg.SensorDefinition:
    """Billing days with reads, true-ups or released bills waiting in the store, loaded and not validated, or validated
    and not billed since, each requested at once for the set of files and register reads that ask for it, and again at
    growing intervals while its runs fail (ingest/day_requests.py)."""
    job = billing_day_job(engine)
    job_name = job.name

    @dg.sensor(
        name="touched_billing_days",
        job=job,
        minimum_interval_seconds=15,
        default_status=sensor_status(),
        description=(
            "Requests exactly the billing days that landed files touch, late reads included, those that a register read trues up, and those whose "
            "bills are held no more."
        ),
    )
    def touched_billing_days(
        context: dg.SensorEvaluationContext, municipality: Municipality
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from meter_pipeline.billing.tables.part_of_day import unbilled_validations
        from meter_pipeline.billing.tables.released_bills import released_bills
        from meter_pipeline.ingest import waiting_days
        from meter_pipeline.vee.tables import true_up
        from meter_pipeline.vee.tables.part_of_day import unvalidated_loads

        known = set(billing_days().get_partition_keys())
        waiting: dict[date, list[bytes]] = {}
        database = municipality.database()
        asking = (
            waiting_days(database),
            true_up.waiting(database),
            unvalidated_loads(database),
            unbilled_validations(database),
            released_bills(database),
        )
        for day, evidence in chain.from_iterable(asking):
            waiting.setdefault(day, []).extend(evidence)
        closed = {day: files for day, files in waiting.items() if day.isoformat() in known}
        requests = day_requests.ask(
            database,
            closed,
            days_under_way(context.instance, job_name),
            most=MOST_REQUESTS,
            clock=municipality.clock(),
        )
        for request in requests:
            key = request.day.isoformat()
            yield dg.RunRequest(run_key=request.run_key, partition_key=key, tags={policy.DAY_TAG: key})
        if not requests:
            yield dg.SkipReason(
                f"no closed billing day is to be asked for now ({len(closed)} closed days wait, {len(waiting)} in all)"
            )

    return touched_billing_days
