"""Settings of every asset: groups in the order data flows, owners, the pool of the emergency pause."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import dagster as dg

#: Groups sort by name in the UI, so the number gives the order in which data flows.
REFERENCE: Final = "1_reference"
INGEST: Final = "2_ingest"
VALIDATION: Final = "3_validation"
DETECTION: Final = "4_detection"
BILLING: Final = "5_billing"
AUDIT: Final = "6_audit"
MIGRATION: Final = "7_migration"

DATA: Final = ["team:data-engineering"]
ANALYSTS: Final = ["team:billing-analysts"]
FINANCE: Final = ["team:finance"]
AUDITORS: Final = ["team:audit"]

#: The database role a group's stages act in (postgres/privileges.toml), where the deployment has log-ins that may:
# METER_PIPELINE_ROLES=on.
ROLES: Final = MappingProxyType(
    {
        REFERENCE: "meter_ingest",
        INGEST: "meter_ingest",
        VALIDATION: "meter_ingest",
        DETECTION: "meter_ingest",
        BILLING: "meter_billing",
        AUDIT: "meter_notary",
        MIGRATION: "meter_shadow",
    }
)
#: Jobs that people start from the Launchpad to ask for the end of a pause and to confirm it.
PEOPLE_ROLE: Final = "meter_finance"
#: Fields that a person's job asks for beside their name.
CODE: Final = "Your code of `meter-pipeline people code`, valid one time; empty while the register is empty."
#: Records whose bill a day was, delivers, rolls back; cannot give the new side authority.
MIGRATION_ROLE: Final = "meter_migration"
#: Schema checks read every table and write none.
CHECK_ROLE: Final = "meter_auditor"

#: Every asset and check is in this pool. Its limit is 0 while EMERGENCY_PAUSE is raised, and the run waits in the
# queue.
POOL: Final = "emergency_pause"

#: A run that belongs to one billing day says so, for links from a bill to its runs.
DAY_TAG: Final = "meter_pipeline/billing_day"


@lru_cache(
    maxsize=1
)  # Dagster walks through a cron's years to check it: 16 assets took a fifth of a second at each start
def freshness(zone: str) -> dg.FreshnessPolicy:
    """Every stage of a billing day is done by noon local time, seven hours after the schedule starts: settlement data
    is due by noon."""
    return dg.FreshnessPolicy.cron(deadline_cron="0 12 * * *", lower_bound_delta=timedelta(hours=7), timezone=zone)


@lru_cache(maxsize=1)
def month_end(zone: str) -> dg.FreshnessPolicy:
    """A month's checklist is looked at by noon of the fifth: finance closes in five days."""
    return dg.FreshnessPolicy.cron(deadline_cron="0 12 5 * *", lower_bound_delta=timedelta(days=5), timezone=zone)


#: Head-ends send every day: a day and a half without a landing is too long, and a day and two hours worth a look.
DAILY_FILES: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26))
#: Baselines are refitted on Sundays; one that was missed shows on Tuesday.
WEEKLY_REFIT: Final = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=9), warn_window=timedelta(days=8))


def desk_url() -> str:
    """Where people reach the finance desk, for links: METER_PIPELINE_DESK_URL, or where ``meter-pipeline desk``
    listens."""
    return os.environ.get("METER_PIPELINE_DESK_URL", "http://127.0.0.1:3001").rstrip("/")
