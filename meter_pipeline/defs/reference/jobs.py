"""The job that imports reference tables."""

from __future__ import annotations

import dagster as dg

from meter_pipeline.defs.jobs import EXECUTOR
from meter_pipeline.defs.lib import policy

reference_job = dg.define_asset_job(
    "import_reference_data",
    selection=dg.AssetSelection.groups(policy.REFERENCE),
    executor_def=EXECUTOR,
    description="Import the municipality's reference tables, whole or not at all.",
)
