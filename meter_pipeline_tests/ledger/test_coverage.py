"""Every stored column is held to the ledger or listed as not protected, and every one that is held is found when it is
changed."""

from __future__ import annotations

import os
import re

import psycopg
from psycopg import sql

from meter_pipeline.ledger import coverage
from meter_pipeline.ledger.sources import SOURCES, Source
from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.ledger.test_changed_unseen import city as city
from meter_pipeline_tests.retention.test_days import DAYS, City
from meter_pipeline_tests.support import ROOT

_CATALOGUE = """
SELECT n.nspname || '.' || c.relname, a.attname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY (%s) ORDER BY 1, a.attnum
"""
_MARKED = re.compile(r"(?<=<!-- unprotected columns -->\n).*?(?=<!-- end of unprotected columns -->)", re.DOTALL)


def catalogue(database: Database) -> list[tuple[str, str]]:
    with database.connect() as connection:
        return connection.execute(_CATALOGUE, (list(coverage.SCHEMAS),)).fetchall()


def test_every_column_that_nothing_holds_is_listed_in_the_audit_page(database: Database) -> None:
    """On a new column: name it in ledger/coverage.toml if it is held, then run this with
    METER_PIPELINE_WRITE_PAGES=1.
    """
    made = coverage.page(catalogue(database)) + "\n"
    page = ROOT / "docs" / "audit.md"
    if os.environ.get("METER_PIPELINE_WRITE_PAGES"):
        page.write_text(_MARKED.sub(lambda _: made, page.read_text("utf-8")), "utf-8")
    found = _MARKED.search(page.read_text("utf-8"))
    assert found is not None
    assert found[0] == made


def test_the_manifest_names_no_column_that_is_not_there(database: Database) -> None:
    there = set(catalogue(database))
    held = coverage.load()
    named = {
        (table, column) for way in coverage.WAYS for table, columns in held.ways[way].items() for column in columns
    }
    assert named - there == set()


#: Another value of a column, by its type; {c} is the column.
CHANGES = {
    "int2": "{c} + 1",
    "int4": "{c} + 1",
    "int8": "{c} + 1",
    "numeric": "{c} + 1",
    "bool": "NOT {c}",
    "text": "{c} || 'X'",
    "date": "{c} + 1",
    "timestamptz": "{c} + interval '1 hour'",
    "jsonb": "{c} || '{{\"changed\": 1}}'",
    "bytea": "set_byte({c}, 0, get_byte({c}, 0) # 1)",
    "_int2": "array(SELECT v + 1 FROM unnest({c}) AS v)",
    "_int4": "array(SELECT v + 1 FROM unnest({c}) AS v)",
    "_int8": "array(SELECT v + 1 FROM unnest({c}) AS v)",
}
#: What a column that was null is set to.
FILLS = {
    "int2": "1",
    "int4": "1",
    "int8": "1",
    "bool": "true",
    "date": "date '2027-03-01'",
    "text": "'X'",
    "timestamptz": "'2026-03-01T00:00:00Z'::timestamptz",
    "numeric": "1",
    "_int2": "array_fill(1::smallint, ARRAY[slots::integer])",
    "_int4": "array_fill(1, ARRAY[slots::integer])",
    "_int8": "array_fill(1::bigint, ARRAY[slots::integer])",
}
#: Columns whose values are a list.
OTHERS = {
    ("billing.statement", "kind"): "CASE kind WHEN 'first' THEN 'final' ELSE 'first' END",
    ("billing.statement", "posting_month"): "(posting_month + interval '1 month')::date",
    ("billing.adjustment_line", "action"): "CASE action WHEN 'cancel' THEN 'rebill' ELSE 'cancel' END",
}
#: Which row is changed, where not any will do.
WHERE = {"raw.interval_day": "payloads = 1 AND values IS NOT NULL", "raw.dead_letter": "salt IS NOT NULL"}


def changed_value(table: str, column: str, kind: str) -> sql.Composed:
    """Another value of a column, as SQL. Raises KeyError for a type that nothing is known of."""
    change = OTHERS.get((table, column)) or CHANGES[kind]
    if kind in FILLS and (table, column) not in OTHERS:
        change = f"CASE WHEN {{c}} IS NULL THEN {FILLS[kind]} ELSE {change} END"
    if kind.startswith("_") and table.startswith("billing."):
        change = "array_append({c}, 1)"  # it may be empty
    return sql.SQL(change).format(c=sql.Identifier(column))


def attempt(city: City, table: str, column: str, kind: str) -> str:
    """Change one row's column as the owner of the database, verify, put it back: found, unseen, refused or no row."""
    name = sql.Identifier(*table.split("."))
    changed = changed_value(table, column, kind)
    dated = "billing_day" in {c for t, c in catalogue(city.database) if t == table}
    of_day = sql.SQL(" AND billing_day = {}").format(sql.Literal(DAYS[1])) if dated else sql.SQL("")
    where = sql.SQL(WHERE.get(table, "true")) + of_day
    with city.database.connect("dba") as connection:
        connection.execute("SET session_replication_role = replica")
        held = connection.execute(
            sql.SQL("SELECT ctid::text, to_jsonb(t)::text FROM {} AS t WHERE {} LIMIT 1").format(name, where)
        ).fetchone()
        if held is None:
            return "no row"
        row = connection.execute(
            sql.SQL("SELECT * FROM {} WHERE {} AND ctid = {}::tid LIMIT 1").format(name, where, sql.Literal(held[0]))
        )
        columns, values = [d.name for d in row.description or ()], row.fetchone()
        here = where + sql.SQL(" AND ctid = {}::tid").format(sql.Literal(held[0]))
        before = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
        try:
            with connection.transaction():
                connection.execute(sql.SQL("CREATE TABLE public.kept AS SELECT * FROM {} WHERE {}").format(name, here))
                connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(name, here))
                others = sql.SQL(", ").join(sql.Identifier(c) if c != column else changed for c in columns)
                connection.execute(sql.SQL("INSERT INTO {} SELECT {} FROM public.kept").format(name, others))
        except psycopg.Error:
            return "refused"
        connection.commit()
        assert values is not None
        del before
    try:
        done = verify(city.database, home=city.settings.home, full=True, hashers=hashers(), sources=sources_of(table))
    finally:
        restore(city, name, table)
    return "found" if done.findings else "unseen"


def sources_of(table: str) -> list[Source]:
    """The sources of the ledger's leaves in which a table has a part: the others cannot tell of a change in it."""
    found = []
    for source in SOURCES:
        names = {each.name for each in source.tables} | {each.detail for each in source.tables} | {*source.beside}
        found += [source] if table in names else []
    return found


def restore(city: City, name: sql.Identifier, table: str) -> None:
    """Put the kept row back in the place of what it was made to."""
    with city.database.connect("dba") as connection:
        connection.execute("SET session_replication_role = replica")
        # The changed row is the newest of the table.
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE xmin = (SELECT max(xmin::text::bigint)::text::xid FROM {})").format(
                name, name
            )
        )
        connection.execute(sql.SQL("INSERT INTO {} SELECT * FROM public.kept").format(name))
        connection.execute("DROP TABLE public.kept")
        connection.commit()
