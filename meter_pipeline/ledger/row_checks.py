"""Compares rows with their leaves: a bijection, with their content hashed again and merges and derived columns
computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.ledger import hashsets, merkle
from meter_pipeline.ledger.hashsets import Hashes
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.row_rules import Hasher, Merge, RowRules
from meter_pipeline.ledger.sources import RowTable, Source
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import rows as ledger_rows
from meter_pipeline.postgres import vectors
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession, ahead


@dataclass(slots=True)
class LiveLeaves:
    """Leaves that must have a row, and the entries they belong to: (position in the log, number of leaves), in the
    leaves' order."""

    hashes: Hashes
    entries: list[tuple[int, int]]

    def place(self, row: int) -> int:
        """Returns the log position of the entry of a leaf, by the leaf's number."""
        for place, count in self.entries:
            if row < count:
                return place
            row -= count
        raise IndexError(row)

    def place_of(self, leaf: bytes) -> int | None:
        """Returns the position of the first entry with a leaf."""
        found = self._rows_of(leaf)
        return self.place(int(found[0])) if len(found) else None

    def last(self, leaf: bytes) -> int:
        """Returns the last position of a leaf among the leaves; -1 where it is not among them."""
        found = self._rows_of(leaf)
        return int(found[-1]) if len(found) else -1

    def _rows_of(self, leaf: bytes) -> npt.NDArray[np.intp]:
        return np.flatnonzero((self.hashes == hashsets.of(leaf)).all(axis=1))


#: Step of a ``verified`` entry that two people wrote for leaves that an entry had wrong (repair.py).
REPAIR: Final = "repair"


def live_leaves(connection: store.Connection, source: Source, day: date | None) -> LiveLeaves:
    """Returns the leaves that must have a row (of a billing day, or all), in the order of the log: those of the
    source's kinds and of repairs, without those that a later entry retired: the last ``retired`` of an entry's
    leaves are of rows it removed."""
    entries = store.entries_of(connection, source.kinds, day)
    repairs = [e for e in store.entries_of(connection, ("verified",), day) if e.leaves and _repairs(e) == source.name]
    retired = [_retired(entry) if source.retiring else 0 for entry in entries] + [_retired(entry) for entry in repairs]
    if not any(retired) and not repairs:
        return _all_leaves(entries)
    live: dict[bytes, int] = {}
    # Entries without a place yet, -1, come last.
    ordered = sorted(zip([*entries, *repairs], retired, strict=True), key=lambda pair: pair[0].leaf_index % (1 << 63))
    for entry, gone in ordered:
        flat = entry.leaves or b""
        cut = [flat[at : at + merkle.HASH_SIZE] for at in range(0, len(flat), merkle.HASH_SIZE)]
        for leaf in cut[len(cut) - gone :]:
            live.pop(leaf, None)
        live |= dict.fromkeys(cut[: len(cut) - gone], entry.leaf_index)
    return LiveLeaves(hashsets.of(b"".join(live)), [(place, 1) for place in live.values()])


