"""The writers: batches of a billing day written by asyncio tasks on a pool, as many and as large as the database bears.

Encoding runs in threads, so the event loop never computes. Two batches more than there are writers are encoded ahead;
that bound is the back-pressure, and with it memory stays at a few batches whatever the backlog.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import polars as pl

from meter_pipeline.clock import Clock
from meter_pipeline.ingest import unknown_outcome
from meter_pipeline.ingest.breaker import Breaker, State
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.plan import Source, WritePlan, cut, most_rows, rejection
from meter_pipeline.ingest.retry import Meaning, Patience, PausedTime, Retrier, meaning
from meter_pipeline.ingest.tables import load, server_waits
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.pools import AsyncConnectionPool, PoolTimeout
from meter_pipeline.postgres.watchdog import cut as cut_socket

#: A write that takes longer is cut at the socket. statement_timeout (30 s) ends a slow statement on a live server;
# this one also ends the wait for a frozen server, which keeps no timeouts.
WRITE_DEADLINE_S: Final = 40.0
BREAKER: Final = "raw-store"
#: Batches encoded while the writers write. Writers often end together: with one batch ahead, the second of them waits
# for an encoding.
ENCODED_AHEAD: Final = 2
#: A batch whose connection came later than this after its pause poll asks again: pool and breaker may keep it for a
# minute.
POLL_STALE_S: Final = 0.5


class PauseCheck(Protocol):
    """Answers whether work of a commodity and head-end is paused (control.PauseProbe does); None: it is not."""

    def check(self, commodity: str | None = None, head_end: str | None = None) -> Any: ...


class Letters(Protocol):
    """Makes the dead letter of one payload that the database refused."""

    def __call__(self, load_pass: WritePlan, at: int, error: driver.Error) -> pl.DataFrame: ...


class Permits:
    """A semaphore whose size may change while it is used."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self._changed = asyncio.Condition()

    async def take(self) -> None:
        """Wait for a permit."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.taken < self.size)
            self.taken += 1

    async def give(self) -> None:
        """Give a permit back."""
        async with self._changed:
            self.taken -= 1
            self._changed.notify_all()

    async def resize(self, size: int) -> None:
        """Change the size; a smaller one takes effect as permits come back."""
        if size != self.size:
            async with self._changed:
                self.size = size
                self._changed.notify_all()


@dataclass(slots=True)
class WriterCounts:
    """Counts and waiting times of the writers."""

    batches: int = 0
    bytes: int = 0
    waited_s: float = 0.0
    already: int = 0
    rejected: int = 0
    watchdog: int = 0
    settled: int = 0
    latencies_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Writers:
    """Writes passes of a billing day. One object a run; ``session`` opens the pool and the monitor around its use."""

    database: Database
    clock: Clock
    epoch: int
    sources: Sequence[Source]
    letters: Letters
    pause: PauseCheck | None = None
    controller: Controller = field(default_factory=Controller)
    breaker: Breaker = field(default_factory=Breaker)
    rng: random.Random = field(default_factory=random.Random)
    run_id: str | None = None
    on_breaker: Callable[[bool], None] | None = None
    deadline_s: float = WRITE_DEADLINE_S
    pause_poll_s: float = 0.5
    monitor_s: float = 0.25
    figures: WriterCounts = field(default_factory=WriterCounts)
    _pool: AsyncConnectionPool[driver.AsyncConnection] | None = None
    _permits: Permits | None = None
    _ahead: Permits | None = None
    _retrier: Retrier | None = None
    _moves: asyncio.Queue[tuple[str, float]] | None = None
    _told_open: bool = False
    #: Connections, by id, that no batch has been written on yet.
    _fresh: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.deadline_s >= Patience().total_s:
            raise ValueError(f"a write's deadline of {self.deadline_s} s leaves no time for another attempt")

    @property
    def application_name(self) -> str:
        """How the writers' sessions are named in pg_stat_activity."""
        return f"ingest-writer {self.run_id or ''}".strip()[:63]

    @property
    def retries(self) -> int:
        """Attempts beyond the first, over all batches."""
        return self._retrier.retries if self._retrier is not None else 0

    @contextlib.asynccontextmanager
    async def session(self) -> Any:
        """Open the pool and start the monitor; closes both."""
        most = self.controller.limits.writers_most
        self._permits, self._ahead = Permits(self.controller.writers), Permits(self.controller.writers + ENCODED_AHEAD)
        self._retrier = self._retrier or Retrier(self.clock, self.rng)
        self._moves = asyncio.Queue()
        self.breaker.changed = self._breaker_changed
        self._pool = AsyncConnectionPool(
            self.database.url,
            min_size=1,
            max_size=most,
            open=False,
            timeout=10,
            max_waiting=4 * most,
            configure=self._prepare,
            kwargs={
                "application_name": self.application_name,
                "options": self.database.session_options,
                "connect_timeout": 5,
            },
        )
        async with self._pool:
            await self._first_connection()
            monitor = asyncio.create_task(self._monitor())
            try:
                yield self
            finally:
                self.controller.finish(self.clock.monotonic())
                monitor.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await monitor

    async def _prepare(self, connection: driver.AsyncConnection) -> None:
        self.controller.empty_commit(await load.prepare_session(connection, self.clock.monotonic))
        self._fresh.add(id(connection))

    async def _first_connection(self) -> None:
        """Open one before the first batch is cut, so that the floor of this link is known by then. A server that is out
        of reach is the first batch's business."""
        assert self._pool is not None  # noqa: S101
        if self.controller.enabled:
            with contextlib.suppress(PoolTimeout, driver.Error, OSError):
                async with self._pool.connection():
                    pass
            assert self._permits is not None and self._ahead is not None  # noqa: S101, PT018
            await self._permits.resize(self.controller.writers)
            await self._ahead.resize(self.controller.writers + ENCODED_AHEAD)

    async def write(self, load_pass: WritePlan) -> None:
        """Write every payload of a pass. Raises errors that cannot be retried; batches already committed stay, and a
        later run goes on from them."""
        assert self._ahead is not None  # noqa: S101 - called within session
        try:
            async with asyncio.TaskGroup() as group:
                first = 0
                while first < load_pass.rows:
                    await self._ahead.take()
                    past = most_rows(load_pass, first, self.controller.batch)
                    group.create_task(self._write_ahead(load_pass, first, past))
                    first = past
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _write_ahead(self, load_pass: WritePlan, first: int, past: int) -> None:
        assert self._ahead is not None  # noqa: S101
        try:
            await self._write_range(load_pass, first, past)
        finally:
            await self._ahead.give()

    async def _write_range(self, load_pass: WritePlan, first: int, past: int) -> None:
        """Write payloads [first, past) as one batch, or in halves where the server will not take them together.

        No half is tried before the whole batch's own transaction has ended: the halves would claim its rows again.
        """
        batch = await asyncio.to_thread(cut, load_pass, first, past, self.epoch, self.sources, self.clock)
        try:
            await self._write_batch(batch, self.sources[int(load_pass.incoming["src"][first])])
            return
        except driver.Error as error:
            what = meaning(error)
            if what not in (Meaning.DATA, Meaning.SMALLER) or (what is Meaning.SMALLER and past - first == 1):
                raise
            await self._settle(batch)
            if past - first == 1:
                await self._reject(load_pass, first, error)
                return
        del batch
        middle = (first + past) // 2
        await self._write_range(load_pass, first, middle)
        await self._write_range(load_pass, middle, past)

    async def _reject(self, load_pass: WritePlan, at: int, error: driver.Error) -> None:
        letters = self.letters(load_pass, at, error)
        batch = rejection(load_pass, at, self.epoch, self.sources, letters, self.clock)
        await self._write_batch(batch, self.sources[int(load_pass.incoming["src"][at])])
        self.figures.rejected += batch.pieces[0].rejected

    async def _write_batch(self, batch: load.Batch, source: Source) -> None:
        """One batch under permit, pause, breaker and retries."""
        assert self._permits is not None  # noqa: S101
        assert self._retrier is not None  # noqa: S101
        await self._permits.take()
        try:
            paused_time = PausedTime()
            async for attempt in self._retrier.attempts(_again, paused_time):
                with attempt:
                    while not await self._attempt(batch, source, paused_time):
                        pass
        finally:
            await self._permits.give()

    async def _attempt(self, batch: load.Batch, source: Source, paused_time: PausedTime) -> bool:
        """Past the pause, past the breaker; settle an attempt before whose outcome is unknown; write.

        False: waiting took so long that the pause must be asked again.
        """
        assert self._pool is not None  # noqa: S101
        paused_time.seconds += await self._wait_for_pause(source)
        asked = self.clock.monotonic()
        permit = self.breaker.acquire(asked)
        if permit is None:
            await self.clock.sleep(max(self.breaker.remaining(asked), 0.01))
            paused_time.seconds += self.clock.monotonic() - asked
            return False
        began = asked
        fresh = False
        ok: bool | None = None
        try:
            await self._settle(batch)
            async with self._pool.connection() as connection:
                began = self.clock.monotonic()
                if began - asked > POLL_STALE_S:
                    return False
                fresh = id(connection) in self._fresh
                self._fresh.discard(id(connection))
                watchdog = asyncio.get_running_loop().call_later(self.deadline_s, self._cut, connection)
                try:
                    written = await load.write_batch(connection, batch)
                finally:
                    watchdog.cancel()
            self.figures.already += not written
            ok = True
            return True
        except PoolTimeout:
            self.controller.pool_exhausted()
            ok = False
            raise
        except Exception as error:
            what = meaning(error)
            ok = None if what in (Meaning.DATA, Meaning.FATAL) else False
            if what is Meaning.EXHAUSTED:
                self.breaker.open_for(self.clock.monotonic(), self.breaker.rules.open_s)
            raise
        finally:
            await self._account(batch, permit, self.clock.monotonic() - began, ok, fresh)

    async def _settle(self, batch: load.Batch) -> None:
        """Make sure that the transaction of an attempt before has ended, whichever way."""
        if batch.attempt is not None:
            await unknown_outcome.settle(self.database, batch.attempt, self.clock)
            batch.attempt = None
            self.figures.settled += 1

    async def _account(self, batch: load.Batch, permit: Any, seconds: float, ok: bool | None, fresh: bool) -> None:
        """Tell breaker and controller; a data error says nothing about the server."""
        assert self._permits is not None  # noqa: S101
        now = self.clock.monotonic()
        if ok is None:
            self.breaker.cancelled(permit)
            return
        # A slow write is the controller's to mend while batches can still shrink; only the smallest ones speak against
        # the server.
        smallest = (
            self.controller.batch <= self.controller.limits.batch_least
            or batch.rows <= self.controller.limits.batch_least
        )
        # The time that even the smallest write takes on this link is no sign of overload.
        self.breaker.done(permit, now, seconds - self.controller.floor if smallest else 0.0, ok)
        if ok:
            self.figures.batches += 1
            self.figures.bytes += batch.size
            self.figures.latencies_ms.append(seconds * 1000)
            if fresh:
                self.controller.first_write(now)
                return
            self.controller.parts(batch.rows, batch.sent_s, seconds - batch.sent_s)
        waiting = self._ahead is not None and self._ahead.taken >= self._permits.size
        if self.controller.wrote(now, batch.rows, seconds, ok, self._permits.taken, waiting):
            await self._permits.resize(self.controller.writers)
            if self._ahead is not None:
                await self._ahead.resize(self.controller.writers + ENCODED_AHEAD)

    def _cut(self, connection: driver.AsyncConnection) -> None:
        self.figures.watchdog += 1
        cut_socket(connection)

    async def _wait_for_pause(self, source: Source) -> float:
        """Poll the pause before the batch; while it holds, wait at this boundary, holding no connection. Returns the
        seconds waited."""
        if self.pause is None:
            return 0.0
        began, waited = self.clock.monotonic(), 0.0
        while await asyncio.to_thread(self.pause.check, source.commodity, source.head_end) is not None:
            await self.clock.sleep(self.pause_poll_s)
            waited = self.clock.monotonic() - began
        self.figures.waited_s += waited
        return waited

    def _breaker_changed(self, _was: State, state: State) -> None:
        if self._moves is not None:
            self._moves.put_nowait((state.value, self.breaker.remaining(self.clock.monotonic())))

    async def _tell(self, state: str) -> None:
        """Tell the pause's rules when the breaker leaves CLOSED and when it is back; trials in between leave the
        instant of opening as it was."""
        is_open = state == State.OPEN.value
        if self.on_breaker is not None and state != State.HALF_OPEN.value and is_open != self._told_open:
            self._told_open = is_open
            await asyncio.to_thread(self.on_breaker, is_open)

    async def _monitor(self) -> None:
        """On a connection of its own: sample the server's waits, share the breaker. An unreachable server is the
        breaker's business, not ours."""
        assert self._moves is not None  # noqa: S101
        connection: driver.AsyncConnection | None = None
        holder = self.run_id or "ingest"
        try:
            while True:
                try:
                    if connection is None or connection.closed:
                        connection = await self.database.connect_async("ingest-monitor", autocommit=True)
                    watchdog = asyncio.get_running_loop().call_later(self.deadline_s, cut_socket, connection)
                    try:
                        while not self._moves.empty():
                            state, open_s = self._moves.get_nowait()
                            await server_waits.note_breaker(connection, BREAKER, state, open_s, holder)
                            await self._tell(state)
                        if self.breaker.state is State.CLOSED:
                            self.breaker.open_for(
                                self.clock.monotonic(), await server_waits.breaker_open_for(connection, BREAKER)
                            )
                        self.controller.waits(await server_waits.waits(connection, self.application_name))
                    finally:
                        watchdog.cancel()
                except (driver.Error, OSError):
                    if connection is not None:
                        with contextlib.suppress(driver.Error, OSError):
                            await connection.close()
                    connection = None
                await self.clock.sleep(self.monitor_s)
        finally:
            if connection is not None:
                await connection.close()


def _again(error: BaseException) -> bool:
    return meaning(error) in (Meaning.TRANSIENT, Meaning.UNKNOWN, Meaning.EXHAUSTED)
