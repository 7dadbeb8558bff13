"""Leaving the legacy batch, from the Launchpad: status, the gate, steps and their second signature, rollback, delivery;
and the sensor that rolls back.

None of these is in the pause's pool: a rollback must run while everything else is held.
"""

from typing import Any, Final

import dagster as dg
from pydantic import Field

from meter_pipeline.control import decisions
from meter_pipeline.control.people import Refused
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.people import acting
from meter_pipeline.defs.lib.resources import Municipality


class Step(dg.Config):
    """A step of the migration; with ``report`` it is asked for, and a second person confirms it."""

    stage: str = Field(description="shadow, dual_write, live, ramp_down or complete.")
    by: str = Field(description="Your name in the register of people.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="Why, for the record.")
    routes: list[str] = Field(default_factory=list, description="Routes whose accounts are on the new side.")
    basis_points: int = Field(default=0, description="Share of accounts on the new side, hundredths of a percent.")
    report: str = Field(default="", description="Hash of the green gate report, for a step that two people sign.")


class Confirm(dg.Config):
    """The second signature."""

    request: int = Field(description="Number of the request, from the run that asked.")
    report: str = Field(description="Hash of the gate report you looked at.")
    by: str = Field(description="Your name in the register of people; not the one who asked.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="What you looked at before you signed.")


class RollbackConfig(dg.Config):
    """A rollback, by one person, at once."""

    by: str = Field(description="Your name in the register of people.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="What you saw.")
    to: str = Field(default="dual_write", description="dual_write or shadow.")


@dg.op(out=dg.Out(dg.Nothing))
def take_a_step(context: dg.OpExecutionContext, config: Step, municipality: Municipality) -> None:
    """Take a step, or ask for one that two people sign."""
    from meter_pipeline.migration import cutover, shadow

    if config.stage == "shadow" and not shadow.exists(municipality.database()):
        # Making a database and granting in it is the deployment's right and no service's.
        raise dg.Failure(
            "there is no shadow database yet: take this step once with `meter-pipeline migrate advance shadow`",
            allow_retries=False,
        )
    database, clock = municipality.acting_as(policy.PEOPLE_ROLE).database(), municipality.clock()
    value: dict[str, Any] = {
        "stage": config.stage,
        "routes": sorted(config.routes),
        "basis_points": config.basis_points,
    }
    try:
        by = acting(municipality, ("cut_over", f"stage {config.stage}"), config.by, config.code, cutover.CUT_OVER.ask)
        if config.report:
            pending = cutover.request_step(database, value, config.report, by=by, reason=config.reason, clock=clock)
            context.add_output_metadata(
                {
                    "request": pending.request_id,
                    "state": f"A second person confirms request {pending.request_id} over {config.report}.",
                }
            )
            return
        now = cutover.step(database, value, by=by, reason=config.reason, clock=clock)
    except Refused as refused:
        raise dg.Failure(str(refused), metadata={"code": refused.code}, allow_retries=False) from refused
    context.add_output_metadata({"stage": str(now.value["stage"]), "version": now.version})


@dg.op(out=dg.Out(dg.Nothing))
def sign_a_step(context: dg.OpExecutionContext, config: Confirm, municipality: Municipality) -> None:
    """Sign as the second person, over the same report."""
    from meter_pipeline.migration import cutover

    database = municipality.acting_as(policy.PEOPLE_ROLE).database()
    try:
        about = ("cut_over", f"request:{config.request}")
        by = acting(municipality, about, config.by, config.code, cutover.CUT_OVER.confirm)
        now = cutover.confirm_step(
            database, config.request, config.report, by=by, reason=config.reason, clock=municipality.clock()
        )
    except Refused as refused:
        raise dg.Failure(str(refused), metadata={"code": refused.code}, allow_retries=False) from refused
    context.add_output_metadata({"stage": str(now.value["stage"]), "version": now.version})


@dg.op(out=dg.Out(dg.Nothing))
def go_back(context: dg.OpExecutionContext, config: RollbackConfig, municipality: Municipality) -> None:
    """Give authority back to the legacy side; both sides go on being written."""
    from meter_pipeline.migration.rollback import roll_back

    try:
        by = acting(municipality, ("rollback", "migration"), config.by, config.code, decisions.WORK)
    except Refused as refused:
        raise dg.Failure(str(refused), metadata={"code": refused.code}, allow_retries=False) from refused
    database = municipality.acting_as(policy.MIGRATION_ROLE).database()
    done = roll_back(database, [config.reason], by=by, to=config.to, clock=municipality.clock())
    if done is None:
        raise dg.Failure("the legacy side has authority already", allow_retries=False)
    context.add_output_metadata(
        {"from": str(done.before["stage"]), "to": str(done.after["stage"]), "seconds": round(done.seconds, 4)}
    )


@dg.op(out=dg.Out(dg.Nothing))
def weigh_the_gate(context: dg.OpExecutionContext, municipality: Municipality) -> None:
    """Stage, gate, page and outbox as they stand."""
    from meter_pipeline.migration import cutover, tables
    from meter_pipeline.migration.day import gate
    from meter_pipeline.migration.page import write_page

    database, clock = municipality.acting_as(policy.ROLES[policy.MIGRATION]).database(), municipality.clock()
    report = gate(database, clock=clock)
    value = cutover.peek(database)
    page = write_page(database, report, value.value, municipality.settings().home / "reports")
    with database.connect("migration status", autocommit=True) as connection:
        outbox = tables.outbox_counts(connection)
    open_ones = ", ".join(f"{c.name}: {c.have}" for c in report.conditions if not c.met)
    context.add_output_metadata(
        {
            "stage": str(value.value["stage"]),
            "gate": "green" if report.green else "shut",
            "gate report": report.sha256,
            "open": open_ones or "nothing",
            "gate page": dg.MetadataValue.url(page.as_uri()),
            **{f"outbox {name}": count for name, count in outbox.items()},
        }
    )


@dg.op(out=dg.Out(dg.Nothing))
def deliver_the_outbox(context: dg.OpExecutionContext, municipality: Municipality) -> None:
    """Deliver everything that waits for the other side."""
    context.add_output_metadata(_deliver(municipality))


def _deliver(municipality: Municipality) -> dict[str, int]:
    from meter_pipeline.migration.dual_write import deliver_all
    from meter_pipeline.migration.sides import configured

    database, clock = municipality.acting_as(policy.MIGRATION_ROLE).database(), municipality.clock()
    return deliver_all(database, configured(database, municipality.settings(), clock=clock), clock=clock)


@dg.job(
    executor_def=dg.in_process_executor, description="Stage, gate and outbox of the migration, with the gate's page."
)
def migrate_status() -> None:
    weigh_the_gate()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Take a step of the migration, or ask for one that two people sign over a green report.",
)
def migrate_advance() -> None:
    take_a_step()


@dg.job(
    executor_def=dg.in_process_executor, description="Sign a step of the migration as the second person, in finance."
)
def migrate_confirm() -> None:
    sign_a_step()


@dg.job(executor_def=dg.in_process_executor, description="Give authority back to the legacy side immediately.")
def migrate_rollback() -> None:
    go_back()


@dg.job(executor_def=dg.in_process_executor, description="Deliver what waits for the other side.")
def migrate_deliver() -> None:
    deliver_the_outbox()


compare_job = dg.define_asset_job(
    "migrate_compare",
    selection=dg.AssetSelection.assets("shadow_billing", "migration_comparison", "published_bills"),
    executor_def=dg.in_process_executor,
    description="A billing day beside the legacy batch: the shadow where the stage is shadow, the comparison and the gate, authority and outbox.",
)


@dg.sensor(
    name="migration_guard",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Rolls a live migration back by itself when any trigger is pulled, and delivers the outbox.",
)
def migration_guard(context: dg.SensorEvaluationContext, municipality: Municipality) -> dg.SkipReason:
    """One round of the guard, then the delivery of records that wait for the other side."""
    from meter_pipeline.control.migration_stage import writes_new
    from meter_pipeline.migration import cutover
    from meter_pipeline.migration.guard import GUARDED, guard

    database = municipality.acting_as(policy.MIGRATION_ROLE).database()
    stage = str(cutover.peek(database).value["stage"])
    if not writes_new(stage):
        return dg.SkipReason(
            f"The stage is {stage}: the legacy side has authority over every account, and there is nothing to deliver."
        )
    done = guard(database, municipality.calendar(), clock=municipality.clock()) if stage in GUARDED else None
    delivery = _deliver(municipality)
    words = f"delivered {delivery['delivered']}, waiting {delivery['legacy_waiting']} for legacy and {delivery['new_waiting']} for us"
    if done is not None:
        return dg.SkipReason(
            f"ROLLED BACK from {done.before['stage']} in {done.seconds:.3f} s: {'; '.join(done.reasons)[:1200]}; {words}"
        )
    return dg.SkipReason(f"Stage {stage}, no trigger pulled; {words}.")


JOBS: Final = (migrate_status, migrate_advance, migrate_confirm, migrate_rollback, migrate_deliver, compare_job)
SENSORS: Final = (migration_guard,)
