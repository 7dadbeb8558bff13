"""What waits too long for somebody, from the other rooms' tables. Belongs here: SQL. Does not belong here: what is too long (control/alerts.py)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]

#: what is counted, the table it needs, and the query
_WAITING: Final = (
    (
        "dead letters",
        "raw.dead_letter",
        "SELECT count(*), min(first_seen) FROM raw.dead_letter WHERE status IN ('open', 'corrected') AND first_seen < %s",
    ),
)


def over_age(connection: Connection, before: datetime) -> list[tuple[str, int, datetime]]:
    """(what, how many, the oldest) of everything that has waited since before ``before``."""
    found = []
    for what, table, query in _WAITING:
        if connection.execute("SELECT to_regclass(%s) IS NULL", (table,)).fetchone() == (True,):
            continue
        row = connection.execute(query.encode(), (before,)).fetchone()
        if row and row[0]:
            found.append((what, int(row[0]), row[1]))
    return found
