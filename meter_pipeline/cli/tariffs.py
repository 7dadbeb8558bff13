"""meter-pipeline tariffs: read a tariff, price a load with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from meter_pipeline.billing.rate_calculator import COMPONENTS, LoadRefusedError, load_file, price
from meter_pipeline.billing.tariffs import TariffRefusedError, load_tariff
from meter_pipeline.cli.output import ERR, OUT, PROBLEM, USAGE, emit, table

app = typer.Typer(help="Tariff documents: check one, price a load with one.", no_args_is_help=True)


def _render(document: Any) -> None:
    if document["refused"]:
        ERR.print(f"[bold red]Refused:[/] {document['refused']}", highlight=False)
        return
    annual = document["annual"]
    shown = [c for c in COMPONENTS if annual[c] or c == "total"]
    columns = ["month", "kWh", *shown]
    rows = [[m["month"], f"{m['energy_kwh']:,.0f}", *(f"{m[c]:,.2f}" for c in shown)] for m in document["monthly"]]
    rows.append(["all", "", *(f"{annual[c]:,.2f}" for c in shown)])
    OUT.print(table(document["tariff"], columns, rows, numbers=columns[1:]))
    for note in document["notes"]:
        OUT.print(f"note: {note}", highlight=False)


@app.command("price")
def price_command(
    tariff: Annotated[Path, typer.Argument(help="URDB v8 or native tariff, JSON.")],
    load: Annotated[
        Path, typer.Argument(help="CSV with the columns interval_start and kwh; negative kWh are exports.")
    ],
    timezone: Annotated[
        str | None, typer.Option(help="Zone that stamps with an offset are converted to, e.g. America/Los_Angeles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Price a load by month: energy, demand, fixed, minimum, tax and total, exact.

    Example: meter-pipeline tariffs price SCE_TOU-8.json load.csv --timezone America/Los_Angeles --json
    """
    if timezone is not None:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            ERR.print(
                f"[bold red]Usage:[/] no time zone {timezone!r}; give an IANA name such as America/Chicago",
                highlight=False,
            )
            raise typer.Exit(USAGE) from None
    if not load.is_file():
        ERR.print(f"[bold red]Usage:[/] no file {load}", highlight=False)
        raise typer.Exit(USAGE)
    try:
        document = price(load_tariff(tariff), load_file(load, timezone))
    except (TariffRefusedError, LoadRefusedError, UnicodeDecodeError) as error:
        nothing = dict.fromkeys(COMPONENTS)
        emit({"monthly": [], "annual": nothing, "refused": str(error)}, as_json, _render)
        raise typer.Exit(PROBLEM) from error
    emit(document, as_json, _render)


@app.command("check")
def check(
    tariff: Annotated[Path, typer.Argument(help="URDB v8 or native tariff, JSON.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Read a tariff: its periods, lines and notes, or why it is refused.

    Example: meter-pipeline tariffs check data/tariffs/e-tou-v1.json
    """
    try:
        read = load_tariff(tariff)
    except TariffRefusedError as error:
        emit(
            {"refused": str(error), "field": error.field},
            as_json,
            lambda d: ERR.print(f"Refused: {d['refused']}", highlight=False),
        )
        raise typer.Exit(PROBLEM) from error
    document = {
        "tariff_id": read.tariff_id,
        "name": read.name,
        "commodity": read.commodity,
        "unit": read.unit,
        "source": read.source,
        "sha256": read.digest,
        "periods": list(read.schedule.periods),
        "metering": read.metering,
        "lines": [{"line": line.key, "name": line.name, "component": line.component} for line in read.lines],
        "notes": list(read.notes),
        "refused": None,
    }
    emit(
        document,
        as_json,
        lambda d: OUT.print(table(d["name"], ["line", "name", "component"], [list(x.values()) for x in d["lines"]])),
    )
