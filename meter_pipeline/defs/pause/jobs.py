"""Jobs that people start: raise the pause, request to resume, confirm; and the pruning of Dagster's own storage.

They are not in the pause's pool, because they must run during a pause.
"""

from datetime import datetime, timedelta
from typing import Final

import dagster as dg
from pydantic import Field

from meter_pipeline.control import pause
from meter_pipeline.control.people import Refused
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.pause_pool import open_or_shut
from meter_pipeline.defs.lib.people import acting
from meter_pipeline.defs.lib.resources import Municipality


class RaisePause(dg.Config):
    """Person, reason and scope of a pause."""

    raised_by: str = Field(description="Your name in the register of people.")
    reason: str = Field(description="What you saw.")
    commodity: str = Field(default="", description="Only electricity, water or gas; empty for all.")
    head_end: str = Field(default="", description="Only this head-end; empty for all.")


class RequestResume(dg.Config):
    """Person, reason and checks of a request to resume."""

    requested_by: str = Field(description="Your name in the register of people.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="Why work may go on.")
    verified_ledger: str = Field(description="What you verified of the ledger.")
    verified_control_totals: str = Field(description="What you verified of the control totals.")
    verified_dead_letters: str = Field(description="What you verified of the dead letters.")
    commodity: str = Field(default="", description="The pause of this commodity.")
    head_end: str = Field(default="", description="The pause of this head-end.")
    hours: float = Field(default=8.0, description="How long the request may wait for the second person.")


class ConfirmResume(dg.Config):
    """The second person's confirmation."""

    request: int = Field(description="Number of the request, from the status or the run that asked.")
    confirmed_by: str = Field(description="Your name in the register of people; not the one who asked.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="What you looked at before you confirmed.")


def _scope(commodity: str, head_end: str) -> pause.Scope:
    if commodity and head_end:
        raise dg.Failure("give a commodity or a head-end, not both", allow_retries=False)
    try:
        if commodity:
            return pause.Scope("commodity", commodity)
        return pause.Scope("head_end", head_end) if head_end else pause.ALL
    except ValueError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


@dg.op(out=dg.Out(dg.Nothing))
def raise_the_pause(context: dg.OpExecutionContext, config: RaisePause, municipality: Municipality) -> None:
    """Raise EMERGENCY_PAUSE."""
    try:
        state = pause.raise_pause(
            municipality.database(),
            reason=config.reason,
            by=config.raised_by,
            scope=_scope(config.commodity, config.head_end),
            clock=municipality.clock(),
        )
    except Refused as refusal:
        raise dg.Failure(str(refusal), metadata={"code": refusal.code}, allow_retries=False) from refusal
    open_or_shut(context.instance, municipality)
    context.log.info(state.words())
    context.add_output_metadata({"pause": state.pause_id or 0, "state": state.words()})


@dg.op(out=dg.Out(dg.Nothing))
def ask_to_resume(context: dg.OpExecutionContext, config: RequestResume, municipality: Municipality) -> None:
    """Request to resume, with the checks made."""
    checklist = {
        "ledger": config.verified_ledger,
        "control_totals": config.verified_control_totals,
        "dead_letters": config.verified_dead_letters,
    }
    try:
        database = municipality.acting_as(policy.PEOPLE_ROLE).database()
        person = acting(municipality, ("resume", "pause"), config.requested_by, config.code, pause.RESUME.ask)
        pending = pause.request_resume(
            database,
            reason=config.reason,
            by=person,
            checklist=checklist,
            scope=_scope(config.commodity, config.head_end),
            life=timedelta(hours=config.hours),
            clock=municipality.clock(),
        )
    except Refused as refusal:
        raise dg.Failure(str(refusal), metadata={"code": refusal.code}, allow_retries=False) from refusal
    words = f"Request {pending.request_id} by {pending.requested_by}: a second person confirms it before {pending.expires_at:%Y-%m-%d %H:%M} UTC."
    context.log.info(words)
    context.add_output_metadata({"request": pending.request_id, "state": words})


@dg.op(out=dg.Out(dg.Nothing))
def confirm_the_resume(context: dg.OpExecutionContext, config: ConfirmResume, municipality: Municipality) -> None:
    """Confirm a resume as the second person."""
    try:
        database = municipality.acting_as(policy.PEOPLE_ROLE).database()
        about = ("resume", f"request:{config.request}")
        person = acting(municipality, about, config.confirmed_by, config.code, pause.RESUME.confirm)
        ended = pause.confirm_resume(
            database, config.request, by=person, reason=config.reason, clock=municipality.clock()
        )
    except Refused as refusal:
        raise dg.Failure(str(refusal), metadata={"code": refusal.code}, allow_retries=False) from refusal
    open_or_shut(context.instance, municipality)
    words = f"Pause {ended.pause_id} is over; held work goes on by itself."
    context.log.info(words)
    context.add_output_metadata({"pause": ended.pause_id, "state": words})


@dg.job(
    executor_def=dg.in_process_executor,
    description="EMERGENCY_PAUSE: no new batch starts; batches being written commit.",
)
def raise_emergency_pause() -> None:
    raise_the_pause()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Request the end of the pause, with the checks made and the reason.",
)
def request_resume() -> None:
    ask_to_resume()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Confirm a resume as the second person, in finance. Held work goes on by itself.",
)
def confirm_resume() -> None:
    confirm_the_resume()


#: Events of runs older than this go; what was materialised stays.
KEEP_EVENTS_DAYS: Final = 90


class Prune(dg.Config):
    """Age from which Dagster's events are deleted."""

    keep_days: int = Field(default=KEEP_EVENTS_DAYS, ge=1, description="Days of event log kept whole.")


@dg.op(out=dg.Out(dg.Nothing))
def prune_storage(context: dg.OpExecutionContext, config: Prune, municipality: Municipality) -> None:
    """Delete step and engine events of old finished runs. Runs, materialisations, observations and check results are
    kept."""
    from meter_pipeline.postgres.dagster_storage import prune

    before: datetime = municipality.clock().now() - timedelta(days=config.keep_days)
    done = prune(municipality.database(), before)
    context.log.info("kept from %s on: %s", before.date(), done)
    context.add_output_metadata(done)


@dg.job(
    executor_def=dg.in_process_executor,
    description="Prunes Dagster's event log and ticks; materialisations and check results are kept.",
)
def prune_dagster_storage() -> None:
    prune_storage()


prune_nightly = dg.ScheduleDefinition(
    name="prune_nightly",
    job=prune_dagster_storage,
    cron_schedule="40 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

JOBS: Final = (raise_emergency_pause, request_resume, confirm_resume, prune_dagster_storage)
