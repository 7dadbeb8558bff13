"""A column's digests are hashlib's, by either way: row by row, and through Polars."""

from __future__ import annotations

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.ledger.digests import _MANY, digests


@pytest.mark.parametrize("copies", [1, _MANY])
@given(texts=st.lists(st.one_of(st.none(), st.text(), st.text(min_size=200)), min_size=1, max_size=6))
def test_texts(copies: int, texts: list[str | None]) -> None:
    expected = [None if text is None else hashlib.sha256(text.encode()).digest() for text in texts] * copies
    found = digests(pl.Series("t", texts * copies, dtype=pl.String))
    assert found.dtype == pl.Binary
    assert found.to_list() == expected


@pytest.mark.parametrize("copies", [1, _MANY])
@given(rows=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_bytes(copies: int, rows: list[bytes]) -> None:
    found = digests(pl.Series("b", rows * copies, dtype=pl.Binary))
    assert found.to_list() == [hashlib.sha256(row).digest() for row in rows] * copies


def test_none_at_all() -> None:
    assert digests(pl.Series("t", [], dtype=pl.String)).to_list() == []
