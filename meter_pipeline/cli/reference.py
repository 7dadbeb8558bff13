"""``meter-pipeline reference``: import a folder of tables; enrol the meters of a new head-end's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli import reference_enrolment, reference_mapping
from meter_pipeline.cli.output import ERR, OUT, PROBLEM, SHOWN_LINES, emit, plain, problem, table
from meter_pipeline.deployment import prepare
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import Fault, ReferenceRefused, history
from meter_pipeline.reference.importing import RowChange
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Reference data: import, preview and approve corrections, show, enrol, end or remove a row, verify.",
)


app.command("map")(reference_mapping.map_)


app.command("check")(reference_mapping.check)
app.command("enrol")(reference_enrolment.enrol)


Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


Who = Annotated[str, typer.Option("--by", help="Who you are.")]


Why = Annotated[str, typer.Option("--why", help="The reason; it goes into the ledger.")]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Write nothing: show changes, days, bills and money, kept under a digest.")
]


Row = Annotated[list[str], typer.Argument(help="The row's key, in the order of the table's key columns.")]


def _acting(database: Database, name: str, by: str) -> str:
    """Who changes reference data, entitled and proven."""
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, "reference", name, by, decisions.WORK)


@app.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(help="A folder with a CSV per table.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    snapshot: Annotated[
        list[str] | None,
        typer.Option("--snapshot", metavar="TABLE...", help="Tables the folder holds whole: rows it lacks are ended."),
    ] = None,
    confirm_ended: Annotated[
        bool, typer.Option("--confirm-ended", help="End rows even where a snapshot lacks more than the share.")
    ] = False,
    on: Annotated[
        datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="First day without the ended rows; today.")
    ] = None,
    dry_run: DryRun = False,
    by: Annotated[str | None, typer.Option("--by", help="Who you are.")] = None,
    why: Annotated[str, typer.Option("--why", help="The reason; it goes into the ledger.")] = "",
    json: Json = False,
) -> None:
    """Import a folder: all of it, or nothing and every fault named. The days that a change reaches are asked for again.

    Examples:
      meter-pipeline reference import data/reference
      meter-pipeline reference import export --dry-run
      meter-pipeline reference import export --snapshot agreements installations --by ana --why "weekly export"
    """
    from meter_pipeline.corrections.apply import import_folder

    settings = load_settings()
    database = prepare(settings)
    try:
        whole = _snapshot(settings, [*(snapshot or []), *(more or [])], on, confirm_ended)
        if dry_run:
            _preview(database, settings, directory, whole, json)
            return
        person = None if by is None else _acting(database, directory.name, by)
        imported = import_folder(database, settings.calendar(), directory, snapshot=whole, by=person, why=why)
    except ReferenceRefused as refused:
        faults = refused.faults
        empty: dict[str, Any] = (
            {"digest": None, "changes": [], "refused": str(faults[0])} if dry_run else {"imported": None}
        )
        emit({**empty, "faults": [str(f) for f in faults]}, json, lambda _: _show_faults(faults))
        raise typer.Exit(PROBLEM) from refused
    reached = {"days": imported.days, "service_points": imported.service_points, "issued_statements": imported.issued}
    kept = sorted(imported.rows.keys() - (whole.tables if whole is not None else set()))
    emit({"imported": imported.rows, "faults": [], "asked": reached}, json, lambda d: _show_imported(d, kept))


def _show_imported(document: dict[str, Any], kept: Sequence[str] = ()) -> None:
    """Result of an import. ``kept``: tables of which rows that the folder lacks stay as they are."""
    rows = list(document["imported"].items())
    OUT.print(table("Imported", ["table", "rows"], rows, numbers=["rows"]))
    if kept:
        OUT.print(f"Rows that the folder lacks stay as they are; --snapshot TABLE... ends them ({', '.join(kept)}).")
    _show_asked(document["asked"])


def _show_asked(pending: dict[str, Any]) -> None:
    if days := pending["days"]:
        reached = f"{len(days)} billing days of {pending['service_points']} service points"
        OUT.print(
            f"{reached} are asked for again ({days[0]} to {days[-1]}); meter-pipeline run or the sensor runs them."
        )


def _preview(database: Database, settings: Settings, directory: Path, whole: Snapshot | None, json: bool) -> None:
    from meter_pipeline.corrections.preview import preview_folder

    previewed = preview_folder(database, settings.calendar(), directory, snapshot=whole)
    emit(previewed.document | {"two_people": previewed.issued}, json, _show_preview)


def _show_preview(document: dict[str, Any]) -> None:
    if not document["changes"]:
        OUT.print("nothing changes")
        return
    columns = ["table", "key", "column", "old", "new", "valid_from"]
    rows = [[_shown(c[name]) for name in columns] for c in document["changes"][:SHOWN_LINES]]
    OUT.print(table(f"{len(document['changes'])} changes", columns, rows))
    bills = document["statements"]
    sealed = ", ".join(bills["sealed_months"]) or "none"
    OUT.print(
        f"{document['days']} billing days of {document['service_points']} service points; statements: {bills['issued']} "
        f"issued, {bills['open']} still to be issued; sealed months: {sealed}"
    )
    money = document["money"]
    names = ["account_id", "old", "new", "difference"]
    shown = [[each[n] for n in names] for each in money["accounts"][:SHOWN_LINES]]
    total = ["total", money["old"], money["new"], money["difference"]]
    OUT.print(table("Money by account", names, [*shown, total], numbers=names[1:]))
    if document["policy"]:
        names = ["statement_id", "service_point_id", "rule", "full", "allowed", "waived", "interest"]
        shown = [[each[n] for n in names] for each in document["policy"][:SHOWN_LINES]]
        OUT.print(table("Back-billing rules", names, shown, numbers=names[3:]))
    for each in document["waiting"]:
        OUT.print(f"{each['statement_id']} waits: {each['why']}", highlight=False)
    step = "request" if document["two_people"] else "apply"
    OUT.print(f'Next: meter-pipeline reference {step} {document["digest"]} --by NAME --why "..."', highlight=False)


def _shown(value: Any) -> Any:
    return " ".join(str(v) for v in value.values() if v is not None) if isinstance(value, dict) else value


Digest = Annotated[str, typer.Argument(help="The preview's digest.")]


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        problem(f"{text[:80]} is not a digest", "meter-pipeline reference corrections lists the previews")
    return digest


@app.command("meter-test")
def meter_test(
    meter: Annotated[str, typer.Argument(help="The meter.")],
    tested_on: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="The day of the test.")],
    json: Json = False,
) -> None:
    """Preview the correction that a stored meter test starts: the meter's multiplier on the days it was wrong.

    The test is a row of reference/meter_tests.csv. Where it does not say since when the meter was wrong, the
    back-billing rule of the service says what is taken.

    Example: meter-pipeline reference meter-test M-1042 2026-10-01
    """
    from meter_pipeline.corrections.meter_tests import preview_meter_test

    settings = load_settings()
    database = prepare(settings)
    try:
        proposed, previewed = preview_meter_test(database, settings.calendar(), meter.upper(), tested_on.date())
    except ReferenceRefused as refused:
        problem(refused.faults[0].why)
    document = {
        "meter_id": meter.upper(),
        "tested_on": tested_on.date(),
        "wrong_from": proposed.first,
        "right_from": proposed.past,
        "because": proposed.why,
    }
    emit(document | previewed.document | {"two_people": previewed.issued}, json, _show_meter_test)


def _show_meter_test(document: dict[str, Any]) -> None:
    OUT.print(
        f"{document['meter_id']} was wrong from {document['wrong_from']} to {document['right_from']} (excluded): {document['because']}",
        highlight=False,
    )
    _show_preview(document)


@app.command()
def apply(digest: Digest, by: Who, why: Why, json: Json = False) -> None:
    """Make a previewed correction that changes no issued money. Refused where anything moved since the preview.

    Example: meter-pipeline reference apply 4be1... --by ana --why "nameplate says 40"
    """
    from meter_pipeline.corrections.apply import apply as make

    database = prepare(load_settings())
    found = _digest(digest)
    try:
        applied = make(database, found, by=_acting(database, digest[:16], by), why=why)
    except ReferenceRefused as refused:
        problem(refused.faults[0].why)
    _emit_made(applied, json)


@app.command()
def request(digest: Digest, by: Who, why: Why, json: Json = False) -> None:
    """Ask a second person for a previewed correction that changes issued money.

    Example: meter-pipeline reference request 4be1... --by ana --why "nameplate says 40"
    """
    from meter_pipeline.control.people import Refused
    from meter_pipeline.corrections.apply import request as ask

    database = prepare(load_settings())
    found = _digest(digest)
    try:
        pending = ask(database, found, by=_acting(database, digest[:16], by), reason=why)
    except ReferenceRefused as refused:
        problem(refused.faults[0].why)
    except Refused as refusal:
        problem(str(refusal))
    emit(
        {"request": pending.request_id, "digest": digest, "expires_at": pending.expires_at},
        json,
        lambda d: OUT.print(
            f"request {d['request']} waits: meter-pipeline reference approve {d['request']} --by NAME --why ..."
        ),
    )


@app.command()
def approve(
    number: Annotated[int, typer.Argument(metavar="REQUEST", help="The request's number.")],
    by: Who,
    why: Why,
    json: Json = False,
) -> None:
    """Approve a correction as the second person, and make it. Refused where anything moved since the preview.

    Example: meter-pipeline reference approve 12 --by ben --why "seen the meter test"
    """
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions
    from meter_pipeline.control.people import Refused
    from meter_pipeline.corrections.apply import approve as confirm

    database = prepare(load_settings())
    person = acting_or_exit(database, "reference", str(number), by, decisions.FINANCE)
    try:
        applied = confirm(database, number, by=person, reason=why)
    except Refused as refusal:
        problem(str(refusal), "meter-pipeline reference corrections lists the previews and what was made")
    _emit_made(applied, json)


def _emit_made(made: Any, json: bool) -> None:
    reached = {"days": made.days, "service_points": made.service_points, "issued_statements": made.issued}
    emit({"imported": made.rows, "faults": [], "asked": reached}, json, _show_imported)


@app.command()
def corrections(json: Json = False) -> None:
    """Previewed corrections: what each changes and costs, and whether it was made.

    Example: meter-pipeline reference corrections
    """
    from meter_pipeline.corrections.tables import listed

    with prepare(load_settings()).connect("meter-pipeline correction") as connection:
        found = [
            {
                "digest": digest,
                "source": source,
                "previewed_at": at,
                "two_people": issued,
                "applied_at": made,
                "days": summary["days"],
                "difference": summary["money"]["difference"],
            }
            for digest, source, at, issued, made, summary in listed(connection)
        ]
    columns = ["digest", "source", "previewed_at", "two_people", "days", "difference", "applied_at"]
    emit(
        {"corrections": found},
        json,
        lambda d: OUT.print(table("Corrections", columns, [[c[n] for n in columns] for c in d["corrections"]])),
    )


#: A full export that lacks more than this share of a table's rows is more likely a broken export than a week's moves.
SNAPSHOT_SHARE = Decimal("0.05")


def _snapshot(settings: Settings, names: list[str], on: datetime | None, confirmed: bool) -> Snapshot | None:
    """The tables whose missing rows a snapshot ends, and the day. Raises ReferenceRefused for an unknown table."""
    tables = [name for given in names for name in given.split(",") if name]
    if strange := sorted(set(tables) - TABLES.keys()):
        raise ReferenceRefused([Fault(name, 0, "", f"is none of {', '.join(TABLES)}") for name in strange])
    if not tables:
        return None
    calendar = settings.calendar()
    day = on.date() if on is not None else calendar.day_of(datetime.now(UTC))
    share = Decimal(1) if confirmed else SNAPSHOT_SHARE
    return Snapshot(frozenset(tables), day, calendar.bounds(day)[0], share)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="TABLE")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="INSTANT", help="As it was known then (with its zone); now.")
    ] = None,
    json: Json = False,
) -> None:
    """A reference table as it is known now, or as it was known at an instant.

    Example: meter-pipeline reference show channels --as-of 2026-11-01T12:00:00Z
    """
    if name not in TABLES:
        problem(f"{name} is not one of {', '.join(TABLES)}")
    instant = datetime.now(UTC) if as_of is None else _instant(as_of)
    rows = history.rows_as_of(prepare(load_settings()), name, instant)
    emit(
        {"table": name, "as_of": instant, "rows": rows},
        json,
        lambda d: OUT.print(
            table(
                f"{name} as of {plain(instant)}",
                [*TABLES[name].columns, "known_from"],
                [[r[c] for c in (*TABLES[name].columns, "known_from")] for r in d["rows"]],
            )
        ),
    )


@app.command()
def verify(json: Json = False) -> None:
    """Compare every version of every reference row with the ledger's leaf of it; exit 1 where one differs.

    Example: meter-pipeline reference verify
    """
    with prepare(load_settings()).connect("meter-pipeline reference") as connection:
        found = history.unproven(connection)
    differing = [{"known_from": instant, "why": why} for instant, why in found]
    emit({"ok": not found, "differing": differing}, json, _show_verified)
    if found:
        raise typer.Exit(PROBLEM)


def _show_verified(document: dict[str, Any]) -> None:
    for each in document["differing"]:
        ERR.print(f"{plain(each['known_from'])}: {each['why']}", highlight=False)
    OUT.print("every changed row has its ledger leaf" if document["ok"] else "[bold red]Problem:[/] see above")


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        problem(f"{text!r} is not an instant", "write it as 2026-11-01T12:00:00Z")
    if instant.tzinfo is None:
        problem(f"{text} has no zone", f"write {text}Z for UTC, or its offset")
    return instant.astimezone(UTC)


def _show_faults(faults: list[Fault]) -> None:
    for fault in faults[:40]:
        ERR.print(str(fault), highlight=False)
    ERR.print(
        f"[bold red]Refused:[/] {len(faults)} fault{'s' * (len(faults) != 1)}; nothing was imported. Mend the lines above and import again."
    )


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="TABLE")],
    key: Row,
    by: Who,
    why: Why,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take one row out of a reference table. The days that stood on it are asked for again.

    Example: meter-pipeline reference remove agreements SP-1 2026-09-03 --by ana --why "typed twice"
    """
    _change(RowChange(name, tuple(key), by=by, why=why), dry_run, json)


