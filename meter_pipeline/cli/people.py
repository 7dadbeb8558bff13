"""``meter-pipeline people``: the register of people and their duties, which dual control stands on."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from meter_pipeline.cli.output import OUT, emit, problem, table
from meter_pipeline.control import people
from meter_pipeline.control.tables import register
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


Approver = Annotated[
    str | None,
    typer.Option(
        "--approver",
        help="The second person, with a code they made (people code) in METER_PIPELINE_APPROVER_CODE; "
        "needed once two people are in the register.",
    ),
]


def _two_people(database: Database, name: str, by: str, approver: str | None) -> str:
    """Who changes the register: any person in its first hour, then a person of it, with a second one where there are
    two.
    """
    from meter_pipeline.cli.identity import acting, approving
    from meter_pipeline.control import decisions

    with database.connect("people", autocommit=True) as connection:
        if decisions.may_fill_register(connection, by):
            return by
        several = sum(bool(p["active"]) for p in register.people(connection)) > 1
    try:
        editor = acting(database, "person", name, by, decisions.WORK)
        if not several:
            return editor
        if approver is None:
            problem(
                "two people change the register", "--approver NAME, with their code in METER_PIPELINE_APPROVER_CODE"
            )
        second = approving(database, "person", name, approver, decisions.WORK)
    except people.Refused as refusal:
        problem(str(refusal), "meter-pipeline people list")
    if second in (editor, people.canonical(name)):
        problem(f"{second} cannot be the second person here")
    return editor


def _put(
    name: str, duties: list[str], by: str, active: bool, json: bool, *, approver: str | None, os_user: str | None = None
) -> None:
    database = _database()
    by = _two_people(database, name, by, approver)
    with database.connect("people") as connection:
        try:
            person = people.put(connection, name, duties, by=by, active=active, os_user=os_user)
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
    """Everybody in the register. While it is empty a name that is typed is believed; then a name outside it decides
    nothing, and a person proves who they are.

    Example: meter-pipeline people list
    """
    with _database().connect("people", autocommit=True) as connection:
        found = register.people(connection)
    duties = {duty for person in found if person["active"] for duty in person["duties"]}
    document = {"people": found, "duties_of_nobody": [duty for duty in people.DUTIES if duty not in duties]}
    emit(document, json, _show)


@app.command()
def put(
    name: Annotated[str, typer.Argument(help="Lower-case ASCII: one spelling of one person.")],
    duty: Duty,
    by: By,
    os_user: Annotated[
        str | None, typer.Option("--os-user", help="Operating system user that proves this person; empty for none.")
    ] = None,
    approver: Approver = None,
    json: Json = False,
) -> None:
    """Enter a person, or change their duties; recorded on the ledger. No person changes their own.

    Example: meter-pipeline people put fay@utility.example --duty finance --by ann@utility.example
    """
    _put(name, duty, by, True, json, approver=approver, os_user=os_user)


@app.command()
def code(by: By, json: Json = False) -> None:
    """Print a code that proves who you are once, within ten minutes: in a job of the Launchpad, or as a second person.

    Example: METER_PIPELINE_TOKEN=... meter-pipeline people code --by ana
    """
    from meter_pipeline.cli.identity import acting_or_exit
    from meter_pipeline.control import decisions

    database = _database()
    person = acting_or_exit(database, "code", by, by, people.DUTIES)
    with database.connect("people") as connection:
        sign_code = decisions.make_code(connection, person)
        connection.commit()
    minutes = int(decisions.CODE_LIFE.total_seconds() // 60)
    emit(
        {"person": person, "code": sign_code, "minutes": minutes}, json, lambda d: OUT.print(d["code"], highlight=False)
    )


@app.command()
def deactivate(
    name: Annotated[str, typer.Argument(help="The person.")], by: By, approver: Approver = None, json: Json = False
) -> None:
    """Take a person's rights to act; the entry and what they did stay.

    Example: meter-pipeline people deactivate ana --by ben
    """
    with _database().connect("people", autocommit=True) as connection:
        duties = next(
            (row["duties"] for row in register.people(connection) if row["person"] == people.canonical(name)), None
        )
    if duties is None:
        problem(f"{name} is not in the register", "meter-pipeline people list")
    _put(name, list(duties), by, False, json, approver=approver)


def _show(document: dict[str, Any]) -> None:
    rows = [
        (p["person"], ", ".join(p["duties"]), "yes" if p["active"] else "no", p["changed_by"], p["changed_at"])
        for p in document["people"]
    ]
    OUT.print(table("People", ["person", "duties", "active", "changed by", "changed at"], rows))
    if document["duties_of_nobody"]:
        OUT.print(
            f"Nobody has the duty of {', '.join(document['duties_of_nobody'])}: any person of the register may act in it.",
            style="yellow",
            highlight=False,
        )
