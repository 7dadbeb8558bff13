"""Day vectors come back from PostgreSQL exactly as they went in, whatever the gaps, qualities, sequences and
magnitudes."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meter_pipeline.postgres import copy_binary, vectors
from meter_pipeline.postgres.database import Database
from meter_pipeline.quality import MISSING, pack
from meter_pipeline.schemas.reads import NO_VALUE, UTC_US, DayMatrix

DAY = date(2024, 3, 10)
STARTS_AT = datetime(2024, 3, 10, 6, tzinfo=UTC)


def keys(n: int, seed: int = 0) -> pl.DataFrame:
    """Sorted meter ids of several lengths, with the raw table's own columns."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "meter_id": sorted("M" + str(i) * int(rng.integers(1, 4)) + f"-{i:03d}" for i in range(n)),
            "channel": ["E1"] * n,
            "unit": ["kWh" if i % 3 else "m3" for i in range(n)],
            "head_end": ["NORTH"] * n,
            "source_version": list(range(n)),
            "read_time": [None if i % 2 else STARTS_AT for i in range(n)],
            "payload_hash": [bytes([i % 256]) * 32 for i in range(n)],
            "payloads": [1] * n,
        },
        schema_overrides={"read_time": UTC_US, "payloads": pl.Int16, "source_version": pl.Int64},
    )


@st.composite
def matrices(draw: st.DrawFn) -> DayMatrix:
    n, slots = draw(st.integers(1, 12)), draw(st.sampled_from([1, 4, 23, 92]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-(10**9), 10**9, (n, slots)) * rng.choice([1, 1000, 10**6], (n, 1))
    values = np.where(rng.random((n, 1)) < 0.3, rng.integers(-(10**16), 10**16, (n, slots)), values)
    quality = np.where(
        rng.random((n, 1)) < 0.5, 0, rng.choice([pack("S", 14, 1), pack("E", 61), pack("N")], (n, slots))
    ).astype(np.uint16)
    sequence = (rng.integers(-5, 10**6, (n, 1)) + rng.choice([0, 1, -3, 1000], (n, 1)) * np.arange(slots)).astype(
        np.int32
    )
    sequence = np.where(rng.random((n, 1)) < 0.3, rng.integers(-(2**31), 2**31 - 1, (n, slots)), sequence).astype(
        np.int32
    )
    missing = rng.random((n, slots)) < draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    offsets = rng.integers(-5, 900, (n, slots)).astype(np.int16) if draw(st.booleans()) else None
    values[missing], quality[missing], sequence[missing] = NO_VALUE, MISSING, 0
    nulls = missing & (rng.random((n, slots)) < 0.2)
    quality[nulls] = pack("N", None, 43)
    if offsets is not None:
        offsets[missing] = 0
        offsets = offsets if offsets.any() else None
    return DayMatrix(DAY, 15, keys(n), values, quality, sequence, offsets)


def same(left: DayMatrix, right: DayMatrix) -> None:
    assert (left.billing_day, left.interval_minutes) == (right.billing_day, right.interval_minutes)
    assert left.keys.select(right.keys.columns).equals(right.keys)
    for name in ("values", "quality", "sequence"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)
    assert (left.offsets is None) == (right.offsets is None)
    if left.offsets is not None and right.offsets is not None:
        np.testing.assert_array_equal(left.offsets, right.offsets)


@given(matrices())
@settings(max_examples=200)
def test_the_vector_frame_keeps_a_matrix_exactly(matrix: DayMatrix) -> None:
    frame = vectors.from_matrix(matrix, STARTS_AT)
    [back] = vectors.to_matrices(frame)
    same(back, matrix)
    assert vectors.from_matrix(back, STARTS_AT).select(frame.columns).equals(frame), (
        "narrowing is a function of content"
    )


def _far_apart() -> DayMatrix:
    """Sequence numbers whose rise from slot to slot is an integer and whose rise over the day is none (hypothesis found
    it)."""
    values, sequence = np.array([[5, NO_VALUE, NO_VALUE, 7]]), np.array([[633320821, 0, 0, -2037135374]], np.int32)
    return DayMatrix(
        DAY, 15, keys(1), values, np.where(values == NO_VALUE, MISSING, 0).astype(np.uint16), sequence, None
    )


@given(matrices())
@example(_far_apart())
@settings(max_examples=25)
def test_postgresql_gives_back_what_was_copied(database: Database, matrix: DayMatrix) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS raw.interval_day_20240310")
        connection.execute("SELECT raw.open_partition('raw.interval_day', %s)", (DAY,))
        written = vectors.write_matrices(connection, vectors.RAW_INTERVAL_DAY.partition(DAY), [matrix], STARTS_AT)
        connection.execute("SELECT raw.attach_partition('raw.interval_day', %s)", (DAY,))
    assert written == matrix.rows
    [back] = vectors.read_matrices(database, vectors.RAW_INTERVAL_DAY, DAY)
    same(back, matrix)
    seen = database.read(
        "SELECT meter_id, slot, (value * 1000000)::bigint AS value, sequence FROM raw.interval ORDER BY meter_id, slot"
    )
    present = matrix.present
    assert seen.height == int(present.sum())
    if seen.height:
        assert seen["value"].to_list() == matrix.values[present].tolist()
        assert seen["sequence"].to_list() == matrix.sequence[present].tolist()


def test_an_unknown_column_type_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="column x"):
        copy_binary.encode(pl.DataFrame({"x": [1.5]}), ["x"])