@app.command()
def end(
    name: Annotated[str, typer.Argument(metavar="TABLE")],
    key: Row,
    on: Annotated[
        str, typer.Option("--on", help="The day after the last, or an instant with its zone for installations.")
    ],
    by: Who,
    why: Why,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """End one row of a reference table on a date. The days after it are asked for again.

    Example: meter-pipeline reference end agreements SP-1 2026-09-03 --on 2026-10-01 --by ana --why "moved out"
    """
    _change(RowChange(name, tuple(key), on, by=by, why=why), dry_run, json)


def _change(change: RowChange, dry_run: bool, json: bool) -> None:
    """End a row or take it out, or show what that would come to."""
    from meter_pipeline.corrections.apply import change_row
    from meter_pipeline.corrections.preview import preview_row

    settings = load_settings()
    database = prepare(settings)
    try:
        if dry_run:
            found = preview_row(database, settings.calendar(), change)
            emit(found.document | {"two_people": found.issued}, json, _show_preview)
            return
        person = _acting(database, change.table, change.by)
        row, previewed = change_row(database, settings.calendar(), replace(change, by=person))
    except ReferenceRefused as refused:
        problem(str(refused.faults[0]))
    action = "removed" if change.on is None else "ended"
    reached = {
        "days": previewed.days,
        "service_points": previewed.service_points,
        "issued_statements": previewed.issued,
    }

    def show(document: dict[str, Any]) -> None:
        OUT.print(f"{change.table}: {action}: {' '.join(str(v) for v in document['row'].values() if v is not None)}")
        _show_asked(document["asked"])

    emit({"row": row, "asked": reached}, json, show)
