"""``meter-pipeline desk``: the finance desk in a browser, and the tokens people log in with."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from meter_pipeline.cli.output import ERR, OUT, emit, problem
from meter_pipeline.cli.supervisor import listening
from meter_pipeline.deployment import prepare, roles_in_use
from meter_pipeline.settings import load_settings

app = typer.Typer(
    help="The finance desk in a browser: exceptions, dead letters, pause, adjustments, bills explained.",
    invoke_without_command=True,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Person = Annotated[str, typer.Argument(help="The person, as in the register of people.")]


@app.callback()
def desk(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port it listens on.")] = 3001,
    host: Annotated[
        str, typer.Option(help="Address it listens on. Behind a proxy that ends TLS, leave it as it is.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="A name people reach it by, behind a proxy: desk.example.org. May be repeated."),
    ] = None,
    dagster_url: Annotated[str, typer.Option(help="Where the Dagster UI is, for links.")] = "http://127.0.0.1:3000",
    token_for: Annotated[
        str | None, typer.Option("--token-for", help="Make and print a token for this person first.")
    ] = None,
) -> None:
    """Serve the finance desk until stopped (Ctrl-C).

    Examples:
      meter-pipeline desk --token-for ana
      meter-pipeline desk --port 3001 --name desk.example.org
    """
    if context.invoked_subcommand is not None:
        return
    import uvicorn

    from meter_pipeline.desk.access import AccessError, from_environment
    from meter_pipeline.desk.app import build
    from meter_pipeline.desk.web import PEOPLE, Desk

    settings = load_settings()
    if listening(port):
        problem(f"port {port} is taken", f"give another one: meter-pipeline desk --port {port + 10}")
    database = prepare(settings).acting_as(PEOPLE if roles_in_use() else None)
    try:
        access = from_environment(settings.home / "desk", os.environ)
        token_text = access.issue(token_for) if token_for else None
        known = access.tokens()
    except AccessError as error:
        problem(str(error), "docs/operations.md, the finance desk")
    if not known and not access.header:
        problem("no one can log in yet", "meter-pipeline desk token NAME")
    if token_text:
        OUT.print(f"Token of {token_for}, shown only now: {token_text}", highlight=False, soft_wrap=True)
    if host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get("METER_PIPELINE_DESK_PLAIN_HTTP"):
        problem(
            f"{host} can be reached from elsewhere, and this server speaks no TLS",
            "put a proxy before it; on a closed network set METER_PIPELINE_DESK_PLAIN_HTTP=1",
        )
    ERR.print(f"[bold]Finance desk:[/] http://{host}:{port}  (Ctrl-C ends it)")
    # The peer's own address decides whether a proxy's header counts, so uvicorn must not put a forwarded one in its
    # place.
    application = build(Desk(database, settings, access, dagster_url or None), [*(name or []), host])
    uvicorn.run(application, host=host, port=port, proxy_headers=False, server_header=False, log_level="warning")


@app.command()
def token(person: Person, json: Json = False) -> None:
    """Make a token for a person and print it once; only its hash is kept.

    Example: meter-pipeline desk token ana
    """
    from meter_pipeline.desk.access import AccessError, from_environment

    settings = load_settings()
    try:
        token_text = from_environment(settings.home / "desk", os.environ).issue(person)
    except AccessError as error:
        problem(str(error))
    emit(
        {"person": person, "token": token_text}, json, lambda d: OUT.print(d["token"], highlight=False, soft_wrap=True)
    )


@app.command()
def revoke(person: Person, json: Json = False) -> None:
    """Drop every token of a person; whoever is logged in with one is out at once.

    Example: meter-pipeline desk revoke ana
    """
    from meter_pipeline.desk.access import AccessError, from_environment

    settings = load_settings()
    try:
        dropped = from_environment(settings.home / "desk", os.environ).revoke(person)
    except AccessError as error:
        problem(str(error))
    emit(
        {"person": person, "dropped": dropped},
        json,
        lambda d: OUT.print(f"{d['dropped']} token(s) dropped", highlight=False),
    )
