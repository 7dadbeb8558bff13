"""``meter-pipeline reference map`` and ``reference check``: exports of the customer system as reference tables."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table

if TYPE_CHECKING:
    from meter_pipeline.mapping import MappedTables
    from meter_pipeline.settings import Settings

#: faults and changes that are shown on a terminal
_SHOWN = 30
Exports = Annotated[Path, typer.Argument(help="Folder of the customer system's exports.")]
Folder = Annotated[
    Path | None, typer.Option("--mapping", help="Folder of the mapping's TOML files; mapping/ of the deployment.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def map_(
    exports: Exports,
    out: Annotated[Path, typer.Option("--out", help="Folder the tables are written to.")],
    mapping: Folder = None,
    json: Json = False,
) -> None:
    """Turn exports into a folder of reference tables, as mapping/*.toml declares. Exit 1 where a row has a fault.

    Example: meter-pipeline reference map exports --out tables && meter-pipeline reference import tables --dry-run
    """
    from meter_pipeline.settings import load_settings

    mapped = _make(load_settings(), exports, out, mapping)
    emit(_document(mapped), json, _show)
    if mapped.faults:
        raise typer.Exit(PROBLEM)


def check(
    exports: Exports,
    mapping: Folder = None,
    preview: Annotated[bool, typer.Option("--preview/--no-preview", help="Show what an import would change.")] = True,
    json: Json = False,
) -> None:
    """Make the tables of exports and show the result, every fault with file and line of the export, and what an import
    would change. Nothing is written. Exit 1 where a row has a fault.

    Example: meter-pipeline reference check exports
    """
    from meter_pipeline.settings import load_settings

    settings = load_settings()
    with tempfile.TemporaryDirectory() as folder:
        mapped = _make(settings, exports, Path(folder), mapping)
        document = _document(mapped)
        if preview and not mapped.faults:
            document["preview"] = _preview(settings, Path(folder))
    emit(document, json, _show)
    if mapped.faults:
        raise typer.Exit(PROBLEM)


def _make(settings: Settings, exports: Path, out: Path, mapping: Path | None) -> MappedTables:
    from meter_pipeline.mapping import MappingError, make_tables, read_mapping

    if not exports.is_dir():
        raise typer.BadParameter(f"no folder {exports}", param_hint="EXPORTS")
    try:
        return make_tables(read_mapping(mapping or settings.data / "mapping"), exports, out, settings.calendar().zone)
    except MappingError as error:
        problem(str(error), "docs/mapping.md shows every key")


def _document(made: MappedTables) -> dict[str, Any]:
    return {
        "tables": made.tables,
        "faults": [{"file": f.file, "line": f.line, "column": f.column, "why": f.why} for f in made.faults],
        "ids": [{"column": root, "original": original, "id": ours} for (root, original), ours in made.ids.items()],
    }


def _preview(settings: Settings, folder: Path) -> dict[str, Any]:
    """What importing the tables would change, as ``reference import --dry-run`` says it."""
    from meter_pipeline.corrections.preview import preview_folder
    from meter_pipeline.deployment import prepare
    from meter_pipeline.reference import ReferenceRefused

    try:
        previewed = preview_folder(prepare(settings), settings.calendar(), folder, snapshot=None)
    except ReferenceRefused as refused:
        return {"refused": [str(fault) for fault in refused.faults]}
    return dict(previewed.document)


def _show(document: dict[str, Any]) -> None:
    OUT.print(table("Tables", ["table", "rows"], list(document["tables"].items()), numbers=["rows"]))
    faults = document["faults"]
    if faults:
        rows = [(f["file"], f["line"], f["column"], f["why"]) for f in faults[:_SHOWN]]
        OUT.print(table(f"{len(faults)} faults", ["file", "line", "column", "why"], rows, numbers=["line"]))
    if document["ids"]:
        OUT.print(f"{len(document['ids'])} ids are written otherwise here: ids.csv has both", highlight=False)
    preview = document.get("preview")
    if preview is None:
        return
    for why in preview.get("refused") or []:
        OUT.print(f"An import would be refused: {why}", highlight=False)
    changes = preview.get("changes", [])
    OUT.print(f"An import would change {len(changes)} values: reference import --dry-run shows them", highlight=False)
