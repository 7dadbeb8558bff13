"""Result of a check over several billing days: a row for each day, and one result for the step."""

from collections.abc import Mapping

import dagster as dg


def result_of_days(
    context: dg.AssetCheckExecutionContext,
    asset: str,
    name: str,
    results: Mapping[str, dg.AssetCheckResult],
    *,
    blocking: bool = False,
) -> dg.AssetCheckResult:
    """The first result that failed, else the last. ``results`` by partition key, in order.

    A run over a range of days gives a check one result to return, which Dagster stores without a partition; each day's
    own evaluation is logged beside it.
    """
    if len(results) > 1:
        for key, result in results.items():
            context.op_execution_context.log_event(
                dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # taken since 1.13, the annotation lags behind
                    asset_key=dg.AssetKey.from_coercible(asset),
                    check_name=name,
                    passed=result.passed,
                    metadata=dict(result.metadata),
                    description=result.description,
                    severity=dg.AssetCheckSeverity.ERROR,
                    blocking=blocking,
                    partition=key,
                )
            )
    every = list(results.values())
    return next((result for result in every if not result.passed), every[-1])
