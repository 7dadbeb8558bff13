"""The table of dead letters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl
import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

#: Columns that landing and loading write: one row a dead letter, reasons as JSON text.
COLUMNS: Final[dict[str, Any]] = {
    "dead_letter_key": pl.Binary,
    "file_sha256": pl.Binary,
    "file_name": pl.String,
    "head_end": pl.String,
    "file_format": pl.String,
    "line": pl.Int64,
    "byte_offset": pl.Int64,
    "raw": pl.Binary,
    "raw_format": pl.String,
    "reasons": pl.String,
    "reads": pl.Int64,
    "meter_id": pl.String,
    "channel": pl.String,
    "rule_version": pl.String,
    "run_id": pl.String,
    "first_seen": pl.Datetime("us", "UTC"),
    "last_seen": pl.Datetime("us", "UTC"),
    "leaf": pl.Binary,
    "salt": pl.Binary,
}
_POSTGRES: Final = {pl.Binary: "bytea", pl.String: "text", pl.Int64: "int8", pl.Datetime("us", "UTC"): "timestamptz"}
_TYPES: Final = [_POSTGRES[kind] for kind in COLUMNS.values()]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row of raw.dead_letter; ``reasons`` as (code, detail)."""

    key: bytes
    file_sha256: bytes
    file_name: str
    head_end: str
    file_format: str
    line: int | None
    byte_offset: int | None
    raw: bytes
    raw_format: str
    reasons: tuple[tuple[str, str], ...]
    reads: int
    meter_id: str | None
    channel: str | None
    rule_version: str
    run_id: str | None
    first_seen: datetime
    last_seen: datetime
    times: int
    status: str
    corrected_raw: bytes | None
    changed_by: str | None
    changed_at: datetime | None
    change_reason: str | None
    replay_sha256: bytes | None
    leaf: bytes
    corrected_leaf: bytes | None
    erased_at: datetime | None


_FIELDS: Final = (
    "dead_letter_key, file_sha256, file_name, head_end, file_format, line, byte_offset, raw, raw_format, reasons::text, reads, meter_id, channel, "
    "rule_version, run_id, first_seen, last_seen, times, status, corrected_raw, changed_by, changed_at, change_reason, replay_sha256, leaf, "
    "corrected_leaf, erased_at"
)


def write(connection: Connection, letters: pl.DataFrame) -> int:
    """Write dead letters (COLUMNS); one that is there already is counted once more. Returns how many are new."""
    if not letters.height:
        return 0
    letters = letters.select(*COLUMNS).unique("dead_letter_key", keep="first", maintain_order=True)
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    connection.execute(
        "CREATE TEMPORARY TABLE incoming_letter (LIKE raw.dead_letter) ON COMMIT DROP;"
        "ALTER TABLE incoming_letter ALTER COLUMN reasons TYPE text, ALTER times DROP NOT NULL, ALTER status DROP NOT NULL"
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY incoming_letter ({}) FROM STDIN (FORMAT binary)").format(names)) as copy,
    ):
        # Raw bytes and reasons differ in length from letter to letter, so the fixed-width encoder would find no two
        # alike.
        copy.set_types(_TYPES)
        for row in letters.iter_rows():
            copy.write_row(row)
    rest = sql.SQL(", ").join(
        sql.Identifier(c) + sql.SQL("::jsonb") if c == "reasons" else sql.Identifier(c) for c in COLUMNS
    )
    done = connection.execute(
        sql.SQL(
            "WITH written AS (INSERT INTO raw.dead_letter AS d ({}) SELECT {} FROM incoming_letter ON CONFLICT (dead_letter_key) DO UPDATE "
            "SET last_seen = excluded.last_seen, times = d.times + 1 RETURNING d.times) SELECT count(*) FILTER (WHERE times = 1) FROM written"
        ).format(names, rest)
    ).fetchone()
    connection.execute("DROP TABLE incoming_letter")
    return int(done[0]) if done else 0


async def write_few(connection: psycopg.AsyncConnection[Any], letters: pl.DataFrame) -> None:
    """As ``write``, for the few that loading makes, on an asyncio connection."""
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    places = sql.SQL(", ").join(sql.SQL("%s::jsonb") if c == "reasons" else sql.Placeholder() for c in COLUMNS)
    statement = sql.SQL(
        "INSERT INTO raw.dead_letter AS d ({}) VALUES ({}) ON CONFLICT (dead_letter_key) DO UPDATE SET last_seen = excluded.last_seen, times = d.times + 1"
    ).format(names, places)
    for row in letters.select(*COLUMNS).iter_rows():
        await connection.execute(statement, row)


