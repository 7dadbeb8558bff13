"""Canonical frames into the raw store, exactly once: packing, landing, writing, and dead letters.

Belongs here: everything between a parsed file and a committed raw billing day. Does not belong here: formats (feeds/),
validation (vee/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.ingest.day import IngestOutcome, ingest_billing_day
    from meter_pipeline.ingest.inbox import LandingOutcome, land_inbox, new_files, waiting_days
    from meter_pipeline.ingest.landing import FileFolders, Landed, land

__all__ = [
    "FileFolders",
    "IngestOutcome",
    "Landed",
    "LandingOutcome",
    "ingest_billing_day",
    "land",
    "land_inbox",
    "new_files",
    "waiting_days",
]

__getattr__ = attach(
    __name__,
    {
        "day": (
            "IngestOutcome",
            "ingest_billing_day",
        ),
        "inbox": (
            "LandingOutcome",
            "land_inbox",
            "new_files",
            "waiting_days",
        ),
        "landing": (
            "Landed",
            "FileFolders",
            "land",
        ),
    },
)
