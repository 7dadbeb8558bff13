"""What must hold of the store after any history, of a simulated server and a real one alike."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meter_pipeline.ledger import merkle

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload of one staged file: what it says by slot (value, quality, sequence); register reads have the single
    slot 0."""

    kind: str
    key: Key
    hash: bytes
    version: int
    read_time: int
    reads: int
    slots: Mapping[int, tuple[int, int, int]]
    poison: bool = False


@dataclass(slots=True)
class Current:
    """A row of the current table."""

    hash: bytes
    payloads: int
    slots: dict[int, int]


@dataclass(slots=True)
class Snapshot:
    """What is stored."""

    files: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    file_days: dict[tuple[bytes, Any], dict[str, Any]] = field(default_factory=dict)
    current: dict[tuple[str, Key], Current] = field(default_factory=dict)
    history: dict[tuple[str, Key], list[bytes]] = field(default_factory=dict)
    letters: dict[bytes, int] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[int, tuple[str, bytes, bytes]] = field(default_factory=dict)
    leaves: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    heads: dict[int, bytes] = field(default_factory=dict)
    open_partitions: int = 0
    #: Billing day and meter ("": everyone) that its next validation looks at; None where validations took them out.
    touched: set[tuple[Any, str]] | None = None

    def state(self) -> str:
        """A hash over what replaying the whole input must not change."""
        parts = [
            sorted((k, v.hash, v.payloads, sorted(v.slots.items())) for k, v in self.current.items()),
            sorted((k, sorted(v)) for k, v in self.history.items()),
            sorted(self.letters),
            sorted((f, v["received"], v["rejected"]) for f, v in self.files.items()),
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def hashes_of(flat: bytes) -> list[bytes]:
    return [flat[at : at + 32] for at in range(0, len(flat), 32)]


def broken(
    snapshot: Snapshot,
    sent: Mapping[bytes, list[Payload]],
    heads_seen: Iterable[tuple[int, bytes]] = (),
    *,
    finished: bool = True,
) -> list[str]:
    """Every invariant that does not hold, named. ``sent``: payloads in staged order of each file that was acknowledged
    as landed; ``finished``: a quiet run came last, so nothing may wait."""
    faults: list[str] = []
    faults += [
        f"I1: {sha256.hex()[:12]} was acknowledged and is not registered"
        for sha256 in sent
        if sha256 not in snapshot.files
    ]
    _accounts(snapshot, sent, faults, finished)
    _touched(snapshot, faults)
    _rows(snapshot, sent, faults, finished)
    _ledger(snapshot, faults, list(heads_seen), finished)
    return faults


def lost_and_doubled(snapshot: Snapshot, sent: Mapping[bytes, list[Payload]]) -> tuple[int, int]:
    """Payloads that were sent and are nowhere, and rows that were written more than once."""
    there = {row.hash for row in snapshot.current.values()} | {
        each for kept in snapshot.history.values() for each in kept
    }
    lost = {payload.hash for payloads in sent.values() for payload in payloads if not payload.poison} - there
    covered = Counter(
        (batch["sha256"], batch["kind"], n)
        for batch in snapshot.batches
        for low, high in batch["rows"]
        for n in range(low, high)
    )
    return len(lost), sum(count - 1 for count in covered.values())


def _touched(snapshot: Snapshot, faults: list[str]) -> None:
    """I8: a meter whose reads were written is noted for the validation of their day, or all meters are."""
    if snapshot.touched is None:
        return
    days = {batch["billing_day"] for batch in snapshot.batches}
    stored = {key[0] for _, key in (*snapshot.current, *snapshot.history)}
    for day in days:
        if (day, "") not in snapshot.touched:
            faults += [
                f"I8: {meter} is not noted for {day}"
                for meter in sorted(stored)
                if (day, meter) not in snapshot.touched
            ]


def _accounts(snapshot: Snapshot, sent: Mapping[bytes, list[Payload]], faults: list[str], finished: bool) -> None:
    """I1 and I3: rows of a file are in at most one committed batch, in exactly one once it is loaded, and its totals
    add up."""
    rows: dict[bytes, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for batch in snapshot.batches:
        rows[batch["sha256"]][batch["kind"]].extend(batch["rows"])
    for sha256, file in snapshot.files.items():
        payloads = sent.get(sha256)
        if payloads is None:
            faults.append(f"I2: file {sha256.hex()[:12]} was never sent")
            continue
        said = file["received"]
        days = [row for (of, _), row in snapshot.file_days.items() if of == sha256]
        waiting = sum(row["received"] for row in days if row["loaded_at"] is None)
        done = [row for row in days if row["loaded_at"] is not None]
        counted = (
            file["rejected"]
            + waiting
            + sum(row[c] for row in done for c in ("accepted", "duplicate", "superseded", "rejected"))
        )
        if said != counted:
            faults.append(f"I3: file {sha256.hex()[:12]} received {said}, accounted {counted}")
        if finished and waiting:
            faults.append(f"I1: {waiting} reads of {sha256.hex()[:12]} still wait")
        for kind in ("interval", "register"):
            expected = sum(payload.kind == kind for payload in payloads)
            covered = Counter(n for low, high in rows[sha256][kind] for n in range(low, high))
            if any(count > 1 for count in covered.values()):
                faults.append(f"I1: {kind} rows of {sha256.hex()[:12]} written twice: {rows[sha256][kind]}")
            if finished and (len(covered) != expected or any(n >= expected for n in covered)):
                faults.append(f"I1: {kind} rows of {sha256.hex()[:12]}: {len(covered)} of {expected}")
    if finished and snapshot.open_partitions:
        faults.append(f"I1: {snapshot.open_partitions} partitions never attached")


#: Rank of a value by its quality flag's number (A S F E N V M), written down apart from the code that is tested.
CONDITION: Final = (4, 3, 4, 2, 1, 3, 0)


def _condition(payload: Payload) -> int:
    return max(CONDITION[quality >> 13] for _, quality, _ in payload.slots.values())


def _rows(snapshot: Snapshot, sent: Mapping[bytes, list[Payload]], faults: list[str], finished: bool) -> None:
    """I1, I2 and I11: what is current is the fold of exactly what was sent, by the data's own order."""
    by_key: dict[tuple[str, Key], dict[bytes, Payload]] = defaultdict(dict)
    for payloads in sent.values():
        for payload in payloads:
            if not payload.poison:
                by_key[payload.kind, payload.key][payload.hash] = payload
    for at, row in snapshot.current.items():
        if row.hash not in by_key.get(at, {}):
            faults.append(f"I2: {at} holds a payload nobody sent")
    for at, kept in snapshot.history.items():
        if len(kept) != len(set(kept)):
            faults.append(f"I1: {at} keeps a payload twice")
        if not set(kept) <= by_key.get(at, {}).keys():
            faults.append(f"I2: {at} keeps a payload nobody sent")
    if not finished:
        return
    for at, distinct in by_key.items():
        kept_row = snapshot.current.get(at)
        if kept_row is None:
            faults.append(f"I1: {at} is lost")
            continue
        newest = (
            max(distinct.values(), key=lambda p: (_condition(p), p.version, p.read_time, p.hash))
            if at[0] == "interval"
            else max(distinct.values(), key=lambda p: (_condition(p), p.version, p.read_time, p.slots[0][2], p.hash))
        )
        if kept_row.hash != newest.hash:
            faults.append(f"I11: {at} names another payload as its newest")
        if kept_row.payloads != len(distinct):
            faults.append(f"I1: {at} says {kept_row.payloads} payloads, {len(distinct)} were sent")
        kept = snapshot.history.get(at, [])
        if set(kept) != (set(distinct) if len(distinct) > 1 else set()):
            faults.append(f"I1: {at} keeps {len(kept)} payloads of {len(distinct)}")
        best: dict[int, tuple[Any, int]] = {}
        for payload in distinct.values():
            for slot, (value, quality, sequence) in payload.slots.items():
                rank = (CONDITION[quality >> 13], payload.version, payload.read_time, sequence, payload.hash)
                if slot not in best or rank > best[slot][0]:
                    best[slot] = (rank, value)
        expected = (
            {slot: value for slot, (_, value) in best.items()} if at[0] == "interval" else {0: newest.slots[0][0]}
        )
        if kept_row.slots != expected:
            faults.append(f"I11: {at} holds {kept_row.slots}, the data's order gives {expected}")


def _ledger(snapshot: Snapshot, faults: list[str], heads_seen: list[tuple[int, bytes]], finished: bool) -> None:
    """I4 and I5: one leaf a change and one change a leaf; the log only grows."""
    stored = {row.hash for row in snapshot.current.values()} | {
        kept for many in snapshot.history.values() for kept in many
    }
    leaves: Counter[bytes] = Counter()
    said: dict[int, int] = {}
    for number, (kind, _, flat) in snapshot.entries.items():
        said[number] = len(flat) // 32
        if kind == "ingested":
            leaves.update(hashes_of(flat))
        if kind in ("ingested", "superseded"):
            gone = set(hashes_of(flat)) - stored
            # Rows of a partition that is not attached yet are not seen by a reader.
            if gone and not snapshot.open_partitions:
                faults.append(f"I4: {len(gone)} leaves of entry {number} without their rows")
    known = {
        each
        for kind, _, flat in snapshot.entries.values()
        if kind in ("ingested", "superseded", "duplicate")
        for each in hashes_of(flat)
    }
    if stored - known:
        faults.append(f"I4: {len(stored - known)} rows without a leaf")
    named: Counter[int] = Counter()
    rows = 0
    for batch in snapshot.batches:
        named.update(batch["entries"])
        rows += sum(high - low for low, high in batch["rows"])
    loading = {
        n: v
        for n, v in snapshot.entries.items()
        if v[0] in ("ingested", "superseded") or (v[0] in ("duplicate", "rejected") and n in named)
    }
    if set(named) - snapshot.entries.keys():
        faults.append("I4: a batch names a ledger entry that is not there")
    if sum(said[n] for n in loading) != rows:
        faults.append(f"I4: {rows} rows in batches, {sum(said[n] for n in loading)} leaves about them")
    indices = sorted(snapshot.leaves)
    if indices != list(range(len(indices))):
        faults.append("I5: places of the log are not contiguous")
    placed = Counter(entry for entry, _ in snapshot.leaves.values())
    if any(count > 1 for count in placed.values()):
        faults.append("I5: an entry has two places")
    if finished and placed.keys() != snapshot.entries.keys():
        faults.append(f"I4: {len(snapshot.entries.keys() - placed.keys())} entries have no place in the log")
    flat = b"".join(snapshot.leaves[n][1] for n in indices)
    for size, root in [*snapshot.heads.items(), *heads_seen]:
        if size > len(indices):
            faults.append(f"I5: the log had {size} entries and has {len(indices)}")
        elif merkle.root_of_hashes(flat[: 32 * size]) != root:
            faults.append(f"I5: the first {size} entries no longer give their root")
    for entry, leaf in snapshot.leaves.values():
        if entry in snapshot.entries and merkle.leaf_hash(snapshot.entries[entry][1]) != leaf:
            faults.append(f"I5: entry {entry} is not what its leaf says")
