"""psycopg in front of the simulated server, blocking and asyncio, with its pool and store.database.Database."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

import polars as pl
import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from meter_pipeline_tests.simulation.scheduler import Killed, current, drive, drive_async
from meter_pipeline_tests.simulation.server import Connection, Result, Row, Server, text_of


class Cursor:
    """Rows of what was executed, for either face."""

    def __init__(self, connection: Any, row_factory: Any = None) -> None:
        self.connection = connection
        self.row_factory = row_factory
        self.result = Result()

    @property
    def rowcount(self) -> int:
        return self.result.rowcount

    def _shaped(self) -> list[Any]:
        return [self.row_factory(row) for row in self.result.rows] if self.row_factory is not None else self.result.rows


class SyncCursor(Cursor):
    def __enter__(self) -> SyncCursor:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def execute(self, query: Any, parameters: Any = None, **_: Any) -> SyncCursor:
        self.result = drive(self.connection.inner.run(query, parameters))
        return self

    def executemany(self, query: Any, many: Any) -> None:
        for parameters in many:
            self.execute(query, parameters)

    def fetchone(self) -> Any:
        rows = self._shaped()
        return rows[0] if rows else None

    def fetchall(self) -> list[Any]:
        return self._shaped()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._shaped())

    def copy(self, statement: Any) -> SyncCopy:
        return SyncCopy(self.connection, statement)


class SyncCopy:
    """COPY of Python rows, as dead letters are written."""

    def __init__(self, connection: Any, statement: Any) -> None:
        self.connection = connection
        found = re.match(r'COPY "?(\w+)"? \((.*?)\) FROM STDIN', text_of(statement))
        assert found is not None
        self.name = found[1]
        self.columns = [each.strip().strip('"') for each in found[2].split(",")]
        self.rows: list[Row] = []

    def __enter__(self) -> SyncCopy:
        return self

    def set_types(self, types: Any) -> None:
        pass

    def write_row(self, row: Any) -> None:
        self.rows.append(dict(zip(self.columns, row, strict=True)))

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            inner = self.connection.inner

            def act() -> Result:
                inner.tx.temporary.setdefault(self.name, []).extend(self.rows)
                return Result()

            drive(inner._run(act))


_FIELDS: dict[Any, Any] = {}


def _factory(row_factory: Any) -> Any:
    """psycopg's class_row, on rows that are dicts in column order."""
    if row_factory is None:
        return None
    if row_factory not in _FIELDS:
        cells = getattr(row_factory, "__closure__", None) or ()
        made = next((cell.cell_contents for cell in cells if isinstance(cell.cell_contents, type)), None)
        assert made is not None, row_factory
        _FIELDS[row_factory] = made
    made = _FIELDS[row_factory]
    return lambda row: made(*row)


class SyncConnection:
    """As psycopg.Connection, as far as the product asks."""

    def __init__(self, inner: Connection) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def execute(self, query: Any, parameters: Any = None, **more: Any) -> SyncCursor:
        return SyncCursor(self).execute(query, parameters, **more)

    def cursor(self, *_: Any, row_factory: Any = None, **__: Any) -> SyncCursor:
        return SyncCursor(self, _factory(row_factory))

    def commit(self) -> None:
        drive(self.inner.end(True))

    def rollback(self) -> None:
        drive(self.inner.end(False))

    def close(self) -> None:
        self.inner.shut()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        inner = self.inner
        inner.nested += 1
        try:
            yield
        except BaseException as error:
            inner.nested -= 1
            if not inner.nested and not isinstance(error, Killed) and not inner.broken:
                drive(inner.end(False))
            raise
        inner.nested -= 1
        if not inner.nested:
            drive(inner.end(True))

    def __enter__(self) -> SyncConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None and issubclass(kind, Killed):
            return
        try:
            if not self.inner.broken and not self.inner.closed:
                drive(self.inner.end(kind is None))
        except psycopg.Error:
            if kind is None:
                raise
        finally:
            self.inner.shut()


class AsyncCursor(Cursor):
    async def fetchone(self) -> Any:
        return self.result.rows[0] if self.result.rows else None

    async def fetchall(self) -> list[Any]:
        return self.result.rows

    async def __aenter__(self) -> AsyncCursor:
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass

    def copy(self, statement: Any) -> AsyncCopy:
        return AsyncCopy(self.connection, statement)


class AsyncCopy:
    """Binary COPY from a connection of asyncio."""

    def __init__(self, connection: AsyncConnection, statement: Any) -> None:
        self.connection, self.statement, self.parts = connection, statement, bytearray()

    async def __aenter__(self) -> AsyncCopy:
        return self

    async def write(self, data: Any) -> None:
        self.parts += data

    async def __aexit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            await drive_async(self.connection.inner.copied(self.statement, bytes(self.parts[19:])))


