"""meter-pipeline billing: statements, adjustments, reconciliation, month-end close."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.leak import adjust_leak
from meter_pipeline.cli.output import OUT, decimal_text, emit, problem, table
from meter_pipeline.money import money_text
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import Settings, load_settings

app = typer.Typer(help="Statements, adjustments, reconciliation, month-end close.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Who = Annotated[
    str, typer.Option("--by", help="Who you are; two different people are needed where money or a seal is concerned.")
]


def _open() -> tuple[Settings, Database]:
    settings = load_settings()
    return settings, open_database(settings)


def _month(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m").date()  # noqa: DTZ007 - a civil month
    except ValueError as error:
        raise typer.BadParameter("write a month like 2026-07") from error


@app.command()
def reproduce(
    statement: Annotated[str, typer.Argument(help="Statement id.")],
    as_json: Json = False,
) -> None:
    """Rebuild an issued statement from what was known when it was issued; exit 1 where a byte differs.

    Example: meter-pipeline billing reproduce AC-1.C1.20260701.0
    """
    from meter_pipeline.corrections.reproduce import ReproduceError
    from meter_pipeline.corrections.reproduce import reproduce as rebuild

    settings, database = _open()
    try:
        found = rebuild(database, settings.calendar(), statement)
    except ReproduceError as error:
        problem(
            str(error),
            "its name is ACCOUNT.CYCLE.PERIOD_START.0, such as A-1.C1.20260701.0; meter-pipeline desk lists them",
        )
    document = {
        "statement_id": statement,
        "identical": found.identical,
        "reference_known_from": found.known_from,
        "lines_sha256": found.lines_sha256,
        "differing": found.differing,
    }
    emit(document, as_json, lambda d: OUT.print(f"{statement}: {'identical' if d['identical'] else 'differs'}"))
    if not found.identical:
        raise typer.Exit(1)


@app.command()
def issue(
    cycle: Annotated[str, typer.Argument(help="Billing cycle.")],
    period_end: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Day after the period's last.")],
    as_json: Json = False,
) -> None:
    """Issue the statements of a cycle's period. Example: meter-pipeline billing issue C1 2026-08-01"""
    from meter_pipeline.billing.bill_run import issue_statements
    from meter_pipeline.billing.reconcile import micro

    settings, database = _open()
    try:
        outcome = issue_statements(database, settings.calendar(), cycle, period_end.date())
    except ValueError as error:
        problem(str(error), "See the cycles in billing_cycles.csv")
    document = {
        "cycle_id": cycle,
        "period_start": outcome.period_start,
        "period_end": outcome.period_end,
        "issued": outcome.issued,
        "already_issued": outcome.already,
        "lines": outcome.lines,
        "total": money_text(micro(outcome.total), outcome.currency),
        "currency": outcome.currency,
        "waiting": outcome.exceptions,
    }
    emit(document, as_json, lambda d: OUT.print(table("Statements", ["what", "value"], list(d.items()))))


@app.command()
def show(
    statement_id: str,
    html: Annotated[Path | None, typer.Option(help="Write the customer's page here.")] = None,
    pdf: Annotated[Path | None, typer.Option(help="Write the customer's page here as PDF.")] = None,
    page: Annotated[str, typer.Option(help="Page size of the PDF: letter or A4.")] = "letter",
    as_json: Json = False,
) -> None:
    """Show a statement, or write it as a page. Example: meter-pipeline billing show A-001.C1.20260701.0 --html
    bill.html --pdf bill.pdf"""
    from meter_pipeline.billing.tables.statements import read_statement

    settings, database = _open()
    head, lines, _ = read_statement(database, statement_id)
    if not head.height:
        problem(
            f"no statement {statement_id}",
            "Issue a period's statements with: meter-pipeline billing issue CYCLE PERIOD_END",
        )
    if html is not None or pdf is not None:
        _write_bill(settings, database, statement_id, html, (pdf, page))
    row = head.to_dicts()[0]
    currency = row["currency"]
    document = row | {
        "total": money_text(row["total"], currency),
        "lines": [line | {"amount": money_text(line["amount"], currency)} for line in lines.to_dicts()],
    }
    columns = ["line_no", "name", "quantity", "unit", "amount"]

    def shown(d: dict[str, Any]) -> None:
        rows = [[decimal_text(line[c]) if c == "quantity" else line[c] for c in columns] for line in d["lines"]]
        rows.append(["", "total", "", currency, d["total"]])
        OUT.print(table(statement_id, columns, rows, numbers=["quantity", "amount"]))

    emit(document, as_json, shown)


