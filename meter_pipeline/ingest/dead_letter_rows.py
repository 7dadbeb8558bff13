"""Dead letters as landing and loading make them: their rows, keys, salts and leaves."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from typing import Any, Final

import polars as pl

from meter_pipeline.ingest.tables import dead_letters
from meter_pipeline.ledger import erasure

#: Version of the checks, kept in every dead letter, so that a triage rule can tell which checks rejected it.
RULE_VERSION: Final = "landing-1"
#: Bytes of a refused file kept in its dead letter; the whole is in the archive.
REFUSED_BYTES: Final = 65_536

_LETTER: Final[dict[str, Any]] = {
    "line": pl.Int64,
    "byte_offset": pl.Int64,
    "raw": pl.Binary,
    "raw_format": pl.String,
    "reasons": pl.String,
    "reads": pl.Int64,
    "meter_id": pl.String,
    "channel": pl.String,
}
#: Columns that only landing and loading count with.
_BOOKKEEPING: Final = (
    "received",
    "duplicate",
    "superseded",
    "conflicts",
    "reads",
    "first_line",
    "time_fault",
    "reasons",
    "payload_hash",
    "payloads",
    "idempotency_key",
)


def payload_letters(bad: pl.DataFrame) -> pl.DataFrame:
    """Dead letters of whole payloads: the stored columns as one JSON object each, which a person can correct and replay
    as it is."""
    if not bad.height:
        return pl.DataFrame(schema=_LETTER)
    columns = [c for c in bad.columns if c not in _BOOKKEEPING]
    plain = bad.select(
        pl.col(c).dt.epoch("us")
        if isinstance(bad.schema[c], pl.Datetime)
        else pl.col(c).dt.to_string()
        if bad.schema[c] == pl.Date
        else pl.col(c)
        for c in columns
    )
    return bad.select(
        line="first_line",
        byte_offset=pl.lit(None, pl.Int64),
        raw=plain.select(pl.struct(pl.all()).struct.json_encode()).to_series().cast(pl.Binary),
        raw_format=pl.lit("canonical"),
        reasons=_json_reasons(bad["reasons"]),
        reads="received",
        meter_id="meter_id",
        channel="channel",
    ).cast(_LETTER)  # type: ignore[arg-type]


def line_letters(rejects: pl.DataFrame) -> pl.DataFrame:
    """Dead letters of lines that a parser rejected."""
    if not rejects.height:
        return pl.DataFrame(schema=_LETTER)
    return rejects.select(
        "line",
        "byte_offset",
        "raw",
        raw_format=pl.lit("source"),
        reasons=_json_reasons(rejects["reasons"]),
        reads="reads",
        meter_id=pl.lit(None, pl.String),
        channel=pl.lit(None, pl.String),
    ).cast(_LETTER)  # type: ignore[arg-type]


def refused_letter(beginning: bytes, code: str, detail: str) -> pl.DataFrame:
    """The dead letter of a file refused whole, with its first REFUSED_BYTES."""
    reasons = json.dumps([{"code": code, "detail": detail}])
    return pl.DataFrame([(None, 0, beginning, "file", reasons, 0, None, None)], schema=_LETTER, orient="row")


def _json_reasons(reasons: pl.Series) -> pl.Series:
    """[{"code", "detail"}] as JSON text. NUL, which PostgreSQL's text cannot hold, is shown as its picture."""
    listed = [json.dumps(r, ensure_ascii=False).replace("\\u0000", "␀") for r in reasons.to_list()]
    return pl.Series("reasons", listed, dtype=pl.String)


def finish_letters(
    letters: list[pl.DataFrame],
    sha256: bytes,
    name: str,
    head_end: str,
    file_format: str,
    run_id: str | None,
    now: datetime,
) -> pl.DataFrame:
    """Dead letters with their keys, leaves and context, ready for the table. A leaf is salted: a rejected line may name
    a person, and be erased."""
    found = pl.concat(letters)
    made = [
        letter_key(sha256, line, offset, content)
        for line, offset, content in found.select("line", "byte_offset", "raw").iter_rows()
    ]
    salts = [new_salt(key) for key in made]
    leaves = [erasure.salted_hash(content, salt) for content, salt in zip(found["raw"], salts, strict=True)]
    return found.with_columns(
        pl.Series("dead_letter_key", made, dtype=pl.Binary),
        file_sha256=pl.lit(sha256, pl.Binary),
        file_name=pl.lit(name),
        head_end=pl.lit(head_end),
        file_format=pl.lit(file_format),
        rule_version=pl.lit(RULE_VERSION),
        run_id=pl.lit(run_id, pl.String),
        first_seen=pl.lit(now).cast(pl.Datetime("us", "UTC")),
        last_seen=pl.lit(now).cast(pl.Datetime("us", "UTC")),
        leaf=pl.Series(leaves, dtype=pl.Binary),
        salt=pl.Series(salts, dtype=pl.Binary),
    ).select(*dead_letters.COLUMNS)


def new_salt(key: bytes) -> bytes:
    """The salt of a dead letter: random, and of the letter in nothing. The simulation puts one made of the key in its
    place, so that a seed replays."""
    del key
    return os.urandom(32)


def letter_key(sha256: bytes, line: int | None, offset: int | None, content: bytes) -> bytes:
    """Idempotency key of a rejected payload: SHA-256 over ``mpd1``, the file's hash, line, byte offset and the hash of
    its bytes."""
    text = "\x1f".join(
        (
            "mpd1",
            sha256.hex(),
            "" if line is None else str(line),
            "" if offset is None else str(offset),
            hashlib.sha256(content).hexdigest(),
        )
    )
    return hashlib.sha256(text.encode()).digest()
