"""Jobs that take in files and ask head-ends for missing days."""

from __future__ import annotations

import dagster as dg

from meter_pipeline.defs.jobs import EXECUTOR

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
