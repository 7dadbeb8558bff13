"""Verification from inside: the log recomputed from its entries, a day's rows matched with their leaves, the guards
looked at.

A full run recomputes everything. An incremental one starts from what was last verified, which is remembered on disk
outside the database: a database put back to an older state is then shorter than the memory, and a rewritten past no
longer leads to the remembered root.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

from meter_pipeline.ledger import merkle, notes, privileges, timestamps
from meter_pipeline.ledger.checkpoints import keys_file, last_witness
from meter_pipeline.ledger.contents import verify_contents
from meter_pipeline.ledger.kinds import KINDS, TOTALS
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.reference_rows import verify_reference
from meter_pipeline.ledger.replaced_rows import verify_replaced
from meter_pipeline.ledger.row_checks import (
    LeavesBeside,
    contents_of,
    days_of,
    tables_of,
    verified_by_server,
    verify_rows,
)
from meter_pipeline.ledger.row_rules import Hasher, rules_of
from meter_pipeline.ledger.row_states import verify_states
from meter_pipeline.ledger.signer import file_name, write_atomically
from meter_pipeline.ledger.sources import SOURCES, RowTable, Source
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.tables import rows as ledger_rows
from meter_pipeline.ledger.tree import TreeBuilder, stored_reader
from meter_pipeline.postgres.database import Database

#: Bytes of leaves, and entries, that are folded at once.
_FOLDED_TOGETHER: Final = 32 << 20
_ENTRIES_TOGETHER: Final = 5000


def verify(
    database: Database,
    *,
    home: Path,
    full: bool = False,
    days: Sequence[date] = (),
    hashers: Mapping[str, Hasher] | None = None,
    sources: Iterable[Source] = SOURCES,
    authority: Path | None = None,
    points: Sequence[str] | None = None,
) -> VerifyOutcome:
    """Verify the log, and the rows of ``sources`` on ``days`` against their leaves.

    ``full`` starts from the first entry, compares the stored tree too and looks at the rows of every billing day, so
    that it never holds where a day's own verification does not; otherwise from what was last verified. ``hashers`` make
    a day's row hashes again from its rows, by encoding; without them rows are matched by the hash they carry, and rows
    that carry none are passed over. Checkpoints are verified by the keys that this deployment has seen
    (``checkpoints.keys_file``). ``authority``: certificates (PEM) of the time-stamp authority, to verify the stored
    time stamps with. ``points``: of the one day in ``days``, look at the rows of these service points alone; the others
    were matched with their leaves when they were written. Nothing is written to the database.
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
        checkpoints = _checkpoints(connection, outcome, origin, _held_keys(home, origin))
        rules = rules_of(hashers)
        wanted = [
            (source, tables, day)
            for source in sources
            if (tables := tables_of(connection, source, rules))
            for day in ((days_of(connection, source) if full else days) if source.by_day else [None])
        ]
        some = points is not None and len(days) == 1 and hashers is not None and not full
        only = ledger_rows.names_of_points(connection, days[0], points or ()) if some else {}
        by_server = {
            (source.name, day)
            for source, tables, day in wanted
            if tables and source.hashed_by_server and day is not None and not some
            if all(table.encoding in rules for table in tables)
        }
        started = [
            (table, day)
            for source, tables, day in wanted
            for table in (*(() if (source.name, day) in by_server else tables), *_replaced(connection, source))
            if table.encoding in rules
        ]
        beside = [(source, day) for source, _, day in wanted if source.beside]
        found = replace(outcome, findings=[], checked=Counter())
        with (
            contents_of(database, connection, started, only) as contents,
            ledger_rows.second_session(database, connection) as other,
            _one_thread() as pool,
        ):
            # This thread hashes rows. The other one recomputes the log, then compares the contents that entries state:
            # 9 s of the 16 s that a million meters take.
            log = pool.submit(_log, other, found, checkpoints, (remembered, remembered_root), full)
            leaves_beside = {
                (source.name, day): _leaves_beside(None if full else pool, connection if full else other, tables, day)
                for source, tables, day in wanted
                if day is not None and (source.name, day) in by_server
            }
            wholes = {(source.name, day): pool.submit(_whole, database, other, source, day) for source, day in beside}
            for source, tables, day in wanted:
                before = len(outcome.findings)
                if (source.name, day) not in by_server:
                    verify_rows(connection, source, tables, day, outcome, rules, contents)
                elif day is not None and not verified_by_server(
                    connection, source, tables, day, outcome, leaves_beside[source.name, day]
                ):
                    with contents_of(database, connection, [(table, day) for table in tables]) as own:
                        verify_rows(connection, source, tables, day, outcome, rules, own)
                if day is not None and (versions := _replaced(connection, source)):
                    verify_replaced(connection, source, versions, day, outcome, rules, contents)
                # A row that is not its leaf's is found already; its entry's content is not its own either.
                if source.beside and len(outcome.findings) == before:
                    outcome.add(wholes[source.name, day].result())
                verify_states(connection, source, outcome)
            log.result()
        outcome.put_first(found)
        if full:
            verify_reference(connection, outcome)
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


