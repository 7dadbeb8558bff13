"""``meter-pipeline feeds guess`` and ``feeds check``: a first declaration for a file, and the faults of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table

if TYPE_CHECKING:
    from meter_pipeline.feeds.vendors import Vendor

#: reads of a file that are shown as they would be read, and letters of a rejected line
_SHOWN, _LETTERS = 5, 120


def guess(
    file: Annotated[Path, typer.Argument(help="A file without a declaration.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the head-end; the file's own by default.")] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", help="Time zone of its stamps; the utility's by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the declaration to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write a declaration for an unknown file, with comments on what the file cannot say, and show its first reads.

    Example: meter-pipeline feeds guess first-day.csv --name ELM --out data/head_ends/elm.toml
    """
    from dataclasses import replace

    from meter_pipeline.feeds import registry
    from meter_pipeline.feeds.declaration_text import advice, toml_text
    from meter_pipeline.feeds.guessed_shapes import read_again
    from meter_pipeline.feeds.head_ends import HeadEndError
    from meter_pipeline.feeds.rejects import FeedRefused
    from meter_pipeline.settings import load_settings

    if not file.is_file():
        raise typer.BadParameter(f"no file {file}", param_hint="FILE")
    zone = zone or load_settings().calendar().zone
    try:
        guessed = registry.guess(file, zone)
        declared = replace(guessed.head_end, name=(name or file.stem).upper()[:64])
        parsed = registry.parse(file, declared, BillingCalendar(zone))
        declared, parsed = read_again(
            declared, guessed.notes, parsed, lambda made: registry.parse(file, made, BillingCalendar(zone))
        )
    except (FeedRefused, HeadEndError) as error:
        problem(f"{file.name}: {error}", "docs/feeds.md shows how to declare its shape")
    written = toml_text(declared, guessed.notes)
    rejected = _rejections(parsed)
    document = {
        "file": file.name,
        "declaration": written,
        "notes": guessed.notes,
        "reads": _first_reads(parsed),
        "received": parsed.received,
        "rejected": rejected,
    }
    if out is not None:
        out.write_text(written, "utf-8")
    emit(document, as_json, lambda d: _show_guess(d, out, advice))
    if rejected or not parsed.received:
        raise typer.Exit(PROBLEM)


def vendor(name: str) -> Vendor:
    """A ready declaration by name. Raises HeadEndError naming those that there are."""
    from meter_pipeline.feeds import vendors as ready
    from meter_pipeline.feeds.head_ends import HeadEndError

    known = {each.name: each for each in ready.vendors()}
    if name.lower() not in known:
        raise HeadEndError(f"no vendor {name}: {', '.join(known)}")
    return known[name.lower()]


