"""``meter-pipeline outputs``: files for the customer system, and its acknowledgements."""

from __future__ import annotations

import csv
import getpass
import json as json_module
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table
from meter_pipeline.outbound import records as rooms
from meter_pipeline.outbound import tables
from meter_pipeline.outbound.contracts import OUTPUTS
from meter_pipeline.outbound.deliveries import Delivery, DeliveryError, acknowledge, deliver
from meter_pipeline.outbound.templates import Template, TemplateError, plain_template, read_template
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Back to the customer system: reads, determinants, statements, adjustments, journal; acknowledgements.",
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
By = Annotated[
    str, typer.Option("--by", help="Who sends it. Default: the login name.", default_factory=getpass.getuser)
]
Named = Annotated[
    str | None, typer.Option("--template", help="outputs/NAME.toml of the deployment; default: JSON Lines.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the files. Default: outbound/ in the home.")]
Cycle = Annotated[str, typer.Argument(help="Billing cycle.")]
PeriodEnd = Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Day after the period's last.")]
Month = Annotated[datetime, typer.Argument(formats=["%Y-%m"], help="Like 2026-07.")]


@app.command("reads")
def reads_(
    by: By,
    request: Annotated[Path | None, typer.Option(help="CSV with meter_id and read_date, a line a meter.")] = None,
    route: Annotated[str, typer.Option(help="Every meter of this route.")] = "",
    cycle: Annotated[str, typer.Option(help="Every meter of this billing cycle.")] = "",
    read_date: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Date asked for, with --route or --cycle.")
    ] = None,
    template: Named = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """The reads that the customer system asks for, at the date it asks for, each with its status.

    Examples:
      meter-pipeline outputs reads --request asked.csv --template route_file
      meter-pipeline outputs reads --route R7 --cycle C1 --read-date 2026-07-31
    """
    settings, database = _open()
    zone = settings.utility().zone
    if request is not None:
        wanted, scope = _requested_reads(request), request.stem
    elif read_date is not None and (route or cycle):
        day = read_date.date()
        wanted = [(meter, day) for meter in tables.meters_of(database, route, cycle, day, zone)]
        scope = "-".join(part for part in (route, cycle, day.isoformat()) if part)
    else:
        raise typer.BadParameter("give --request, or --read-date with --route, --cycle or both")
    if not wanted:
        problem(
            "no meter is asked for",
            "look at the route, the cycle and the date: meter-pipeline reference show service_points",
        )
    _send(settings, database, "reads", scope, rooms.reads(database, wanted, zone), (template, out, by, as_json))


@app.command()
def determinants(
    cycle: Cycle, period_end: PeriodEnd, by: By, template: Named = None, out: Out = None, as_json: Json = False
) -> None:
    """Billing determinants of a cycle's period, as its statements stand on them.

    Example: meter-pipeline outputs determinants C1 2026-08-01
    """
    settings, database = _open()
    _period(database, cycle, period_end.date())
    found = rooms.determinants(database, cycle, period_end.date())
    _send(settings, database, "determinants", f"{cycle}-{period_end:%Y-%m-%d}", found, (template, out, by, as_json))


@app.command("read-requests")
def read_requests(
    cycle: Cycle, period_end: PeriodEnd, by: By, template: Named = None, out: Out = None, as_json: Json = False
) -> None:
    """Meters whose read is asked for: their estimated bills passed a limit (reference/estimate_limits.csv).

    Example: meter-pipeline outputs read-requests C1 2026-08-01 --template route_file
    """
    settings, database = _open()
    _period(database, cycle, period_end.date())
    found = rooms.read_requests(database, cycle, period_end.date(), settings.utility().zone)
    _send(settings, database, "read_requests", f"{cycle}-{period_end:%Y-%m-%d}", found, (template, out, by, as_json))


@app.command()
def statements(
    cycle: Cycle, period_end: PeriodEnd, by: By, template: Named = None, out: Out = None, as_json: Json = False
) -> None:
    """Every line of the statements of a cycle's period.

    Example: meter-pipeline outputs statements C1 2026-08-01 --template billing_lines
    """
    settings, database = _open()
    _period(database, cycle, period_end.date())
    found = rooms.statements(database, cycle, period_end.date())
    _send(settings, database, "statements", f"{cycle}-{period_end:%Y-%m-%d}", found, (template, out, by, as_json))


@app.command()
def adjustments(month: Month, by: By, template: Named = None, out: Out = None, as_json: Json = False) -> None:
    """Every line of the adjustments posted in a month.

    Example: meter-pipeline outputs adjustments 2026-08
    """
    settings, database = _open()
    found = rooms.adjustments(database, month.date())
    _send(settings, database, "adjustments", f"{month:%Y-%m}", found, (template, out, by, as_json))


@app.command()
def journal(month: Month, by: By, template: Named = None, out: Out = None, as_json: Json = False) -> None:
    """The journal of a month's unbilled revenue.

    Example: meter-pipeline outputs journal 2026-07
    """
    settings, database = _open()
    found = rooms.journal(database, month.date())
    _send(settings, database, "journal", f"{month:%Y-%m}", found, (template, out, by, as_json))


