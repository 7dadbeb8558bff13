"""The contract of every table a billing day writes, in pandera: the source of the schema checks, of the column metadata
and of the SQL drift test.

pandera is imported when a contract is used: it costs a second, and most commands never check a table. A LazyFrame would
be checked for its schema only, so contracts are given eager frames.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from meter_pipeline.schemas.tables import anomaly, billing, ledger, migration, month, raw, vee
from meter_pipeline.schemas.tables.shape import Contract

#: qualified table name -> contract
CONTRACTS: Final[dict[str, Contract]] = {
    contract.table: contract
    for module in (raw, vee, anomaly, billing, month, ledger, migration)
    for contract in module.CONTRACTS
}

_POLARS: Final = {
    "date": "Date",
    "timestamp with time zone": "Datetime",
    "bigint": "Int64",
    "integer": "Int32",
    "smallint": "Int16",
    "text": "String",
    "boolean": "Boolean",
    "bytea": "Binary",
    "double precision": "Float64",
    "real": "Float32",
    "jsonb": "String",
    "numeric": "String",
    "control.person_name": "String",
}


@cache
def pandera_schema(table: str) -> Any:
    """The pandera schema of a contracted table's checked columns."""
    import pandera.polars as pa
    import polars as pl

    contract = CONTRACTS[table]
    columns: dict[str, Any] = {}
    for name in contract.checked:
        column = contract.columns[name]
        dtype: Any = (
            pl.Datetime("us", "UTC")
            if column.type == "timestamp with time zone"
            # numeric(20,2) is read as text like any numeric
            else getattr(pl, _POLARS[column.type.split("(")[0]])
        )
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
