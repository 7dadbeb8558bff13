"""A database that never existed: the statements the product sends for ingest, pause and ledger, with PostgreSQL's
semantics and seeded faults.

statements.py has the statements that it knows; one that it does not know raises: where the product's SQL changes, the
simulation says so. driver.py is psycopg in front of it. test_same_rules.py holds this server and a real PostgreSQL to
the same history.
"""

from __future__ import annotations

import contextlib
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

from meter_pipeline.ingest.tables import load
from meter_pipeline_tests.simulation.dispatch import handler_of
from meter_pipeline_tests.simulation.scheduler import Scheduler, current

Steps = Generator[float, None, Any]
Row = dict[str, Any]


#: Mean of each way of a statement. Slow beside a real network, so that a second of trouble finds something under way.
LATENCY_S: Final = 0.005


class Blocked(Exception):
    """A lock is held by another transaction: ask again later."""


@dataclass(slots=True)
class Faults:
    """Chances of what may go wrong, a statement or commit at a time. ``roles`` are the application names it is
    done to.
    """

    before: float = 0.0
    after_commit: float = 0.0
    hung_commit: float = 0.0
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

    def newest(self, key: Any) -> Version | None:
        """The newest version that is not undone, seen or not."""
        versions = self._live(key)
        return versions[-1] if versions else None

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
            row[name] = _value(
                body[at : at + size], _REGISTER.get(name, _TYPES[name]) if kind == "register" else _TYPES[name]
            )
            at += size
        rows.append(row)
    return rows


def _value(raw: bytes, kind: Any) -> Any:
    if isinstance(kind, pl.List):
        if len(raw) == 12:
            return []
        (size,) = struct.unpack_from(">i", raw, 12)
        widths: dict[Any, tuple[str, int]] = {pl.Int16: ("h", 2), pl.Int32: ("i", 4), pl.Int64: ("q", 8)}
        letter, width = widths[type(kind.inner) if not isinstance(kind.inner, type) else kind.inner]
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

    # -- transactions ------------------------------------------------------------------------------

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

    # -- locks -------------------------------------------------------------------------------------

    def take_advisory(self, key: Any, holder: Any) -> None:
        if self.advisory.get(key, holder) is not holder:
            raise Blocked
        self.advisory[key] = holder

    # -- statements --------------------------------------------------------------------------------

    def statement(self, connection: Connection, query: str, parameters: Any) -> Result:
        """Run one statement in the connection's transaction, all at once."""
        tx = connection.tx
        assert tx is not None
        if tx.failed:
            raise errors.InFailedSqlTransaction("current transaction is aborted")
        handler, found = handler_of(query)
        return handler(self, connection, tx, found, parameters)


@dataclass(slots=True)
class Result:
    """Rows of a statement and how many it touched."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rowcount: int = -1


_ERRORS: Final[dict[str, Callable[[], psycopg.Error]]] = {
    "reset": lambda: psycopg.OperationalError("consuming input failed: Connection reset by peer")
}


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
        self.hung = False
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
        if self.hung:
            return
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
        if isinstance(query, str) and query.startswith("SELECT epoch, pg_current"):
            self.server.batches.append(
                (self.server.scheduler.now, self.application_name, self.process.name)
            )  # a batch begins when it is sent
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
            struck = committed and not self.server.quiet and self.application_name.startswith(faults.roles)
            if struck and self.tx is not None and self.tx.xid is not None and rng.random() < faults.hung_commit:
                self.server.injected["COMMIT hangs, link reset"] += 1
                self.hung = self.was_cut = True
                self.server.scheduler.wake(self._zombie, rng.choice((1.0, 8.0, 70.0)))
                raise psycopg.OperationalError("consuming input failed: Connection reset by peer")
            self.server.finish(self, committed)
            self.committing = False
            if struck and rng.random() < faults.after_commit:
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
            if not self.hung:  # the server goes on committing, whoever has left
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
