"""Contracts of schema ``raw``: reads as they arrived."""

from __future__ import annotations

from meter_pipeline.schemas.tables.shape import CHANNEL, DAY, METER, UNIT, Column, Contract
from meter_pipeline.units import MAX_MICRO

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
            "head_end": Column("text", "head-end of the newest payload"),
            "payload_hash": Column("bytea", "SHA-256 of the newest payload"),
            "values": Column("integer[]", "scaled integers by slot", nullable=True),
            "wide_values": Column("bigint[]", "the same where 32 bits are too few", nullable=True),
            "qualities": Column("smallint[]", "quality code by slot, where they differ", nullable=True),
            "sequences": Column("integer[]", "sequence number by slot, where they follow no rule", nullable=True),
            "offsets": Column("smallint[]", "seconds off the grid, where any is", nullable=True),
        },
    ),
    Contract(
        "raw.register_read",
        "a reading of a cumulative register",
        ("billing_day", "meter_id", "channel", "read_at"),
        {
            "read_at": Column("timestamp with time zone", "instant of the reading"),
            "value": Column("bigint", "the dial, in millionths of the base unit", at_least=-MAX_MICRO, at_most=MAX_MICRO),
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
    ),
)
