"""The thresholds that a billing day is judged by: the file's, and the dated values in force on the day."""

from __future__ import annotations

from datetime import date

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.tolerances import RegisterTolerance
from meter_pipeline.vee.rules.thresholds import Thresholds, in_force
from meter_pipeline.vee.tables import thresholds as tables


def thresholds_on(database: Database, day: date) -> Thresholds:
    """The thresholds in force on a day. Raises ThresholdError for a stored name that the file does not have."""
    return in_force(tables.dated(database, day))


def register_tolerance_on(connection: Connection, day: date) -> RegisterTolerance:
    """How far intervals and their register may be apart on a day."""
    return in_force(tables.dated_of(connection, day)).register_tolerance
