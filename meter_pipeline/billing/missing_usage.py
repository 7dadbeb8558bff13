"""Services whose usage of a day is not known: their bill waits, rather than charge nothing for it."""

from __future__ import annotations

from datetime import date
from typing import Final

import polars as pl

from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, DayServices, exceptions
from meter_pipeline.billing.tables import usage as store
from meter_pipeline.billing.virtual_points import missing_parts
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database

#: Up to so many service points are named in a query; of more the whole city is read
_MOST_NAMED: Final = 5_000


def with_missing_usage(
    database: Database, calendar: BillingCalendar, day: date, bound: DayServices, found: pl.DataFrame
) -> pl.DataFrame:
    """A day's exceptions with ``usage_missing`` for the services that have a meter and no value for some or all of the
    day, and for those to which such usage is added or of which it is taken off. ``bound``: the services billed;
    ``found``: exceptions so far, in which no usage at all is ``no_usage``.

    Without a meter there is nothing to use (fixed charges only), and a service that is inactive or disconnected need
    not report.
    """
    services = bound.services
    if bound.parts.height:
        members = bound.parts["member"].unique().to_list()
        found = pl.concat([found, missing_parts(bound.parts, services, store.silent_points(database, day, members))])
    silent = found.filter(pl.col("reason") == "no_usage")["service_point_id"].to_list()
    metered = store.metered_points(database, silent, day, calendar.bounds(day)) if silent else []
    named = services["service_point_id"].to_list() if services.height <= _MOST_NAMED else None
    partly = store.missing_usage(database, day, named).join(services, on="service_point_id", how="semi")
    points = sorted({*metered, *partly["service_point_id"].to_list()})
    if not points:
        return found
    idle = store.idle_points(database, points, day)
    partly = partly.filter(~pl.col("service_point_id").is_in(idle))
    known = partly["service_point_id"].to_list()
    nothing = services.filter(pl.col("service_point_id").is_in([p for p in metered if p not in {*idle, *known}]))
    some = services.join(partly, on="service_point_id")
    missing = pl.format("{} of {} values missing", "missing", "expected")
    missing_rows = [
        exceptions(nothing, "usage_missing", "no usage was validated"),
        exceptions(some, "usage_missing", missing),
    ]
    explained = {*known, *nothing["service_point_id"].to_list()}
    kept = found.filter((pl.col("reason") != "no_usage") | ~pl.col("service_point_id").is_in(sorted(explained)))
    return pl.concat([kept, *(m.cast(EXCEPTION_SCHEMA) for m in missing_rows)]).sort(
        "service_point_id", "reason", "detail"
    )
