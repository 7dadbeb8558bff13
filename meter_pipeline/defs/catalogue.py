"""Every definition that Dagster loads, in the order data flows. Policies for all assets are applied here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from meter_pipeline.defs import jobs, schedules, sensors
from meter_pipeline.defs.assets import audit, billing, detection, ingest, migration, month, reference, validation
from meter_pipeline.defs.checks import law_of_the_day, law_of_the_month, schema_check
from meter_pipeline.defs.lib.asset_policies import applied
from meter_pipeline.defs.lib.executors import executor
from meter_pipeline.defs.operations import (
    alerts,
    dead_letters,
    exceptions,
    ledger,
    pause,
    pause_sensors,
    retention,
)
from meter_pipeline.defs.operations import (
    migration as jobs_migration,
)
from meter_pipeline.schemas.contracts import CONTRACTS

#: asset -> tables whose contract is checked after it
SCHEMA_CHECKS = {
    "raw_reads": ("raw.interval_day", "raw.register_read"),
    "validated_intervals": ("vee.interval_day",),
    "daily_usage": ("vee.daily_usage",),
    "anomaly_flags": ("anomaly.flag",),
    "reconciled_billing": ("billing.determinant_day", "billing.charge_day"),
    "migration_comparison": ("migration.comparison",),
}


def definitions(resources: Mapping[str, Any], engine: str | None = None) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors, with the given resources; ``engine`` runs the billing day's
    steps (executors.py). Raises ValueError for an engine that is not
    known."""
    assets = [
        reference.reference_data,
        ingest.pulled_days,
        ingest.feed_files,
        ingest.raw_reads(),
        validation.validated_intervals(),
        validation.daily_usage(),
        detection.weather(),
        detection.baselines,
        detection.anomaly_flags(),
        audit.ledger_before_billing(),
        billing.reconciled_billing(),
        billing.statements(),
        month.unbilled_revenue(),
        month.supply_balance(),
        billing.month_end_close,
        audit.ledger_checkpoint(),
        audit.close_report(),
        migration.shadow_billing(),
        migration.migration_comparison(),
        migration.published_bills(),
    ]
    return dg.Definitions(
        assets=dg.with_source_code_references(applied(assets)),
        asset_checks=[
            *(
                schema_check(asset, table)
                for asset, tables in SCHEMA_CHECKS.items()
                for table in tables
                if table in CONTRACTS
            ),
            law_of_the_day(),
            law_of_the_month(),
        ],
        jobs=[
            *(jobs.land_feeds, jobs.pull_head_ends, jobs.reference_job, jobs.refit_job, jobs.billing_day_job(engine)),
            *(
                *dead_letters.JOBS,
                *exceptions.JOBS,
                *pause.JOBS,
                *jobs_migration.JOBS,
                *retention.JOBS,
                *ledger.JOBS,
            ),
        ],
        schedules=[
            *(schedules.daily_schedule(engine), schedules.weekly_refit(), schedules.pull_schedule()),
            *(pause.prune_nightly, ledger.check_guards_hourly, *retention.SCHEDULES),
        ],
        sensors=[
            sensors.feed_arrival,
            sensors.touched_days_sensor(engine),
            *pause_sensors.SENSORS,
            *alerts.SENSORS,
            *jobs_migration.SENSORS,
        ],
        resources=dict(resources),
        executor=executor(engine),
    )
