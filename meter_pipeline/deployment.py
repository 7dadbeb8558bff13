"""Set-up of Dagster's processes: environment, instance folder, and the database brought up to date."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from meter_pipeline.packaged import packaged
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.settings import Settings, SettingsError

#: Dagster's storage is kept in this database role, where the deployment uses roles.
CONSOLE_ROLE: Final = "meter_console"


def roles_in_use() -> bool:
    """Whether sessions act in database roles: METER_PIPELINE_ROLES=on, which a deployment sets when its roles and
    log-ins are made."""
    return os.environ.get("METER_PIPELINE_ROLES", "").lower() in ("on", "1", "true", "yes")


def prepare(settings: Settings) -> Database:
    """Start the embedded server if that is the one in use, apply migrations, tell billing the first day that is billed,
    and set this process's Dagster environment."""
    database = open_database(settings)
    migrate(database)
    _tell_opening(settings, database)
    os.environ.update(environment(settings, database))
    return database


def _tell_opening(settings: Settings, database: Database) -> None:
    """Keep the utility's first billing day where billing reads it. A log-in without the right leaves it to the
    deployment's owner; a folder that lacks the utility's own settings is reported by whatever needs them."""
    from meter_pipeline.billing.tables.opening import write_opening
    from meter_pipeline.postgres import driver

    try:
        opening = settings.utility().first_billing_day
    except SettingsError:
        return
    if opening is None:
        return
    with suppress(driver.errors.InsufficientPrivilege), database.connect("going live") as connection:
        write_opening(connection, opening)


def environment(settings: Settings, database: Database) -> dict[str, str]:
    """Variables under which any ``dagster`` command works on this deployment."""
    instance = settings.home / "dagster"
    instance.mkdir(parents=True, exist_ok=True)
    configuration = instance / "dagster.yaml"
    if configuration.is_symlink() or not configuration.exists():
        configuration.unlink(missing_ok=True)
        configuration.symlink_to(packaged("dagster.yaml"))
    return {
        "DAGSTER_HOME": str(instance),
        "METER_PIPELINE_HOME": str(settings.home),
        "METER_PIPELINE_DATA": str(settings.data),
        "METER_PIPELINE_INBOX": str(settings.inbox),
        "METER_PIPELINE_DAGSTER_URL": dagster_url(database.url, CONSOLE_ROLE if roles_in_use() else None),
    } | ({"METER_PIPELINE_DATABASE_URL": settings.database_url} if settings.database_url else {})


def dagster_url(url: str, role: str | None = None) -> str:
    """The pipeline's database as Dagster's storage: psycopg2 named, tables in their own schema, sessions in
    ``role``.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    acting = f" -crole={role}" if role else ""
    query["options"] = f"{query.get('options', '')} -csearch_path=dagster{acting}".strip()
    # dagster-postgres hands the URL to alembic's ConfigParser through SQLAlchemy, where a lone % would be
    # interpolation: it escapes them itself.
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", query=urlencode(query, quote_via=quote, safe="/")))
