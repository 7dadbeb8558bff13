"""Turns a stage's report of a billing day into Dagster events: once a day, in single runs and in range runs
alike.

A range run would leave one metadata for all its days and check rows without a partition (measured on 1.13.27), so for
more than one day the metadata is added and the check evaluated per partition key.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any, Final

import dagster as dg
import polars as pl

from meter_pipeline.schemas.report import StageReport

#: Each image is stored in the event log at every materialisation.
MOST_IMAGE_BYTES = 20_000


#: Days of a range run that are handed to a stage at once
DAYS_AT_ONCE: Final = 31


def run_days(
    context: dg.AssetExecutionContext,
    check_names: Sequence[str],
    run_some: Callable[[list[date]], list[tuple[date, StageReport]]],
    *,
    blocking: bool = True,
    at_once: int = 1,
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Run each billing day of the run, ``at_once`` of them in one call, and tell Dagster of each. Where the checks are
    ``blocking``, one that fails stops what is downstream after every day was reported."""
    keys = list(context.partition_keys)
    days = [date.fromisoformat(key) for key in keys]
    if len(keys) == 1:
        [(_, report)] = run_some(days)
        yield dg.MaterializeResult(
            metadata=metadata(report), check_results=[_result(report, name) for name in check_names]
        )
        return
    passed = dict.fromkeys(check_names, True)
    total = 0
    reports = (found for first in range(0, len(days), at_once) for found in run_some(days[first : first + at_once]))
    for done, (day, report) in enumerate(reports, start=1):
        key = day.isoformat()
        total += report.rows
        context.add_asset_metadata(metadata(report), partition_key=key)
        for name in check_names:
            result = _result(report, name)
            passed[name] &= result.passed
            context.op_execution_context.log_event(
                dg.AssetCheckEvaluation(  # type: ignore[arg-type]  # taken since 1.13, the annotation lags behind
                    asset_key=context.asset_key,
                    check_name=name,
                    passed=result.passed,
                    metadata=dict(result.metadata),
                    description=result.description,
                    blocking=blocking,
                    partition=key,
                )
            )
        context.log.info("%s: %d of %d billing days, %d rows", key, done, len(keys), report.rows)
    yield dg.MaterializeResult(
        metadata={"billing days in this run": len(keys)},
        check_results=[
            dg.AssetCheckResult(check_name=name, passed=ok, description=f"over {len(keys)} billing days")
            for name, ok in passed.items()
        ],
    )


def metadata(report: StageReport, *, partitioned: bool = True) -> dict[str, Any]:
    """A report as Dagster metadata: counts as numbers, frames as tables of at most 50 rows, plots as images."""
    out: dict[str, Any] = {"dagster/partition_row_count" if partitioned else "dagster/row_count": report.rows}
    for name, value in report.figures.items():
        out[name] = value if isinstance(value, bool | int | float | str | dg.MetadataValue) else str(value)
    for name, frame in report.tables.items():
        if frame.height:
            out[name] = table(frame)
    for name, png in report.plots.items():
        if png:
            out[name] = image(png, name)
    return out


def image(png: bytes, alternative: str) -> dg.MetadataValue[Any]:
    """A PNG as metadata the UI draws. Left out, and said so, where it would swell the event log."""
    if len(png) > MOST_IMAGE_BYTES:
        return dg.MetadataValue.text(f"plot of {len(png)} bytes left out")
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(frame: pl.DataFrame, most: int = 50) -> dg.MetadataValue[Any]:
    """A frame as a table the UI shows."""
    shown = frame.head(most).with_columns(pl.col(pl.Datetime, pl.Date, pl.Decimal, pl.Duration).cast(pl.String))
    records = [
        dg.TableRecord(
            {k: v if isinstance(v, bool | int | float | str) or v is None else str(v) for k, v in row.items()}
        )
        for row in shown.to_dicts()
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(name, str(dtype)) for name, dtype in frame.schema.items()])
    return dg.MetadataValue.table(records=records, schema=schema)


def _result(report: StageReport, name: str) -> dg.AssetCheckResult:
    found = next((c for c in report.checks if c.name == name), None)
    if found is None:
        return dg.AssetCheckResult(check_name=name, passed=False, description="the stage did not evaluate this check")
    return dg.AssetCheckResult(
        check_name=name,
        passed=found.passed,
        description=found.description or None,
        metadata={
            k: v if isinstance(v, bool | int | float | str | dg.MetadataValue) else str(v)
            for k, v in found.figures.items()
        },
    )
