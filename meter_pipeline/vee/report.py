"""The stage's report: figures, tables, plots and checks of a billing day."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.units import from_micro
from meter_pipeline.vee import plots
from meter_pipeline.vee.estimation.methods import METHOD_NAMES
from meter_pipeline.vee.rules.catalogue import ROW_RULES, codes
from meter_pipeline.vee.summary import VeeOutcome
from meter_pipeline.vee.tables import validated


def method_name(code: str) -> str:
    """A method of the outcome (flag and AEMO method, such as S17) in words."""
    words = {"S": "substituted", "F": "final", "E": "forward estimate"}
    number = code[1:]
    named = METHOD_NAMES.get(int(number)) if number else None
    return f"{words.get(code[0], code[0])}: {named or (f'method {number}' if number else 'from the head-end')}"


def stage_report(outcome: VeeOutcome) -> StageReport:
    """The validated day for asset metadata: counts, rules that hit, worst rows, plots, and the two invariants."""
    figures: dict[str, Any] = {
        "channel_days": outcome.rows,
        "intervals_expected": outcome.expected,
        "actual": outcome.actual,
        "estimated": outcome.estimated,
        "missing": outcome.missing,
        "register_only_meters": outcome.register_only,
        "new_rows": outcome.inserted,
        "changed_rows": outcome.updated,
        "unchanged_rows": outcome.unchanged,
        "withdrawn_rows": outcome.withdrawn,
        "sum_checks": outcome.sum_checked,
        "sum_checks_failed": outcome.sum_failed,
        "rules_version": outcome.rules_version,
        "rules_sha256": outcome.rules_digest,
        "exceptions": sum(outcome.exceptions.values()),
        "seconds": round(sum(outcome.seconds.values()), 3),
    }
    if outcome.service_points is not None:
        figures["service_points_judged"] = outcome.service_points
    if outcome.whole_because:
        figures["validated_whole_because"] = outcome.whole_because
    if outcome.redetermine:
        figures["days_to_true_up"] = ", ".join(d.isoformat() for d in outcome.redetermine)
    for name, hours in outcome.shifted_head_ends.items():
        figures[f"shifted_{name}"] = f"{hours:+d} h"
    rules = pl.DataFrame(
        [(code, hits) for code, hits in sorted(outcome.rules.items(), key=lambda item: -item[1])],
        schema={"rule": pl.String, "hits": pl.Int64},
        orient="row",
    )
    exceptions = pl.DataFrame(
        list(outcome.exceptions.items()), schema={"kind": pl.String, "count": pl.Int64}, orient="row"
    )
    methods = pl.DataFrame(
        [(method_name(code), count) for code, count in sorted(outcome.methods.items())],
        schema={"method": pl.String, "intervals": pl.Int64},
        orient="row",
    )
    tables = {"rules that hit": rules, "exceptions": exceptions, "estimates": methods}
    if outcome.worst.height:
        tables["rows that need eyes"] = outcome.worst.select(
            "service_point_id",
            "meter_id",
            "channel",
            "estimated",
            "expected",
            pl.col("miss_micro")
            .map_elements(lambda v: str(from_micro(v)), return_dtype=pl.String)
            .alias("off_register"),
            "unit",
            pl.col("row_flags")
            .map_elements(lambda v: ", ".join(codes(ROW_RULES, v)), return_dtype=pl.String)
            .alias("rules"),
        )
    pictures = {}
    if outcome.shape.height:
        pictures["load shape"] = plots.load_shape(
            outcome.shape,
            f"Billing day {deployments_formats().day(outcome.billing_day)}: validated, estimated, rejected",
        )
    if outcome.methods:
        pictures["estimates by method"] = plots.estimates_by_method(
            {method_name(k): v for k, v in outcome.methods.items()}, "Estimated intervals"
        )
    drawn = plots.sum_checks(outcome.worst, "Worst sum checks") if outcome.worst.height else None
    if drawn:
        pictures["worst sum checks"] = drawn
    if outcome.worst_vectors:
        pictures["worst meters"] = plots.worst_meters(
            outcome.worst_vectors, "Meters that need eyes: raw, final, estimated"
        )
    return StageReport(
        outcome.inserted + outcome.updated + outcome.unchanged, figures, tables, pictures, _checks(outcome)
    )


def _checks(outcome: VeeOutcome) -> list[Check]:
    """The two invariants of a day, from what the store holds against what the stage counted and reference data
    expects.
    """
    stored = outcome.stored
    if stored is None:
        return []
    return [
        Check(
            "slots_complete",
            outcome.balanced,
            "every installed channel has its day, and as many stored values as it counts actual and estimated",
            {
                "expected": outcome.expected,
                "actual": outcome.actual,
                "estimated": outcome.estimated,
                "missing": outcome.missing,
                "values stored": stored.slots,
                "channels without a day": ", ".join(stored.absent) or "none",
                "rows miscounted": ", ".join(stored.miscounted) or "none",
            },
        ),
        Check(
            "sum_check",
            not stored.unlisted,
            "every stored row that misses its register is an exception",
            {
                "tested": stored.tested,
                "missed": stored.missed,
                "without an exception": ", ".join(stored.unlisted) or "none",
            },
        ),
    ]


def usage_report(database: Database, calendar: BillingCalendar, day: date) -> StageReport:
    """Daily usage of a validated day: totals, quality, and that it equals its validated intervals to the last unit."""
    usage = validated.stored_usage(database, day)
    off = _unlike_intervals(usage, validated.interval_sums(database, day))
    off_registers = _unlike_registers(usage, validated.register_sums(database, day))
    totals = (
        usage.group_by("commodity", "flow", "unit")
        .agg(
            pl.len().alias("service_points"),
            pl.col("quantity_micro").sum(),
            pl.col("estimated_micro").sum(),
            pl.col("exchange").sum().alias("exchanges"),
            pl.col("quantity_micro").is_null().sum().alias("without_usage"),
        )
        .sort("commodity", "flow", "unit")
        if usage.height
        else usage
    )
    figures: dict[str, Any] = {
        "service_points": usage.height,
        "hours_in_day": calendar.seconds(day) / 3600,
        "estimated_share": _share(usage, "estimated"),
        "missing_share": _share(usage, "missing"),
    }
    for commodity, flow, unit, _, quantity, *_rest in totals.iter_rows() if usage.height else []:
        figures[f"total {commodity} {flow} ({unit})"] = str(from_micro(int(quantity)))
    by_quality = (
        usage.select(
            pl.col("quality")
            .map_elements(lambda c: quality.flag_of(c & 0xFFFF), return_dtype=pl.String)
            .alias("worst_quality")
        )
        .group_by("worst_quality")
        .len()
        .sort("worst_quality")
        if usage.height
        else usage
    )
    check = Check(
        "usage_is_validated",
        off.height + off_registers.height == 0,
        "usage = sum of validated intervals and of what its registers say, per service point, flow and unit",
        {"service_points": usage.height, "differing": off.height, "differing_from_registers": off_registers.height},
    )
    pictures = (
        {
            "usage by quality": plots.usage_by_quality(
                _points_by_quality(usage), f"Service points on {deployments_formats().day(day)} by worst quality"
            )
        }
        if usage.height
        else {}
    )
    return StageReport(
        usage.height, figures, {"totals": totals, "days by worst quality": by_quality}, pictures, [check]
    )


def _unlike_intervals(usage: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    """Service points whose usage, less what registers alone make of it, is not the sum of their validated intervals."""
    by_intervals = usage.filter(pl.col("source") != "register").with_columns(
        by_intervals=pl.col("quantity_micro").fill_null(0) - pl.col("register_micro").fill_null(0)
    )
    joined = by_intervals.join(sums, on=["service_point_id", "flow", "unit"], how="full", coalesce=True)
    return joined.filter(
        (pl.col("by_intervals").fill_null(0) != pl.col("interval_micro").fill_null(0))
        | pl.col("slots_expected").is_null()
    )


def _unlike_registers(usage: pl.DataFrame, sums: pl.DataFrame) -> pl.DataFrame:
    """Service points and units whose usage from registers alone is not what the day's registers were put at, or one of
    whose registers was put at something else than the reads that enclose the day. Nothing for days of before this was
    kept by register."""
    if not sums.height:
        return sums
    by_registers = (
        usage.filter(pl.col("source") != "interval")
        .with_columns(held=pl.when(pl.col("source") == "mixed").then("register_micro").otherwise("quantity_micro"))
        .group_by("service_point_id", "unit")
        .agg(pl.col("held").sum())
    )
    joined = by_registers.join(sums, on=["service_point_id", "unit"], how="full", coalesce=True)
    return joined.filter(
        (pl.col("held").fill_null(0) != pl.col("register_micro").fill_null(0)) | (pl.col("unlike").fill_null(0) > 0)
    )


def _points_by_quality(usage: pl.DataFrame) -> pl.DataFrame:
    """Service points by commodity, flow and the flag of their worst quality."""
    flag = pl.col("quality").map_elements(lambda c: quality.flag_of(c & 0xFFFF), return_dtype=pl.String)
    return (
        usage.group_by("commodity", "flow", "quality")
        .len("points")
        .with_columns(quality=flag)
        .group_by("commodity", "flow", "quality")
        .agg(pl.col("points").sum())
    )


def _share(usage: pl.DataFrame, column: str) -> float:
    expected = int(usage["slots_expected"].sum()) if usage.height else 0
    return round(int(usage[column].sum()) / expected, 6) if expected else 0.0
