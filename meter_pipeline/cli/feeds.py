"""``meter-pipeline feeds``: look at a head-end's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli import feed_declarations
from meter_pipeline.cli.output import OUT, PROBLEM, emit, table

app = typer.Typer(help="Look at feed files.", no_args_is_help=True)
app.command("guess")(feed_declarations.guess)
app.command("check")(feed_declarations.check)
app.command("vendors")(feed_declarations.vendors)

_SHOWN_REJECTS = 20


@app.callback()
def _root() -> None:
    """Look at feed files."""


@app.command("inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(help="A feed file; gzip and zip are opened.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="nem12, nem13, espi, cmep, delimited, jsonl, wide_csv.")
    ] = None,
    head_end: Annotated[
        str | None,
        typer.Option("--head-end", help="A declared head-end by name, a path to its TOML file, or vendor:NAME."),
    ] = None,
    head_ends: Annotated[
        Path | None, typer.Option("--head-ends", help="Folder of declarations; the municipality's own by default.")
    ] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Time zone of local stamps, IANA name or +10:00.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Readings, exact sum, unit and quality per meter and channel, and every rejection. Exit 1 when anything was
    rejected.

    Example: meter-pipeline feeds inspect reads.csv --head-end AMI
    """
    from meter_pipeline.feeds.head_ends import HeadEndError
    from meter_pipeline.feeds.inspect import inspect, report
    from meter_pipeline.feeds.registry import refused_feed, sniff
    from meter_pipeline.feeds.rejects import FeedRefused
    from meter_pipeline.feeds.vendors import fitting

    assumed: dict[str, Any] | None = None
    try:
        if head_end is not None:
            declared = _declared(head_end, head_ends)
        else:
            declared = _undeclared(file, format_, zone)
            if format_ is None:
                sniffed = sniff(file)
                declared = replace(sniffed, zone=zone or sniffed.zone)
                assumed = {
                    "zone": declared.zone,
                    "kind": declared.kind,
                    "time_format": declared.time_format,
                    "columns": declared.columns,
                }
        if zone is not None:
            declared = replace(declared, zone=zone)
        document = inspect(file, declared, BillingCalendar("UTC"))
    except FileNotFoundError:
        raise typer.BadParameter(f"no file {file}", param_hint="FILE") from None
    except HeadEndError as error:
        raise typer.BadParameter(str(error)) from error
    except FeedRefused as refused:
        document = report(file.name, refused_feed(format_ or "unknown", refused))
    if assumed is not None:
        document["assumed"] = assumed
        document["vendors"] = [each.name for each in fitting(file)]
    emit(document, as_json, _render)
    if document["rejected"]:
        raise typer.Exit(PROBLEM)


def _declared(name: str, folder: Path | None) -> Any:
    from meter_pipeline.feeds.head_ends import HeadEndError, read_head_end, read_head_ends
    from meter_pipeline.settings import load_settings

    if name.startswith("vendor:"):
        return feed_declarations.vendor(name.removeprefix("vendor:")).head_end
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise HeadEndError(f"no declaration {name}")
        return read_head_end(path)
    folder = folder or load_settings().head_ends
    known = read_head_ends(folder)
    if name not in known:
        raise HeadEndError(f"no head-end {name} in {folder}: {', '.join(sorted(known)) or 'it holds none'}")
    return known[name]


def _undeclared(file: Path, format_: str | None, zone: str | None) -> Any:
    """A declaration for a format given by name: the guess, where it agrees, since it also knows columns."""
    from meter_pipeline.feeds.head_ends import HeadEnd
    from meter_pipeline.feeds.registry import format_name, sniff
    from meter_pipeline.feeds.rejects import FeedRefused

    if format_ is None:
        return HeadEnd("unknown", "delimited")
    name = format_name(format_)
    try:
        guessed: HeadEnd = sniff(file)
    except FeedRefused:
        return HeadEnd("given", name, zone=zone)
    return guessed if guessed.format == name else HeadEnd("given", name, zone=zone)


def _render(document: dict[str, Any]) -> None:
    columns = ("meter", "channel", "flow", "unit", "minutes", "readings", "sum", "stored", "first", "last", "quality")
    rows = [
        (
            channel["meter_id"],
            channel["channel"],
            channel.get("flow", ""),
            channel["unit"],
            channel["interval_minutes"],
            channel["readings"],
            channel["sum"],
            f"{channel['stored']} {channel['stored_unit']}" if "stored" in channel else "",
            channel["first"],
            channel["last"],
            " ".join(f"{flag} {count}" for flag, count in channel["quality"].items()),
        )
        for channel in document["channels"]
    ]
    OUT.print(
        table(f"{document['file']} ({document['format']})", columns, rows, numbers=("minutes", "readings", "sum"))
    )
    for channel in document["channels"]:
        if "repeated" in channel:
            OUT.print(
                f"{channel['meter_id']} {channel['channel']}: {channel['repeated']} of {channel['readings']} readings name "
                "the time of another one of this file, and one of each is stored: declare the column that tells them "
                "apart (source_version, sequence, dst, channel), or ask the sender which stands",
                highlight=False,
            )
    if document["skipped"]:
        OUT.print(f"{document['skipped']} rows passed over, as the declaration says")
    rejected = document["rejected"]
    if rejected:
        shown = [(each["line"], each["reason"], each["detail"]) for each in rejected[:_SHOWN_REJECTS]]
        OUT.print(table(f"{len(rejected)} rejections", ("line", "reason", "detail"), shown, numbers=("line",)))
    differing = document["stated_differences"]
    if differing:
        found = [
            (each["line"], each["meter_id"], each["channel"], each["stated"], each["by_dials"])
            for each in differing[:_SHOWN_REJECTS]
        ]
        title = f"Stated quantities that are not what their dials show: {len(differing)}"
        OUT.print(
            table(
                title, ("line", "meter", "channel", "stated", "by dials"), found, numbers=("line", "stated", "by dials")
            )
        )
    if document.get("assumed"):
        OUT.print(f"Guessed, not declared: {document['assumed']}", highlight=False)
    for name in document.get("vendors", []):
        OUT.print(f"It looks like {name}: meter-pipeline feeds vendors {name} writes a declaration", highlight=False)
