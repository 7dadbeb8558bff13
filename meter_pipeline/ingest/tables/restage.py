"""SQL for a file that is read again: its days, the reads of them that are committed, its dead letters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg

from meter_pipeline.ingest.tables.raw import FeedFile, FileDay

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class KnownDay:
    """A file's day as it is registered."""

    staged_sha256: bytes
    interval_rows: int
    register_rows: int
    first_row: int
    loaded: bool


@dataclass(frozen=True, slots=True)
class CommittedPayloads:
    """The committed part of a file's day: hashes of payloads, number of reads, number of batches."""

    payloads: frozenset[bytes]
    reads: int
    batches: int


@dataclass(frozen=True, slots=True)
class KnownLetter:
    """A dead letter of a file, without its context."""

    key: bytes
    status: str
    reads: int
    raw_format: str
    raw: bytes
    leaf: bytes
    replay_sha256: bytes | None

    @property
    def payload(self) -> dict[str, Any]:
        """A canonical letter's payload; empty for others and for one that was erased."""
        return dict(json.loads(self.raw)) if self.raw_format == "canonical" and self.raw else {}


def lock_file(connection: Connection, sha256: bytes) -> None:
    """Keep others from reading the same file again until the transaction ends."""
    connection.execute("SELECT 1 FROM raw.feed_file WHERE sha256 = %s FOR UPDATE", (sha256,))


def days(connection: Connection, sha256: bytes) -> dict[date, KnownDay]:
    """The days that a file is registered to touch."""
    rows = connection.execute(
        "SELECT billing_day, staged_sha256, interval_rows, register_rows, first_row, loaded_at IS NOT NULL "
        "FROM raw.feed_file_day WHERE sha256 = %s ORDER BY 1",
        (sha256,),
    )
    return {day: KnownDay(*rest) for day, *rest in rows}


def committed(connection: Connection, sha256: bytes, day: date) -> CommittedPayloads:
    """The committed part of a file's day. Which payloads it is, the leaves of its batches' ledger entries say."""
    row = connection.execute(
        "SELECT coalesce(sum(accepted + duplicate + superseded + rejected), 0)::bigint, count(*) FROM raw.load_batch "
        "WHERE sha256 = %s AND billing_day = %s",
        (sha256, day),
    ).fetchone()
    reads, batches = row or (0, 0)
    leaves = connection.execute(
        "SELECT e.leaves FROM ledger.entry AS e WHERE e.entry_id IN (SELECT unnest(b.ledger_entries) FROM "
        "raw.load_batch AS b WHERE b.sha256 = %s AND b.billing_day = %s) AND e.leaves IS NOT NULL",
        (sha256, day),
    )
    found = {bytes(flat[at : at + 32]) for (flat,) in leaves for at in range(0, len(flat), 32)}
    return CommittedPayloads(frozenset(found), int(reads), int(batches))


def put_day(connection: Connection, sha256: bytes, day: FileDay, first_row: int) -> None:
    """Register a day's new staging; the day waits again."""
    connection.execute(
        "INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, "
        "register_rows, duplicate_in_file, superseded_in_file, first_row) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, "
        "%s) ON CONFLICT (sha256, billing_day) DO UPDATE SET staged_path = excluded.staged_path, staged_sha256 = "
        "excluded.staged_sha256, received = excluded.received, interval_rows = excluded.interval_rows, register_rows = "
        "excluded.register_rows, duplicate_in_file = excluded.duplicate_in_file, superseded_in_file = "
        "excluded.superseded_in_file, first_row = excluded.first_row, accepted = NULL, duplicate = NULL, superseded = "
        "NULL, rejected = NULL, loaded_at = NULL",
        (
            sha256,
            day.billing_day,
            day.staged_path,
            day.staged_sha256,
            day.received,
            day.interval_rows,
            day.register_rows,
            day.duplicate_in_file,
            day.superseded_in_file,
            first_row,
        ),
    )


def drop_day(connection: Connection, sha256: bytes, day: date) -> None:
    """Forget a day that the file does not touch after all, and of which nothing is committed."""
    connection.execute("DELETE FROM raw.feed_file_day WHERE sha256 = %s AND billing_day = %s", (sha256, day))


def letters(connection: Connection, sha256: bytes) -> list[KnownLetter]:
    """Dead letters that landing made of a file; those that loading made are of rows that were staged."""
    rows = connection.execute(
        "SELECT dead_letter_key, status, reads, raw_format, raw, leaf, replay_sha256 FROM raw.dead_letter "
        'WHERE file_sha256 = %s AND NOT reasons @> \'[{"code": "database_refused"}]\' AND NOT reasons @> \'[{"code": "unordered_actual"}]\' ORDER BY dead_letter_key',
        (sha256,),
    ).fetchall()
    return [KnownLetter(*row) for row in rows]


def close_letters(connection: Connection, keys: Sequence[bytes], sha256: bytes, at: datetime, why: str) -> None:
    """The reads of these letters are now accounted for in the file's own days."""
    connection.execute(
        "UPDATE raw.dead_letter SET status = 'replayed', replay_sha256 = %s, changed_by = 'ingest', changed_at = %s, "
        "change_reason = %s WHERE dead_letter_key = ANY(%s)",
        (sha256, at, why, list(keys)),
    )


def reopen_letters(connection: Connection, keys: Sequence[bytes]) -> None:
    """Reopen letters whose reads were staged when the file was last read and cannot be staged now."""
    connection.execute(
        "UPDATE raw.dead_letter SET status = 'open', replay_sha256 = NULL WHERE dead_letter_key = ANY(%s)",
        (list(keys),),
    )


def update_file(connection: Connection, file: FeedFile, new_letters: int, entry: int) -> int:
    """Update a file's row after it was read again; ``received`` follows from its days. Returns ``received``."""
    row = connection.execute(
        "UPDATE raw.feed_file AS f SET refused = %s, rejected = %s, dead_letters = f.dead_letters + %s, file_format = "
        "%s, commodity = %s, ledger_entry = %s, received = %s + coalesce((SELECT sum(d.received) FROM "
        "raw.feed_file_day AS d WHERE d.sha256 = f.sha256), 0) WHERE f.sha256 = %s RETURNING f.received",
        (
            file.refused,
            file.rejected,
            new_letters,
            file.file_format,
            file.commodity,
            entry,
            file.rejected,
            file.sha256,
        ),
    ).fetchone()
    return int(row[0]) if row else 0


def to_restage(connection: Connection, name: str | None) -> list[FeedFile]:
    """Returns files with days that wait (all, or those called ``name``); `ingest restage` reads them again."""
    columns = (
        "f.sha256, f.content_sha256, f.file_name, f.head_end, f.commodity, f.file_format, f.bytes, f.archive_path, "
        "f.landed_at, f.received, f.rejected, f.dead_letters, f.refused, f.run_id, f.replay_of, f.ledger_entry"
    )
    rows = connection.execute(
        f"SELECT {columns} FROM raw.feed_file AS f WHERE f.replay_of IS NULL AND (f.file_name = %(name)s OR EXISTS "
        "(SELECT FROM raw.feed_file_arrival AS a WHERE a.sha256 = f.sha256 AND a.file_name = %(name)s) OR "
        "(%(name)s::text IS NULL AND EXISTS (SELECT FROM raw.feed_file_day AS d WHERE d.sha256 = f.sha256 AND "
        "d.loaded_at IS NULL))) ORDER BY f.landed_at, f.sha256",
        {"name": name},
    ).fetchall()
    return [FeedFile(*row) for row in rows]
