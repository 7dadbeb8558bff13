"""Dated thresholds of validation in PostgreSQL."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg

from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import remembered


def dated(database: Database, day: date) -> tuple[tuple[str, str], ...]:
    """Names and values in force on a day, by name."""
    found = remembered(
        database,
        "SELECT threshold, value::text AS value, valid_from, valid_to FROM ref.validation_thresholds ORDER BY 1",
    )
    return tuple(
        (str(name), str(value))
        for name, value, first, past in found.iter_rows()
        if first <= day and (past is None or past > day)
    )


def every_dated(database: Database) -> list[dict[str, Any]]:
    """Every dated value, as text: threshold, valid_from, valid_to (None: open), value; by name and day."""
    return database.rows(
        "SELECT threshold, valid_from::text, valid_to::text, value::text FROM ref.validation_thresholds ORDER BY threshold, valid_from"
    )


def dated_of(connection: psycopg.Connection[Any], day: date) -> tuple[tuple[str, str], ...]:
    """The same, as a connection sees it."""
    return tuple(
        connection.execute(
            "SELECT threshold, value::text FROM ref.validation_thresholds WHERE valid_from <= %(d)s AND (valid_to IS NULL OR valid_to > %(d)s) ORDER BY 1",
            {"d": day},
        ).fetchall()
    )
