"""A witness: someone else's memory of the log. Finance or an auditor runs it, with its own key, on storage the pipeline
cannot write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meter_pipeline.ledger import merkle, notes, tiles
from meter_pipeline.ledger.signer import file_name, locked, write_atomically


class WitnessRefusedError(RuntimeError):
    """The witness would not cosign. ``status`` is tlog-witness's answer: 403 unknown key, 409 old size, 422 bad proof
    or fork."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness's memory of a log."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature given: ``line`` goes under the checkpoint of ``origin`` and ``size``; ``vkey`` is the witness's
    verifier key."""

    origin: str
    size: int
    old_size: int
    line: str
    vkey: str


class Witness:
    """A witness by its state folder: its key (made on first use, 0600) and the largest checkpoint of each log it
    cosigned."""

    def __init__(self, state: Path, name: str = "witness", now: Callable[[], float] = time.time) -> None:
        self.state, self.name, self._now = state, name, now

    @property
    def signer(self) -> notes.Signer:
        path = self.state / f"{file_name(self.name)}.skey"
        if not path.exists():
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, notes.new_signer(self.name, notes.COSIGNATURE_V1).skey + "\n", 0o600)
        if path.stat().st_mode & 0o077:
            raise WitnessRefusedError(403, f"{path} can be read by others")
        return notes.parse_skey(path.read_text("utf-8"), notes.COSIGNATURE_V1)

    def remembered(self, origin: str) -> Witnessed:
        path = self.state / f"{file_name(origin)}.json"
        if not path.exists():
            return Witnessed(0, merkle.EMPTY_ROOT, "")
        stored = json.loads(path.read_text("utf-8"))
        return Witnessed(int(stored["size"]), bytes.fromhex(stored["root"]), str(stored["note"]))

    def add_checkpoint(self, encoded: str, old_size: int, proof: Sequence[bytes], log_key: notes.Verifier) -> Cosigned:
        """tlog-witness's add-checkpoint: cosign a checkpoint that extends what was cosigned before. Raises
        WitnessRefusedError.

        Checking, remembering and signing are one step under a lock, and the memory is on disk before the signature
        leaves.
        """
        note = notes.parse_note(encoded)
        try:
            notes.verify_note(note, [log_key])
            wanted = notes.parse_checkpoint(note.text)
        except notes.NoteError as error:
            raise WitnessRefusedError(403, str(error)) from error
        with locked(self.state, file_name(wanted.origin)):
            known = self.remembered(wanted.origin)
            if wanted.size < known.size:
                self._keep_evidence(wanted, known, encoded)
                raise WitnessRefusedError(
                    409,
                    f"{wanted.size} entries, {known.size} were cosigned: the log was cut or an older copy was restored",
                )
            if old_size != known.size:
                raise WitnessRefusedError(409, f"{known.size} entries were cosigned, not {old_size}")
            try:
                merkle.verify_consistency(known.size, wanted.size, known.root, wanted.root, proof)
            except merkle.ProofError as error:
                self._keep_evidence(wanted, known, encoded)
                raise WitnessRefusedError(
                    422, f"{wanted.size} entries do not extend the {known.size} cosigned before: {error}"
                ) from error
            memory = {"size": wanted.size, "root": wanted.root.hex(), "note": encoded}
            write_atomically(self.state / f"{file_name(wanted.origin)}.json", json.dumps(memory) + "\n", 0o600)
            signer = self.signer
            return Cosigned(
                wanted.origin,
                wanted.size,
                known.size,
                notes.cosign(wanted, signer, int(self._now())).line,
                signer.verifier.vkey,
            )

    def cosign_folder(self, log: Path, log_key: notes.Verifier) -> Cosigned:
        """Read a published log, prove to ourselves that it extends what we know, and cosign it."""
        encoded = (log / "checkpoint").read_text("utf-8")
        try:
            wanted = notes.parse_checkpoint(notes.parse_note(encoded).text)
        except notes.NoteError as error:
            raise WitnessRefusedError(403, str(error)) from error
        known = self.remembered(wanted.origin)
        proof: list[bytes] = []
        if known.size < wanted.size:
            try:
                read = tiles.folder_reader(lambda path: (log / path).read_bytes(), wanted.size)
                proof = merkle.consistency_proof(read, known.size, wanted.size)
            except (OSError, IndexError) as error:
                raise WitnessRefusedError(422, f"the published tiles do not hold the tree: {error}") from error
        return self.add_checkpoint(encoded, known.size, proof, log_key)

    def _keep_evidence(self, wanted: notes.Checkpoint, known: Witnessed, encoded: str) -> None:
        """Two notes of the log's own key that cannot both be true: the evidence for an auditor."""
        path = self.state / f"{file_name(wanted.origin)}.conflict-{wanted.size}-{known.size}.txt"
        write_atomically(path, f"cosigned before:\n\n{known.note}\npresented now:\n\n{encoded}", 0o600)


def main() -> int:
    """Cosign a published log. Exit 0 with the cosignature, 1 where the witness refuses."""
    parser = argparse.ArgumentParser(
        description="Cosign the latest checkpoint of a log after checking that it extends what was cosigned before."
    )
    parser.add_argument("--log", type=Path, required=True, help="folder of the published log (holds 'checkpoint')")
    parser.add_argument("--state", type=Path, required=True, help="this witness's own folder")
    parser.add_argument("--vkey", type=Path, required=True, help="file with the log's verifier key")
    parser.add_argument("--name", default="witness", help="this witness's key name")
    arguments = parser.parse_args()
    try:
        done = Witness(arguments.state, arguments.name).cosign_folder(
            arguments.log, notes.parse_vkey(arguments.vkey.read_text("utf-8"))
        )
    except (WitnessRefusedError, notes.NoteError, OSError) as error:
        print(json.dumps({"refused": getattr(error, "status", 403), "reason": str(error)}))
        return 1
    print(
        json.dumps(
            {"origin": done.origin, "size": done.size, "old_size": done.old_size, "line": done.line, "vkey": done.vkey}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
