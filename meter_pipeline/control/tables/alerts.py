"""SQL that counts work waiting too long for a person, from the other rooms' tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]

#: Name of the count, the table it needs, and the query. An exception of a sealed month waits for no person: what came
#: of it is an adjustment.
_WAITING: Final = (
    (
        "dead letters",
        "raw.dead_letter",
        "SELECT count(*), min(first_seen) FROM raw.dead_letter WHERE status IN ('open', 'corrected') AND first_seen < %s",
    ),
    (
        "anomaly cases",
        "anomaly.exception_case",
        "SELECT count(*), min(opened_at) FROM anomaly.exception_case WHERE state IN ('open', 'assigned') AND opened_at < %s",
    ),
    (
        "anomaly cases that hold a bill",
        "anomaly.exception_case",
        "SELECT count(*), min(opened_at) FROM anomaly.exception_case WHERE hold AND opened_at < %s",
    ),
    (
        "validation exceptions",
        "vee.exception",
        """SELECT count(*), min(first_seen) FROM vee.exception e WHERE severity = 'fail' AND first_seen < %s
           AND NOT EXISTS (SELECT FROM billing.period p WHERE p.month = date_trunc('month', e.billing_day)::date AND p.status = 'sealed')""",
    ),
    (
        "services that could not be billed",
        "billing.exception_day",
        """SELECT count(DISTINCT service_point_id), min(billing_day)::timestamp AT TIME ZONE 'UTC' FROM billing.exception_day e
           WHERE reason <> 'supply_meter' AND billing_day < (%s AT TIME ZONE 'UTC')::date
           AND NOT EXISTS (SELECT FROM billing.period p WHERE p.month = date_trunc('month', e.billing_day)::date AND p.status = 'sealed')""",
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
