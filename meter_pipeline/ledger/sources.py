"""Maps rows to the ledger's leaves.

The verified property is a bijection: every row's hash is a leaf of an entry, and every leaf of such entries has its
row. Payloads, validated versions and rejected lines stay in the tables (current or in history). A charge is updated
instead, so that the entry of the update also names the leaves it retires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table, the column with each row's leaf (None: the leaf is computed from the row, and only a verifier that knows
    the encoding can match it), and the encoding of its hash (see docs/audit.md), if the verifier knows it.

    ``older``: an encoding that rows had before. ``history``: the table with every payload of rows with ``payloads``
    above 1; such a row is merged from them (``key``: its key within a billing day), and where ``merged`` it has no leaf
    of its own. ``versions``: the table of a row's earlier contents. ``detail``: the table of the rows that the hash
    covers, where it does not cover the row itself. ``erasable``: rows may have lost the content of their hash, and keep
    the hash. ``since``: the field of an entry's body that states that the entry has every row of its day; on a day
    without such an entry, from before the table had leaves, only rows with leaves are verified.
    """

    name: str
    hash_column: str | None
    encoding: str | None = None
    older: str | None = None
    history: str | None = None
    key: tuple[str, ...] = ()
    merged: bool = False
    versions: str | None = None
    detail: str | None = None
    erasable: bool = False
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Tables whose rows together match the leaves of some kinds of entry.

    ``kinds``: every leaf of these has its row. ``also``: kinds that may have a row's leaf beside others of their own.
    ``by_day``: matched within a billing day, by the tables' and the entries' billing_day; otherwise over the whole
    table and log. ``retiring``: the last ``retired`` leaves of an entry (a number in its body) are of rows that it
    removed. ``beside``: tables whose rows belong to those of the source's table, and whose content the entries record
    as a whole (contents.py). ``whole_days``: those of ``beside`` for which an entry records every row of its day: a day
    with rows needs an entry. ``replaced``: tables of replaced rows, whose leaves are among the retired ones
    (replaced_rows.py). ``hashed_by_server``: its leaves are of texts, which the server can hash.
    ``states``: the table whose rows entries record completely at each change (row_states.py), and
    the kinds of those entries.
    """

    name: str
    kinds: tuple[str, ...]
    tables: tuple[RowTable, ...]
    also: tuple[str, ...] = ()
    by_day: bool = True
    retiring: bool = False
    beside: tuple[str, ...] = ()
    whole_days: tuple[str, ...] = ()
    states: tuple[str, tuple[str, ...]] | None = None
    replaced: tuple[RowTable, ...] = ()
    hashed_by_server: bool = False


RAW: Final = Source(
    "raw",
    ("ingested", "superseded"),
    (
        RowTable(
            "raw.interval_day",
            "payload_hash",
            "mpi1",
            history="raw.interval_payload",
            key=("meter_id", "channel"),
            merged=True,
        ),
        RowTable("raw.interval_payload", "payload_hash", "mpi1"),
        RowTable(
            "raw.register_read",
            "payload_hash",
            "mpr1",
            history="raw.register_payload",
            key=("meter_id", "channel", "read_at"),
        ),
        RowTable("raw.register_payload", "payload_hash", "mpr1"),
    ),
    # A newer version that says what was there counts as a duplicate, and yet is a payload of its own that is kept.
    also=("duplicate",),
)
VALIDATED: Final = Source(
    "validated",
    ("validated",),
    (
        RowTable(
            "vee.interval_day",
            "content_hash",
            "mp-vee-row/1",
            key=("service_point_id", "meter_id", "channel"),
            versions="vee.interval_day_version",
        ),
        RowTable("vee.interval_day_version", "content_hash", "mp-vee-row/1"),
    ),
    beside=("vee.daily_usage", "vee.register_day"),
    whole_days=("vee.daily_usage", "vee.register_day"),
)
#: A rejected line's leaf is salted, and its content may be erased.
DEAD_LETTERS: Final = Source(
    "dead letters", ("rejected",), (RowTable("raw.dead_letter", "leaf", "mp-salted/1", erasable=True),), by_day=False
)
CHARGES: Final = Source(
    "charges",
    ("billed",),
    (
        RowTable("billing.charge_day", None, "mp-charge/2", older="mp-charge/1"),
        RowTable("billing.determinant_day", None, "mp-determinant/1", since="all_determinants"),
    ),
    retiring=True,
    hashed_by_server=True,
    replaced=(
        RowTable("billing.charge_day_version", None, "mp-charge/2", older="mp-charge/1"),
        RowTable("billing.determinant_day_version", None, "mp-determinant/1"),
    ),
)
STATEMENTS: Final = Source(
    "statements",
    ("bill_issued",),
    (RowTable("billing.statement", "lines_sha256", "mp-statement/1", detail="billing.statement_line"),),
    beside=("billing.statement_segment",),
)
ADJUSTMENTS: Final = Source(
    "adjustments",
    ("adjustment_requested",),
    (RowTable("billing.adjustment_line", None, "mp-adjustment-line/1"),),
    also=("adjustment_posted",),
    by_day=False,
    beside=("billing.adjustment", "billing.adjustment_segment", "billing.leak_adjustment", "billing.back_billing"),
    states=(
        "billing.adjustment",
        ("adjustment_requested", "adjustment_approved", "adjustment_refused", "adjustment_posted"),
    ),
)
#: Sources that are verified before a day is billed, and after it.
BEFORE_BILLING: Final = (VALIDATED, RAW)
AFTER_BILLING: Final = (DEAD_LETTERS, CHARGES, STATEMENTS, ADJUSTMENTS)
SOURCES: Final = (*BEFORE_BILLING, *AFTER_BILLING)
