"""``meter-pipeline migrate``: status, advance, rollback, shadow, import-legacy, known-defect, compare, gate, publish,
deliver."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, PROBLEM, emit, problem, table
from meter_pipeline.deployment import prepare
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Leaving the legacy batch: status, advance, rollback, compare, gate.")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
By = Annotated[str, typer.Option("--by", help="Who you are, as the directory knows you.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


@app.command()
def status(json: Json = False) -> None:
    """Stage, cohort, outbox and the gate's clock.

    Example: meter-pipeline migrate status
    """
    from meter_pipeline.migration import cutover, day, tables

    database = prepare(load_settings())
    value = cutover.current(database)
    report = day.gate(database)
    with database.connect("migrate status") as connection:
        outbox = tables.outbox_counts(connection)
    document = {
        "stage": value.value["stage"],
        "routes": value.value["routes"],
        "basis_points": value.value["basis_points"],
        "version": value.version,
    }
    document |= {"outbox": outbox, "gate": report.document() | {"sha256": report.sha256}}
    emit(document, json, _show_status)


@app.command()
def advance(
    stage: Annotated[str, typer.Argument(help="off, shadow, dual_write, live, ramp_down or complete.")],
    by: By,
    reason: Reason,
    basis_points: Annotated[
        int, typer.Option("--basis-points", help="Share of accounts on the new side, hundredths of a percent.")
    ] = 0,
    route: Annotated[
        list[str] | None, typer.Option("--route", help="A route whose accounts are on the new side; may be repeated.")
    ] = None,
    report: Annotated[
        str | None, typer.Option("--report", help="Hash of the green gate report, for a step that two people sign.")
    ] = None,
    request: Annotated[int | None, typer.Option("--confirm", help="Confirm this request as the second person.")] = None,
    json: Json = False,
) -> None:
    """Take, ask for or confirm a step.

    Examples:
      meter-pipeline migrate advance shadow --by ops --reason "parallel run starts"
      meter-pipeline migrate advance live --basis-points 100 --report SHA --by ops --reason "first percent"
      meter-pipeline migrate advance live --confirm 7 --report SHA --by finance --reason "signed"
    """
    from meter_pipeline.cli.identity import acting
    from meter_pipeline.control.migration_stage import who_bills
    from meter_pipeline.control.people import Refused
    from meter_pipeline.migration import cutover

    database = prepare(load_settings())
    if stage == "shadow" and request is None:
        from meter_pipeline.migration import shadow

        # The deployment's part of shadow: its database and its role's rights. The step itself is on the record below.
        shadow.prepare(database)
    points = 10_000 if stage in ("ramp_down", "complete") and not basis_points else basis_points
    value: dict[str, Any] = {"stage": stage, "routes": sorted(route or []), "basis_points": points}
    try:
        duties = cutover.CUT_OVER.ask if request is None else cutover.CUT_OVER.confirm
        by = acting(database, "cut_over", f"stage {stage}", by, duties)
        if request is not None:
            now = cutover.confirm_step(database, request, report or "", by=by, reason=reason)
            document: dict[str, Any] = {"done": True, "stage": now.value, "version": now.version}
            document["bills_after"] = who_bills(now.value)
        elif report is not None:
            pending = cutover.request_step(database, value, report, by=by, reason=reason)
            document = {"done": False, "request": pending.request_id, "expires": pending.expires_at}
            document["bills_after"] = who_bills(value)
        else:
            now = cutover.step(database, value, by=by, reason=reason)
            document = {"done": True, "stage": now.value, "version": now.version, "bills_after": who_bills(now.value)}
    except Refused as refused:
        emit(
            {"done": False, "refused": refused.code, "why": str(refused)},
            json,
            lambda d: OUT.print(f"Refused: {d['why']}"),
        )
        raise typer.Exit(PROBLEM) from refused
    emit(document, json)


@app.command()
def rollback(
    by: By,
    reason: Reason,
    to: Annotated[str, typer.Option("--to", help="dual_write or shadow.")] = "dual_write",
    json: Json = False,
) -> None:
    """Give authority back to the legacy side, at once; both sides go on being written.

    Example: meter-pipeline migrate rollback --by ana --reason "totals differ"
    """
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions
    from meter_pipeline.control.migration_stage import who_bills
    from meter_pipeline.migration.rollback import roll_back

    database = prepare(load_settings())
    person = acting_or_exit(database, "rollback", "migration", by, decisions.WORK)
    done = roll_back(database, [reason], by=person, to=to)
    if done is None:
        problem("the legacy side has authority already", "see `meter-pipeline migrate status`")
    document = {"from": done.before, "to": done.after, "reasons": done.reasons, "seconds": round(done.seconds, 4)}
    emit(document | {"bills_after": who_bills(done.after)}, json)


@app.command("shadow")
def run_shadow(
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="Billing day.")],
    json: Json = False,
) -> None:
    """Run a billing day's stages beside the legacy batch, in the shadow database.

    Example: meter-pipeline migrate shadow --help
    """
    from meter_pipeline.migration import cutover, shadow

    settings = load_settings()
    database = prepare(settings)
    stage = cutover.current(database).value["stage"]
    if stage != "shadow":
        problem(f"the stage is {stage}: the shadow runs in shadow alone", "meter-pipeline migrate advance shadow")
    done = shadow.run_day(database, settings.calendar(), day.date(), settings=settings)
    failed = [check.name for check in done.report().checks if not check.passed]
    document = {
        "day": day.date(),
        "rows": {name: stage.rows for name, stage in done.stages.items()},
        "failed_checks": failed,
    }
    emit(document | {"seconds": {name: round(seconds, 3) for name, seconds in done.seconds.items()}}, json)


@app.command("known-defect")
def known_defect(
    defect_id: Annotated[str, typer.Argument(help="Its name: capitals, digits and hyphens.")],
    most: Annotated[
        str, typer.Option("--most", help="Largest difference of one figure it explains, in currency or base units.")
    ],
    expires: Annotated[
        datetime,
        typer.Option("--expires", formats=["%Y-%m-%d"], help="Last day of the defect; it cannot be open-ended."),
    ],
    by: By,
    approver: Annotated[
        str,
        typer.Option(
            "--approver",
            help="Who approves ignoring it: another person, with a code they made (people code) in METER_PIPELINE_APPROVER_CODE.",
        ),
    ],
    reason: Annotated[str, typer.Option("--reason", help="The defect of the legacy batch.")],
    level: Annotated[
        list[str] | None,
        typer.Option("--level", help="read, usage, determinant, line, total; may be repeated (default: all)."),
    ] = None,
    code: Annotated[
        list[str] | None, typer.Option("--code", help="A figure's code; may be repeated (default: all).")
    ] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First billing day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last billing day.")] = None,
    json: Json = False,
) -> None:
    """Record a defect of the legacy batch that is understood. Changing what is ignored resets the gate's clock.

    Example: meter-pipeline migrate known-defect --help
    """
    from meter_pipeline.cli.identity import acting, approving
    from meter_pipeline.control import decisions
    from meter_pipeline.control.people import Refused
    from meter_pipeline.migration.defects import record
    from meter_pipeline.units import parse_decimal, to_micro

    database = prepare(load_settings())
    try:
        by = acting(database, "known_defect", defect_id, by, decisions.WORK)
        approver = approving(database, "known_defect", defect_id, approver, decisions.FINANCE)
        record(
            database,
            defect_id,
            levels=level or [],
            codes=code or [],
            most=to_micro(parse_decimal(most)),
            by=by,
            approver=approver,
            reason=reason,
            expires=expires.replace(tzinfo=UTC),
            first_day=first.date() if first else None,
            last_day=last.date() if last else None,
        )
    except (Refused, ValueError) as refused:
        problem(
            str(refused), "two people are needed: --by, and --approver with their code in METER_PIPELINE_APPROVER_CODE"
        )
    emit({"defect": defect_id, "expires": expires.date()}, json)


@app.command()
def publish(
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="Billing day.")], json: Json = False
) -> None:
    """Record whose bill each account's day is, and put the other side's copy in the outbox.

    Example: meter-pipeline migrate publish --help
    """
    from meter_pipeline.migration.dual_write import publish_billing_day

    done = publish_billing_day(prepare(load_settings()), day.date())
    emit(
        {
            "day": done.billing_day,
            "stage": done.stage,
            "bills": done.sides,
            "sent": done.sent,
            "waiting": done.waiting,
            "lost": done.lost,
        },
        json,
    )
    if done.lost:
        raise typer.Exit(PROBLEM)


@app.command()
def deliver(json: Json = False) -> None:
    """Deliver what waits for the other side: the reverse sync.

    Example: meter-pipeline migrate deliver
    """
    from meter_pipeline.migration.dual_write import deliver_all
    from meter_pipeline.migration.sides import configured

    settings = load_settings()
    database = prepare(settings)
    emit(deliver_all(database, configured(database, settings)), json)


@app.command("import-legacy")
def import_legacy(
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"])],
    file: Annotated[Path | None, typer.Option("--file", help="CSV with account_id, level, code, value.")] = None,
    from_table: Annotated[
        str | None, typer.Option("--table", help="schema.table with billing_day, account_id, level, code, value.")
    ] = None,
    json: Json = False,
) -> None:
    """Import what the legacy batch made of a billing day.

    Example: meter-pipeline migrate import-legacy --help
    """
    from meter_pipeline.migration.legacy_import import LegacyRefused, import_results, read_csv, read_table

    database = prepare(load_settings())
    try:
        if file is not None:
            results = read_csv(file, day.date())
        elif from_table is not None:
            results = read_table(database, from_table, day.date())
        else:
            raise typer.BadParameter("give --file or --table")
    except LegacyRefused as refused:
        problem(str(refused), "mend the export and import it again")
    count = import_results(
        database, day.date(), results, finished_at=datetime.now(UTC), source=file.name if file else str(from_table)
    )
    emit({"day": day.date(), "figures": count}, json)


@app.command()
def compare(
    day: Annotated[datetime, typer.Option("--day", formats=["%Y-%m-%d"], help="Billing day.")],
    mode: Annotated[str, typer.Option("--mode", help="live, replay or legacy_twice.")] = "live",
    second: Annotated[
        Path | None, typer.Option("--second-run", help="For legacy_twice: the CSV of a second run of the legacy batch.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare every account's figures of a day with the legacy batch's. Exit 1 when a difference has no explanation.

    Example: meter-pipeline migrate compare --help
    """
    from meter_pipeline.migration.day import compare_billing_day
    from meter_pipeline.migration.legacy_import import LegacyRefused, read_csv

    if mode not in ("live", "replay", "legacy_twice"):
        raise typer.BadParameter("live, replay or legacy_twice", param_hint="--mode")
    try:
        again = read_csv(second, day.date()) if second is not None else None
    except LegacyRefused as refused:
        problem(str(refused), "mend the export")
    outcome = compare_billing_day(prepare(load_settings()), day.date(), mode=mode, second_run=again)  # type: ignore[arg-type]  # checked above
    result = outcome.comparison
    document = {
        "day": day.date(),
        "run": outcome.run_id,
        "compared": result.both.height,
        "bills": result.bills,
        "source": outcome.source,
        "blocking": result.blocking,
        "net_money": result.net_money,
        "absolute_money": result.absolute_money,
        "summary": result.summary.to_dicts(),
    }
    emit(document, json, _show_comparison)
    if result.blocking:
        raise typer.Exit(PROBLEM)


