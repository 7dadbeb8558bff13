"""SQL of validation's inputs besides intervals: reference data in force, installations, register reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import polars as pl

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import is_undone, made_once, remembered, remembers
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
    if meter_id is None and points is not None and remembers(database):
        what = ("installations", bisect_right(_installation_turns(database, points), day), *points)
        return made_once(database, what, [], lambda: _installations(database, day, start, end, None, points))
    return _installations(database, day, start, end, meter_id, points)


def _installation_turns(database: Database, points: Sequence[str]) -> list[date]:
    """Days on which what is known of the installations of some service points may change. The days around an instant
    are each one of their own, whatever the time zone."""
    here = "WHERE service_point_id = ANY(string_to_array($1, ','))"
    meters = f"WHERE meter_id IN (SELECT meter_id FROM ref.installations {here})"
    named = (",".join(points),)
    instants = remembered(database, f"SELECT installed_at, removed_at FROM ref.installations {here}", named)
    dates = remembered(
        database,
        f"SELECT valid_from, valid_to FROM ref.channel_values {meters} UNION SELECT valid_from, valid_to FROM ref.meter_values {meters}",
        named,
    )

    def turns() -> list[date]:
        moments = [at.date() for column in instants for at in column.to_list() if at is not None]
        around = {day + timedelta(days=k) for day in moments for k in range(-2, 4)}
        return sorted({*around, *_turns([dates])})

    return made_once(database, ("installations change", *named), [instants, dates], turns)


def _installations(
    database: Database,
    day: date,
    start: datetime,
    end: datetime,
    meter_id: str | None,
    points: Sequence[str] | None,
) -> pl.DataFrame:
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


_POINTS: Final = (
    "SELECT service_point_id, commodity, customer_class, status, valid_from, valid_to FROM ref.service_points"
)
_AGREEMENTS: Final = (
    "SELECT g.service_point_id, account_id, g.tariff_id, g.cycle_id, g.valid_from, g.valid_to, a.opened, a.closed "
    "FROM ref.agreements AS g JOIN ref.accounts AS a USING (account_id)"
)
_TARIFFS: Final = "SELECT tariff_id, version, valid_from, valid_to FROM ref.tariffs ORDER BY tariff_id, version"
_CYCLES: Final = "SELECT cycle_id, period_start, period_end FROM ref.billing_cycles"
_SUPPLIES: Final = "SELECT service_point_id, valid_from, valid_to FROM ref.zone_supplies"


def read_reference(database: Database, day: date, weather_from: date, points: Sequence[str] | None = None) -> Reference:
    """Who is served on a day (of ``points``, where they are given), who pays and by what, in no order.

    ``temperatures``: mean over the utility's stations by day, from ``weather_from`` to the day. A transaction that is
    undone has the same frames on all days of a stretch on which nothing begins or ends.
    """
    frames = _of_every_day(database, day, points) if remembers(database) else _of_day(database, day, points)
    service_points, agreements, tariffs, cycles, supplies = frames
    holidays = remembered(database, "SELECT holiday FROM ref.holidays")
    return Reference(
        service_points,
        agreements,
        made_once(
            database,
            ("accounts",),
            [agreements],
            lambda: agreements.select("account_id", "opened", "closed").unique("account_id"),
        ),
        tariffs,
        cycles,
        frozenset(holidays["holiday"].to_list()),
        _temperatures(database, weather_from, day),
        remembered(database, "SELECT head_end, channel, days, from_minute, to_minute FROM ref.register_hours"),
        frozenset(supplies["service_point_id"].to_list()),
    )


def _of_day(database: Database, day: date, points: Sequence[str] | None) -> list[pl.DataFrame]:
    """Service points, agreements, tariffs, billing cycles and supply meters of a day."""
    named = () if points is None else (",".join(points),)
    narrowed = "" if points is None else " AND service_point_id = ANY(string_to_array($2, ','))"
    in_force = "WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)"
    return [
        _named(database.read(f"{_POINTS} {in_force}{narrowed}", (day, *named))),
        database.read(f"{_AGREEMENTS} {in_force}{narrowed}", (day, *named)),
        database.read(_TARIFFS),
        database.read(f"{_CYCLES} WHERE period_start <= $1 AND period_end > $1", (day,)),
        database.read(f"{_SUPPLIES} {in_force}", (day,)),
    ]


def _of_every_day(database: Database, day: date, points: Sequence[str] | None) -> list[pl.DataFrame]:
    """The same, read one time for all days, and one frame for all days of a stretch on which nothing begins or ends."""
    named = () if points is None else (",".join(points),)
    of = "" if points is None else " WHERE service_point_id = ANY(string_to_array($1, ','))"
    every = [
        remembered(database, f"{_POINTS}{of}", named),
        remembered(database, f"{_AGREEMENTS}{of}", named),
        remembered(database, _TARIFFS),
        remembered(database, _CYCLES),
        remembered(database, _SUPPLIES),
    ]
    turns = made_once(database, ("turns",), every, lambda: _turns(every))

    def of_stretch() -> list[pl.DataFrame]:
        service_points, agreements, tariffs, cycles, supplies = every
        begun = cycles.filter((pl.col("period_start") <= day) & (pl.col("period_end") > day))
        return [
            _named(_in_force(service_points, day)),
            _in_force(agreements, day),
            tariffs.clone(),
            begun,
            _in_force(supplies, day),
        ]

    return made_once(database, ("reference", bisect_right(turns, day)), every, of_stretch)


def _named(service_points: pl.DataFrame) -> pl.DataFrame:
    return service_points.select("service_point_id", "commodity", "customer_class", "status", status_since="valid_from")


def _turns(frames: Sequence[pl.DataFrame]) -> list[date]:
    """The days on which a row of some frames begins or ends."""
    dates = {value for frame in frames for column in frame.select(pl.selectors.date()) for value in column.to_list()}
    return sorted(day for day in dates if day is not None)


def _temperatures(database: Database, first: date, last: date) -> dict[date, float]:
    """Mean temperature over the utility's stations by day, in degrees Celsius."""
    mean = (
        "SELECT weather_day, avg(coalesce(temperature_mean_c, (temperature_min_c + temperature_max_c) / 2))::double precision AS mean_c "
        "FROM ref.weather {}GROUP BY weather_day ORDER BY weather_day"
    )
    if not remembers(database):
        found = database.read(mean.format("WHERE weather_day BETWEEN $1 AND $2 "), (first, last))
        return _by_day(found)
    every = remembered(database, mean.format(""))
    of_day = made_once(database, ("temperatures",), [every], lambda: _by_day(every))
    days = (first + timedelta(days=k) for k in range((last - first).days + 1))
    return {day: of_day[day] for day in days if day in of_day}


