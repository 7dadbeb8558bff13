"""Shards: a billing day cut by a stable hash of the service point, so that a city flows through every stage in bounded memory.

Belongs here: which shard an id belongs to, the same in Python and in SQL (ref.shard_of). Does not belong here: how a stage works on one.

All that happens at one service point (a meter and the one that replaces it, its register and its intervals) falls in one shard, and no result may
depend on how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Intervals a shard may hold: 2.4 million in five int64 matrices are 100 MB.
INTERVALS_PER_SHARD = 2_400_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Number ``index`` of ``count`` shards; Shard(0, 1) is the whole city."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"no shard {self.index} of {self.count}")


WHOLE = Shard()


def shards(count: int) -> list[Shard]:
    """All shards of a day, in order."""
    return [Shard(index, count) for index in range(count)]


def shard_of(ids: Iterable[str], count: int) -> npt.NDArray[np.int32]:
    """Shard of each service point id: the first four bytes of its MD5, big-endian, modulo ``count``. MD5 because PostgreSQL has it everywhere."""
    if count == 1:
        return np.zeros(sum(1 for _ in ids), np.int32)
    return np.fromiter(
        (int.from_bytes(hashlib.md5(i.encode(), usedforsecurity=False).digest()[:4], "big") % count for i in ids), np.int32
    )
