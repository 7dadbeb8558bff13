"""The exception queue: listed, filtered, shown with evidence and picture, assigned, confirmed, dismissed, one
or many.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

from starlette.responses import Response

from meter_pipeline.anomalies import QueueError, decide, show_case
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.desk import tables
from meter_pipeline.desk.pictures import usage_svg
from meter_pipeline.desk.web import WORKERS, DeskRequest, FormError, NotFoundError, bad_place, link, parse_cursor, place
from meter_pipeline.leak_adjustments import request as leaks
from meter_pipeline.leak_adjustments.rules import LeakRefusedError
from meter_pipeline.page_formats import formats_of
from meter_pipeline.postgres.driver import Connection

STATES: Final = {
    "undecided": ["open", "assigned"],
    "open": ["open"],
    "assigned": ["assigned"],
    "confirmed": ["confirmed"],
    "dismissed": ["dismissed"],
    "expired": ["expired"],
    "any": [],
}
COMMODITIES: Final = ("electricity", "water", "gas")
SEVERITIES: Final = ("severe", "warn", "inform")
DECISIONS: Final = {"assign": "assigned", "confirm": "confirmed", "dismiss": "dismissed"}
#: How many days before its first flag a case's picture begins.
BEFORE: Final = timedelta(days=42)


def _chosen(given: dict[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The values that the form shows as chosen, and the filters of the query. Raises FormError for an unknown value."""
    chosen = {
        name: given.get(name, "").strip()
        for name in ("state", "kind", "commodity", "severity", "service_point_id", "assigned_to")
    }
    chosen["state"] = chosen["state"] or "undecided"
    filters: dict[str, list[str]] = {}
    for name, known in (("state", STATES), ("kind", KINDS), ("commodity", COMMODITIES), ("severity", SEVERITIES)):
        if chosen[name] and chosen[name] not in known:
            raise FormError(f"{name} {chosen[name][:40]!r} is not one of {', '.join(known)}")
    if states := STATES[chosen["state"]]:
        filters["state"] = states
    for name in ("kind", "commodity", "severity", "service_point_id", "assigned_to"):
        if chosen[name]:
            filters[name] = [chosen[name]]
    return chosen, filters


def listing(ask: DeskRequest) -> Response:
    chosen, filters = _chosen(dict(ask.query))
    found = parse_cursor(ask.query.get("after"))
    try:
        after = (date.fromisoformat(found[0]), str(found[1])) if found else None
    except ValueError:
        bad_place()
    with ask.desk.reading() as connection:
        cases = tables.cases(connection, filters, after, tables.PAGE + 1)
        count = tables.count_cases(connection, filters)
    more = len(cases) > tables.PAGE
    cases = cases[: tables.PAGE]
    following = (
        link("/exceptions", **chosen, after=place(cases[-1]["last_day"], cases[-1]["case_id"])) if more else None
    )
    return ask.show(
        "exceptions.html",
        cases=cases,
        count=count,
        most=tables.COUNTED,
        chosen=chosen,
        following=following,
        first=after is None,
        kinds=KINDS,
        states=list(STATES),
        commodities=COMMODITIES,
        severities=SEVERITIES,
    )


def show(ask: DeskRequest) -> Response:
    with ask.desk.reading() as connection:
        case = _case(connection, ask.path["case_id"])
        days: list[dict[str, Any]] = []
        if case["service_point_id"]:
            days = tables.usage_of_point(
                connection, case["service_point_id"], case["first_day"] - BEFORE, case["last_day"]
            )
    unit = next((f["unit"] for f in case["flags"] if f["unit"]), "")
    shown = [d for d in days if not unit or d["unit"] == unit]
    return ask.show(
        "exception.html",
        case=case,
        has_picture=bool(shown),
        days=shown[-14:],
        unit=unit,
        undecided=case["state"] in ("open", "assigned"),
        leak=_leak(ask, case),
    )


