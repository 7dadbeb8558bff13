"""Settling a batch whose outcome is not known: its transaction is waited for, and ended where it lasts.

A COMMIT may hang on the server (a stalled disk, a synchronous standby that is away) after its connection is gone. Until
that transaction has ended, nothing may be said of its rows: another try would wait for its own claim, and a smaller
batch would claim the same rows again.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from meter_pipeline.clock import Clock
from meter_pipeline.ingest.tables.load import Attempt
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.watchdog import cut as cut_socket

#: A commit that is merely slow ends within this time; after it the server's process is asked to end.
GRACE_S: Final = 3.0
#: A process that is asked to end and does not (it waits for the disk) is waited for so long in all.
MOST_S: Final = 20.0
#: How often the transaction is looked at.
LOOK_S: Final = 0.2
#: A look that takes longer is cut at the socket: the server is stopped.
ANSWER_S: Final = 5.0
#: A server that takes no connection is asked again for so long, as a pool waits for one (writer.Writers.session).
CONNECT_S: Final = 10.0


class Unsettled(RuntimeError):
    """A batch's transaction has not ended: nothing else was tried with its rows, and the run ends here."""


async def settle(database: Database, attempt: Attempt, clock: Clock) -> str:
    """Wait until the attempt's transaction has ended; after GRACE_S end its server process. Returns "committed",
    "aborted", or "gone" where this server does not know the transaction (another server took over).

    Raises Unsettled after MOST_S, psycopg.Error where the server cannot be asked. The claim of the batch says at
    the next try what became of its rows; this only makes sure that the answer will not change.
    """
    began = clock.monotonic()
    # As the log-in itself: ending a session needs the rights of the role that opened it, and a stage's role lacks them.
    connection = await _connected(database.acting_as(None), clock)
    try:
        while (status := await _status(connection, attempt)) == "in progress":
            waited = clock.monotonic() - began
            if waited >= MOST_S:
                raise Unsettled(
                    f"transaction {attempt.transaction} of server process {attempt.backend} has not ended after "
                    f"{MOST_S:.0f} s; nothing else was tried. The next run waits for it: see why that process does "
                    "not end (disk, synchronous standby)"
                )
            if waited >= GRACE_S:
                await _ask(
                    connection,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_xid = "
                    "%s::text::xid",
                    (attempt.backend, attempt.transaction & 0xFFFF_FFFF),
                )
            await clock.sleep(LOOK_S)
        return status
    finally:
        await connection.close()


async def _connected(database: Database, clock: Clock) -> driver.AsyncConnection:
    began, pause_s = clock.monotonic(), LOOK_S
    while True:
        try:
            return await database.connect_async("ingest-settle", autocommit=True)
        except driver.OperationalError:
            if clock.monotonic() - began >= CONNECT_S:
                raise
            await clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)


async def _status(connection: driver.AsyncConnection, attempt: Attempt) -> str:
    try:
        row = await _ask(connection, "SELECT pg_xact_status(%s::text::xid8)", (attempt.transaction,))
    except driver.errors.InvalidParameterValue:
        return "gone"  # "transaction ID is in the future": a standby that took over before it had this transaction
    return str(row[0]) if row is not None and row[0] is not None else "gone"


async def _ask(connection: driver.AsyncConnection, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
    watchdog = asyncio.get_running_loop().call_later(ANSWER_S, cut_socket, connection)
    try:
        cursor = await connection.execute(query.encode(), parameters)
        return await cursor.fetchone()
    finally:
        watchdog.cancel()
