"""Shards: a billing day cut into ranges of service points, so that a city flows through every stage in bounded memory.

All rows of one service point (a meter and the one that replaces it, its register and its intervals) are in one shard,
and no result may depend on how many shards there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

#: Intervals a shard may hold: 2.4 million in five int64 matrices are 100 MB.
INTERVALS_PER_SHARD = 2_400_000


def cuts(ids: pl.Series, rows: int, shards: int = 0) -> list[tuple[int, int]]:
    """Row ranges [first, past) of a sorted column of service point ids, ``shards`` of about one size or (0) as many as
    keep to ``rows`` rows each.

    No id is parted. What a hash scatters a range keeps together, so a stage that reads and writes in the order of the
    key takes ranges.
    """
    n = len(ids)
    count = shards or -(-n // max(rows, 1))
    if count <= 1 or n == 0:
        return [(0, n)]
    begins = np.concatenate(([True], (ids.slice(1) != ids.slice(0, n - 1)).to_numpy(), [True]))
    edges = np.flatnonzero(begins)
    wanted = np.arange(1, count) * n // count
    inner = edges[np.searchsorted(edges, wanted)]
    bounds = np.unique(np.concatenate(([0], inner, [n])))
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


def between(frame: pl.DataFrame, ids: pl.Series) -> tuple[int, int]:
    """Rows [first, past) of a frame sorted by service_point_id that lie between the first and the last of some sorted
    ids."""
    if not frame.height or not len(ids):
        return 0, 0
    column = frame["service_point_id"]
    return int(column.search_sorted(ids[0], "left")), int(column.search_sorted(ids[-1], "right"))


@dataclass(frozen=True, slots=True)
class KeySet:
    """A set of ids by name, used like a KeyRange. The key's index finds each in SQL."""

    ids: tuple[str, ...]

    def where(self, column: str, number: int) -> tuple[str, list[str]]:
        """SQL that narrows a query to the ids, and its parameters, of which the first is ``number``."""
        return f" AND {column} = ANY(string_to_array(${number}, ','))", [",".join(self.ids)]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Ids from ``first`` (included) to ``past`` (excluded), by their bytes; None on either side is no limit. The key's
    index finds a range in SQL."""

    first: str | None = None
    past: str | None = None

    def where(self, column: str, number: int) -> tuple[str, list[str]]:
        """SQL that narrows ``column`` to the range, with parameters from $``number`` on, and those parameters."""
        limits = [(sign, value) for sign, value in ((">=", self.first), ("<", self.past)) if value is not None]
        return "".join(f" AND {column} {sign} ${number + k}" for k, (sign, _) in enumerate(limits)), [
            value for _, value in limits
        ]


EVERYTHING = KeyRange()


def key_ranges(ordered: Sequence[str], count: int) -> list[KeyRange]:
    """Ranges with ``count`` of the ordered ids each (the last has fewer), which between them hold every id there is,
    known or not."""
    starts = [ordered[k] for k in range(count, len(ordered), count)]
    return [KeyRange(first, past) for first, past in zip([None, *starts], [*starts, None], strict=True)]
