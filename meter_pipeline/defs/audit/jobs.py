"""The ledger's housekeeping: its guards compared with their manifest on a schedule.

Not in the pause's pool: guards are looked at while everything else is held, because that is when people put their hands
on a database.
"""

from typing import Final

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.deployment import roles_in_use


@dg.op(out=dg.Out(dg.Nothing))
def compare_the_guards(context: dg.OpExecutionContext, municipality: Municipality) -> None:
    """Compare owners, grants, triggers, policies (and the roles' rights, where the deployment uses roles) with what
    they must be; say so in the ledger.

    A deviation is handed to the pause's rules, as for a ledger that does not verify, and fails the run, which alarms.
    """
    from meter_pipeline.control.watch import observe_ledger, watch
    from meter_pipeline.ledger.privileges import scheduled_check

    clock = municipality.clock()
    database = municipality.acting_as(policy.ROLES[policy.AUDIT]).database()
    found = scheduled_check(database, roles=roles_in_use(), clock=clock)
    context.add_output_metadata({"deviations": len(found.deviations), "logins no guard binds": ", ".join(found.bypass)})
    if found.ok:
        context.log.info("The guards match the manifest.")
        return
    words = "guards: " + "; ".join(found.deviations)
    with database.connect("guards check") as connection:
        observe_ledger(connection, ok=False, detail=words, clock=clock)
        connection.commit()
    watch(municipality.database(), clock=clock)
    raise dg.Failure(
        words[:2000],
        metadata={"deviations": dg.MetadataValue.md("\n".join(f"- {one}" for one in found.deviations[:50]))},
        allow_retries=False,
    )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Compares the ledger's guards with their manifest; a deviation raises the emergency pause.",
)
def check_ledger_guards() -> None:
    compare_the_guards()


check_guards_hourly = dg.ScheduleDefinition(
    name="check_guards_hourly",
    job=check_ledger_guards,
    cron_schedule="25 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

JOBS: Final = (check_ledger_guards,)
