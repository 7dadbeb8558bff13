"""Supply balances in PostgreSQL: zones, the usage of their meters, and the days kept."""

from __future__ import annotations

import io
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

from meter_pipeline.postgres.database import Database

_PLACES: Final = -6
_MILLIONTH: Final = Decimal(1).scaleb(_PLACES)
Connection = psycopg.Connection[Any]


def reference(database: Database, first: date, past: date) -> dict[str, list[dict[str, Any]]]:
    """Rows of the zones' reference tables that hold on some day of [first, past)."""
    columns = {
        "zones": "zone_id, kind, commodity, name, parent_id",
        "zone_members": "service_point_id, zone_id",
        "zone_supplies": "zone_id, service_point_id, direction",
        "zone_unmetered": "zone_id, purpose, quantity_per_day, unit",
    }
    return {
        name: database.rows(
            f"SELECT {listed}, valid_from, valid_to FROM ref.{name} WHERE valid_from < $2 AND (valid_to IS NULL OR valid_to > $1) ORDER BY 1, 2",
            [first, past],
        )
        for name, listed in columns.items()
    }


def usage(database: Database, day: date) -> pl.DataFrame:
    """Usage of a day at service points that a zone names: service_point_id, unit, flow, quantity and the part of it
    that is estimated or a share of several days' register reading, millionths; null where nothing is known."""
    return database.read(
        "SELECT u.service_point_id, u.unit, u.flow, sum(u.quantity_micro)::bigint AS quantity, bool_or(u.quantity_micro IS NULL) AS unknown, "
        "sum(abs(u.estimated_micro))::bigint AS uncertain FROM vee.daily_usage AS u WHERE u.billing_day = $1 AND u.flow IN ('import', 'export') "
        "AND u.service_point_id IN (SELECT service_point_id FROM ref.zone_members UNION SELECT service_point_id FROM ref.zone_supplies) "
        "GROUP BY 1, 2, 3",
        [day],
    )


def backwards(database: Database, day: date) -> dict[str, str]:
    """Supply meters of which validation found on a day that they went back, and no person released it: what it said by
    service point. Their usage is an estimate."""
    found = database.rows(
        "SELECT e.service_point_id, min(e.detail) AS detail FROM vee.exception AS e WHERE e.billing_day = $1 AND e.kind IN ('DECREASE', 'NEGATIVE') "
        "AND e.service_point_id IN (SELECT service_point_id FROM ref.zone_supplies) AND NOT EXISTS (SELECT FROM anomaly.validation_finding AS f "
        "WHERE f.billing_day = e.billing_day AND f.kind = e.kind AND f.service_point_id = e.service_point_id AND f.released_at IS NOT NULL) GROUP BY 1",
        [day],
    )
    return {row["service_point_id"]: row["detail"] for row in found}


def served(database: Database, begins: datetime, ends: datetime) -> set[str]:
    """Members of zones where a meter stands at some time between two instants: they should have usage."""
    found = database.read(
        "SELECT DISTINCT i.service_point_id FROM ref.installations AS i JOIN ref.zone_members AS m USING (service_point_id) "
        "WHERE i.installed_at < $2 AND (i.removed_at IS NULL OR i.removed_at > $1)",
        [begins, ends],
    )
    return set(found["service_point_id"].to_list())


def history(database: Database, zone_ids: list[str], first: date, past: date) -> pl.DataFrame:
    """Known days of zones in [first, past): billing_day, zone_id, difference and what was delivered, millionths."""
    return database.read(
        "SELECT billing_day, zone_id, difference, delivered_in - delivered_out AS delivered FROM billing.zone_day "
        "WHERE billing_day >= $1 AND billing_day < $2 AND difference IS NOT NULL AND zone_id = ANY(string_to_array($3, ',')) ORDER BY 2, 1",
        [first, past, ",".join(zone_ids)],
    )


def means(database: Database, points: list[str], first: date, past: date) -> pl.DataFrame:
    """Mean usage a day of service points in [first, past), millionths of their unit: service_point_id, unit, mean."""
    return database.read(
        "SELECT service_point_id, unit, (sum(quantity_micro) / count(*))::bigint AS mean FROM vee.daily_usage WHERE billing_day >= $1 "
        "AND billing_day < $2 AND flow = 'import' AND quantity_micro IS NOT NULL AND service_point_id = ANY(string_to_array($3, ',')) GROUP BY 1, 2",
        [first, past, ",".join(points)],
    )


def months(database: Database, month: date) -> list[dict[str, Any]]:
    """The zones' month (analyst.zone_months), quantities to the millionth: a division leaves more zeros."""
    found = database.rows("SELECT * FROM analyst.zone_months WHERE month = $1 ORDER BY zone_id", [month])
    return [{k: _to_millionth(v) if isinstance(v, Decimal) else v for k, v in row.items()} for row in found]


def _to_millionth(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    return value.quantize(_MILLIONTH) if isinstance(exponent, int) and exponent < _PLACES else value


def days(database: Database, first: date, past: date) -> pl.DataFrame:
    """Kept days of zones in [first, past)."""
    return database.read(
        "SELECT * FROM billing.zone_day WHERE billing_day >= $1 AND billing_day < $2 ORDER BY zone_id, billing_day",
        [first, past],
    )


def replace(connection: Connection, first: date, past: date, frame: pl.DataFrame) -> None:
    """Put the days of [first, past) in the place of those that stood there."""
    connection.execute("DELETE FROM billing.zone_day WHERE billing_day >= %s AND billing_day < %s", (first, past))
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, null_value="\\N", quote_style="necessary")
    copied = sql.SQL("COPY billing.zone_day ({}) FROM STDIN (FORMAT csv, NULL '\\N')").format(
        sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    with connection.cursor() as cursor, cursor.copy(copied) as copy:
        copy.write(buffer.getvalue())
