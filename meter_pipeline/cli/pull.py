"""``meter-pipeline pull``: fetches from head-ends that answer requests (HTTP, reports, SFTP)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, PROBLEM, USAGE, emit, problem, table
from meter_pipeline.control import PauseProbe
from meter_pipeline.deployment import prepare
from meter_pipeline.feeds import HeadEndError, read_head_ends
from meter_pipeline.ingest import land_inbox
from meter_pipeline.ingest import pull as work
from meter_pipeline.settings import load_settings


def pull(
    head_end: Annotated[
        str | None, typer.Option("--head-end", help="Only this head-end; default: every one that is pulled.")
    ] = None,
    day: Annotated[
        datetime | None,
        typer.Option("--day", formats=["%Y-%m-%d"], help="This billing day; default: the days that miss reads."),
    ] = None,
    to: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last billing day, included.")
    ] = None,
    land: Annotated[
        bool, typer.Option("--land", help="Land what came; else the feed_arrival sensor does, or the next run.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Ask head-ends for billing days, page by page, into the inbox. A day that was cut goes on where it stopped; asking
    again is harmless.

    Example: meter-pipeline pull --head-end HES-API --day 2026-11-01 --land
    """
    settings = load_settings()
    try:
        declared = read_head_ends(settings.head_ends)
    except HeadEndError as error:
        problem(str(error), f"mend the declaration under {settings.head_ends}")
    wanted = [h for h in declared.values() if h.is_pulled and head_end in (None, h.name)]
    if head_end is not None and not wanted:
        ERR.print(
            f"[bold red]Problem:[/] no head-end {head_end} of format http, or with a table [fetch], is declared under {settings.head_ends}",
            highlight=False,
        )
        raise typer.Exit(USAGE)
    days = None
    if day is not None:
        last = (to or day).date()
        days = [day.date() + timedelta(days=n) for n in range((last - day.date()).days + 1)]
    if (to is not None and day is None) or days == []:
        ERR.print("[bold red]Problem:[/] --to needs a --day that is not after it")
        raise typer.Exit(USAGE)
    database, calendar = prepare(settings), settings.calendar()
    with PauseProbe(database, application_name="pull-pause") as probe:
        outcome = work.pull(database, calendar, wanted, settings.inbox, days=days, pause=probe)
    landed = land_inbox(database, calendar, settings) if land else None
    document: dict[str, Any] = {
        "asked": [
            {
                "head_end": a.head_end,
                "day": a.day,
                "outcome": a.outcome,
                "ok": a.ok,
                "reads": a.reads,
                "pages": a.pages,
                "retries": a.retries,
                "file": a.file,
                "meters_missing": a.missing,
                "meters": a.meters,
            }
            for a in outcome.pulls
        ],
        "held": [{"head_end": name, "why": why} for name, why in outcome.postponed],
        "landed": None if landed is None else landed.report().figures,
    }

    def render(_: Any) -> None:
        rows = [
            (
                a.head_end,
                a.day,
                a.outcome,
                a.reads,
                a.pages,
                a.retries,
                f"{a.missing} of {a.meters}" if a.meters else "",
            )
            for a in outcome.pulls
        ]
        OUT.print(
            table(
                "Asked",
                ["head-end", "day", "outcome", "reads", "pages", "retries", "meters missing before"],
                rows,
                numbers=["reads", "pages", "retries"],
            )
        )
        for name, why in outcome.postponed:
            OUT.print(f"{name} was not asked: {why}", highlight=False)
        if landed is not None:
            OUT.print(f"{len(landed.landed)} files landed, {len(landed.days)} billing days wait for their run")
        elif any(a.file for a in outcome.pulls):
            OUT.print("Next: meter-pipeline run --day YYYY-MM-DD, or leave it to the sensors")

    emit(document, json, render)
    if outcome.postponed or any(not a.ok for a in outcome.pulls):
        raise typer.Exit(PROBLEM)
