"""Verification from inside: the log recomputed from its entries, a day's rows matched with their leaves, the guards
looked at.

A full run recomputes everything. An incremental one starts from what was last verified, which is remembered on disk
outside the database: a database put back to an older state is then shorter than the memory, and a rewritten past no
longer leads to the remembered root.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.ledger import hashsets, merkle, notes, privileges, timestamps
from meter_pipeline.ledger.checkpoints import WitnessSeen, keys_file, last_witness
from meter_pipeline.ledger.hashsets import Hashes
from meter_pipeline.ledger.kinds import KINDS, TOTALS
from meter_pipeline.ledger.signer import file_name, write_atomically
from meter_pipeline.ledger.sources import SOURCES, Hasher, Hashers, RowTable, Source
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import rows as ledger_rows
from meter_pipeline.ledger.tree import Growing, stored_reader
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import ReadSession, ahead

#: More findings than this say nothing new: a rewritten entry early in the log breaks every root after it.
FINDINGS_LIMIT: Final = 100
#: Bytes of leaves, and entries, that are folded at once.
_FOLDED_TOGETHER: Final = 32 << 20
_ENTRIES_TOGETHER: Final = 5000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be; ``index`` is the place in the log, where it has one."""

    check: str
    detail: str
    index: int | None = None


@dataclass(slots=True)
class VerifyOutcome:
    """What was verified. ``start`` is the place verification began at, ``checked`` counts what was looked at by name."""

    origin: str | None
    start: int
    size: int
    root: bytes
    findings: list[Finding] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    witness: WitnessSeen | None = None
    bypass: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def first_bad_index(self) -> int | None:
        return min((finding.index for finding in self.findings if finding.index is not None), default=None)

    def find(self, check: str, detail: str, index: int | None = None) -> None:
        """Note a finding, up to FINDINGS_LIMIT of them."""
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(Finding(check, detail, index))

    def document(self) -> dict[str, Any]:
        """For ``--json`` and for metadata."""
        return {
            "ok": self.ok,
            "origin": self.origin,
            "from": self.start,
            "size": self.size,
            "root": self.root.hex(),
            "first_bad_index": self.first_bad_index,
            "findings": [
                {"check": finding.check, "index": finding.index, "detail": finding.detail} for finding in self.findings
            ],
            "checked": dict(self.checked),
            "last_witness": None
            if self.witness is None
            else {"name": self.witness.name, "size": self.witness.size, "at": self.witness.at},
            "bypass": list(self.bypass),
        }


def verify(
    database: Database,
    *,
    home: Path,
    full: bool = False,
    days: Sequence[date] = (),
    hashers: Hashers | None = None,
    sources: Iterable[Source] = SOURCES,
    trusted: Sequence[str] = (),
    authority: Path | None = None,
) -> VerifyOutcome:
    """Verify the log, and the rows of ``sources`` on ``days`` against their leaves.

    ``full`` starts from the first entry and compares the stored tree too; otherwise from what was last verified.
    ``hashers`` make a day's row hashes again from its rows, by encoding; without them rows are matched by the hash they
    carry, and rows that carry none are passed over. ``trusted`` are verifier keys the caller holds; by default those
    this deployment has seen (``checkpoints.keys_file``). ``authority``: certificates (PEM) of the time-stamp authority,
    to verify the stored time stamps with. Nothing is written to the database.
    """
    with database.connect("meter-pipeline-ledger-verify") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        origin = store.origin(connection)
        head = store.latest_head(connection)
        outcome = VerifyOutcome(origin, 0, head.tree_size if head else 0, head.root_hash if head else merkle.EMPTY_ROOT)
        memory = _Memory(home / "ledger" / f"verified-{file_name(origin or 'none')}.json")
        remembered, remembered_root = memory.read()
        if remembered > outcome.size:
            outcome.find(
                "memory", f"{remembered} entries were verified before, the log has {outcome.size}", outcome.size
            )
        outcome.start = 0 if full or remembered > outcome.size else remembered
        checkpoints = _checkpoints(connection, outcome, origin, trusted or _held_keys(home, origin))
        wanted = [
            (source, tables, day)
            for source in sources
            if (tables := tables_of(connection, source, hashers or {}))
            for day in (days if source.by_day else [None])
        ]
        with _contents(
            database,
            connection,
            [(table, day) for _, tables, day in wanted for table in tables if table.encoding in (hashers or {})],
        ) as contents:
            # The rows to hash arrive while the log is gone through: they are most of the time of a day's verification.
            _log(connection, outcome, checkpoints, (remembered, remembered_root), full)
            for source, tables, day in wanted:
                verify_rows(connection, source, tables, day, outcome, hashers or {}, contents)
        guard = privileges.check(connection)
        outcome.bypass = guard.bypass
        outcome.checked["guards"] += len(guard.guards["tables"])
        for deviation in guard.deviations:
            outcome.find("guards", deviation)
        for totals in ledger_rows.control_totals(connection):
            outcome.checked["files"] += 1
            if totals["received"] != sum(totals[name] for name in (*TOTALS[1:], "waiting")):
                outcome.find("control totals", f"file {totals['sha256'][:12]} ({totals['file_name']}): {totals}")
        if authority is not None:
            good, bad = timestamps.verify_all(connection, authority)
            outcome.checked["time stamps"] += len(good)
            for size, why in bad:
                outcome.find("time stamp", f"of the checkpoint of {size} entries: {why}", max(size - 1, 0))
        outcome.witness = last_witness(connection)
    if outcome.ok:
        memory.write(outcome.size, outcome.root)
    return outcome


