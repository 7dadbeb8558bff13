"""``meter-pipeline reference``: import a folder of tables; enrol the meters of a new head-end's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, PROBLEM, emit, problem, table
from meter_pipeline.deployment import prepare
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import Fault, ReferenceRefused, import_folder
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Reference data: import DIR, enrol FILE, end or remove a row.")
#: lines of notes shown on a terminal
_SHOWN_NOTES = 20
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(help="A folder with a CSV per table.")], json: Json = False
) -> None:
    """Import a folder: all of it, or nothing and every fault named.

    Example: meter-pipeline reference import data/reference
    """
    try:
        counts = import_folder(prepare(load_settings()), directory)
    except ReferenceRefused as refused:
        faults = refused.faults
        emit({"imported": None, "faults": [str(f) for f in faults]}, json, lambda _: _show_faults(faults))
        raise typer.Exit(PROBLEM) from refused
    emit(
        {"imported": counts, "faults": []},
        json,
        lambda d: OUT.print(table("Imported", ["table", "rows"], list(counts.items()), numbers=["rows"])),
    )


def _show_faults(faults: list[Fault]) -> None:
    for fault in faults[:40]:
        ERR.print(str(fault), highlight=False)
    ERR.print(
        f"[bold red]Refused:[/] {len(faults)} faults; nothing was imported. Mend the lines above and import again."
    )


Who = Annotated[str, typer.Option("--by", help="Who you are.")]
Why = Annotated[str, typer.Option("--why", help="The reason; it goes into the ledger.")]
Row = Annotated[list[str], typer.Argument(help="The row's key, in the order of the table's key columns.")]


def _acting(database: Database, name: str, by: str) -> str:
    """Who changes reference data, entitled and proven."""
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, "reference", name, by, decisions.WORK)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="TABLE")], key: Row, by: Who, why: Why, json: Json = False
) -> None:
    """Take one row out of a reference table. Days that stood on it are run again to bill them without it.

    Example: meter-pipeline reference remove agreements SP-1 2026-09-03 --by ana --why "typed twice"
    """
    from meter_pipeline.reference.importing import remove_row

    _changed(
        lambda database: remove_row(database, name, key, by=_acting(database, name, by), why=why),
        f"{name}: removed",
        json,
    )


@app.command()
def end(
    name: Annotated[str, typer.Argument(metavar="TABLE")],
    key: Row,
    on: Annotated[
        str, typer.Option("--on", help="The day after the last, or an instant with its zone for installations.")
    ],
    by: Who,
    why: Why,
    json: Json = False,
) -> None:
    """End one row of a reference table on a date. Days after it are run again to bill them without it.

    Example: meter-pipeline reference end agreements SP-1 2026-09-03 --on 2026-10-01 --by ana --why "moved out"
    """
    from meter_pipeline.reference.importing import end_row

    _changed(
        lambda database: end_row(database, name, key, on, by=_acting(database, name, by), why=why),
        f"{name}: ended",
        json,
    )


def _changed(change: Callable[[Database], dict[str, Any]], what: str, json: bool) -> None:
    try:
        row = change(prepare(load_settings()))
    except ReferenceRefused as refused:
        problem(str(refused.faults[0]))
    emit(
        {"row": row},
        json,
        lambda d: OUT.print(f"{what}: {' '.join(str(v) for v in d['row'].values() if v is not None)}"),
    )


@app.command()
def enrol(
    file: Annotated[Path, typer.Argument(help="A feed file of the new head-end.")],
    tariff: Annotated[
        str, typer.Option("--tariff", help="Tariff of the new agreements; it must be in the reference data.")
    ],
    head_end: Annotated[
        str | None, typer.Option("--head-end", help="A declared head-end by name, or a path to its TOML file.")
    ] = None,
    cycle: Annotated[
        str, typer.Option("--cycle", help="Billing cycle of the new agreements; its calendar months are added.")
    ] = "MONTHLY",
    customer_class: Annotated[
        str, typer.Option("--class", help="residential, commercial, industrial or municipal.")
    ] = "residential",
    json: Json = False,
) -> None:
    """Admit the meters of a new head-end's file: service points, accounts and agreements, so that its reads can be
    billed.

    Example: meter-pipeline reference enrol first-day.csv --head-end data/head_ends/water.toml --tariff WATER-RES
    """
    from meter_pipeline.feeds.head_ends import HeadEndError, read_head_end, read_head_ends
    from meter_pipeline.feeds.registry import parse, sniff
    from meter_pipeline.feeds.rejects import FeedRefused
    from meter_pipeline.reference.enrolment import Enrolment, EnrolmentRefused, admit, cycle_periods, known_channels_of
    from meter_pipeline.reference.importing import import_rows
    from meter_pipeline.reference.tables import read_table

    settings = load_settings()
    database, calendar = prepare(settings), settings.calendar()
    try:
        if head_end is None:
            declared = sniff(file)
        elif head_end.endswith(".toml"):
            declared = read_head_end(Path(head_end))
        else:
            declared = read_head_ends(settings.head_ends)[head_end]
        parsed = parse(file, declared, calendar)
    except (HeadEndError, FeedRefused) as error:
        problem(str(error))
    except KeyError:
        problem(
            f"no head-end {head_end} in {settings.head_ends}",
            "declare it in a TOML file there, or give the file's path",
        )
    tariffs = read_table(database, "tariffs").filter(tariff_id=tariff)
    if not tariffs.height:
        problem(f"no tariff {tariff} in the reference data", "import it first: meter-pipeline reference import DIR")
    known = frozenset(read_table(database, "meters")["meter_id"].to_list())
    how = Enrolment(declared.name.upper(), tariff, cycle, str(tariffs["commodity"][0]), customer_class)
    if not parsed.intervals.height and not parsed.registers.height:
        refused = parsed.rejects["reasons"].to_list()[:1] or [
            [{"code": "no_reads", "detail": "the file holds no reads"}]
        ]
        problem(
            f"{file.name}: {refused[0][0]['code']}: {refused[0][0]['detail']}", f"meter-pipeline feeds inspect {file}"
        )
    try:
        channels = known_channels_of(read_table(database, "channels"), parsed)
        admitted = admit(parsed, calendar, how, known, channels)
    except EnrolmentRefused as refusal:
        problem(str(refusal), "[constants], [channel_map] and [[values]] in docs/feeds.md name channels")
    rows = admitted.rows
    counts = import_rows(database, cycle_periods(parsed, calendar, cycle) | rows, {}, str(file)) if rows else {}
    document = {
        "file": file.name,
        "enrolled": counts.get("meters", 0),
        "channels": counts.get("channels", 0),
        "known_already": len(known),
        "rows": counts,
        "notes": admitted.notes,
    }
    emit(document, json, lambda d: _show_enrolled(d, tariff))


def _show_enrolled(document: dict[str, Any], tariff: str) -> None:
    said = f"{document['enrolled']} meters with {document['channels']} channels"
    OUT.print(f"{said} enrolled on {tariff} from {document['file']}")
    for note in document["notes"][:_SHOWN_NOTES]:
        OUT.print(note, highlight=False)
    if len(document["notes"]) > _SHOWN_NOTES:
        OUT.print(f"and {len(document['notes']) - _SHOWN_NOTES} more of the same; --json lists them")
