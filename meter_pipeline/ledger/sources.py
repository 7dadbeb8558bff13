"""Which rows stand behind which leaves.

Belongs here: for every table whose rows carry the hash that is their leaf, the kinds of entry that hold such leaves, and how the hash is
made again from the row. Does not belong here: the tables (each room's migrations), reading them (store/ledger_rows.py).

The promise checked is a bijection: every row's hash is a leaf of an entry, and every leaf of such entries has its row. Both accumulate: a
payload, a validated version, a statement stays a row (current or in history) for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

#: Makes the hashes of a frame of rows again: (frame of the table's own columns) -> Binary column.
Hasher = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table, the column that holds each row's leaf, and the encoding its hash is over (named in docs/audit.md), if the verifier knows it.

    ``folded``: rows with ``payloads`` above 1 are folded from several payloads, each of which is a row of the history table.
    """

    name: str
    hash_column: str
    encoding: str | None = None
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Tables whose rows together stand behind the leaves of some kinds of entry.

    ``kinds``: every leaf of theirs has its row. ``also``: kinds that may hold a row's leaf beside others of their own. ``by_day``: matched
    within a billing day, by the tables' and the entries' billing_day; else over the whole table and log.
    """

    name: str
    kinds: tuple[str, ...]
    tables: tuple[RowTable, ...]
    also: tuple[str, ...] = ()
    by_day: bool = True


RAW: Final = Source(
    "raw",
    ("ingested", "superseded"),
    (
        RowTable("raw.interval_day", "payload_hash", "mpi1", folded=True),
        RowTable("raw.interval_payload", "payload_hash", "mpi1"),
        RowTable("raw.register_read", "payload_hash", "mpr1"),
        RowTable("raw.register_payload", "payload_hash", "mpr1"),
    ),
    # A newer version that says what was there counts as a duplicate, and yet is a payload of its own that is kept.
    also=("duplicate",),
)
VALIDATED: Final = Source(
    "validated",
    ("validated",),
    (RowTable("vee.interval_day", "content_hash"), RowTable("vee.interval_day_version", "content_hash")),
)
STATEMENTS: Final = Source(
    "statements", ("bill_issued",), (RowTable("billing.statement", "lines_sha256"),), also=("adjustment_posted",), by_day=False
)
SOURCES: Final = (RAW, VALIDATED, STATEMENTS)

#: Hashers by encoding; a deployment passes those of the rooms that made the rows.
Hashers = Mapping[str, Hasher]
