"""Which service points and billing days a change of reference data reaches: reference/reach.py applied to the changed
rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.corrections import tables
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.reference.history import Change
from meter_pipeline.reference.reach import REACHES, VALIDATE, Days, days_of
from meter_pipeline.schemas.reference import STRETCHES, TABLES
from meter_pipeline.vee.tables import true_up

PAIRS: Final = pl.Schema({"service_point_id": pl.String(), "billing_day": pl.Date()})
#: Tables of which a row names its service point.
_OWN_POINT: Final = ("service_points", "installations", "agreements", "service_attributes", "zone_supplies")
#: Tables whose rows say something of every service
_EVERY_POINT: Final = ("holidays", "validation_thresholds")
#: Tables whose rows' dates say where a period's bill is cut, so that moved ones touch the rest of the period.
_CUTS: Final = ("agreements", "tariffs", "accounts")
_FOREVER: Final = date(9999, 12, 31)


@dataclass(frozen=True, slots=True)
class Span:
    """Days [first, past) that a change touches. ``to_period_end``: and the rest of the billing period they end in."""

    first: date
    past: date
    to_period_end: bool = False


def pairs_of(
    connection: Connection, calendar: BillingCalendar, changes: Sequence[Change], days: Sequence[date]
) -> pl.DataFrame:
    """The (service_point_id, billing_day) that changes of the caller's transaction reach, of the stored ``days``,
    sorted.

    Both states count: a service point that a row named before and one that it names now.
    """
    touched = [
        _points_of(
            connection, calendar, table, [(c, spans(c, calendar, connection)) for c in changes if c.table == table]
        )
        for table in dict.fromkeys(c.table for c in changes)
    ]
    found = pl.concat([pl.DataFrame(schema=_TOUCHED), *touched])
    if not found.height or not days:
        return pl.DataFrame(schema=PAIRS)
    found = _to_period_ends(connection, found)
    known = pl.DataFrame({"billing_day": list(days)}, schema={"billing_day": pl.Date})
    return (
        found.unique()
        .join_where(known, pl.col("billing_day") >= pl.col("first"), pl.col("billing_day") < pl.col("past"))
        .select(PAIRS.names())
        .unique()
        .sort(PAIRS.names())
    )


_TOUCHED: Final = {"service_point_id": pl.String, "first": pl.Date, "past": pl.Date, "to_period_end": pl.Boolean}


def spans(change: Change, calendar: BillingCalendar, connection: Connection) -> list[Span]:
    """The days a change touches, before anybody asks whose they are."""
    kinds = days_of(change.table, tuple(c for c in change.columns if c in REACHES[change.table]))
    both = [
        _dates_covered(change.table, row, calendar, connection) for row in (change.old, change.new) if row is not None
    ]
    found: list[Span] = []
    if Days.HELD in kinds:
        found += [Span(*each) for each in both]
    if Days.MOVED in kinds and len(both) == 2:
        (old_first, old_past), (first, past) = both
        cut = change.table in _CUTS
        moved = ((old_first, first), (old_past, past))
        found += [Span(min(dates), max(dates), cut) for dates in moved if dates[0] != dates[1]]
    for kind, column in ((Days.INSTALLED, "installed_at"), (Days.REMOVED, "removed_at")):
        if kind in kinds:
            at = [_day_of(calendar, row[column]) for row in (change.old, change.new) if row and row[column]]
            found += [Span(day - timedelta(days=1), day + timedelta(days=1)) for day in at]
    return found


def _dates_covered(
    table: str, row: Mapping[str, Any], calendar: BillingCalendar, connection: Connection
) -> tuple[date, date]:
    """The days [first, past) on which a row holds."""
    match table:
        case "installations":
            past = _FOREVER if row["removed_at"] is None else _day_of(calendar, row["removed_at"]) + timedelta(days=1)
            return _day_of(calendar, row["installed_at"]), past
        case "accounts":
            return _date(row["opened"]), _date(row["closed"])
        case "holidays":
            return _date(row["holiday"]), _date(row["holiday"]) + timedelta(days=1)
        case "tariff_document":
            dates = tables.tariff_dates(connection, row["tariff_id"], row["version"])
            return (dates[0][0], dates[0][1] or _FOREVER) if dates else (_FOREVER, _FOREVER)
        case _ if table in STRETCHES:
            how = STRETCHES[table]
            return _date(row[how.starts]), _date(row[how.ends])
        case _:
            return date.min, _FOREVER


def _date(value: Any) -> date:
    return _FOREVER if value is None else value if isinstance(value, date) else date.fromisoformat(str(value))


def _day_of(calendar: BillingCalendar, value: Any) -> date:
    return calendar.day_of(datetime.fromisoformat(str(value)))


def _points_of(
    connection: Connection, calendar: BillingCalendar, table: str, touched: Sequence[tuple[Change, list[Span]]]
) -> pl.DataFrame:
    """The service points that the changes of one table concern, each with the days it touches."""
    columns = list(TABLES[table].columns) if table in TABLES else ["tariff_id", "version"]
    rows: list[tuple[str, date, date, bool]] = []
    by = {
        "accounts": "account_id",
        "account_values": "account_id",
        "billing_cycles": "cycle_id",
    }
    if table in _OWN_POINT:
        for change, found in touched:
            for point in {str(row["service_point_id"]) for row in (change.old, change.new) if row is not None}:
                rows += [(point, s.first, s.past, s.to_period_end) for s in found]
        return pl.DataFrame(rows, schema=_TOUCHED, orient="row")
    if table == "heat_contents":
        return _of_heat(connection, touched)
    if table in ("tariffs", "tariff_document"):
        return pl.concat([_of_riders(connection, touched), _by_agreement(connection, "tariff_id", touched)])
    if table in by or table in _EVERY_POINT:
        return _by_agreement(connection, by.get(table), touched)
    column = "meter_id" if "meter_id" in columns else "head_end"
    if column not in columns or not any(found for _, found in touched):
        return pl.DataFrame(schema=_TOUCHED)
    heads = {"register_hours": "head_end"}.get(table, "meter_id")
    dated: dict[str, list[Span]] = {}
    for change, found in touched if table in STRETCHES and heads == "meter_id" else ():
        for meter in _values(heads, [(change, found)]):
            dated.setdefault(meter, []).extend(found)
    always = [Span(date.min, _FOREVER)]
    for point, meter, installed, removed in tables.installations(connection, heads, sorted(_values(heads, touched))):
        past = _FOREVER if removed is None else calendar.day_of(removed) + timedelta(days=1)
        for span in dated.get(meter, always):
            first, end = max(calendar.day_of(installed), span.first), min(past, span.past)
            rows += [(point, first, end, False)] if first < end else []
    return pl.DataFrame(rows, schema=_TOUCHED, orient="row")


def _by_agreement(
    connection: Connection, column: str | None, touched: Sequence[tuple[Change, list[Span]]]
) -> pl.DataFrame:
    """The service points whose agreement names what changed in a column of its own (None: all of them)."""
    values = None if column is None else sorted(_values(column, touched))
    agreements = tables.agreements(connection, column or "account_id", values)
    days = [
        (value, s.first, s.past, s.to_period_end)
        for change, found in touched
        for value in ([None] if column is None else _values(column, [(change, found)]))
        for s in found
    ]
    schema = {"value": pl.String, "from": pl.Date, "to": pl.Date, "to_period_end": pl.Boolean}
    wanted = pl.DataFrame(days, schema=schema, orient="row")
    same = (
        agreements.join(wanted, how="cross")
        if column is None
        else agreements.join(wanted, left_on=column, right_on="value")
    )
    return _cut(same)


def _of_riders(connection: Connection, touched: Sequence[tuple[Change, list[Span]]]) -> pl.DataFrame:
    """The service points on tariffs that share a rider of which a version changed. A rider by the day on which a bill's
    period ends moves the period's days from its first one on."""
    shared = tables.sharing(connection, sorted(_values("tariff_id", touched)))
    days = [
        (tariff, s.first, s.past, s.to_period_end, by_bill)
        for change, found in touched
        for rider, tariff, by_bill in shared
        if rider in _values("tariff_id", [(change, found)])
        for s in found
    ]
    if not days:
        return pl.DataFrame(schema=_TOUCHED)
    dates = {"from": pl.Date, "to": pl.Date, "to_period_end": pl.Boolean, "by_bill": pl.Boolean}
    wanted = pl.DataFrame(days, schema={"tariff_id": pl.String, **dates}, orient="row").unique()
    agreements = tables.agreements(connection, "tariff_id", sorted({tariff for _, tariff, _ in shared}))
    same = agreements.join(wanted, on="tariff_id")
    inside = (pl.col("period_start") < pl.col("from")) & (pl.col("period_end") > pl.col("from"))
    earlier = same.filter("by_bill").join(tables.periods(connection), on="cycle_id").filter(inside)
    begun = earlier.with_columns(pl.col("period_start").alias("from"))
    return pl.concat([_cut(same), _cut(begun.select(same.columns))])


