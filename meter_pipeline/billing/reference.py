"""What billing knows of a day before it looks at usage, read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import days
from meter_pipeline.postgres.database import Database


def load_reference(
    database: Database, day: date, beside: Database | None = None, points: Sequence[str] | None = None
) -> Reference:
    """Everything billing knows about who pays for what, up to a day (at some service points). ``beside``: a second
    session, which reads some of it meanwhile."""
    frames = (
        days.read_reference(database, day, beside) if points is None else days.read_reference_of(database, day, points)
    )
    documents, hashes = days.read_documents(database)
    return Reference(
        frames["agreements"],
        frames["tariffs"],
        frames["billing_cycles"],
        frames["accounts"],
        frames["service_attributes"],
        days.read_holidays(database),
        documents,
        hashes,
        days.read_frozen(database),
        days.read_opening(database),
        frames["heat_contents"],
        frames["account_values"],
        frames["zone_supplies"],
    )
