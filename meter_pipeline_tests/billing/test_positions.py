"""List columns of positions as matrices: what has another shape is refused, and never read as another number."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.billing.positions import INTS, lists, matrix

ROW = st.none() | st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3)


@given(rows=st.lists(ROW, max_size=6))
def test_lists_of_one_width_and_nulls_as_zeros(rows: list[list[int] | None]) -> None:
    found = matrix(pl.Series("p", rows, dtype=INTS), 3)
    assert found.tolist() == [row or [0, 0, 0] for row in rows]
    assert matrix(lists(found), 3).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("rows", "width"),
    [
        ([[], [], []], 3),
        ([[], None, [1, 2, 3, 4, 5, 6]], 3),
        ([[]], 1),
        ([[None]], 1),
        ([[1], [1, 2]], 1),
        ([[1, None, 3]], 3),
    ],
)
def test_another_shape_is_refused(rows: list[list[int | None] | None], width: int) -> None:
    with pytest.raises(ValueError, match=f"column p: not {width} whole numbers in each list"):
        matrix(pl.Series("p", rows, dtype=INTS), width)


def test_no_width_and_no_rows() -> None:
    assert matrix(pl.Series("p", [[], []], dtype=INTS), 0).shape == (2, 0)
    assert matrix(pl.Series("p", [], dtype=INTS), 4).shape == (0, 4)
    assert matrix(pl.Series("p", [None], dtype=INTS), 2).dtype == np.int64
