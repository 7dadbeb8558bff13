"""Pages of decisions by two people: the emergency pause and its end, adjustments, the close of a month."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

from meter_pipeline.billing import adjustments as adjusting
from meter_pipeline.billing import close
from meter_pipeline.billing.back_billing.tables import of_adjustments
from meter_pipeline.control import pause as emergency
from meter_pipeline.control.tables import dual_requests
from meter_pipeline.desk import tables
from meter_pipeline.desk.web import (
    FINANCE,
    DeskRequest,
    FormError,
    NotFoundError,
    instant,
    link,
    parse_cursor,
    path_part,
    place,
)
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.page_formats import formats_of

STATUSES = ("requested", "approved", "posted", "refused", "any")


# --- pause


def pause(ask: DeskRequest) -> Response:
    with ask.desk.reading() as connection:
        state = emergency.status(connection, history=10)
    folder = ask.desk.settings.head_ends
    scopes = [
        "all",
        *emergency.COMMODITIES,
        *_head_ends(folder, max((p.stat().st_mtime_ns for p in [folder, *folder.glob("*.toml")]), default=0)),
    ]
    now = ask.desk.clock.now()
    pending = [
        request | {"expired": request["expires_at"] <= now, "mine": request["requested_by"] == ask.visitor.person}
        for request in state["pending"]
    ]
    return ask.show("pause.html", state=state, pending=pending, scopes=scopes, checklist=CHECKLIST)


@lru_cache(maxsize=4)
def _head_ends(folder: Path, changed: int) -> tuple[str, ...]:
    """Names of the declared head-ends; read again when a declaration has ``changed`` (checking a dozen of them takes a
    tenth of a second)."""
    return tuple(sorted(read_head_ends(folder)))


#: Label and question of the form for each point of control.pause.CHECKLIST.
CHECKLIST = {
    "ledger": ("Ledger", "How and when it was verified, and with what result."),
    "control_totals": ("Control totals", "Which files or checks did not add up, and why they do now."),
    "dead_letters": ("Dead letters", "What they were, and what became of them."),
}


def _scope(text: str) -> emergency.Scope:
    if text in ("", "all"):
        return emergency.ALL
    try:
        return (
            emergency.Scope("commodity", text) if text in emergency.COMMODITIES else emergency.Scope("head_end", text)
        )
    except ValueError as error:
        raise FormError(str(error)) from error


def raise_pause(ask: DeskRequest) -> Response:
    scope = _scope(ask.field("scope"))
    emergency.raise_pause(
        ask.desk.database,
        reason=ask.field("reason", required="What you saw"),
        by=ask.visitor.person,
        scope=scope,
        clock=ask.desk.clock,
    )
    return ask.back("/pause", f"Paused: {scope.words()}. Batches being written commit; no new batch starts.")


def request_resume(ask: DeskRequest) -> Response:
    notes = {key: ask.field(key, required=label) for key, (label, _) in CHECKLIST.items()}
    pending = emergency.request_resume(
        ask.desk.database,
        reason=ask.field("reason", required="The reason"),
        by=ask.visitor.person,
        checklist=notes,
        scope=_scope(ask.field("scope")),
        clock=ask.desk.clock,
    )
    return ask.back(
        "/pause",
        f"Request {pending.request_id} waits for a second person in finance until {formats_of(ask.desk.settings).when(pending.expires_at)}.",
    )


def confirm_resume(ask: DeskRequest) -> Response:
    number = _number(ask)
    # What is confirmed is what was read: the page carries the digest of the request it showed.
    with ask.desk.reading() as connection:
        found = dual_requests.request_by_id(connection, number)
    if found is not None and found.digest.hex() != ask.field("digest"):
        raise FormError("The request changed after you opened this page: read it again.")
    ended = emergency.confirm_resume(
        ask.desk.database,
        number,
        by=ask.visitor.person,
        reason=ask.field("reason", required="What you looked at"),
        clock=ask.desk.clock,
    )
    return ask.back("/pause", f"Pause {ended.pause_id} is over; held work goes on by itself.")


def decline_resume(ask: DeskRequest) -> Response:
    number = _number(ask)
    emergency.decline_resume(
        ask.desk.database,
        number,
        by=ask.visitor.person,
        reason=ask.field("reason", required="The reason"),
        clock=ask.desk.clock,
    )
    return ask.back("/pause", f"Request {number} is declined; the pause stays.")


def _number(ask: DeskRequest) -> int:
    text = str(ask.path["request"])
    if not (text.isascii() and text.isdigit() and len(text) < 18):
        raise NotFoundError("There is no such request.")
    return int(text)


# --- adjustments


def adjustments(ask: DeskRequest) -> Response:
    status = ask.query.get("status") or "requested"
    if status not in STATUSES:
        raise FormError(f"status {status[:40]!r} is not one of {', '.join(STATUSES)}")
    found = parse_cursor(ask.query.get("after"))
    after = (instant(found[0]), str(found[1])) if found else None
    with ask.desk.reading() as connection:
        listed = tables.adjustments(connection, None if status == "any" else status, after, tables.PAGE + 1)
    more = len(listed) > tables.PAGE
    listed = listed[: tables.PAGE]
    following = (
        link("/adjustments", status=status, after=place(listed[-1]["requested_at"], listed[-1]["adjustment_id"]))
        if more
        else None
    )
    return ask.show(
        "adjustments.html",
        adjustments=listed,
        chosen=status,
        statuses=STATUSES,
        following=following,
        first=after is None,
    )


def adjustment(ask: DeskRequest) -> Response:
    with ask.desk.reading() as connection:
        found = tables.adjustment(connection, ask.path["adjustment_id"])
        if found is None:
            raise NotFoundError(f"There is no adjustment {ask.path['adjustment_id'][:80]}.")
        lines = tables.adjustment_lines(connection, found["adjustment_id"])
        policy = of_adjustments(connection, [found["adjustment_id"]])
    mine = found["requested_by"].strip().casefold() == ask.visitor.person
    return ask.show("adjustment.html", adjustment=found, lines=lines, mine=mine, policy=policy)


def decide_adjustment(ask: DeskRequest) -> Response:
    name = ask.path["adjustment_id"]
    decision = ask.field("decision")
    if decision not in ("approve", "refuse"):
        raise FormError("choose approve or refuse")
    ask.may("adjustment", name[:200], FINANCE)
    adjusting.decide(
        ask.desk.database, name, approve=decision == "approve", person=ask.visitor.person, clock=ask.desk.clock
    )
    return ask.back(
        f"/adjustments/{path_part(name)}",
        "Approved and posted." if decision == "approve" else "Refused; the bill stays as it is.",
    )


# --- months


def months(ask: DeskRequest) -> Response:
    with ask.desk.reading() as connection:
        listed = tables.months(connection)
    return ask.show("months.html", months=listed)


def month(ask: DeskRequest) -> Response:
    first = _month(ask)
    with ask.desk.reading() as connection:
        found = next((m for m in tables.months(connection) if m["month"] == first), None)
    points = (
        close.checklist(ask.desk.database, first, anew=False)
        if found is None or found["status"] != "sealed"
        else found["checklist"]
    )
    mine = bool(found and found["requested_by"] and found["requested_by"].strip().casefold() == ask.visitor.person)
    return ask.show(
        "month.html", month=first, found=found, points=points, ready=all(p["ok"] for p in points), mine=mine
    )


def close_month(ask: DeskRequest) -> Response:
    first = _month(ask)
    step = ask.field("step")
    ask.may("close", f"{first:%Y-%m}", FINANCE)
    if step == "request":
        close.request_close(ask.desk.database, first, person=ask.visitor.person, clock=ask.desk.clock)
        return ask.back(f"/months/{first:%Y-%m}", "Asked. A second person seals the month.")
    if step == "approve":
        close.approve_close(ask.desk.database, first, person=ask.visitor.person, clock=ask.desk.clock)
        return ask.back(f"/months/{first:%Y-%m}", "Sealed: the month refuses every later change.")
    raise FormError("choose request or approve")


def _month(ask: DeskRequest) -> date:
    try:
        first = date.fromisoformat(f"{ask.path['month']}-01")
    except ValueError:
        raise NotFoundError("There is no such month; write it like 2026-11.") from None
    if not 1970 <= first.year < 3000:  # nothing was metered before, and the calendar ends at 9999-12-31
        raise NotFoundError("There is no such month here.")
    return first


PAGES = [
    ("/pause", pause, ("GET",)),
    ("/pause/raise", raise_pause, ("POST",)),
    ("/pause/request", request_resume, ("POST",)),
    ("/pause/requests/{request}/confirm", confirm_resume, ("POST",)),
    ("/pause/requests/{request}/decline", decline_resume, ("POST",)),
    ("/adjustments", adjustments, ("GET",)),
    ("/adjustments/{adjustment_id}", adjustment, ("GET",)),
    ("/adjustments/{adjustment_id}/decide", decide_adjustment, ("POST",)),
    ("/months", months, ("GET",)),
    ("/months/{month}", month, ("GET",)),
    ("/months/{month}/close", close_month, ("POST",)),
]
