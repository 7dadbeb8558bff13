"""meter-pipeline billing adjust-leak: from a confirmed leak to the adjustments of its bills."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.postgres.database import open_database
from meter_pipeline.settings import load_settings

_COLUMNS = ("statement_id", "used", "normal", "forgiven", "sewer_forgiven", "unit", "net", "why_not")


def adjust_leak(
    case: Annotated[str, typer.Argument(help="A confirmed leak, as meter-pipeline exceptions list --all shows it.")],
    by: Annotated[str, typer.Option("--by", help="Who you are.")],
    shown: Annotated[str, typer.Option("--evidence", help="What the customer showed, such as a repair receipt.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the adjustments and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Adjust the bills of a confirmed leak by the rules of reference/leak_adjustment_rules.csv. Above the threshold in
    force (meter-pipeline billing threshold) a second person decides.

    Examples:
      meter-pipeline billing adjust-leak flow-SP-W0000044-20261012 --by ana --dry-run
      meter-pipeline billing adjust-leak flow-SP-W0000044-20261012 --by ana --evidence "plumber's receipt 4711"
    """
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions
    from meter_pipeline.leak_adjustments.request import apply, preview
    from meter_pipeline.leak_adjustments.rules import LeakRefusedError

    settings = load_settings()
    database, calendar = open_database(settings), settings.calendar()
    names: list[str] = []
    try:
        if dry_run:
            leak = preview(database, calendar, case)
        else:
            person = acting_or_exit(database, "adjust-leak", case, by, decisions.WORK)
            leak, names = apply(database, calendar, case, shown=shown, requested_by=person)
    except LeakRefusedError as error:
        problem(str(error))
    bills = [bill.document() for bill in leak.bills]
    document = {"case_id": case, "bills": bills, "adjustments": names}

    def show(_: Any) -> None:
        rows = [[str(bill.get(column, "")) for column in _COLUMNS] for bill in bills]
        OUT.print(table(f"Leak {case}", _COLUMNS, rows, numbers=_COLUMNS[1:5]))
        for name in names:
            OUT.print(name, highlight=False)

    emit(document, as_json, show)