def _all_leaves(entries: Sequence[store.StoredEntry]) -> LiveLeaves:
    return LiveLeaves(
        hashsets.of(b"".join([entry.leaves or b"" for entry in entries])),
        [(entry.leaf_index, len(entry.leaves or b"") // merkle.HASH_SIZE) for entry in entries],
    )


def _retired(entry: store.StoredEntry) -> int:
    return int(json.loads(entry.body)["body"].get("retired", 0))


def _repairs(entry: store.StoredEntry) -> str | None:
    """Returns the source whose leaves an entry repairs; None for any other entry. Two people make a repair."""
    body = json.loads(entry.body)["body"]
    people = {str(body.get(name) or "") for name in ("requested_by", "approved_by")} - {""}
    return str(body["source"]) if body.get("step") == REPAIR and len(people) == 2 else None


@dataclass(frozen=True, slots=True)
class RowStream:
    """Rows to hash again, read ahead in the order of their use: the parts of a table's day, then None. ``some``:
    tables of which it has a part of the day's rows."""

    items: Iterator[pl.DataFrame | None]
    some: frozenset[str] = frozenset()

    def parts(self) -> Iterator[pl.DataFrame]:
        """The parts of the next table and day."""
        while (part := next(self.items)) is not None:
            yield part


@contextmanager
def contents_of(
    database: Database,
    connection: store.Connection,
    wanted: Sequence[tuple[RowTable, date | None]],
    only: Mapping[str, tuple[str, str]] = MappingProxyType({}),
) -> Iterator[RowStream]:
    """Returns the rows to hash, in the snapshot of ``connection``, so that a load that commits meanwhile is not seen
    in part. ``only``: by table, which of its rows, where not all (``ledger_rows.names_of_points``). Raises
    ValueError naming the table and day of an array that cannot be read, which only a manual change can cause."""
    if not wanted:
        yield RowStream(iter(()))
        return

    def every(session: ReadSession) -> Generator[pl.DataFrame | None]:
        for table, day in wanted:
            try:
                yield from ledger_rows.parts(session, table.name, day, only.get(table.name))
            except ValueError as error:
                raise ValueError(f"{table.name} {day or ''}: a row was changed by hand: {error}") from error
            yield None

    with ledger_rows.same_snapshot(database, connection) as session, ahead(every(session)) as items:
        yield RowStream(items, frozenset(only))


def tables_of(connection: store.Connection, source: Source, rules: Mapping[str, Hasher]) -> list[RowTable]:
    """Returns the existing tables of a source; none where the leaves of one need an encoding that no rule knows."""
    tables = [table for table in source.tables if ledger_rows.exists(connection, table.name)]
    return [] if any(table.hash_column is None and table.encoding not in rules for table in tables) else tables


def days_of(connection: store.Connection, source: Source) -> list[date]:
    """Returns every billing day with rows or leaves of a source."""
    found = set(store.days_of_kinds(connection, (*source.kinds, *source.also)))
    for name in (*(table.name for table in source.tables), *source.whole_days):
        if ledger_rows.exists(connection, name):
            found |= set(ledger_rows.days_of(connection, name))
    return sorted(found)


def verify_rows(
    connection: store.Connection,
    source: Source,
    tables: Sequence[RowTable],
    day: date | None,
    outcome: VerifyOutcome,
    rules: RowRules,
    contents: RowStream | None = None,
) -> None:
    """Verify the bijection of rows and leaves (of a billing day, or all); for a table whose encoding has a hasher, from
    the rows' ``contents``, with the merges and derived columns of the rules.

    ``tables``: the existing tables of the source (tables_of). Where ``contents`` has a part of their rows, each of
    those must have its leaf; leaves without a row are not checked.
    """
    live, allowed, by_table = compared(connection, source, tables, day, outcome, rules, contents)
    about = f"{day}" if day else "all"
    some = contents is not None and all(table.name in contents.some for table in tables)
    if not some and hashsets.same(live.hashes, np.concatenate(by_table)):
        return
    for table, carried in zip(tables, by_table, strict=True):
        for row in hashsets.absent(carried, allowed) if _is_current(connection, source, table, day) else ():
            outcome.find("row without leaf", f"{table.name} {about}: {carried[row].tobytes().hex()}")
    for row in () if some else hashsets.absent(live.hashes, np.concatenate(by_table)):
        outcome.find("leaf without row", f"{source.name} {about}: {live.hashes[row].tobytes().hex()}", live.place(row))


#: Calls that give the leaves of a day's tables but the first (``hashed_by_server``), and how many rows have a derived
# column that is wrong. Another session may be at work on them.
LeavesBeside: TypeAlias = tuple[Sequence[Callable[[], bytes | None]], Callable[[], int]]


def verified_by_server(
    connection: store.Connection,
    source: Source,
    tables: Sequence[RowTable],
    day: date,
    outcome: VerifyOutcome,
    beside: LeavesBeside,
) -> bool:
    """Whether the rows of a billing day, hashed by the server from their columns, are exactly the leaves that must have
    a row, and no derived column is wrong. False says nothing yet: verify_rows finds the rows at fault.

    The leaves were made by Polars from the frames that were written. 100,000 charges and determinants take 0.6 s of the
    server; to send and hash them here took 0.2 s of it and 0.6 of this process.
    """
    others, wrong = beside
    first = ledger_rows.hashed_by_server(connection, tables[0].name, tables[0].encoding, day)
    live, made = live_leaves(connection, source, day), [first, *(other() for other in others)]
    if wrong() or any(leaves is None for leaves in made):
        return False
    by_table = [hashsets.of(leaves) for leaves in made if leaves is not None]
    if not hashsets.same(live.hashes, np.concatenate(by_table)):
        return False
    for table, rows in zip(tables, by_table, strict=True):
        outcome.checked[f"content of {table.name}"] += len(rows)
        outcome.checked[f"rows of {table.name}"] += len(rows)
    return True


def _is_current(connection: store.Connection, source: Source, table: RowTable, day: date | None) -> bool:
    """Whether every row of a day needs its leaf: not where the day was written before the table had leaves."""
    if table.since is None:
        return True
    bodies = store.bodies_of(connection, source.kinds, day)
    return not bodies or any(body.get(table.since) for _, body in bodies)


def compared(
    connection: store.Connection,
    source: Source,
    tables: Sequence[RowTable],
    day: date | None,
    outcome: VerifyOutcome,
    rules: RowRules,
    contents: RowStream | None,
) -> tuple[LiveLeaves, Hashes, list[Hashes]]:
    """Returns the leaves that need a row, the leaves that a row may have, and each table's leaves computed from its
    rows; faults of the rows themselves go to ``outcome``."""
    live = live_leaves(connection, source, day)
    allowed = live.hashes
    if source.also:
        allowed = np.concatenate((allowed, _all_leaves(store.entries_of(connection, source.also, day)).hashes))
    checked = _Rows(source, rules, live, allowed, outcome)
    by_table = []
    for table in tables:
        known = contents is not None and table.encoding in rules
        if known and contents is not None:
            carried = hashsets.of(b"".join([checked.part(table, part) for part in contents.parts()]))
        if not known or table.erasable:
            assert table.hash_column is not None  # noqa: S101 - looked at by tables_of
            carried = hashsets.of(ledger_rows.hashes(connection, table.name, table.hash_column, day))
        outcome.checked[f"rows of {table.name}"] += len(carried)
        by_table.append(carried)
    if contents is not None:
        checked.across(tables)
    return live, allowed, by_table


_MINUTES: Final = pl.col("slots").cast(pl.Int32) * pl.col("interval_minutes")
_FAR_FROM_A_DAY: Final = (_MINUTES - 1440).abs() > pl.max_horizontal(pl.lit(60), pl.col("interval_minutes"))
#: Values shared by all vectors of a billing day: its beginning, and its length in minutes.
_OF_THE_DAY: Final[dict[str, pl.Expr]] = {
    "starts_at": pl.col("starts_at"),
    # An interval longer than an hour may be cut short or left over on the day of a clock change.
    "interval_minutes": pl.when(
        (pl.col("interval_minutes") <= 60) | (1440 % pl.col("interval_minutes").cast(pl.Int32) != 0) | _FAR_FROM_A_DAY
    ).then(_MINUTES),
}


@dataclass(slots=True)
class _Rows:
    """The rows of a source's day as they arrive; the data to compare across tables is kept until all are read."""

    source: Source
    rules: RowRules
    live: LiveLeaves
    allowed: Hashes
    outcome: VerifyOutcome
    kept: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    of_the_day: dict[str, set[Any]] = field(default_factory=dict)
    _allowed: hashsets.Index | None = None

    def _unknown(self, made: Sequence[bytes]) -> list[int]:
        """Returns leaves, by number, that no row may have."""
        if self._allowed is None:
            self._allowed = hashsets.Index(self.allowed)
        return self._allowed.absent(hashsets.of(b"".join(made)))

    def part(self, table: RowTable, part: pl.DataFrame) -> bytes:
        """Check a part of a table's rows. Returns the leaf of each of them."""
        if table.hash_column is not None and {"values", "wide_values", "slots"} <= set(part.columns):
            wrong = vectors.misshapen(part)
            if wrong.any():
                leaves = part.filter(wrong)[table.hash_column].to_list()
                for found in leaves:
                    self.outcome.find(
                        "row",
                        f"a row of {table.name} has not one value for each of its slots; its leaf is {found.hex()}",
                        self.live.place_of(found),
                    )
                return b"".join(leaves) + self.part(table, part.filter(~wrong))
        dated = part.height > 0 and "starts_at" in part.columns
        for name, value in _OF_THE_DAY.items():
            if dated and set(value.meta.root_names()) <= set(part.columns):
                found = part.select(value.alias(name)).to_series().drop_nulls().unique().to_list()
                self.of_the_day.setdefault(name, set()).update(found)
        self._keep(table, part)
        if table.hash_column is None:
            return self._made(table, part)
        rows = part.filter(pl.col("payloads") == 1) if table.merged and (part["payloads"] != 1).any() else part
        carried, made = rows[table.hash_column], self.rules[table.encoding or ""](rows)
        self.outcome.checked[f"content of {table.name}"] += rows.height
        differs = carried.ne_missing(made)
        for found in carried.filter(differs):
            self.outcome.find(
                "row",
                f"a row of {table.name} does not have the content of its leaf {found.hex()}",
                self.live.place_of(found),
            )
        self._derived(table, rows.filter(~differs) if differs.any() else rows)
        return b"".join(part[table.hash_column])

    def _made(self, table: RowTable, part: pl.DataFrame) -> bytes:
        """Returns the leaf of each row of a table without a leaf column, in the encoding that the ledger has."""
        made = self.rules[table.encoding or ""](part).to_list()
        self.outcome.checked[f"content of {table.name}"] += part.height
        if not made:
            return b""
        unknown = self._unknown(made)
        if unknown and table.older is not None and table.older in self.rules:
            older = self.rules[table.older](part[unknown]).to_list()
            # Only a row that the ledger has in the older encoding is taken so: it covers less.
            strange = set(self._unknown(older))
            for place, row in enumerate(unknown):
                if place not in strange:
                    made[row] = older[place]
            unknown = self._unknown(made)
        known = part.with_row_index("n").filter(~pl.col("n").is_in(unknown)) if unknown else part
        self._derived(table, known)
        return b"".join(made)

    def _derived(self, table: RowTable, rows: pl.DataFrame) -> None:
        """Check columns that no leaf covers, of rows whose leaf is valid: others are found already."""
        wrong = self.rules.derived.get(table.name)
        if wrong is not None and rows.height:
            for detail in wrong(rows):
                self.outcome.find("derived column", f"{table.name}: {detail}")

    def _keep(self, table: RowTable, part: pl.DataFrame) -> None:
        """Keep the columns that the comparison across tables needs."""
        histories = {other.history for other in self.source.tables}
        versions = {other.versions for other in self.source.tables}
        if table.history is not None:
            several = part.filter(pl.col("payloads") > 1)
            if several.height:
                self.kept.setdefault(table.name, []).append(several)
        if table.name in histories and part.height:
            self.kept.setdefault(table.name, []).append(part)
        if (table.versions is not None or table.name in versions) and part.height:
            key = next(other.key for other in self.source.tables if other.versions)
            self.kept.setdefault(table.name, []).append(part.select(*key, "version", "content_hash"))

    def across(self, tables: Sequence[RowTable]) -> None:
        """Compare merged rows with their payloads, and current versions with the earlier ones."""
        for name, found in self.of_the_day.items():
            if len(found) > 1:
                self.outcome.find("derived column", f"{self.source.name}: rows of one billing day differ in {name}")
        for table in tables:
            if table.history is not None and (merge := self.rules.merges.get(table.name)) is not None:
                self._merged(table, merge)
            if table.versions is not None:
                self._versions(table)

    def _merged(self, table: RowTable, merge: Merge) -> None:
        current, history = self.kept.get(table.name), self.kept.get(table.history or "")
        self.outcome.checked[f"merged rows of {table.name}"] += sum(part.height for part in current or ())
        key = list(table.key)
        if history is None:
            for row in pl.concat(current).select(key).rows() if current else ():
                self.outcome.find(
                    "merged row", f"{table.name} {row}: it says several payloads, and {table.history} has none"
                )
            return
        made = merge(pl.concat(history))
        found = pl.concat(current).select(made.columns) if current else made.clear()
        found = found.cast(made.schema)
        for row in made.join(found, on=key, how="anti").select(key).rows():
            self.outcome.find("merged row", f"{table.name} {row}: {table.history} has its payloads, and it says one")
        for row in found.join(made, on=key, how="anti").select(key).rows():
            self.outcome.find(
                "merged row", f"{table.name} {row}: it says several payloads, and {table.history} has none"
            )
        made = made.join(found, on=key, how="semi").sort(key)
        found = found.join(made, on=key, how="semi").sort(key)
        for name in made.columns:
            for row in made.filter(made[name].ne_missing(found[name])).select(key).rows():
                self.outcome.find("merged row", f"{table.name} {row}: {name} is not what its payloads give")

    def _versions(self, table: RowTable) -> None:
        """Check that no earlier version of a row is stored as the current one: its leaf is the last of the row in
        the ledger."""
        current, earlier = self.kept.get(table.name), self.kept.get(table.versions or "")
        if not current or not earlier:
            return
        key = list(table.key)
        pairs = pl.concat(earlier).join(pl.concat(current), on=key, suffix="_now")
        for *of, version, before, number, now in pairs.select(
            *key, "version", "content_hash", "version_now", "content_hash_now"
        ).iter_rows():
            if before != now and (version >= number or self.live.last(before) > self.live.last(now)):
                self.outcome.find(
                    "version", f"{table.name} {tuple(of)}: version {version} is newer than the current {number}"
                )
