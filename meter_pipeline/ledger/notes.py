"""Signed notes and checkpoints in the public formats: C2SP signed-note, tlog-checkpoint and tlog-cosignature, with
Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Signature types of signed-note: a plain Ed25519 signature, and a witness's time-stamped cosignature.
ED25519: Final = 0x01
COSIGNATURE_V1: Final = 0x04
_DASH: Final = "— "
#: Larger notes are refused before they are parsed, as Go's note package does.
_NOTE_LIMIT: Final = 1_000_000


class NoteError(ValueError):
    """A note, key or signature that cannot be accepted; the message says why."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key by name. ``kind`` is the signature type it makes."""

    name: str
    public: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """SHA-256(name, newline, type, public key), first four bytes (signed-note)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """``name+id+key``, the form auditors keep and Go's note.NewVerifier reads."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raises NoteError unless ``signature`` is this key's over ``message``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature as error:
            raise NoteError(f"the signature of {self.name} does not verify") from error


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key by name. Lives only in a signer's or witness's process."""

    name: str
    seed: bytes
    kind: int = ED25519

    @property
    def verifier(self) -> Verifier:
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return Verifier(self.name, public, self.kind)

    @property
    def skey(self) -> str:
        """``PRIVATE+KEY+name+id+seed``, as Go's note.NewSigner reads it."""
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{base64.b64encode(bytes([ED25519]) + self.seed).decode()}"

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def new_signer(name: str, kind: int = ED25519) -> Signer:
    """A fresh key. Raises NoteError where the name cannot stand in a note."""
    _check_name(name)
    return Signer(name, Ed25519PrivateKey.generate().private_bytes_raw(), kind)


def parse_vkey(text: str) -> Verifier:
    """A verifier from its one-line form. Raises NoteError where it is malformed or its id is not its key's."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise NoteError("a verifier key is name+id+key")
    name, key_id, encoded = parts
    _check_name(name)
    raw = _decode(encoded)
    if len(raw) != 33 or raw[0] not in (ED25519, COSIGNATURE_V1):
        raise NoteError("only Ed25519 keys are known here")
    verifier = Verifier(name, raw[1:], raw[0])
    if verifier.key_id.hex() != key_id:
        raise NoteError(f"the key's id is {verifier.key_id.hex()}, not {key_id}")
    return verifier


def parse_skey(text: str, kind: int = ED25519) -> Signer:
    """A signer from its one-line form; ``kind`` is what it signs. Raises NoteError where it is malformed or its id is
    not its own."""
    parts = text.strip().split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"]:
        raise NoteError("this is not a private key of a note")
    raw = _decode(parts[4])
    if len(raw) != 33 or raw[0] != ED25519:
        raise NoteError("only Ed25519 keys are known here")
    signer = Signer(parts[2], raw[1:], kind)
    if signer.verifier.key_id.hex() != parts[3]:
        raise NoteError("the private key's id is not its own")
    return signer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content of a checkpoint: the log of ``origin`` had ``size`` entries and this ``root``."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The signed text, with no extension lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note; ``blob`` is what follows the key id."""

    name: str
    key_id: bytes
    blob: bytes

    @property
    def line(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.blob).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it."""

    text: str
    signatures: tuple[Signature, ...]

    @property
    def encoded(self) -> str:
        return self.text + "\n" + "".join(signature.line for signature in self.signatures)


def parse_note(encoded: str) -> Note:
    """A note's text and signatures, none of them checked. Raises NoteError."""
    if len(encoded) > _NOTE_LIMIT or any(ord(letter) < 0x20 and letter != "\n" for letter in encoded):
        raise NoteError("the note is too long or holds control characters")
    text, separator, signatures = encoded.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the note has no signatures")
    return Note(text + "\n", tuple(parse_signature(line) for line in signatures[:-1].split("\n")))


def parse_signature(line: str) -> Signature:
    """One signature line, not checked. Raises NoteError."""
    found = re.fullmatch(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)\n?", line)
    if found is None:
        raise NoteError("a signature line is malformed")
    raw = _decode(found[2])
    if len(raw) < 5:
        raise NoteError("a signature is too short")
    return Signature(found[1], raw[:4], raw[4:])


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint a note's text holds. Raises NoteError where a line is malformed."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not lines[0] or not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1]):
        raise NoteError("this is not a checkpoint")
    root = _decode(lines[2])
    if len(root) != 32:
        raise NoteError("a checkpoint's root is 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> Signature:
    """The log's own signature over a checkpoint."""
    return Signature(signer.name, signer.verifier.key_id, signer.sign(checkpoint.text.encode()))


def cosign(checkpoint: Checkpoint, signer: Signer, at: int) -> Signature:
    """A witness's cosignature made at ``at`` (Unix seconds): it saw nothing inconsistent with this checkpoint
    (tlog-cosignature v1)."""
    return Signature(
        signer.name, signer.verifier.key_id, struct.pack(">Q", at) + signer.sign(_cosigned(checkpoint.text, at))
    )


def verify_note(note: Note, verifiers: Iterable[Verifier]) -> list[Verifier]:
    """The known keys that signed. Signatures of unknown keys are passed over; a known key's that fails raises
    NoteError, as does none at all."""
    known: Mapping[tuple[str, bytes], Verifier] = {(key.name, key.key_id): key for key in verifiers}
    found = []
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if key.kind == COSIGNATURE_V1:
            at, blob = cosigned_at(signature), signature.blob[8:]
            key.verify(_cosigned(note.text, at), blob)
        else:
            key.verify(note.text.encode(), signature.blob)
        found.append(key)
    if not found:
        raise NoteError("no signature by a known key")
    return found


def cosigned_at(signature: Signature) -> int:
    """Unix seconds at which a witness cosigned."""
    if len(signature.blob) != 72:
        raise NoteError("a cosignature is 8 bytes of time and 64 of signature")
    return int(struct.unpack(">Q", signature.blob[:8])[0])


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[!-*,-~]{1,200}", name):
        raise NoteError(f"{name!r} cannot name a key: no spaces, no plus signs, ASCII")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("bad base64") from error
