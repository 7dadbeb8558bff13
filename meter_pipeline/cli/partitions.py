"""``meter-pipeline partitions``: billing days made ahead, archived, restored."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.postgres import partitions
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.retention import archive_days, make_ahead, restore_days
from meter_pipeline.retention.days import AHEAD_DAYS, KEEP_DAYS
from meter_pipeline.settings import load_settings

app = typer.Typer(help="Daily partitions: make ahead, archive, restore, list.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Day = Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="The (first) billing day.")]
To = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last billing day, included.")]


def _database() -> Database:
    return open_database(load_settings())


@app.command()
def create(
    days: Annotated[int, typer.Option(min=1, max=366, help="How many days ahead, from today on.")] = AHEAD_DAYS,
    as_json: AsJson = False,
) -> None:
    """Make the empty tables of the coming days, so that no load waits for one.

    Example: meter-pipeline partitions create --days 14
    """
    calendar = load_settings().calendar()
    first = calendar.day_of(SYSTEM_CLOCK.now())
    ready = make_ahead(_database(), first, days)
    emit(
        {"first": first, "days": days, "ready": ready},
        as_json,
        lambda d: OUT.print(f"{ready} tables stand ready for {first} and {days - 1} days after"),
    )


@app.command()
def archive(
    keep_days: Annotated[int, typer.Option("--keep-days", help="Days that stay in the database.")] = KEEP_DAYS,
    as_json: AsJson = False,
) -> None:
    """Write days older than --keep-days to Parquet, prove each file, then detach and drop their partitions.

    Example: meter-pipeline partitions archive --keep-days 400
    """
    settings = load_settings()
    before = settings.calendar().day_of(SYSTEM_CLOCK.now()) - timedelta(days=keep_days)
    try:
        done = archive_days(_database(), settings.days, before)
    except ValueError as error:
        problem(str(error), "give a larger --keep-days")
    document: dict[str, Any] = {
        "before": before,
        "archived": [{"day": d, "tables": [_document(t) for t in tables]} for d, tables in done.days.items()],
        "kept": [{"day": d, "why": why} for d, why in done.kept.items()],
    }

    def render(_: Any) -> None:
        rows = [
            (d, len(tables), sum(t.rows for t in tables), sum(t.size for t in tables))
            for d, tables in done.days.items()
        ]
        OUT.print(
            table(
                f"Archived before {before}",
                ["day", "tables", "rows", "bytes"],
                rows,
                numbers=["tables", "rows", "bytes"],
            )
        )
        for d, why in done.kept.items():
            OUT.print(f"{d} stays: {why}", highlight=False)

    emit(document, as_json, render)


@app.command()
def restore(day: Day, to: To = None, as_json: AsJson = False) -> None:
    """Bring archived days back into the database, to the byte. A run of such a day does so by itself.

    Example: meter-pipeline partitions restore --day 2025-01-03
    """
    first, last = day.date(), (to or day).date()
    try:
        done = restore_days(_database(), [first + timedelta(days=k) for k in range((last - first).days + 1)])
    except partitions.ArchiveError as error:
        problem(str(error), "bring the file back from the archive's own backup; nothing was changed")
    emit(
        {"restored": [_document(t) for t in done]},
        as_json,
        lambda d: OUT.print(f"{len(done)} tables restored" if done else "nothing of these days is archived"),
    )
    if not done:
        raise typer.Exit(PROBLEM)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every daily partition and every archived day, with rows and bytes.

    Example: meter-pipeline partitions list
    """
    with _database().connect("partitions") as connection:
        attached, gone = partitions.sizes(connection), partitions.catalogue(connection)
    document = {
        "partitions": [
            {"day": d, "table": t, "state": s, "rows_estimated": r, "bytes": b} for d, t, s, r, b in attached
        ],
        "archive": [_document(t) for t in gone],
    }

    def render(_: Any) -> None:
        days: dict[tuple[date, str], list[int]] = {}
        for d, _t, s, r, b in [*attached, *((g.billing_day, g.table, g.state, g.rows, g.size) for g in gone)]:
            figures = days.setdefault((d, s), [0, 0, 0])
            figures[0], figures[1], figures[2] = figures[0] + 1, figures[1] + r, figures[2] + b
        rows = [(d, s, *figures) for (d, s), figures in sorted(days.items())]
        OUT.print(
            table(
                "Billing days", ["day", "state", "tables", "rows", "bytes"], rows, numbers=["tables", "rows", "bytes"]
            )
        )

    emit(document, as_json, render)


def _document(row: partitions.DayTable) -> dict[str, Any]:
    return {
        "day": row.billing_day,
        "table": row.table,
        "state": row.state,
        "rows": row.rows,
        "bytes": row.size,
        "file": str(row.path),
        "file_sha256": row.file_sha256,
        "content_sha256": row.content_sha256,
        "archived_at": row.archived_at,
        "ledger_entry": row.ledger_entry,
    }
