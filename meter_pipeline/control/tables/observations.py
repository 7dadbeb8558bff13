"""The latest figures that the pause rules observe, by kind and subject."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = psycopg.Connection[Any]


def observe(connection: Connection, kind: str, subject: str, at: datetime, figures: Mapping[str, Any]) -> None:
    """Keep the latest figure of a kind and subject; an older one never replaces a newer."""
    connection.execute(
        """INSERT INTO control.observation AS o (kind, subject, observed_at, figures) VALUES (%s, %s, %s, %s)
           ON CONFLICT (kind, subject) DO UPDATE SET observed_at = EXCLUDED.observed_at, figures = EXCLUDED.figures
           WHERE o.observed_at <= EXCLUDED.observed_at""",
        (kind, subject, at, Jsonb(dict(figures))),
    )


def observations(connection: Connection, kind: str) -> list[dict[str, Any]]:
    """The latest figures of a kind, newest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """SELECT kind, subject, observed_at, figures FROM control.observation
               WHERE kind = %(kind)s ORDER BY observed_at DESC, subject""",
            {"kind": kind},
        ).fetchall()
