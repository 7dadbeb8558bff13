"""What validation of a day reads besides intervals: reference data in force, installations, register reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import remembered, remembers
from meter_pipeline.vee.tables.edits import STANDS
from meter_pipeline.vee.tables.validated import _NO_READ


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference data in force around a day, as frames. ``supply_meters``: the service points that zones declare as
    supply meters on the day."""

    service_points: pl.DataFrame
    agreements: pl.DataFrame
    accounts: pl.DataFrame
    tariffs: pl.DataFrame
    cycles: pl.DataFrame
    holidays: frozenset[date]
    temperatures: dict[date, float]
    register_hours: pl.DataFrame
    supply_meters: frozenset[str] = frozenset()


def read_installations(
    database: Database,
    day: date,
    start: datetime,
    end: datetime,
    meter_id: str | None = None,
    points: Sequence[str] | None = None,
) -> pl.DataFrame:
    """What is known of every installation that touches a day's time, or of those of one meter or of some service
    points: one row per installation and channel, in no order. ``factor_micro``: by how much an interval channel's reads
    are multiplied on the day."""
    narrowed, named = "", list[Any]()
    if meter_id is not None:
        narrowed, named = " AND i.meter_id = $4", [meter_id]
    elif points is not None:
        narrowed, named = " AND i.service_point_id = ANY(string_to_array($4, ','))", [",".join(points)]
    return database.read(
        f"""
        SELECT i.service_point_id, i.meter_id, i.installed_at AS installed_s, i.removed_at AS removed_s, (i.install_read * 1000000)::bigint AS install_micro,
            (i.removal_read * 1000000)::bigint AS removal_micro,
            coalesce(w.head_end, m.head_end) AS head_end, m.commodity, c.channel, c.kind, coalesce(v.unit, c.unit) AS declared_unit,
            coalesce(v.interval_minutes, c.interval_minutes) AS interval_minutes, coalesce(v.flow, c.flow) AS flow,
            (coalesce(v.multiplier, c.multiplier) * 1000000)::bigint AS multiplier_micro, coalesce(v.dials, c.dials) AS dials,
            coalesce(v.decimals, c.decimals) AS decimals, nullif(coalesce(v.sums_to, c.sums_to), '-') AS sums_to, coalesce(v.billed, c.billed) AS billed,
            (c.modulus * 1000000)::bigint AS modulus_micro,
            CASE WHEN c.kind = 'interval' THEN (v.multiplier * 1000000)::bigint END AS factor_micro
        FROM ref.installations AS i JOIN ref.meters AS m USING (meter_id) JOIN ref.channels AS c USING (meter_id)
        LEFT JOIN ref.channel_values AS v ON v.meter_id = c.meter_id AND v.channel = c.channel AND v.valid_from <= $3
            AND (v.valid_to IS NULL OR v.valid_to > $3)
        LEFT JOIN ref.meter_values AS w ON w.meter_id = m.meter_id AND w.valid_from <= $3 AND (w.valid_to IS NULL OR w.valid_to > $3)
        WHERE i.installed_at < $1 AND (i.removed_at IS NULL OR i.removed_at > $2)
            AND NOT (c.kind = 'register' AND c.unit IN ('kW', 'kVA', 'kVAr')){narrowed}
        """,
        (end, start, day, *named),
    ).with_columns(_seconds("installed_s"), _seconds("removed_s"))


def interval_factors(database: Database, day: date) -> dict[tuple[str, str], int]:
    """By meter and channel, the factor of an interval channel's reads on a day, in millionths; others are read as they
    are."""
    found = database.read(
        "SELECT v.meter_id, v.channel, (v.multiplier * 1000000)::bigint AS factor FROM ref.channel_values AS v "
        "JOIN ref.channels AS c USING (meter_id, channel) WHERE c.kind = 'interval' AND v.multiplier <> 1 AND v.valid_from <= $1 "
        "AND (v.valid_to IS NULL OR v.valid_to > $1)",
        (day,),
    )
    return {(meter, channel): factor for meter, channel, factor in found.iter_rows()}


