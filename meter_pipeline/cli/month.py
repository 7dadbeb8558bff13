"""meter-pipeline month: the monthly reports for finance, engineering and the council."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(help="A month's unbilled revenue and supply balance.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Month = Annotated[datetime, typer.Option("--month", formats=["%Y-%m"], help="An accounting month, such as 2026-07.")]


def _open() -> Database:
    return open_database(load_settings())


def money(micro: int) -> str:
    """Millionths as an exact decimal's text, at least two places."""
    value = Decimal(micro).scaleb(-6)
    return format(
        max(value.normalize(), value.quantize(Decimal("0.01")), key=lambda v: -int(v.as_tuple().exponent)), "f"
    )


def _begun(month: date, today: date) -> None:
    """End with one line where a month has not begun: all its figures would be zero."""
    if month > today:
        problem(f"{month:%Y-%m} has not begun", f"meter-pipeline month unbilled --month {today:%Y-%m}")


@app.callback()
def root() -> None:
    """What finance, engineering and the council ask every month."""


@app.command()
def unbilled(
    month: Month,
    journal: Annotated[Path | None, typer.Option(help="Write the journal of the month here, as CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Charges of days served that are on no bill posted by the month's end, and how they moved since the month before.

    Exit 1 where the figures do not agree with the bills, or a journal is asked for and a component has no account.

    Example: meter-pipeline month unbilled --month 2026-07 --journal july.csv
    """
    from meter_pipeline.unbilled import tables
    from meter_pipeline.unbilled.journal import write_csv
    from meter_pipeline.unbilled.month import MOVES, refresh

    settings, first = load_settings(), date(month.year, month.month, 1)
    _begun(first, settings.calendar().day_of(SYSTEM_CLOCK.now()))
    database = open_database(settings)
    found = refresh(database, first)
    columns = ["customer_class", "commodity", "component", *MOVES]
    rows = [{c: money(v) if (v := row[c]).__class__ is int else v for c in columns} for row in found.roll.to_dicts()]
    totals = {move: money(found.total(move)) for move in MOVES}
    document = {
        "month": f"{first:%Y-%m}",
        "sealed": tables.is_sealed(database, first),
        "accounts": tables.accounts_unbilled(database, first),
        "currencies": sorted(set(found.roll["currency"].to_list())) if found.roll.height else [],
        "totals": totals,
        "rows": rows,
        "at_period_end_by_cause": {cause: money(amount) for cause, amount in found.end_causes.items()},
        "not_charged": found.not_charged,
        "open": found.open_points,
        "no_account": found.no_account,
        "journal_lines": len(found.journal),
    }

    def render(_: Any) -> None:
        shown = [*rows, {"customer_class": "all", "commodity": "", "component": ""} | totals]
        cells = [[row[c] for c in columns] for row in shown]
        OUT.print(table(f"Unbilled revenue at the end of {first:%Y-%m}", columns, cells, numbers=MOVES))
        for reason in found.not_charged:
            OUT.print(f"not charged: {reason['service_days']} service days ({reason['reason']})", highlight=False)

    emit(document, as_json, render)
    if found.open_points:
        problem("; ".join(found.open_points[:3]), "meter-pipeline billing law --month shows the bills behind it")
    if journal is not None:
        if found.no_account:
            problem("; ".join(found.no_account[:3]))
        write_csv(journal, found.journal)


@app.command()
def balance(month: Month, as_json: Json = False) -> None:
    """What each zone of the network received, passed on and metered, and what is left. Exit 1 where a side is not
    known.

    Example: meter-pipeline month balance --month 2026-07
    """
    from meter_pipeline.supply_balance.balance import refresh
    from meter_pipeline.supply_balance.zones import ZonesRefusedError

    settings, first = load_settings(), date(month.year, month.month, 1)
    try:
        found = refresh(open_database(settings), settings.calendar(), first)
    except ZonesRefusedError as error:
        problem(str(error), "correct the table and import the folder: meter-pipeline reference import reference")
    missing = [row for row in found.months if row["missing"]]
    document = {
        "month": f"{first:%Y-%m}",
        "zones": [{**row, "month": f"{row['month']:%Y-%m}"} for row in found.months],
        "outside_band": found.outside,
        "complete": not missing,
    }

    def render(_: Any) -> None:
        columns = [
            "zone_id",
            "unit",
            "days_known",
            "system_input",
            "billed_metered",
            "unbilled_unmetered",
            "losses",
            "uncertain",
            "losses_percent",
        ]
        rows = [[row[c] for c in columns] for row in found.months]
        OUT.print(table(f"Supply balance of {first:%Y-%m}", columns, rows, numbers=columns[2:]))
        for zone in found.outside:
            near = ", ".join(c["service_point_id"] for c in zone["candidates"]) or "none"
            OUT.print(
                f"{zone['zone_id']} loses {zone['losses_percent']} %, usually {zone['usual_percent']} %; meters to look at: {near}",
                highlight=False,
            )

    emit(document, as_json, render)
    if not found.months:
        problem(
            f"no zone has a day with usage in {first:%Y-%m}",
            "zones stand in reference/zones.csv; days are billed by meter-pipeline run",
        )
    if missing:
        problem("; ".join(f"{row['zone_id']}: {row['missing']}" for row in missing[:3]))


@app.command("winter-average")
def winter_average(
    effective: Annotated[datetime, typer.Option("--effective", formats=["%Y-%m-%d"], help="Day from which they hold.")],
    out: Annotated[Path | None, typer.Option(help="Write them here as service_attributes.csv, to be imported.")] = None,
    service_point: Annotated[str | None, typer.Option("--service-point", help="Explain one service's.")] = None,
    as_json: Json = False,
) -> None:
    """Winter averages from issued bills, by the rules of reference/winter_average_rules.csv, with what each stands on.

    Example: meter-pipeline month winter-average --effective 2027-07-01 --out new/service_attributes.csv
    """
    import json

    from meter_pipeline.winter_average.compute import refresh, write_attributes
    from meter_pipeline.winter_average.rules import WinterAverageRefusedError

    database, day = _open(), effective.date()
    try:
        found = refresh(database, day)
    except WinterAverageRefusedError as error:
        problem(str(error))
    written = write_attributes(database, out, found, day) if out is not None else 0
    by_source = dict(found.group_by("source").len().sort("source").iter_rows())
    rows = found.to_dicts()
    if service_point is not None:
        rows = [row for row in rows if row["service_point_id"] == service_point.upper()]
        if not rows:
            problem(f"{service_point} has no bill for water in the year before {day}")
    averages: list[dict[str, Any]] = [
        {
            "service_point_id": row["service_point_id"],
            "account_id": row["account_id"],
            "per_day": None if row["per_day"] is None else money(row["per_day"]),
            "unit": row["unit"],
            "source": row["source"],
            "periods": json.loads(row["periods"]),
        }
        for row in rows
    ]
    document = {
        "effective": day,
        "services": found.height,
        "by_source": by_source,
        "written": written,
        "averages": averages,
    }

    def render(_: Any) -> None:
        counts = ", ".join(f"{n} {source}" for source, n in by_source.items())
        OUT.print(f"{found.height} services: {counts or 'none'}", highlight=False)
        for row in averages if service_point is not None else []:
            OUT.print(
                f"{row['service_point_id']} {row['account_id']}: {row['per_day']} {row['unit']} a day ({row['source']})",
                highlight=False,
            )
            columns = ["from", "to", "days", "quantity", "left_out"]
            OUT.print(
                table(None, columns, [[p[c] for c in columns] for p in row["periods"]], numbers=["days", "quantity"])
            )

    emit(document, as_json, render)
