"""Cases that other rooms open: limits on estimated bills, losses of zones. Their evidence is kept beside them, not in a
day's flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from meter_pipeline.anomalies.kinds import KINDS
from meter_pipeline.anomalies.tables import exception_cases
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver


@dataclass(frozen=True, slots=True)
class Finding:
    """A matter for the exception queue. ``name``: what tells this matter of its subject from others; ``hold``: whether
    the bill of its days waits; ``service_point_id``: empty where it concerns none alone."""

    kind: str
    subject: str
    name: str
    service_point_id: str
    commodity: str
    first_day: date
    last_day: date
    hold: bool = False
    unit: str = ""
    expected: float | None = None
    observed: float | None = None
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def case_id(self) -> str:
        """The case's name."""
        return f"{KINDS[self.kind].family}-{self.subject}-{self.name}"


def open_case(connection: driver.Connection, finding: Finding, *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Put a finding into the queue, in the caller's transaction; True where it opened a case. The evidence of an
    undecided case is brought up to date; a case that a person decided stays decided."""
    exception_cases.lock_flag_cases(connection)
    now, kind, name = clock.now(), KINDS[finding.kind], finding.case_id
    standing = exception_cases.read_cases(connection, case_id=name)
    if standing and standing[0]["state"] not in ("open", "assigned"):
        return False
    row = {
        "first_day": finding.first_day,
        "last_day": finding.last_day,
        "days": (finding.last_day - finding.first_day).days + 1,
        "hold": finding.hold,
    }
    fresh = {
        "opened_at": now,
        "decided_at": None,
        "confidence": 1.0,
        "case_id": name,
        "family": kind.family,
        "kind": finding.kind,
        "subject": finding.subject,
        "service_point_id": finding.service_point_id,
        "commodity": finding.commodity,
        "severity": kind.severity,
        "state": "open",
        "assigned_to": None,
        "decided_by": None,
        "reason": None,
    }
    exception_cases.upsert_cases(connection, [(standing[0] if standing else fresh) | row])
    exception_cases.put_evidence(
        connection,
        {
            "case_id": name,
            "billing_day": finding.last_day,
            "kind": finding.kind,
            "unit": finding.unit,
            "expected": finding.expected,
            "observed": finding.observed,
            "evidence": finding.evidence,
        },
    )
    if not standing:
        body = {
            "billing_day": finding.last_day.isoformat(),
            "flags": 0,
            "cases_opened": 1,
            "case_id": name,
            "evidence": finding.evidence,
        }
        entries.append(connection, "flagged", body, clock=clock)
    return not standing


def close_case(connection: driver.Connection, case_id: str, why: str, *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Close an undecided case whose matter is gone; True where there was one."""
    exception_cases.lock_flag_cases(connection)
    standing = exception_cases.read_cases(connection, case_id=case_id)
    if not standing or standing[0]["state"] not in ("open", "assigned"):
        return False
    ended = {"state": "expired", "hold": False, "decided_at": clock.now(), "reason": why}
    exception_cases.upsert_cases(connection, [standing[0] | ended])
    body = {"case_id": case_id, "decision": "expired", "reason": why}
    entries.append(connection, "flag_decided", body, clock=clock)
    return True
