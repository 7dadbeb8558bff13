"""A database that never existed: the statements the product sends for ingest, pause and ledger, with PostgreSQL's semantics and seeded faults.

Belongs here: transactions (READ COMMITTED, first writer wins, others wait), row and advisory locks, transaction ids and horizons, binary COPY,
partitions, and what may go wrong around each of them. Does not belong here: any decision of the product, whose own code sends every statement.

A statement that is not known here raises: where the product's SQL changes, the simulation says so. test_same_rules.py holds this server and a real
PostgreSQL to the same history.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import errors, sql
from psycopg_pool import PoolTimeout

from meter_pipeline.store import control as control_store
from meter_pipeline.store import load
from meter_pipeline_tests.simulation.scheduler import Killed, Scheduler, current, drive, drive_async

Steps = Generator[float, None, Any]
Row = dict[str, Any]


#: Mean of each way of a statement. Slow beside a real network, so that a second of trouble finds something under way.
LATENCY_S: Final = 0.005


class Blocked(Exception):
    """A lock is held by another transaction: ask again later."""


@dataclass(slots=True)
class Faults:
    """Chances of what may go wrong, a statement or commit at a time. ``roles`` are the application names it is done to."""

    before: float = 0.0
    after_commit: float = 0.0
    slow: float = 0.0
    refuse_connect: float = 0.0
    errors: tuple[type[psycopg.Error] | str, ...] = ("reset",)
    roles: tuple[str, ...] = ("ingest-writer",)


@dataclass(slots=True)
class Version:
    """One version of a row, and the transaction that made it."""

    xid: int
    data: Row | None


class Table:
    """Rows by key, with the versions other transactions still see."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rows: dict[Any, list[Version]] = {}

    def _live(self, key: Any) -> list[Version]:
        versions = self.rows.get(key, [])
        while versions and self.server.state.get(versions[-1].xid) == "aborted":
            versions.pop()
        return versions

    def get(self, key: Any, tx: Transaction | None) -> Row | None:
        """The newest version this transaction may see."""
        own = tx.xid if tx is not None else None
        for version in reversed(self._live(key)):
            if version.xid == own or self.server.state.get(version.xid) == "committed":
                return version.data
        return None

    def put(self, key: Any, data: Row | None, tx: Transaction) -> None:
        """Write a version; Blocked while another transaction's is in flight."""
        self.wait_free(key, tx)
        self.rows.setdefault(key, []).append(Version(self.server.assign(tx), data))

    def wait_free(self, key: Any, tx: Transaction) -> None:
        """Blocked where the newest version is another running transaction's."""
        versions = self._live(key)
        if versions and versions[-1].xid != tx.xid and self.server.state.get(versions[-1].xid) == "running":
            raise Blocked

    def scan(self, tx: Transaction | None = None) -> Iterator[tuple[Any, Row]]:
        """All rows that may be seen, in the order of their keys' first writing."""
        for key in list(self.rows):
            row = self.get(key, tx)
            if row is not None:
                yield key, row


@dataclass(slots=True)
class Transaction:
    """What a connection is doing between its first statement and its end."""

    xid: int | None = None
    failed: bool = False
    locks: set[Any] = field(default_factory=set)
    temporary: dict[str, list[Row]] = field(default_factory=dict)


_TYPES: Final[dict[str, Any]] = {**load.SCHEMA, "read_at": pl.Datetime("us", "UTC")}
_REGISTER: Final[dict[str, Any]] = {"quality": pl.Int16, "sequence": pl.Int32}
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


def decoded(body: bytes, columns: list[str], kind: str) -> list[Row]:
    """Rows of PostgreSQL's binary COPY format, header and trailer already off."""
    rows: list[Row] = []
    at = 0
    while at < len(body):
        (count,) = struct.unpack_from(">h", body, at)
        at += 2
        if count == -1:
            break
        row: Row = {}
        for name in columns:
            (size,) = struct.unpack_from(">i", body, at)
            at += 4
            if size < 0:
                row[name] = None
                continue
            row[name] = _value(body[at : at + size], _REGISTER.get(name, _TYPES[name]) if kind == "register" else _TYPES[name])
            at += size
        rows.append(row)
    return rows


