"""Random numbers without state: any day of any meter is drawn by itself and is always the same.

A draw is 16 raw bits of Philox4x64, whose output stream NumPy promises never to change. The tables are computed with
Python's own arithmetic and rounded to integers; everything after them is integer work or single IEEE operations. So a
seed gives the same data on any machine.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

#: Draws in one Philox block (four 64-bit words of four 16-bit draws): a row's draws are padded to a whole number of
# blocks.
_PER_BLOCK = 16
Draws = npt.NDArray[np.uint16]


def _key(seed: int, stream: str, day: int) -> tuple[int, int]:
    """The 128-bit Philox key of a seed, a named stream and a day."""
    digest = hashlib.sha256(f"{seed}\x1f{stream}\x1f{day}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def draws(seed: int, stream: str, day: int, first: int, rows: int, per_row: int) -> Draws:
    """Returns (rows, per_row) uint16 draws of the rows first .. first + rows: row r does not depend on the other
    rows drawn."""
    blocks = -(-per_row // _PER_BLOCK)
    bits = np.random.Philox(key=np.array(_key(seed, stream, day), np.uint64), counter=first * blocks)
    raw = bits.random_raw(rows * blocks * 4).astype("<u8", copy=False)
    return raw.view("<u2").reshape(rows, blocks * _PER_BLOCK)[:, :per_row]


def generator(seed: int, stream: str, day: int = 0) -> np.random.Generator:
    """Returns a generator for plans that are drawn as a whole (defects), where no stream by row is needed."""
    return np.random.Generator(np.random.Philox(key=np.array(_key(seed, stream, day), np.uint64)))


def _quantile_midpoints() -> list[float]:
    return [(k + 0.5) / 65536 for k in range(65536)]


@lru_cache(maxsize=1)
def normal_table() -> npt.NDArray[np.int64]:
    """65,536 standard normal quantiles times 1000, rounded: table[draw] / 1000 is a normal deviate."""
    inverse = NormalDist().inv_cdf
    return np.array([round(1000 * inverse(p)) for p in _quantile_midpoints()], np.int64)


@lru_cache(maxsize=4)
def exponential_table(scale: int = 1000) -> npt.NDArray[np.int64]:
    """65,536 unit exponential quantiles times ``scale``, rounded."""
    return np.array([round(-scale * math.log1p(-p)) for p in _quantile_midpoints()], np.int64)


@lru_cache(maxsize=8)
def lognormal_table(sigma: float) -> npt.NDArray[np.int64]:
    """65,536 quantiles of exp(sigma N) times 1000, rounded: median 1000."""
    inverse = NormalDist().inv_cdf
    return np.array([round(1000 * math.exp(sigma * inverse(p))) for p in _quantile_midpoints()], np.int64)
