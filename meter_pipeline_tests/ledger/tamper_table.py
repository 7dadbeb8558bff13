"""The tamper drill as a generator: every table, every column, one changed value, by every role whose rights allow it.

A column is found (verification names the change), refused (a constraint takes no other value), listed (docs/audit.md
says that nothing holds it), or was not tried, because the city has no row of its table. The changes that are verified
are made by the owner of the database with triggers off: who finds those finds everybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from meter_pipeline import database_roles
from meter_pipeline.ledger import coverage
from meter_pipeline_tests.ledger.test_coverage import attempt, catalogue, changed_value
from meter_pipeline_tests.retention.test_days import City

BEGIN, END = "<!-- tamper table -->", "<!-- end of tamper table -->"


@dataclass(slots=True)
class Row:
    """What became of a table's columns; ``roles``: those whose own statement changed some column."""

    table: str
    columns: int = 0
    found: int = 0
    listed: int = 0
    refused: int = 0
    not_tried: int = 0
    unseen: list[str] = field(default_factory=list)
    roles: set[str] = field(default_factory=set)


def drill(city: City) -> list[Row]:
    """Try every column of every table of a city that is under a checkpoint; a row a table. The city is as it
    was after.
    """
    with city.database.connect() as connection:
        kinds = {
            (table, column): kind
            for table, column, kind in connection.execute(
                "SELECT table_schema || '.' || table_name, column_name, udt_name FROM information_schema.columns"
            ).fetchall()
        }
    rows: dict[str, Row] = {}
    held = coverage.load()
    for table, column in catalogue(city.database):
        row = rows.setdefault(table, Row(table))
        row.columns += 1
        kind = str(kinds[table, column])
        row.roles |= may_change(city, table, column, kind)
        if held.way(table, column) is None:
            row.listed += 1
            continue
        outcome = attempt(city, table, column, kind)
        row.found += outcome == "found"
        row.refused += outcome == "refused"
        row.not_tried += outcome == "no row"
        row.unseen += [column] if outcome == "unseen" else []
    return list(rows.values())


def may_change(city: City, table: str, column: str, kind: str) -> set[str]:
    """Documented roles whose own UPDATE of the column goes through, rights, triggers and constraints on. Nothing is
    kept."""
    able: set[str] = set()
    name = sql.Identifier(*table.split("."))
    try:
        value = changed_value(table, column, kind)
    except KeyError:
        return able
    with city.database.connect() as connection:
        for role in database_roles.roles():
            row = connection.execute(
                "SELECT has_column_privilege(%s, to_regclass(%s), %s, 'UPDATE') AND has_schema_privilege(%s, %s, 'USAGE')",
                (role, table, column, role, table.split(".")[0]),
            ).fetchone()
            if not row or not row[0]:
                continue
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
                    statement = sql.SQL("UPDATE {} SET {} = {} WHERE ctid = (SELECT ctid FROM {} LIMIT 1)")
                    done = connection.execute(statement.format(name, sql.Identifier(column), value, name))
                    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                    able |= {role} if done.rowcount else set()
            except psycopg.Error:
                continue
    return able


def page(rows: Sequence[Row]) -> str:
    """The table of docs/audit.md."""
    lines = [
        "| Table | Columns | Found | Refused by a constraint | Listed as not protected | No row to try | Roles whose own UPDATE of some column went through |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {r.table} | {r.columns} | {r.found} | {r.refused} | {r.listed} | {r.not_tried} | {', '.join(sorted(r.roles)) or 'none'} |"
        for r in rows
    ]
    names = ("columns", "found", "refused", "listed", "not_tried")
    columns, found, refused, listed, not_tried = (sum(getattr(r, name) for r in rows) for name in names)
    lines.append(f"| all {len(rows)} | {columns} | {found} | {refused} | {listed} | {not_tried} | |")
    return "\n".join(lines) + "\n"
