"""``meter-pipeline pause``: the emergency pause from the shell."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, emit, problem, table
from meter_pipeline.control import pause as emergency
from meter_pipeline.control.people import Refused
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(help="Stop all work at the next batch, and start it again with two people.", no_args_is_help=True)

By = Annotated[
    str,
    typer.Option(
        "--by",
        help="Who you are, as in the register of people. Default: the login name.",
        default_factory=getpass.getuser,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Commodity = Annotated[str | None, typer.Option("--commodity", help="Only electricity, water or gas.")]
HeadEnd = Annotated[str | None, typer.Option("--head-end", help="Only what comes from this head-end.")]


def _database() -> Database:
    return open_database(load_settings())


def _tell_queue(database: Database) -> None:
    """Give the pool its limit at once where Dagster is deployed here; the sensor does it within seconds anyway, so no
    failure of this matters."""
    with database.connect("pause", autocommit=True) as connection:
        deployed = connection.execute("SELECT to_regclass('dagster.concurrency_limits') IS NOT NULL").fetchone()
    if deployed is None or not deployed[0]:
        return
    try:
        from dagster import DagsterInstance

        from meter_pipeline.defs.lib.pause_pool import open_or_shut
        from meter_pipeline.defs.lib.resources import Municipality
        from meter_pipeline.deployment import environment

        os.environ.update(environment(load_settings(), database))
        with DagsterInstance.get() as instance:
            open_or_shut(instance, Municipality())
    except Exception as error:  # whatever it is: the flag is committed, and that is what holds or frees the work
        ERR.print(
            f"Dagster's queue was not told ({type(error).__name__}); its sensor does that within seconds.",
            highlight=False,
        )


def _scope(commodity: str | None, head_end: str | None) -> emergency.Scope:
    if commodity and head_end:
        raise typer.BadParameter("give --commodity or --head-end, not both")
    try:
        if commodity:
            return emergency.Scope("commodity", commodity)
        return emergency.Scope("head_end", head_end) if head_end else emergency.ALL
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _acting(database: Database, action: str, subject: str, by: str, duties: Sequence[str]) -> str:
    """Who decides, entitled and proven. Raising a pause asks for no proof: a wrong one costs minutes."""
    from meter_pipeline.cli.identity import acting

    return acting(database, action, subject, by, duties)


def _refused(refusal: Refused, as_json: bool) -> None:
    if as_json:
        emit({"refused": refusal.code, "detail": str(refusal)}, True)
        raise typer.Exit(1)
    problem(str(refusal), "meter-pipeline pause status")


@app.command("raise")
def raise_(
    reason: Annotated[str, typer.Option("--reason", help="What you saw.")],
    by: By,
    commodity: Commodity = None,
    head_end: HeadEnd = None,
    as_json: AsJson = False,
) -> None:
    """Raise the pause: no batch starts from now on, what is in flight commits.

    Example: meter-pipeline pause raise --reason "water reads ten times too high since 02:00" --commodity water
    """
    scope = _scope(commodity, head_end)
    try:
        state = emergency.raise_pause(_database(), reason=reason, by=by, scope=scope)
    except Refused as refusal:
        _refused(refusal, as_json)
        return
    document = {
        "paused": True,
        "pause": state.pause_id,
        "scope": scope.kind,
        "target": scope.target,
        "raised_at": state.raised_at,
        "words": state.words(),
    }
    emit(document, as_json, lambda d: OUT.print(d["words"], highlight=False, markup=False))
    _tell_queue(_database())


@app.command()
def status(
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 while a pause is in force, for scripts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether work is paused, why, since when, and what it waits for.

    Example: meter-pipeline pause status
    """
    with _database().connect("pause-status", autocommit=True) as connection:
        document = emergency.status(connection)
    emit(document, as_json, _render_status)
    if document["paused"] and exit_code:
        raise typer.Exit(1)


