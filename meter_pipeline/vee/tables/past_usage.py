"""Usage that was billed before the first billing day (reference table past_usage)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import remembered, remembers
from meter_pipeline.units import base_unit

#: Periods sorted by service point and day: ``unit`` a base unit, ``quantity`` millionths of it, ``period_end`` the day
#: after the last.
PAST_USAGE = pl.Schema(
    {
        "service_point_id": pl.String,
        "flow": pl.String,
        "unit": pl.String,
        "period_start": pl.Date,
        "period_end": pl.Date,
        "quantity": pl.Int64,
    }
)
NO_PAST_USAGE = pl.DataFrame(schema=PAST_USAGE)


def _any(database: Database, points: Sequence[str]) -> bool:
    """Whether anything is known of some service points, asked one time for all days of a correction that is tried."""
    query = "SELECT EXISTS (SELECT FROM ref.past_usage WHERE service_point_id = ANY(string_to_array($1, ','))) AS found"
    return bool(remembered(database, query, (",".join(points),))["found"][0])


#: Longer periods of past usage say nothing of a day
LONGEST_DAYS: Final = 1000


def read_past_usage(database: Database, first: date, past: date, points: Sequence[str] | None = None) -> pl.DataFrame:
    """Periods with a day in [first, past), of all service points or of some; of at most LONGEST_DAYS."""
    if points is not None and remembers(database) and not _any(database, points):
        return NO_PAST_USAGE
    narrowed = "" if points is None else " AND service_point_id = ANY(string_to_array($4, ','))"
    given = [first, past, LONGEST_DAYS] if points is None else [first, past, LONGEST_DAYS, ",".join(points)]
    found = database.read(
        "SELECT service_point_id, flow, unit, period_start, period_end, (quantity * 1000000)::bigint AS quantity "
        "FROM ref.past_usage WHERE period_end > $1 AND period_start < $2 AND period_end - period_start <= $3"
        f"{narrowed} ORDER BY service_point_id, period_start",
        given,
    ).cast(PAST_USAGE)
    parts = []
    for (spelling,), part in found.group_by(["unit"], maintain_order=True):
        base, factor = base_unit(str(spelling))
        micro = pl.col("quantity") if factor == 1 else (pl.col("quantity") * float(factor)).round().cast(pl.Int64)
        parts.append(part.with_columns(micro.alias("quantity"), pl.lit(base).alias("unit")))
    return pl.concat(parts).sort("service_point_id", "period_start") if parts else found
