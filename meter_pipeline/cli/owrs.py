"""``meter-pipeline tariffs import``: tariffs of other formats as native documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem


def import_tariffs(
    file: Annotated[Path, typer.Argument(help="The file to import.")],
    out: Annotated[Path, typer.Option(help="Folder for the native documents, such as tariffs/.")],
    tariff_id: Annotated[str, typer.Option("--id", help="What the ids of the documents begin with, such as W.")],
    format_: Annotated[str, typer.Option("--format", help="owrs: Open Water Rate Specification, YAML.")] = "owrs",
    season: Annotated[
        list[str] | None, typer.Option(help="Dates of a season that the file names: summer=05-01:10-31; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Turn a published rate file into native tariff documents, one a customer class and place.

    What a native tariff cannot say is refused with the field and its line; nothing is written then.

    Example: meter-pipeline tariffs import 03-01-2018.owrs --format owrs --id W --out tariffs
    """
    from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
    from meter_pipeline.billing.tariffs.owrs import Season, import_owrs

    if format_ != "owrs":
        raise typer.BadParameter("--format is owrs; URDB and native documents need no import")
    if not re.fullmatch(r"[A-Z0-9-]{1,20}", tariff_id):
        raise typer.BadParameter("--id is 1 to 20 of A to Z, 0 to 9 and -")
    seasons = {}
    for text in season or ():
        match = re.fullmatch(r"([^=]+)=(\d\d-\d\d):(\d\d-\d\d)", text)
        if match is None:
            raise typer.BadParameter(f"--season {text} is not NAME=MM-DD:MM-DD")
        seasons[match[1].strip().lower()] = Season(match[2], match[3])
    try:
        found = import_owrs(file.read_bytes(), tariff_id=tariff_id, seasons=seasons)
        written = {}
        for converted in found:
            body = json.dumps(converted.document, indent=2).encode() + b"\n"
            parse_tariff(body)
            written[f"{converted.document['tariff_id'].lower()}.json"] = body
    except OSError as error:
        problem(f"{file}: can't be read: {error.strerror}")
    except TariffRefusedError as error:
        problem(f"{file}: {error}", "correct the file, or write that class as a native document (docs/tariffs.md)")
    if len(written) != len(found):
        problem(f"{file}: two classes come to one tariff id; shorten their names")
    out.mkdir(parents=True, exist_ok=True)
    for name, body in written.items():
        (out / name).write_bytes(body)
    rows = [
        {
            "document": name,
            "tariff_id": converted.document["tariff_id"],
            "customer_class": converted.customer_class,
            "values": converted.values,
            "notes": converted.notes,
        }
        for name, converted in zip(written, found, strict=True)
    ]
    document = {"file": file, "written": rows, "refused": None}

    def render(_: Any) -> None:
        for converted in rows:
            OUT.print(f"{out / converted['document']}", highlight=False, soft_wrap=True)
            for note in converted["notes"]:
                OUT.print(f"  note: {note}", highlight=False)

    emit(document, as_json, render)
