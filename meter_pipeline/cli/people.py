"""``meter-pipeline people``: the register of people and their duties, which dual control stands on."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.control import people
from meter_pipeline.control.tables import flags
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(
    help="Who may raise a pause, ask to resume, confirm: the register of people and their duties.", no_args_is_help=True
)

By = Annotated[str, typer.Option("--by", help="Who you are. Default: the login name.", default_factory=getpass.getuser)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Duty = Annotated[
    list[str], typer.Option("--duty", help="operator, finance, engineer or auditor; may be given several times.")
]


def _database() -> Database:
    return open_database(load_settings())


def _put(name: str, duties: list[str], by: str, active: bool, json: bool) -> None:
    with _database().connect("people") as connection:
        try:
            person = people.put(connection, name, duties, by=by, active=active)
        except ValueError as wrong:
            problem(str(wrong), "meter-pipeline people list")
        connection.commit()
    words = f"{person}: {', '.join(sorted(duties))}" if active else f"{person} may no longer act"
    emit(
        {"person": person, "duties": sorted(duties), "active": active, "changed_by": by},
        json,
        lambda _: OUT.print(words, highlight=False),
    )


@app.command("list")
def list_(json: Json = False) -> None:
    """Everybody in the register. While a duty is nobody's, anyone may act in it.

    Example: meter-pipeline people list
    """
    with _database().connect("people", autocommit=True) as connection:
        found = flags.people(connection)
    held = {duty for person in found if person["active"] for duty in person["duties"]}
    document = {"people": found, "duties_of_nobody": [duty for duty in people.DUTIES if duty not in held]}
    emit(document, json, _show)


@app.command()
def put(
    name: Annotated[str, typer.Argument(help="Lower-case ASCII: one spelling of one person.")],
    duty: Duty,
    by: By,
    json: Json = False,
) -> None:
    """Enter a person, or change their duties; recorded on the ledger. Nobody changes their own.

    Example: meter-pipeline people put fay@utility.example --duty finance --by ann@utility.example
    """
    _put(name, duty, by, True, json)


@app.command()
def deactivate(name: Annotated[str, typer.Argument(help="The person.")], by: By, json: Json = False) -> None:
    """Take a person's rights to act; the entry and what they did stay.

    Example: meter-pipeline people deactivate ana --by ben
    """
    with _database().connect("people", autocommit=True) as connection:
        duties = next(
            (row["duties"] for row in flags.people(connection) if row["person"] == people.canonical(name)), None
        )
    if duties is None:
        problem(f"{name} is not in the register", "meter-pipeline people list")
    _put(name, list(duties), by, False, json)


def _show(document: dict[str, Any]) -> None:
    rows = [
        (p["person"], ", ".join(p["duties"]), "yes" if p["active"] else "no", p["changed_by"], p["changed_at"])
        for p in document["people"]
    ]
    OUT.print(table("People", ["person", "duties", "active", "changed by", "changed at"], rows))
    if document["duties_of_nobody"]:
        OUT.print(
            f"Nobody has the duty of {', '.join(document['duties_of_nobody'])}: any person may act in it.",
            style="yellow",
            highlight=False,
        )
