"""What a run for some service points of a billed day has to look at, and that it was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import psycopg

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.postgres.reading import remembered, remembers

Connection = psycopg.Connection[Any]


def last_validation(connection: Connection, day: date) -> int:
    """The number of a day's last validation; 0 where there is none."""
    found = "SELECT coalesce(max(change_id), 0) FROM vee.usage_change WHERE billing_day = %(d)s"
    return int(scalar(connection, found, {"d": day}) or 0)


def validated_since(connection: Connection, day: date) -> list[list[str] | None]:
    """The validations of a day since it was last billed: the service points of each, None for a whole day."""
    rows = connection.execute(
        "SELECT service_points FROM vee.usage_change WHERE billing_day = %(d)s AND change_id > "
        "coalesce((SELECT change_id FROM billing.usage_seen WHERE billing_day = %(d)s), 0) ORDER BY change_id",
        {"d": day},
    ).fetchall()
    return [points for (points,) in rows]


def unbilled_validations(database: Database) -> list[tuple[date, list[bytes]]]:
    """Billed days that were validated since and not billed again, each with what asks for it: a run that ended between
    the two has left the day's charges as they were."""
    with database.connect("unbilled validations") as connection:
        rows = connection.execute(
            "SELECT s.billing_day, max(c.change_id) FROM billing.usage_seen AS s JOIN vee.usage_change AS c USING (billing_day) "
            "WHERE c.change_id > s.change_id GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return [(day, [f"validation {number}".encode()]) for day, number in rows]


def billed_again(connection: Connection, day: date, points: Sequence[str]) -> set[str]:
    """Those of some service points that a billed day will be billed for again: their validation is asked for
    (vee.true_up), or was done since the day was last billed."""
    rows = connection.execute(
        "SELECT service_points FROM vee.true_up WHERE billing_day = %(d)s AND done_at IS NULL "
        "AND (service_points IS NULL OR service_points && %(p)s::text[]) "
        "UNION ALL SELECT service_points FROM vee.usage_change WHERE billing_day = %(d)s AND change_id > "
        "coalesce((SELECT change_id FROM billing.usage_seen WHERE billing_day = %(d)s), 0) "
        "AND (service_points IS NULL OR service_points && %(p)s::text[])",
        {"d": day, "p": list(points)},
    ).fetchall()
    if any(named is None for (named,) in rows):
        return set(points)
    return set(points) & {point for (named,) in rows for point in named}


def note_billed(connection: Connection, day: date, validation: int, points: Sequence[str] | None) -> None:
    """Note up to which validation a day is billed, and which service points were (None: all)."""
    connection.execute(
        "INSERT INTO billing.usage_seen (billing_day, change_id, service_points) VALUES (%s, %s, %s) ON CONFLICT (billing_day) "
        "DO UPDATE SET change_id = greatest(usage_seen.change_id, excluded.change_id), service_points = excluded.service_points",
        (day, validation, None if points is None else list(points)),
    )


def billed_points(connection: Connection, day: date) -> list[str] | None:
    """The service points that a day was last billed for; None where it was the whole day."""
    row = connection.execute("SELECT service_points FROM billing.usage_seen WHERE billing_day = %s", (day,)).fetchone()
    return None if row is None else row[0]


def with_virtual_points(database: Database, day: date, points: Sequence[str]) -> list[str]:
    """Some service points with those at which their usage is billed too, and those whose usage is billed at them."""
    # A link that was taken out is kept as a version: the service point that it led to is billed otherwise now.
    dated = " AND valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)"
    links = " UNION ALL ".join(
        f"SELECT service_point_id, value FROM ref.{table} WHERE attribute IN ('totals_into', 'deducts_from'){dated}"
        for table in ("service_attributes", "service_attributes_version")
    )
    if (
        remembers(database)
        and not remembered(database, f"SELECT EXISTS ({links}) AS found".replace(dated, ""))["found"][0]
    ):
        return sorted(set(points))
    found = database.read(
        f"""
        WITH RECURSIVE part AS (
            SELECT service_point_id COLLATE "C" AS member, upper(btrim(value)) COLLATE "C" AS target FROM ({links}) AS link),
        reached AS (
            SELECT unnest(string_to_array($2, ',')) COLLATE "C" AS point
            UNION SELECT CASE WHEN p.member = r.point THEN p.target ELSE p.member END COLLATE "C"
            FROM reached AS r JOIN part AS p ON r.point IN (p.member, p.target))
        SELECT point FROM reached ORDER BY 1
        """,
        (day, ",".join(points)),
    )
    return sorted({str(point) for point in found["point"].to_list()})
