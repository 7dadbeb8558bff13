"""Wait events of our sessions, read over a connection outside the pool, and the shared circuit
breaker.
"""

from __future__ import annotations

from typing import Any

import psycopg

AsyncConnection = psycopg.AsyncConnection[Any]


async def waits(connection: AsyncConnection, application_name: str) -> dict[str, int]:
    """Sessions of ours by "type:event"; "CPU" for a running one that waits for nothing, "idle in transaction" for one
    left open.

    Waiting for the client (Client:ClientRead inside a COPY) is our own turn, and is left out.
    """
    cursor = await connection.execute(
        "SELECT CASE WHEN state LIKE 'idle in transaction%%' AND now() - state_change > interval '5 s' THEN 'idle in transaction' "
        "WHEN state <> 'active' THEN NULL WHEN wait_event IS NULL THEN 'CPU' WHEN wait_event_type = 'Client' THEN NULL "
        "ELSE wait_event_type || ':' || wait_event END AS event, count(*) FROM pg_stat_activity WHERE application_name = %s GROUP BY 1",
        (application_name,),
    )
    return {event: count for event, count in await cursor.fetchall() if event is not None}


async def breaker_open_for(connection: AsyncConnection, name: str) -> float:
    """Seconds for which the shared breaker stays open, by the server's clock; 0 where it is not."""
    cursor = await connection.execute(
        "SELECT greatest(extract(epoch FROM open_until - clock_timestamp()), 0)::float8 FROM raw.breaker WHERE name = %s AND state = 'open'",
        (name,),
    )
    row = await cursor.fetchone()
    return float(row[0]) if row else 0.0


async def note_breaker(connection: AsyncConnection, name: str, state: str, open_s: float, holder: str) -> None:
    """Share a change of state. An open state is never shortened by another process's shorter one."""
    await connection.execute(
        "INSERT INTO raw.breaker AS b (name, state, open_until, changed_at, holder, times_opened) VALUES (%(name)s, %(state)s, "
        "CASE WHEN %(state)s = 'open' THEN clock_timestamp() + make_interval(secs => %(open_s)s) END, clock_timestamp(), %(holder)s, "
        "(%(state)s = 'open')::int) ON CONFLICT (name) DO UPDATE SET state = excluded.state, open_until = CASE WHEN excluded.state = 'open' "
        "THEN greatest(b.open_until, excluded.open_until) END, changed_at = excluded.changed_at, holder = excluded.holder, "
        "times_opened = b.times_opened + excluded.times_opened",
        {"name": name, "state": state, "open_s": open_s, "holder": holder},
    )
