"""Analysts' jobs on the exception queue: list, show, assign, confirm, dismiss from the Launchpad, with typed
configuration.

None of these is in the pause's pool: a decision changes no read and no bill, it only lets one go, and the run that
bills is in the pool.
"""

from typing import Any, Final

import dagster as dg
import polars as pl
from pydantic import Field

from meter_pipeline.anomalies import QueueError, decide, list_cases, plot_case, show_case
from meter_pipeline.control import decisions
from meter_pipeline.control.people import Refused
from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.people import acting
from meter_pipeline.defs.lib.report_metadata import image, table
from meter_pipeline.defs.lib.resources import Municipality

#: Rows of a list in metadata; the event log keeps each run's.
_MOST: Final = 50
_LISTED: Final = {
    "case_id": pl.String,
    "kind": pl.String,
    "subject": pl.String,
    "severity": pl.String,
    "state": pl.String,
    "assigned_to": pl.String,
    "first_day": pl.Date,
    "last_day": pl.Date,
    "days": pl.Int64,
    "hold": pl.Boolean,
}


class Filter(dg.Config):
    """Which cases: those that match everything given. At least one is needed for a decision."""

    cases: list[str] = Field(default=[], description="Case ids, as the list shows them.")
    kind: list[str] = Field(
        default=[], description="leak, leak_drift, burst, spike, tamper_fall, reverse, stuck, dropout_meter ..."
    )
    service_point: list[str] = Field(default=[], description="Service points.")
    commodity: list[str] = Field(default=[], description="electricity, water or gas.")
    severity: list[str] = Field(default=[], description="inform, warn or severe.")


class ListExceptions(Filter):
    """Which cases to list."""

    state: list[str] = Field(
        default=["open", "assigned"], description="open, assigned, confirmed, dismissed, expired; empty for all."
    )


class ShowException(dg.Config):
    """Which case to show."""

    case: str = Field(description="Case id, as the list shows it.")


class AssignExceptions(Filter):
    """Who takes which cases."""

    to: str = Field(description="Who takes them.")
    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)


class ConfirmExceptions(Filter):
    """Which findings are real."""

    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(default="", description="What was found.")


class DismissExceptions(Filter):
    """Which findings are none."""

    by: str = Field(description="Who you are.")
    code: str = Field(default="", description=policy.CODE)
    reason: str = Field(description="Why they are none.")


_Decision = AssignExceptions | ConfirmExceptions | DismissExceptions


def _filters(config: Filter) -> dict[str, Any]:
    given = {
        "case_id": config.cases,
        "kind": config.kind,
        "service_point_id": config.service_point,
        "commodity": config.commodity,
        "severity": config.severity,
    }
    return {name: value for name, value in given.items() if value}


@dg.op(out=dg.Out(dg.Nothing))
def list_exceptions(context: dg.OpExecutionContext, config: ListExceptions, municipality: Municipality) -> None:
    """The cases that match, newest first, and how many hold a bill."""
    filters = _filters(config) | ({"state": config.state} if config.state else {})
    with municipality.database().connect("exceptions", autocommit=True) as connection:
        found = list_cases(connection, filters)
    frame = pl.DataFrame([{k: case[k] for k in _LISTED} for case in found[:_MOST]], schema=_LISTED)
    metadata: dict[str, Any] = {"cases": len(found), "bills held": sum(bool(case["hold"]) for case in found)}
    context.add_output_metadata(metadata | ({"newest": table(frame)} if found else {}))


@dg.op(out=dg.Out(dg.Nothing))
def show_exception(context: dg.OpExecutionContext, config: ShowException, municipality: Municipality) -> None:
    """One case: its meaning, every flagged day with its evidence, and usage over expectation as a picture."""
    database = municipality.database()
    try:
        with database.connect("exceptions", autocommit=True) as connection:
            case = show_case(connection, config.case)
    except QueueError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    metadata: dict[str, Any] = {
        name: str(case[name]) for name in ("case_id", "about", "source", *tuple(_LISTED)[1:]) if case[name] is not None
    }
    rows = [
        (
            f["billing_day"],
            f["kind"],
            f["expected"],
            f["observed"],
            f["unit"],
            ", ".join(f"{k} {v}" for k, v in f["evidence"].items())[:500],
        )
        for f in case["flags"]
    ]
    if rows:
        metadata["flagged days"] = table(
            pl.DataFrame(rows, schema=["billing_day", "kind", "expected", "observed", "unit", "evidence"], orient="row")
        )
    try:
        metadata["usage"] = image(plot_case(database, municipality.calendar(), case), config.case)
    except QueueError as error:  # a case about a collector or a head-end has no usage of its own
        metadata["usage"] = str(error)
    context.add_output_metadata(metadata)


def _decide(
    context: dg.OpExecutionContext, municipality: Municipality, config: _Decision, decision: Any, **how: Any
) -> None:
    try:
        about = ("exceptions", ", ".join(config.cases) or "all that match")
        person = acting(municipality, about, config.by, config.code, decisions.WORK)
        with municipality.database().connect("exceptions") as connection:
            done = decide(connection, _filters(config), decision, by=person, clock=municipality.clock(), **how)
    except (QueueError, Refused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata(
        {
            "decision": decision,
            "cases": len(done.cases),
            "bills released": done.released,
            "which": ", ".join(done.cases[:_MOST]),
        }
    )


@dg.op(out=dg.Out(dg.Nothing))
def assign_exceptions(context: dg.OpExecutionContext, config: AssignExceptions, municipality: Municipality) -> None:
    """Assign cases to a person."""
    _decide(context, municipality, config, "assigned", to=config.to)


@dg.op(out=dg.Out(dg.Nothing))
def confirm_exceptions(context: dg.OpExecutionContext, config: ConfirmExceptions, municipality: Municipality) -> None:
    """The findings are real: holds are released, a bill that must change is changed by an adjustment."""
    _decide(context, municipality, config, "confirmed", reason=config.reason)


@dg.op(out=dg.Out(dg.Nothing))
def dismiss_exceptions(context: dg.OpExecutionContext, config: DismissExceptions, municipality: Municipality) -> None:
    """The findings are none: holds are released, the matter stays quiet for a while, the meter's thresholds widen."""
    _decide(context, municipality, config, "dismissed", reason=config.reason)


@dg.job(executor_def=dg.in_process_executor, description="The exception queue: what waits for a person, newest first.")
def exceptions_list() -> None:
    list_exceptions()


@dg.job(
    executor_def=dg.in_process_executor, description="One case of the exception queue with its evidence and a picture."
)
def exceptions_show() -> None:
    show_exception()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Assign cases of the exception queue to a person: some, or all that a filter finds.",
)
def exceptions_assign() -> None:
    assign_exceptions()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Confirm findings and release the bills they hold: some, or all that a filter finds.",
)
def exceptions_confirm() -> None:
    confirm_exceptions()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Dismiss findings and release the bills they hold: some, or all that a filter finds.",
)
def exceptions_dismiss() -> None:
    dismiss_exceptions()


JOBS: Final = (exceptions_list, exceptions_show, exceptions_assign, exceptions_confirm, exceptions_dismiss)
