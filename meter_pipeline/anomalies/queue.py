"""The exception queue as people work it: list, show, assign, confirm, dismiss; one case or all that a filter finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from meter_pipeline.anomalies.cases import UNDECIDED
from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.tables import exception_cases
from meter_pipeline.anomalies.validation import tables as findings_table
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import decisions
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver

Decision = Literal["assigned", "confirmed", "dismissed"]
#: Family of the cases that validation opens
VALIDATION: Final = "validation"
FILTERS: Final = ("case_id", "state", "kind", "family", "service_point_id", "commodity", "severity", "assigned_to")


class QueueError(ValueError):
    """A decision that cannot be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Result of a decision: the cases, and the number of bills it released."""

    cases: list[str]
    released: int


def list_cases(connection: driver.Connection, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cases that match all filters (FILTERS; a list means any of), newest first. Raises QueueError for a filter that
    does not exist."""
    unknown = sorted(set(filters) - set(FILTERS))
    if unknown:
        raise QueueError(f"no filter {', '.join(unknown)}; there are {', '.join(FILTERS)}")
    return exception_cases.read_cases(connection, **filters)


def show_case(connection: driver.Connection, case_id: str) -> dict[str, Any]:
    """A case, the meaning of its kind, and every flag with its evidence. Raises QueueError where there is none."""
    found = exception_cases.read_cases(connection, case_id=case_id)
    if not found:
        raise QueueError(f"no case {case_id}")
    kind = KINDS[found[0]["kind"]]
    of_validation = found[0]["family"] == VALIDATION
    flags = (findings_table.case_findings if of_validation else exception_cases.case_flags)(connection, case_id)
    flags = flags or exception_cases.evidence_of(connection, case_id, found[0]["severity"])
    return found[0] | {"about": kind.about, "source": kind.source, "flags": flags}


def decide(
    connection: driver.Connection,
    filters: Mapping[str, Any],
    decision: Decision,
    *,
    by: str,
    reason: str = "",
    to: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Decided:
    """Assign, confirm or dismiss every undecided case that matches the filters, in the caller's transaction, with one
    ledger entry a case.

    ``by`` decides; ``to`` is who an assignment goes to. Confirming and dismissing release a hold on the bill: a
    correction of the bill itself is an adjustment, which a second person approves. A decided case is not decided again;
    dismissing needs a reason. The decision moves the meter's tolerance from the next judged day on. Raises QueueError.

    A case of validation is about data: confirming it says that they are wrong, and the bill waits until they are
    corrected; dismissing it releases what was found, as it stands, and is possible after a confirmation too.
    """
    if not filters:
        raise QueueError("a decision needs a case or a filter")
    if not by.strip():
        raise QueueError("a decision needs a name")
    if decision == "assigned" and not (to or "").strip():
        raise QueueError("an assignment needs someone to go to")
    if decision == "dismissed" and not reason.strip():
        raise QueueError("a dismissal needs a reason")
    by = decisions.entitled(connection, by, decisions.WORK)
    exception_cases.lock_validation_cases(connection)
    exception_cases.lock_flag_cases(connection)
    found = list_cases(connection, filters)
    if not found:
        raise QueueError("no case matches")
    undecided = [c for c in found if c["state"] in UNDECIDED or _still_holds_bill(c, decision)]
    if not undecided:
        raise QueueError(f"already decided: {', '.join(c['case_id'] + ' ' + c['state'] for c in found[:5])}")
    now = clock.now()
    changed = []
    for case in undecided:
        after = dict(case) | {"state": decision}
        if decision == "assigned":
            after["assigned_to"] = to
        else:
            after |= {
                "decided_by": by,
                "decided_at": now,
                "reason": reason or None,
                "hold": _holds_after(case, decision),
            }
        if case["family"] == VALIDATION and decision == "dismissed":
            findings_table.release(connection, case, by, reason, now)
        changed.append(after)
        body = {
            "case_id": case["case_id"],
            "kind": case["kind"],
            "subject": case["subject"],
            "decision": decision,
            "by": by,
            "to": to,
            "reason": reason or None,
            "released": bool(case["hold"]) and not after["hold"],
        }
        entries.append(connection, "flag_decided", body, clock=clock, actor=by)
    exception_cases.upsert_cases(connection, changed)
    released = sum(1 for before, after in zip(undecided, changed, strict=True) if before["hold"] and not after["hold"])
    return Decided([c["case_id"] for c in undecided], released)


def _still_holds_bill(case: Mapping[str, Any], decision: Decision) -> bool:
    """Whether a decided case still holds a bill and the decision would release it."""
    return bool(case["hold"]) and case["state"] == "confirmed" and decision == "dismissed"


def _holds_after(case: Mapping[str, Any], decision: Decision) -> bool:
    return bool(case["hold"]) and case["family"] == VALIDATION and decision == "confirmed"
