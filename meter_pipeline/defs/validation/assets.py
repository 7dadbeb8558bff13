"""Validated intervals and daily usage: what was made of the reads, and why."""

from collections.abc import Sequence
from datetime import date

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.stage_asset import stage_asset
from meter_pipeline.schemas.report import StageReport


def _validated_intervals(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.vee import touched_since, validate_billing_day
    from meter_pipeline.vee.rules.policy import load as validation_policies

    settings = municipality.settings()
    done = validate_billing_day(
        municipality.database(),
        municipality.calendar(),
        day,
        clock=municipality.clock(),
        shards=settings.shards,
        policies=validation_policies(settings.data),
        only=touched_since(municipality.database(), day),
    )
    return done.report()


def _several_validated(municipality: Municipality, days: Sequence[date], run_id: str) -> list[tuple[date, StageReport]]:
    from meter_pipeline.vee import validate_billing_days
    from meter_pipeline.vee.rules.policy import load as validation_policies

    settings = municipality.settings()
    done = validate_billing_days(
        municipality.database(),
        municipality.calendar(),
        days,
        clock=municipality.clock(),
        shards=settings.shards,
        policies=validation_policies(settings.data),
    )
    return [(day, outcome.report()) for day, outcome in done]


def _daily_usage(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.vee import usage_report

    return usage_report(municipality.database(), municipality.calendar(), day)


def validated_intervals() -> dg.AssetsDefinition:
    """Validation, estimation, editing."""
    return stage_asset(
        "validated_intervals",
        _validated_intervals,
        group=policy.VALIDATION,
        description=(
            "Every interval of the day after validation: actual, estimated (with the method) or missing, scaled to the register where there is one. "
            "The raw read stays as it was; each replacement names its rule."
        ),
        deps=[
            "raw_reads",
            *(("reference", t) for t in ("service_points", "installations", "channels", "agreements", "holidays")),
        ],
        checks={
            "slots_complete": "Every installed channel has its day in the store, with as many values as were counted actual and estimated.",
            "sum_check": "Every stored row that misses its register's difference by more than the tolerance is an exception.",
        },
        table="vee.interval_day",
        # Reconciliation finds the service that fails one and holds its bill: the city is billed.
        blocking=False,
        run_several=_several_validated,
    )


def daily_usage() -> dg.AssetsDefinition:
    """A service point's day in one figure."""
    return stage_asset(
        "daily_usage",
        _daily_usage,
        group=policy.VALIDATION,
        description="Usage per service point and direction of flow on the day, with how many of its intervals were actual, estimated or missing.",
        deps=["validated_intervals"],
        checks={"usage_is_validated": "The day's usage equals the sum of its validated intervals, to the last unit."},
        table="vee.daily_usage",
        blocking=False,  # as above
    )
