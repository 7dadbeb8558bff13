"""Erasing personal data without breaking a proof.

A leaf over the plain hash of something guessable (a name, a telephone number) would still betray it after the data is
gone: anyone can hash guesses. So what holds personal data is hashed with 32 random bytes, kept beside it and erased
with it. What remains is a leaf that proves that something was recorded and a ledger entry that says it was erased, by
whom and why.
"""

from __future__ import annotations

import hashlib
import os

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.ledger.tables import entries as store


def salted_hash(payload: bytes, salt: bytes) -> bytes:
    """SHA-256 over ``mp-salted/1``, 0x1F, the salt and the payload."""
    return hashlib.sha256(b"mp-salted/1\x1f" + salt + payload).digest()


def salted_leaves(rows: pl.DataFrame) -> pl.Series:
    """The leaf of each row with columns salt and raw (encoding ``mp-salted/1``)."""
    return pl.Series([salted_hash(raw, salt) for raw, salt in rows.select("raw", "salt").iter_rows()], dtype=pl.Binary)


def keep(connection: store.Connection, payload: bytes) -> bytes:
    """Keep a payload that holds personal data, in the caller's transaction; returns the leaf to give to
    ``entries.append``."""
    salt = os.urandom(32)
    leaf = salted_hash(payload, salt)
    store.insert_personal(connection, leaf, salt, payload)
    return leaf


def erase(
    connection: store.Connection, payload_hash: bytes, *, reason: str, requested_by: str, clock: Clock = SYSTEM_CLOCK
) -> int:
    """Erase a payload and its salt, with the entry that says so, in the caller's transaction; returns the entry's
    staging id.

    Raises LookupError where nothing is kept under the hash (or it is erased already). The old bytes leave the table's
    file with the next vacuum, and backups when they are rotated.
    """
    if not store.erase_personal(connection, payload_hash):
        raise LookupError(f"nothing is kept under {payload_hash.hex()}")
    body = {"payload_hash": payload_hash, "reason": reason, "requested_by": requested_by}
    return entries.append(connection, "erased", body, clock=clock, actor=requested_by)