@app.command()
def gate(json: Json = False) -> None:
    """Weigh the evidence and write the gate's page. Exit 1 while the gate is shut.

    Example: meter-pipeline migrate gate
    """
    from meter_pipeline.migration import cutover
    from meter_pipeline.migration.day import gate as weigh
    from meter_pipeline.migration.page import write_page

    settings = load_settings()
    database = prepare(settings)
    report = weigh(database)
    page = write_page(database, report, cutover.current(database).value, settings.home / "reports")
    emit(report.document() | {"sha256": report.sha256, "page": str(page)}, json, _show_gate)
    if not report.green:
        raise typer.Exit(PROBLEM)


def _show_status(document: dict[str, Any]) -> None:
    OUT.print(
        f"Stage [bold]{document['stage']}[/], routes {', '.join(document['routes']) or 'none'}, {document['basis_points'] / 100:.2f} % by hash"
    )
    _show_gate(document["gate"])


def _show_gate(document: dict[str, Any]) -> None:
    rows = [("yes" if c["met"] else "no", c["name"], c["have"], c["need"]) for c in document["conditions"]]
    OUT.print(
        table(
            f"Gate {'GREEN' if document['green'] else 'shut'} ({document['sha256'][:16]})",
            ["met", "condition", "have", "need"],
            rows,
        )
    )
    if document["reset_by"]:
        OUT.print(f"Clock last reset by: {document['reset_by']}")


def _show_comparison(document: dict[str, Any]) -> None:
    rows = [(r["level"], r["class"], r["figures"], r["net"], r["absolute"]) for r in document["summary"]]
    title = (
        f"Billing day {document['day']}: {document['blocking']} blocking, {document['compared']} figures on both sides"
    )
    OUT.print(
        table(title, ["level", "class", "figures", "net", "absolute"], rows, numbers=["figures", "net", "absolute"])
    )
