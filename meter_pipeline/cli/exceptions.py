"""``meter-pipeline exceptions``: the queue of cases that wait for a person."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.deployment import prepare
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="The exception queue: list, show, assign, confirm, dismiss.")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Kind = Annotated[
    list[str] | None,
    typer.Option(help="leak, leak_drift, burst, spike, tamper_fall, reverse, stuck, dropout_meter ..."),
]
State = Annotated[list[str] | None, typer.Option(help="open, assigned, confirmed, dismissed, expired.")]
Point = Annotated[list[str] | None, typer.Option("--service-point", help="A service point.")]
Commodity = Annotated[list[str] | None, typer.Option(help="electricity, water or gas.")]
Severity = Annotated[list[str] | None, typer.Option(help="inform, warn or severe.")]
Assigned = Annotated[list[str] | None, typer.Option("--assigned-to", help="Who works on it.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; by default the login name.")]
Cases = Annotated[list[str] | None, typer.Argument(help="Case ids, as the list shows them.")]
Filtered = Annotated[
    bool, typer.Option("--all", help="Every undecided case that the filters find; needs at least one filter.")
]


def _filters(
    cases: list[str] | None,
    kind: list[str] | None,
    state: list[str] | None,
    point: list[str] | None,
    commodity: list[str] | None,
    severity: list[str] | None,
    assigned: list[str] | None,
) -> dict[str, Any]:
    given = {
        "case_id": cases,
        "kind": kind,
        "state": state,
        "service_point_id": point,
        "commodity": commodity,
        "severity": severity,
        "assigned_to": assigned,
    }
    return {name: value for name, value in given.items() if value}


@app.command("list")
def list_(
    kind: Kind = None,
    state: State = None,
    point: Point = None,
    commodity: Commodity = None,
    severity: Severity = None,
    assigned: Assigned = None,
    every: Annotated[bool, typer.Option("--all", help="Decided and expired ones too.")] = False,
    json: Json = False,
) -> None:
    """Cases, newest first; without --state those still undecided.

    Example: meter-pipeline exceptions list --kind leak --commodity water
    """
    from meter_pipeline.anomalies import list_cases

    filters = _filters(None, kind, state, point, commodity, severity, assigned)
    if not every:
        filters.setdefault("state", ["open", "assigned"])
    with prepare(load_settings()).connect("meter-pipeline exceptions") as connection:
        cases = list_cases(connection, filters)
    emit({"count": len(cases), "held": sum(1 for c in cases if c["hold"]), "cases": cases}, json, _show_list)


@app.command()
def show(
    case: Annotated[str, typer.Argument(help="Case id.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a PNG of usage over weather with the flagged days here.")
    ] = None,
    json: Json = False,
) -> None:
    """One case: what it means, and every flagged day with its evidence.

    Example: meter-pipeline exceptions show reverse-SP-W0000044-20261029 --plot case.png
    """
    from meter_pipeline.anomalies import QueueError, plot_case, show_case

    settings = load_settings()
    database = prepare(settings)
    try:
        with database.connect("meter-pipeline exceptions") as connection:
            found = show_case(connection, case)
        if plot is not None:
            plot.write_bytes(plot_case(database, settings.calendar(), found))
    except QueueError as error:
        problem(str(error), "meter-pipeline exceptions list --all shows their ids")
    emit(found, json, _show_case)


@app.command()
def assign(
    to: Annotated[str, typer.Option("--to", help="Who takes it.")],
    cases: Cases = None,
    kind: Kind = None,
    point: Point = None,
    commodity: Commodity = None,
    severity: Severity = None,
    every: Filtered = False,
    by: By = None,
    json: Json = False,
) -> None:
    """Assign cases to a person.

    Example: meter-pipeline exceptions assign --all --kind tamper_fall --to field-team
    """
    _decide("assigned", cases, kind, point, commodity, severity, every, by, "", to, json)


@app.command()
def confirm(
    cases: Cases = None,
    kind: Kind = None,
    point: Point = None,
    commodity: Commodity = None,
    severity: Severity = None,
    every: Filtered = False,
    reason: Annotated[str, typer.Option(help="What was found.")] = "",
    by: By = None,
    json: Json = False,
) -> None:
    """The finding is real. Releases a hold; a bill that must change is changed by an adjustment. A validation case goes
    on holding until the data are corrected.

    Example: meter-pipeline exceptions confirm reverse-SP-W0000044-20261029 --reason "turned round by the fitter"
    """
    _decide("confirmed", cases, kind, point, commodity, severity, every, by, reason, None, json)


@app.command()
def dismiss(
    reason: Annotated[str, typer.Option(help="Why it is none.")],
    cases: Cases = None,
    kind: Kind = None,
    point: Point = None,
    commodity: Commodity = None,
    severity: Severity = None,
    every: Filtered = False,
    by: By = None,
    json: Json = False,
) -> None:
    """The finding is none. Releases a hold, keeps the matter quiet for 30 days and widens the meter's thresholds by a
    quarter. A validation case releases what was found, as it stands, for billing.

    Example: meter-pipeline exceptions dismiss --all --kind spike --reason "street party"
    """
    _decide("dismissed", cases, kind, point, commodity, severity, every, by, reason, None, json)


def _decide(
    decision: Any,
    cases: list[str] | None,
    kind: list[str] | None,
    point: list[str] | None,
    commodity: list[str] | None,
    severity: list[str] | None,
    every: bool,
    by: str | None,
    reason: str,
    to: str | None,
    json: bool,
) -> None:
    from meter_pipeline.anomalies import QueueError, decide

    filters = _filters(cases, kind, None, point, commodity, severity, None)
    if not filters or (bool(cases) == every):
        raise typer.BadParameter("name cases, or filters with --all")
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    database = prepare(load_settings())
    subject = ", ".join(cases or []) or "all that match"
    person = acting_or_exit(database, "exceptions", subject, by or getpass.getuser(), decisions.WORK)
    try:
        with database.connect("meter-pipeline exceptions") as connection:
            done = decide(connection, filters, decision, by=person, reason=reason, to=to)
    except QueueError as error:
        problem(str(error), "meter-pipeline exceptions list shows what waits")
    from meter_pipeline.billing.tables.released_bills import released_bills

    days = [day for day, _ in released_bills(database)] if done.released else []
    emit(
        {"decision": decision, "cases": done.cases, "released": done.released, "days_to_run": days},
        json,
        lambda d: OUT.print(_decided(d), highlight=False),
    )


def _decided(document: dict[str, Any]) -> str:
    message = f"{len(document['cases'])} case(s) {document['decision']}, {document['released']} bill hold(s) released"
    days = ", ".join(str(day) for day in document["days_to_run"])
    if not days:
        return message
    return f"{message}. Their bills go out when {days} runs: the sensor touched_billing_days asks for it, or: meter-pipeline run --day DAY"


def _show_list(document: dict[str, Any]) -> None:
    rows = [
        (
            c["case_id"],
            c["kind"],
            c["state"] + (f": {c['assigned_to']}" if c["assigned_to"] else ""),
            c["last_day"],
            c["days"],
            "held" if c["hold"] else "",
        )
        for c in document["cases"]
    ]
    title = f"{document['count']} case(s), {document['held']} holding a bill"
    OUT.print(table(title, ("case", "kind", "state", "last seen", "days", "bill"), rows, numbers=("days",)))


def _show_case(case: dict[str, Any]) -> None:
    OUT.print(f"[bold]{case['case_id']}[/]  {case['kind']}: {case['about']}", highlight=False)
    hold = "the bill of its days waits for the decision" if case["hold"] else "no bill waits"
    OUT.print(
        f"{case['state']}, {case['severity']}, {case['first_day']} to {case['last_day']}; {hold}", highlight=False
    )
    if case["decided_by"]:
        OUT.print(f"decided by {case['decided_by']}: {case['reason'] or 'no reason given'}", highlight=False)

    def number(value: Any) -> str:
        return "" if value is None else f"{value:,.3f}"

    rows = [
        (
            f["billing_day"],
            f["kind"],
            number(f["expected"]),
            number(f["observed"]),
            f["unit"],
            in_words(f["evidence"]),
        )
        for f in case["flags"]
    ]
    OUT.print(
        table(None, ("day", "kind", "expected", "observed", "unit", "evidence"), rows, numbers=("expected", "observed"))
    )


def in_words(evidence: Any) -> str:
    """Evidence in words: names and values; of a list of services, each with its text."""
    if isinstance(evidence, dict):
        return ", ".join(f"{name} {in_words(value)}" for name, value in evidence.items())
    if isinstance(evidence, list) and all(isinstance(row, dict) and "service_point_id" in row for row in evidence):
        others = [{k: v for k, v in row.items() if k != "service_point_id"} for row in evidence]
        named = zip(evidence, others, strict=True)
        return "; ".join(f"{row['service_point_id']} ({in_words(decisions)})" for row, decisions in named)
    return f"{evidence:g}" if isinstance(evidence, float) else str(evidence)
