"""The contract of every table a billing day writes, in pandera: the source of the schema checks, of the column metadata and of the SQL drift test.

Belongs here: columns, types, bounds, keys, and what each column means to a reader. Does not belong here: reading the table.

pandera is imported when a contract is used: it costs a second, and most commands never check a table. A LazyFrame would be checked for its
schema only, so contracts are given eager frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from meter_pipeline.units import MAX_MICRO


@dataclass(frozen=True, slots=True)
class Column:
    """One column: PostgreSQL type as the catalogue names it, meaning, bounds, and whether it may be null. Arrays are checked in the database."""

    type: str
    about: str
    nullable: bool = False
    at_least: int | None = None
    at_most: int | None = None
    one_of: tuple[str, ...] = ()
    pattern: str | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """One table: schema-qualified name, columns in order, natural key, what a row is, and lineage {column: upstream columns}."""

    table: str
    row: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    lineage: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def checked(self) -> tuple[str, ...]:
        """Columns a schema check reads: all but the arrays, whose length and element type the database itself holds."""
        return tuple(name for name, column in self.columns.items() if not column.type.endswith("[]"))


ID: Final = r"^[A-Z0-9-]{1,32}$"

_POLARS: Final = {
    "date": "Date", "timestamp with time zone": "Datetime", "bigint": "Int64", "integer": "Int32", "smallint": "Int16", "text": "String",
    "boolean": "Boolean", "bytea": "Binary", "double precision": "Float64", "real": "Float32", "jsonb": "String", "numeric": "String",
}  # fmt: skip


@cache
def pandera_schema(table: str) -> Any:
    """The pandera schema of a contracted table's checked columns."""
    import pandera.polars as pa
    import polars as pl

    contract = CONTRACTS[table]
    columns: dict[str, Any] = {}
    for name in contract.checked:
        column = contract.columns[name]
        dtype: Any = pl.Datetime("us", "UTC") if column.type == "timestamp with time zone" else getattr(pl, _POLARS[column.type])
        checks = []
        if column.at_least is not None:
            checks.append(pa.Check.ge(column.at_least))
        if column.at_most is not None:
            checks.append(pa.Check.le(column.at_most))
        if column.one_of:
            checks.append(pa.Check.isin(list(column.one_of)))
        if column.pattern:
            checks.append(pa.Check.str_matches(column.pattern))
        columns[name] = pa.Column(dtype, checks, nullable=column.nullable)
    return pa.DataFrameSchema(columns, strict=True, unique=list(contract.key), name=table)


_DAY: Final = Column("date", "billing day: local civil day of the utility")
_METER: Final = Column("text", "meter", pattern=ID)
_CHANNEL: Final = Column("text", "channel of the meter", pattern=ID)
_UNIT: Final = Column("text", "base unit", one_of=("kWh", "kVArh", "kVAh", "kW", "kVAr", "kVA", "V", "A", "pf", "m3", "gal", "ft3", "therm", "MJ", ""))

CONTRACTS: dict[str, Contract] = {
    contract.table: contract
    for contract in (
        Contract(
            "raw.interval_day",
            "a meter's channel on a billing day, as it arrived",
            ("billing_day", "meter_id", "channel"),
            {
                "starts_at": Column("timestamp with time zone", "UTC instant at which slot 1 begins"),
                "source_version": Column("bigint", "version the source gave"),
                "read_time": Column("timestamp with time zone", "when the head-end took it", nullable=True),
                "billing_day": _DAY,
                "sequence": Column("integer", "sequence number of slot 1"),
                "sequence_step": Column("integer", "step of the sequence number from slot to slot"),
                "interval_minutes": Column("smallint", "length of an interval", at_least=1, at_most=1440),
                "slots": Column("smallint", "intervals in this billing day", at_least=1, at_most=1500),
                "scale": Column("smallint", "decimals of the stored integers", at_least=0, at_most=6),
                "quality": Column("smallint", "quality code shared by the present slots"),
                "payloads": Column("smallint", "distinct payloads folded into the row", at_least=1),
                "meter_id": _METER,
                "channel": _CHANNEL,
                "unit": _UNIT,
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
                "billing_day": _DAY,
                "sequence": Column("integer", "sequence number"),
                "quality": Column("smallint", "quality code"),
                "payloads": Column("smallint", "distinct payloads", at_least=1),
                "meter_id": _METER,
                "channel": _CHANNEL,
                "unit": _UNIT,
                "head_end": Column("text", "head-end that sent it"),
                "payload_hash": Column("bytea", "SHA-256 of the payload"),
                "idempotency_key": Column("bytea", "SHA-256 over meter, instant and sequence"),
            },
        ),
    )
}
