"""Reference data of a billing day, read from the database before usage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tables import days
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import made_once


def load_reference(
    database: Database, day: date, beside: Database | None = None, points: Sequence[str] | None = None
) -> Reference:
    """Everything billing knows about who pays for what, up to a day (at some service points). ``beside``: a second
    session, which reads some of it meanwhile."""
    frames = (
        days.read_reference(database, day, beside) if points is None else days.read_reference_of(database, day, points)
    )
    documents, hashes = days.read_documents(database)
    holidays, frozen, opening = days.read_holidays(database), days.read_frozen(database), days.read_opening(database)

    def made() -> Reference:
        return Reference(
            frames["agreements"],
            frames["tariffs"],
            frames["billing_cycles"],
            frames["accounts"],
            frames["service_attributes"],
            holidays,
            documents,
            hashes,
            frozen,
            opening,
            frames["heat_contents"],
            frames["account_values"],
            frames["zone_supplies"],
        )

    what = ("billing reference", holidays, opening, tuple(sorted(frozen.items())))
    return made_once(database, what, [*frames.values(), documents, hashes], made)
