"""Contracts of schema ``vee``: validated intervals and usage."""

from __future__ import annotations

from typing import Final

from meter_pipeline.schemas.tables.shape import CHANNEL, DAY, ID, METER, UNIT, Column, Contract

_POINT: Final = Column("text", "service point", pattern=ID)
_FLOW: Final = Column("text", "direction of flow", one_of=("import", "export", "net", "other"))
_COMMODITY: Final = Column("text", "commodity", one_of=("electricity", "water", "gas"))
_ACCOUNT: Final = Column("text", "account that pays on the day; null is an exception", nullable=True, pattern=ID)
_TARIFF: Final = Column("text", "tariff in force on the day; null is an exception", nullable=True, pattern=ID)
_CYCLE: Final = Column("text", "billing cycle that holds the day; null is an exception", nullable=True, pattern=ID)

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "vee.interval_day",
        "a meter's channel at a service point on a billing day, validated",
        ("billing_day", "service_point_id", "meter_id", "channel"),
        {
            "starts_at": Column(
                "timestamp with time zone", "UTC instant at which the billing day, and so slot 1, begins"
            ),
            "total_micro": Column("bigint", "exact sum of the row's values, in millionths of the unit"),
            "register_difference_micro": Column(
                "bigint",
                "what the register says was used in the row's slots; null where no reads enclose them",
                nullable=True,
            ),
            "unscaled_micro": Column(
                "bigint",
                "sum of our estimates before they were scaled to the register, below 0 where a net channel gives more "
                "than it takes; 0 where nothing was estimated",
            ),
            "row_flags": Column("bigint", "bits of the row rules that hit (vee.rule, scope row)", at_least=0),
            "billing_day": DAY,
            "version": Column(
                "integer", "number of this version, from 1; earlier ones are in vee.interval_day_version", at_least=1
            ),
            "rules_version": Column("integer", "version of the thresholds it was validated under", at_least=1),
            "first_slot": Column(
                "smallint",
                "first slot (from 0) the meter answers for: above 0 after an exchange within the day",
                at_least=0,
                at_most=1500,
            ),
            "expected": Column("smallint", "slots the meter answers for", at_least=0, at_most=1500),
            "actual": Column("smallint", "slots with an actual value", at_least=0),
            "estimated": Column("smallint", "slots with an estimate, ours or the head-end's", at_least=0),
            "missing": Column("smallint", "slots that stay null", at_least=0),
            "interval_minutes": Column("smallint", "length of an interval in minutes", at_least=1, at_most=1440),
            "slots": Column("smallint", "number of intervals in this billing day", at_least=1, at_most=1500),
            "scale": Column(
                "smallint",
                "decimals of the stored integers: quantity = integer * 10^-scale units",
                at_least=0,
                at_most=6,
            ),
            "quality": Column(
                "smallint", "quality code shared by every present slot; codes above 32767 are stored less 65536"
            ),
            "billed": Column("boolean", "whether the channel counts for the bill; a check or reactive channel may not"),
            "locked": Column("boolean", "its estimates are final: only actuals, registers or people replace them"),
            "service_point_id": _POINT,
            "meter_id": METER,
            "channel": CHANNEL,
            "unit": UNIT,
            "flow": _FLOW,
            "head_end": Column("text", "head-end of the meter"),
            "account_id": _ACCOUNT,
            "tariff_id": _TARIFF,
            "cycle_id": _CYCLE,
            "input_hash": Column(
                "bytea",
                "SHA-256 over what the row was made from: raw values and codes, its window, the register difference, the thresholds",
            ),
            "content_hash": Column("bytea", "SHA-256 over what was made of it: its leaf in the ledger"),
            "notes": Column("text", "days and anchors the estimates stand on", nullable=True),
            "flags": Column(
                "integer[]", "bits of the interval rules that hit, by slot; null where none did", nullable=True
            ),
            "values": Column(
                "integer[]",
                "scaled integers by slot; -2147483648 for none. Null where wide_values holds them",
                nullable=True,
            ),
            "wide_values": Column(
                "bigint[]", "the same where 32 bits are too few; -9223372036854775808 for none", nullable=True
            ),
            "qualities": Column("smallint[]", "quality code by slot, only where slots differ", nullable=True),
        },
        lineage={
            "values": ("raw.interval_day.values", "raw.register_read.value", "vee.edit.values"),
            "qualities": ("raw.interval_day.quality", "raw.interval_day.qualities"),
            "total_micro": ("vee.interval_day.values",),
            "register_difference_micro": ("raw.register_read.value", "ref.channels.multiplier"),
            "flags": ("raw.interval_day.values", "raw.interval_day.offsets", "ref.service_points.status"),
            "row_flags": ("raw.interval_day.unit", "raw.register_read.value", "ref.channels.dials"),
            "service_point_id": ("ref.installations.service_point_id",),
            "flow": ("ref.channels.flow",),
            "account_id": ("ref.agreements.account_id",),
            "tariff_id": ("ref.agreements.tariff_id",),
            "cycle_id": ("ref.agreements.cycle_id",),
        },
    ),
    Contract(
        "vee.daily_usage",
        "a service point's usage on a billing day",
        ("billing_day", "service_point_id", "flow", "unit"),
        {
            "quantity_micro": Column(
                "bigint", "usage in millionths of the unit; null where nothing is known", nullable=True
            ),
            "estimated_micro": Column("bigint", "the part of it that is estimated"),
            "row_flags": Column("bigint", "row rule bits of all its meters", at_least=0),
            "billing_day": DAY,
            "slots_expected": Column(
                "integer", "slots expected of all its meters; 1 per register-only meter", at_least=0
            ),
            "actual": Column("integer", "slots with actual values", at_least=0),
            "estimated": Column("integer", "slots with estimates", at_least=0),
            "missing": Column("integer", "slots without a value", at_least=0),
            "meters": Column("smallint", "meters it is the sum of: 2 on the day of an exchange", at_least=1),
            "quality": Column("smallint", "quality code that ranks worst among its slots"),
            "exchange": Column("boolean", "whether a meter was exchanged on the day"),
            "service_point_id": _POINT,
            "flow": _FLOW,
            "unit": UNIT,
            "source": Column(
                "text",
                "interval: sum of validated intervals; register: register consumption shared over days; mixed: both, "
                "as after an exchange",
            ),
            "register_micro": Column(
                "bigint", "the part of a mixed day that registers alone make; null elsewhere", nullable=True
            ),
            "commodity": _COMMODITY,
            "customer_class": Column("text", "class of the service point on the day"),
            "account_id": _ACCOUNT,
            "tariff_id": _TARIFF,
            "cycle_id": _CYCLE,
        },
        lineage={
            "quantity_micro": ("vee.interval_day.total_micro", "raw.register_read.value"),
            "estimated_micro": ("vee.interval_day.values", "vee.interval_day.qualities"),
            "actual": ("vee.interval_day.actual",),
            "estimated": ("vee.interval_day.estimated",),
            "missing": ("vee.interval_day.missing",),
            "quality": ("vee.interval_day.qualities",),
            "row_flags": ("vee.interval_day.row_flags",),
            "exchange": ("ref.installations.installed_at", "ref.installations.removed_at"),
            "account_id": ("ref.agreements.account_id",),
        },
    ),
)
