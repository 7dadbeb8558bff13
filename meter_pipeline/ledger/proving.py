"""Proof of one payload: from a read or a bill to a signed checkpoint, in one file.

The path: the payload's hash is leaf ``batch.index`` of its entry's batch; the batch's root is in the entry's body; the
entry is leaf ``log.index`` of the tree whose root the checkpoint states and the log's key signed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from meter_pipeline.ledger import merkle, notes
from meter_pipeline.ledger.checkpoints import with_cosignatures
from meter_pipeline.ledger.tables import entries, rows
from meter_pipeline.ledger.tree import stored_reader
from meter_pipeline.postgres.database import Database

FORMAT: Final = "mp-ledger-proof/1"
#: Kinds whose leaves vouch for a row that someone may ask about.
KINDS: Final = ("ingested", "superseded", "validated", "billed", "bill_issued", "adjustment_posted", "rejected")
#: Those of a read's payloads: a day's validated rows and charges have as many leaves again, which need not be looked
# through.
_READS: Final = ("ingested", "superseded", "duplicate")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A payload's proof. ``row`` is the stored row as JSON, where one was asked for by name; ``line`` the line of a
    bill that was asked for, which is proven with the others of its bill: they share a leaf."""

    payload_hash: bytes
    batch_index: int
    batch_size: int
    batch_proof: tuple[bytes, ...]
    entry: bytes
    log_index: int
    log_size: int
    log_proof: tuple[bytes, ...]
    checkpoint: str
    row: dict[str, Any] | None
    line: int | None = None

    def verify(self) -> None:
        """Raises ProofError unless the payload leads to the checkpoint's root. The signature is the reader's to check,
        with a key he trusts."""
        leaves = json.loads(self.entry)["leaves"]
        if leaves["count"] != self.batch_size:
            raise merkle.ProofError("the entry speaks of another batch")
        leaf = merkle.leaf_hash(self.payload_hash)
        merkle.verify_inclusion(
            self.batch_index, self.batch_size, leaf, self.batch_proof, bytes.fromhex(leaves["root"])
        )
        stated = notes.parse_checkpoint(notes.parse_note(self.checkpoint).text)
        if stated.size != self.log_size:
            raise merkle.ProofError("the checkpoint is of another size")
        merkle.verify_inclusion(
            self.log_index, self.log_size, merkle.leaf_hash(self.entry), self.log_proof, stated.root
        )

    def document(self) -> dict[str, Any]:
        """The bundle as the auditor's program reads it."""
        return {
            "format": FORMAT,
            "payload_hash": self.payload_hash.hex(),
            "row": self.row,
            "line": self.line,
            "batch": {
                "index": self.batch_index,
                "size": self.batch_size,
                "proof": [step.hex() for step in self.batch_proof],
            },
            "entry": base64.b64encode(self.entry).decode(),
            "log": {"index": self.log_index, "size": self.log_size, "proof": [step.hex() for step in self.log_proof]},
            "checkpoint": self.checkpoint,
        }


def prove(
    connection: entries.Connection,
    payload_hash: bytes,
    *,
    day: date | None = None,
    kinds: Sequence[str] = KINDS,
    row: dict[str, Any] | None = None,
) -> Bundle:
    """The proof of a payload by its hash. ``day``, its billing day where it has one, spares reading every other day's
    leaves.

    Raises LookupError where no checkpointed entry holds the hash.
    """
    latest = entries.latest_checkpoint(connection)
    entry = entries.entry_holding(connection, payload_hash, kinds, day)
    if latest is None or entry is None or entry.leaves is None or entry.leaf_index >= latest.tree_size:
        raise LookupError(f"no checkpointed entry holds {payload_hash.hex()}; if it is new, make a checkpoint first")
    at = entry.leaves.find(payload_hash)
    while at % merkle.HASH_SIZE:
        at = entry.leaves.find(payload_hash, at + 1)
    index, size = at // merkle.HASH_SIZE, entry.leaf_count
    batch = merkle.reader_of(merkle.leaf_level(entry.leaves))
    bundle = Bundle(
        payload_hash,
        index,
        size,
        tuple(merkle.inclusion_proof(batch, index, size)),
        entry.body,
        entry.leaf_index,
        latest.tree_size,
        tuple(merkle.inclusion_proof(stored_reader(connection), entry.leaf_index, latest.tree_size)),
        with_cosignatures(connection, latest.tree_size, latest.note),
        row,
    )
    bundle.verify()
    return bundle


def prove_read(database: Database, meter_id: str, day: date, channel: str | None = None) -> list[Bundle]:
    """The proofs of a meter's payloads on a billing day: intervals and register reads, every version. Raises
    LookupError where there are none."""
    with database.connect("meter-pipeline-ledger-prove") as connection:
        found = rows.payloads_of_meter(connection, meter_id, day, channel)
        if not found:
            raise LookupError(f"no payload of {meter_id} on {day}")
        return [prove(connection, payload_hash, day=day, kinds=_READS, row=row) for payload_hash, row in found]


def prove_statement(database: Database, statement_id: str) -> Bundle:
    """The proof of a bill by its id. Raises LookupError where there is none."""
    with database.connect("meter-pipeline-ledger-prove") as connection:
        found = rows.statement(connection, statement_id)
        if found is None:
            raise LookupError(f"no statement {statement_id}")
        return prove(connection, found[0], kinds=("bill_issued", "adjustment_posted"), row=found[1])


def prove_line(database: Database, line_id: str) -> Bundle:
    """The proof of a bill's line by its public id (STATEMENT.LINE_NO). Raises LookupError where there is none."""
    statement_id, _, number = line_id.rpartition(".")
    if not statement_id or not number.isdecimal():
        raise LookupError(f"{line_id} is not STATEMENT.LINE_NO")
    bundle = prove_statement(database, statement_id)
    assert bundle.row is not None  # noqa: S101 - a statement comes with its row
    if int(number) not in {line["line_no"] for line in bundle.row["lines"]}:
        raise LookupError(f"{statement_id} has no line {number}")
    return replace(bundle, line=int(number))
