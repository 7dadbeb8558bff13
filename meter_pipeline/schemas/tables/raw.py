"""Contracts of schema ``raw``: reads as they arrived."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import CHANNEL, DAY, METER, UNIT, Column, Contract
from meter_pipeline.units import MAX_DIAL_MICRO

CONTRACTS = (
    Contract(
        "raw.interval_day",
        "a meter's channel on a billing day, as it arrived",
        ("billing_day", "meter_id", "channel"),
        {
            "starts_at": Column("timestamp with time zone", "UTC instant at which slot 1 begins"),
            "source_version": Column("bigint", "version the source gave"),
            "read_time": Column("timestamp with time zone", "when the head-end took it", nullable=True),
            "billing_day": DAY,
            "sequence": Column("integer", "sequence number of slot 1"),
            "sequence_step": Column("integer", "step of the sequence number from slot to slot"),
            "interval_minutes": Column("smallint", "length of an interval", at_least=1, at_most=1440),
            "slots": Column("smallint", "intervals in this billing day", at_least=1, at_most=1500),
            "scale": Column("smallint", "decimals of the stored integers", at_least=0, at_most=6),
            "quality": Column("smallint", "quality code shared by the present slots"),
            "payloads": Column("smallint", "distinct payloads folded into the row", at_least=1),
            "meter_id": METER,
            "channel": CHANNEL,
            "unit": UNIT,
            "head_end": Column("text", "head-end of the leading payload"),
            "payload_hash": Column("bytea", "SHA-256 of the leading payload"),
            "values": Column("integer[]", "scaled integers by slot", nullable=True),
            "wide_values": Column("bigint[]", "the same where 32 bits are too few", nullable=True),
            "qualities": Column("smallint[]", "quality code by slot, where they differ", nullable=True),
            "sequences": Column("integer[]", "sequence number by slot, where they follow no rule", nullable=True),
            "offsets": Column("smallint[]", "seconds off the grid, where any is", nullable=True),
        },
        lineage={
            **dict.fromkeys(("values", "qualities", "sequences", "offsets", "source_version"), ("feed file",)),
            "unit": ("feed file", "data/head_ends"),
            "payload_hash": ("raw.interval_day.values",),
        },
    ),
    Contract(
        "raw.register_read",
        "a reading of a cumulative register",
        ("billing_day", "meter_id", "channel", "read_at"),
        {
            "read_at": Column("timestamp with time zone", "instant of the reading"),
            "value": Column(
                "bigint", "the dial, in millionths of the base unit", at_least=-MAX_DIAL_MICRO, at_most=MAX_DIAL_MICRO
            ),
            "source_version": Column("bigint", "version the source gave"),
            "read_time": Column("timestamp with time zone", "when the head-end took it", nullable=True),
            "billing_day": DAY,
            "sequence": Column("integer", "sequence number"),
            "quality": Column("smallint", "quality code"),
            "payloads": Column("smallint", "distinct payloads", at_least=1),
            "meter_id": METER,
            "channel": CHANNEL,
            "unit": UNIT,
            "head_end": Column("text", "head-end that sent it"),
            "payload_hash": Column("bytea", "SHA-256 of the payload"),
            "idempotency_key": Column("bytea", "SHA-256 over meter, instant and sequence"),
        },
        lineage={
            "value": ("feed file",),
            "idempotency_key": (
                "raw.register_read.meter_id",
                "raw.register_read.read_at",
                "raw.register_read.sequence",
            ),
        },
    ),
    Contract(
        "raw.feed_file",
        "a distinct file that arrived",
        ("sha256",),
        {
            "sha256": Column(
                "bytea", "identity of the file: of its bytes, and of its head-end where another offered them first"
            ),
            "content_sha256": Column("bytea", "SHA-256 of the file's bytes"),
            "file_name": Column("text", "name it first arrived under"),
            "head_end": Column("text", "head-end whose declaration read it"),
            "commodity": Column("text", "commodity its head-end declares; a pause of that commodity holds it"),
            "file_format": Column("text", "format it was read as"),
            "bytes": Column("bigint", "its size", at_least=0),
            "archive_path": Column("text", "where its compressed copy lies, below the archive folder"),
            "landed_at": Column("timestamp with time zone", "when it was registered, UTC"),
            "received": Column("bigint", "reads it offered, good or not", at_least=0),
            "rejected": Column("bigint", "reads rejected when it was landed", at_least=0),
            "dead_letters": Column("bigint", "dead letters written for it when it was landed", at_least=0),
            "refused": Column("text", "why the whole file could not be read, or null", nullable=True),
            "run_id": Column("text", "run that landed it", nullable=True),
            "replay_of": Column(
                "bytea", "dead letter that it replays, or null for a file of a head-end", nullable=True
            ),
            "ledger_entry": Column("bigint", "ledger entry that recorded it", nullable=True),
        },
        lineage={
            "received": ("feed file",),
            "rejected": ("feed file", "ref.meters.meter_id", "ref.channels.channel"),
            "commodity": ("data/head_ends",),
        },
    ),
    Contract(
        "raw.pull_request",
        "a day asked of a head-end that is pulled",
        ("head_end", "billing_day"),
        {
            "head_end": Column("text", "head-end asked"),
            "billing_day": DAY,
            "times": Column("integer", "how often", at_least=1),
            "first_asked": Column("timestamp with time zone", "first time, UTC"),
            "last_asked": Column("timestamp with time zone", "latest time, UTC"),
            "outcome": Column("text", "pulled, empty, or why it failed"),
            "reads": Column("bigint", "reads that came the last time", at_least=0),
        },
        lineage={"billing_day": ("raw.interval_day.billing_day", "ref.installations.installed_at")},
    ),
)