def _value(raw: bytes, kind: Any) -> Any:
    if isinstance(kind, pl.List):
        if len(raw) == 12:
            return []
        (size,) = struct.unpack_from(">i", raw, 12)
        inner = {pl.Int16: ("h", 2), pl.Int32: ("i", 4), pl.Int64: ("q", 8)}[type(kind.inner) if not isinstance(kind.inner, type) else kind.inner]
        letter, width = inner
        return list(struct.unpack(">" + ("i" + letter) * size, raw[20 : 20 + size * (4 + width)]))[1::2]
    if isinstance(kind, pl.Datetime):
        return _EPOCH + timedelta(microseconds=struct.unpack(">q", raw)[0])
    match kind:
        case pl.Date:
            return date.fromordinal(_EPOCH_DAY + struct.unpack(">i", raw)[0])
        case pl.Int16:
            return struct.unpack(">h", raw)[0]
        case pl.Int32:
            return struct.unpack(">i", raw)[0]
        case pl.Int64:
            return struct.unpack(">q", raw)[0]
        case pl.String:
            return raw.decode()
        case pl.Binary:
            return raw
    raise AssertionError(f"no decoding of {kind}")


def text_of(query: Any) -> str:
    """A statement as text, white space made one."""
    if isinstance(query, sql.Composable):
        query = query.as_string(None)
    if isinstance(query, bytes):
        query = query.decode()
    return " ".join(query.split())


class Server:
    """The committed state, the locks, the weather."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, faults: Faults | None = None) -> None:
        self.scheduler, self.rng = scheduler, rng
        self.faults = faults or Faults()
        self.state: dict[int, str] = {}
        self.next_xid = 1000
        self.tables: dict[str, Table] = {}
        self.partitions: dict[str, str] = {}
        self.sequences: Counter[str] = Counter()
        self.share: dict[Any, set[int]] = {}
        self.advisory: dict[Any, Any] = {}
        self.connections: list[Connection] = []
        self.down_until = 0.0
        self.frozen_until = 0.0
        self.zombies: list[Callable[[], None]] = []
        self.pauses: list[tuple[float, float, str | None]] = []
        self.batches: list[tuple[float, str, str]] = []
        self.most_writers = 0
        self.longest_wait = 0.0
        self.injected: Counter[str] = Counter()
        self.quiet = False
        self.acknowledged: list[tuple[float, str]] = []

    def table(self, name: str) -> Table:
        if name not in self.tables:
            self.tables[name] = Table(self)
        return self.tables[name]

    # -- transactions ---------------------------------------------------------------------------------------------------------------

    def assign(self, tx: Transaction) -> int:
        if tx.xid is None:
            tx.xid = self.next_xid
            self.next_xid += 1
            self.state[tx.xid] = "running"
        return tx.xid

    def finish(self, connection: Connection, committed: bool) -> None:
        """End a connection's transaction."""
        tx, connection.tx = connection.tx, None
        if tx is None:
            return
        if tx.xid is not None:
            self.state[tx.xid] = "committed" if committed and not tx.failed else "aborted"
            for holders in self.share.values():
                holders.discard(tx.xid)
        for key in tx.locks:
            self.advisory.pop(key, None)

    def horizon(self) -> int:
        running = [xid for xid, state in self.state.items() if state == "running"]
        return min(running, default=self.next_xid)

    def drop(self, connection: Connection) -> None:
        """The server notices that a client is gone."""
        self.finish(connection, False)
        for key in [key for key, holder in self.advisory.items() if holder is connection]:
            del self.advisory[key]
        connection.gone = True
        if connection in self.connections:
            self.connections.remove(connection)

    def crash(self, seconds: float) -> None:
        """SIGKILL of the whole server; it is back after recovery."""
        self.injected["server killed"] += 1
        for connection in list(self.connections):
            self.drop(connection)
        self.down_until = self.scheduler.now + seconds
        self.frozen_until = 0.0
        self.zombies.clear()

    def terminate(self, application_name: str) -> None:
        """pg_terminate_backend of one session of that name, where there is one."""
        found = [each for each in self.connections if each.application_name.startswith(application_name)]
        if found:
            self.injected["session terminated"] += 1
            self.drop(self.rng.choice(found))

    def freeze(self, seconds: float) -> None:
        """SIGSTOP: nothing answers, nothing breaks."""
        self.injected["server stopped"] += 1
        self.frozen_until = max(self.frozen_until, self.scheduler.now + seconds)
        self.scheduler.wake(self._thaw, seconds)

    def _thaw(self) -> None:
        if self.scheduler.now >= self.frozen_until:
            zombies, self.zombies = self.zombies, []
            for call in zombies:
                call()

    # -- locks ----------------------------------------------------------------------------------------------------------------------

    def take_advisory(self, key: Any, holder: Any) -> None:
        if self.advisory.get(key, holder) is not holder:
            raise Blocked
        self.advisory[key] = holder

    # -- statements -----------------------------------------------------------------------------------------------------------------

    def statement(self, connection: Connection, query: str, parameters: Any) -> Result:
        """Run one statement in the connection's transaction, all at once."""
        tx = connection.tx
        assert tx is not None
        if tx.failed:
            raise errors.InFailedSqlTransaction("current transaction is aborted")
        for pattern, handler in STATEMENTS:
            found = pattern.match(query)
            if found is not None:
                return handler(self, connection, tx, found, parameters)
        raise AssertionError(f"the simulated server does not know: {query[:300]}")