def read_reference(database: Database, day: date, weather_from: date, points: Sequence[str] | None = None) -> Reference:
    """Who is served on a day (of ``points``, where they are given), who pays and by what, in no order.

    ``temperatures``: mean over the utility's stations by day, from ``weather_from`` to the day.
    """
    service_points = _holding(
        database,
        "SELECT service_point_id, commodity, customer_class, status, valid_from, valid_to FROM ref.service_points",
        day,
        points,
    ).select("service_point_id", "commodity", "customer_class", "status", status_since="valid_from")
    agreements = _holding(
        database,
        "SELECT g.service_point_id, account_id, g.tariff_id, g.cycle_id, g.valid_from, g.valid_to, a.opened, a.closed "
        "FROM ref.agreements AS g JOIN ref.accounts AS a USING (account_id)",
        day,
        points,
    )
    accounts = agreements.select("account_id", "opened", "closed").unique("account_id")
    tariffs = remembered(
        database,
        "SELECT tariff_id, version, valid_from, valid_to FROM ref.tariffs ORDER BY tariff_id, version",
    )
    cycles = database.read(
        "SELECT cycle_id, period_start, period_end FROM ref.billing_cycles WHERE period_start <= $1 AND period_end > $1",
        (day,),
    )
    holidays = remembered(database, "SELECT holiday FROM ref.holidays")
    supplies = database.read(
        "SELECT service_point_id FROM ref.zone_supplies WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)",
        (day,),
    )
    weather = database.read(
        "SELECT weather_day, avg(coalesce(temperature_mean_c, (temperature_min_c + temperature_max_c) / 2))::double precision AS mean_c "
        "FROM ref.weather WHERE weather_day BETWEEN $1 AND $2 GROUP BY weather_day ORDER BY weather_day",
        (weather_from, day),
    )
    return Reference(
        service_points,
        agreements,
        accounts,
        tariffs,
        cycles,
        frozenset(holidays["holiday"].to_list()),
        dict(zip(weather["weather_day"].to_list(), weather["mean_c"].to_list(), strict=True)),
        remembered(database, "SELECT head_end, channel, days, from_minute, to_minute FROM ref.register_hours"),
        frozenset(supplies["service_point_id"].to_list()),
    )


def _holding(database: Database, rows: str, day: date, points: Sequence[str] | None) -> pl.DataFrame:
    """Those of some dated rows that hold on a day, of some service points where they are given. A transaction that is
    undone reads those of every day at once."""
    named = () if points is None else (",".join(points),)
    of = "service_point_id = ANY(string_to_array($%d, ','))"
    if remembers(database):
        every = remembered(database, rows if points is None else f"{rows} WHERE {of % 1}", named)
        return every.filter((pl.col("valid_from") <= day) & (pl.col("valid_to").is_null() | (pl.col("valid_to") > day)))
    narrowed = "" if points is None else f" AND {of % 2}"
    in_force = "WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)"
    return database.read(f"{rows} {in_force}{narrowed}", (day, *named))