def _write_bill(
    settings: Settings, database: Database, statement_id: str, html: Path | None, pdf: tuple[Path | None, str]
) -> None:
    """The customer's page, as HTML, as PDF or both."""
    from meter_pipeline.billing.bill_document import bill_documents
    from meter_pipeline.billing.bill_pdf import write_pdf
    from meter_pipeline.billing.bill_settings import BillSettingsError, read_bill_settings
    from meter_pipeline.billing.render import bill_page
    from meter_pipeline.page_formats import formats_of

    utility = settings.utility()
    try:
        bill_settings = read_bill_settings(settings.data)
        bills = bill_documents(database, [statement_id], utility.name, utility.zone, bill_settings)
        if html is not None:
            html.write_text(bill_page(bills[0], formats_of(settings)), encoding="utf-8")
        if pdf[0] is not None:
            write_pdf(bills, pdf[0], formats_of(settings), pdf[1])
    except BillSettingsError as error:
        problem(str(error), "docs/finance.md has the fields of bill.toml")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command("print")
def print_(
    cycle: Annotated[str, typer.Argument(help="Billing cycle.")],
    period_end: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Day after the period's last.")],
    folder: Annotated[Path, typer.Argument(help="Folder for bills.pdf, bills.jsonl, index.csv, manifest.json.")],
    page: Annotated[str, typer.Option(help="Page size: letter or A4.")] = "letter",
    as_json: Json = False,
) -> None:
    """Write a period's bills for a print vendor.

    Example: meter-pipeline billing print C1 2026-08-01 to_print/c1-july
    """
    from meter_pipeline.billing.bill_settings import BillSettingsError
    from meter_pipeline.billing.print_run import print_period

    settings, database = _open()
    try:
        manifest = print_period(database, settings, cycle, period_end.date(), folder, page=page)
    except BillSettingsError as error:
        problem(str(error), "docs/finance.md has the fields of bill.toml")
    except ValueError as error:
        problem(str(error), "meter-pipeline billing issue CYCLE PERIOD_END; meter-pipeline status says what waits")
    emit({"folder": folder.resolve()} | manifest, as_json)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    period_start: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Statements whose period begins on this day.")
    ] = None,
    month: Annotated[str | None, typer.Option(help="All that was posted in a month, like 2026-07.")] = None,
) -> None:
    """Write the lines of statements and of their posted adjustments, of a period or of a posting month, safe for
    spreadsheets.

    Examples:
      meter-pipeline billing export july.csv --period-start 2026-07-01
      meter-pipeline billing export posted.csv --month 2026-07
    """
    from meter_pipeline.billing.export import write
    from meter_pipeline.billing.tables.statements import month_lines, period_lines

    database = _open()[1]
    if period_start is not None and month is None:
        lines = period_lines(database, period_start.date())
    elif month is not None and period_start is None:
        lines = month_lines(database, _month(month))
    else:
        raise typer.BadParameter("give --period-start or --month")
    try:
        write(lines, path)
    except ValueError as error:
        problem(str(error))


