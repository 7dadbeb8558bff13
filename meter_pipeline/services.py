"""What Dagster's processes are given: environment, instance folder, and the database brought up to date.

Belongs here: the environment every service shares, however it was started. Does not belong here: definitions (defs/) and process supervision
(deploy/).
"""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from meter_pipeline.settings import PROJECT_ROOT, Settings
from meter_pipeline.store.database import Database, open_database
from meter_pipeline.store.migrations import migrate


def prepare(settings: Settings) -> Database:
    """Start the embedded server if that is the one in use, apply migrations, and set this process's Dagster environment."""
    database = open_database(settings)
    migrate(database)
    os.environ.update(environment(settings, database))
    return database


def environment(settings: Settings, database: Database) -> dict[str, str]:
    """Variables under which any ``dagster`` command works on this deployment."""
    instance = settings.home / "dagster"
    instance.mkdir(parents=True, exist_ok=True)
    configuration = instance / "dagster.yaml"
    if configuration.is_symlink() or not configuration.exists():
        configuration.unlink(missing_ok=True)
        configuration.symlink_to(PROJECT_ROOT / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(instance),
        "METER_PIPELINE_HOME": str(settings.home),
        "METER_PIPELINE_DATA": str(settings.data),
        "METER_PIPELINE_INBOX": str(settings.inbox),
        "METER_PIPELINE_DAGSTER_URL": dagster_url(database.url),
        "METER_PIPELINE_COMPUTE_LOGS": str(settings.home / "compute_logs"),
    } | ({"METER_PIPELINE_DATABASE_URL": settings.database_url} if settings.database_url else {})


def dagster_url(url: str) -> str:
    """The pipeline's database as Dagster's storage: psycopg2 named, tables in their own schema."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    query["options"] = f"{query.get('options', '')} -csearch_path=dagster".strip()
    # dagster-postgres hands the URL to alembic's ConfigParser through SQLAlchemy, where a lone % would be interpolation: it escapes them itself.
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", query=urlencode(query, quote_via=quote, safe="/")))
