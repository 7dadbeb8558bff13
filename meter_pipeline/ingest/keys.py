"""Identity: the idempotency key of a read and the hash of a payload, in one documented canonical encoding each.

Idempotency key of a read (tag ``mp1``): SHA-256 over the UTF-8 bytes

    mp1 0x1F meter id 0x1F YYYY-MM-DDTHH:MM:SSZ 0x1F sequence in decimal

where the instant is the interval's start on the grid (or the register's reading time), whole seconds, UTC.
``raw.idempotency_key`` is the same in SQL; test vectors stand in meter_pipeline_tests/ingest/test_keys.py.

Payload hash (tags ``mpi1`` intervals, ``mpr1`` registers): SHA-256 over a text header whose fields are joined by 0x1F
and closed by 0x1E, then the row's arrays, each integer big-endian, in the order values (4 bytes) or wide_values (8),
qualities (2), sequences (4), offsets (2), those that the row has. The header's fields are the row's columns; its last
field names the arrays present (v or w, then q, s, o), so that no two rows share their bytes:

    mpi1, meter_id, channel, billing_day, unit, interval_minutes, slots, head_end, source_version, read_time, scale,
    quality, sequence, sequence_step, arrays mpr1, meter_id, channel, read_at, unit, head_end, source_version,
    read_time, value, quality, sequence

Instants in headers are microseconds since 1970 UTC in decimal, empty where null. Everything in it can be read off the
stored row.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import polars as pl

from meter_pipeline.ledger.digests import Part, digests, part_of, row_digests

UNIT_SEPARATOR = "\x1f"
_BIG = {"values": ">i4", "wide_values": ">i8", "qualities": ">i2", "sequences": ">i4", "offsets": ">i2"}
_LETTER = {"values": "v", "wide_values": "w", "qualities": "q", "sequences": "s", "offsets": "o"}


def idempotency_key(meter_id: str, at: datetime, sequence: int) -> bytes:
    """The 32-byte key of one read. ``at`` must carry a zone; fractions of a second are cut."""
    if at.tzinfo is None:
        raise ValueError("a read without a time zone has no identity")
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return hashlib.sha256(UNIT_SEPARATOR.join(("mp1", meter_id, stamp, str(sequence))).encode()).digest()


def idempotency_keys(meter_id: pl.Series, at: pl.Series, sequence: pl.Series) -> pl.Series:
    """``idempotency_key`` of many reads: a Binary column. About 2 million a second."""
    text = pl.select(
        pl.concat_str(
            pl.lit("mp1"),
            meter_id,
            at.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            sequence.cast(pl.String),
            separator=UNIT_SEPARATOR,
        )
    ).to_series()
    return digests(text).alias("idempotency_key")


def wrong_keys(rows: pl.DataFrame) -> list[str]:
    """Register reads whose stored idempotency key is not that of their meter, instant and sequence."""
    expected = idempotency_keys(rows["meter_id"], rows["read_at"], rows["sequence"])
    wrong = rows.filter(expected.ne_missing(rows["idempotency_key"]))
    return [
        f"{meter} {channel} at {at}: its key is not that of the read"
        for meter, channel, at in wrong.select("meter_id", "channel", "read_at").iter_rows()
    ]


def interval_payload_hashes(frame: pl.DataFrame) -> pl.Series:
    """The payload hash of each row of a vector frame with meter_id, channel, unit, head_end, source_version and
    read_time."""
    arrays = list(_BIG)
    kinds = pl.concat_str(
        *(pl.when(pl.col(c).is_null()).then(pl.lit("")).otherwise(pl.lit(_LETTER[c])) for c in arrays)
    )
    header = frame.select(
        pl.concat_str(
            pl.lit("mpi1"),
            "meter_id",
            "channel",
            pl.col("billing_day").dt.strftime("%Y-%m-%d"),
            "unit",
            pl.col("interval_minutes").cast(pl.String),
            pl.col("slots").cast(pl.String),
            "head_end",
            pl.col("source_version").cast(pl.String),
            _instant("read_time"),
            pl.col("scale").cast(pl.String),
            pl.col("quality").cast(pl.String),
            pl.col("sequence").cast(pl.String),
            pl.col("sequence_step").cast(pl.String),
            kinds,
            separator=UNIT_SEPARATOR,
        )
        + "\x1e"
    ).to_series()
    parts = [
        part_of(header),
        *(_big_endian(frame[name], _BIG[name]) for name in arrays if frame[name].null_count() < frame.height),
    ]
    return row_digests(parts).alias("payload_hash")


def _big_endian(column: pl.Series, kind: str) -> Part:
    """The integers of each row's list, end to end; none where the list is null."""
    sizes = column.list.len().fill_null(0).to_numpy().astype(np.int64) * int(kind[-1])
    data = column.drop_nulls().explode().to_numpy().astype(kind)
    return data.view(np.uint8), np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


def register_payload_hashes(frame: pl.DataFrame) -> pl.Series:
    """The payload hash of each register read (columns of schemas.reads.REGISTER_READS and head_end; quality as stored,
    int16)."""
    header = frame.select(
        pl.concat_str(
            pl.lit("mpr1"),
            "meter_id",
            "channel",
            _instant("read_at"),
            "unit",
            "head_end",
            pl.col("source_version").cast(pl.String),
            _instant("read_time"),
            pl.col("value").cast(pl.String),
            pl.col("quality").cast(pl.String),
            pl.col("sequence").cast(pl.String),
            separator=UNIT_SEPARATOR,
        )
        + "\x1e"
    ).to_series()
    return digests(header).alias("payload_hash")


def _instant(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("us").cast(pl.String).fill_null("")
