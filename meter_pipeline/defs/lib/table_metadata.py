"""Metadata of an asset's table before its first run: columns with their meaning, and the source of each column."""

import re
from typing import Any, Final

import dagster as dg

from meter_pipeline.schemas.contracts import CONTRACTS
from meter_pipeline.schemas.reference import TABLES

#: The asset that writes a table, for column lineage. Reference tables are assets of their own.
ASSET_OF: Final = {
    "raw.feed_file": "feed_files",
    "raw.pull_request": "pulled_days",
    "raw.interval_day": "raw_reads",
    "raw.register_read": "raw_reads",
    "vee.interval_day": "validated_intervals",
    "vee.register_day": "validated_intervals",
    "vee.daily_usage": "daily_usage",
    "anomaly.weather_day": "weather",
    "anomaly.temperature": "weather",
    "anomaly.baseline": "baselines",
    "anomaly.flag": "anomaly_flags",
    "billing.determinant_day": "reconciled_billing",
    "billing.charge_day": "reconciled_billing",
    "billing.reconciliation": "reconciled_billing",
    "billing.statement": "statements",
    "billing.statement_line": "statements",
    "billing.period": "month_end_close",
    "ledger.checkpoint": "ledger_checkpoint",
    "ledger.leaf": "ledger_before_billing",
    "migration.comparison": "migration_comparison",
}
_COLUMN: Final = re.compile(r"^(\w+\.\w+)\.(\w+)$")


def asset_of(table: str) -> dg.AssetKey | None:
    """The asset that a table belongs to; None for one that no asset writes."""
    schema, _, name = table.partition(".")
    if schema == "ref" and name in TABLES:
        return dg.AssetKey(["reference", name])
    return dg.AssetKey(ASSET_OF[table]) if table in ASSET_OF else None


def table_metadata(table: str) -> dict[str, Any]:
    """Table name, column schema and column lineage of a contracted table. Lineage is a table in words too: the
    open-source UI draws none."""
    contract = CONTRACTS[table]
    schema = dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                column.type,
                description=column.about,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for name, column in contract.columns.items()
        ]
    )
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for name, sources in contract.lineage.items():
        for source in sources:
            found = _COLUMN.match(source)
            key = asset_of(found[1]) if found else None
            if found and key is not None:
                deps.setdefault(name, []).append(dg.TableColumnDep(key, found[2]))
    lines = [f"| {name} | {', '.join(sources)} |" for name, sources in contract.lineage.items()]
    return {
        "dagster/table_name": f"meter_pipeline.{table}",
        "dagster/column_schema": schema,
        "dagster/column_lineage": dg.TableColumnLineage(deps),
        "column lineage": dg.MetadataValue.md("\n".join(["| column | comes from |", "| --- | --- |", *lines])),
    }
