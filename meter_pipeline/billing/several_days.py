"""Billing several days: parts of days share transactions (postgres/days_together.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from meter_pipeline.billing.adjustments import propose_late_changes
from meter_pipeline.billing.day import BillingOutcome, bill_billing_day
from meter_pipeline.billing.part_of_day import validated_since_billed
from meter_pipeline.billing.tables import adjustments, days
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.days_together import Stage, in_turn


def bill_billing_days(
    database: Database,
    calendar: BillingCalendar,
    billing_days: Sequence[date],
    *,
    clock: Clock = SYSTEM_CLOCK,
    shards: int = 0,
) -> Iterator[tuple[date, BillingOutcome]]:
    """Bill days in order, each for what was validated since (``validated_since_billed``), and yield each when it is
    committed. Adjustments of issued statements are proposed when all are billed, and stand in the last day's outcome.
    Raises what ``bill_billing_day`` raises; of the transaction it happens in nothing is written."""

    def run(session: Database, day: date, only: Sequence[str] | None) -> BillingOutcome:
        return bill_billing_day(session, calendar, day, clock=clock, shards=shards, only=only)

    def begin(session: Database, _: Sequence[date]) -> None:
        # Before a day is locked by any stage: two runs of several days cannot wait for each other.
        with session.connect("billing") as connection:
            days.lock(connection)

    def carried_into(outcome: BillingOutcome, following: Sequence[date]) -> bool:
        # A day's entry counts the rows that its transaction replaced.
        return not outcome.carried.keys().isdisjoint(following)

    last: tuple[date, BillingOutcome] | None = None
    for done in in_turn(database, billing_days, Stage(validated_since_billed, run, begin, carried_into)):
        if last is not None:
            yield last
        last = done
    if last is None:
        return
    if adjustments.waiting(database):
        before_writing(database, clock=clock)
        last[1].adjustments += propose_late_changes(database, calendar, clock=clock)
    yield last
