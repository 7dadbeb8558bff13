"""Corrections of reference data: changes and cost of each preview, requested by one person, approved by a second."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response

from meter_pipeline.corrections import apply as making
from meter_pipeline.corrections import tables
from meter_pipeline.desk.web import DeskRequest, FormError, NotFoundError
from meter_pipeline.reference import ReferenceRefused

#: Accounts and changes shown of one correction; the command line has all of them.
MOST_SHOWN = 200


def corrections(ask: DeskRequest) -> Response:
    """Previewed corrections, newest first."""
    with ask.desk.reading() as connection:
        found = [
            {
                "digest": digest.hex(),
                "source": source,
                "at": at,
                "issued": issued,
                "applied_at": made,
                "summary": summary,
            }
            for digest, source, at, issued, made, summary in tables.listed(connection)
        ]
    return ask.show("corrections.html", corrections=found)


def correction(ask: DeskRequest) -> Response:
    """One correction: changes, reach, difference by account, progress of its days, and the forms of two people."""
    digest = _digest(ask)
    with ask.desk.reading() as connection:
        found = tables.kept(connection, digest)
        if found is None:
            raise NotFoundError(f"There is no correction {ask.path['digest'][:80]}.")
        waiting, requests = tables.progress(connection, digest)
        pending = tables.pending_request(connection, making.CORRECTION.name, digest.hex(), ask.desk.clock.now())
    mine = pending is not None and pending["requested_by"] == ask.visitor.person
    summary: dict[str, Any] = found["summary"]
    return ask.show(
        "correction.html",
        digest=digest.hex(),
        found=found,
        summary=summary,
        changes=summary["changes"][:MOST_SHOWN],
        accounts=summary["money"]["accounts"][:MOST_SHOWN],
        pending=pending,
        mine=mine,
        waiting=waiting,
        asked=requests,
    )


def request(ask: DeskRequest) -> Response:
    digest = _digest(ask)
    try:
        made = making.request(
            ask.desk.database,
            digest,
            by=ask.visitor.person,
            reason=ask.field("reason", required="The reason"),
            clock=ask.desk.clock,
        )
    except ReferenceRefused as refused:
        raise FormError(str(refused.faults[0].why)) from refused
    return ask.back(f"/corrections/{digest.hex()}", f"Request {made.request_id} waits for a second person in finance.")


def approve(ask: DeskRequest) -> Response:
    digest = _digest(ask)
    applied = making.approve(
        ask.desk.lander,
        _number(ask),
        by=ask.visitor.person,
        reason=ask.field("reason", required="What you looked at"),
        clock=ask.desk.clock,
    )
    message = f"Made. {len(applied.days)} billing days of {applied.service_points} service points are asked for again."
    return ask.back(f"/corrections/{digest.hex()}", message)


def decline(ask: DeskRequest) -> Response:
    digest = _digest(ask)
    making.decline(
        ask.desk.database,
        _number(ask),
        by=ask.visitor.person,
        reason=ask.field("reason", required="The reason"),
        clock=ask.desk.clock,
    )
    return ask.back(f"/corrections/{digest.hex()}", "Declined; nothing was changed.")


def _digest(ask: DeskRequest) -> bytes:
    try:
        return bytes.fromhex(ask.path["digest"])
    except ValueError as error:
        raise NotFoundError(f"There is no correction {ask.path['digest'][:80]}.") from error


def _number(ask: DeskRequest) -> int:
    text = ask.field("request", required="The request")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise FormError("There is no such request.")
    return int(text)


PAGES = [
    ("/corrections", corrections, ("GET",)),
    ("/corrections/{digest}", correction, ("GET",)),
    ("/corrections/{digest}/request", request, ("POST",)),
    ("/corrections/{digest}/approve", approve, ("POST",)),
    ("/corrections/{digest}/decline", decline, ("POST",)),
]
