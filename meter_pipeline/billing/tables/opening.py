"""The first billing day of the deployment, as billing knows it. Without imports: every command that opens the
deployment writes it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[Any]


def write_opening(connection: Connection, first: date) -> None:
    """Keep the first day that is billed here; nothing is written where it is kept already."""
    connection.execute(
        "INSERT INTO billing.going_live AS g (first_billing_day) VALUES (%s) ON CONFLICT (single) DO UPDATE SET first_billing_day = "
        "excluded.first_billing_day WHERE g.first_billing_day <> excluded.first_billing_day",
        (first,),
    )