def _cut(agreements: pl.DataFrame) -> pl.DataFrame:
    """Rows in force from ``first`` to ``past`` (null: open), each with the days ``from`` to ``to`` that are touched:
    the days of both."""
    both = agreements.with_columns(
        pl.max_horizontal("first", "from").alias("first"),
        pl.min_horizontal(pl.col("past").fill_null(_FOREVER), "to").alias("past"),
    )
    return both.filter(pl.col("first") < pl.col("past")).select(_TOUCHED.keys())


def _of_heat(connection: Connection, touched: Sequence[tuple[Change, list[Span]]]) -> pl.DataFrame:
    """The gas services of the zones whose heat content changes: those that name the zone, and for ``*`` those that name
    none."""
    days = [
        (zone, s.first, s.past, s.to_period_end)
        for change, found in touched
        for zone in _values("zone_id", [(change, found)])
        for s in found
    ]
    schema = {"zone_id": pl.String, "from": pl.Date, "to": pl.Date, "to_period_end": pl.Boolean}
    wanted = pl.DataFrame(days, schema=schema, orient="row").unique()
    named = tables.heat_zones(connection)
    served = tables.gas_services(connection).join(wanted.filter(pl.col("zone_id") == "*"), how="cross")
    covered = (
        served.join(named.rename({"first": "begins", "past": "ends"}), on="service_point_id")
        .filter((pl.col("begins") <= pl.col("from")) & (pl.col("ends").is_null() | (pl.col("ends") >= pl.col("to"))))
        .select("service_point_id", "from", "to")
    )
    others = served.join(covered, on=["service_point_id", "from", "to"], how="anti")
    return pl.concat([_cut(named.join(wanted, on="zone_id")), _cut(others)])


