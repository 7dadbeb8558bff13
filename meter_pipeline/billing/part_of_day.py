"""Billing a day again for some service points: those that were validated since the day was last billed."""

from __future__ import annotations

from datetime import date
from typing import Final

from meter_pipeline.billing.tables import part_of_day as store
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import is_undone

#: More service points than this are billed as a whole day, which costs about the same
MOST_POINTS: Final = 5_000


def validated_since_billed(database: Database, day: date) -> tuple[str, ...] | None:
    """The service points of a billed day that were validated since, sorted. None where that is the whole day, or where
    nothing was validated and a person runs it. A correction that is tried bills those service points, however many:
    the whole day would be compared and hashed for nothing."""
    with database.connect("billing") as connection:
        validations = store.validated_since(connection, day)
    named = [points for points in validations if points is not None]
    if not named or len(named) < len(validations):
        return None
    points = sorted({point for several in named for point in several})
    return tuple(points) if len(points) <= MOST_POINTS or is_undone(database) else None


def last_billed(database: Database, day: date) -> tuple[str, ...] | None:
    """The service points that a day was last billed for, sorted; None where it was the whole day."""
    with database.connect("billing") as connection:
        points = store.billed_points(connection, day)
    return None if points is None else tuple(points)
