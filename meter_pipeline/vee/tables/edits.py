"""People's edits of intervals and of register reads: vee.edit and vee.register_edit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg

from meter_pipeline.postgres.database import Database, scalar
from meter_pipeline.postgres.reading import of_day

Connection = psycopg.Connection[Any]
#: An edit that counts: approved where it was proposed, and not taken back
STANDS = "withdrawn_at IS NULL AND (NOT proposed OR approved_at IS NOT NULL)"


def standing(database: Database, day: date) -> pl.DataFrame:
    """Edits of a day that stand, oldest first: edit_id, meter_id, channel, interval_minutes, first_slot,
    values, reason, edited_by."""
    return of_day(
        database,
        "SELECT billing_day, edit_id, meter_id, channel, interval_minutes, first_slot, values, reason, edited_by FROM vee.edit "
        f"WHERE billing_day BETWEEN $1 AND $2 AND {STANDS} ORDER BY edit_id",
        day,
    )


def of_meter(database: Database, day: date, meter_id: str) -> pl.DataFrame:
    """Every edit of a meter's day, withdrawn ones included, oldest first."""
    return database.read(
        "SELECT edit_id, channel, first_slot, array_length(values, 1) AS slots, rules, rules_version, reason, edited_by, edited_at, proposed, approved_by, "
        "approved_at, withdrawn_by, withdrawn_at FROM vee.edit WHERE billing_day = $1 AND meter_id = $2 ORDER BY edit_id",
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
    proposed: bool = False,
) -> int:
    """Write an edit; returns its number."""
    number = scalar(
        connection,
        "INSERT INTO vee.edit (billing_day, meter_id, channel, interval_minutes, first_slot, values, rules, rules_version, reason, edited_by, "
        "edited_at, proposed) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING edit_id",
        (
            day,
            meter_id,
            channel,
            minutes,
            first_slot,
            list(values),
            list(rules),
            rules_version,
            reason,
            by,
            now,
            proposed,
        ),
    )
    return int(number)


def withdraw(connection: Connection, edit_id: int, by: str, now: datetime) -> tuple[date, str, str] | None:
    """Take an edit back; its (billing_day, meter_id, channel), or None where it does not stand."""
    return connection.execute(
        "UPDATE vee.edit SET withdrawn_by = %s, withdrawn_at = %s WHERE edit_id = %s AND withdrawn_at IS NULL RETURNING billing_day, meter_id, channel",
        (by, now, edit_id),
    ).fetchone()


def approve(connection: Connection, edit_id: int, by: str, now: datetime) -> tuple[date, str, str] | None:
    """Approve a proposed edit of intervals; its (billing_day, meter_id, channel), or None where none waits for this
    person.
    """
    return connection.execute(
        "UPDATE vee.edit SET approved_by = %s, approved_at = %s WHERE edit_id = %s AND proposed AND approved_at IS NULL AND withdrawn_at IS NULL "
        "AND edited_by <> %s RETURNING billing_day, meter_id, channel",
        (by, now, edit_id, by),
    ).fetchone()


def insert_read(
    connection: Connection,
    at: datetime,
    day: date,
    meter_id: str,
    channel: str,
    value: int | None,
    *,
    rules: Sequence[str],
    rules_version: int,
    reason: str,
    by: str,
    now: datetime,
    proposed: bool,
) -> int:
    """Write an edit of a register read (``value`` in micro base units, None: refused); returns its number."""
    number = scalar(
        connection,
        "INSERT INTO vee.register_edit (read_at, billing_day, meter_id, channel, value, rules, rules_version, reason, edited_by, edited_at, proposed) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING edit_id",
        (at, day, meter_id, channel, value, list(rules), rules_version, reason, by, now, proposed),
    )
    return int(number)


def approve_read(connection: Connection, edit_id: int, by: str, now: datetime) -> tuple[datetime, str, str] | None:
    """Approve a proposed edit of a register read; its (read_at, meter_id, channel), or None where none waits for this
    person.
    """
    return connection.execute(
        "UPDATE vee.register_edit SET approved_by = %s, approved_at = %s WHERE edit_id = %s AND proposed AND approved_at IS NULL "
        "AND withdrawn_at IS NULL AND edited_by <> %s RETURNING read_at, meter_id, channel",
        (by, now, edit_id, by),
    ).fetchone()


def withdraw_read(connection: Connection, edit_id: int, by: str, now: datetime) -> tuple[datetime, str, str] | None:
    """Take an edit of a register read back; its (read_at, meter_id, channel), or None where it does not stand."""
    return connection.execute(
        "UPDATE vee.register_edit SET withdrawn_by = %s, withdrawn_at = %s WHERE edit_id = %s AND withdrawn_at IS NULL "
        "RETURNING read_at, meter_id, channel",
        (by, now, edit_id),
    ).fetchone()


def reads_of_meter(database: Database, first: date, last: date, meter_id: str) -> pl.DataFrame:
    """Every edit of a meter's register reads of some days, oldest first, withdrawn ones and proposals included."""
    return database.read(
        "SELECT edit_id, channel, read_at, value, rules, rules_version, reason, edited_by, edited_at, proposed, approved_by, approved_at, "
        "withdrawn_by, withdrawn_at FROM vee.register_edit WHERE billing_day BETWEEN $1 AND $2 AND meter_id = $3 ORDER BY edit_id",
        (first, last, meter_id),
    )


def customer_class(database: Database, service_point_id: str, day: date) -> str:
    """Class of a service point on a day."""
    found = database.read(
        "SELECT customer_class FROM ref.service_points WHERE service_point_id = $1 AND valid_from <= $2 "
        "AND (valid_to IS NULL OR valid_to > $2)",
        (service_point_id, day),
    )
    return str(found["customer_class"][0]) if found.height else "residential"


def declared_unit(database: Database, meter_id: str, channel: str) -> str | None:
    """Unit in which a register of a meter counts, as declared; None where there is no such register."""
    found = database.read(
        "SELECT unit FROM ref.channels WHERE meter_id = $1 AND channel = $2 AND kind = 'register'", (meter_id, channel)
    )
    return str(found["unit"][0]) if found.height else None
