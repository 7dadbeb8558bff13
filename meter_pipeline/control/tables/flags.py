"""Feature flags and their changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class FlagRow:
    """A feature flag in force."""

    flag: str
    value: Any
    version: int
    changed_by: str
    changed_at: datetime
    reason: str
    request: int | None


_FLAG_LOCK: Final = {None: b"", "share": b" FOR SHARE", "update": b" FOR UPDATE"}


def flag(connection: Connection, name: str, lock: str | None = None) -> FlagRow | None:
    """A flag in force; ``lock`` share or update holds it as it is until the transaction ends."""
    query = (
        b"SELECT flag, value, version, changed_by, changed_at, reason, request FROM control.flag WHERE flag = %s"
        + _FLAG_LOCK[lock]
    )
    with connection.cursor(row_factory=class_row(FlagRow)) as cursor:
        return cursor.execute(query, (name,)).fetchone()


def put_flag(
    connection: Connection,
    name: str,
    value: Any,
    version: int,
    by: str,
    at: datetime,
    reason: str,
    dual: bool,
    request: int | None,
) -> bool:
    """Set a flag to its next version and keep the change; False where another process has set that version already."""
    decision = "confirmed" if request is not None else None
    row = connection.execute(
        """INSERT INTO control.flag AS f (flag, value, version, changed_by, changed_at, reason, dual, request, decision)
           VALUES (%(flag)s, %(value)s, %(version)s, %(by)s, %(at)s, %(reason)s, %(dual)s, %(request)s, %(decision)s)
           ON CONFLICT (flag) DO UPDATE SET (value, version, changed_by, changed_at, reason, dual, request, decision)
             = (EXCLUDED.value, EXCLUDED.version, EXCLUDED.changed_by, EXCLUDED.changed_at, EXCLUDED.reason, EXCLUDED.dual, EXCLUDED.request,
                EXCLUDED.decision)
           WHERE f.version = EXCLUDED.version - 1 RETURNING 1""",
        {
            "flag": name,
            "value": Jsonb(value),
            "version": version,
            "by": by,
            "at": at,
            "reason": reason,
            "dual": dual,
            "request": request,
            "decision": decision,
        },
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "INSERT INTO control.flag_change (flag, version, value, changed_by, changed_at, reason, request) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (name, version, Jsonb(value), by, at, reason, request),
    )
    return True
