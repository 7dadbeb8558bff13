"""``meter-pipeline dead-letters``: payloads that could not be read, worked through."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table
from meter_pipeline.feeds.head_ends import read_head_ends
from meter_pipeline.ingest import FileFolders
from meter_pipeline.ingest import dead_letters as work
from meter_pipeline.ingest.tables import dead_letters
from meter_pipeline.ingest.tables.dead_letters import DeadLetter
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(help="Payloads that could not be read: list, show, correct, replay, dismiss.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(help="The dead letter's key, or its first digits.")]
By = Annotated[str, typer.Option("--by", help="Who you are. Default: the login name.", default_factory=getpass.getuser)]
Why = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _database() -> Database:
    return open_database(load_settings())


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "key": letter.key,
        "status": letter.status,
        "file": letter.file_name,
        "file_sha256": letter.file_sha256,
        "head_end": letter.head_end,
        "format": letter.file_format,
        "line": letter.line,
        "byte_offset": letter.byte_offset,
        "reads": letter.reads,
        "reasons": [{"code": code, "detail": detail} for code, detail in letter.reasons],
        "meter_id": letter.meter_id,
        "channel": letter.channel,
        "raw_format": letter.raw_format,
        "raw": dead_letters.shown_content(letter.raw, letter.raw_format),
        "raw_hex": letter.raw[:4000],
        "corrected": None
        if letter.corrected_raw is None
        else dead_letters.shown_content(letter.corrected_raw, letter.raw_format),
        "rule_version": letter.rule_version,
        "run_id": letter.run_id,
        "first_seen": letter.first_seen,
        "last_seen": letter.last_seen,
        "times": letter.times,
        "changed_by": letter.changed_by,
        "changed_at": letter.changed_at,
        "change_reason": letter.change_reason,
        "replayed_as": letter.replay_sha256,
    }


@app.command("list")
def list_(
    status: Annotated[str, typer.Option(help="open, corrected, replayed, dismissed or all.")] = "open",
    reason: Annotated[str | None, typer.Option(help="Only this reason code.")] = None,
    head_end: Annotated[str | None, typer.Option("--head-end", help="Only this head-end.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Dead letters, oldest first, and how many there are by reason.

    Example: meter-pipeline dead-letters list --reason unknown_meter
    """
    with _database().connect("dead-letters") as connection:
        letters = dead_letters.find(
            connection, status=[] if status == "all" else [status], reason=reason, head_end=head_end, limit=limit
        )
        counts = dead_letters.counts(connection)
    summary = [{"status": s, "head_end": h, "reason": r, "letters": n, "reads": reads} for s, h, r, n, reads in counts]

    def render(_: Any) -> None:
        OUT.print(
            table(
                "Dead letters by reason",
                ["status", "head-end", "reason", "letters", "reads"],
                counts,
                numbers=["letters", "reads"],
            )
        )
        rows = [
            (x.key.hex()[:12], x.status, x.file_name, x.line, x.meter_id, x.reads, "; ".join(c for c, _ in x.reasons))
            for x in letters
        ]
        OUT.print(
            table(
                "Oldest",
                ["key", "status", "file", "line", "meter", "reads", "reasons"],
                rows,
                numbers=["line", "reads"],
            )
        )

    emit({"counts": summary, "dead_letters": [_document(x) for x in letters]}, as_json, render)


@app.command()
def show(key: Key, as_json: AsJson = False) -> None:
    """One dead letter: its bytes, where they came from, every reason.

    Example: meter-pipeline dead-letters show 3fa9
    """
    settings = load_settings()
    database = open_database(settings)
    letter = _try(lambda: work.show(database, key))
    places = FileFolders(settings.archive, settings.staging)
    line = work.file_line(places, letter.file_sha256, database, letter.line)

    def render(document: Any) -> None:
        rows = [
            (k, v)
            for k, v in document.items()
            if k not in ("raw", "raw_hex", "reasons", "corrected", "file_line") and v is not None
        ]
        rows += [(f"reason {r['code']}", r["detail"]) for r in document["reasons"]]
        OUT.print(table(None, ["", ""], rows))
        if line is not None and letter.raw_format != "source":
            OUT.print(f"line {letter.line} of the file:", markup=False, highlight=False)
            OUT.print(line, markup=False, highlight=False)
            OUT.print("as it would be stored:", markup=False, highlight=False)
        OUT.print(document["raw"], markup=False, highlight=False)
        if document["corrected"] is not None:
            OUT.print("corrected to:", document["corrected"], markup=False, highlight=False)

    emit(_document(letter) | {"file_line": line}, as_json, render)


