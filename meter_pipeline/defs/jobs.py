"""Jobs: what a schedule, a sensor or a person starts. Finance's and operators' jobs are in operations modules beside
this one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.executors import executor

#: Files, head-ends and reference tables are taken in by one process; a billing day's job runs where the deployment
# says (executors.py).
EXECUTOR = dg.in_process_executor

land_feeds = dg.define_asset_job(
    "land_feeds",
    selection=dg.AssetSelection.assets("feed_files"),
    executor_def=EXECUTOR,
    description="Take in every file waiting in the inbox: archive, parse, stage by billing day.",
)


pull_head_ends = dg.define_asset_job(
    "pull_head_ends",
    selection=dg.AssetSelection.assets("pulled_days", "feed_files"),
    executor_def=EXECUTOR,
    description="Ask the head-ends that have an HTTP API for their missing days, and take in what came.",
)


@lru_cache
def billing_day_job(engine: str | None = None) -> Any:  # dagster does not export the type of an unresolved job
    """Every stage of a billing day, reads to ledger checkpoint, in one run; ``engine`` as in executors.py."""
    return dg.define_asset_job(
        "billing_day",
        selection=dg.AssetSelection.groups(
            policy.INGEST, policy.VALIDATION, policy.DETECTION, policy.BILLING, policy.AUDIT
        )
        & dg.AssetSelection.tag("meter_pipeline/stage", "billing_day"),
        executor_def=executor(engine),
        description="A billing day end to end: raw reads, validation, usage, flags, billing, ledger checkpoint.",
    )


reference_job = dg.define_asset_job(
    "import_reference_data",
    selection=dg.AssetSelection.groups(policy.REFERENCE),
    executor_def=EXECUTOR,
    description="Import the municipality's reference tables, whole or not at all.",
)


refit_job = dg.define_asset_job(
    "refit_baselines",
    selection=dg.AssetSelection.assets("baselines"),
    executor_def=EXECUTOR,
    description="Fit every service point's baseline again, as a new version; flags name the version they used.",
)
