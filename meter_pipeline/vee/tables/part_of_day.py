"""SQL of a run for some service points of a billing day: the stored day, and the classes' movement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import is_undone, made_once, of_day, remembered, remembers
from meter_pipeline.postgres.vectors import read_frame
from meter_pipeline.vee.tables import validated

Connection = psycopg.Connection[Any]


def meters_at(database: Database, start: datetime, past: datetime, points: Sequence[str]) -> list[str]:
    """Meters that stand at some service points within [start, past)."""
    return _standing(database, ("service_point_id", "meter_id"), points, start, past)


def points_of(database: Database, start: datetime, past: datetime, meters: Sequence[str]) -> list[str]:
    """Service points at which some meters stand within [start, past)."""
    return _standing(database, ("meter_id", "service_point_id"), meters, start, past)


def _standing(
    database: Database, columns: tuple[str, str], named: Sequence[str], start: datetime, past: datetime
) -> list[str]:
    """What stands with some meters or service points within [start, past), sorted. A correction that is tried reads
    their installations of all days one time."""
    known, wanted = columns
    rows = f"SELECT {wanted} AS other, installed_at, removed_at FROM ref.installations WHERE {known} = ANY(string_to_array($1, ','))"
    if remembers(database):
        found = remembered(database, rows, (",".join(named),))
        return sorted({o for o, begin, end in found.iter_rows() if begin < past and (end is None or end > start)})
    within = f"{rows} AND installed_at < $3 AND (removed_at IS NULL OR removed_at > $2)"
    return sorted(set(database.read(within, (",".join(named), start, past))["other"].to_list()))


def stored_points(database: Database, day: date, meters: Sequence[str]) -> list[str]:
    """Service points that have validated rows of some meters on a day: those that they left since among them."""
    of = "WHERE billing_day BETWEEN $1 AND $2 AND meter_id = ANY(string_to_array($3, ','))"
    query = (
        f"SELECT billing_day, service_point_id FROM vee.interval_day {of} "
        f"UNION SELECT billing_day, service_point_id FROM vee.register_day {of} ORDER BY 1, 2"
    )
    found = of_day(database, query, day, (",".join(meters),))
    return [str(point) for point in found["service_point_id"].to_list()]


@dataclass(frozen=True, slots=True)
class OtherRows:
    """The validated rows of a day that a run leaves alone: how many, and of how many estimated intervals; the least and
    the greatest version of the thresholds they were validated under (0 without rows); whether estimates of any are
    final and should not be, or the other way round."""

    rows: int
    estimated: int
    rules: tuple[int, int]
    finality_differs: bool


def other_rows(database: Database, day: date, points: Sequence[str], *, final: bool) -> OtherRows:
    """Those of all service points but some."""
    rows = of_day(
        database,
        "SELECT billing_day, count(*) AS rows, sum(estimated)::bigint AS estimated, min(rules_version) AS first, "
        "max(rules_version) AS last, bool_or(estimated > 0 AND locked <> $4) AS differs FROM vee.interval_day "
        "WHERE billing_day BETWEEN $1 AND $2 AND NOT service_point_id = ANY(string_to_array($3, ',')) GROUP BY 1",
        day,
        (",".join(points), final),
    ).to_dicts()
    if not rows:
        return OtherRows(0, 0, (0, 0), finality_differs=False)
    found = rows[0]
    return OtherRows(
        int(found["rows"]), int(found["estimated"]), (int(found["first"]), int(found["last"])), bool(found["differs"])
    )


def other_estimates(database: Database, day: date, points: Sequence[str]) -> pl.DataFrame:
    """The vectors of a day's rows with an estimate, of all service points but some."""
    narrowed = " AND estimated > 0 AND NOT service_point_id = ANY(string_to_array($2, ','))"
    return read_frame(database, validated.INTERVAL_DAY, day, narrowed, (",".join(points),))


def vectors_of(database: Database, day: date, points: Sequence[str]) -> pl.DataFrame:
    """The vectors of a day's rows of some service points."""
    narrowed = " AND service_point_id = ANY(string_to_array($2, ','))"
    return read_frame(database, validated.INTERVAL_DAY, day, narrowed, (",".join(points),))


def groups(database: Database, day: date) -> pl.DataFrame:
    """The shapes of a day's head-ends: the columns of vee.group_day."""
    query = f"SELECT {', '.join(validated.GROUP_DAY)} FROM vee.group_day WHERE billing_day BETWEEN $1 AND $2"
    return _with_day(of_day(database, query, day), day, validated.GROUP_DAY)


def exceptions(database: Database, day: date) -> pl.DataFrame:
    """A day's exceptions: the columns of vee.exception."""
    query = f"SELECT {', '.join(validated.EXCEPTION)} FROM vee.exception WHERE billing_day BETWEEN $1 AND $2"
    return _with_day(of_day(database, query, day), day, validated.EXCEPTION)


def _with_day(rows: pl.DataFrame, day: date, columns: Sequence[str]) -> pl.DataFrame:
    return rows.select(*rows.columns, pl.lit(day).alias("billing_day")).select(columns)


def day_usage(connection: Connection, day: date) -> pl.DataFrame:
    """A day's usage as the caller's transaction sees it, sorted by key, with what its block is made of."""
    columns = ("service_point_id", "flow", "unit", "quantity_micro", "estimated", "missing", "source", "quality")
    rows = connection.execute(
        f"SELECT {', '.join(columns)} FROM vee.daily_usage WHERE billing_day = %s "
        'ORDER BY service_point_id, flow COLLATE "C", unit COLLATE "C"'.encode(),
        (day,),
    ).fetchall()
    texts = dict.fromkeys(("service_point_id", "flow", "unit", "source"), pl.String)
    kinds = {c: texts.get(c, pl.Int64 if c == "quantity_micro" else pl.Int32) for c in columns}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def class_movement(database: Database, day: date) -> dict[str, Any] | None:
    """How the classes of a day moved, as ``write_class_movement`` stored it; None where it did not."""
    query = "SELECT billing_day, movement::text AS movement FROM vee.class_movement WHERE billing_day BETWEEN $1 AND $2"
    found = of_day(database, query, day)
    return json.loads(found["movement"][0]) if found.height else None


