"""What becomes of a day in a sealed month that comes out differently: the sealed rows stay, the later ones stand beside
them for the statement of their period or an adjustment of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date

import polars as pl

from meter_pipeline.billing.accrual import DETERMINANT_SCHEMA, DayCharges
from meter_pipeline.billing.back_billing.tables import corrected_points
from meter_pipeline.billing.tables import days as store
from meter_pipeline.clock import Clock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection


def repriced_points(connection: Connection, database: Database, result: DayCharges, day: date) -> list[str]:
    """Service points that a correction of reference data asked for and whose sealed day would cost something else now,
    or did before: a class, a meter's size or an exemption moves the price of determinants that stay as they are."""
    points = corrected_points(connection, day)
    if not points:
        return []
    now = result.charges.filter(pl.col("service_point_id").is_in(points))
    columns = ["service_point_id", "account_id", "tariff_id", "total"]
    stored = store.read_day(database, "charge_day", day, columns, points)
    differs = now.select(columns).join(stored.select(columns), on=columns, how="anti", nulls_equal=True)
    kept = store.revised(connection, day) & set(now["service_point_id"])
    return sorted(kept | set(differs["service_point_id"]))


def keep_revisions(
    connection: Connection,
    database: Database,
    result: DayCharges,
    day: date,
    clock: Clock,
    among: tuple[Sequence[str] | None, Collection[str]] = (None, ()),
) -> list[str]:
    """Keep what a sealed day's determinants and exceptions would be now; returns the service points that are news.

    ``among``: the service points that the run is for (None: all), and those whose price moved: their determinants are
    kept beside the day too, so that its bills are priced again.

    A day is compared with what was last kept of it, and with the sealed rows where nothing was: a correction that is
    taken back is a revision too. A service that is no longer charged has null determinants.
    """
    only, repriced = among
    columns = DETERMINANT_SCHEMA.names()
    stored = store.read_day(database, "determinant_day", day, columns, only).cast(DETERMINANT_SCHEMA)
    differs = result.determinants.join(stored, on=DETERMINANT_SCHEMA.names(), how="anti", nulls_equal=True)
    now, then = defaultdict(list), defaultdict(list)
    for point, reason, detail in result.exceptions.select("service_point_id", "reason", "detail").iter_rows():
        now[point].append([reason, detail])
    chosen = None if only is None else set(only)
    for point, reason, detail in store.exceptions_of(database, day):
        if chosen is None or point in chosen:
            then[point].append([reason, detail])
    before = store.revised(connection, day)
    news = set(differs["service_point_id"].to_list()) | (before if chosen is None else before & chosen)
    news |= set(repriced)
    news |= {point for point in now.keys() | then.keys() if sorted(now[point]) != sorted(then[point])}
    # Nobody is charged for the day any more where the agreement was ended before it, or where the service is set aside.
    gone = set(stored["service_point_id"].to_list()) - set(result.determinants["service_point_id"].to_list())
    news |= gone
    rows = [
        (
            row["service_point_id"],
            json.dumps(row, default=str, sort_keys=True),
            json.dumps(sorted(now[row["service_point_id"]])),
        )
        for row in (result.determinants.to_dicts() if news else ())
        if row["service_point_id"] in news
    ]
    # Nor was anybody where the month was sealed before the day was billed: the day's reasons are kept all the same.
    billed = set(result.determinants["service_point_id"].to_list())
    gone |= {point for point in news - billed if now[point]}
    rows += [(point, "null", json.dumps(sorted(now[point]))) for point in sorted(gone)]
    return store.next_revisions(connection, day, rows, store.open_month(connection, day), clock.now())
