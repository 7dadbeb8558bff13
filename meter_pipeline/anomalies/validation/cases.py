"""The exception queue kept in step with validation's findings: one case of a service point for the days that fail."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from meter_pipeline.anomalies.cases import FOLD_DAYS
from meter_pipeline.anomalies.tables import exception_cases
from meter_pipeline.anomalies.validation import tables as findings_table
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver

if TYPE_CHECKING:
    import polars as pl


def bring_up_to_date(
    connection: driver.Connection, day: date, findings: pl.DataFrame, *, clock: Clock = SYSTEM_CLOCK
) -> int:
    """Bring the queue to the ``findings`` of a validated day that go to people; the number of cases opened.

    Runs in the transaction that writes the day, so that a bill is held from the same instant on. ``findings`` has the
    columns of vee.exception. A finding joins the undecided case of its service point within FOLD_DAYS, else opens one.
    A day that comes out right takes its findings out; a case without any is closed. The same findings change nothing.
    """
    exception_cases.lock_validation_cases(connection)
    now = clock.now()
    touched = findings_table.replace_day(connection, day, findings)
    # Without a finding none of the day stands that could join a case.
    joined = findings_table.join_cases(connection, day, FOLD_DAYS) if findings.height else []
    opened = findings_table.open_cases(connection, day, now) if findings.height else []
    changed = sorted({*touched, *joined})
    if changed:
        findings_table.refresh(connection, changed)
        for case in findings_table.close_empty(connection, changed, now):
            body = {"case_id": case, "decision": "expired", "last_day": day.isoformat()}
            entries.append(connection, "flag_decided", body, clock=clock)
    return len(opened)
