"""The job of a billing day, which crosses the stages. Each stage's own jobs are in its folder beside this module."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.executors import executor

#: Files, head-ends and reference tables are taken in by one process; a billing day's job runs where the deployment
# says (executors.py).
EXECUTOR = dg.in_process_executor


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
