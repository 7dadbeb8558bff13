"""The job that fits baselines again."""

from __future__ import annotations

import dagster as dg

from meter_pipeline.defs.jobs import EXECUTOR

refit_job = dg.define_asset_job(
    "refit_baselines",
    selection=dg.AssetSelection.assets("baselines"),
    executor_def=EXECUTOR,
    description="Fit every service point's baseline again, as a new version; flags name the version they used.",
)
