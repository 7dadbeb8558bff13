"""Partitions: billing days in the utility's own zone."""

from __future__ import annotations

import tomllib
from datetime import date
from functools import lru_cache

import dagster as dg

from meter_pipeline.settings import load_settings

#: Before any meter of ours; a municipality says its own first day in utility.toml.
FIRST_BILLING_DAY = "2000-01-01"


@lru_cache(maxsize=1)
def billing_days() -> dg.DailyPartitionsDefinition:
    """Every closed billing day, yesterday the last: end_offset 0 keeps a day out until it has ended."""
    settings = load_settings()
    raw = tomllib.loads((settings.data / "utility.toml").read_text("utf-8"))
    return dg.DailyPartitionsDefinition(
        start_date=str(raw.get("first_billing_day", FIRST_BILLING_DAY)), timezone=str(raw["zone"])
    )


@lru_cache(maxsize=1)
def billing_months() -> dg.MonthlyPartitionsDefinition:
    """Calendar months, the unit finance closes."""
    settings = load_settings()
    raw = tomllib.loads((settings.data / "utility.toml").read_text("utf-8"))
    first = date.fromisoformat(str(raw.get("first_billing_day", FIRST_BILLING_DAY))).replace(day=1)
    return dg.MonthlyPartitionsDefinition(start_date=first.isoformat(), timezone=str(raw["zone"]))
