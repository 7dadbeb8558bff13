"""Leaving the legacy batch: the shadow, the comparison with its gate, and the bills given their authority. A billing
day at a time."""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from meter_pipeline.control.flags import read
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.stage_asset import stage_asset
from meter_pipeline.schemas.report import StageReport

#: A day that closed longer ago than this is replayed, not compared live.
LIVE_WITHIN = timedelta(hours=60)


def _stage(municipality: Municipality) -> dict[str, Any]:
    from meter_pipeline.control.migration_stage import STAGE

    with municipality.database().connect("migration stage", autocommit=True) as connection:
        return dict(read(connection, STAGE).value)


def _shadow_billing(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.migration import shadow

    stage = _stage(municipality)["stage"]
    if stage != "shadow":
        return StageReport(rows=0, figures={"not run": f"the stage is {stage}: the shadow runs in shadow alone"})
    settings = municipality.settings()
    # In the shadow's role whatever the deployment's roles: that the rest is out of reach is what shadow means.
    done = shadow.run_day(
        municipality.database(),
        municipality.calendar(),
        day,
        settings=settings,
        clock=municipality.clock(),
        run_id=run_id,
    )
    return done.report()


def shadow_billing() -> dg.AssetsDefinition:
    """The pipeline whole, where it can do no harm."""
    return stage_asset(
        "shadow_billing",
        _shadow_billing,
        group=policy.MIGRATION,
        description=(
            "Every stage of the day run beside the legacy batch, in a database of its own. The role it acts in cannot write anything that counts: "
            "PostgreSQL refuses it."
        ),
        deps=["feed_files", ("reference", "agreements")],
        checks={},
        table="billing.charge_day",
        blocking=False,
        daily=False,
    )


def _migration_comparison(municipality: Municipality, day: date, run_id: str) -> StageReport:
    import polars as pl

    from meter_pipeline.migration.day import compare_billing_day, gate
    from meter_pipeline.migration.page import write_page
    from meter_pipeline.migration.plots import gate_plot

    database, clock = municipality.database(), municipality.clock()
    closed = municipality.calendar().bounds(day)[1]
    report = compare_billing_day(
        database, day, mode="live" if clock.now() - closed <= LIVE_WITHIN else "replay", clock=clock
    ).report()
    state = gate(database, clock=clock)
    page = write_page(database, state, _stage(municipality), municipality.settings().home / "reports")
    conditions = pl.DataFrame(
        [{"met": c.met, "condition": c.name, "have": c.have, "need": c.need} for c in state.conditions]
    )
    report.figures = {
        **report.figures,
        "gate": "green" if state.green else "shut",
        "gate report": state.sha256,
        "error bound (3/n)": "none" if state.error_bound is None else f"{state.error_bound:.2e}",
        "gate page": dg.MetadataValue.url(page.as_uri()),
    }
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
        deps=["reconciled_billing", "shadow_billing"],
        checks={"nothing_unexplained": "No figure differs from the legacy batch's without an explanation."},
        table="migration.comparison",
        blocking=False,
        daily=False,
    )


def _published_bills(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.migration.dual_write import publish_billing_day

    return publish_billing_day(
        municipality.acting_as(policy.MIGRATION_ROLE).database(), day, clock=municipality.clock()
    ).report()


def published_bills() -> dg.AssetsDefinition:
    """Whose bill each account's day is, and the other side's copy."""
    return stage_asset(
        "published_bills",
        _published_bills,
        group=policy.MIGRATION,
        description=(
            "Each account's bill of the day with the one side that has authority over it, read in the transaction that records it, and a copy for the other "
            "side in the outbox. Nothing in off and shadow."
        ),
        deps=["reconciled_billing", "statements", "migration_comparison"],
        checks={"both_sides_get_every_bill": "Every bill is on its side and on its way to the other."},
        table="migration.authority",
        daily=False,
    )
