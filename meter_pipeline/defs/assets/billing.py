"""Reconciled billing: determinants and charges of the day, and the joints between every step and the one before."""

from datetime import date

import dagster as dg

from meter_pipeline.defs import policy
from meter_pipeline.defs.resources import Municipality
from meter_pipeline.defs.stage import stage_asset
from meter_pipeline.schemas.report import StageReport


def _reconciled_billing(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.billing import bill_billing_day

    return bill_billing_day(municipality.database(), municipality.calendar(), day, clock=municipality.clock()).report()


def reconciled_billing() -> dg.AssetsDefinition:
    """From usage to money."""
    return stage_asset(
        "reconciled_billing",
        _reconciled_billing,
        group=policy.BILLING,
        description=(
            "What each account owes for the day, line by line, under the tariff version in force: exact to the cent, and reconciled with the validated "
            "intervals, the registers and the files behind them. Every difference has a named cause."
        ),
        deps=["validated_intervals", "daily_usage", *(("reference", t) for t in ("tariffs", "accounts", "agreements", "billing_cycles", "holidays"))],
        owners=policy.FINANCE,
        checks={
            "lines_sum_to_total": "The lines of every account sum to its total.",
            "billed_equals_validated": "The quantities billed are the quantities validated, to the last unit.",
            "reconciliation": "Every joint from file to line agrees, or its difference has a named cause.",
        },
        table="billing.charge_day",
        kinds={"polars", "postgres"},
    )
