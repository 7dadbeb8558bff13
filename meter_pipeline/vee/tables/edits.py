"""People's edits of intervals: vee.edit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database, scalar

Connection = psycopg.Connection[Any]


def standing(database: Database, day: date) -> pl.DataFrame:
    """Edits of a day that were not withdrawn, oldest first: edit_id, meter_id, channel, interval_minutes, first_slot,
    values, reason, edited_by."""
    return database.read(
        "SELECT edit_id, meter_id, channel, interval_minutes, first_slot, values, reason, edited_by FROM vee.edit "
        "WHERE billing_day = $1 AND withdrawn_at IS NULL ORDER BY edit_id",
        (day,),
    )


def of_meter(database: Database, day: date, meter_id: str) -> pl.DataFrame:
    """Every edit of a meter's day, withdrawn ones included, oldest first."""
    return database.read(
        "SELECT edit_id, channel, first_slot, array_length(values, 1) AS slots, rules, rules_version, reason, edited_by, edited_at, withdrawn_by, "
        "withdrawn_at FROM vee.edit WHERE billing_day = $1 AND meter_id = $2 ORDER BY edit_id",
        (day, meter_id),
    )


def insert(
    connection: Connection,
    day: date,
    meter_id: str,
    channel: str,
    minutes: int,
    first_slot: int,
    values: Sequence[int],
    *,
    rules: Sequence[str],
    rules_version: int,
    reason: str,
    by: str,
    now: datetime,
) -> int:
    """Write an edit; returns its number."""
    number = scalar(
        connection,
        "INSERT INTO vee.edit (billing_day, meter_id, channel, interval_minutes, first_slot, values, rules, rules_version, reason, edited_by, "
        "edited_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING edit_id",
        (day, meter_id, channel, minutes, first_slot, list(values), list(rules), rules_version, reason, by, now),
    )
    return int(number)


def withdraw(connection: Connection, edit_id: int, by: str, now: datetime) -> tuple[date, str, str] | None:
    """Take an edit back; its (billing_day, meter_id, channel), or None where it does not stand."""
    return connection.execute(
        "UPDATE vee.edit SET withdrawn_by = %s, withdrawn_at = %s WHERE edit_id = %s AND withdrawn_at IS NULL RETURNING billing_day, meter_id, channel",
        (by, now, edit_id),
    ).fetchone()
