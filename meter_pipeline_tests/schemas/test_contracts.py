"""Contracts promise: they are the database's own columns, in its own types, and they find what they forbid."""

from __future__ import annotations

from typing import Any

import pandera.errors
import polars as pl
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.contracts import CONTRACTS, pandera_schema


@pytest.mark.parametrize("table", sorted(CONTRACTS))
def test_a_contract_is_the_table_that_the_migrations_make(database: Database, table: str) -> None:
    schema, _, name = table.partition(".")
    found = database.read(
        "SELECT a.attname AS c, format_type(a.atttypid, a.atttypmod) AS t, NOT a.attnotnull AS nullable, "
        "col_description(a.attrelid, a.attnum) AS about FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = r.relnamespace WHERE n.nspname = $1 AND r.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
        [schema, name],
    )
    declared = {c: (col.type, col.nullable) for c, col in CONTRACTS[table].columns.items()}
    assert {row["c"]: (row["t"], row["nullable"]) for row in found.to_dicts()} == declared
    assert all(found["about"].to_list()), "every column carries a comment"


@pytest.mark.parametrize("table", sorted(CONTRACTS))
def test_the_key_of_a_contract_is_the_primary_key(database: Database, table: str) -> None:
    schema, _, name = table.partition(".")
    found = database.read(
        "SELECT a.attname AS c FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid JOIN pg_namespace n ON n.oid = r.relnamespace "
        "CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.attnum "
        "WHERE n.nspname = $1 AND r.relname = $2 AND i.indisprimary ORDER BY k.place",
        [schema, name],
    )
    assert tuple(found["c"].to_list()) == CONTRACTS[table].key


@pytest.mark.parametrize("table", sorted(CONTRACTS))
def test_every_contract_can_check_rows(table: str) -> None:
    """A type that the checks do not know (numeric with its digits) failed the asset that was checked by it."""
    assert pandera_schema(table).name == table


def test_lineage_names_columns_that_exist(database: Database) -> None:
    found = database.read(
        "SELECT n.nspname || '.' || r.relname || '.' || a.attname AS c FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = r.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname NOT LIKE 'pg%'"
    )
    there = set(found["c"].to_list())
    for contract in CONTRACTS.values():
        assert contract.lineage or contract.table == "billing.exception_day", contract.table
        assert set(contract.lineage) <= set(contract.columns), contract.table
        sources = {s for of in contract.lineage.values() for s in of} - {"feed file", "weather file", "data/head_ends"}
        assert sources <= there, (contract.table, sources - there)


def test_a_bad_row_is_found(database: Database) -> None:
    contract = CONTRACTS["raw.register_read"]
    row: dict[str, Any] = dict.fromkeys(contract.checked)
    row |= {
        "value": 1,
        "source_version": 0,
        "sequence": 1,
        "quality": 0,
        "payloads": 1,
        "meter_id": "M;1",
        "channel": "R1",
        "unit": "furlong",
        "head_end": "A",
    }
    frame = pl.DataFrame([row], schema={n: c.dtype.type for n, c in pandera_schema(contract.table).columns.items()})
    with pytest.raises(pandera.errors.SchemaErrors) as wrong:
        pandera_schema(contract.table).validate(frame, lazy=True)
    assert {"meter_id", "unit", "read_at"} <= set(wrong.value.failure_cases["column"].to_list())
