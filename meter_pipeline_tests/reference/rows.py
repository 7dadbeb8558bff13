"""One row of a reference table, ended or taken out, without asking for the days that it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.importing import RowChange, change_row


def remove_row(database: Database, name: str, key: Sequence[str], *, by: str, why: str) -> dict[str, Any]:
    with database.connect("meter-pipeline reference") as connection:
        return change_row(connection, RowChange(name, tuple(key), by=by, why=why))


def end_row(database: Database, name: str, key: Sequence[str], on: str, *, by: str, why: str) -> dict[str, Any]:
    with database.connect("meter-pipeline reference") as connection:
        return change_row(connection, RowChange(name, tuple(key), on, by=by, why=why))