def _leak(ask: DeskRequest, case: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the amount of adjusting the bills of a confirmed leak, or the refusal; None for any other case."""
    if case["state"] != "confirmed" or case["family"] not in leaks.LEAKS:
        return None
    try:
        found = leaks.preview(ask.desk.reader, ask.desk.settings.calendar(), case["case_id"])
    except LeakRefusedError as refusal:
        return {"bills": [], "why": str(refusal), "evidence": "", "adjusted": False}
    evidence = next((b.rule.evidence for b in found.adjusted if b.rule is not None), "")
    bills = [bill.document() for bill in found.bills]
    return {"bills": bills, "why": "", "evidence": evidence, "adjusted": bool(found.adjusted)}


def adjust_leak(ask: DeskRequest) -> Response:
    """The adjustments of a confirmed leak's bills."""
    case_id = ask.path["case_id"]
    ask.may("adjust-leak", case_id[:200], WORKERS)
    _, names = leaks.apply(
        ask.desk.database,
        ask.desk.settings.calendar(),
        case_id,
        shown=ask.field("shown"),
        requested_by=ask.visitor.person,
        clock=ask.desk.clock,
    )
    return ask.back(link("/adjustments", status="any"), f"Asked for: {', '.join(names)}.")


def picture(ask: DeskRequest) -> Response:
    """The case's picture as SVG: usage over its expectation by weather, flagged days marked."""
    with ask.desk.reading() as connection:
        case = _case(connection, ask.path["case_id"])
        days = tables.usage_of_point(connection, case["service_point_id"], case["first_day"] - BEFORE, case["last_day"])
    unit = next((f["unit"] for f in case["flags"] if f["unit"]), "")
    flagged = {f["billing_day"] for f in case["flags"]}
    svg = usage_svg(
        [d for d in days if not unit or d["unit"] == unit],
        flagged,
        f"{case['subject']}: {case['kind'].replace('_', ' ')}",
        unit,
        formats_of(ask.desk.settings).short_day,
    )
    return Response(svg, media_type="image/svg+xml")


def act(ask: DeskRequest) -> Response:
    """One decision about the cases that were ticked, or about the one that is shown."""
    decision = DECISIONS.get(ask.field("decision"))
    if decision is None:
        raise FormError("choose assign, confirm or dismiss")
    cases = [case for case in ask.fields("case") if case]
    if not cases:
        raise FormError("tick at least one case")
    ask.may("exception", cases[0] if len(cases) == 1 else f"{len(cases)} cases", WORKERS)
    to = ask.field("to", required="Who it goes to", most=64) if decision == "assigned" else None
    reason = ask.field("reason", required="The reason" if decision == "dismissed" else None)
    with ask.desk.database.connect("desk") as connection:
        done = decide(
            connection,
            {"case_id": cases},
            decision,  # type: ignore[arg-type]
            by=ask.visitor.person,
            reason=reason,
            to=to,
            clock=ask.desk.clock,
        )
        connection.commit()
    left = len(cases) - len(done.cases)
    words = f"{len(done.cases)} case(s) {decision}{f' to {to}' if to else ''}; {done.released} bill hold(s) released."
    if left:
        words += f" {left} had been decided before."
    return ask.back(_return(ask), words)


def _return(ask: DeskRequest) -> str:
    """Where the form says it came from, if that is a page of this list."""
    to = ask.field("back")
    return to if to.startswith("/exceptions") and "//" not in to and "\\" not in to else "/exceptions"


def _case(connection: Connection, case_id: str) -> dict[str, Any]:
    try:
        return show_case(connection, case_id)
    except QueueError as error:
        raise NotFoundError(str(error)) from error


PAGES = [
    ("/exceptions", listing, ("GET",)),
    ("/exceptions/decide", act, ("POST",)),
    ("/exceptions/{case_id}", show, ("GET",)),
    ("/exceptions/{case_id}/leak", adjust_leak, ("POST",)),
    ("/exceptions/{case_id}/usage.svg", picture, ("GET",)),
]
