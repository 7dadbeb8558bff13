"""Bringing a database up to date with sql/migrations, by dbmate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg

from meter_pipeline.packaged import packaged
from meter_pipeline.postgres.database import Database

_OPTIONS = ("--migrations-table", "public.schema_migrations", "--no-dump-schema", "--migration-lock")
MIGRATIONS = packaged("sql/migrations")


class MigrationError(RuntimeError):
    """A migration failed; the message is the server's."""


class RolesMissingError(MigrationError):
    """This log-in may not create the database roles, and they are not there."""


def migrate(database: Database, directory: Path = MIGRATIONS) -> int:
    """Apply what is missing, each file in its own transaction; returns how many were applied.

    Holds an advisory lock, so two services may start at once. dbmate reads none of libpq's ways to a server (password
    file, service file, TLS by environment), so it is handed the connection as libpq made it. That goes by the
    environment, where no process list shows a password.
    """
    beside = Path(sys.executable).parent / "dbmate"
    tool = str(beside) if beside.exists() else shutil.which("dbmate")
    if tool is None:
        raise MigrationError("dbmate is not installed: run `make install`")
    with database.connect("migrate") as connection:
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
        said = (done.stderr or done.stdout).strip().replace(url, database.safe_url)
        for secret in {password, quote(password, safe="")} - {""}:
            said = said.replace(secret, "***")
        if "permission denied to create role" in said or "may not make it" in said:
            raise RolesMissingError(said)
        raise MigrationError(said)
    return sum(line.startswith("Applied:") for line in (done.stdout + done.stderr).splitlines())


def _resolved_url(connection: psycopg.Connection[Any], asked: dict[str, str]) -> str:
    """The URL of a connection that was made: server, user, password and TLS as libpq found them. A Unix socket's folder
    is ``socket=`` to dbmate's driver."""
    info = connection.info
    used = {option.keyword.decode(): option.val.decode() for option in connection.pgconn.info if option.val is not None}
    query = {key: value for key, value in asked.items() if key in ("options", "search_path")}
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
