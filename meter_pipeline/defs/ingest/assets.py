"""Raw reads: files landed, then written once and only once, by billing day."""

from datetime import date

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.report_metadata import metadata
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.defs.lib.stage_asset import stage_asset
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.schemas.report import StageReport


@dg.asset(
    name="pulled_days",
    group_name=policy.INGEST,
    description=(
        "Billing days asked of the head-ends that are pulled (HTTP, reports, SFTP) instead of sending files: each missing day again at every round for five days, "
        "page by page, into the inbox. What failed is in the table; it stops no other head-end and is asked again at the next round."
    ),
    deps=[dg.AssetDep(dg.AssetKey(["reference", name])) for name in ("meters", "channels")],
    pool=policy.POOL,
    metadata=table_metadata("raw.pull_request"),
)
def pulled_days(
    context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
) -> dg.MaterializeResult[None]:
    """Ask every head-end that is pulled for its missing days or new files. A pause of one head-end holds that one
    alone.
    """
    from meter_pipeline.control import PauseProbe
    from meter_pipeline.feeds import read_head_ends
    from meter_pipeline.ingest import pull

    pause_guard.wait()
    settings, database, clock = municipality.settings(), municipality.database(), municipality.clock()
    pulled = [head_end for head_end in read_head_ends(settings.head_ends).values() if head_end.is_pulled]
    with PauseProbe(database, application_name="pull-pause", clock=clock) as probe:
        outcome = pull.pull(database, municipality.calendar(), pulled, settings.inbox, clock=clock, pause=probe)
    for one in outcome.pulls:
        (context.log.info if one.ok else context.log.warning)(
            "%s %s: %s, %d reads", one.head_end, one.day, one.outcome, one.reads
        )
    return dg.MaterializeResult(metadata=metadata(outcome.report(), partitioned=False))


@dg.asset(
    name="feed_files",
    group_name=policy.INGEST,
    description=(
        "Every file that head-ends delivered: archived by the hash of its bytes, parsed once, staged by the billing days it touches. "
        "What cannot be read is a dead letter with its bytes and every reason."
    ),
    deps=[
        dg.AssetDep("pulled_days"),
        *(dg.AssetDep(dg.AssetKey(["reference", name])) for name in ("meters", "channels")),
    ],
    pool=policy.POOL,
    metadata=table_metadata("raw.feed_file"),
)
def feed_files(
    context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
) -> dg.MaterializeResult[None]:
    """Land every new file of the inbox. One bad file refuses itself alone."""
    from meter_pipeline import deployed_versions
    from meter_pipeline.ingest import land_inbox
    from meter_pipeline.ledger.versions import note

    pause_guard.wait()
    settings = municipality.settings()
    note(municipality.database(), deployed_versions.in_use(settings), clock=municipality.clock())
    outcome = land_inbox(
        municipality.database(),
        municipality.calendar(),
        settings,
        clock=municipality.clock(),
        run_id=context.run.run_id,
    )
    return dg.MaterializeResult(metadata=metadata(outcome.report(), partitioned=False))


def _raw_reads(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.control.watch import observe_writes
    from meter_pipeline.ingest import ingest_billing_day
    from meter_pipeline.ingest.inbox import opening_days

    settings, database, clock = municipality.settings(), municipality.database(), municipality.clock()
    if day == settings.utility().first_billing_day:
        # No run is ever asked for these days, and the dials that open the first day are among them: a bill began with
        # an estimate of its first day (36 kWh for 30).
        for earlier in opening_days(database, day):
            ingest_billing_day(
                database, municipality.calendar(), earlier, settings=settings, clock=clock, run_id=run_id
            )
    done = ingest_billing_day(database, municipality.calendar(), day, settings=settings, clock=clock, run_id=run_id)
    with database.connect("write latency", autocommit=True) as connection:
        # Writes that stay slow send a migration back; the guard reads this.
        observe_writes(connection, done.writers.latencies_ms, done.target_ms, clock=clock)
    return done.report()


def raw_reads() -> dg.AssetsDefinition:
    """The first partitioned stage."""
    return stage_asset(
        "raw_reads",
        _raw_reads,
        group=policy.INGEST,
        description=(
            "The day's reads exactly as they arrived: one row per meter, channel and billing day with a value for every interval, and one per "
            "register reading. Nothing is edited here; of several versions an actual goes before an estimate, then the newest by its own source; all are kept."
        ),
        deps=["feed_files", ("reference", "meters"), ("reference", "channels")],
        checks={"control_totals": "Per file: received = accepted + duplicate + superseded + rejected."},
        table="raw.interval_day",
    )
