"""Alerts: pauses raised and ended, requests that wait, a ledger unverified for too long, exceptions and
dead letters over age.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.notify import Alert
from meter_pipeline.control.rules import Thresholds
from meter_pipeline.control.tables import alerts, evidence, pauses
from meter_pipeline.postgres import driver

#: A dead letter or an exception is to be worked within two working days; over a weekend that is four days.
EXCEPTION_AGE: Final = timedelta(days=4)


def find(connection: driver.Connection, limits: Thresholds, *, clock: Clock = SYSTEM_CLOCK) -> list[Alert]:
    """Every alert the present state calls for; keys let each be sent a single time (the ageing ones daily)."""
    now = clock.now()
    found = []
    for row in pauses.recent_pauses(connection, 20):
        where = row.target or "all work"
        if row.state == "paused":
            body = f"{row.reason}\n\nRaised by {row.raised_by} at {row.raised_at:%Y-%m-%d %H:%M} UTC. Evidence: {row.evidence}\n\n"
            found.append(
                Alert(
                    f"pause:{row.pause_id}:raised",
                    "critical",
                    f"EMERGENCY PAUSE of {where}: {row.reason[:120]}",
                    body + _NEXT,
                )
            )
            if row.pending_request is not None:
                title = f"Resume of {where} waits for a second person (request {row.pending_request})"
                body = f"{row.pending_by} asked. Next: meter-pipeline pause confirm-resume {row.pending_request} --by NAME, before {row.pending_until} UTC."
                found.append(Alert(f"resume:{row.pending_request}:asked", "warning", title, body))
        else:
            found.append(
                Alert(
                    f"pause:{row.pause_id}:ended",
                    "info",
                    f"The pause of {where} is over",
                    f"Ended at {row.resumed_at} UTC; work goes on.",
                )
            )
    last = evidence.last_verification(connection)
    if last is not None and now - last[1] > limits.ledger_stale:
        key = f"ledger:stale:{now:%Y-%m-%d}"
        found.append(
            Alert(
                key,
                "warning",
                f"The ledger was last verified at {last[1]:%Y-%m-%d %H:%M} UTC",
                "Next: meter-pipeline ledger verify",
            )
        )
    for what, count, oldest in alerts.over_age(connection, now - EXCEPTION_AGE):
        title = f"{count} {what} wait longer than {EXCEPTION_AGE.days} days"
        body = f"The oldest is from {oldest:%Y-%m-%d}. Next: meter-pipeline {_LOOK.get(what, 'status')}"
        found.append(Alert(f"age:{what}:{now:%Y-%m-%d}", "warning", title, body))
    return found


#: The command that lists the waiting work, by its kind.
_LOOK: Final = {
    "dead letters": "dead-letters list",
    "anomaly cases": "exceptions list",
    "anomaly cases that hold a bill": "exceptions list",
}
_NEXT: Final = "Next: meter-pipeline pause status; when the cause is gone, pause request-resume, and a second person in finance confirms."
