"""Every definition that Dagster loads, in the order data flows. Policies for all assets are applied here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from meter_pipeline.defs import alerts, jobs, schedules, sensors
from meter_pipeline.defs.audit import assets as audit
from meter_pipeline.defs.audit import jobs as audit_jobs
from meter_pipeline.defs.billing import assets as billing
from meter_pipeline.defs.billing.checks import law_of_the_day, law_of_the_month
from meter_pipeline.defs.detection import assets as detection
from meter_pipeline.defs.detection import exception_jobs
from meter_pipeline.defs.detection.jobs import refit_job
from meter_pipeline.defs.ingest import assets as ingest
from meter_pipeline.defs.ingest import dead_letter_jobs
from meter_pipeline.defs.ingest.jobs import land_feeds, pull_head_ends
from meter_pipeline.defs.lib.asset_policies import applied
from meter_pipeline.defs.lib.contract_check import schema_check
from meter_pipeline.defs.lib.executors import executor
from meter_pipeline.defs.migration import assets as migration
from meter_pipeline.defs.migration import jobs as migration_jobs
from meter_pipeline.defs.month import assets as month
from meter_pipeline.defs.month import rate_study
from meter_pipeline.defs.pause import jobs as pause_jobs
from meter_pipeline.defs.pause import sensors as pause_sensors
from meter_pipeline.defs.reference import assets as reference
from meter_pipeline.defs.reference.exports import customer_exports, exports_job
from meter_pipeline.defs.reference.jobs import reference_job
from meter_pipeline.defs.reference.previews import preview_job
from meter_pipeline.defs.retention import jobs as retention_jobs
from meter_pipeline.defs.validation import assets as validation
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
        month.winter_averages(),
        month.leak_adjustments(),
        month.estimated_bills(),
        month.unit_charges(),
        rate_study.rate_study,
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
            land_feeds,
            pull_head_ends,
            reference_job,
            exports_job,
            preview_job,
            refit_job,
            jobs.billing_day_job(engine),
            *dead_letter_jobs.JOBS,
            *exception_jobs.JOBS,
            *pause_jobs.JOBS,
            *migration_jobs.JOBS,
            *retention_jobs.JOBS,
            *audit_jobs.JOBS,
        ],
        schedules=[
            schedules.daily_schedule(engine),
            schedules.weekly_refit(),
            schedules.pull_schedule(),
            pause_jobs.prune_nightly,
            audit_jobs.check_guards_hourly,
            *retention_jobs.SCHEDULES,
        ],
        sensors=[
            sensors.feed_arrival,
            customer_exports,
            sensors.touched_days_sensor(engine),
            *pause_sensors.SENSORS,
            *alerts.SENSORS,
            *migration_jobs.SENSORS,
        ],
        resources=dict(resources),
        executor=executor(engine),
    )
