"""Exports of the customer system: noticed, and imported where no issued money changes."""

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.automation import sensor_status
from meter_pipeline.defs.lib.resources import Municipality


@dg.op(out=dg.Out(dg.Nothing), pool=policy.POOL)
def exports_imported(context: dg.OpExecutionContext, municipality: Municipality) -> None:
    """Import exports/ by mapping/. A change of issued money is left as a preview for two people, and the run fails with
    its digest, so that an alert says so."""
    from meter_pipeline.corrections.exports import import_exports, listing
    from meter_pipeline.reference import ReferenceRefused

    settings = municipality.settings()
    exports = settings.data / "exports"
    out = settings.home / "exports" / (listing(exports) or "none")
    try:
        found = import_exports(
            municipality.database(),
            settings.calendar(),
            settings.data / "mapping",
            exports,
            out,
            clock=municipality.clock(),
        )
    except ReferenceRefused as refused:
        listed = "\n".join(f"- {fault}" for fault in refused.faults[:200])
        raise dg.Failure(
            description=f"{len(refused.faults)} faults in {exports}; nothing was imported",
            metadata={"faults": dg.MetadataValue.md(listed)},
            allow_retries=False,
        ) from refused
    if found.waits:
        raise dg.Failure(
            description=f"{found.changes} values change, and money on issued bills with them: two people make it. "
            f"meter-pipeline reference request {found.waits}",
            metadata={"digest": found.waits},
            allow_retries=False,
        )
    context.add_output_metadata({"values changed": found.changes, "billing days asked for": len(found.made.days)})


@dg.job(
    name="import_customer_exports",
    executor_def=dg.in_process_executor,
    description="Imports the customer system's exports by mapping/, with the guards of corrections.",
)
def exports_job() -> None:
    exports_imported()


@dg.sensor(
    name="customer_exports",
    job=exports_job,
    minimum_interval_seconds=60,
    default_status=sensor_status(),
    description="Notices new exports of the customer system in the deployment's folder exports/ and has them imported.",
)
def customer_exports(municipality: Municipality) -> dg.RunRequest | dg.SkipReason:
    """Request one import for a listing of exports: once for the same names and bytes."""
    from meter_pipeline.corrections.exports import listing

    folder = municipality.settings().data / "exports"
    key = listing(folder)
    return dg.RunRequest(run_key=key) if key else dg.SkipReason(f"no export in {folder}")
