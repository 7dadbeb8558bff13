"""An outside clock over a checkpoint: RFC 3161, through a command of the operator's.

METER_PIPELINE_LEDGER_TIMESTAMP names a command that reads a DER TimeStampReq on stdin and writes the authority's DER
TimeStampResp, such as

    curl -sS -H "Content-Type: application/timestamp-query" --data-binary @- https://tsa.example.com

A failing command, or an answer to another question, never holds up a checkpoint: the log is signed already, and the
missing stamp shows in the metadata. An answer is kept only if it was granted, is over this note and repeats this
query's nonce; its signature is verified with ``openssl ts`` by whoever holds the authority's certificate.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shlex
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from meter_pipeline.ledger.tables import entries

COMMAND_VARIABLE: Final = "METER_PIPELINE_LEDGER_TIMESTAMP"
_TIMEOUT_S: Final = 30
_LOG = logging.getLogger(__name__)
#: AlgorithmIdentifier of SHA-256: SEQUENCE { OID 2.16.840.1.101.3.4.2.1, NULL }
_SHA256: Final = bytes.fromhex("300d06096086480165030402010500")
_INTEGER, _OCTETS, _SEQUENCE, _TIME = 0x02, 0x04, 0x30, 0x18


class TimestampError(ValueError):
    """An answer that does not vouch for this checkpoint; the message says why."""


def query(note: str, nonce: int) -> bytes:
    """The TimeStampReq (RFC 3161 section 2.4.1) over the SHA-256 of a checkpoint's note, asking for the authority's
    certificate."""
    imprint = _der(_SEQUENCE, _SHA256 + _der(_OCTETS, hashlib.sha256(note.encode()).digest()))
    return _der(_SEQUENCE, _der(_INTEGER, b"\x01") + imprint + _der(_INTEGER, _unsigned(nonce)) + b"\x01\x01\xff")


def stamped_at(answer: bytes, note: str, nonce: int | None = None) -> datetime:
    """The instant (UTC) an answer states for a note. Its signature is not looked at: that is ``verify``.

    Raises TimestampError where the authority refused, or the answer is of another note or to another query.
    """
    try:
        status, *token = _children(_only(answer))
        code = int.from_bytes(_children(status[1])[0][1])
        if code not in (0, 1):  # granted, grantedWithMods
            raise TimestampError(f"the authority refused: status {code}")
        content = _children(token[0][1])  # ContentInfo: OID, [0] SignedData
        signed = _children(_only(content[1][1]))  # version, digest algorithms, encapsulated content, ...
        encapsulated = _children(signed[2][1])  # OID, [0] OCTET STRING
        fields = _children(_only(_only(encapsulated[1][1], _OCTETS)))  # version, policy, imprint, serial, time, ...
        imprint = _children(fields[2][1])[1][1]
        time = next(value for tag, value in fields if tag == _TIME).decode("ascii")
        # After the time come an accuracy (SEQUENCE), an ordering (BOOLEAN) and the nonce.
        after = fields[[tag for tag, _ in fields].index(_TIME) + 1 :]
        echoed = next((int.from_bytes(value) for tag, value in after if tag == _INTEGER), None)
        at = datetime.strptime(time.split(".")[0].rstrip("Z"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except (IndexError, ValueError, StopIteration) as error:
        raise (
            error if isinstance(error, TimestampError) else TimestampError(f"not a time stamp answer: {error!r}")
        ) from error
    if imprint != hashlib.sha256(note.encode()).digest():
        raise TimestampError("it is over another note")
    if nonce is not None and echoed != nonce:
        raise TimestampError("it answers another query")
    return at


def verify(answer: bytes, note: str, authority: Path) -> datetime:
    """As stamped_at, and the answer is signed by the authority whose certificate chain (PEM) is given. Raises
    TimestampError."""
    at = stamped_at(answer, note)
    with tempfile.TemporaryDirectory() as folder:
        answer_file, data = Path(folder) / "answer.tsr", Path(folder) / "note"
        answer_file.write_bytes(answer)
        data.write_text(note, "utf-8", newline="")
        try:
            done = subprocess.run(  # noqa: S603 - two files of our own and one the caller names
                ["openssl", "ts", "-verify", "-in", str(answer_file), "-data", str(data), "-CAfile", str(authority)],  # noqa: S607 - the system's own
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise TimestampError(f"openssl is needed to verify a time stamp: {error}") from error
    if done.returncode:
        raise TimestampError(" ".join(done.stderr.split())[-300:] or "openssl does not verify it")
    return at


def verify_all(
    connection: entries.Connection, authority: Path
) -> tuple[list[tuple[int, datetime]], list[tuple[int, str]]]:
    """Every stored time stamp: (tree size, instant) of those that hold, (tree size, why) of those that do not."""
    notes = {row.tree_size: row.note for row in entries.checkpoints(connection)}
    good, bad = [], []
    for size, kind, token in entries.anchors(connection):
        if kind != "rfc3161":
            continue
        try:
            good.append((size, verify(bytes(token), notes[size], authority)))
        except TimestampError as error:
            bad.append((size, str(error)))
    return good, bad


def stamp_if_configured(connection: entries.Connection, size: int, note: str) -> bool:
    """Ask the authority to stamp a checkpoint, once; True where this checkpoint has a stamp."""
    if entries.has_anchor(connection, size):
        return True
    command = os.environ.get(COMMAND_VARIABLE)
    if not command:
        return False
    nonce = secrets.randbits(63)
    try:
        done = subprocess.run(  # noqa: S603 - the command is the operator's own setting
            shlex.split(command), input=query(note, nonce), capture_output=True, check=True, timeout=_TIMEOUT_S
        )
        stamped_at(done.stdout, note, nonce)
    except (OSError, subprocess.SubprocessError, TimestampError) as error:
        _LOG.warning("no time stamp for the checkpoint of %s entries: %s", size, error)
        return False
    entries.insert_anchor(connection, size, "rfc3161", done.stdout)
    return True


def _der(tag: int, content: bytes) -> bytes:
    """One DER element. Every content here is shorter than 128 bytes."""
    assert len(content) < 0x80  # noqa: S101 - a query is 60 bytes
    return bytes((tag, len(content))) + content


def _unsigned(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1)


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, content) of the DER elements that data is made of. Raises ValueError where it is cut short."""
    found = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            wide = length & 0x7F
            if not 1 <= wide <= 4:
                raise ValueError("a length that DER does not have")
            length = int.from_bytes(data[at : at + wide])
            at += wide
        if at + length > len(data):
            raise ValueError("cut short")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _only(data: bytes, tag: int = _SEQUENCE) -> bytes:
    """The content of the one element that data is."""
    [(found, content)] = _children(data)
    if found != tag:
        raise ValueError(f"tag {found:#x} where {tag:#x} should be")
    return content