def find(
    connection: Connection,
    *,
    status: Sequence[str] = (),
    reason: str | None = None,
    head_end: str | None = None,
    limit: int = 100,
) -> list[DeadLetter]:
    """Dead letters, oldest first."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM raw.dead_letter WHERE (%(status)s::text[] = '{{}}' OR status = ANY(%(status)s)) "
        "AND (%(reason)s::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('code', %(reason)s::text))) "
        "AND (%(head_end)s::text IS NULL OR head_end = %(head_end)s) ORDER BY first_seen, file_name, line, dead_letter_key LIMIT %(limit)s",
        {"status": list(status), "reason": reason, "head_end": head_end, "limit": limit},
    ).fetchall()
    return [_letter(row) for row in rows]


def file_of_replay(connection: Connection, sha256: bytes) -> str | None:
    """The name of the file whose rejected line was replayed as the file of this hash; None for a letter that was a
    whole file or a payload."""
    found = connection.execute(
        "SELECT file_name FROM raw.dead_letter WHERE replay_sha256 = %s AND raw_format = 'source'", (sha256,)
    ).fetchone()
    return str(found[0]) if found is not None else None


def by_prefix(connection: Connection, prefix: str, *, lock: bool = False) -> list[DeadLetter]:
    """Dead letters whose key begins with these hexadecimal digits (two at most are looked for)."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM raw.dead_letter WHERE encode(dead_letter_key, 'hex') LIKE %s ORDER BY dead_letter_key LIMIT 2"
        + (" FOR UPDATE" if lock else ""),
        (prefix.lower() + "%",),
    ).fetchall()
    return [_letter(row) for row in rows]


def with_status(connection: Connection, status: Sequence[str], reason: str | None, limit: int) -> list[bytes]:
    """Keys of dead letters to work through, oldest first."""
    return [letter.key for letter in find(connection, status=status, reason=reason, limit=limit)]


def change(
    connection: Connection,
    key: bytes,
    status: str,
    *,
    by: str,
    at: datetime,
    reason: str | None = None,
    corrected_raw: bytes | None = None,
    corrected_leaf: bytes | None = None,
    replay_sha256: bytes | None = None,
) -> None:
    """Move a dead letter to another status; a correction given earlier is kept."""
    connection.execute(
        "UPDATE raw.dead_letter SET status = %s, changed_by = %s, changed_at = %s, change_reason = coalesce(%s, change_reason), "
        "corrected_raw = coalesce(%s, corrected_raw), corrected_leaf = coalesce(%s, corrected_leaf), replay_sha256 = %s WHERE dead_letter_key = %s",
        (status, by, at, reason, corrected_raw, corrected_leaf, replay_sha256, key),
    )


def erase(connection: Connection, key: bytes, *, by: str, at: datetime) -> None:
    """Empty a closed dead letter: bytes, correction, salt, what its reasons quote. Its leaf takes the place of its key,
    which was a hash of the bytes and would betray them to whoever guesses; a replay made of it goes on pointing to it.
    """
    connection.execute(
        "WITH erased AS (UPDATE raw.dead_letter SET raw = '', corrected_raw = NULL, salt = NULL, erased_at = %(at)s, erased_by = %(by)s, dead_letter_key = leaf,"
        " reasons = (SELECT jsonb_agg(jsonb_build_object('code', r -> 'code', 'detail', '') ORDER BY n)"
        " FROM jsonb_array_elements(reasons) WITH ORDINALITY AS e (r, n)) WHERE dead_letter_key = %(key)s RETURNING leaf)"
        " UPDATE raw.feed_file SET replay_of = erased.leaf FROM erased WHERE replay_of = %(key)s",
        {"key": key, "by": by, "at": at},
    )


def counts(connection: Connection) -> list[tuple[str, str, str, int, int]]:
    """(status, head_end, first reason's code, letters, reads), most letters first."""
    return connection.execute(
        "SELECT status, head_end, reasons -> 0 ->> 'code', count(*), sum(reads)::bigint FROM raw.dead_letter GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3"
    ).fetchall()


def shown(raw: bytes, most: int = 4000) -> str:
    """Bytes as text for people, everything that could steer a terminal or a page's layout escaped."""
    text = raw[:most].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


#: How a day vector says that a slot has no value: the least 32-bit and 64-bit number (postgres/vectors.py).
_NO_VALUE: Final = re.compile(r"(?<=[\[,])(?:-2147483648|-9223372036854775808)(?=[\],])")


def shown_content(content: bytes, raw_format: str) -> str:
    """A dead letter's content for people: as ``shown``, and in a payload of ours (canonical) a slot without a value is
    null. Such a text can be corrected and replayed as it is."""
    if raw_format != "canonical":
        return shown(content)
    return shown(_NO_VALUE.sub("null", content.decode("utf-8", "backslashreplace")).encode(), 40_000)


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    reasons = tuple((r["code"], r["detail"]) for r in json.loads(row[9]))
    values: list[Any] = [*row[:9], reasons, *row[10:]]
    return DeadLetter(*values)