@dataclass(slots=True)
class Result:
    """Rows of a statement and how many it touched."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rowcount: int = -1


_ERRORS: Final[dict[str, Callable[[], psycopg.Error]]] = {"reset": lambda: psycopg.OperationalError("consuming input failed: Connection reset by peer")}


class Connection:
    """One client connection, synchronous or asynchronous: the operations as steps that yield virtual seconds."""

    def __init__(self, server: Server, application_name: str, autocommit: bool) -> None:
        self.server, self.application_name, self.autocommit = server, application_name, autocommit
        self.process = current()
        self.tx: Transaction | None = None
        self.gone = False
        self.was_cut = False
        self.closed = False
        self.lock_timeout: float | None = None
        self.deadline: float | None = None
        self.committing = False
        self.configured = False
        self.nested = 0
        self.row_factory: Any = None
        server.connections.append(self)
        self.process.on_kill.append(self._killed)
        self.info = type("Info", (), {"user": "simulated", "backend_pid": id(self)})()

    @property
    def broken(self) -> bool:
        return self.gone or self.was_cut

    def _killed(self) -> None:
        """The client died: what it was committing may have arrived, everything else rolls back."""
        if self.committing and self.server.rng.random() < 0.5 and not self.gone:
            self.server.finish(self, True)
        self.server.drop(self)

    def cut(self) -> None:
        """The watchdog shut the socket; what was sent may still be done when the server wakes up."""
        self.server.injected["watchdog cut"] += 1
        self.was_cut = True
        if self.committing and not self.gone and self.server.rng.random() < 0.5:
            self.server.zombies.append(self._zombie)
        else:
            self.server.zombies.append(lambda: self.server.drop(self))
        if self.server.scheduler.now >= self.server.frozen_until:
            self.server._thaw()

    def _zombie(self) -> None:
        if not self.gone:
            self.server.finish(self, True)
            self.server.drop(self)

    def _alive(self) -> None:
        self.process.step()
        if self.gone or self.was_cut or self.closed:
            raise psycopg.OperationalError("the connection is lost")

    def _travel(self) -> Steps:
        """The way to the server and its present state of health."""
        server, rng = self.server, self.server.rng
        began = server.scheduler.now
        yield rng.expovariate(1 / LATENCY_S)
        self._alive()
        while server.scheduler.now < server.frozen_until:
            yield min(0.5, server.frozen_until - server.scheduler.now)
            if self.deadline is not None and server.scheduler.now - began >= self.deadline and not self.was_cut:
                self.cut()
            self._alive()
        if self.configured:
            server.longest_wait = max(server.longest_wait, server.scheduler.now - began)
        if not server.quiet and self.application_name.startswith(server.faults.roles):
            if rng.random() < server.faults.slow:
                server.injected["slow"] += 1
                yield rng.uniform(0.2, 3.0)
                self._alive()
            if rng.random() < server.faults.before:
                self._fail(rng.choice(server.faults.errors))

    def _fail(self, kind: type[psycopg.Error] | str) -> None:
        self.server.injected[kind if isinstance(kind, str) else kind.__name__] += 1
        if kind == "reset":
            self.server.drop(self)
            raise _ERRORS["reset"]()
        assert not isinstance(kind, str)
        if issubclass(kind, errors.AdminShutdown):
            self.server.drop(self)
        elif self.tx is not None:
            self.tx.failed = True
        raise kind("injected")

    def run(self, query: Any, parameters: Any = None) -> Steps:
        """A statement, waiting for locks as long as lock_timeout allows."""
        if isinstance(query, str) and query.startswith("SELECT epoch FROM raw.day_load"):
            self.server.batches.append((self.server.scheduler.now, self.application_name, self.process.name))  # a batch begins when it is sent
        return self._run(lambda: self.server.statement(self, text_of(query), parameters))

    def _run(self, act: Callable[[], Result]) -> Steps:
        self._alive()
        yield from self._travel()
        own = self.autocommit and self.tx is None and not self.nested
        if self.tx is None:
            self.tx = Transaction()
        waited = 0.0
        while True:
            try:
                result = act()
                break
            except Blocked:
                limit = self.lock_timeout
                if limit is not None and waited >= limit:
                    self.tx.failed = True
                    if own:
                        self.server.finish(self, False)
                    raise errors.LockNotAvailable("canceling statement due to lock timeout") from None
                pause = 0.01 if waited < 1 else 0.25
                yield pause
                waited += pause
                self._alive()
                if self.tx is None:
                    raise psycopg.OperationalError("the connection is lost") from None
            except psycopg.Error:
                self.tx.failed = True
                if own:
                    self.server.finish(self, False)
                raise
        if own:
            self.server.finish(self, True)
        yield self.server.rng.expovariate(1 / LATENCY_S)
        self._alive()
        return result

    def end(self, committed: bool) -> Steps:
        """COMMIT or ROLLBACK."""
        if self.tx is None:
            return
        self._alive()
        self.committing = committed
        try:
            yield from self._travel()
            faults, rng = self.server.faults, self.server.rng
            self.server.finish(self, committed)
            self.committing = False
            if committed and not self.server.quiet and self.application_name.startswith(faults.roles) and rng.random() < faults.after_commit:
                self.server.injected["reply of COMMIT lost"] += 1
                self.server.drop(self)
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            yield rng.expovariate(1 / LATENCY_S)
            self._alive()
        finally:
            self.committing = False

    def shut(self) -> None:
        """Close from the client's side."""
        if not self.closed:
            self.closed = True
            self.server.drop(self)
            with contextlib.suppress(ValueError):
                self.process.on_kill.remove(self._killed)

    def copied(self, query: Any, body: bytes) -> Steps:
        """The rows of one COPY."""
        found = re.match(r'COPY (?:"(\w+)"\.)?"?(\w+)"? \((.*?)\) FROM STDIN', text_of(query))
        assert found is not None, text_of(query)
        schema, name, listed = found.groups()
        columns = [each.strip().strip('"') for each in listed.split(",")]
        kind = "register" if "register" in name else "interval"
        rows = decoded(body, columns, kind)

        def act() -> Result:
            assert self.tx is not None
            if self.tx.failed:
                raise errors.InFailedSqlTransaction("current transaction is aborted")
            for row in rows:
                check_row(kind, row)
            if schema is None:
                self.tx.temporary.setdefault(name, []).extend(rows)
                return Result()
            partition = f"{schema}.{name}"
            if partition not in self.server.partitions:
                raise errors.UndefinedTable(partition)
            table = self.server.table(partition)
            for row in rows:
                self.server.sequences["heap"] += 1
                table.put(("heap", self.server.sequences["heap"]), row, self.tx)
            return Result(rowcount=len(rows))

        return self._run(act)