@app.command()
def reconciliation(day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"])], as_json: Json = False) -> None:
    """The reconciliation checks of a billing day, open ones first.

    Example: meter-pipeline billing reconciliation 2026-11-01
    """
    frame = _open()[1].read(
        "SELECT joint, subject, unit, expected::text AS expected, actual::text AS actual, difference::text AS difference, cause, items "
        "FROM billing.reconciliation WHERE billing_day = $1 ORDER BY cause <> 'open', joint, subject",
        [day.date()],
    )
    if not frame.height:
        problem(
            f"{day:%Y-%m-%d} is not billed, so that it has no reconciliation",
            f"meter-pipeline run --day {day:%Y-%m-%d}",
        )
    emit(
        {"billing_day": day.date(), "joints": frame.to_dicts()},
        as_json,
        lambda d: OUT.print(
            table(
                f"Reconciliation of {day:%Y-%m-%d}",
                frame.columns,
                frame.rows(),
                numbers=["expected", "actual", "difference", "items"],
            )
        ),
    )
    if "open" in frame["cause"].to_list():
        raise typer.Exit(1)


@app.command()
def law(
    day: Annotated[datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="One billing day.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="A whole month, like 2026-07.")] = None,
    as_json: Json = False,
) -> None:
    """Whether all validated usage is on a bill, accrued, or waiting for a reason that people see; exit 1 where not.

    Computed from the tables by queries that billing does not use. Without a day or month it is the last day billed.

    Example: meter-pipeline billing law --day 2026-11-01
    """
    from meter_pipeline.revenue_assurance.law import last_day, law_of_day, law_of_month

    database = _open()[1]
    if day is not None and month is not None:
        problem("--day and --month exclude each other", "Give one of them.")
    wanted_day = day.date() if day is not None else last_day(database)
    if month is None and wanted_day is None:
        problem("no day is billed yet", "Bill a day first: meter-pipeline run --day DAY")
    result = (
        law_of_month(database, _month(month)) if month is not None else law_of_day(database, wanted_day or date.min)
    )
    document = result.document()

    def show(d: dict[str, Any]) -> None:
        columns = ["billing_day", "service_point_id", "unit", "validated", "billed", "accrued", "waiting", "why"]
        OUT.print(result.sentence())
        for title in ("open", "waiting"):
            if d[title]:
                OUT.print(table(title.capitalize(), columns, [[row[c] for c in columns] for row in d[title][:200]]))
        for line in d["bills_open"]:
            OUT.print(f"open: {line}")
        for line in d["bills_waiting"]:
            OUT.print(f"waiting: {line}")
        for line in d["waived"]:
            OUT.print(f"back-billing: {line}", highlight=False)

    emit(document | {"ok": result.ok and result.days > 0}, as_json, show)
    if not result.days:
        problem("none of these days is billed", f"meter-pipeline run --day {result.first}")
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def adjust(
    statement_id: str,
    by: Who,
    reason: Annotated[str, typer.Option(help="late_actual, correction, tariff or reference.")],
    evidence: Annotated[str, typer.Option()],
    as_json: Json = False,
) -> None:
    """Ask for the correction of a statement from what is known now: cancel and rebill of the lines that changed. Above
    the threshold in force (meter-pipeline billing threshold) a second person decides.

    Example: meter-pipeline billing adjust A-0000001.CYCLE-1.20261001.0 --by ana --reason late_actual --evidence "reads
    of 3 October came on the 9th"
    """
    from meter_pipeline.billing.adjustments import request
    from meter_pipeline.billing.proposals import AdjustmentError

    settings, database = _open()
    person = _acting(database, "adjust", statement_id, by)
    try:
        name = request(
            database,
            settings.calendar(),
            statement_id,
            reason=reason,
            evidence=evidence,
            requested_by=person,
        )
    except AdjustmentError as error:
        problem(str(error))
    emit({"adjustment_id": name}, as_json, lambda d: OUT.print(d["adjustment_id"] or "nothing changed"))


app.command("adjust-leak")(adjust_leak)


@app.command()
def threshold(
    amount: Annotated[str | None, typer.Argument(help="Ask for this threshold, in the currency.")] = None,
    confirm: Annotated[int | None, typer.Option("--confirm", help="Confirm this request as the second person.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who you are.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    as_json: Json = False,
) -> None:
    """Show the sum above which a second person decides an adjustment; two people change it, on the ledger.

    Examples:
      meter-pipeline billing threshold
      meter-pipeline billing threshold 25.00 --by ana --reason "auditor's advice"
      meter-pipeline billing threshold --confirm 7 --by ben --reason agreed
    """
    from meter_pipeline.control import decisions, flags
    from meter_pipeline.control.people import Refused

    database = _open()[1]
    document: dict[str, Any]
    try:
        if confirm is not None:
            person = _acting(database, "flag", "adjustment_threshold", by, money=True)
            value = flags.confirm_change(database, decisions.ADJUSTMENT_THRESHOLD, confirm, by=person, reason=reason)
            document = {"threshold": value.value, "version": value.version}
        elif amount is not None:
            person = _acting(database, "flag", "adjustment_threshold", by)
            text = f"{Decimal(amount):.2f}"
            pending = flags.request_change(database, decisions.ADJUSTMENT_THRESHOLD, text, by=person, reason=reason)
            document = {"request": pending.request_id, "to": text, "expires_at": pending.expires_at}
        else:
            with database.connect("billing", autocommit=True) as connection:
                value = flags.read(connection, decisions.ADJUSTMENT_THRESHOLD)
            document = {"threshold": value.value, "version": value.version, "changed_by": value.changed_by}
    except Refused as refusal:
        problem(str(refusal))
    except ArithmeticError as error:
        raise typer.BadParameter(f"{amount!r} is not an amount") from error
    emit(document, as_json)


def _acting(database: Database, action: str, subject: str, by: str, *, money: bool = False) -> str:
    """The person who decides, entitled and proven; ``money``: only finance does."""
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    return acting_or_exit(database, action, subject, by, decisions.FINANCE if money else decisions.WORK)


@app.command()
def adjustments(as_json: Json = False) -> None:
    """List adjustments.

    Example: meter-pipeline billing adjustments --json
    """
    from meter_pipeline.billing.tables.adjustments import listed

    settings, database = _open()
    frame = listed(database)
    currency = settings.utility().currency
    rows = [row | {n: money_text(row[n], currency) for n in ("net", "gross")} for row in frame.to_dicts()]
    emit(
        {"adjustments": rows},
        as_json,
        lambda d: OUT.print(
            table("Adjustments", frame.columns, [list(row.values()) for row in rows], numbers=["net", "gross"])
        ),
    )


@app.command("left-credit")
def left_credit(as_json: Json = False) -> None:
    """List credit for exports that an account's last bill left and that no later bill takes in.

    Example: meter-pipeline billing left-credit --json
    """
    from meter_pipeline.billing.tables.statements import left_credit as left

    frame = left(_open()[1])
    rows = [row | {name: decimal_text(Decimal(row[name])) for name in ("units", "money")} for row in frame.to_dicts()]
    emit(
        {"left_credit": rows},
        as_json,
        lambda d: OUT.print(
            table("Credit left", frame.columns, [list(row.values()) for row in rows], numbers=["units", "money"])
        ),
    )


@app.command()
def decide(
    adjustment_id: str,
    by: Who,
    refuse: Annotated[bool, typer.Option("--refuse", help="Refuse it instead of approving.")] = False,
    as_json: Json = False,
) -> None:
    """Approve (and post) or refuse an adjustment that another person asked for.

    Example: meter-pipeline billing decide A-0000001.CYCLE-1.20261001.0.A1 --by ben
    """
    from meter_pipeline.billing.adjustments import decide as decide_one
    from meter_pipeline.billing.proposals import AdjustmentError

    database = _open()[1]
    person = _acting(database, "adjustment", adjustment_id, by, money=True)
    try:
        decide_one(database, adjustment_id, approve=not refuse, person=person)
    except AdjustmentError as error:
        problem(str(error), "See who asked with: meter-pipeline billing adjustments")
    document = {"adjustment_id": adjustment_id, "status": "refused" if refuse else "posted", "by": person}
    emit(document, as_json, lambda d: OUT.print(f"{adjustment_id}: {d['status']} by {person}", highlight=False))


@app.command()
def close(
    month: Annotated[str, typer.Argument(help="Like 2026-07.")],
    by: Who,
    approve: Annotated[
        bool, typer.Option("--approve", help="Seal a month that another person asked to close.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask to close a month (prints its checklist), or seal one that another person asked to close.

    Example: meter-pipeline billing close 2026-10 --by ana
    """
    from meter_pipeline.billing.close import CloseError, approve_close, request_close

    database, first = _open()[1], _month(month)
    person = _acting(database, "close", month, by, money=True)
    try:
        if approve:
            seal = approve_close(database, first, person=person)
            document: dict[str, Any] = {
                "month": month,
                "sealed": True,
                "control_totals": seal.control_totals,
                "totals_sha256": seal.totals_sha256,
            }
        else:
            document = {"month": month, "sealed": False, "checklist": request_close(database, first, person=person)}
    except CloseError as error:
        problem(str(error))
    emit(document, as_json)
