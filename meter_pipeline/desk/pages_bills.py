"""A bill explained: from the statement to a line, its days, every interval, the bytes it came in, and the proofs."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import RedirectResponse, Response

from meter_pipeline.billing.explain import policy
from meter_pipeline.desk import tables
from meter_pipeline.desk.web import DeskRequest, NotFoundError, day_of, instant, link, parse_cursor, path_part, place
from meter_pipeline.ledger import proving

_LINE = re.compile(r"(.+)\.([0-9]{1,9})")
_STATEMENT = re.compile(r"[^.\s]+\.[^.\s]+\.[0-9]{8}\.[0-9]+")


def bills(ask: DeskRequest) -> Response:
    """Statements, newest first; a search for a statement's or a line's id goes straight there."""
    search = ask.query.get("q", "").strip()
    if search:
        if _STATEMENT.fullmatch(search):
            return RedirectResponse(f"/bills/{path_part(search)}", status_code=303)
        if (line := _LINE.fullmatch(search)) and _STATEMENT.fullmatch(line[1]):
            return RedirectResponse(f"/bills/{path_part(line[1])}/{line[2]}", status_code=303)
    found = parse_cursor(ask.query.get("after"))
    after = (instant(found[0]), str(found[1])) if found else None
    with ask.desk.reading() as connection:
        listed = tables.statements(connection, search or None, after, tables.PAGE + 1)
    more = len(listed) > tables.PAGE
    listed = listed[: tables.PAGE]
    following = (
        link("/bills", q=search, after=place(listed[-1]["issued_at"], listed[-1]["statement_id"])) if more else None
    )
    return ask.show("bills.html", statements=listed, q=search, following=following, first=after is None)


def bill(ask: DeskRequest) -> Response:
    with ask.desk.reading() as connection:
        head = tables.statement(connection, ask.path["statement_id"])
        if head is None:
            raise NotFoundError(f"There is no statement {ask.path['statement_id'][:80]}.")
        lines = tables.statement_lines(connection, head["statement_id"])
        corrections = tables.corrections_of(connection, head["statement_id"])
    return ask.show(
        "bill.html",
        bill=head,
        lines=lines,
        total=sum(line["amount"] for line in lines),
        adjustments=corrections,
        corrected=head["total"] + sum(a["net"] for a in corrections if a["status"] == "posted"),
    )


def line(ask: DeskRequest) -> Response:
    statement_id, number = ask.path["statement_id"], str(ask.path["line"])
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise NotFoundError("There is no such line.")
    with ask.desk.reading() as connection:
        steps = tables.explained(connection, f"{statement_id}.{number}")
    if not steps:
        raise NotFoundError(f"There is no line {number} of {statement_id[:80]}.")
    by: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        by.setdefault(step["what"], []).append({"day": step["day"], "subject": step["subject"], **step["detail"]})
    with ask.desk.reading() as connection:
        policies = policy(connection, by.get("adjustment", []))
    return ask.show(
        "line.html",
        line_id=f"{statement_id}.{number}",
        statement_id=statement_id,
        line=by["line"][0],
        statement=by["statement"][0],
        tariff=next(iter(by.get("tariff", [])), None),
        determinant=next(iter(by.get("determinant", [])), None),
        days=by.get("day", []),
        validated=by.get("validated", []),
        payloads=by.get("payload", []) + by.get("register", []),
        ledger=by.get("ledger", []),
        adjustments=by.get("adjustment", []),
        policy=policies,
    )


def day(ask: DeskRequest) -> Response:
    """A service point's day: every validated interval beside the raw read it was made of."""
    point, at = ask.path["point"], day_of(ask.path["day"])
    with ask.desk.reading() as connection:
        intervals = tables.intervals(connection, point, at)
        registers = tables.registers(connection, point, at)
    if not intervals and not registers:
        raise NotFoundError(f"Nothing is kept of {point[:40]} on {at}.")
    return ask.show(
        "day.html", point=point, day=at, intervals=intervals, registers=registers, zone=ask.desk.calendar.zone
    )


def proof(ask: DeskRequest) -> Response:
    """The proof of a bill: its path to a signed checkpoint, checked before it is shown."""
    document, why = _bundle(ask)
    return ask.show("proof.html", statement_id=ask.path["statement_id"], bundle=document, why=why)


def proof_file(ask: DeskRequest) -> Response:
    """The same as the file that tools/verify_ledger.py --proof takes."""
    document, why = _bundle(ask)
    if document is None:
        raise NotFoundError(why or "There is no proof.")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", ask.path["statement_id"])
    return Response(
        json.dumps(document, default=str),
        media_type="application/json",
        headers={"content-disposition": f'attachment; filename="{name}.proof.json"'},
    )


def _bundle(ask: DeskRequest) -> tuple[dict[str, Any] | None, str | None]:
    try:
        return proving.prove_statement(ask.desk.reader, ask.path["statement_id"]).document(), None
    except LookupError as error:
        return None, str(error)


PAGES = [
    ("/bills", bills, ("GET",)),
    ("/bills/{statement_id}", bill, ("GET",)),
    ("/bills/{statement_id}/proof", proof, ("GET",)),
    ("/bills/{statement_id}/proof.json", proof_file, ("GET",)),
    ("/bills/{statement_id}/{line}", line, ("GET",)),
    ("/usage/{point}/{day}", day, ("GET",)),
]
