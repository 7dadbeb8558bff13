"""Partitions: billing days in the utility's own zone."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

import dagster as dg

from meter_pipeline.settings import load_settings

#: Where utility.toml names no first billing day: earlier than any read.
FIRST_BILLING_DAY = date(2000, 1, 1)


@lru_cache(maxsize=1)
def billing_days() -> dg.DailyPartitionsDefinition:
    """Every closed billing day, yesterday the last: end_offset 0 keeps a day out until it has ended."""
    utility = load_settings().utility()
    first = utility.first_billing_day or FIRST_BILLING_DAY
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), timezone=utility.zone)


@lru_cache(maxsize=1)
def billing_months() -> dg.MonthlyPartitionsDefinition:
    """Calendar months, the unit finance closes."""
    utility = load_settings().utility()
    first = (utility.first_billing_day or FIRST_BILLING_DAY).replace(day=1)
    return dg.MonthlyPartitionsDefinition(start_date=first.isoformat(), timezone=utility.zone)