@app.command()
def correct(
    key: Key,
    reason: Why,
    by: By,
    content: Annotated[str | None, typer.Option("--content", help="The corrected content.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file with the corrected content; - for standard input.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a payload should have said; replay loads it.

    Example: meter-pipeline dead-letters correct 3fa9 --content "M-7,2026-03-01T00:00:00Z,1.25" --reason "meter id
    mistyped at the head-end"
    """
    if (content is None) == (file is None):
        raise typer.BadParameter("give --content or --file")
    data = (
        content.encode()
        if content is not None
        else sys.stdin.buffer.read()
        if str(file) == "-"
        else Path(str(file)).read_bytes()
    )
    database = _database()
    person = _person(database, "correct", key, by)
    letter = _try(lambda: work.correct(database, key, data, by=person, reason=reason))
    emit(
        _document(letter),
        as_json,
        lambda _: OUT.print(
            f"{letter.key.hex()[:12]} corrected. Next: meter-pipeline dead-letters replay {letter.key.hex()[:12]}"
        ),
    )


@app.command()
def erase(key: Key, reason: Why, by: By, as_json: AsJson = False) -> None:
    """Erase the content of a closed dead letter, its correction too; every proof of the ledger stays valid.

    Example: meter-pipeline dead-letters erase 3fa9 --reason "request 12" --by privacy-1
    """
    database = _database()
    person = _person(database, "erase", key, by)
    entry = _try(lambda: work.erase(database, key, by=person, reason=reason))
    emit({"entry": entry, "key": key}, as_json, lambda _: OUT.print(f"erased; recorded as entry {entry}"))


def _whose_file(database: Database, key: str, head_ends: list[str]) -> str | None:
    """Ask whose file it is, where a person is there to answer and a whole file was refused."""
    letter = _try(lambda: work.show(database, key))
    if letter.raw_format != "file" or letter.status not in ("open", "corrected") or not sys.stdin.isatty():
        return None
    OUT.print(f"{letter.file_name} was refused whole, read as {letter.head_end}. Declared: {', '.join(head_ends)}")
    return str(typer.prompt("Which head-end's file is it", default=letter.head_end))


@app.command()
def replay(
    by: By,
    key: Annotated[str | None, typer.Argument(help="The dead letter's key, or its first digits.")] = None,
    reason_code: Annotated[
        str | None, typer.Option("--all-with-reason", help="Every open one with this reason code instead.")
    ] = None,
    head_end: Annotated[
        str | None,
        typer.Option("--head-end", help="Whose file it is, where a whole file lay in another head-end's folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a payload through ingestion again: once, however often asked. Its reads wait for their billing days' next
    run. For a file that was refused whole a terminal is asked which head-end's it is.

    Example: meter-pipeline dead-letters replay --all-with-reason unknown_meter
    """
    if (key is None) == (reason_code is None):
        raise typer.BadParameter("give a key or --all-with-reason")
    settings = load_settings()
    database, calendar, places = (
        open_database(settings),
        settings.calendar(),
        FileFolders(settings.archive, settings.staging),
    )
    head_ends = read_head_ends(settings.head_ends)
    person = _person(database, "replay", key or str(reason_code), by)
    if key is not None:
        read_as = head_end or _whose_file(database, str(key), sorted(head_ends))
        done = [_try(lambda: work.replay(database, calendar, places, head_ends, str(key), by=person, read_as=read_as))]
    else:
        done = _try(lambda: work.replay_many(database, calendar, places, head_ends, by=person, reason=reason_code))
    document = {
        "replayed": [
            {
                "key": r.key,
                "already": r.already,
                "reads": r.reads,
                "days": r.days,
                "rejected": [{"code": code, "detail": detail} for code, detail in r.rejected],
            }
            for r in done
        ]
    }

    def render(_: Any) -> None:
        rows = [
            (
                r.key.hex()[:12],
                "again at fault" if r.rejected else "done before" if r.already else "replayed",
                r.reads,
                ", ".join(map(str, r.days[:3])),
                "; ".join(f"{c}: {d}" for c, d in r.rejected[:2]),
            )
            for r in done
        ]
        OUT.print(table(None, ["key", "outcome", "reads", "billing days", "why"], rows, numbers=["reads"]))

    emit(document, as_json, render)
    if any(r.rejected for r in done):
        raise typer.Exit(PROBLEM)


@app.command()
def dismiss(key: Key, reason: Why, by: By, as_json: AsJson = False) -> None:
    """Close a dead letter without loading it.

    Example: meter-pipeline dead-letters dismiss 3fa9 --reason "test transmission of a meter on the bench"
    """
    database = _database()
    person = _person(database, "dismiss", key, by)
    letter = _try(lambda: work.dismiss(database, key, by=person, reason=reason))
    emit(_document(letter), as_json, lambda _: OUT.print(f"{letter.key.hex()[:12]} dismissed."))


def _person(database: Database, action: str, subject: str, by: str) -> str:
    """Who decides, entitled and proven."""
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, action, subject, by, decisions.WORK)


def _try(call: Any) -> Any:
    try:
        return call()
    except work.DeadLetterError as error:
        problem(str(error), "meter-pipeline dead-letters list")
