"""``meter-pipeline simulate``: writes the feeds of a simulated municipality."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import ERR, OUT, USAGE, emit, progress


def _refuse(message: str) -> typer.Exit:
    ERR.print(f"[bold red]Problem:[/] {message}", highlight=False)
    return typer.Exit(USAGE)


def simulate(
    out: Annotated[
        Path,
        typer.Option(help="Folder to write: utility.toml, reference/, tariffs/, head_ends/, inbox/, truth.parquet."),
    ],
    meters: Annotated[int | None, typer.Option(help="Metered service points.", min=1)] = None,
    days: Annotated[int | None, typer.Option(help="Billing days.", min=1)] = None,
    interval: Annotated[int, typer.Option(help="Minutes of an electricity interval: 5, 10, 15, 30 or 60.")] = 15,
    start: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First billing day.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
    zone: Annotated[str, typer.Option(help="IANA time zone of the billing days.")] = "America/Chicago",
    defects: Annotated[
        bool, typer.Option("--defects/--clean", help="Plant defects and name them in truth.parquet.")
    ] = True,
    formats: Annotated[
        str, typer.Option(help="Comma-separated: delimited, jsonl, nem12, cmep, register.")
    ] = "delimited,jsonl,nem12,cmep,register",
    mix: Annotated[str, typer.Option(help="city (electricity, water, gas) or electricity.")] = "city",
    meters_per_file: Annotated[int, typer.Option(help="Most meters in a file.", min=1)] = 25_000,
    demo: Annotated[bool, typer.Option("--demo", help="The demo municipality of data/, with its feeds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write the feeds of a simulated municipality, with a list of every planted defect.

    The same options give the same bytes. Example: simulate --meters 1000 --days 3 --out city
    """
    from meter_pipeline.simulator import DEMO, Spec
    from meter_pipeline.simulator import simulate as write_city

    try:
        if demo:
            spec = replace(DEMO, defects=defects)
        elif meters is None or days is None:
            raise _refuse("--meters and --days are needed (or --demo)")
        else:
            spec = Spec(
                meters=meters,
                days=days,
                interval_minutes=interval,
                start=start.date() if start else date(2026, 10, 29),
                seed=seed,
                zone=zone,
                defects=defects,
                mix=mix,
                formats=tuple(f.strip() for f in formats.split(",") if f.strip()),
                meters_per_file=meters_per_file,
            )
        with progress() as bar:
            task = bar.add_task("simulating", total=None)
            city = write_city(spec, out, lambda done, of: bar.update(task, completed=done, total=of))
    except ValueError as error:
        raise _refuse(str(error)) from error
    document = {
        "out": str(city.out),
        "meters": spec.meters,
        "days": spec.days,
        "start": spec.start,
        "end": spec.day(spec.days - 1),
        "zone": spec.zone,
        "seed": spec.seed,
        "files": city.files,
        "reads": city.reads,
        "bytes": city.size,
        "defects": city.defects,
    }
    emit(document, as_json, _render)


#: mounted by the command line
app = simulate


def _render(document: Any) -> None:
    OUT.print(
        f"{document['reads']:,} reads of {document['meters']:,} service points in {document['files']} files "
        f"({document['bytes'] / 1e6:,.1f} MB), {document['defects']:,} planted defects and events: {document['out']}",
        highlight=False,
    )
