"""The first billing day of the deployment, as billing knows it, and what the old system's bills left. Without imports:
every command that opens the deployment writes it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from meter_pipeline.postgres.database import Database

    Connection = psycopg.Connection[Any]


def write_opening(connection: Connection, first: date) -> None:
    """Keep the first day that is billed here; nothing is written where it is kept already."""
    connection.execute(
        "INSERT INTO billing.going_live AS g (first_billing_day) VALUES (%s) ON CONFLICT (single) DO UPDATE SET first_billing_day = "
        "excluded.first_billing_day WHERE g.first_billing_day <> excluded.first_billing_day",
        (first,),
    )


def balances(database: Database, points: Sequence[str], before: date) -> list[dict[str, Any]]:
    """What bills of the old system left some service points by a day, quantities in millionths."""
    return database.rows(
        "SELECT service_point_id, account_id, tariff_id, kind, name, period_end, (quantity * 1000000)::bigint AS micro FROM ref.opening_balances "
        "WHERE service_point_id = ANY(string_to_array($1, ',')) AND period_end <= $2 ORDER BY 1, 2, 3, 6, 4, 5",
        [",".join(points), before],
    )