def write_class_movement(connection: Connection, day: date, movement: str) -> None:
    """Store how the classes of a day moved, as JSON text; nothing is written where it is the same."""
    connection.execute(
        "INSERT INTO vee.class_movement AS m (billing_day, movement) VALUES (%s, %s::jsonb) ON CONFLICT (billing_day) "
        "DO UPDATE SET movement = excluded.movement WHERE m.movement IS DISTINCT FROM excluded.movement",
        (day, movement),
    )


def touches(connection: Connection, day: date) -> list[tuple[int, str]]:
    """Returns the changes noted of a day since its last validation: (touch_id, meter_id), the meter empty for
    everyone."""
    return connection.execute(
        "SELECT touch_id, meter_id FROM raw.touched_meter WHERE billing_day = %s ORDER BY 1", (day,)
    ).fetchall()


def unvalidated_loads(database: Database) -> list[tuple[date, list[bytes]]]:
    """Days that were validated before, whose own reads came since and were not looked at, each with what asks for it: a
    run that ended between loading and validating has left them. A day that was never validated is the schedule's."""
    with database.connect("unvalidated loads") as connection:
        rows = connection.execute(
            "SELECT t.billing_day, max(t.touch_id) FROM raw.touched_meter AS t WHERE t.read_day = t.billing_day "
            "AND EXISTS (SELECT FROM vee.usage_block AS u WHERE u.billing_day = t.billing_day) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return [(day, [f"load {number}".encode()]) for day, number in rows]


@dataclass(frozen=True, slots=True)
class Asked:
    """What had asked for some days when their transaction began: requests (billing_day, read_day, evidence), and the
    numbers of touches."""

    requests: set[tuple[date, date, bytes]]
    touches: set[int]


def remember_asked(database: Database, connection: Connection, days: Sequence[date]) -> None:
    """Keep what asks for some days now. Their transaction reads reads and edits one time; what comes later may not be
    among them and has to be looked at by another run."""
    query = "SELECT billing_day, read_day, evidence FROM vee.true_up WHERE billing_day = ANY(%s) AND done_at IS NULL"
    requests = set(connection.execute(query, (list(days),)).fetchall())
    touched = connection.execute("SELECT touch_id FROM raw.touched_meter WHERE billing_day = ANY(%s)", (list(days),))
    touches = {number for (number,) in touched.fetchall()}
    made_once(database, _ASKED, [], lambda: Asked(requests, touches))


def note_asked(database: Database, requests: Sequence[tuple[date, date, bytes]]) -> None:
    """Add requests that the transaction itself made: the days that follow look at them."""
    known = asked(database)
    if known is not None:
        known.requests.update(requests)


_ASKED: Final = ("asked when the transaction began",)


def asked(database: Database) -> Asked | None:
    """What ``remember_asked`` kept; None where every read is made when a day begins, and in a transaction that is
    undone."""
    return None if is_undone(database) or not remembers(database) else made_once(database, _ASKED, [], _nothing)


def _nothing() -> Asked:
    raise RuntimeError("what asks for the days was not read when their transaction began")


def forget(connection: Connection, noted: Sequence[int]) -> None:
    """Delete the notes that a validation has handled."""
    if noted:
        connection.execute("DELETE FROM raw.touched_meter WHERE touch_id = ANY(%s)", (list(noted),))


def note_validation(connection: Connection, day: date, points: Sequence[str] | None) -> None:
    """Note for billing that a day was validated: whole (None), or for some service points."""
    connection.execute(
        "INSERT INTO vee.usage_change (billing_day, service_points) VALUES (%s, %s)",
        (day, None if points is None else list(points)),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What asks to have a day again. ``rows``: how many rows of usage it has; ``meters``: those noted since its last
    validation ('' for everyone); ``asked``: the service points of each request that waits (None for everyone's);
    ``billed``: those of requests of billing alone."""

    rows: int
    meters: list[str]
    requests: list[list[str] | None]
    billed: list[str]


def wanted(connection: Connection, day: date) -> Wanted:
    """What asks to have a day again."""
    row = connection.execute(
        "SELECT coalesce((SELECT cardinality(quantity_micro) FROM vee.usage_block WHERE billing_day = %(d)s), 0), "
        "coalesce((SELECT array_agg(DISTINCT meter_id) FROM raw.touched_meter WHERE billing_day = %(d)s), '{}')",
        {"d": day},
    ).fetchone()
    rows = connection.execute(
        "SELECT service_points, validates OR service_points IS NULL FROM vee.true_up WHERE billing_day = %s AND done_at IS NULL",
        (day,),
    ).fetchall()
    assert row is not None  # noqa: S101 - a query without a table
    billed = {point for points, validates in rows if not validates for point in points}
    return Wanted(int(row[0]), list(row[1]), [points for points, validates in rows if validates], sorted(billed))


def set_aside(connection: Connection, day: date) -> list[str]:
    """Service points that a day's last validation set aside."""
    rows = connection.execute(
        "SELECT DISTINCT service_point_id FROM vee.exception WHERE billing_day = %s AND kind = 'SET_ASIDE' ORDER BY 1",
        (day,),
    ).fetchall()
    return [str(point) for (point,) in rows]
