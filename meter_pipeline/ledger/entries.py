"""Ledger entries: their content, the bytes that are hashed, and the one call that writes them.

An entry's canonical bytes are UTF-8 JSON of ``{"actor","at","body","kind","leaves","v"}``: keys sorted, no white space,
decimals as strings, instants as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, bytes as lower-case hex, never a float. They are
stored exactly as hashed and never serialised again. ``leaves`` is null or ``{"count","root"}``: the RFC 6962 root over
the batch's payload hashes, which are kept beside the entry.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import merkle
from meter_pipeline.ledger.kinds import KINDS
from meter_pipeline.ledger.tables import entries
from meter_pipeline.postgres import driver

#: Names the encoding inside every entry, so that a later one is distinguishable.
VERSION: Final = "mp-ledger-entry/1"
#: An entry bundle of the tlog-tiles format gives an entry's length in 16 bits. Detail beyond that belongs in leaves.
BODY_LIMIT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry ready to be written: ``body`` is the canonical bytes, ``leaf_hash`` RFC 6962's hash of them, ``leaves``
    the payload hashes end to end (None where the entry has none), ``billing_day`` the body's own field of that name."""

    kind: str
    body: bytes
    leaf_hash: bytes
    leaves: bytes | None
    billing_day: date | None = None

    @property
    def leaf_count(self) -> int:
        return len(self.leaves) // merkle.HASH_SIZE if self.leaves else 0

    @property
    def row(self) -> entries.EntryRow:
        """The parameters of store.ledger.INSERT_ENTRY, for a caller that pipelines it with its own statements."""
        return self.kind, self.body, self.leaf_hash, self.leaf_count, self.leaves, self.billing_day


def encode(
    kind: str, body: Mapping[str, Any], leaves: merkle.Leaves | None = None, *, at: datetime, actor: str
) -> Entry:
    """The entry for one change. ``at`` is when it happened (any zone), ``actor`` who or what wrote it.

    Raises ValueError for an unknown kind, a missing required field, one name twice under dual control or a body over
    BODY_LIMIT; TypeError for a value that has no canonical form (floats among them).
    """
    rule = KINDS.get(kind)
    if rule is None:
        raise ValueError(f"{kind!r} is not a kind of ledger entry")
    missing = [name for name in rule.required if body.get(name) in (None, "")]
    if missing:
        raise ValueError(f"a {kind} entry must say {', '.join(missing)}")
    if rule.dual is not None:
        first, second = (str(body.get(name) or "").strip().casefold() for name in rule.dual)
        if not first or not second or first == second:
            raise ValueError(f"a {kind} entry needs two different people in {rule.dual[0]} and {rule.dual[1]}")
    flat = None if leaves is None else merkle.concatenated(leaves)
    document = {
        "actor": actor,
        "at": at,
        "body": body,
        "kind": kind,
        "leaves": None if flat is None else {"count": len(flat) // merkle.HASH_SIZE, "root": merkle.fold_root(flat)},
        "v": VERSION,
    }
    encoded = canonical_json(document)
    if len(encoded) > BODY_LIMIT:
        raise ValueError(f"a {kind} entry of {len(encoded)} bytes is over {BODY_LIMIT}: put the detail in leaves")
    return Entry(kind, encoded, merkle.leaf_hash(encoded), flat, _billing_day(body))


def append(
    connection: driver.Connection,
    kind: str,
    body: Mapping[str, Any],
    leaves: merkle.Leaves | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
    actor: str | None = None,
) -> int:
    """Write one entry in the caller's transaction and return its staging id (not its place in the log, which it gets
    after commit).

    One INSERT. ``leaves`` are the hashes of the payloads this change is about. ``actor`` is the person or service; by
    default the connection's user. If this raises, the caller's change must not commit: no entry, no write.
    """
    return insert(connection, encode(kind, body, leaves, at=clock.now(), actor=actor or connection.info.user))


def insert(connection: driver.Connection, entry: Entry) -> int:
    """As append, of an entry that was encoded elsewhere: folding 100,000 leaves takes 0.15 s, which another thread may
    spend."""
    return entries.insert_entry(connection, entry.row)


def _billing_day(body: Mapping[str, Any]) -> date | None:
    """The day an entry is about, where its body has ``billing_day`` (a date, or its ISO form)."""
    day = body.get("billing_day")
    if day is None:
        return None
    if isinstance(day, datetime) or not isinstance(day, (date, str)):
        raise TypeError("billing_day is a date")
    return day if isinstance(day, date) else date.fromisoformat(day)


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document. Raises TypeError for what has none, ValueError for naive times and non-finite
    decimals."""
    return json.dumps(
        _plain(document), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode("utf-8")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, int):
        return value
    if type(value).__module__ == "numpy" and isinstance(value.item(), int):  # np.int64, np.bool_
        return value.item()
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} has no place in the ledger")
        return format(value, "f")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time in the ledger must carry its zone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys in the ledger are strings")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no canonical form; use Decimal or integers for quantities")
