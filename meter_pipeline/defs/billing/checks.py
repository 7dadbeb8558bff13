"""The law of billing as checks of each day and month: all usage is billed, accrued, or waiting for a reason."""

from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.check_results import result_of_days
from meter_pipeline.defs.lib.partitions import billing_days, billing_months
from meter_pipeline.defs.lib.resources import Municipality

if TYPE_CHECKING:
    from meter_pipeline.revenue_assurance.result import LawResult


def law_of_the_day() -> dg.AssetChecksDefinition:
    """A check of every billing day that all validated usage is billed, accrued or waiting for a reason. It does not
    block: one service that is unaccounted for stops no other bill, and a month with one cannot be sealed."""

    @dg.asset_check(
        asset="statements",
        name="usage_is_billed_accrued_or_waiting",
        description="Every validated unit of the day is on a bill, accrued, or waiting under a reason that people see; computed without billing's code.",
        blocking=False,
        partitions_def=billing_days(),
        pool=policy.POOL,
    )
    def check(context: dg.AssetCheckExecutionContext, municipality: Municipality) -> dg.AssetCheckResult:
        from meter_pipeline.revenue_assurance.law import keep_law_of_day

        database = municipality.acting_as(policy.ROLES[policy.BILLING]).database()
        keys = list(context.op_execution_context.partition_keys)
        results = {
            key: law_result(keep_law_of_day(database, date.fromisoformat(key), clock=municipality.clock()))
            for key in keys
        }
        return result_of_days(context, "statements", "usage_is_billed_accrued_or_waiting", results)

    return check


def law_of_the_month() -> dg.AssetChecksDefinition:
    """The same of a month, where its close is taken."""

    @dg.asset_check(
        asset="month_end_close",
        name="usage_of_the_month_is_billed_accrued_or_waiting",
        description="Every validated unit of the month is on a bill, accrued, or waiting under a reason that people see; a month cannot be sealed otherwise.",
        blocking=False,
        partitions_def=billing_months(),
        pool=policy.POOL,
    )
    def check(context: dg.AssetCheckExecutionContext, municipality: Municipality) -> dg.AssetCheckResult:
        from meter_pipeline.revenue_assurance.law import law_of_month

        database = municipality.acting_as(policy.CHECK_ROLE).database()
        results = [
            law_result(law_of_month(database, date.fromisoformat(key)))
            for key in context.op_execution_context.partition_keys
        ]
        return next((r for r in results if not r.passed), results[-1])

    return check


def law_result(result: "LawResult") -> dg.AssetCheckResult:
    """The result of the law as Dagster shows it."""
    document = result.document()
    shown: dict[str, Any] = {"service_points": result.service_points, "days": result.days}
    for unit in document["totals"]:
        shown[f"usage, {unit['unit'] or 'none'}"] = (
            "{validated} = {billed} billed + {accrued} accrued + {waiting} waiting".format(**unit)
        )
    for name in ("open", "waiting"):
        lines = [
            f"- {r['billing_day']} {r['service_point_id']}: {r['validated']} {r['unit']}: {r['why']}"
            for r in document[name][:20]
        ]
        lines += [f"- {text}" for text in document[f"bills_{name}"][:20]]
        if lines:
            shown[name] = dg.MetadataValue.md("\n".join(lines))
    return dg.AssetCheckResult(passed=result.ok, description=result.sentence(), metadata=shown)
