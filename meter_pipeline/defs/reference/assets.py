"""Reference data as assets: one per table, imported together, whole or not at all."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.report_metadata import image
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.schemas.reference_words import MEANINGS

#: Name of each table's check that compares every version of every row with the ledger.
LEAF_CHECK = "every_changed_row_has_its_ledger_leaf"
KEYS = {name: dg.AssetKey(["reference", name]) for name in TABLES}


def _columns(name: str) -> dg.TableSchema:
    table = TABLES[name]
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column,
                kind.rstrip("?"),
                constraints=dg.TableColumnConstraints(nullable=kind.endswith("?"), unique=table.key == (column,)),
                description=MEANINGS[name][column]
                + (f" (points to {table.references[column]})" if column in table.references else ""),
            )
            for column, kind in table.columns.items()
        ]
    )


@dg.multi_asset(
    name="reference_data",
    specs=[
        dg.AssetSpec(
            KEYS[name],
            group_name=policy.REFERENCE,
            description=f"{table.about} Effective-dated; imported whole from the municipality's folder, or refused whole.",
            metadata={"dagster/table_name": f"meter_pipeline.ref.{name}", "dagster/column_schema": _columns(name)},
        )
        for name, table in TABLES.items()
    ],
    check_specs=[
        dg.AssetCheckSpec(
            LEAF_CHECK,
            asset=key,
            description="No row changed without a ledger leaf: every version is hashed again and compared.",
        )
        for key in KEYS.values()
    ],
    pool=policy.POOL,
)
def reference_data(
    context: dg.AssetExecutionContext, municipality: Municipality, pause_guard: PauseGuard
) -> Iterator[dg.MaterializeResult[Any]]:
    """Import data/reference: every fault is named and one fault refuses the whole import."""
    from meter_pipeline.corrections.apply import import_folder
    from meter_pipeline.reference import ReferenceRefused, history, plots

    settings, database = municipality.settings(), municipality.database()
    folder, calendar = settings.data / "reference", settings.calendar()
    try:
        imported = import_folder(database, calendar, folder)
    except ReferenceRefused as refused:
        listed = "\n".join(f"- {fault}" for fault in refused.faults[:200])
        raise dg.Failure(
            description=f"{len(refused.faults)} faults in {folder}; nothing was imported",
            metadata={"faults": dg.MetadataValue.md(listed), "count": len(refused.faults)},
            allow_retries=False,
        ) from refused
    today = calendar.day_of(municipality.clock().now())
    with database.connect("reference versions") as connection:
        differing = history.unproven_by_table(connection)
        versions = {name: history.data_version(connection, name) for name in KEYS}
        changed = {name: history.changes_per_day(connection, name, calendar.zone) for name in KEYS}
    for name, key in KEYS.items():
        png = plots.changes(name, changed[name], today)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(versions[name]),
            metadata={
                "dagster/row_count": imported.rows.get(name, 0),
                "rows changed": imported.changed.get(name, 0),
                "billing days asked for": len(imported.days),
                **({"changes per day": image(png, f"{name}: rows changed a day")} if png else {}),
            },
            check_results=[
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name=LEAF_CHECK,
                    passed=not differing[name],
                    metadata={"differing": differing[name][:20]},
                )
            ],
        )
