"""Abilities of a database server and of our log-in on it, for ``meter-pipeline doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meter_pipeline.postgres.database import Database

#: Roles that the services act in; sql/migrations makes them where they are missing.
ROLES = ("meter_owner", "meter_ingest", "meter_billing", "meter_finance")

_FACTS = """
SELECT current_setting('server_version_num')::int AS version, current_user AS login, clock_timestamp() AS now,
    r.rolsuper AS superuser, r.rolcreaterole AS may_create_roles,
    has_database_privilege(current_database(), 'CREATE') AS may_create_schemas, current_database() AS database,
    (SELECT coalesce(array_agg(w ORDER BY w), '{}') FROM unnest($1::text[]) AS w
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = w)) AS missing_roles,
    to_regclass('public.schema_migrations') IS NOT NULL AS migrated
FROM pg_roles AS r WHERE r.rolname = current_user
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``version``: server_version_num, 160004 for 16.4. ``now``: the server's clock, UTC."""

    version: int
    login: str
    now: datetime
    superuser: bool
    may_create_roles: bool
    may_create_schemas: bool
    database: str
    missing_roles: list[str]
    migrated: bool


def server_facts(database: Database) -> ServerFacts:
    """The facts, in one query. Raises psycopg.OperationalError where the server does not answer."""
    (row,) = database.rows(_FACTS, [list(ROLES)])
    return ServerFacts(**row)


def migrations_applied(database: Database) -> set[str]:
    """Versions of the migrations this database has."""
    return {row["version"] for row in database.rows("SELECT version FROM public.schema_migrations")}


def rows_in(database: Database, tables: tuple[str, ...]) -> dict[str, int]:
    """Whether tables hold rows: name to 1 or 0."""
    found: dict[str, int] = {}
    for table in tables:
        schema, name = table.split(".")
        (row,) = database.rows(f'SELECT count(*)::int AS n FROM (SELECT FROM "{schema}"."{name}" LIMIT 1) AS one')
        found[table] = row["n"]
    return found


def tables_owner(database: Database) -> str:
    """Who owns the tables: the log-in that migrated."""
    (row,) = database.rows(
        "SELECT tableowner AS owner FROM pg_tables WHERE schemaname = 'raw' AND tablename = 'feed_file'"
    )
    return str(row["owner"])


def existing_roles(database: Database) -> set[str]:
    """Every role of the server."""
    return {row["rolname"] for row in database.rows("SELECT rolname FROM pg_roles")}
