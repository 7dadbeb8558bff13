"""Checks that stand beside the assets: one of each table's contract and billing day, blocking, with what was expected
and what was found; and the law of billing, of each day and month.
"""

from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.partitions import billing_days, billing_months
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.contracts import CONTRACTS, pandera_schema

if TYPE_CHECKING:
    from meter_pipeline.revenue_assurance.law import LawResult


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
        if len(keys) > 1:  # a range run would leave one row without a partition
            for key, result in results.items():
                context.op_execution_context.log_event(
                    dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # taken since 1.13, the annotation lags behind
                        asset_key=dg.AssetKey.from_coercible(asset),
                        check_name=f"schema_of_{table.replace('.', '_')}",
                        passed=result.passed,
                        metadata=dict(result.metadata),
                        description=result.description,
                        blocking=True,
                        partition=key,
                    )
                )
        return next((r for r in results.values() if not r.passed), results[keys[-1]])

    return check


def law_of_the_day() -> dg.AssetChecksDefinition:
    """A check of every billing day that all validated usage is billed, accrued or waiting for a reason. It does not
    block: one service that is unaccounted for stops no other bill, and a month with one cannot be sealed."""

    @dg.asset_check(
        asset="statements",
        name="usage_is_billed_accrued_or_waiting",
        description="Every validated unit of the day is on a bill, accrued, or waiting under a reason that people see; computed without billing's code.",
        blocking=False,
        partitions_def=billing_days(),
        pool=policy.POOL,
    )
    def check(context: dg.AssetCheckExecutionContext, municipality: Municipality) -> dg.AssetCheckResult:
        from meter_pipeline.revenue_assurance.law import keep_law_of_day

        database = municipality.acting_as(policy.ROLES[policy.BILLING]).database()
        keys = list(context.op_execution_context.partition_keys)
        results = {
            key: law_result(keep_law_of_day(database, date.fromisoformat(key), clock=municipality.clock()))
            for key in keys
        }
        if len(keys) > 1:  # a range run would leave one row without a partition
            for key, result in results.items():
                context.op_execution_context.log_event(
                    dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # taken since 1.13, the annotation lags behind
                        asset_key=dg.AssetKey("statements"),
                        check_name="usage_is_billed_accrued_or_waiting",
                        passed=result.passed,
                        metadata=dict(result.metadata),
                        description=result.description,
                        severity=dg.AssetCheckSeverity.ERROR,
                        partition=key,
                    )
                )
        return next((r for r in results.values() if not r.passed), results[keys[-1]])

    return check


def law_of_the_month() -> dg.AssetChecksDefinition:
    """The same of a month, where its close is taken."""

    @dg.asset_check(
        asset="month_end_close",
        name="usage_of_the_month_is_billed_accrued_or_waiting",
        description="Every validated unit of the month is on a bill, accrued, or waiting under a reason that people see; a month cannot be sealed otherwise.",
        blocking=False,
        partitions_def=billing_months(),
        pool=policy.POOL,
    )
    def check(context: dg.AssetCheckExecutionContext, municipality: Municipality) -> dg.AssetCheckResult:
        from meter_pipeline.revenue_assurance.law import law_of_month

        database = municipality.acting_as(policy.CHECK_ROLE).database()
        results = [
            law_result(law_of_month(database, date.fromisoformat(key)))
            for key in context.op_execution_context.partition_keys
        ]
        return next((r for r in results if not r.passed), results[-1])

    return check


def law_result(result: "LawResult") -> dg.AssetCheckResult:
    """The result of the law as Dagster shows it."""
    document = result.document()
    shown: dict[str, Any] = {"service_points": result.service_points, "days": result.days}
    for unit in document["totals"]:
        shown[f"usage, {unit['unit'] or 'none'}"] = (
            "{validated} = {billed} billed + {accrued} accrued + {waiting} waiting".format(**unit)
        )
    for name in ("open", "waiting"):
        lines = [
            f"- {r['billing_day']} {r['service_point_id']}: {r['validated']} {r['unit']}: {r['why']}"
            for r in document[name][:20]
        ]
        lines += [f"- {text}" for text in document[f"bills_{name}"][:20]]
        if lines:
            shown[name] = dg.MetadataValue.md("\n".join(lines))
    return dg.AssetCheckResult(passed=result.ok, description=result.sentence(), metadata=shown)


def evaluate(database: Database, table: str, day: date, dated: str = "billing_day") -> dg.AssetCheckResult:
    """Validate one day's rows of a contracted table; ``dated``: the column that says which."""
    import pandera.errors
    import polars as pl

    contract = CONTRACTS[table]
    schema = pandera_schema(table)
    columns = ", ".join(
        f"{name}::text AS {name}" if contract.columns[name].type in ("jsonb", "numeric") else name
        for name in contract.checked
    )
    frame = database.read(f"SELECT {columns} FROM {table} WHERE {dated} = $1", [day])  # noqa: S608 - names from CONTRACTS
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
