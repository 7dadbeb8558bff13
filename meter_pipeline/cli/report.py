"""``meter-pipeline report``: the close report of a billing day or a month as one file."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem
from meter_pipeline.deployment import prepare
from meter_pipeline.settings import load_settings


def report(
    day: Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="A billing day.")] = None,
    month: Annotated[datetime | None, typer.Option("--month", formats=["%Y-%m"], help="An accounting month.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The figures as one JSON document on stdout, and the path of the file.")
    ] = False,
) -> None:
    """Write the close report: figures, pictures, exceptions to work, signatures, in one HTML file that needs nothing
    else.

    Examples:
      meter-pipeline report --day 2026-11-01
      meter-pipeline report --month 2026-11 --json
    """
    from meter_pipeline.reporting import write_day, write_month

    if (day is None) == (month is None):
        raise typer.BadParameter("give --day or --month")
    settings = load_settings()
    database = prepare(settings)
    if day is not None:
        path, document = write_day(database, settings, day.date())
    else:
        assert month is not None  # noqa: S101 - one of the two is given
        path, document = write_month(database, settings, date(month.year, month.month, 1))

    billed = document["law"].days > 0

    def render(_: Any) -> None:
        OUT.print(f"{path}", highlight=False, soft_wrap=True)
        if not billed:
            return
        waiting = (
            f"{document['open_joints']} reconciliation check(s) open, {len(document['cases'])} exception(s) to work."
        )
        OUT.print(f"{waiting} Open it in a browser, or: meter-pipeline desk", highlight=False)

    spoken = {
        name: part.document() for name in ("law", "unbilled", "balance") if (part := document.get(name)) is not None
    }
    emit({"path": path, **document, **spoken, "billed": billed}, json, render)
    if not billed:
        what = f"{day:%Y-%m-%d} is not billed" if day is not None else f"no day of {document['of']} is billed"
        problem(f"{what}: the report shows what landed, and no figure of a bill", "meter-pipeline run --day DAY")
