"""Close reports: the results of a billing day or a month, in one file that needs nothing else.

Belongs here: gathering and laying out. Does not belong here: queries (reporting/tables.py), any figure of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meter_pipeline.lazy import attach

if TYPE_CHECKING:
    from meter_pipeline.reporting.close import day_document, month_document, write_day, write_month

__all__ = ["day_document", "month_document", "write_day", "write_month"]

__getattr__ = attach(
    __name__,
    {
        "close": (
            "day_document",
            "month_document",
            "write_day",
            "write_month",
        ),
    },
)