def _seconds(column: str) -> pl.Expr:
    """An instant in UTC seconds, rounded to the nearest as PostgreSQL does. Taking them apart here costs nothing; there
    it is numeric arithmetic."""
    return ((pl.col(column).dt.epoch("us") + 500_000) // 1_000_000).alias(column)


def read_registers(database: Database, first: date, last: date, meters: Sequence[str] | None = None) -> pl.DataFrame:
    """Register reads with a billing day in [first, last]: meter_id, channel, at (UTC seconds), value (micro). They come
    in no order.

    ``meters`` narrows to some. Null quality flags (AEMO N) are left out: they are no reads. Where a person's edit
    stands for an instant, it takes the place of the read.
    """
    reads = _register_reads(database, first, last, meters)
    edited = _edited(database, first, last, meters)
    if not edited.height:
        return reads
    key = ["meter_id", "channel", "at"]
    newest = edited.with_columns(_seconds("at")).unique(key, keep="last", maintain_order=True)
    if meters is not None:
        newest = newest.filter(pl.col("meter_id").is_in(list(meters)))
    kept = reads.join(newest, on=key, how="anti")
    return pl.concat([kept, newest.filter(pl.col("value").is_not_null()).select(kept.columns)], how="vertical_relaxed")


def _edited(database: Database, first: date, last: date, meters: Sequence[str] | None) -> pl.DataFrame:
    """Standing edits of register reads with a billing day in [first, last], oldest first: meter_id, channel, at,
    value. A correction that is tried reads those of all days of a few meters one time: no stage writes them."""
    query = f"SELECT meter_id, channel, read_at AS at, value{{more}} FROM vee.register_edit WHERE {STANDS}{{among}} ORDER BY edit_id"
    if meters is not None and len(meters) <= _FEW_METERS and remembers(database):
        among = " AND meter_id = ANY(string_to_array($1, ','))"
        every = remembered(database, query.format(more=", billing_day", among=among), (",".join(meters),))
        return every.filter(pl.col("billing_day").is_between(first, last)).drop("billing_day")
    return database.read(query.format(more="", among=" AND billing_day BETWEEN $1 AND $2"), (first, last))


#: Meters of which a transaction that is undone reads every register read at once: a correction's days each look at 200
#: days of reads around them, which is planned among as many partitions each time.
_FEW_METERS: Final = 200
#: Days of which it asks at once whether any register was read
_BLOCK_DAYS: Final = 512


def _register_reads(database: Database, first: date, last: date, meters: Sequence[str] | None) -> pl.DataFrame:
    """Stored register reads with a billing day in [first, last], of some meters where they are given."""
    sound = f"(quality::integer & 65535) >> 13 NOT IN ({_NO_READ})"
    columns = "meter_id, channel, read_at AS at, value"
    if meters is not None and len(meters) <= _FEW_METERS and remembers(database):
        every = remembered(
            database,
            f"SELECT {columns}, billing_day FROM raw.register_read WHERE {sound} AND meter_id = ANY(string_to_array($1, ','))",
            (",".join(meters),),
        )
        reads = every.filter(pl.col("billing_day").is_between(first, last)).drop("billing_day")
        return reads.with_columns(_seconds("at"))
    query = f"SELECT {columns} FROM raw.register_read WHERE billing_day BETWEEN $1 AND $2 AND {sound}"
    parameters: list[Any] = [first, last]
    if meters is not None:
        query += " AND meter_id = ANY(string_to_array($3, ','))"
        parameters.append(",".join(meters))
    return database.read(query, parameters).with_columns(_seconds("at"))


def registers_read(database: Database, first: date, last: date) -> bool:
    """Whether any register was read on a billing day in [first, last]."""
    if remembers(database):
        blocks = range(first.toordinal() // _BLOCK_DAYS, last.toordinal() // _BLOCK_DAYS + 1)
        return any(_days_read(database, block).is_between(first, last).any() for block in blocks)
    found = database.read(
        "SELECT EXISTS (SELECT FROM raw.register_read WHERE billing_day BETWEEN $1 AND $2) AS found", (first, last)
    )
    return bool(found["found"][0])


def _days_read(database: Database, block: int) -> pl.Series:
    """Billing days of a block of days on which any register was read: a look at the key for each."""
    first = date.fromordinal(max(block * _BLOCK_DAYS, 1))
    found = remembered(
        database,
        "SELECT d::date AS day FROM generate_series($1::date, $2::date, interval '1 day') AS d "
        "WHERE EXISTS (SELECT FROM raw.register_read AS r WHERE r.billing_day = d::date)",
        (first, date.fromordinal((block + 1) * _BLOCK_DAYS - 1)),
    )
    return found["day"]
