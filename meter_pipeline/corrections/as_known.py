"""The reference rows behind a line of a bill, as they were known at an instant: what its statement was issued from, or
what is known now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from meter_pipeline.corrections import tables
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reference import STRETCHES


class AsKnownError(ValueError):
    """A line whose reference rows cannot be shown; the message says why."""


def reference_rows(database: Database, line_id: str, instant: datetime | None = None) -> dict[str, Any]:
    """The reference rows that a line (``STATEMENT_ID.LINE_NO``) stands on: ``as_of``, and ``rows`` by table, each with
    the record time ``known_from``; of dated tables those that hold on a day of the line.

    ``instant``: as known then; None: as known when the statement was issued. Raises AsKnownError for an unknown line.
    """
    statement_id, _, number = line_id.rpartition(".")
    with database.connect("explain") as connection:
        line = tables.line_place(connection, statement_id, int(number)) if number.isdecimal() else None
        moment = None if line is None else tables.moment_of(connection, statement_id)
        if line is None or moment is None:
            raise AsKnownError(f"no line {line_id}")
        at = instant or moment.known_from
        found = tables.rows_behind(connection, line, at)
    rows = {
        name: [row for row in several if _holds(name, row, line.segment_start, line.segment_end)]
        for name, several in found.items()
    }
    stood = {row["meter_id"] for row in rows["installations"]}
    for name in ("meters", "meter_values", "channels", "channel_values"):
        rows[name] = [row for row in rows[name] if row["meter_id"] in stood]
    return {"as_of": at, "rows": {name: several for name, several in rows.items() if several}}


def _holds(table: str, row: Mapping[str, Any], first: date, past: date) -> bool:
    """Whether a row holds on a day of [first, past); one without dates always does. Instants count by
    their UTC date."""
    if table not in STRETCHES:
        return True
    begins, ends = (_date(row[c]) for c in (STRETCHES[table].starts, STRETCHES[table].ends))
    return (begins is None or begins < past) and (ends is None or ends > first)


def _date(value: Any) -> date | None:
    return value.date() if isinstance(value, datetime) else value
