"""Month-end close: a checklist, two people, a seal with control totals. The tables of a sealed month refuse every
change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from meter_pipeline.billing.bill_run import statement_checks
from meter_pipeline.billing.reconcile import STATEMENT_CHECKS
from meter_pipeline.billing.tables import periods
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries as ledger
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.revenue_assurance.law import last_reports, law


class CloseError(ValueError):
    """A month that cannot be closed; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A sealed month: its control totals and the hash that the ledger records."""

    month: date
    control_totals: dict[str, Any]
    totals_sha256: bytes
    ledger_entry: int


def _following(month: date) -> date:
    if month.day != 1:
        raise CloseError(f"{month} is not the first day of a month")
    return (month + timedelta(days=31)).replace(day=1)


def checklist(database: Database, month: date, *, anew: bool = True) -> list[dict[str, Any]]:
    """Returns the points of the close with ``ok`` and the rows that contradict them. ``anew``: compare every
    statement again (4 s for 100,000) instead of showing the last result. Pages show the last result; a request to
    close and a seal compare again."""
    with database.connect("billing close") as connection:
        return _points(connection, month, anew)


def _points(connection: Connection, month: date, anew: bool = True) -> list[dict[str, Any]]:
    """Returns the points of the tables, and the comparison of every statement of the month's periods with its days
    and with the ledger."""
    following = _following(month)
    against = [
        f"{cycle} {joint}: {detail}"
        for cycle, first, past in periods.periods_ending(connection, month, following)
        for joint, cause, detail in _checks(connection, cycle, first, past, anew)
        if cause == "open"
    ]
    point = {
        "point": "statements are what their days and the ledger say",
        "ok": not against,
        "detail": ", ".join(against)[:500],
    }
    return [*periods.checklist(connection, month, following), point, _law(connection, month, following, anew)]


def _law(connection: Connection, month: date, following: date, anew: bool) -> dict[str, Any]:
    """Returns whether all validated usage is on a bill, accrued or waiting for a reason, as computed by the room
    that shares no code with billing."""
    if anew:
        result = law(connection, month, following)
        ok, detail = result.ok, "" if result.ok else result.sentence()
    else:
        against = last_reports(connection, month, following)
        ok, detail = not against, "; ".join(against)
    return {"point": "all usage is billed, accrued or waiting for a reason", "ok": ok, "detail": detail[:500]}


def _checks(connection: Connection, cycle: str, first: date, past: date, anew: bool) -> list[tuple[str, str, str]]:
    """Check, cause and detail of a period's statements."""
    if anew:
        return statement_checks(connection, cycle, first, past).select("joint", "cause", "detail").rows()
    found = periods.checks_found(connection, cycle, past, list(STATEMENT_CHECKS))
    return found or [(STATEMENT_CHECKS[0], "open", "never compared")]


def request_close(database: Database, month: date, *, person: str, clock: Clock = SYSTEM_CLOCK) -> list[dict[str, Any]]:
    """Request a month's close. Returns the checklist. Raises CloseError where the month is sealed."""
    with database.connect("billing close") as connection:
        person = decisions.entitled(connection, person, decisions.FINANCE)
        points = _points(connection, month)
        if not periods.request(connection, month, person, points, clock.now()):
            raise CloseError(f"{month:%Y-%m} is sealed")
    return points


def approve_close(
    database: Database,
    month: date,
    *,
    person: str,
    clock: Clock = SYSTEM_CLOCK,
) -> Seal:
    """Seal a month whose close another person requested. The checklist is evaluated again, under the lock that blocks
    writers.

    The ledger's signed checkpoint covers the control totals. Raises CloseError with the points that fail, or where the
    same person requested it.
    """
    from meter_pipeline.postgres import driver
    from meter_pipeline.unbilled import month as unbilled

    following = _following(month)
    with database.connect("billing close") as connection:
        person = decisions.entitled(connection, person, decisions.FINANCE)
        periods.lock(connection)
        requested_by = periods.requested_by(connection, month)
        if requested_by is None:
            raise CloseError(f"the close of {month:%Y-%m} was not requested, or the month is sealed")
        if requested_by.strip().casefold() == person.strip().casefold():
            raise CloseError(f"{person} asked for it; another person must approve")
        points = _points(connection, month)
        failed = [p for p in points if not p["ok"]]
        if failed:
            raise CloseError("; ".join(f"not so: {p['point']} ({p['detail']})" for p in failed))
        left = unbilled.compute(database, month)
        if left.open_points:
            raise CloseError(
                f"not so: unbilled revenue is what days and bills leave ({'; '.join(left.open_points[:3])})"
            )
        unbilled.keep(connection, left)
        totals = periods.control_totals(connection, month, following) | {"unbilled": unbilled.sealed_totals(left)}
        canonical = ledger.canonical_json({"month": month, "totals": totals, "v": "mp-period/1"})
        digest = hashlib.sha256(canonical).digest()
        body = {
            "month": month,
            "requested_by": requested_by,
            "approved_by": person,
            "totals": totals,
            "totals_sha256": digest,
        }
        entry = ledger.append(connection, "period_sealed", body, clock=clock, actor=person)
        values = {
            "approved_by": person,
            "sealed_at": clock.now(),
            "checklist": points,
            "control_totals": totals,
            "totals_sha256": digest,
            "signature": None,
            "ledger_entry": entry,
        }
        try:
            if not periods.seal(connection, month, values):
                raise CloseError(f"{month:%Y-%m} is not waiting to be closed")
        except driver.errors.CheckViolation as error:
            raise CloseError("two different people close a month") from error
        return Seal(month, totals, digest, entry)