def check_row(kind: str, row: Row) -> None:
    """The table's CHECK constraints that a payload can break."""
    if kind == "register" and row.get("value") is not None and abs(row["value"]) > 10**16:
        raise errors.CheckViolation("new row violates check constraint register_read_value_check")
    if row.get("payload_hash") is not None and len(row["payload_hash"]) != 32:
        raise errors.CheckViolation("payload_hash")


# -- the two faces ------------------------------------------------------------------------------------------------------------------------


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
        if not self.inner.broken:
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
    if not server.quiet and application_name.startswith(server.faults.roles) and server.rng.random() < server.faults.refuse_connect:
        server.injected["too many connections"] += 1
        raise errors.TooManyConnections("sorry, too many clients already")
    return Connection(server, application_name, autocommit)


class SimulatedDatabase:
    """Stands for store.database.Database."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = "simulated"
        self.session_options = ""

    def connect(self, application_name: str = "meter-pipeline", *, autocommit: bool = False, role: str | None = None) -> SyncConnection:
        return SyncConnection(drive(opened(self.server, application_name, autocommit)))

    async def connect_async(self, application_name: str = "meter-pipeline", *, autocommit: bool = False, role: str | None = None) -> AsyncConnection:
        return AsyncConnection(await drive_async(opened(self.server, application_name, autocommit)))

    def read(self, query: str, parameters: Any = ()) -> pl.DataFrame:
        raise AssertionError(f"no Arrow here: {query[:100]}")


class SimulatedPool:
    """Stands for psycopg_pool.AsyncConnectionPool: at most ``max_size`` connections, a wait of at most ``timeout``."""

    server: Server

    def __init__(self, url: str, *, max_size: int, timeout: float, configure: Any, kwargs: dict[str, Any], **_: Any) -> None:
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


# -- the statements -----------------------------------------------------------------------------------------------------------------------

Handler = Callable[[Server, Connection, Transaction, "re.Match[str]", Any], Result]
STATEMENTS: list[tuple[re.Pattern[str], Handler]] = []


def on(pattern: str) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        STATEMENTS.append((re.compile(pattern), handler))
        return handler

    return keep


@on(r"SELECT epoch FROM raw\.day_load WHERE billing_day = %s FOR SHARE")
def _share(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.day_load")
    table.wait_free(p[0], tx)
    row = table.get(p[0], tx)
    server.share.setdefault(p[0], set()).add(server.assign(tx))
    return Result([(row["epoch"],)] if row else [])


@on(r"INSERT INTO raw\.day_load AS d")
def _take(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    day = p[0]
    if any(xid != tx.xid and server.state.get(xid) == "running" for xid in server.share.get(day, ())):
        raise Blocked
    table = server.table("raw.day_load")
    table.wait_free(day, tx)
    was = table.get(day, None) or {"epoch": 0}
    table.put(day, {"epoch": was["epoch"] + 1, "holder": p[1]}, tx)
    return Result([(was["epoch"] + 1,)], 1)


@on(r"INSERT INTO ledger\.entry ")
def _entry(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    kind, body, leaf_hash, leaf_count, leaves, day = p
    if hashlib.sha256(b"\0" + body).digest() != leaf_hash or len(leaves or b"") != 32 * leaf_count:
        raise errors.CheckViolation("entry_leaf_hash_is_of_body")
    server.sequences["entry"] += 1
    number = server.sequences["entry"]
    row = {"entry_id": number, "kind": kind, "body": bytes(body), "leaf_hash": leaf_hash, "leaves": bytes(leaves or b""), "day": day, "xid": server.assign(tx)}
    server.table("ledger.entry").put(number, row, tx)
    return Result([(number,)], 1)


@on(r"INSERT INTO raw\.load_batch ")
def _claim(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    sha256, day, kind, first, ranges, accepted, duplicate, superseded, rejected, entries = p
    table, key = server.table("raw.load_batch"), (sha256, day, kind, first)
    table.wait_free(key, tx)
    if table.get(key, tx) is not None:
        return Result([], 0)
    spans = [tuple(int(n) for n in span.split(",")) for span in re.findall(r"\[(\d+,\d+)\)", ranges)]
    row = {
        "sha256": sha256, "billing_day": day, "kind": kind, "rows": spans, "accepted": accepted, "duplicate": duplicate, "superseded": superseded,
        "rejected": rejected, "entries": list(entries),
    }  # fmt: skip
    table.put(key, row, tx)
    return Result([], 1)


@on(r'INSERT INTO "raw"\."(\w+)" \((.*?)\) SELECT .*? FROM "(incoming_\w+)" ON CONFLICT \((.*?)\) DO UPDATE')
def _upsert(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    table = f"raw.{found[1]}"
    key = [each.strip().strip('"') for each in found[4].split(",")]
    rows = tx.temporary.pop(found[3], [])
    for row in rows:
        _partition(server, table, row["billing_day"]).wait_free(tuple(row[c] for c in key[1:]), tx)
    for row in rows:
        _partition(server, table, row["billing_day"]).put(tuple(row[c] for c in key[1:]), dict(row), tx)
    return Result([], len(rows))


@on(r'INSERT INTO "raw"\."(\w+)" \((.*?)\) SELECT .*? FROM "(incoming_\w+)" ON CONFLICT DO NOTHING')
def _keep(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    table = f"raw.{found[1]}"
    key = ("meter_id", "channel", "payload_hash") if "interval" in table else ("meter_id", "channel", "read_at", "payload_hash")
    rows = tx.temporary.pop(found[3], [])
    for row in rows:
        _partition(server, table, row["billing_day"]).wait_free(tuple(row[c] for c in key), tx)
    for row in rows:
        part = _partition(server, table, row["billing_day"])
        if part.get(tuple(row[c] for c in key), tx) is None:
            part.put(tuple(row[c] for c in key), dict(row), tx)
    return Result([], len(rows))


def _partition(server: Server, table: str, day: date) -> Table:
    name = f"{table}_{day:%Y%m%d}"
    if server.partitions.get(name) != "attached":
        raise errors.CheckViolation(f'no partition of relation "{table}" found for row')
    return server.table(name)


@on(r'TRUNCATE "(incoming_\w+)"')
def _truncate(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    tx.temporary.pop(found[1], None)
    return Result()


@on(r'SELECT ((?:"\w+"(?:, )?)+) FROM (raw\.\w+) WHERE billing_day = %s AND \((.*?)\) IN')
def _read(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    columns = [each.strip().strip('"') for each in found[1].split(",")]
    key = [each.strip() for each in found[3].split(",")]
    wanted = set(zip(*p[1:], strict=True))
    name = f"{found[2]}_{p[0]:%Y%m%d}"
    if server.partitions.get(name) != "attached":
        return Result()
    rows = [row for _, row in server.table(name).scan(tx) if tuple(row[c] for c in key) in wanted]
    return Result([tuple(row[c] for c in columns) for row in rows])


@on(r"SELECT raw\.open_partition\(%s::regclass, %s\)")
def _open(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    name = f"{p[0]}_{p[1]:%Y%m%d}"
    state = server.partitions.get(name)
    if state is None:
        server.partitions[name] = "open"
        return Result([("created",)])
    return Result([(state,)])


@on(r"SELECT raw\.attach_partition\(%s::regclass, %s\)")
def _attach(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    name = f"{p[0]}_{p[1]:%Y%m%d}"
    if server.partitions.get(name) == "attached":
        return Result([(False,)])
    table = server.table(name)
    if any(versions and server.state.get(versions[-1].xid) == "running" for versions in table.rows.values()):
        raise Blocked
    history = p[0].endswith("_payload")
    key = (["meter_id", "channel"] if "interval" in p[0] else ["meter_id", "channel", "read_at"]) + (["payload_hash"] if history else [])
    made: dict[Any, list[Version]] = {}
    for _, row in list(table.scan(None)):
        at = tuple(row[c] for c in key)
        if at in made:
            raise errors.UniqueViolation(f"could not create unique index of {name}: {at} is duplicated")
        made[at] = [Version(0, row)]
    server.state[0] = "committed"
    table.rows = made
    server.partitions[name] = "attached"
    return Result([(True,)])


@on(r"SELECT NOT EXISTS \(SELECT FROM pg_inherits")
def _is_open(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    state = server.partitions.get(p[0])
    return Result([(state == "open",)] if state else [])


@on(r"SELECT pg_advisory_lock\(%s, %s\)")
def _day_lock(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.take_advisory(("session", *p), connection)
    return Result([(None,)])


@on(r"SELECT pg_advisory_xact_lock\(%s\)")
def _xact_lock(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.take_advisory(("xact", *p), tx)
    tx.locks.add(("xact", *p))
    return Result([(None,)])


@on(r"SELECT set_config\('lock_timeout'")
def _lock_timeout(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    connection.lock_timeout = float(p[0].removesuffix("ms")) / 1000 if p else None
    return Result([(None,)])


@on(r"CREATE TEMPORARY TABLE IF NOT EXISTS|CREATE TEMPORARY TABLE incoming_letter|DROP TABLE incoming_letter")
def _nothing(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result()


@on(r"SET lock_timeout = '5s'; SET statement_timeout")
def _session(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    connection.lock_timeout = 5.0
    return Result()


_FILE: Final = (
    "sha256", "file_name", "head_end", "commodity", "file_format", "bytes", "archive_path", "landed_at", "received", "rejected", "dead_letters", "refused",
    "run_id", "replay_of", "ledger_entry",
)  # fmt: skip
_DAY: Final = (
    "sha256", "billing_day", "staged_path", "staged_sha256", "received", "interval_rows", "register_rows", "duplicate_in_file", "superseded_in_file",
)  # fmt: skip


@on(r"SELECT sha256, file_name, .* FROM raw\.feed_file WHERE sha256 = %s")
def _known(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("raw.feed_file").get(p[0], tx)
    return Result([tuple(row[c] for c in _FILE)] if row else [])


@on(r"INSERT INTO raw\.feed_file \(")
def _register(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file")
    table.wait_free(p[0], tx)
    if table.get(p[0], tx) is not None:
        return Result([], 0)
    table.put(p[0], dict(zip(_FILE, p, strict=True)), tx)
    return Result([], 1)


@on(r"INSERT INTO raw\.feed_file_day \(")
def _file_day(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    if server.table("raw.feed_file_day").get((p[0], p[1]), tx) is not None:
        raise errors.UniqueViolation("feed_file_day_pkey")
    nothing = dict.fromkeys(("accepted", "duplicate", "superseded", "rejected", "loaded_at"))
    server.table("raw.feed_file_day").put((p[0], p[1]), {**dict(zip(_DAY, p, strict=True)), **nothing}, tx)
    return Result([], 1)


@on(r"UPDATE raw\.feed_file SET ledger_entry")
def _file_entry(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file")
    row = table.get(p[1], tx)
    assert row is not None
    table.put(p[1], row | {"ledger_entry": p[0]}, tx)
    return Result([], 1)


@on(r"INSERT INTO raw\.feed_file_arrival AS a")
def _arrival(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.feed_file_arrival")
    table.wait_free((p[0], p[1]), tx)
    was = table.get((p[0], p[1]), tx) or {"times": 0}
    table.put((p[0], p[1]), {"times": was["times"] + 1, "duplicate": p[4]}, tx)
    return Result([], 1)


@on(r"SELECT d\.sha256, d\.billing_day, .* FROM raw\.feed_file_day AS d JOIN raw\.feed_file AS f USING \(sha256\) WHERE d\.billing_day = %s AND d\.loaded_at IS NULL")
def _waiting(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    found = []
    for (sha256, day), row in server.table("raw.feed_file_day").scan(tx):
        if day == p[0] and row["loaded_at"] is None:
            file = server.table("raw.feed_file").get(sha256, tx)
            assert file is not None
            whole = row | file | {"received": row["received"]}
            order = (
                "sha256", "billing_day", "staged_path", "staged_sha256", "received", "duplicate_in_file", "superseded_in_file", "head_end", "commodity",
                "file_format", "file_name", "archive_path",
            )  # fmt: skip
            found.append((file["landed_at"], sha256, tuple(whole[c] for c in order)))
    return Result([row for _, _, row in sorted(found)])


@on(r"SELECT b\.sha256, b\.kind, lower\(r\), upper\(r\) FROM raw\.load_batch AS b JOIN raw\.feed_file_day")
def _loaded(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows = []
    for (sha256, day, kind, _first), row in server.table("raw.load_batch").scan(tx):
        file_day = server.table("raw.feed_file_day").get((sha256, day), tx)
        if day == p[0] and file_day is not None and file_day["loaded_at"] is None:
            rows.extend((sha256, kind, low, high) for low, high in row["rows"])
    return Result(sorted(rows))


@on(r"UPDATE raw\.feed_file_day AS d SET loaded_at")
def _finish(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    at, sha256, day = p[:3]
    table = server.table("raw.feed_file_day")
    table.wait_free((sha256, day), tx)
    row = table.get((sha256, day), tx)
    assert row is not None
    total: Counter[str] = Counter()
    for (file, on_day, _kind, _first), batch in server.table("raw.load_batch").scan(tx):
        if (file, on_day) == (sha256, day):
            total.update({c: batch[c] for c in ("accepted", "duplicate", "superseded", "rejected")})
    row = row | {
        "loaded_at": at, "accepted": total["accepted"], "duplicate": total["duplicate"] + row["duplicate_in_file"],
        "superseded": total["superseded"] + row["superseded_in_file"], "rejected": total["rejected"],
    }  # fmt: skip
    table.put((sha256, day), row, tx)
    return Result([tuple(row[c] for c in ("received", "accepted", "duplicate", "superseded", "rejected"))], 1)


def totals(server: Server, tx: Transaction | None) -> list[tuple[Any, ...]]:
    """raw.control_total."""
    rows = []
    for sha256, file in server.table("raw.feed_file").scan(tx):
        days = [row for (file_sha, _), row in server.table("raw.feed_file_day").scan(tx) if file_sha == sha256]
        done = [row for row in days if row["loaded_at"] is not None]
        said = [sum(row[c] for row in done) for c in ("accepted", "duplicate", "superseded", "rejected")]
        waiting = sum(row["received"] for row in days if row["loaded_at"] is None)
        rejected = file["rejected"] + said[3]
        balanced = file["received"] == sum(said[:3]) + rejected + waiting
        rows.append((sha256, file["file_name"], file["head_end"], file["landed_at"], file["received"], *said[:3], rejected, waiting, balanced))
    return rows


@on(r"SELECT c\.sha256, c\.file_name, .* FROM raw\.control_total AS c")
def _totals(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result(totals(server, tx))


@on(r"UPDATE raw\.breaker SET state = 'closed'")
def _close_breaker(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.breaker")
    table.wait_free(p[2], tx)
    row = table.get(p[2], tx)
    if row is None or row["state"] == "closed":
        return Result([], 0)
    table.put(p[2], {"state": "closed", "until": 0.0}, tx)
    return Result([], 1)


@on(r"INSERT INTO raw\.breaker AS b")
def _note_breaker(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("raw.breaker")
    table.wait_free(p["name"], tx)
    was = table.get(p["name"], tx) or {"until": 0.0}
    until = max(was["until"], server.scheduler.now + p["open_s"]) if p["state"] == "open" else 0.0
    table.put(p["name"], {"state": p["state"], "until": until}, tx)
    return Result([], 1)


@on(r"SELECT greatest\(extract\(epoch FROM open_until")
def _open_for(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("raw.breaker").get(p[0], tx)
    return Result([(max(row["until"] - server.scheduler.now, 0.0),)] if row and row["state"] == "open" else [])


@on(r"SELECT CASE WHEN state LIKE 'idle in transaction")
def _waits(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result()


@on(r"INSERT INTO control\.observation AS o")
def _observe(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    server.table("control.observation").put((p[0], p[1]), {"at": p[2]}, tx)
    return Result([], 1)


@on(re.escape(" ".join(control_store.ACTIVE.split())) + "$")
def _active(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    scopes = (("all", None), ("commodity", p["commodity"]), ("head_end", p["head_end"]))
    for number, row in server.table("control.emergency_pause").scan(tx):
        if row["state"] == "paused" and (row["scope"], row["target"]) in scopes:
            at = datetime(2024, 4, 1, tzinfo=UTC)
            return Result([(number, row["scope"], row["target"], "paused", "simulated", None, {}, "pat", at, None, None, None, None, None)])
    return Result()


@on(r"WITH written AS \(INSERT INTO raw\.dead_letter AS d")
def _letters(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    fresh = 0
    rows = tx.temporary.pop("incoming_letter", [])
    for row in rows:
        server.table("raw.dead_letter").wait_free(row["dead_letter_key"], tx)
    for row in rows:
        fresh += _letter(server, tx, row)
    return Result([(fresh,)])


@on(r"INSERT INTO raw\.dead_letter AS d \((.*?)\) VALUES")
def _letter_few(server: Server, connection: Connection, tx: Transaction, found: Any, p: Any) -> Result:
    columns = [each.strip().strip('"') for each in found[1].split(",")]
    return Result([], _letter(server, tx, dict(zip(columns, p, strict=True))) or 1)


def _letter(server: Server, tx: Transaction, row: Row) -> int:
    table, key = server.table("raw.dead_letter"), row["dead_letter_key"]
    was = table.get(key, tx)
    table.put(key, (was or row) | {"times": (was["times"] if was else 0) + 1}, tx)
    return was is None


@on(r"SELECT origin FROM ledger\.log")
def _log(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    row = server.table("ledger.log").get("log", tx)
    return Result([(row["origin"],)] if row else [])


@on(r"INSERT INTO ledger\.log")
def _new_log(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.log")
    table.wait_free("log", tx)
    if table.get("log", tx) is None:
        table.put("log", {"origin": p[0] + "/00000000"}, tx)
    return Result([], 1)


@on(r"SELECT tree_size, root_hash, horizon::text::bigint AS horizon, cluster_id FROM ledger\.tree_head ORDER BY tree_size DESC LIMIT 1")
def _head(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    rows = [(size, row["root"], row["horizon"], row["cluster"]) for size, row in server.table("ledger.tree_head").scan(tx)]
    return Result([max(rows)] if rows else [])


@on(r"SELECT pg_snapshot_xmin\(pg_current_snapshot\(\)\)")
def _horizon(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    return Result([(server.horizon(), 7)])


@on(r"SELECT e\.entry_id, e\.leaf_hash FROM ledger\.entry e WHERE e\.xid >=")
def _unsequenced(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    placed = {row["entry_id"] for _, row in server.table("ledger.leaf").scan(tx)}
    rows = [row for _, row in server.table("ledger.entry").scan(tx) if row["xid"] >= int(p[0]) and row["entry_id"] not in placed]
    return Result([(row["entry_id"], row["leaf_hash"]) for row in sorted(rows, key=lambda row: (row["xid"], row["entry_id"]))])


@on(r"INSERT INTO ledger\.leaf ")
def _leaves(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    first, numbers, hashes = p
    table = server.table("ledger.leaf")
    placed = {row["entry_id"] for _, row in table.scan(tx)}
    for at in range(len(numbers)):
        table.wait_free(first + at, tx)
    for at, (number, leaf) in enumerate(zip(numbers, hashes, strict=True)):
        if table.get(first + at, tx) is not None or number in placed:
            raise errors.UniqueViolation("leaf_pkey")
        table.put(first + at, {"entry_id": number, "hash": bytes(leaf)}, tx)
    return Result([], len(numbers))


@on(r"INSERT INTO ledger\.node ")
def _nodes(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    for level, index, node in zip(*p, strict=True):
        server.table("ledger.node").put((level, index), {"hash": bytes(node)}, tx)
    return Result([], len(p[0]))


@on(r"INSERT INTO ledger\.tree_head ")
def _new_head(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.tree_head")
    table.wait_free(p[0], tx)
    if table.get(p[0], tx) is not None:
        raise errors.UniqueViolation("tree_head_pkey")
    table.put(p[0], {"root": bytes(p[1]), "horizon": int(p[2]), "cluster": p[3]}, tx)
    return Result([], 1)


@on(r"SELECT leaf_hash FROM ledger\.leaf WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index")
def _leaf_range(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.leaf")
    rows = [table.get(index, tx) for index in range(p[0], p[1])]
    return Result([(row["hash"],) for row in rows if row is not None])


@on(r"SELECT node_hash FROM ledger\.node WHERE level = %s")
def _node_range(server: Server, connection: Connection, tx: Transaction, _: Any, p: Any) -> Result:
    table = server.table("ledger.node")
    rows = [table.get((p[0], index), tx) for index in range(p[1], p[2])]
    return Result([(row["hash"],) for row in rows if row is not None])