class AsyncConnection:
    """As psycopg.AsyncConnection, as far as the product asks."""

    def __init__(self, inner: Connection) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def execute(self, query: Any, parameters: Any = None, **_: Any) -> AsyncCursor:
        cursor = AsyncCursor(self)
        cursor.result = await drive_async(self.inner.run(query, parameters))
        return cursor

    def cursor(self, **_: Any) -> AsyncCursor:
        return AsyncCursor(self)

    async def commit(self) -> None:
        await drive_async(self.inner.end(True))

    async def rollback(self) -> None:
        if self.inner.broken:
            raise psycopg.OperationalError("the connection is closed")
        await drive_async(self.inner.end(False))

    async def close(self) -> None:
        self.inner.shut()


def opened(server: Server, application_name: str, autocommit: bool) -> Generator[float, None, Connection]:
    """Connect, or be refused."""
    current().step()
    yield server.rng.expovariate(1 / 0.002)
    current().step()
    while server.scheduler.now < server.frozen_until:
        yield min(1.0, server.frozen_until - server.scheduler.now)
        current().step()
        if server.scheduler.now < server.frozen_until and server.rng.random() < 0.2:
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")
    if server.scheduler.now < server.down_until:
        raise psycopg.OperationalError("connection failed: Connection refused")
    if (
        not server.quiet
        and application_name.startswith(server.faults.roles)
        and server.rng.random() < server.faults.refuse_connect
    ):
        server.injected["too many connections"] += 1
        raise errors.TooManyConnections("sorry, too many clients already")
    return Connection(server, application_name, autocommit)


class SimulatedDatabase:
    """Stands for store.database.Database."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = "simulated"
        self.session_options = ""

    def acting_as(self, role: str | None) -> SimulatedDatabase:
        return self

    def connect(
        self, application_name: str = "meter-pipeline", *, autocommit: bool = False, role: str | None = None
    ) -> SyncConnection:
        return SyncConnection(drive(opened(self.server, application_name, autocommit)))

    async def connect_async(
        self, application_name: str = "meter-pipeline", *, autocommit: bool = False
    ) -> AsyncConnection:
        return AsyncConnection(await drive_async(opened(self.server, application_name, autocommit)))

    def read(self, query: str, parameters: Any = ()) -> pl.DataFrame:
        raise AssertionError(f"no Arrow here: {query[:100]}")


class SimulatedPool:
    """Stands for psycopg_pool.AsyncConnectionPool: at most ``max_size`` connections, a wait of at most ``timeout``."""

    server: Server

    def __init__(
        self, url: str, *, max_size: int, timeout: float, configure: Any, kwargs: dict[str, Any], **_: Any
    ) -> None:
        self.max_size, self.timeout, self.configure = max_size, timeout, configure
        self.application_name = kwargs["application_name"]
        self.idle: list[AsyncConnection] = []
        self.used = 0

    async def __aenter__(self) -> SimulatedPool:
        return self

    async def __aexit__(self, *_: Any) -> None:
        for connection in self.idle:
            connection.inner.shut()

    @contextlib.asynccontextmanager
    async def connection(self) -> Any:
        import asyncio

        waited = 0.0
        while self.used >= self.max_size:
            await asyncio.sleep(0.02)
            waited += 0.02
            if waited > self.timeout:
                raise PoolTimeout(f"couldn't get a connection after {self.timeout} sec")
        self.used += 1
        self.server.most_writers = max(self.server.most_writers, self.used)
        held: AsyncConnection | None = None
        try:
            self.idle = [each for each in self.idle if not each.inner.broken]
            while held is None:
                if self.idle:
                    held = self.idle.pop()
                    break
                made: AsyncConnection | None = None
                try:
                    made = AsyncConnection(await drive_async(opened(self.server, self.application_name, False)))
                    await asyncio.wait_for(self.configure(made), max(self.timeout - waited, 0.01))
                    made.inner.configured = True
                    held = made
                except asyncio.CancelledError:
                    if made is not None:
                        made.inner.shut()
                    raise
                except (psycopg.Error, OSError) as error:
                    if made is not None:
                        made.inner.shut()
                    await asyncio.sleep(0.5)
                    waited += 0.5
                    if waited > self.timeout:
                        raise PoolTimeout(f"couldn't get a connection after {self.timeout} sec") from error
            try:
                yield held
            except BaseException:
                with contextlib.suppress(psycopg.Error):
                    await held.rollback()
                raise
            else:
                if not held.inner.broken:
                    await held.commit()
        finally:
            self.used -= 1
            if held is not None and not held.inner.broken and held.inner.tx is None:
                self.idle.append(held)
            elif held is not None:
                held.inner.shut()
