"""``meter-pipeline reference enrol``: the meters of a new head-end's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, SHOWN_LINES, emit, problem
from meter_pipeline.deployment import prepare
from meter_pipeline.settings import load_settings

#: lines of notes shown on a terminal


Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


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
        problem(str(refusal), "docs/feeds.md: name, [constants], [channel_map] and [[values]]")
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
    message = f"{document['enrolled']} meters with {document['channels']} channels"
    OUT.print(f"{message} enrolled on {tariff} from {document['file']}")
    for note in document["notes"][:SHOWN_LINES]:
        OUT.print(note, highlight=False)
    if len(document["notes"]) > SHOWN_LINES:
        OUT.print(f"and {len(document['notes']) - SHOWN_LINES} more of the same; --json lists them")
