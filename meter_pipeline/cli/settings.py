"""``meter-pipeline settings``: every setting with its value and where it comes from."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, table
from meter_pipeline.settings import deployment_folder, in_force


def settings(json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """Show every setting, its value and its source: the environment, utility.toml or the default.

    Example: meter-pipeline settings
    """
    folder = deployment_folder()
    document = {
        "deployment": folder,
        "settings": [
            {"name": s.name, "variable": s.variable, "value": value, "source": source, "meaning": s.meaning}
            for s, value, source in in_force(os.environ, folder)
        ],
    }
    emit(document, json, _show)


def _show(document: dict[str, Any]) -> None:
    title = f"Deployment: {document['deployment'] or 'the checkout itself'}"
    rows = [[row["name"], row["value"], row["source"], row["meaning"]] for row in document["settings"]]
    OUT.print(table(title, ["setting", "value", "source", "meaning"], rows))
