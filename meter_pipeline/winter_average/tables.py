"""Winter averages in PostgreSQL: rules, the bills they stand on, confirmed leaks, and stored averages."""

from __future__ import annotations

import io
from datetime import date
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database


def rules(database: Database, day: date) -> list[dict[str, Any]]:
    """Rules in force on a day."""
    return database.rows(
        "SELECT customer_class, months, drop_high, drop_low, least_periods, default_per_day FROM ref.winter_average_rules "
        "WHERE valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1) ORDER BY 1",
        [day],
    )


def periods(database: Database, first: date, past: date) -> pl.DataFrame:
    """Water on bills whose period ends in [first, past), as corrected: whose, in which unit, first day, days, quantity
    in millionths, and whether all of it is estimated."""
    return database.read(
        "SELECT e.service_point_id, s.account_id, coalesce(v.customer_class, a.customer_class) AS customer_class, e.unit, "
        "s.period_start, s.period_end, min(e.segment_start) AS first_day, "
        "max(e.segment_end) AS past_day, sum(e.segment_end - e.segment_start)::int AS days, "
        "sum((SELECT coalesce(sum(x), 0) FROM unnest(e.energy) AS x))::bigint AS quantity, "
        "bool_and(g.slots > 0 AND g.estimated >= g.slots) AS estimated "
        "FROM billing.segment_in_effect AS e JOIN billing.statement AS s USING (statement_id) JOIN ref.accounts AS a USING (account_id) "
        "LEFT JOIN ref.account_values AS v ON v.account_id = a.account_id AND v.valid_from < s.period_end AND (v.valid_to IS NULL OR v.valid_to >= s.period_end) "
        "JOIN billing.tariff_version AS t ON t.tariff_id = e.tariff_id AND t.version = e.tariff_version AND t.commodity = 'water' "
        "LEFT JOIN billing.statement_segment AS g ON g.statement_id = e.statement_id AND g.service_point_id = e.service_point_id "
        "AND g.segment_start = e.segment_start WHERE s.period_end > $1 AND s.period_end <= $2 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 5",
        [first, past],
    )


def leaks(database: Database, first: date, past: date) -> list[tuple[str, date, date, str]]:
    """Confirmed leaks that touch [first, past): service point, first and last day, case."""
    found = database.rows(
        "SELECT service_point_id, first_day, last_day, case_id FROM anomaly.exception_case WHERE state = 'confirmed' AND kind IN ('leak', 'leak_drift') "
        "AND first_day < $2 AND last_day >= $1 ORDER BY 1, 2",
        [first, past],
    )
    return [(r["service_point_id"], r["first_day"], r["last_day"], r["case_id"]) for r in found]


def attributes(database: Database, day: date) -> dict[str, tuple[str, date]]:
    """The winter average that holds for each service point on a day: its value and its first day."""
    found = database.rows(
        "SELECT service_point_id, value, valid_from FROM ref.service_attributes WHERE attribute = 'winter_average_per_day' AND valid_from <= $1 "
        "AND (valid_to IS NULL OR valid_to > $1)",
        [day],
    )
    return {r["service_point_id"]: (r["value"], r["valid_from"]) for r in found}


def replace(connection: psycopg.Connection[Any], effective: date, frame: pl.DataFrame) -> None:
    """Put the averages of an effective day in the place of those that stood there."""
    connection.execute("DELETE FROM billing.winter_average WHERE effective = %s", (effective,))
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, null_value="\\N", quote_style="necessary")
    columns = ", ".join(frame.columns)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY billing.winter_average ({columns}) FROM STDIN (FORMAT csv, NULL '\\N')".encode()) as copy,
    ):
        copy.write(buffer.getvalue())


def by_class(database: Database, effective: date) -> list[dict[str, Any]]:
    """Averages kept for an effective day by class, source and unit: how many, lowest, mean and highest a day, in
    whole units."""
    return database.rows(
        "SELECT a.customer_class, w.source, w.unit, count(*) AS services, (min(w.per_day)::numeric / 1000000)::numeric(20, 6) AS lowest, "
        "round(avg(w.per_day) / 1000000, 3) AS mean, (max(w.per_day)::numeric / 1000000)::numeric(20, 6) AS highest "
        "FROM billing.winter_average AS w JOIN ref.accounts AS a USING (account_id) WHERE w.effective = $1 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        [effective],
    )


def kept(database: Database, effective: date) -> pl.DataFrame:
    """Averages kept for an effective day: service_point_id, unit, per_day (millionths), source."""
    return database.read(
        "SELECT service_point_id, unit, per_day, source FROM billing.winter_average WHERE effective = $1 ORDER BY 1",
        [effective],
    )
