"""SQL of rate studies: billed amounts, positions of bills, stored studies."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA
from meter_pipeline.billing.tables.days import LISTS
from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.database import Database
from meter_pipeline.sharding import KeyRange


def periods(database: Database, first: date, past: date) -> list[tuple[str, date, date]]:
    """Billing periods that end in (first, past]: cycle, first day, day after the last; in order of time within
    a cycle.
    """
    found = database.rows(
        "SELECT cycle_id, period_start, period_end FROM ref.billing_cycles WHERE period_end > $1 AND period_end <= $2 ORDER BY 1, 2",
        [first, past],
    )
    return [(row["cycle_id"], row["period_start"], row["period_end"]) for row in found]


def billed(database: Database, cycle_id: str, period_start: date, tariff_id: str) -> pl.DataFrame:
    """Returns amounts billed to a tariff's services in a period, posted corrections included: account_id,
    service_point_id, amount in millionths."""
    return database.read(
        "WITH lines AS (SELECT s.account_id, l.service_point_id, l.amount FROM billing.statement AS s JOIN billing.statement_line AS l "
        "USING (statement_id) WHERE s.cycle_id = $1 AND s.period_start = $2 AND l.tariff_id = $3 UNION ALL "
        "SELECT s.account_id, l.service_point_id, l.amount FROM billing.statement AS s JOIN billing.adjustment AS a USING (statement_id) "
        "JOIN billing.adjustment_line AS l USING (adjustment_id) WHERE s.cycle_id = $1 AND s.period_start = $2 AND l.tariff_id = $3 "
        "AND a.status = 'posted' AND a.reason NOT IN ('leak', 'policy')) "
        "SELECT account_id, service_point_id, (sum(amount) * 1000000)::bigint AS amount FROM lines GROUP BY 1, 2",
        [cycle_id, period_start, tariff_id],
    )


def issued(database: Database, cycle_id: str, period_start: date) -> set[str]:
    """Accounts with a bill of a period."""
    found = database.read(
        "SELECT account_id FROM billing.statement WHERE cycle_id = $1 AND period_start = $2", [cycle_id, period_start]
    )
    return set(found["account_id"].to_list())


def positions(
    database: Database, days: Sequence[date], cycle_id: str, tariff_id: str, within: KeyRange
) -> pl.DataFrame:
    """Charge rows of some days, of a cycle's services on a tariff in a range."""
    narrowed, limits = within.where("service_point_id", 4)
    frames = [
        lists(
            database.read(
                f"SELECT {listed(CHARGE_SCHEMA.names(), LISTS)} FROM billing.charge_day WHERE billing_day = $1 AND cycle_id = $2 "
                f"AND tariff_id = $3{narrowed}",
                [day, cycle_id, tariff_id, *limits],
            ),
            LISTS,
        )
        for day in sorted(set(days))
    ]
    return pl.concat(frames).cast(CHARGE_SCHEMA)


def revised_points(database: Database, first: date, past: date, within: KeyRange) -> list[str]:
    """Service points of a range with later reads of sealed days in [first, past)."""
    narrowed, limits = within.where("service_point_id", 3)
    found = database.read(
        "SELECT DISTINCT service_point_id FROM billing.determinant_revision WHERE billing_day >= $1 AND billing_day < $2"
        f"{narrowed} ORDER BY 1",
        [first, past, *limits],
    )
    return [str(point) for point in found["service_point_id"].to_list()]


def determinants(database: Database, day: date, points: Sequence[str]) -> pl.DataFrame:
    """Determinant rows of some service points on a day."""
    found = database.read(
        f"SELECT {listed(DETERMINANT_SCHEMA.names(), LISTS)} FROM billing.determinant_day WHERE billing_day = $1 "
        "AND service_point_id = ANY(string_to_array($2, ',')) ORDER BY service_point_id",
        [day, ",".join(points)],
    )
    return lists(found, LISTS).cast(DETERMINANT_SCHEMA)


def keep(
    connection: psycopg.Connection[Any], study: Mapping[str, Any], accounts: pl.DataFrame, revenue: pl.DataFrame
) -> None:
    """Keep a study: its question and totals, each account, and revenue by class, component and month."""
    connection.execute(
        "INSERT INTO billing.rate_study (study_id, made_at, made_by, first_day, past_day, replaces, documents, document_sha256, elasticity, "
        "currency, accounts, bills, actual, proposed, not_reproduced, left_out) VALUES (%(study_id)s, %(made_at)s, %(made_by)s, %(first)s, "
        "%(past)s, %(replaces)s, %(documents)s, %(sha256)s, %(elasticity)s, %(currency)s, %(accounts)s, %(bills)s, %(actual)s, %(proposed)s, "
        "%(not_reproduced)s, %(left_out)s)",
        {**study, "documents": Jsonb(study["documents"]), "left_out": Jsonb(study["left_out"])},
    )
    for name, frame in (("rate_study_account", accounts), ("rate_study_revenue", revenue)):
        buffer = io.BytesIO()
        frame.with_columns(pl.lit(study["study_id"]).alias("study_id")).write_csv(
            buffer, include_header=False, quote_style="necessary"
        )
        columns = sql.SQL(", ").join(map(sql.Identifier, [*frame.columns, "study_id"]))
        statement = sql.SQL("COPY billing.{} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(name), columns)
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(buffer.getvalue())
