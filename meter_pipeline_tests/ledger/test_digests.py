"""A column's digests are hashlib's by each way: row by row, by OpenSSL in the compiled loop, and where OpenSSL cannot
be called."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.ledger import sha256_many
from meter_pipeline.ledger.digests import digests, part_of, part_of_rows, row_digests
from meter_pipeline.ledger.merkle import MANY_LOADED, compiled


@pytest.fixture(params=["one by one", "compiled", "OpenSSL cannot be called"], scope="module")
def copies(request: pytest.FixtureRequest) -> Iterator[int]:
    """How often rows are repeated so that the way is taken."""
    assert compiled(MANY_LOADED)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "OpenSSL cannot be called":
            patch.setattr(sha256_many, "_LIBRARY", None)
        yield 1 if request.param == "one by one" else MANY_LOADED


def test_openssl_is_there() -> None:
    assert sha256_many._LIBRARY is not None


@given(texts=st.lists(st.one_of(st.none(), st.text(), st.text(min_size=200)), min_size=1, max_size=6))
def test_texts(copies: int, texts: list[str | None]) -> None:
    expected = [None if text is None else hashlib.sha256(text.encode()).digest() for text in texts] * copies
    found = digests(pl.Series("t", texts * copies, dtype=pl.String))
    assert found.dtype == pl.Binary
    assert found.to_list() == expected


@given(rows=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_bytes(copies: int, rows: list[bytes]) -> None:
    found = digests(pl.Series("b", rows * copies, dtype=pl.Binary))
    assert found.to_list() == [hashlib.sha256(row).digest() for row in rows] * copies


@given(rows=st.lists(st.tuples(st.text(max_size=80), st.lists(st.integers(-9, 9), min_size=3, max_size=3)), min_size=1))
def test_rows_of_several_parts(copies: int, rows: list[tuple[str, list[int]]]) -> None:
    rows = rows * copies
    numbers = np.array([row[1] for row in rows], ">i4")
    texts = pl.Series("t", [row[0] for row in rows], dtype=pl.String)
    found = row_digests([part_of(texts), part_of_rows(numbers), part_of_rows(numbers[:, 1:])])
    whole = [
        text.encode() + b"".join(n.to_bytes(4, "big", signed=True) for n in [*row, *row[1:]]) for text, row in rows
    ]
    assert found.to_list() == [hashlib.sha256(row).digest() for row in whole]


def test_a_slice_of_a_column(copies: int) -> None:
    texts = [f"row {n}" for n in range(copies + 7)]
    found = digests(pl.Series("t", texts).slice(7))
    assert found.to_list() == [hashlib.sha256(text.encode()).digest() for text in texts[7:]]


def test_none_at_all() -> None:
    assert digests(pl.Series("t", [], dtype=pl.String)).to_list() == []


def test_a_python_with_openssl_built_in() -> None:
    """Its names cannot be seen: the module loads, and hashes by hashlib."""
    code = (
        "import ctypes, hashlib, ctypes.util, numpy as np\n"
        "def none(name, *args, **kwargs): raise OSError(name)\n"
        "import numba, llvmlite.binding\n"
        "ctypes.CDLL = none\n"
        "from meter_pipeline.ledger import sha256_many as many\n"
        "assert many._LIBRARY is None\n"
        "assert many.prefixed(1, bytes(64), 64) == hashlib.sha256(b'\\1' + bytes(64)).digest()\n"
        "data, ends = np.zeros(9, np.uint8), np.array([0, 4, 9])\n"
        "assert many.of_rows([(data, ends)])[1].tobytes() == hashlib.sha256(bytes(5)).digest()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
