"""Every role on every table with every verb, tried and not looked up: what the manifest grants works, everything else
is refused."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database

MANIFEST = privileges.load()
# EXPLAIN checks privileges as the statement itself would, and does nothing.
VERBS = {
    "SELECT": "EXPLAIN SELECT 1 FROM {table}",
    "INSERT": "EXPLAIN INSERT INTO {table} DEFAULT VALUES",
    "UPDATE": "EXPLAIN UPDATE {table} SET {column} = DEFAULT",
    "DELETE": "EXPLAIN DELETE FROM {table}",
    "TRUNCATE": "TRUNCATE {table}",
}


@pytest.mark.parametrize("role", sorted(MANIFEST.roles))
def test_a_role_does_what_the_manifest_grants_and_nothing_else(database: Database, role: str) -> None:
    privileges.apply(database)
    wrong = []
    with database.connect() as connection:
        columns = {
            (schema, table): column
            for schema, table, column in connection.execute(
                "SELECT DISTINCT ON (n.nspname, c.relname) n.nspname, c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
                "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2, a.attnum"
            )
        }
        tables = privileges.tables(connection)
        connection.commit()
        for schema, table in tables:
            granted = MANIFEST.verbs_for(role, schema, table)
            for verb, statement in VERBS.items():
                connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                query = sql.SQL(statement).format(
                    table=sql.Identifier(schema, table), column=sql.Identifier(columns[schema, table])
                )
                try:
                    connection.execute(query)
                    allowed = True
                except (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.WrongObjectType,
                ):  # a view cannot be truncated by anyone
                    allowed = False
                except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.FeatureNotSupported):
                    allowed = verb in granted  # a view that nobody can write
                except psycopg.Error:  # refused for another reason than privilege: a constraint
                    allowed = True
                connection.rollback()
                if allowed and verb == "TRUNCATE" and verb not in granted:
                    wrong.append(f"{role} may TRUNCATE {schema}.{table}")
                elif verb != "TRUNCATE" and allowed != (verb in granted):
                    wrong.append(f"{role} {'may' if allowed else 'may not'} {verb} {schema}.{table}")
    assert wrong == []


def test_no_role_of_the_manifest_is_a_superuser_or_passes_row_security(database: Database) -> None:
    privileges.apply(database)
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
            (sorted(MANIFEST.roles),),
        ).fetchall()
    assert rows == []
