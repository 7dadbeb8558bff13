"""Bringing a database up to date with sql/migrations, by dbmate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg

from meter_pipeline.packaged import packaged
from meter_pipeline.postgres.database import Database

_OPTIONS = ("--migrations-table", "public.schema_migrations", "--no-dump-schema", "--migration-lock")
MIGRATIONS = packaged("sql/migrations")

_LISTED: Final = """
0001 0002 0003 0010 0011 0012 0014 0015 0016 0020 0021 0022 0030 0031 0032 0033 0034 0035 0036 0037 0040
0041 0050 0051 0052 0053 0054 0055 0060 0061 0062 0070 0071 0072 0073 0080 0081 0082 0090 0091 0300 0310
0311 0312 0320 0321 0330 0331 0332 0340 0341 0343 0350 0351 0359 0360 0361 0362 0370 0390 0391 0400 0420
0430 0431 0440 0441 0442 0443 0460 0461 0462 0463 0480 0481
"""
#: Versions that 0101 to 0112 replaced: release 0.2.0 ends with 0481. Both make the same schema, which a test compares.
REPLACED: Final = frozenset(_LISTED.split())
_SQUASHED: Final = ("0101", "0112")
_THROUGH: Final = "0.2.0"


class MigrationError(RuntimeError):
    """A migration failed; the message is the server's."""


class RolesMissingError(MigrationError):
    """This log-in may not create the database roles, and they are not there."""


class SkippedReleaseError(MigrationError):
    """The database is of a release that this one cannot upgrade from."""


def shipped(directory: Path = MIGRATIONS) -> set[str]:
    """Versions of the migrations in a folder: the digits that a file's name begins with."""
    return {path.name.split("_", 1)[0] for path in directory.glob("*.sql")}


def migrate(database: Database, directory: Path = MIGRATIONS) -> int:
    """Apply the missing migrations, each file in its own transaction; returns how many were applied.

    A database of release 0.2.0 has the schema of 0101 to 0112 already: they are recorded as applied. Raises
    MigrationError where a file fails, SkippedReleaseError where the database is of a release before 0.2.0.

    Holds an advisory lock, so two services may start at once. dbmate reads none of libpq's ways to a server (password
    file, service file, TLS by environment), so it is handed the connection as libpq made it. That goes by the
    environment, where no process list shows a password.
    """
    beside = Path(sys.executable).parent / "dbmate"
    tool = str(beside) if beside.exists() else shutil.which("dbmate")
    if tool is None:
        raise MigrationError("dbmate is not installed: run `make install`")
    with database.connect("migrate") as connection:
        _record_squashed(connection, shipped(directory))
        url, password = (
            _resolved_url(connection, dict(parse_qsl(urlsplit(database.url).query))),
            connection.info.password,
        )
    done = subprocess.run(  # noqa: S603 - the wheel's binary, no shell
        [tool, "--migrations-dir", str(directory), *_OPTIONS, "migrate"],
        env={"DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        message = (done.stderr or done.stdout).strip().replace(url, database.safe_url)
        for secret in {password, quote(password, safe="")} - {""}:
            message = message.replace(secret, "***")
        if "may not make it" in message:
            raise RolesMissingError(message)
        raise MigrationError(message)
    return sum(line.startswith("Applied:") for line in (done.stdout + done.stderr).splitlines())


def apply_again(database: Database, name: str) -> None:
    """Run a shipped migration's statements on a database that may have them: for a migration that replaces what it
    makes."""
    up, _ = (MIGRATIONS / f"{name}.sql").read_text("utf-8").split("-- migrate:down")
    with database.connect("migrate") as connection:
        connection.execute(up.encode())


def _record_squashed(connection: psycopg.Connection[Any], versions: set[str]) -> None:
    """Record 0101 to 0112 as applied where the database has the migrations that they replaced, all of them.

    The lock on the table makes two services that start at one time take turns. Raises SkippedReleaseError where the
    database has only some of them; nothing is written then.
    """
    first, last = _SQUASHED
    squashed = [version for version in versions if first <= version <= last]
    with connection.transaction():
        (found,) = connection.execute("SELECT to_regclass('public.schema_migrations') IS NOT NULL").fetchone() or (
            False,
        )
        if not (squashed and found):
            return
        connection.execute("LOCK TABLE public.schema_migrations IN EXCLUSIVE MODE")
        applied = {version for (version,) in connection.execute("SELECT version FROM public.schema_migrations")}
        if not applied & REPLACED:
            return
        if lacking := sorted(REPLACED - applied):
            raise SkippedReleaseError(
                f"this database is of a release before {_THROUGH} (it lacks migration {lacking[0]}): "
                f"upgrade it with release {_THROUGH} first, then with this one"
            )
        connection.execute(
            "INSERT INTO public.schema_migrations (version) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
            [squashed],
        )


def _resolved_url(connection: psycopg.Connection[Any], parameters: dict[str, str]) -> str:
    """The URL of a connection that was made: server, user, password and TLS as libpq found them. A Unix socket's folder
    is ``socket=`` to dbmate's driver."""
    info = connection.info
    used = {option.keyword.decode(): option.val.decode() for option in connection.pgconn.info if option.val is not None}
    query = {key: value for key, value in parameters.items() if key in ("options", "search_path")}
    host = info.host
    if host.startswith("/"):
        query |= {"socket": host, "sslmode": "disable"}
        host = ""
    else:
        query |= _tls(connection, used)
        host = f"[{host}]" if ":" in host else host
    login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
    listed = urlencode(query, quote_via=quote, safe="/")
    return f"postgresql://{login}@{host}:{info.port}/{quote(info.dbname, safe='')}?{listed}"


def _tls(connection: psycopg.Connection[Any], used: dict[str, str]) -> dict[str, str]:
    """TLS as it was agreed on: the driver knows no "prefer". Certificates are named where libpq would find them."""
    if not connection.pgconn.ssl_in_use:
        return {"sslmode": "disable"}
    found = {"sslmode": used["sslmode"] if used.get("sslmode", "").startswith("verify-") else "require"}
    files = {"sslcert": "postgresql.crt", "sslkey": "postgresql.key"}
    if found["sslmode"] != "require":
        files["sslrootcert"] = "root.crt"
    for option, name in files.items():
        default = Path.home() / ".postgresql" / name
        if value := used.get(option) or (str(default) if default.exists() else ""):
            found[option] = value
    return found
