"""The impact of a correction as a job: the preview of ``meter-pipeline reference import DIR --dry-run`` in the UI."""

from pathlib import Path

import dagster as dg
import polars as pl
from pydantic import Field

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.report_metadata import table
from meter_pipeline.defs.lib.resources import Municipality


class PreviewFolder(dg.Config):
    """Which folder of reference tables to preview."""

    folder: str = Field(default="", description="A folder with a CSV per table; empty: the deployment's reference/.")


@dg.op(out=dg.Out(dg.Nothing), pool=policy.POOL)
def impact_previewed(context: dg.OpExecutionContext, config: PreviewFolder, municipality: Municipality) -> None:
    """Work out what importing a folder changes, reaches and costs, in a transaction that is undone, and keep it under
    its digest. A folder that would be refused fails the run with every fault."""
    from meter_pipeline.corrections.preview import preview_folder
    from meter_pipeline.reference import ReferenceRefused

    settings = municipality.settings()
    folder = Path(config.folder) if config.folder else settings.data / "reference"
    try:
        previewed = preview_folder(municipality.database(), settings.calendar(), folder, clock=municipality.clock())
    except ReferenceRefused as refused:
        listed = "\n".join(f"- {fault}" for fault in refused.faults[:200])
        raise dg.Failure(
            description=f"{len(refused.faults)} faults in {folder}; nothing was previewed",
            metadata={"faults": dg.MetadataValue.md(listed)},
            allow_retries=False,
        ) from refused
    found = previewed.document
    step = "request" if previewed.issued else "apply"
    context.add_output_metadata(
        {
            "digest": found["digest"],
            "two people": previewed.issued,
            "changes": len(found["changes"]),
            "billing days": found["days"],
            "service points": found["service_points"],
            "issued statements": found["statements"]["issued"],
            "open periods": found["statements"]["open"],
            "sealed months": ", ".join(found["statements"]["sealed_months"]) or "none",
            "old": found["money"]["old"],
            "new": found["money"]["new"],
            "difference": found["money"]["difference"],
            "money by account": table(pl.DataFrame(found["money"]["accounts"])),
            "back-billing": table(pl.DataFrame(found["policy"])),
            "waiting": table(pl.DataFrame(found["waiting"])),
            "next": f'meter-pipeline reference {step} {found["digest"]} --by NAME --why "..."'
            if found["changes"]
            else "nothing changes",
        }
    )


@dg.job(
    name="preview_reference_import",
    executor_def=dg.in_process_executor,
    description="What importing a folder of reference tables changes, reaches and costs, before anything is written.",
)
def preview_job() -> None:
    impact_previewed()
