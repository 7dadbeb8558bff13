"""Comparison with the legacy batch, a billing day at a time, and the state of the gate."""

from datetime import date

import dagster as dg

from meter_pipeline.defs import policy
from meter_pipeline.defs.resources import Municipality
from meter_pipeline.defs.stage import stage_asset
from meter_pipeline.schemas.report import StageReport


def _migration_comparison(municipality: Municipality, day: date, run_id: str) -> StageReport:
    import polars as pl

    from meter_pipeline.migration.day import compare_billing_day, gate
    from meter_pipeline.migration.plots import gate_plot

    database, clock = municipality.database(), municipality.clock()
    report = compare_billing_day(database, day, clock=clock).report()
    state = gate(database, clock=clock)
    conditions = pl.DataFrame([{"met": c.met, "condition": c.name, "have": c.have, "need": c.need} for c in state.conditions])
    report.figures = {**report.figures, "gate": "green" if state.green else "shut", "gate report": state.sha256}
    report.tables = {**report.tables, "gate": conditions}
    report.plots = {"gate": gate_plot(state)}
    return report


def migration_comparison() -> dg.AssetsDefinition:
    """Ours against the legacy batch's, figure by figure."""
    return stage_asset(
        "migration_comparison",
        _migration_comparison,
        group=policy.MIGRATION,
        description=(
            "Every account's reads, usage, determinants, lines and totals of the day beside the legacy batch's, each difference classified; and whether the "
            "gate of the cut-over is open. One unexplained difference sets its clock of 72 hours back to zero."
        ),
        deps=["reconciled_billing"],
        owners=policy.FINANCE,
        checks={"nothing_unexplained": "No figure differs from the legacy batch's without an explanation."},
        table="migration.comparison",
        kinds={"polars", "postgres"},
        blocking=False,
        daily=False,
    )
