"""Retention: billing days made ahead, archived when their time in the database is over, and brought back when a person
needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.retention.days import Archived, archive_days, ensure_present, make_ahead, restore_days

__all__ = ["Archived", "archive_days", "ensure_present", "make_ahead", "restore_days"]

__getattr__ = attach(
    __name__,
    {
        "days": (
            "Archived",
            "archive_days",
            "ensure_present",
            "make_ahead",
            "restore_days",
        ),
    },
)
