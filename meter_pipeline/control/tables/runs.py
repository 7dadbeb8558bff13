"""The heartbeats of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = psycopg.Connection[Any]


def beat(connection: Connection, run_id: str, host: str, process_id: int, waiting: bool) -> None:
    """A run's heartbeat, by the server's clock."""
    connection.execute(
        """INSERT INTO control.presence AS p (run_id, host, process_id, started_at, seen_at, waiting_since)
           VALUES (%(run)s, %(host)s, %(pid)s, clock_timestamp(), clock_timestamp(), CASE WHEN %(waiting)s THEN clock_timestamp() END)
           ON CONFLICT (run_id) DO UPDATE SET host = EXCLUDED.host, process_id = EXCLUDED.process_id, seen_at = EXCLUDED.seen_at, ended_at = NULL,
             waiting_since = CASE WHEN %(waiting)s THEN coalesce(p.waiting_since, EXCLUDED.seen_at) END""",
        {"run": run_id, "host": host, "pid": process_id, "waiting": waiting},
    )


def leave(connection: Connection, run_id: str) -> None:
    """A run ended in good order."""
    connection.execute(
        "UPDATE control.presence SET ended_at = clock_timestamp(), waiting_since = NULL WHERE run_id = %s", (run_id,)
    )


def presence(connection: Connection, run_ids: Sequence[str]) -> dict[str, tuple[float, bool]]:
    """By run: seconds since its last heartbeat (server clock) and whether it waits for a pause."""
    rows = connection.execute(
        """SELECT run_id, extract(epoch FROM clock_timestamp() - seen_at)::float8, waiting_since IS NOT NULL FROM control.presence
           WHERE run_id = ANY (%s) AND ended_at IS NULL""",
        (list(run_ids),),
    ).fetchall()
    return {run_id: (float(age), waiting) for run_id, age, waiting in rows}
