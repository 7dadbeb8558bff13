"""The rooms' rules for their own rows, given to the ledger's verification: hashes, merges and derived columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

#: Makes the hashes of a frame of rows again: (frame of the table's own columns) -> Binary column.
Hasher = Callable[[pl.DataFrame], pl.Series]
#: Merges every payload of some keys to the rows that must be current: (history rows) -> current rows, same columns.
Merge = Callable[[pl.DataFrame], pl.DataFrame]
#: Finds faults of columns that the row's leaf does not cover: (frame of rows) -> one text for each bad row.
Derived = Callable[[pl.DataFrame], list[str]]


@dataclass(frozen=True, slots=True)
class RowRules(Mapping[str, Hasher]):
    """Hashers by encoding, merges and checks of derived columns by table. As a mapping it is its hashers."""

    hashers: Mapping[str, Hasher]
    merges: Mapping[str, Merge] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)

    def __getitem__(self, encoding: str) -> Hasher:
        return self.hashers[encoding]

    def __iter__(self) -> Iterator[str]:
        return iter(self.hashers)

    def __len__(self) -> int:
        return len(self.hashers)


def rules_of(hashers: Mapping[str, Hasher] | None) -> RowRules:
    """The rules that come with hashers; a plain mapping has hashers alone."""
    return hashers if isinstance(hashers, RowRules) else RowRules(hashers or {})
