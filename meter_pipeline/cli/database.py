"""``meter-pipeline database``: start, stop, migrate, url, roles."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict

from meter_pipeline import database_roles
from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.postgres import embedded
from meter_pipeline.postgres.database import open_database
from meter_pipeline.postgres.migrations import migrate as apply_migrations
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The database: start, stop, migrate, url, roles.")
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
def roles(
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Print the script by which an administrator makes them; connects to nothing.")
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
        asked = conninfo_to_dict(settings.database_url) if settings.database_url else {}
        user = owner or asked.get("user") or os.environ.get("PGUSER") or getpass.getuser()
        sys.stdout.write(database_roles.administrators_script(str(user)))
        return
    emit(
        {"roles": [{"role": role, "about": about} for role, about in database_roles.roles().items()]},
        json,
        lambda d: OUT.print(table(None, ("role", "what it is for"), [(r["role"], r["about"]) for r in d["roles"]])),
    )
