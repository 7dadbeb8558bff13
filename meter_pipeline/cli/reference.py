"""``meter-pipeline reference``: import a folder of tables; enrol the meters of a new head-end's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meter_pipeline.cli.output import ERR, OUT, PROBLEM, emit, table
from meter_pipeline.reference import Fault, ReferenceRefused, import_folder
from meter_pipeline.services import prepare
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Reference data: import DIR, enrol FILE.")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("import")
def import_(directory: Annotated[Path, typer.Argument(help="A folder with a CSV per table.")], json: Json = False) -> None:
    """Import a folder: all of it, or nothing and every fault named.

    Example: meter-pipeline reference import data/reference
    """
    try:
        counts = import_folder(prepare(load_settings()), directory)
    except ReferenceRefused as refused:
        faults = refused.faults
        emit({"imported": None, "faults": [str(f) for f in faults]}, json, lambda _: _show_faults(faults))
        raise typer.Exit(PROBLEM) from refused
    emit({"imported": counts, "faults": []}, json, lambda d: OUT.print(table("Imported", ["table", "rows"], list(counts.items()), numbers=["rows"])))


def _show_faults(faults: list[Fault]) -> None:
    for fault in faults[:40]:
        ERR.print(str(fault), highlight=False)
    ERR.print(f"[bold red]Refused:[/] {len(faults)} faults; nothing was imported. Mend the lines above and import again.")
