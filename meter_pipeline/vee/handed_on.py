"""Passes a validated day to billing without validating it again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.postgres import day_lock
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.summary import VeeOutcome
from meter_pipeline.vee.tables import checks, part_of_day, true_up


def hand_on(
    database: Database, calendar: BillingCalendar, day: date, t: Thresholds, clock: Clock, points: Sequence[str]
) -> VeeOutcome:
    """Pass service points of a validated day to billing: the change concerns their charges and not their usage, so
    that no row is validated or written."""
    outcome = VeeOutcome(day, t.version, t.digest, service_points=0)
    before_writing(database, clock=clock)
    with database.connect("vee") as connection:
        day_lock.hold(connection, DayLock.VALIDATE, day)
        pending = true_up.pending(connection, day, (), points)
        bounds = calendar.bounds(day)
        stored = checks.stored_rows(connection, day, bounds, (), ())
        outcome.stored = checks.stored_day(connection, day, bounds, stored, t.register_tolerance, ())
        true_up.done(connection, day, pending, clock.now())
        part_of_day.note_validation(connection, day, points)
    return outcome
