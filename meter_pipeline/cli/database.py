"""``meter-pipeline database``: start, stop, migrate, url, roles, backup, restore."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline import database_roles
from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import open_database, user_of
from meter_pipeline.postgres.migrations import migrate as apply_migrations
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The database: start, stop, migrate, url, roles, backup, restore.")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def start(json: Json = False) -> None:
    """Start the embedded server (or reach the configured one) and bring it up to date.

    Example: meter-pipeline database start
    """
    database = open_database(load_settings())
    applied = apply_migrations(database)
    emit(
        {"url": database.safe_url, "migrations_applied": applied},
        json,
        lambda d: OUT.print(f"{d['url']} is up; {applied} migrations applied"),
    )


@app.command()
def migrate(json: Json = False) -> None:
    """Apply the migrations that are missing.

    Example: meter-pipeline database migrate
    """
    start(json)


@app.command()
def stop() -> None:
    """Stop the embedded server. A server of your own is left alone.

    Example: meter-pipeline database stop
    """
    settings = load_settings()
    if settings.database_url:
        problem("METER_PIPELINE_DATABASE_URL names a server of your own", "stop it with its own tools")
    embedded.cluster(settings.home).stop()


@app.command()
def url() -> None:
    """Print the database's URL, password and all, for psql and other tools.

    Example: psql "$(meter-pipeline database url)"
    """
    OUT.print(open_database(load_settings()).url, highlight=False, soft_wrap=True)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Folder of this backup; made where it is missing.")],
    keys: Annotated[
        bool, typer.Option("--keys", help="Include the ledger's signing keys: any reader of the backup can then sign.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a backup of the database and of the home's archive while work goes on.

    Example: meter-pipeline database backup /backups/2026-11-30
    """
    from meter_pipeline.backup import BackupError, back_up
    from meter_pipeline.postgres.dump import DumpError

    settings = load_settings()
    try:
        result = back_up(open_database(settings), settings, folder, keys=keys)
    except BackupError as error:
        problem(str(error), error.hint or None)
    except DumpError as error:
        problem(str(error), "meter-pipeline doctor looks at the server and this log-in's rights")
    emit({"folder": folder.resolve()} | result.document(), json, lambda d: OUT.print(_backed_up(d), highlight=False))


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `database backup` wrote.")], json: Json = False
) -> None:
    """Bring a backup back into this deployment's database, which must be empty, and its home.

    Example: METER_PIPELINE_DATABASE_URL=postgresql://city@host/new meter-pipeline database restore /backups/2026-11-30
    """
    from meter_pipeline import backup as backups
    from meter_pipeline.postgres.dump import DumpError

    settings = load_settings()
    try:
        result = backups.restore(open_database(settings), settings, folder)
    except backups.BackupError as error:
        problem(str(error), error.hint or None)
    except DumpError as error:
        problem(str(error), "drop that database, make it again and restore once more")

    def shown(d: dict[str, Any]) -> None:
        OUT.print(_backed_up(d), highlight=False)
        OUT.print(
            "[bold]Next:[/] meter-pipeline database migrate; meter-pipeline services deploy; "
            'meter-pipeline ledger accept-guards --by NAME --reason "restored from a backup"; meter-pipeline ledger verify --full',
            highlight=False,
        )

    emit({"folder": folder.resolve()} | result.document(), json, shown)


def _backed_up(document: dict[str, Any]) -> str:
    files = ", ".join(f"{count} files of {name}" for name, count in document["files"].items())
    return (
        f"{document['folder']}: {document['size'] / 2**20:,.1f} MiB of PostgreSQL {document['server'] // 10_000}, migration "
        f"{document['migration']}, ledger of {document['tree_size']} entries, {files}"
    )


@app.command()
def roles(
    as_sql: Annotated[
        bool,
        typer.Option("--sql", help="Print the script with which an administrator makes them; opens no connection."),
    ] = False,
    owner: Annotated[
        str | None, typer.Option(help="Who will own the database. Default: the user of METER_PIPELINE_DATABASE_URL.")
    ] = None,
    json: Json = False,
) -> None:
    """The database roles and what each is for; with --sql the script for an owner who may not create roles.

    Example: meter-pipeline database roles --sql | psql -h db.example.org -U postgres
    """
    if as_sql:
        settings = load_settings()
        login = user_of(settings.database_url) if settings.database_url else None
        user = owner or login or os.environ.get("PGUSER") or getpass.getuser()
        sys.stdout.write(database_roles.administrators_script(str(user)))
        return
    emit(
        {"roles": [{"role": role, "about": about} for role, about in database_roles.roles().items()]},
        json,
        lambda d: OUT.print(table(None, ("role", "what it is for"), [(r["role"], r["about"]) for r in d["roles"]])),
    )