def vendors(
    name: Annotated[str | None, typer.Argument(help="One vendor's export; default: the list.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List the ready declarations of vendors' exports, or write one to stdout to be copied and adapted.

    Example: meter-pipeline feeds vendors aclara > head_ends/aclara.toml
    """
    from meter_pipeline.feeds import vendors as ready
    from meter_pipeline.feeds.head_ends import HeadEndError

    if name is not None:
        try:
            found = vendor(name)
        except HeadEndError as error:
            raise typer.BadParameter(str(error), param_hint="NAME") from error
        emit({"name": found.name, "declaration": found.text}, as_json, lambda d: typer.echo(d["declaration"], nl=False))
        return
    rows = [(each.name, each.head_end.format, each.title) for each in ready.vendors()]
    document = {"vendors": [{"name": n, "format": f, "title": t} for n, f, t in rows]}
    emit(document, as_json, lambda _: OUT.print(table("Ready declarations", ("name", "format", "what it is"), rows)))


def check(
    declaration: Annotated[Path, typer.Argument(help="A declaration's TOML file.")],
    file: Annotated[Path, typer.Argument(help="A file of that head-end.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Read a file with a declaration: its channels, the first rejected line of each kind, and what to change. Exit 1
    when anything was rejected.

    Example: meter-pipeline feeds check data/head_ends/elm.toml first-day.csv
    """
    from meter_pipeline.feeds.head_ends import HeadEndError, read_head_end
    from meter_pipeline.feeds.inspect import report
    from meter_pipeline.feeds.registry import parse
    from meter_pipeline.settings import load_settings

    for path, hint in ((declaration, "DECLARATION"), (file, "FILE")):
        if not path.is_file():
            raise typer.BadParameter(f"no file {path}", param_hint=hint)
    try:
        head_end = read_head_end(declaration)
        parsed = parse(file, head_end, BillingCalendar(load_settings().calendar().zone))
    except HeadEndError as error:
        raise typer.BadParameter(str(error)) from error
    found = report(file.name, parsed)
    rejected = _rejections(parsed)
    keys = ("file", "format", "channels", "received", "skipped", "accepted", "rejected_reads")
    document = {**{key: found[key] for key in keys}, "reads": _first_reads(parsed), "rejected": rejected}
    emit(document, as_json, _show_check)
    if rejected:
        raise typer.Exit(PROBLEM)


def _first_reads(parsed: Any) -> list[dict[str, Any]]:
    """The first reads of a file, in base units."""
    from meter_pipeline.units import from_micro

    reads: list[dict[str, Any]] = []
    for frame, kind, time in (
        (parsed.intervals, "interval", "interval_start"),
        (parsed.registers, "register", "read_at"),
    ):
        for row in frame.sort("line").head(_SHOWN).iter_rows(named=True):
            value = None if row["value"] is None else str(from_micro(row["value"]))
            reads.append(
                {
                    "line": row["line"],
                    "kind": kind,
                    "meter_id": row["meter_id"],
                    "channel": row["channel"],
                    "at": row[time],
                    "minutes": row.get("interval_minutes"),
                    "value": value,
                    "unit": row["unit"],
                    "flow": parsed.flow(row["meter_id"], row["channel"]),
                }
            )
    return reads[:_SHOWN]


def _rejections(parsed: Any) -> list[dict[str, Any]]:
    """The first rejection of each reason: number of lines, place of the first, and the change to make."""
    from meter_pipeline.feeds.declaration_text import advice

    found: dict[str, dict[str, Any]] = {}
    for line, raw, reasons in parsed.rejects.select("line", "raw", "reasons").iter_rows():
        for reason in {each["code"]: each for each in reasons}.values():
            first = found.setdefault(
                reason["code"],
                {
                    "reason": reason["code"],
                    "lines": 0,
                    "first_line": line,
                    "text": raw[:_LETTERS].decode("utf-8", "backslashreplace"),
                    "detail": reason["detail"],
                    "change": advice(reason["code"]),
                },
            )
            first["lines"] += 1
    return list(found.values())


def _show_guess(document: dict[str, Any], out: Path | None, _: Any) -> None:
    if out is None:
        print(document["declaration"])
    else:
        OUT.print(f"{out} written", highlight=False)
    _show_reads(document)


def _show_check(document: dict[str, Any]) -> None:
    columns = ("meter", "channel", "unit", "minutes", "readings", "sum", "first", "last")
    keys = ("meter_id", "channel", "unit", "interval_minutes", "readings", "sum", "first", "last")
    rows = [tuple(channel[key] for key in keys) for channel in document["channels"]]
    title = f"{document['file']}: {document['accepted']} reads of {document['received']}, {document['skipped']} rows passed over"
    OUT.print(table(title, columns, rows, numbers=("minutes", "readings", "sum")))
    _show_reads(document)


def _show_reads(document: dict[str, Any]) -> None:
    """The first reads and the first rejection of each kind."""
    reads = [tuple(read.values()) for read in document["reads"]]
    if reads:
        OUT.print(table("First reads", tuple(document["reads"][0]), reads, numbers=("line", "minutes", "value")))
    for each in document["rejected"]:
        OUT.print(
            f"line {each['first_line']}: {each['reason']} {each['detail']} ({each['lines']} lines)", highlight=False
        )
        OUT.print(f"  {each['text']}", highlight=False, markup=False)
        OUT.print(f"  {each['change']}", highlight=False, markup=False)
