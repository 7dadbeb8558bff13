"""The legacy batch's results, from a CSV file or a table of its own database, as RESULT rows."""

from __future__ import annotations

import csv
import hashlib
import re
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import entries
from meter_pipeline.migration import tables
from meter_pipeline.migration.comparison import LEVELS, RESULT
from meter_pipeline.migration.sides import TABLE
from meter_pipeline.postgres.database import Database
from meter_pipeline.units import UnitError, parse_decimal, to_micro

COLUMNS: Final = ("account_id", "level", "code", "value")
OPTIONAL: Final = ("estimated", "tariff_version")


class LegacyRefused(ValueError):
    """Results that cannot be read; the message names file, line and column."""


def read_csv(path: Path, day: date) -> pl.DataFrame:
    """Rows of a CSV with account_id, level, code, value (a decimal in base units or currency) and optionally estimated,
    tariff_version.

    Raises LegacyRefused: a legacy file that is half right is no basis for a comparison.
    """
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise LegacyRefused(f"{path.name}:1: column missing: {', '.join(missing)}")
            rows.extend(_row(row, day, f"{path.name}:{reader.line_num}") for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LegacyRefused(f"{path.name}: {error}") from error
    return pl.DataFrame(rows, schema=RESULT)


def read_table(database: Database, table: str, day: date) -> pl.DataFrame:
    """Rows of a legacy table with billing_day, account_id, level, code, value numeric and optionally estimated,
    tariff_version. Reads only."""
    if not TABLE.fullmatch(table):
        raise LegacyRefused(f"{table!r} is not schema.table")
    with database.connect("legacy import") as connection:
        there = tables.columns_of(connection, table)
    missing = [name for name in ("billing_day", *COLUMNS) if name not in there]
    if missing:
        raise LegacyRefused(f"{table}: column missing: {', '.join(missing)}")
    columns = ", ".join(f"{name}::text" for name in (*COLUMNS, *(name for name in OPTIONAL if name in there)))
    frame = database.read(f"SELECT {columns} FROM {table} WHERE billing_day = $1", [day])  # noqa: S608 - matched above
    return pl.DataFrame([_row(row, day, table) for row in frame.to_dicts()], schema=RESULT)


def import_results(
    database: Database,
    day: date,
    results: pl.DataFrame,
    *,
    finished_at: datetime,
    source: str,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Store a day's legacy results in place of earlier ones, with a ledger entry. Returns how many."""
    ordered = results.sort("account_id", "level", "code", "value").with_columns(
        occurrence=pl.int_range(1, pl.len() + 1, dtype=pl.Int16).over("account_id", "level", "code")
    )
    digest = hashlib.sha256(ordered.write_csv().encode()).digest()
    with database.connect("legacy import") as connection:
        tables.replace_legacy(connection, day, ordered, (finished_at, clock.now(), source, digest))
        body = {
            "step": "legacy_imported",
            "billing_day": day,
            "figures": ordered.height,
            "sha256": digest,
            "source": source,
        }
        entries.append(connection, "comparison", body, clock=clock)
        connection.commit()
    return ordered.height


def _row(row: dict[str, Any], day: date, where: str) -> dict[str, Any]:
    level = str(row["level"] or "")
    if level not in LEVELS:
        raise LegacyRefused(f"{where}: level {level!r} is not one of {', '.join(LEVELS)}")
    if not row["account_id"] or not row["code"]:
        raise LegacyRefused(f"{where}: account_id or code is empty")
    try:
        value = to_micro(parse_decimal(str(row["value"])))
    except UnitError as error:
        raise LegacyRefused(f"{where}: value: {error}") from error
    version = row.get("tariff_version") or None
    if version is not None and re.fullmatch(r"[0-9]{1,9}", str(version), re.ASCII) is None:
        raise LegacyRefused(f"{where}: tariff_version {str(version)[:40]!r} is not a whole number")
    return {
        "billing_day": day,
        "account_id": str(row["account_id"]),
        "level": level,
        "code": str(row["code"]),
        "value": value,
        "exact": None,
        "estimated": str(row.get("estimated") or "").lower() in ("true", "t", "1"),
        "tariff_version": int(version) if version else None,
    }
