"""The check that a day's rows keep their table's contract: blocking, with the expected and the found."""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.check_results import result_of_days
from meter_pipeline.defs.lib.partitions import billing_days
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.contracts import CONTRACTS, pandera_schema


def schema_check(asset: str, table: str) -> dg.AssetChecksDefinition:
    """A blocking check that a day's rows of ``table`` keep its contract: columns, types, bounds, key."""
    contract = CONTRACTS[table]

    @dg.asset_check(
        asset=asset,
        name=f"schema_of_{table.replace('.', '_')}",
        description=f"{table} holds {contract.row}: columns, types, bounds and key as contracted.",
        blocking=True,
        partitions_def=billing_days(),
        pool=policy.POOL,
    )
    def check(context: dg.AssetCheckExecutionContext, municipality: Municipality) -> dg.AssetCheckResult:
        database = municipality.acting_as(policy.CHECK_ROLE).database()
        keys = list(context.op_execution_context.partition_keys)
        results = {key: evaluate(database, table, date.fromisoformat(key)) for key in keys}
        return result_of_days(context, asset, f"schema_of_{table.replace('.', '_')}", results, blocking=True)

    return check


def evaluate(
    database: Database, table: str, first: date, past: date | None = None, dated: str = "billing_day"
) -> dg.AssetCheckResult:
    """Validate the rows of a contracted table whose ``dated`` lies in [first, past), one day where ``past`` is left
    out."""
    import pandera.errors
    import polars as pl

    contract = CONTRACTS[table]
    schema = pandera_schema(table)
    columns = ", ".join(
        f"{name}::text AS {name}" if contract.columns[name].type.split("(")[0] in ("jsonb", "numeric") else name
        for name in contract.checked
    )
    within = [first, past or first + timedelta(days=1)]
    frame = database.read(f"SELECT {columns} FROM {table} WHERE {dated} >= $1 AND {dated} < $2", within)  # noqa: S608 - names from CONTRACTS
    figures: dict[str, Any] = {
        "rows": frame.height,
        "columns": dg.MetadataValue.table(
            records=[
                dg.TableRecord(
                    {
                        "column": name,
                        "expected": str(column.dtype),
                        "found": str(frame.schema.get(name)),
                        "meaning": contract.columns[name].about,
                    }
                )
                for name, column in schema.columns.items()
            ]
        ),
    }
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as wrong:
        cases = wrong.failure_cases
        figures["failures"] = cases.height
        shown = cases.head(20).select(pl.all().cast(pl.String))
        figures["first_failures"] = dg.MetadataValue.md("\n".join(f"- {row}" for row in shown.to_dicts()))
        return dg.AssetCheckResult(
            passed=False, description=f"{cases.height} rows or columns break the contract of {table}", metadata=figures
        )
    return dg.AssetCheckResult(
        passed=True, description=f"{frame.height} rows keep the contract of {table}", metadata=figures
    )
