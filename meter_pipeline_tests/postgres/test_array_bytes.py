"""Arrays read as bytes are the arrays, element for element, and nothing else passes for one."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter_pipeline.postgres.array_bytes import listed, lists
from meter_pipeline.postgres.database import Database

KINDS = {"smallint": (pl.Int16, 15), "integer": (pl.Int32, 31), "bigint": (pl.Int64, 63)}


def rows_of(bits: int) -> st.SearchStrategy[list[list[int] | None]]:
    element = st.integers(-(2**bits), 2**bits - 1)

    def alike(width: int) -> st.SearchStrategy[list[list[int] | None]]:
        row: st.SearchStrategy[list[int] | None] = st.lists(element, min_size=width, max_size=width)
        return st.lists(row, max_size=12)

    return st.integers(0, 5).flatmap(alike) | st.lists(st.none() | st.lists(element, max_size=7), max_size=12)


#: How a query asks for an array's bytes: where a superuser made the database, and where not
FORMATS = {"as stored": listed(("n", "v"), ("v",)), "as sent": "n, array_send(v) AS v"}


@pytest.mark.parametrize("columns", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_read_as_bytes_are_the_arrays(database: Database, kind: str, columns: str) -> None:
    element, bits = KINDS[kind]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(rows=rows_of(bits))
    def check(rows: list[list[int] | None]) -> None:
        texts = ("NULL" if row is None else "'{" + ",".join(map(str, row)) + "}'" for row in rows)
        values = ", ".join(f"({n}, {text}::{kind}[])" for n, text in enumerate(texts))
        table = f"(VALUES {values or f'(0, NULL::{kind}[])'}) AS t(n, v) {'' if rows else 'WHERE false'} ORDER BY n"
        read = lists(database.read(f"SELECT {columns} FROM {table}"), {"v": element, "not_asked_for": element})
        assert read.schema["v"] == pl.List(element)
        assert read["v"].to_list() == rows

    check()


@pytest.mark.parametrize("columns", FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize(
    "array", ["ARRAY[1, NULL]", "ARRAY[NULL]::integer[]", "ARRAY[[1], [2]]", "ARRAY[1, 2]::bigint[]", "ARRAY['a', 'b']"]
)
def test_what_is_no_plain_array_of_the_type_is_refused(database: Database, array: str, rows: int, columns: str) -> None:
    frame = database.read(f"SELECT {columns} FROM (SELECT n, {array} AS v FROM generate_series(1, {rows}) AS n) AS t")
    with pytest.raises(ValueError, match="column v: not arrays of one dimension"):
        lists(frame, {"v": pl.Int32})


def test_a_superuser_s_database_gives_arrays_as_stored(database: Database) -> None:
    (source,) = database.read(
        "SELECT p.prosrc FROM pg_proc AS p WHERE p.oid = 'raw.array_bytes(anyarray)'::regprocedure"
    )["prosrc"]
    assert source == "byteasend"
