"""Recording a known defect of the legacy batch: the ignored difference, its largest amount, its end, its approver."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.people import Refused, canonical, denial
from meter_pipeline.ledger import entries
from meter_pipeline.migration import tables
from meter_pipeline.migration.comparison import LEVELS
from meter_pipeline.postgres.database import Database

#: The longest a difference may be ignored at a time: past a quarter a person has to look at it again.
LONGEST_DAYS = 92


def record(
    database: Database,
    defect_id: str,
    *,
    levels: Sequence[str],
    codes: Sequence[str],
    most: int,
    by: str,
    approver: str,
    reason: str,
    expires: datetime,
    first_day: date | None = None,
    last_day: date | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Record a defect, ``most`` in millionths. Raises ValueError for levels or an expiry that cannot be, Refused for
    people who may not."""
    if strange := set(levels) - set(LEVELS):
        raise ValueError(f"unknown level {', '.join(sorted(strange))}")
    left = (expires - clock.now()).days
    if not 0 <= left <= LONGEST_DAYS:
        raise ValueError(f"a defect is ignored for at most {LONGEST_DAYS} days, and not in the past")
    people = [canonical(by), canonical(approver)]
    if None in people or people[0] == people[1]:
        raise Refused("same_person", "one person records a defect and another approves ignoring it")
    defect = {
        "defect_id": defect_id,
        "levels": list(levels) or list(LEVELS),
        "codes": list(codes),
        "most": most,
        "first_day": first_day,
        "last_day": last_day,
        "reason": reason,
        "recorded_by": people[0],
        "approver": people[1],
        "expires": expires,
    }
    with database.connect("known defect") as connection:
        for person, duties in ((people[0], ("engineer", "operator", "finance")), (people[1], ("finance",))):
            if refused := denial(connection, str(person), duties):
                raise Refused(refused.code, refused.words)
        tables.put_known_defect(connection, defect)
        entries.append(connection, "comparison", {"step": "known_defect", **defect}, clock=clock, actor=by)
        connection.commit()
