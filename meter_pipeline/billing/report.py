"""A billed day for people: figures, tables, plots, invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from meter_pipeline.billing import plots
from meter_pipeline.billing.reconcile import CAUSES, micro
from meter_pipeline.billing.service_agreements import EXCEPTIONS
from meter_pipeline.page_formats import deployments_formats
from meter_pipeline.schemas.report import Check, StageReport

if TYPE_CHECKING:
    from meter_pipeline.billing.day import BillingOutcome


def _joint_check(outcome: BillingOutcome, name: str, checks: tuple[str, ...] | None, about: str) -> Check:
    table = outcome.reconciliation
    if checks is not None:
        table = table.filter(pl.col("joint").is_in(checks))
    wrong = table.filter(pl.col("cause") == "open")
    described = (
        about
        if not wrong.height
        else f"open: {', '.join(wrong['joint'].unique().sort().to_list())}; the bills of "
        f"{wrong['subject'].n_unique()} services wait: {', '.join(wrong['subject'].unique().sort().head(5).to_list())}"
    )
    return Check(name, not wrong.height, described, {"rows": table.height, "open": wrong.height})


def stage_report(outcome: BillingOutcome) -> StageReport:
    """Figures, the reconciliation checks, exceptions and plots of a billed day."""
    day = deployments_formats().day(outcome.billing_day)
    unbilled = outcome.exception_rows.with_columns(
        pl.col("reason").replace_strict(EXCEPTIONS, default="").alias("meaning")
    )
    some = {} if outcome.service_points is None else {"service points billed again": outcome.service_points}
    figures: dict[str, object] = some | {
        "services": outcome.services,
        "services charged": outcome.charged,
        "billed": f"{micro(outcome.total):,.2f} {outcome.currency}",
        "services with estimates": outcome.estimated_services,
        "services written": outcome.changed,
        "later days carried forward": len(outcome.carried),
        "sealed": outcome.sealed,
        "revisions of sealed days": outcome.revisions,
        "issued statements touched": outcome.statements_touched,
        "adjustments proposed": len(outcome.adjustments),
        "exceptions": sum(outcome.exceptions.values()),
        "unbilled services": unbilled.filter(pl.col("reason") != "no_usage")["service_point_id"].n_unique(),
        "estimate streaks": outcome.streaks.height,
        **{f"seconds {k}": v for k, v in outcome.seconds.items()},
    }
    components = pl.DataFrame(
        [(name, f"{micro(amount):,.2f}") for name, amount in sorted(outcome.by_component.items())],
        schema=["component", "amount"],
        orient="row",
    )
    checks = outcome.reconciliation.select(
        "joint",
        "subject",
        "unit",
        pl.col("expected").cast(pl.String),
        pl.col("actual").cast(pl.String),
        (pl.col("actual") - pl.col("expected")).cast(pl.String).alias("difference"),
        "cause",
        pl.col("cause").replace_strict(CAUSES, default="").alias("meaning"),
        "items",
        "detail",
    ).sort(pl.col("cause") != "open", "joint")
    pictures = {"reconciliation": plots.reconciliation_waterfall(outcome.reconciliation, f"Reconciliation of {day}")}
    if outcome.by_period.height:
        pictures["load by period"] = plots.load_by_period(outcome.by_period, f"Usage by tariff and period, {day}")
    return StageReport(
        rows=outcome.charged,
        figures=figures,
        plots=pictures,
        tables={
            "by component": components,
            "reconciliation checks": checks,
            "exceptions": unbilled,
            "estimate streaks": outcome.streaks,
            "adjustments proposed": pl.DataFrame({"adjustment": outcome.adjustments}, schema={"adjustment": pl.String}),
        },
        checks=[
            _joint_check(
                outcome, "lines_sum_to_total", ("lines_to_total",), "the lines of every account sum to its total"
            ),
            _joint_check(
                outcome,
                "billed_equals_validated",
                ("validated_to_determinants", "determinants_to_lines"),
                "quantities billed are the quantities validated, or the difference is a named exception",
            ),
            _joint_check(outcome, "reconciliation", None, "every check agrees or its difference has a named cause"),
        ],
    )
