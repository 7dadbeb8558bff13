"""``meter-pipeline ingest``: registered files read again from the archive."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.ingest import FileFolders
from meter_pipeline.ingest.read_again import StagingError, restage_files
from meter_pipeline.ingest.restage import DayIsBeingWritten
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(help="Read files again from the archive.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Read files again from the archive."""


@app.command()
def restage(
    file: Annotated[
        str | None, typer.Argument(help="HEAD-END/NAME of a file, as it arrived. Default: every file that waits.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Stage again what files give today, from their archived bytes: after meters were enrolled, a declaration or a
    parser was mended, or the staging folder was lost. Nothing that is loaded is loaded twice.

    Example: meter-pipeline ingest restage
    """
    settings = load_settings()
    places = FileFolders(settings.archive, settings.staging)
    try:
        done = restage_files(
            open_database(settings), settings.calendar(), places, read_head_ends(settings.head_ends), name=file
        )
    except StagingError as error:
        problem(str(error))
    except DayIsBeingWritten as error:
        problem(str(error), "wait for that run to end, then try again")
    if file is not None and not done:
        problem(f"no file {file} has arrived", "meter-pipeline status shows what did")
    document = {
        "files": [
            {
                "file": one.file_name,
                "changed": one.changed,
                "days": one.days,
                "letters_closed": one.letters_closed,
                "letters_written": one.letters_written,
            }
            for one in done
        ]
    }

    def render(_: Any) -> None:
        rows = [(one.file_name, len(one.days), one.letters_closed, one.letters_written) for one in done if one.changed]
        OUT.print(f"{len(done)} files read again, {len(rows)} give something else than before")
        if rows:
            columns = ("file", "days that wait", "dead letters closed", "dead letters new")
            OUT.print(table(None, columns, rows, numbers=columns[1:]))

    emit(document, as_json, render)
