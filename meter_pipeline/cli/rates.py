"""meter-pipeline rates: revenue under proposed tariffs, and the bills that would have changed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, progress, table
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(help="Rate studies over the whole city.", no_args_is_help=True)
_DAY = ["%Y-%m-%d"]


@app.callback()
def root() -> None:
    """Rate studies over the whole city."""


@app.command()
def study(
    tariff: Annotated[
        list[Path], typer.Option("--tariff", help="Proposed tariff: native, URDB (JSON) or OWRS (YAML); repeat.")
    ],
    replaces: Annotated[
        list[str], typer.Option("--replaces", help="The tariff it replaces; one for each --tariff, in order.")
    ],
    first: Annotated[datetime, typer.Option("--from", formats=_DAY, help="Periods that end after this day.")],
    past: Annotated[datetime, typer.Option("--to", formats=_DAY, help="And by this one.")],
    customer_class: Annotated[str | None, typer.Option("--class", help="Accounts of one customer class only.")] = None,
    elasticity: Annotated[
        str | None, typer.Option(help="Assumed elasticity of use to the bill, such as -0.2. Default: use stays.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report page here.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Keep the study in the database under your name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Price a year's bills again under proposed tariffs: revenue by class, component and month, and whose bills change.

    The bills are first priced under the tariffs in force; exit 1 where one does not come out as billed.

    Example: meter-pipeline rates study --tariff e-res-2027.json --replaces E-RES --from 2026-01-01 --to 2027-01-01
    --html study.html
    """
    from meter_pipeline.billing.rate_study import figures
    from meter_pipeline.billing.rate_study.keeping import keep_study
    from meter_pipeline.billing.rate_study.page import write_page
    from meter_pipeline.billing.rate_study.positions import Change
    from meter_pipeline.billing.rate_study.study import Question, StudyRefusedError
    from meter_pipeline.billing.rate_study.study import study as answer
    from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff

    if len(tariff) != len(replaces):
        raise typer.BadParameter("give one --replaces for each --tariff, in the same order")
    assumed = None
    if elasticity is not None:
        try:
            assumed = Decimal(elasticity)
        except InvalidOperation as error:
            raise typer.BadParameter("--elasticity is a number such as -0.2") from error
        if not -5 <= assumed <= 5:
            raise typer.BadParameter("--elasticity lies between -5 and 5")
    changes = []
    for path, old in zip(tariff, replaces, strict=True):
        try:
            raw = path.read_bytes()
            changes.append(Change(parse_tariff(raw), raw, old.upper()))
        except OSError as error:
            problem(f"{path}: can't be read: {error.strerror}")
        except TariffRefusedError as error:
            problem(f"{path}: {error}", "meter-pipeline tariffs check FILE says it with the line")
    settings = load_settings()
    database = open_database(settings)
    question = Question(changes, first.date(), past.date(), customer_class, assumed)
    with progress() as shown:
        task = shown.add_task("pricing bills", total=None)
        try:
            found = answer(
                database,
                settings.calendar(),
                question,
                progress=lambda done, of: shown.update(task, completed=done, total=of),
            )
        except StudyRefusedError as error:
            problem(str(error))
    document = figures.document(found)
    document["study_id"] = keep_study(database, found, by) if by is not None else None
    if html is not None:
        write_page(html, document, settings.utility().name)

    def render(_: Any) -> None:
        columns = ["customer_class", "accounts", "actual", "proposed", "difference_percent"]
        rows = [
            [f"{row[c]:,.2f}" if isinstance(row[c], Decimal) else row[c] for c in columns]
            for row in document["by_class"]
        ]
        title = f"{', '.join(document['proposed'])} in the place of {', '.join(replaces)}: {found.bills} bills"
        OUT.print(table(title, columns, rows, numbers=columns[1:]))
        for why, count in found.left_out.items():
            OUT.print(f"left out: {count} ({why})", highlight=False)
        for name, why in found.from_intervals.items():
            OUT.print(f"{name} is counted again from intervals: {why}", highlight=False)

    emit(document, as_json, render)
    if found.not_reproduced:
        one = found.not_reproduced[0]
        problem(
            f"{len(found.not_reproduced)} bills do not come out as billed and are left out, first {one['account_id']} from "
            f"{one['period_start']}: billed {figures.money(one['billed'])}, priced {figures.money(one['priced'])}"
        )
