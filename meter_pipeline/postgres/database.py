"""The database as the rest of the product sees it: connections, and frames read back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from meter_pipeline.postgres import kept_sessions
from meter_pipeline.settings import Settings

if TYPE_CHECKING:
    import polars as pl

#: Every session: UTC whatever the server's default, and a cut after 5 s on connecting so that a dead server is found
# before a timeout cascades.
_SESSION = "-c TimeZone=UTC -c DateStyle=ISO"
CONNECT_TIMEOUT_S = 5
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Read(Protocol):
    """A query with its parameters in, a frame out."""

    def __call__(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame: ...


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL database by its libpq URL. Holds no connection: cheap to pass about and to pickle.

    ``role`` is what every session acts as (SET ROLE by a start-up option), so that a stage has no more than its own
    rights whatever the log-in's.
    """

    url: str
    role: str | None = None

    def acting_as(self, role: str | None) -> Database:
        """The same database, every session of it in a role. Raises ValueError for a text that is no role's name."""
        if role is not None and not _ROLE.fullmatch(role):
            raise ValueError(f"{role!r} is not a role: lower-case letters, digits and _ only")
        return Database(self.url, role)

    @property
    def session_options(self) -> str:
        """libpq's options for a session here: UTC, ISO dates, the role."""
        return _SESSION if self.role is None else f"{_SESSION} -c role={self.role}"

    def connect(
        self, application_name: str = "meter-pipeline", *, autocommit: bool = False, role: str | None = None
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A session as new, in ``role`` where one is given instead of the database's own. Closed, it is kept for the
        next (kept_sessions.py)."""
        options = self.session_options if role is None else self.acting_as(role).session_options
        return kept_sessions.connect(self.url, options, application_name, CONNECT_TIMEOUT_S, autocommit=autocommit)

    async def connect_async(
        self, application_name: str = "meter-pipeline", *, autocommit: bool = False
    ) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """As connect, for asyncio."""
        return await psycopg.AsyncConnection.connect(
            self.url,
            application_name=application_name,
            autocommit=autocommit,
            options=self.session_options,
            connect_timeout=CONNECT_TIMEOUT_S,
        )

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """A query's result as a frame, through Arrow: 2.3 million rows a second against 0.45 by cursor rows.

        Parameters are $1, $2 ... as PostgreSQL writes them; numeric columns arrive as text, so cast them in the query.
        """
        from meter_pipeline.postgres import arrow  # 0.4 s of imports that a command of a few rows does without

        url = self.with_options(options=self.session_options)
        pooled = arrow.kept(url)
        try:
            return arrow.fetch(pooled, query, parameters)
        except Exception as error:
            arrow.forget()
            if not _is_gone(error):
                raise
            # The server was restarted since the last read: what was only read may be read again.
            return arrow.fetch(arrow.kept(url), query, parameters)

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """A query's few rows as dictionaries, without Polars: for commands that answer in a line or a table.

        Parameters are $1, $2 ...; numeric columns arrive as Decimal.
        """
        with self.connect() as connection, psycopg.RawCursor(connection, row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Read]:
        """``read``, for callers that say outright that they read several times over one connection."""
        yield self.read

    def with_options(self, **options: str) -> str:
        """The URL with more libpq options in its query part."""
        parts = urlsplit(self.url)
        query = dict(parse_qsl(parts.query)) | options
        return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote, safe="/")))

    def sibling(self, name: str) -> Database:
        """The same server, another database."""
        parts = urlsplit(self.url)
        return Database(urlunsplit(parts._replace(path=f"/{name}")))

    @property
    def name(self) -> str:
        """The database's name."""
        return urlsplit(self.url).path.lstrip("/")

    @property
    def safe_url(self) -> str:
        """The URL without its password, for logs. Of its options it keeps those that say which server it is."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")
        user = host[0].partition(":")[0]
        where = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k in ("host", "port", "service")], safe="/")
        server = f"{parts.scheme}://{user}@{host[2]}" if host[0] else f"{parts.scheme}://{host[2]}"
        return f"{server}{parts.path}{'?' if where else ''}{where}"


_GONE = (
    "server closed the connection",
    "no connection to the server",
    "57P01",
    "57P02",
    "57P03",
    "terminating connection",
    "Connection refused",
    "the database system is",
    "No such file or directory",
)


def _is_gone(error: BaseException) -> bool:
    text = str(error)
    return any(sign in text for sign in _GONE)


def connection_lost(error: BaseException) -> bool:
    """Whether an error says that the server went away (restarted, killed, unreachable), and nothing of the work
    itself.
    """
    if isinstance(error, psycopg.OperationalError):
        return error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
    # ADBC's errors have no class of their own for it; where a stream breaks off, pyarrow raises what libpq said as an
    # OSError.
    return (type(error).__module__.startswith("adbc_driver") or "[libpq]" in str(error)) and _is_gone(error)


def open_database(settings: Settings) -> Database:
    """The configured server's database, or the embedded one, started and with its database made."""
    if settings.database_url:
        return Database(settings.database_url)
    from meter_pipeline.postgres import embedded

    server = embedded.cluster(settings.home)
    server.start()
    ensure_database(Database(server.url("postgres")), embedded.DATABASE)
    return Database(server.url())


def ensure_database(maintenance: Database, name: str) -> Database:
    """Create a database if it is not there."""
    with maintenance.connect(autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
        if not found:
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            # Another process was quicker: before this statement began, or while it ran.
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(statement)
    return maintenance.sibling(name)


def user_of(url: str) -> str | None:
    """The log-in that a connection string names, or None."""
    user = conninfo_to_dict(url).get("user")
    return None if user is None else str(user)


def scalar(connection: psycopg.Connection[Any], query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """The one value of a query that gives one, or None."""
    row = connection.execute(query.encode(), parameters).fetchone()
    return row[0] if row else None
