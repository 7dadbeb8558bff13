"""Reconciled billing: determinants and charges of the day, and the checks between every step and the one before."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from meter_pipeline.defs.lib import policy
from meter_pipeline.defs.lib.partitions import billing_months
from meter_pipeline.defs.lib.report_metadata import table as report_table
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.defs.lib.stage_asset import stage_asset
from meter_pipeline.defs.lib.table_metadata import table_metadata
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import StageReport

if TYPE_CHECKING:
    import polars as pl


def _reconciled_billing(municipality: Municipality, day: date, run_id: str) -> StageReport:
    from meter_pipeline.billing import bill_billing_day, validated_since_billed

    database = municipality.database()
    return bill_billing_day(
        database,
        municipality.calendar(),
        day,
        clock=municipality.clock(),
        shards=municipality.settings().shards,
        only=validated_since_billed(database, day),
    ).report()


def _several_billed(municipality: Municipality, days: Sequence[date], run_id: str) -> list[tuple[date, StageReport]]:
    from meter_pipeline.billing import bill_billing_days

    done = bill_billing_days(
        municipality.database(),
        municipality.calendar(),
        days,
        clock=municipality.clock(),
        shards=municipality.settings().shards,
    )
    return [(day, outcome.report()) for day, outcome in done]


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
        deps=[
            "validated_intervals",
            "daily_usage",
            "ledger_before_billing",
            *(("reference", t) for t in ("tariffs", "accounts", "agreements", "billing_cycles", "holidays")),
        ],
        checks={
            "lines_sum_to_total": "The lines of every account sum to its total.",
            "billed_equals_validated": "The quantities billed are the quantities validated, to the last unit.",
            "reconciliation": "Every reconciliation check from file to line agrees, or its difference has a named cause.",
        },
        table="billing.charge_day",
        # A service with an open check waits by name (not_reconciled); the statements of the others go out.
        blocking=False,
        run_several=_several_billed,
    )


def _statements(municipality: Municipality, day: date, run_id: str) -> StageReport:
    import polars as pl

    from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
    from meter_pipeline.billing.tables.statements import cycles_ending, unaccounted
    from meter_pipeline.schemas.report import Check

    database, calendar = municipality.database(), municipality.calendar()
    rows = []
    lost: list[str] = []
    clock = municipality.clock()
    ending = [
        issue_statements(database, calendar, cycle, day + timedelta(days=1), clock=clock)
        for cycle in cycles_ending(database, day + timedelta(days=1))
    ]
    # This day may be what bills of earlier periods waited for: a late day, or the last one that a register read asked
    # to have validated again.
    today = calendar.day_of(clock.now()) + timedelta(days=1)
    late = [done for done in issue_waiting(database, calendar, today, clock=clock) if done.issued]
    for done in [*ending, *late]:
        cycle = done.cycle_id
        lost += unaccounted(database, cycle, done.period_start)
        rows.append(
            (
                cycle,
                done.period_start,
                done.issued,
                done.already,
                done.lines,
                done.total,
                done.currency,
                str(done.exceptions),
            )
        )
    names = ["cycle", "period_start", "issued", "issued_before", "lines", "total_millionths", "currency", "waiting"]
    table = (
        pl.DataFrame(rows, schema=names, orient="row") if rows else pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    )
    issued = sum(int(row[2]) for row in rows)
    bills, drawn, open_checks = _bills(database, [(str(row[0]), row[1]) for row in rows])
    words = f"{len(lost)} accounts of {len(rows)} closed periods have neither a statement nor a reason"
    check = Check("statements_accounted_for", not lost, words, {"accounts": ", ".join(lost[:20])})
    agree = Check(
        "statements_reconciled",
        not open_checks,
        ", ".join(open_checks) or "every statement is what its days and the ledger say",
        {},
    )
    tables = {"by cycle": table, "statements": bills} if rows else {"by cycle": table}
    return StageReport(
        rows=issued,
        figures={"cycles closed": len(rows), "statements issued": issued},
        tables=tables,
        plots=drawn,
        checks=(check, agree),
    )


def _bills(database: Database, periods: list[tuple[str, date]]) -> "tuple[pl.DataFrame, dict[str, bytes], list[str]]":
    """The first statements of each closed cycle with the command that shows them, the usage behind one, and the checks
    that are open."""
    import polars as pl

    from meter_pipeline.billing import plots
    from meter_pipeline.billing.tables.statements import open_checks, period_statements, statement_days
    from meter_pipeline.page_formats import deployments_formats

    found = [period_statements(database, cycle, first, 25) for cycle, first in periods]
    bills = pl.concat(found) if found else pl.DataFrame()
    wrong = [f"{cycle}: {text}" for cycle, first in periods for text in open_checks(database, cycle, first)]
    if not bills.height:
        return bills, {}, wrong
    days = statement_days(database, bills["statement_id"][0])
    day = days.filter(pl.col("service_point_id") == days["service_point_id"][0]) if days.height else days
    if not day.height:
        return bills, {}, wrong
    names = [deployments_formats().short_day(d) for d in day["billing_day"].to_list()]
    picture = plots.daily_usage(names, [(q or 0) / 1e6 for q in day["quantity"].to_list()], day["unit"][0])
    return bills, {f"usage behind {bills['statement_id'][0]}": picture}, wrong


def statements() -> dg.AssetsDefinition:
    """The bills of the cycles that end with a billing day."""
    return stage_asset(
        "statements",
        _statements,
        group=policy.BILLING,
        description=(
            "The statements of every billing cycle whose period ends with this day: the lines of each account, prorated for its first and last days. An "
            "account with a day missing, a hold or an uncharged service waits and is listed with its reason. An issued statement is never touched again."
        ),
        deps=["reconciled_billing"],
        checks={
            "statements_accounted_for": "Every account of a closed cycle has a statement or a named reason why not.",
            "statements_reconciled": "Statements are the sum of their days and what the period's end owes, and each is a leaf of the ledger.",
        },
        table="billing.statement",
        # One bill that is off stands against the month's seal; it leaves no day without its signed checkpoint.
        blocking=False,
    )


@dg.asset(
    name="month_end_close",
    group_name=policy.BILLING,
    description=(
        "The checklist of a month's close as it stands: what is still open stands against it. Two people seal the month with `meter-pipeline billing`; a "
        "sealed month refuses every later write, and late data becomes an adjustment in the open one."
    ),
    deps=[
        dg.AssetDep(upstream, partition_mapping=dg.TimeWindowPartitionMapping())
        for upstream in ("statements", "unbilled_revenue", "supply_balance")
    ],
    partitions_def=billing_months(),
    pool=policy.POOL,
    metadata=table_metadata("billing.period"),
)
def month_end_close(context: dg.AssetExecutionContext, municipality: Municipality) -> dg.MaterializeResult[None]:
    """Take the checklist of the month and show it."""
    import polars as pl

    from meter_pipeline.billing.close import checklist
    from meter_pipeline.reporting import write_month

    month = date.fromisoformat(context.partition_key)
    points = checklist(municipality.acting_as(policy.ROLES[policy.BILLING]).database(), month)
    frame = pl.DataFrame([{k: v if isinstance(v, bool) else str(v) for k, v in point.items()} for point in points])
    still_open = sum(not point["ok"] for point in points)
    path, _ = write_month(
        municipality.acting_as(policy.CHECK_ROLE).database(), municipality.settings(), month, municipality.clock()
    )
    links = {
        "report": dg.MetadataValue.path(str(path)),
        "at the finance desk": dg.MetadataValue.url(f"{policy.desk_url()}/reports/month/{month:%Y-%m}"),
    }
    return dg.MaterializeResult(
        metadata=links
        | {"points": len(points), "still open": still_open, "ready": still_open == 0, "checklist": report_table(frame)}
    )