def _by_day(weather: pl.DataFrame) -> dict[date, float]:
    return dict(zip(weather["weather_day"].to_list(), weather["mean_c"].to_list(), strict=True))


def _in_force(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Rows whose stretch holds a day."""
    return frame.filter((pl.col("valid_from") <= day) & (pl.col("valid_to").is_null() | (pl.col("valid_to") > day)))


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
        every = _remembered_reads(
            database, first, last, f"SELECT {columns}, billing_day FROM raw.register_read WHERE {sound}", meters
        )
        reads = every.filter(pl.col("billing_day").is_between(first, last)).drop("billing_day")
        return reads.with_columns(_seconds("at"))
    query = f"SELECT {columns} FROM raw.register_read WHERE billing_day BETWEEN $1 AND $2 AND {sound}"
    parameters: list[Any] = [first, last]
    if meters is not None:
        query += " AND meter_id = ANY(string_to_array($3, ','))"
        parameters.append(",".join(meters))
    return database.read(query, parameters).with_columns(_seconds("at"))


def _remembered_reads(database: Database, first: date, last: date, query: str, meters: Sequence[str]) -> pl.DataFrame:
    """The rows of ``query`` of some meters from ``first`` to ``last`` and more: of all days in a transaction that is
    undone; else of the blocks of days that the range lies in, so that fewer partitions are locked."""
    named = f"{query} AND meter_id = ANY(string_to_array($1, ','))"
    if is_undone(database):
        return remembered(database, named, (",".join(meters),))
    start, end = first.toordinal() // _BLOCK_DAYS * _BLOCK_DAYS, (last.toordinal() // _BLOCK_DAYS + 1) * _BLOCK_DAYS
    within = date.fromordinal(max(start, 1)), date.fromordinal(end - 1)
    return remembered(database, f"{named} AND billing_day BETWEEN $2 AND $3", (",".join(meters), *within))


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