@app.command("request-resume")
def request_resume(
    reason: Annotated[str, typer.Option("--reason", help="Why work may go on.")],
    ledger: Annotated[str, typer.Option("--ledger", help="What you verified of the ledger.")],
    control_totals: Annotated[str, typer.Option("--control-totals", help="What you verified of the control totals.")],
    dead_letters: Annotated[str, typer.Option("--dead-letters", help="What you verified of the dead letters.")],
    by: By,
    commodity: Commodity = None,
    head_end: HeadEnd = None,
    hours: Annotated[float, typer.Option("--hours", help="How long the request may wait for its confirmation.")] = 8.0,
    as_json: AsJson = False,
) -> None:
    """Ask to resume; a second person in finance confirms.

    Example: meter-pipeline pause request-resume --reason "head-end fixed" --ledger "verified to 4711" --control-totals
    "all files balance"
    --dead-letters "12, replayed"
    """
    checklist = {"ledger": ledger, "control_totals": control_totals, "dead_letters": dead_letters}
    database = _database()
    try:
        person = _acting(database, "resume", "pause", by, emergency.RESUME.ask)
        pending = emergency.request_resume(
            database,
            reason=reason,
            by=person,
            checklist=checklist,
            scope=_scope(commodity, head_end),
            life=timedelta(hours=hours),
        )
    except Refused as refusal:
        _refused(refusal, as_json)
        return
    document = {
        "request": pending.request_id,
        "subject": pending.subject,
        "requested_by": pending.requested_by,
        "expires_at": pending.expires_at,
        "digest": pending.digest,
    }
    emit(
        document,
        as_json,
        lambda d: OUT.print(
            f"Request {d['request']}.\nNext: a second person runs  meter-pipeline pause confirm-resume {d['request']} --by NAME"
        ),
    )


@app.command("confirm-resume")
def confirm_resume(
    request: Annotated[int, typer.Argument(help="The request's number, from `pause status`.")],
    by: By,
    reason: Annotated[str, typer.Option("--reason", help="What you looked at before you confirmed.")] = "confirmed",
    as_json: AsJson = False,
) -> None:
    """Confirm a resume as the second person; held work goes on by itself.

    Example: meter-pipeline pause confirm-resume 1 --by ben --reason "totals balance, ledger verified"
    """
    database = _database()
    try:
        person = _acting(database, "resume", f"request:{request}", by, emergency.RESUME.confirm)
        ended = emergency.confirm_resume(database, request, by=person, reason=reason)
    except Refused as refusal:
        _refused(refusal, as_json)
        return
    document = {"resumed": True, "pause": ended.pause_id, "request": request, "resumed_at": ended.resumed_at}
    emit(document, as_json, lambda d: OUT.print(f"Pause {d['pause']} is over; held work goes on by itself."))
    _tell_queue(_database())


@app.command("decline-resume")
def decline_resume(
    request: Annotated[int, typer.Argument(help="The request's number, from `pause status`.")],
    reason: Annotated[str, typer.Option("--reason", help="Why not.")],
    by: By,
    as_json: AsJson = False,
) -> None:
    """Say no to a request to resume, or take your own back.

    Example: meter-pipeline pause decline-resume 1 --by ben --reason "two files still open"
    """
    database = _database()
    try:
        duties = (*emergency.RESUME.ask, *emergency.RESUME.confirm)
        person = _acting(database, "resume", f"request:{request}", by, duties)
        emergency.decline_resume(database, request, by=person, reason=reason)
    except Refused as refusal:
        _refused(refusal, as_json)
        return
    emit(
        {"declined": True, "request": request},
        as_json,
        lambda d: OUT.print(f"Request {d['request']} is declined; the pause stays."),
    )


def _render_status(document: dict[str, Any]) -> None:
    OUT.print(
        document["words"], style="bold red" if document["paused"] else "bold green", highlight=False, markup=False
    )
    for one in document["active"]:
        if one["evidence"]:
            OUT.print(table(f"Evidence of pause {one['pause']}", ["what", "figure"], list(one["evidence"].items())))
        if one["further_evidence"]:
            rows = [[e["raised_at"], e["rule"] or e["raised_by"], e["reason"]] for e in one["further_evidence"]]
            OUT.print(table("Further evidence since", ["when", "by", "reason"], rows))
    for pending in document["pending"]:
        title = f"Request {pending['request']} by {pending['requested_by']}: {pending['reason']}"
        OUT.print(table(title, ["checked", "found"], list(pending["checklist"].items())))
        OUT.print(
            f"Next: a second person runs  meter-pipeline pause confirm-resume {pending['request']} --by NAME",
            highlight=False,
        )
    if document["refusals"]:
        rows = [[r["refused_at"], r["action"], r["actor"], r["detail"]] for r in document["refusals"][:5]]
        OUT.print(table("Latest refusals", ["when", "action", "who", "why"], rows))
    if not document["finance_registered"]:
        OUT.print(
            "No one in the register has the duty finance yet: any two different people may resume.",
            style="yellow",
            highlight=False,
        )
