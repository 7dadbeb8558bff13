"""The locks of a billing day: one run, load, validation, detection or archiving of a day at a time.

Advisory locks of PostgreSQL with two keys: the kind of work, and the day. There are several because a run holds its
lock on the day while its stages hold theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import IntEnum
from typing import Any

import psycopg


class DayLock(IntEnum):
    """Kinds of work that one process at a time does on a day: the first key of the lock."""

    RUN = 0x6D705F64
    LOAD = 0x6D706461
    VALIDATE = 0x6D705F76
    DETECT = 0x6D705F66
    ARCHIVE = 0x6D705F61


def hold(connection: psycopg.Connection[Any], lock: DayLock, day: date) -> None:
    """Wait for a day's lock and hold it until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (int(lock), day.toordinal()))


def hold_several(connection: psycopg.Connection[Any], lock: DayLock, days: Sequence[date]) -> None:
    """Wait for the locks of some days, in order, and hold them until the transaction ends."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s, day) FROM unnest(%s::int[]) AS day",
        (int(lock), sorted(day.toordinal() for day in days)),
    )


def take(connection: psycopg.Connection[Any], lock: DayLock, day: date) -> None:
    """Wait for a day's lock and hold it until the connection ends, so that a killed process leaves no lock."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (int(lock), day.toordinal()))


def try_take(connection: psycopg.Connection[Any], lock: DayLock, day: date) -> bool:
    """As ``take`` where the lock is free. Returns False, without a lock, where it is not."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (int(lock), day.toordinal())).fetchone()
    return bool(row and row[0])
