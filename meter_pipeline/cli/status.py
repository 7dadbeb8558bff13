"""``meter-pipeline status``: reads, billing days, money, waiting work and the pause at a glance."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from meter_pipeline.cli import summary
from meter_pipeline.cli.output import OUT, emit
from meter_pipeline.deployment import prepare
from meter_pipeline.reporting import overview
from meter_pipeline.settings import load_settings


def status(
    day: Annotated[
        datetime | None,
        typer.Option("--day", formats=["%Y-%m-%d"], help="First billing day; default: the last seven known."),
    ] = None,
    to: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last billing day.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Reads by outcome, billing days, flags, money, what waits, and whether the emergency pause is raised.

    Example: meter-pipeline status --day 2026-10-29 --to 2026-11-04
    """
    database = prepare(load_settings())
    known = overview.known_days(database)
    if known is None and day is None:
        emit(
            {"days": []},
            json,
            lambda _: OUT.print(
                "No file has landed yet. Put one in the inbox and run: meter-pipeline run --day YYYY-MM-DD"
            ),
        )
        return
    last = to.date() if to else day.date() if day else known[1] if known else datetime.now().astimezone().date()
    first = day.date() if day else max(known[0], last.fromordinal(last.toordinal() - 6)) if known else last
    emit(summary.document(database, first, last), json, summary.show)