@dataclass(frozen=True, slots=True)
class _Memory:
    """Size and root last found good, on disk."""

    path: Path

    def read(self) -> tuple[int, bytes]:
        if not self.path.exists():
            return 0, merkle.EMPTY_ROOT
        held = json.loads(self.path.read_text("utf-8"))
        return int(held["size"]), bytes.fromhex(held["root"])

    def write(self, size: int, root: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"size": size, "root": root.hex()}) + "\n")


def _held_keys(home: Path, origin: str | None) -> list[str]:
    path = keys_file(home, origin or "none")
    return path.read_text("utf-8").split() if path.exists() else []


def _checkpoints(
    connection: store.Connection, outcome: VerifyOutcome, origin: str | None, trusted: Sequence[str]
) -> dict[int, bytes]:
    """Roots by size of the checkpoints whose signature is good."""
    verifiers = [notes.parse_vkey(key) for key in trusted]
    roots = {}
    for row in store.checkpoints(connection):
        outcome.checked["checkpoints"] += 1
        try:
            note = notes.parse_note(row.note)
            notes.verify_note(note, verifiers)
            said = notes.parse_checkpoint(note.text)
            if said.origin != origin or said.size != row.tree_size:
                raise notes.NoteError(f"it is of {said.size} entries of {said.origin}")
            roots[said.size] = said.root
        except notes.NoteError as error:
            outcome.find("checkpoint", f"the checkpoint of {row.tree_size} entries: {error}", max(row.tree_size - 1, 0))
    return roots


