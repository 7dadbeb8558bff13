"""Checkpoints: the log is sequenced, signed by the signer's process, published as tiles, and time-stamped where an
authority is configured."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries, merkle, notes, privileges, publishing
from meter_pipeline.ledger.sequencer import TreeHead, sequence
from meter_pipeline.ledger.signer import SignerRefusedError, file_name, rotation_statement, write_atomically
from meter_pipeline.ledger.signing import SignerClient, signer_client
from meter_pipeline.ledger.tables import entries as store
from meter_pipeline.ledger.timestamps import stamp_if_configured
from meter_pipeline.ledger.tree import stored_reader
from meter_pipeline.postgres.database import Database


@dataclass(frozen=True, slots=True)
class WitnessSeen:
    """The latest cosignature: by whom, for how many entries, at what instant (UTC, the witness's own clock)."""

    name: str
    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class CheckpointOutcome:
    """A signed checkpoint. ``kinds`` counts the entries it added by kind; ``note`` is the signed text; ``folder`` holds
    the tiles."""

    origin: str
    size: int
    root: bytes
    added: int
    kinds: dict[str, int]
    vkey: str
    note: str
    folder: Path
    witness: WitnessSeen | None
    billing_day: date | None = None
    stamped: bool = field(default=False)

    @property
    def key_id(self) -> str:
        return self.vkey.split("+")[1]

    def document(self) -> dict[str, Any]:
        """The JSON of ``--json`` and of metadata."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": self.root.hex(),
            "added": self.added,
            "kinds": self.kinds,
            "signer": self.vkey,
            "note": self.note,
            "tiles": str(self.folder),
            "billing_day": self.billing_day,
            "time_stamped": self.stamped,
            "last_witness": None
            if self.witness is None
            else {"name": self.witness.name, "size": self.witness.size, "at": self.witness.at},
        }


def origin_prefix(utility: str) -> str:
    """The start of a log's origin from the utility's name: lower-case ASCII words joined by hyphens."""
    return (re.sub(r"[^a-z0-9]+", "-", utility.lower()).strip("-") or "utility")[:60] + "/meter-pipeline"


def log_folder(home: Path, origin: str) -> Path:
    """Where a log's tiles are published."""
    return home / "ledger" / file_name(origin)


def checkpoint(
    database: Database,
    *,
    home: Path,
    utility: str = "utility",
    signer: SignerClient | None = None,
    billing_day: date | None = None,
    sweep: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> CheckpointOutcome:
    """Sequence the committed entries, have the tree head signed, publish it. Safe to repeat and to run twice at the
    same time.

    The first checkpoint of a log records the guards. Raises SequencerBusyError, and SignerRefusedError where the signer
    sees a shorter log or a fork: both are reasons to pause, not to retry.
    """
    signer = signer or signer_client(home / "keys")
    signer.start()
    with database.connect("meter-pipeline-ledger") as connection, store.checkpoint_lock(connection):
        _begin(connection, clock)
        latest = store.latest_checkpoint(connection)
        connection.commit()
        head = sequence(connection, origin_prefix=origin_prefix(utility), sweep=sweep)
        return _sign_and_publish(connection, head, latest, home, signer, billing_day)


def order(database: Database, *, utility: str = "utility", clock: Clock = SYSTEM_CLOCK) -> TreeHead:
    """Sequence the committed entries without a signature, for a verification between two checkpoints. Raises
    SequencerBusyError."""
    with database.connect("meter-pipeline-ledger") as connection, store.checkpoint_lock(connection):
        _begin(connection, clock)
        return sequence(connection, origin_prefix=origin_prefix(utility))


def _begin(connection: store.Connection, clock: Clock) -> None:
    """Record the guards at the beginning of a log."""
    if store.origin(connection) is None:
        privileges.record(
            connection, accepted_by="first checkpoint", reason="the guards as they were when the log began", clock=clock
        )
    connection.commit()


def _sign_and_publish(
    connection: store.Connection,
    head: TreeHead,
    latest: store.StoredCheckpoint | None,
    home: Path,
    signer: SignerClient,
    billing_day: date | None,
) -> CheckpointOutcome:
    # Asked even where nothing is new: the signer remembers what the database may have been made to forget.
    read = stored_reader(connection)
    signed = min(latest.tree_size, head.size) if latest else 0
    try:
        line, vkey = signer.sign(
            head.origin, head.size, head.root, signed, merkle.consistency_proof(read, signed, head.size)
        )
    except SignerRefusedError as refusal:
        if refusal.code != "stale":
            raise
        # A signature that never reached the database: a crash between the two. The signer says where it stands.
        _, signed = signer.public(head.origin)
        line, vkey = signer.sign(
            head.origin, head.size, head.root, signed, merkle.consistency_proof(read, signed, head.size)
        )
    note = notes.Checkpoint(head.origin, head.size, head.root).text + "\n" + line
    if latest is not None and latest.tree_size == head.size:
        note = latest.note
    store.insert_checkpoint(connection, head.size, note, vkey.split("+")[1])
    kinds = store.kinds_between(connection, latest.tree_size if latest else 0, head.size)
    connection.commit()
    folder = log_folder(home, head.origin)
    _remember_key(home, head.origin, vkey)
    publishing.publish(connection, folder, head.size, with_cosignatures(connection, head.size, note))
    stamped = stamp_if_configured(connection, head.size, note)
    witness = last_witness(connection)
    connection.commit()
    return CheckpointOutcome(
        head.origin, head.size, head.root, head.added, kinds, vkey, note, folder, witness, billing_day, stamped
    )


def keys_file(home: Path, origin: str) -> Path:
    """Returns the file with the verifier keys this log has had, oldest first, one a line; auditors get and keep a
    copy. It is outside the database on purpose."""
    return home / "ledger" / f"{file_name(origin)}.vkeys"


def _remember_key(home: Path, origin: str, vkey: str) -> None:
    path = keys_file(home, origin)
    lines = path.read_text("utf-8").split() if path.exists() else []
    if vkey not in lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{key}\n" for key in (*lines, vkey)))


def with_cosignatures(connection: store.Connection, size: int, note: str) -> str:
    """Returns the note with every witness's line under the log's own."""
    return note + "".join(row.line for row in store.cosignatures(connection) if row.tree_size == size)


def last_witness(connection: store.Connection) -> WitnessSeen | None:
    """Returns the cosignature over the most entries."""
    cosignatures = store.cosignatures(connection)
    if not cosignatures:
        return None
    return WitnessSeen(
        cosignatures[-1].name,
        cosignatures[-1].tree_size,
        datetime.fromtimestamp(notes.cosigned_at(notes.parse_signature(cosignatures[-1].line)), UTC),
    )


def accept_cosignature(database: Database, home: Path, size: int, line: str, witness_vkey: str) -> None:
    """Store a witness's line and publish it under the checkpoint. Raises NoteError where it does not verify or the
    checkpoint is unknown."""
    verifier = notes.parse_vkey(witness_vkey)
    with database.connect("meter-pipeline-ledger") as connection:
        note = next((row.note for row in store.checkpoints(connection) if row.tree_size == size), None)
        if note is None:
            raise notes.NoteError(f"there is no checkpoint of {size} entries")
        signature = notes.parse_signature(line)
        notes.verify_note(notes.Note(notes.parse_note(note).text, (signature,)), [verifier])
        store.insert_cosignature(connection, size, verifier.name, verifier.key_id.hex(), signature.line)
        latest = store.latest_checkpoint(connection)
        origin = store.origin(connection)
        connection.commit()
        if latest is not None and origin is not None and latest.tree_size == size:
            publishing.publish(connection, log_folder(home, origin), size, with_cosignatures(connection, size, note))


def rotate_key(
    database: Database,
    *,
    home: Path,
    requested_by: str,
    signer: SignerClient | None = None,
    utility: str = "utility",
    clock: Clock = SYSTEM_CLOCK,
) -> CheckpointOutcome:
    """Change to a new key: both keys sign the change, it becomes an entry, and the checkpoint with that entry is the
    new key's first.

    A verifier that trusts the old key learns the new one from that entry.
    """
    signer = signer or signer_client(home / "keys")
    before = checkpoint(database, home=home, utility=utility, signer=signer, clock=clock)
    handover = signer.rotate(before.origin)
    statement = rotation_statement(before.origin, handover["old"], handover["new"])
    for vkey, signature in zip((handover["old"], handover["new"]), handover["signatures"], strict=True):
        notes.parse_vkey(vkey).verify(statement.encode(), bytes.fromhex(signature))
    with database.connect("meter-pipeline-ledger") as connection, store.checkpoint_lock(connection):
        entries.append(
            connection, "key_rotation", {**handover, "requested_by": requested_by}, actor=requested_by, clock=clock
        )
        connection.commit()
        signer.activate(before.origin)
        latest = store.latest_checkpoint(connection)
        connection.commit()
        head = sequence(connection, origin_prefix=origin_prefix(utility))
        return _sign_and_publish(connection, head, latest, home, signer, None)
