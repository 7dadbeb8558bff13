"""The idempotency key is one documented function, the same in Python and in SQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_pipeline.ingest.keys import idempotency_key, idempotency_keys
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import UTC_US

#: meter, instant, sequence, SHA-256 over mp1 0x1F meter 0x1F instant 0x1F sequence
VECTORS = [
    (
        "M-1",
        datetime(2024, 3, 10, 6, tzinfo=UTC),
        7,
        "a1330b276290d3e069224e11a0d8c9957ae7b36036160939e37bfb40493c1091",
    ),
]


@pytest.mark.parametrize(("meter", "at", "sequence", "expected"), VECTORS)
def test_published_vectors(meter: str, at: datetime, sequence: int, expected: str) -> None:
    assert idempotency_key(meter, at, sequence).hex() == expected
    assert idempotency_key(meter, at.astimezone(timezone(timedelta(hours=10))), sequence).hex() == expected, (
        "the instant counts, not its zone"
    )


def test_a_read_without_a_zone_has_no_key() -> None:
    with pytest.raises(ValueError, match="time zone"):
        idempotency_key("M-1", datetime(2024, 3, 10), 1)  # noqa: DTZ001 - what the test is about


def test_separators_keep_neighbouring_fields_apart() -> None:
    at = datetime(2024, 3, 10, tzinfo=UTC)
    assert idempotency_key("M-1", at, 11) != idempotency_key("M-11", at, 1)


@given(
    st.text("ABC019-", min_size=1, max_size=32),
    st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - a zone is put on below
    st.integers(-(2**31), 2**31 - 1),
)
@settings(max_examples=40)
def test_python_polars_and_sql_agree(database: Database, meter: str, naive: datetime, sequence: int) -> None:
    at = naive.replace(tzinfo=UTC)
    key = idempotency_key(meter, at, sequence)
    column = idempotency_keys(
        pl.Series("meter_id", [meter]), pl.Series("at", [at], dtype=UTC_US), pl.Series("sequence", [sequence])
    )
    with database.connect() as connection:
        row = connection.execute("SELECT raw.idempotency_key(%s, %s, %s)", (meter, at, sequence)).fetchone()
    assert row is not None
    assert key == column[0] == row[0]