def _values(column: str, touched: Iterable[tuple[Change, list[Span]]]) -> set[str]:
    rows = (row for change, found in touched if found for row in (change.old, change.new) if row is not None)
    return {str(row[column]) for row in rows}


def _to_period_ends(connection: Connection, touched: pl.DataFrame) -> pl.DataFrame:
    """Spans that cut a period, lengthened to its end."""
    cuts = touched.filter(pl.col("to_period_end") & (pl.col("past") < _FOREVER)).unique()
    if not cuts.height:
        return touched
    agreements = tables.agreements(connection, "service_point_id", cuts["service_point_id"].unique().to_list())
    whole = (
        cuts.join(agreements.select("service_point_id", "cycle_id").unique(), on="service_point_id")
        .join(tables.periods(connection), on="cycle_id")
        .filter((pl.col("period_start") < pl.col("past")) & (pl.col("period_end") > pl.col("past")))
        .select("service_point_id", "first", pl.col("period_end").alias("past"), "to_period_end")
    )
    return pl.concat([touched, whole])


def reaches_validation(changes: Iterable[Change]) -> bool:
    """Whether validation reads anything that changed. Of tariffs it reads which are in force on a day: a version that
    takes the place of another one on the same days, as a corrected document does, reaches billing alone."""
    known = list(changes)
    in_force: Counter[tuple[str, ...]] = Counter()
    for change in known:
        for row, sign in ((change.old, -1), (change.new, 1)):
            if change.table == "tariffs" and row is not None:
                in_force[tuple(str(row[c]) for c in ("tariff_id", "valid_from", "valid_to"))] += sign
    left_out = set() if any(in_force.values()) else {"tariffs"}
    return any(
        VALIDATE in reach.stages and reach.days is not Days.NONE
        for change in known
        if change.table not in left_out
        for column in change.columns
        if (reach := REACHES[change.table].get(column)) is not None
    )


def ask(
    connection: Connection,
    pairs: pl.DataFrame,
    changes: Iterable[Change],
    evidence: bytes,
    corrected_on: date,
    now: datetime,
) -> list[date]:
    """Ask for exactly the reached days, for the service points reached on each, and keep the correction's day with
    them: bills that move are corrected under the back-billing rules of that day. Where ``changes`` reach billing alone,
    the requests say so."""
    validates = reaches_validation(changes)
    wanted = pairs.group_by("billing_day").agg(pl.col("service_point_id").sort()).sort("billing_day")
    tables.note_corrected(connection, wanted, evidence, corrected_on)
    requests = [
        true_up.Request(day, day, evidence, len(points), tuple(points), validates) for day, points in wanted.iter_rows()
    ]
    return true_up.ask(connection, requests, now)