@app.command("acknowledge")
def acknowledge_(
    file: Annotated[Path, typer.Argument(help="CSV with file_name and records; may have sha256, status, detail.")],
    as_json: Json = False,
) -> None:
    """Read what the customer system took. Exit 1 where it counted otherwise than we sent.

    Example: meter-pipeline outputs acknowledge from_cis/ack.csv
    """
    try:
        answers = acknowledge(_open()[1], file)
    except DeliveryError as error:
        problem(str(error), "nothing of it was taken; mend that line and give the file again")
    rows = [[a.file_name, a.status, a.detail] for a in answers]
    document = {"answers": [{"file_name": a.file_name, "status": a.status, "detail": a.detail} for a in answers]}
    emit(document, as_json, lambda _: OUT.print(table("Acknowledged", ["file", "status", "what it said"], rows)))
    if any(a.status == "disputed" for a in answers):
        raise typer.Exit(PROBLEM)


@app.command()
def check(as_json: Json = False) -> None:
    """Whether all that was sent is acknowledged; exit 1 where a file waits or is disputed.

    Example: meter-pipeline outputs check
    """
    waiting = tables.deliveries(_open()[1], open_only=True)
    _show_deliveries({"ok": not waiting, "deliveries": waiting}, as_json, "Sent and not acknowledged")
    if waiting:
        raise typer.Exit(PROBLEM)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every file that was written, newest first.

    Example: meter-pipeline outputs list --json
    """
    _show_deliveries({"deliveries": tables.deliveries(_open()[1], open_only=False)}, as_json, "Files")


@app.command()
def contract(
    output: Annotated[
        str, typer.Argument(help="reads, read_requests, determinants, statements, adjustments or journal.")
    ],
) -> None:
    """The contract of an output: JSON Schema of one record.

    Example: meter-pipeline outputs contract reads
    """
    if output not in OUTPUTS:
        raise typer.BadParameter(f"{output!r} is not one of {', '.join(OUTPUTS)}")
    OUT.print_json(json_module.dumps(OUTPUTS[output].schema()))


def _open() -> tuple[Settings, Database]:
    settings = load_settings()
    return settings, open_database(settings)


def _requested_reads(path: Path) -> list[tuple[str, date]]:
    """Meters and dates of a request. Ends with one line where it cannot be read."""
    try:
        reader = csv.DictReader(path.read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        problem(f"{path}: {error}", "a request is a CSV with the columns meter_id and read_date")
    if not {"meter_id", "read_date"} <= set(reader.fieldnames or ()):
        problem(
            f"{path}: line 1: the columns are {', '.join(reader.fieldnames or ()) or 'none'}",
            "a request has meter_id and read_date",
        )
    wanted: list[tuple[str, date]] = []
    for row in reader:
        meter, day = (row["meter_id"] or "").strip(), (row["read_date"] or "").strip()
        try:
            wanted.append((meter, date.fromisoformat(day)))
        except ValueError:
            problem(f"{path}: line {reader.line_num}: read_date is {day!r}", "write dates like 2026-07-31")
        if not meter:
            problem(f"{path}: line {reader.line_num}: meter_id is empty", "each line names a meter")
    return wanted


def _template(settings: Settings, output: str, name: str | None) -> Template:
    if name is None:
        return plain_template(OUTPUTS[output])
    try:
        found = read_template(settings.data / "outputs" / f"{name}.toml")
    except TemplateError as error:
        problem(str(error), "docs/outputs.md has the fields of a template")
    if found.output.name != output:
        problem(f"template {name} is for {found.output.name}, not for {output}", "name another with --template")
    return found


def _send(
    settings: Settings,
    database: Database,
    output: str,
    scope: str,
    found: list[rooms.Record],
    how: tuple[str | None, Path | None, str, bool],
) -> None:
    name, out, by, as_json = how
    chosen = _template(settings, output, name)
    try:
        done = deliver(database, chosen, scope, found, out or settings.home / "outbound", by=by)
    except (DeliveryError, TemplateError) as error:
        problem(str(error), "nothing was sent; docs/outputs.md has contracts and templates")
    emit(done.document(), as_json, lambda _: OUT.print(_summary(done), highlight=False))


def _period(database: Database, cycle: str, period_end: date) -> None:
    """End with one line where a cycle has no such period: an empty answer would look like one that was sent."""
    if not tables.has_period(database, cycle, period_end):
        problem(
            f"cycle {cycle} has no period that ends on {period_end}",
            "meter-pipeline reference show billing_cycles lists them; the end is the day after the last",
        )


def _summary(done: Delivery) -> str:
    if done.path is None and not done.sequence:
        return f"{done.output} of {done.scope}: there is no record, and no file was written"
    if done.path is None:
        return f"{done.output} of {done.scope}: nothing new since file {done.sequence} ({done.unchanged} records unchanged)"
    sums = ", ".join(f"{name} {total}" for name, total in done.sums.items())
    return f"{done.path}: {done.records} records ({done.unchanged} unchanged and not sent again){', ' + sums if sums else ''}"


def _show_deliveries(document: dict[str, Any], as_json: bool, title: str) -> None:
    columns = ["file_name", "records", "written_at", "status", "answer"]
    rows = [[row[c] for c in columns] for row in document["deliveries"]]
    emit(document, as_json, lambda _: OUT.print(table(title, columns, rows, numbers=["records"])))