@contextmanager
def _one_thread() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread. Calls that have not started are cancelled when the block ends."""
    with ThreadPoolExecutor(1, "ledger-log") as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _leaves_beside(
    pool: ThreadPoolExecutor | None, connection: store.Connection, tables: Sequence[RowTable], day: date
) -> LeavesBeside:
    """The calls that ``verified_by_server`` makes. They start here, in the pool's thread; without a pool when they are
    called: the leaves of a year would fill memory."""
    leaves = [partial(ledger_rows.hashed_by_server, connection, t.name, t.encoding, day) for t in tables[1:]]
    wrong = partial(ledger_rows.wrongly_derived, connection, [table.name for table in tables], day)
    if pool is None:
        return leaves, wrong
    return [pool.submit(call).result for call in leaves], pool.submit(wrong).result


def _whole(database: Database, connection: store.Connection, source: Source, day: date | None) -> VerifyOutcome:
    """The findings of ``verify_contents`` for a source and day, as an outcome of its own."""
    found = VerifyOutcome(None, 0, 0, merkle.EMPTY_ROOT)
    verify_contents(database, connection, source, day, found)
    return found


def _replaced(connection: store.Connection, source: Source) -> list[RowTable]:
    """Those of a source's tables of replaced rows that are there."""
    return [table for table in source.replaced if ledger_rows.exists(connection, table.name)]


@dataclass(frozen=True, slots=True)
class _Memory:
    """Size and root last found good, on disk."""

    path: Path

    def read(self) -> tuple[int, bytes]:
        if not self.path.exists():
            return 0, merkle.EMPTY_ROOT
        stored = json.loads(self.path.read_text("utf-8"))
        return int(stored["size"]), bytes.fromhex(stored["root"])

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
            checkpoint = notes.parse_checkpoint(note.text)
            if checkpoint.origin != origin or checkpoint.size != row.tree_size:
                raise notes.NoteError(f"it is of {checkpoint.size} entries of {checkpoint.origin}")
            roots[checkpoint.size] = checkpoint.root
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
    growing = TreeBuilder(outcome.start, stored_reader(connection))
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
    size = 0
    for entry in entries:
        part.append(entry)
        size += len(entry.leaves or b"")
        if size >= _FOLDED_TOGETHER or len(part) >= _ENTRIES_TOGETHER:
            yield part
            part, size = [], 0
    if part:
        yield part


def _compare(outcome: VerifyOutcome, growing: TreeBuilder, expected: dict[int, tuple[str, bytes]]) -> None:
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
        kind, body, leaves = document["kind"], document["body"], document["leaves"]
    except (ValueError, KeyError, TypeError):
        outcome.find("entry", f"entry {entry.entry_id} is not a ledger entry", index)
        return
    if kind != entry.kind or kind not in KINDS:
        outcome.find("entry", f"entry {entry.entry_id} says it is {kind!r}, its row {entry.kind!r}", index)
    if body.get("billing_day") != (entry.billing_day.isoformat() if entry.billing_day else None):
        outcome.find("entry", f"entry {entry.entry_id} is filed under {entry.billing_day}", index)
    flat = entry.leaves or b""
    outcome.checked["leaves"] += len(flat) // merkle.HASH_SIZE
    if leaves is not None and (leaves["count"] * merkle.HASH_SIZE != len(flat) or leaves["root"] != folded.hex()):
        outcome.find("leaves", f"the leaves beside entry {entry.entry_id} do not give its root", index)
    if leaves is None and flat:
        outcome.find("leaves", f"entry {entry.entry_id} has leaves it does not vouch for", index)
    dual = KINDS[kind].dual if kind in KINDS else None
    if dual is not None and len({str(body.get(name) or "").strip().casefold() for name in dual} - {""}) != 2:
        outcome.find("dual control", f"entry {entry.entry_id} ({kind}) does not name two people", index)
    if kind == "file_loaded" and body.get("received") != sum(int(body.get(name, 0)) for name in TOTALS[1:]):
        outcome.find(
            "control totals", f"entry {entry.entry_id}: { ({name: body.get(name) for name in TOTALS}) }", index
        )
