"""Validating several days: parts of days share transactions (postgres/days_together.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.postgres.days_together import Stage, in_turn
from meter_pipeline.postgres.reading import expect_days
from meter_pipeline.vee.day import validate_billing_day
from meter_pipeline.vee.loading import Touched
from meter_pipeline.vee.part_of_day import touched_since
from meter_pipeline.vee.rules.policy import Policies
from meter_pipeline.vee.summary import VeeOutcome
from meter_pipeline.vee.tables.part_of_day import remember_asked


def validate_billing_days(
    database: Database,
    calendar: BillingCalendar,
    days: Sequence[date],
    *,
    clock: Clock = SYSTEM_CLOCK,
    shards: int = 0,
    policies: Policies | None = None,
) -> Iterator[tuple[date, VeeOutcome]]:
    """Validate days in order, each for what was touched since (``touched_since``), and yield each when it is committed.
    Raises what ``validate_billing_day`` raises; of the transaction it happens in nothing is written."""

    def run(session: Database, day: date, only: Touched | None) -> VeeOutcome:
        return validate_billing_day(session, calendar, day, clock=clock, shards=shards, policies=policies, only=only)

    def begin(session: Database, several: Sequence[date]) -> None:
        with session.connect("vee") as connection:
            day_lock.hold_several(connection, DayLock.VALIDATE, several)
            remember_asked(session, connection, several)
        expect_days(session, several)

    yield from in_turn(database, days, Stage(touched_since, run, begin, lambda *_: False))
