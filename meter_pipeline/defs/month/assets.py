"""A month's questions: unbilled revenue, supply balance by zone, winter averages, leak adjustments, estimated bills and
charges by the unit."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.contract_check import evaluate
from meter_pipeline.defs.lib.partitions import billing_months
from meter_pipeline.defs.lib.report_metadata import metadata
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.stage_asset import code_of
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.schemas.contracts import CONTRACTS
from meter_pipeline.schemas.report import Check, StageReport

RunMonth = Callable[[Municipality, date], StageReport]


def month_asset(
    name: str,
    run_month: RunMonth,
    *,
    description: str,
    deps: list[str],
    tables: tuple[str, ...],
    checks: dict[str, str],
    own: str | None = None,
) -> dg.AssetsDefinition:
    """An asset of a month: the first of ``tables`` is its own, or ``own``, which another asset checks; each of
    ``tables`` is checked against its contract.
    """
    contracts = {f"schema_of_{table.replace('.', '_')}": table for table in tables}
    specs = checks | {check: f"{table} keeps its contract." for check, table in contracts.items()}

    @dg.asset(
        name=name,
        group_name=policy.BILLING,
        description=description,
        deps=[dg.AssetDep(dep, partition_mapping=dg.TimeWindowPartitionMapping()) for dep in deps],
        partitions_def=billing_months(),
        check_specs=[dg.AssetCheckSpec(check, asset=name, description=about) for check, about in specs.items()],
        pool=policy.POOL,
        metadata=table_metadata(own or tables[0]) | code_of(run_month),
    )
    def month(context: dg.AssetExecutionContext, municipality: Municipality) -> Iterator[dg.MaterializeResult[Any]]:
        key = date.fromisoformat(context.partition_key)
        acting = municipality.acting_as(policy.ROLES[policy.BILLING])
        found = run_month(acting, key)
        results = [_result(check) for check in found.checks if check.name in checks]
        for check, table in contracts.items():
            result = evaluate(acting.database(), table, *_rows_of(table, key))
            results.append(
                dg.AssetCheckResult(
                    check_name=check,
                    passed=result.passed,
                    description=result.description,
                    metadata=dict(result.metadata),
                )
            )
        yield dg.MaterializeResult(metadata=metadata(found), check_results=results)

    return month


def _rows_of(table: str, month: date) -> tuple[date, date, str]:
    """Which rows of a table are the month's: the first day, the day past the last, and the column that says so."""
    columns, past = CONTRACTS[table].columns, date(month.year + month.month // 12, month.month % 12 + 1, 1)
    if "effective" in columns:
        return past, past + timedelta(days=1), "effective"
    if "period_end" in columns:  # bills of the periods that end in the month
        return month + timedelta(days=1), past + timedelta(days=1), "period_end"
    return month, past, "month" if "month" in columns else "billing_day"


def _result(check: Check) -> dg.AssetCheckResult:
    figures = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in check.figures.items()}
    return dg.AssetCheckResult(
        check_name=check.name, passed=check.passed, description=check.description or None, metadata=figures
    )


def _unbilled(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.unbilled.month import refresh
    from meter_pipeline.unbilled.report import report

    return report(refresh(municipality.database(), month))


def unbilled_revenue() -> dg.AssetsDefinition:
    """Unbilled revenue: the amounts customers owe at a month's end for days that are on no bill."""
    return month_asset(
        "unbilled_revenue",
        _unbilled,
        description=(
            "Charges of days served that are on no bill posted by the month's end, by account, class, commodity and component; how they moved since the "
            "month before; and the journal that books them. Sealed with the month."
        ),
        deps=["statements"],
        tables=("billing.unbilled_month", "billing.unbilled_roll", "billing.journal_line"),
        checks={
            "unbilled_agrees_with_bills": "opening + charged - issued = closing, with named causes, and bills are what their days came to.",
            "journal_balances": "Every component has a revenue account, and debits equal credits.",
        },
    )


def _balance(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.supply_balance.balance import refresh
    from meter_pipeline.supply_balance.report import report

    return report(refresh(municipality.database(), municipality.calendar(), month))


def supply_balance() -> dg.AssetsDefinition:
    """Supply balance: the volumes that each zone received, passed on and metered."""
    return month_asset(
        "supply_balance",
        _balance,
        description=(
            "Delivered in, delivered out, metered, authorised without a meter, and the difference of each zone and day, with the part that is estimated. A "
            "side that is not known is said by name and never filled in. Zones whose losses leave their own history's band point to meters."
        ),
        deps=["daily_usage"],
        tables=("billing.zone_day",),
        checks={
            "sides_are_known": "Every supply meter and customer of every zone has usage on every day.",
            "losses_within_band": "Each zone's losses lie where its own history's do.",
        },
    )


def _winter(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.winter_average.report import month_report

    return month_report(municipality.database(), month)


def winter_averages() -> dg.AssetsDefinition:
    """Winter averages: winter use of services, which sets their sewer charge."""
    return month_asset(
        "winter_averages",
        _winter,
        description=(
            "Winter averages that would hold from the day after the month, from the bills of the year before it by dated rules, with the periods each stands "
            "on and why others were left out. They are charged by when they are imported (month winter-average --out)."
        ),
        deps=["statements"],
        tables=("billing.winter_average",),
        checks={
            "every_service_has_an_average": "Each service with a bill for water has an average, computed or by default."
        },
    )


def _leaks(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.reporting import month_assets

    return month_assets.leak_adjustments(municipality.database(), month)


def leak_adjustments() -> dg.AssetsDefinition:
    """Adjustments that forgive part of a bill for a leak."""
    return month_asset(
        "leak_adjustments",
        _leaks,
        description=(
            "Adjustments for confirmed leaks that are posted in the month or wait for a second person: normal use, what is forgiven, by which rule, on what "
            "evidence. They are made at the desk or by billing adjust-leak; this asset checks and shows them."
        ),
        deps=["statements"],
        tables=("billing.leak_adjustment",),
        checks={
            "leaks_are_their_lines": "Each adjustment is the sum of its lines, no charge, and stands on a confirmed leak."
        },
    )


def _estimates(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.reporting import month_assets

    return month_assets.estimated_bills(municipality.database(), month)


def estimated_bills() -> dg.AssetsDefinition:
    """Bills without a read, and the effect of the limits on estimated bills."""
    return month_asset(
        "estimated_bills",
        _estimates,
        description=(
            "Bills without a read of the periods that end in the month: how many follow each other, why, and whether the limit holds the bill or asks for a "
            "read. The statements step counts them before it issues a period; this asset checks and shows them."
        ),
        deps=["statements"],
        tables=("billing.estimated_bill",),
        checks={
            "estimates_are_counted": "Each count is one more than that of the bill before.",
            "limits_are_kept": "No bill beyond its limit is out that a person did not decide.",
        },
    )


def _units(municipality: Municipality, month: date) -> StageReport:
    from meter_pipeline.reporting import month_assets

    return month_assets.unit_charges(municipality.database(), month)


def unit_charges() -> dg.AssetsDefinition:
    """Charges by units that no meter counts."""
    return month_asset(
        "unit_charges",
        _units,
        description=(
            "Charges of the month by units that no meter counts (stormwater, carts, street lights), with services and units. They are lines of the days' "
            "charges, priced with everything else; this asset compares them with the counts in force."
        ),
        deps=["reconciled_billing"],
        tables=(),
        own="billing.charge_day",
        checks={"counts_are_charged": "Each count in force on the month's last billed day is charged, and no other."},
    )