def _log(
    connection: store.Connection,
    outcome: VerifyOutcome,
    checkpoints: dict[int, bytes],
    remembered: tuple[int, bytes],
    full: bool,
) -> None:
    """Recompute the tree from ``outcome.start`` on and compare it at every size that someone vouched for."""
    expected = {head.tree_size: ("tree head", head.root_hash) for head in store.heads(connection)}
    expected |= {size: ("checkpoint", root) for size, root in checkpoints.items()}
    if remembered[0]:
        expected[remembered[0]] = ("memory", remembered[1])
    growing = Growing(outcome.start, stored_reader(connection))
    _compare(outcome, growing, expected)
    place = outcome.start
    for part in _parts(store.entries(connection, outcome.start, outcome.size)):
        roots = merkle.fold_roots(
            b"".join([entry.leaves or b"" for entry in part]),
            [len(entry.leaves or b"") // merkle.HASH_SIZE for entry in part],
        )
        for entry, folded in zip(part, roots, strict=True):
            if entry.leaf_index != place:
                outcome.find("contiguity", f"after {place - 1} comes {entry.leaf_index}", place)
                return
            verify_entry(entry, folded, outcome)
            growing.extend([merkle.leaf_hash(entry.body)])
            place += 1
            _compare(outcome, growing, expected)
    outcome.checked["entries"] += place - outcome.start
    if place != outcome.size:
        outcome.find("contiguity", f"the log ends at {place}, its tree head says {outcome.size}", place)
    elif full:
        kept = {(level, index): node for level, index, node in growing.nodes}
        outcome.checked["nodes"] += len(kept)
        read = stored_reader(connection)
        for (level, index), node in kept.items():
            if read(level, index) != node:
                outcome.find(
                    "stored tree",
                    f"the node at level {level} index {index} is not what its leaves give",
                    index << level,
                )


def _parts(entries: Iterable[store.StoredEntry]) -> Iterator[list[store.StoredEntry]]:
    """Entries in lists whose leaves are folded together: enough for the compiled loop, few enough for memory."""
    part: list[store.StoredEntry] = []
    held = 0
    for entry in entries:
        part.append(entry)
        held += len(entry.leaves or b"")
        if held >= _FOLDED_TOGETHER or len(part) >= _ENTRIES_TOGETHER:
            yield part
            part, held = [], 0
    if part:
        yield part


def _compare(outcome: VerifyOutcome, growing: Growing, expected: dict[int, tuple[str, bytes]]) -> None:
    found = expected.get(growing.size)
    if found is not None and found[1] != growing.root():
        outcome.find(
            "root", f"the first {growing.size} entries do not give the root of the {found[0]}", max(growing.size - 1, 0)
        )


def verify_entry(entry: store.StoredEntry, folded: bytes, outcome: VerifyOutcome) -> None:
    """One entry by itself: its hashes, its leaves' root (``folded`` is that of the leaves beside it), its kind's own
    rules."""
    index = entry.leaf_index
    if not entry.body:
        outcome.find("entry", f"entry {entry.entry_id} is gone", index)
        return
    found = merkle.leaf_hash(entry.body)
    if found != entry.entry_hash or found != entry.indexed_hash:
        outcome.find("leaf", f"the body of entry {entry.entry_id} does not have the hash recorded", index)
    try:
        document = json.loads(entry.body)
        said, body, leaves = document["kind"], document["body"], document["leaves"]
    except (ValueError, KeyError, TypeError):
        outcome.find("entry", f"entry {entry.entry_id} is not a ledger entry", index)
        return
    if said != entry.kind or said not in KINDS:
        outcome.find("entry", f"entry {entry.entry_id} says it is {said!r}, its row {entry.kind!r}", index)
    if body.get("billing_day") != (entry.billing_day.isoformat() if entry.billing_day else None):
        outcome.find("entry", f"entry {entry.entry_id} is filed under {entry.billing_day}", index)
    flat = entry.leaves or b""
    outcome.checked["leaves"] += len(flat) // merkle.HASH_SIZE
    if leaves is not None and (leaves["count"] * merkle.HASH_SIZE != len(flat) or leaves["root"] != folded.hex()):
        outcome.find("leaves", f"the leaves beside entry {entry.entry_id} do not give its root", index)
    if leaves is None and flat:
        outcome.find("leaves", f"entry {entry.entry_id} has leaves it does not vouch for", index)
    dual = KINDS[said].dual if said in KINDS else None
    if dual is not None and len({str(body.get(name) or "").strip().casefold() for name in dual} - {""}) != 2:
        outcome.find("dual control", f"entry {entry.entry_id} ({said}) does not name two people", index)
    if said == "file_loaded" and body.get("received") != sum(int(body.get(name, 0)) for name in TOTALS[1:]):
        outcome.find(
            "control totals", f"entry {entry.entry_id}: { ({name: body.get(name) for name in TOTALS}) }", index
        )


@dataclass(slots=True)
class LiveLeaves:
    """Leaves that rows must stand behind, and the entries they are of: (place in the log, how many leaves), in the
    leaves' order."""

    hashes: Hashes
    entries: list[tuple[int, int]]

    def place(self, row: int) -> int:
        """The place in the log of the entry of a leaf, by the leaf's number."""
        for place, count in self.entries:
            if row < count:
                return place
            row -= count
        raise IndexError(row)

    def place_of(self, leaf: bytes) -> int | None:
        """The place of the first entry that holds a leaf."""
        found = np.flatnonzero((self.hashes == hashsets.of(leaf)).all(axis=1))
        return self.place(int(found[0])) if len(found) else None


def live_leaves(connection: store.Connection, kinds: Sequence[str], day: date | None) -> LiveLeaves:
    """The leaves of entries of some kinds (of a billing day, or all), in the order of the log."""
    entries = store.entries_of(connection, kinds, day)
    return LiveLeaves(
        hashsets.of(b"".join([entry.leaves or b"" for entry in entries])),
        [(entry.leaf_index, len(entry.leaves or b"") // merkle.HASH_SIZE) for entry in entries],
    )


def unretired_leaves(connection: store.Connection, kinds: Sequence[str], day: date | None) -> LiveLeaves:
    """As live_leaves, without those that a later entry says it retired: the last ``retired`` of an entry's leaves are
    of rows it took away."""
    entries = store.entries_of(connection, kinds, day)
    retired = [int(json.loads(entry.body)["body"].get("retired", 0)) for entry in entries]
    if not any(retired):
        return live_leaves(connection, kinds, day)
    live: dict[bytes, int] = {}
    for entry, gone in zip(entries, retired, strict=True):
        flat = entry.leaves or b""
        cut = [flat[at : at + merkle.HASH_SIZE] for at in range(0, len(flat), merkle.HASH_SIZE)]
        for leaf in cut[len(cut) - gone :]:
            live.pop(leaf, None)
        live |= dict.fromkeys(cut[: len(cut) - gone], entry.leaf_index)
    return LiveLeaves(hashsets.of(b"".join(live)), [(place, 1) for place in live.values()])


@dataclass(frozen=True, slots=True)
class _Contents:
    """Rows to hash again, read ahead in the order they are asked for: the parts of a table's day, then None."""

    items: Iterator[pl.DataFrame | None]

    def parts(self) -> Iterator[pl.DataFrame]:
        """The parts of the next table and day."""
        while (part := next(self.items)) is not None:
            yield part


@contextmanager
def _contents(
    database: Database, connection: store.Connection, asked: Sequence[tuple[RowTable, date | None]]
) -> Iterator[_Contents]:
    """The rows of what is to be hashed, in the snapshot of ``connection``: a load that commits meanwhile is not half
    seen."""
    if not asked:
        yield _Contents(iter(()))
        return

    def every(session: ReadSession) -> Generator[pl.DataFrame | None]:
        for table, day in asked:
            yield from ledger_rows.parts(session, table.name, day)
            yield None

    with ledger_rows.same_snapshot(database, connection) as session, ahead(every(session)) as items:
        yield _Contents(items)


def tables_of(connection: store.Connection, source: Source, hashers: Hashers) -> list[RowTable]:
    """Those of a source's tables that are there; none where one's leaves can only be matched by who knows its encoding,
    and nobody does."""
    tables = [table for table in source.tables if ledger_rows.exists(connection, table.name)]
    return [] if any(table.hash_column is None and table.encoding not in hashers for table in tables) else tables


def verify_rows(
    connection: store.Connection,
    source: Source,
    tables: Sequence[RowTable],
    day: date | None,
    outcome: VerifyOutcome,
    hashers: Hashers,
    contents: _Contents | None = None,
) -> None:
    """The bijection of rows and leaves (of a billing day, or all); for a table whose encoding has a hasher, from the
    rows' ``contents``.

    ``tables``: those of the source that are there (tables_of).
    """
    live = (unretired_leaves if source.retiring else live_leaves)(connection, source.kinds, day)
    allowed = live.hashes
    if source.also:
        allowed = np.concatenate((allowed, live_leaves(connection, source.also, day).hashes))
    about = f"{day}" if day else "all"
    held = []
    for table in tables:
        hasher = hashers.get(table.encoding or "")
        if hasher is not None and contents is not None:
            carried = hashsets.of(b"".join(verify_content(contents.parts(), table, hasher, live, outcome)))
        if hasher is None or contents is None or table.erasable:
            assert table.hash_column is not None  # noqa: S101 - looked at by tables_of
            carried = hashsets.of(ledger_rows.hashes(connection, table.name, table.hash_column, day))
        outcome.checked[f"rows of {table.name}"] += len(carried)
        held.append(carried)
    if hashsets.same(live.hashes, np.concatenate(held)):
        return
    for table, carried in zip(tables, held, strict=True):
        for row in hashsets.absent(carried, allowed):
            outcome.find("row without leaf", f"{table.name} {about}: {carried[row].tobytes().hex()}")
    for row in hashsets.absent(live.hashes, np.concatenate(held)):
        outcome.find("leaf without row", f"{source.name} {about}: {live.hashes[row].tobytes().hex()}", live.place(row))


def verify_content(
    parts: Iterable[pl.DataFrame], table: RowTable, hasher: Hasher, live: LiveLeaves, outcome: VerifyOutcome
) -> Iterator[bytes]:
    """Make the hashes of rows again from their content and compare them with those they carry; gives the hash of each
    of them.

    Rows that carry none have the one made."""
    for part in parts:
        if table.hash_column is None:
            yield b"".join(hasher(part))
            continue
        # The current row of a channel-day with several payloads is their fold; the payloads themselves are in history.
        rows = part.filter(pl.col("payloads") == 1) if table.folded else part
        carried, made = rows[table.hash_column], hasher(rows)
        outcome.checked[f"content of {table.name}"] += rows.height
        for found in carried.filter(carried != made):
            outcome.find(
                "row",
                f"a row of {table.name} does not have the content of its leaf {found.hex()}",
                live.place_of(found),
            )
        yield b"".join(part[table.hash_column])
