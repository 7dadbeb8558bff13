"""SQL of vee.true_up: requests to validate a day again, and the stored figures they are computed from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import made_once, remembered, remembers

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A request to validate one day again, with the SHA-256 of its evidence. ``service_points``: those whose usage
    will change, and whose bills wait; None means all. ``validates``: False where only billing reads the changed
    data."""

    billing_day: date
    read_day: date
    evidence: bytes
    registers: int
    service_points: tuple[str, ...] | None = None
    validates: bool = True


def pending(
    connection: Connection, day: date, service_points: Sequence[str] | None = None, billed: Sequence[str] = ()
) -> list[tuple[date, bytes]]:
    """Returns requests that wait for a day: (read_day, evidence). With ``service_points``, only requests that name
    no other points; requests of billing alone may also name those in ``billed``."""
    rows = connection.execute(
        "SELECT read_day, evidence, service_points, validates FROM vee.true_up WHERE billing_day = %s AND done_at IS NULL",
        (day,),
    ).fetchall()
    if service_points is None:
        return [(read_day, evidence) for read_day, evidence, _, _ in rows]
    # Sets, because the server compares each element of one array with each of the other.
    points = set(service_points)
    either = points.union(billed)
    return [
        (read_day, evidence)
        for read_day, evidence, named, validates in rows
        if named is not None and (points if validates else either).issuperset(named)
    ]


def done(connection: Connection, day: date, requests: Sequence[tuple[date, bytes]], now: datetime) -> None:
    """Close the requests that existed when a validation of the day began."""
    for read_day, evidence in requests:
        connection.execute(
            "UPDATE vee.true_up SET done_at = %s WHERE billing_day = %s AND read_day = %s AND evidence = %s",
            (now, day, read_day, evidence),
        )


def points_of(connection: Connection, meter_id: str) -> tuple[str, ...]:
    """Returns the service points of a meter's installations, present and past."""
    found = connection.execute(
        "SELECT DISTINCT service_point_id FROM ref.installations WHERE meter_id = %s ORDER BY 1", (meter_id,)
    )
    return tuple(str(point) for (point,) in found)


def _listed(service_points: tuple[str, ...] | None) -> list[str] | None:
    return None if service_points is None else sorted(set(service_points))


def ask(connection: Connection, requests: Sequence[Request], now: datetime) -> list[date]:
    """Write the requests that do not exist yet. Returns the days of those written."""
    rows = []
    for r in requests:
        row = connection.execute(
            "INSERT INTO vee.true_up (billing_day, read_day, evidence, registers, requested_at, service_points, validates) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING billing_day",
            (r.billing_day, r.read_day, r.evidence, r.registers, now, _listed(r.service_points), r.validates),
        ).fetchone()
        if row is not None:
            rows.append(row[0])
    return sorted(set(rows))


def waiting(database: Database) -> list[tuple[date, list[bytes]]]:
    """Days that wait to be validated again, with the evidence of their requests, in order of day."""
    with database.connect("true-up") as connection:
        return connection.execute(
            "SELECT billing_day, array_agg(evidence ORDER BY evidence) FROM vee.true_up WHERE done_at IS NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()


def validated_anyway(database: Database) -> dict[date, frozenset[str]]:
    """Days that a correction that is tried will validate, with the service points of each: nothing needs to ask for
    them. Whoever tries it keeps the list; empty in any other session."""
    return made_once(database, ("validated anyway",), [], dict[date, frozenset[str]])


def validated_days(database: Database, first: date, last: date) -> list[date]:
    """Days in a range whose validation is stored, meters of registers alone included. A correction that is tried reads
    those of every day one time: it validates no day for the first time."""
    if remembers(database):
        every = remembered(database, "SELECT billing_day FROM vee.usage_block ORDER BY 1")
        days = made_once(database, ("validated days",), [every], every["billing_day"].to_list)
        return list(days[bisect_left(days, first) : bisect_right(days, last)])
    return database.read(
        "SELECT billing_day FROM vee.usage_block WHERE billing_day BETWEEN $1 AND $2 ORDER BY 1", (first, last)
    )["billing_day"].to_list()


def any_to_compare(database: Database, first: date, last: date, points: Sequence[str]) -> bool:
    """Whether the validation of any day in a range is stored and will not be made anew for all of some service points
    anyhow."""
    if remembers(database):
        coming, named = validated_anyway(database), frozenset(points)
        return any(not named <= coming.get(day, frozenset()) for day in validated_days(database, first, last))
    found = database.read(
        "SELECT EXISTS (SELECT FROM vee.usage_block WHERE billing_day BETWEEN $1 AND $2) AS found", (first, last)
    )
    return bool(found["found"][0])


def last_archived(database: Database) -> date | None:
    """The last billing day whose tables left the database, or None."""
    found: date | None = remembered(
        database, "SELECT max(billing_day) AS day FROM archive.day_table WHERE state = 'archived'"
    )["day"][0]
    return found


def register_days(database: Database, day: date, points: Sequence[str]) -> pl.DataFrame:
    """Returns the usage of the registers of some service points on a day: service_point_id, meter_id, channel,
    quantity_micro (null: no reads enclose the day) and usage_micro, the day's usage with estimates."""
    return database.read(
        "SELECT service_point_id, meter_id, channel, quantity_micro, usage_micro FROM vee.register_day "
        "WHERE billing_day = $1 AND service_point_id = ANY(string_to_array($2, ','))",
        (day, ",".join(points)),
    )
