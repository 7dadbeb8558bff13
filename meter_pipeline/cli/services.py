"""``meter-pipeline ui`` and ``meter-pipeline services``: Dagster on this deployment."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from meter_pipeline.cli.output import ERR, OUT, problem
from meter_pipeline.deployment import environment, prepare
from meter_pipeline.packaged import packaged
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Run Dagster's services; print their environment.")
#: The script that stands beside this interpreter, so that a newcomer needs no activated environment.
DAGSTER = Path(sys.executable).parent / "dagster"


def ui(
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    host: Annotated[str, typer.Option(help="Address it listens on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI, with daemon and code server, on this deployment's data (Ctrl-C ends it).

    Example: meter-pipeline ui --port 3000
    """
    from dagster import DagsterInstance

    from meter_pipeline.cli.supervisor import listening
    from meter_pipeline.defs.lib.daemon_cursors import start_reading_events

    settings = load_settings()
    if listening(port):
        problem(f"port {port} is taken", f"give another one: meter-pipeline ui --port {port + 10}")
    database = prepare(settings)
    os.environ.update(environment(settings, database))
    with DagsterInstance.get() as instance:
        start_reading_events(instance)
    os.chdir(os.environ["DAGSTER_HOME"])  # where dagster.yaml is; from the project it warns of a second one
    ERR.print(f"[bold]Dagster UI:[/] http://{host}:{port}  (Ctrl-C ends it)")
    # `dagster dev` tells its own maintainers' news first: that `dg dev` supersedes it (which needs a project of dg's),
    # and what each daemon is called. A person waits for the address above.
    quiet = ["-W", "ignore:Function `dev_command` is superseded"]
    command = [*quiet, str(DAGSTER), "dev", "--log-level", "warning", "-w", str(packaged("workspace.yaml"))]
    os.execv(sys.executable, [sys.executable, *command, "-h", host, "-p", str(port)])  # noqa: S606 - no shell is wanted


@app.command()
def env() -> None:
    """Print the environment in which any dagster command works here: eval "$(meter-pipeline services env)".

    Example: eval "$(meter-pipeline services env)"
    """
    settings = load_settings()
    for name, value in environment(settings, open_database(settings)).items():
        OUT.print(f"export {name}={shlex.quote(value)}", highlight=False, soft_wrap=True)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    code_port: Annotated[int, typer.Option(help="Port of the code server, on this machine only.")] = 4000,
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics; 0 for none.")] = 9464,
    desk_port: Annotated[
        int, typer.Option(help="Port of the finance desk, which starts when a person has a token; 0: no desk.")
    ] = 3001,
    host: Annotated[str, typer.Option(help="Address the web server listens on.")] = "127.0.0.1",
) -> None:
    """Run production's services under one parent until stopped: code server, one daemon, web server, metrics, desk.

    Deploys first: migrations, database roles, the pool of the emergency pause. For systemd or containers see deploy/.

    Example: meter-pipeline services up --port 3000 --metrics-port 9464
    """
    from meter_pipeline.cli.supervisor import PortTaken, ServiceFailed, Supervisor, programs

    settings = load_settings()
    database = prepare(settings)
    workspace = _deploy(database, code_port)
    if os.environ.setdefault("METER_PIPELINE_ROLES", "on").lower() in ("on", "1", "true", "yes"):
        _act_in_every_role(database)
    os.environ.update(environment(settings, database))
    home = Path(os.environ["DAGSTER_HOME"])
    desk = desk_port if desk_port and _somebody_logs_in(settings.home) else None
    if desk_port and desk is None:
        ERR.print("desk not started: no one can log in yet (meter-pipeline desk token NAME)", highlight=False)
    wanted = programs(workspace, code_port, port, host, metrics_port or None, desk)
    try:
        Supervisor(
            wanted, cwd=home, logs=settings.home / "logs", say=lambda words: ERR.print(words, highlight=False)
        ).run()
    except PortTaken as taken:
        problem(str(taken), "stop the other one, or give other ports: --port, --code-port, --metrics-port")
    except ServiceFailed as failed:
        problem(str(failed), "correct that, then start again; meter-pipeline doctor checks the usual causes")


@app.command()
def deploy(
    code_port: Annotated[int, typer.Option(help="Port that the code server will listen on.")] = 4000,
) -> None:
    """Bring the deployment up to date without starting anything: migrations, database roles, the pool of the emergency
    pause, and the workspace.yaml that the daemon and the web server read.

    Example: meter-pipeline services deploy
    """
    _deploy(prepare(load_settings()), code_port)


def _somebody_logs_in(home: Path) -> bool:
    """Whether the desk has a token or a trusted proxy; without it ends at once."""
    from meter_pipeline.desk.access import AccessError, from_environment

    try:
        access = from_environment(home / "desk", os.environ)
        return bool(access.tokens() or access.header)
    except AccessError:
        return False


def _act_in_every_role(database: Database) -> None:
    """End with the SQL for an administrator where this log-in may not act in the role of every service it starts."""
    from meter_pipeline.postgres.privileges import STAGE_ROLES, join

    missing = join(database, STAGE_ROLES)
    if missing:
        with database.connect("services") as connection:
            login = connection.info.user
        grant = f'GRANT {", ".join(missing)} TO "{login}";'
        problem(
            f"{login} starts every service and may not act as {', '.join(missing)}",
            f"an administrator runs: {grant}  (or a unit a service, each with its own log-in: docs/operations.md)",
        )


def _deploy(database: Database, code_port: int) -> Path:
    from dagster import DagsterInstance

    from meter_pipeline.cli.supervisor import write_workspace
    from meter_pipeline.defs.lib.daemon_cursors import start_reading_events
    from meter_pipeline.defs.lib.pause_pool import open_or_shut
    from meter_pipeline.defs.lib.resources import Municipality
    from meter_pipeline.postgres import privileges

    with DagsterInstance.get() as instance:
        # The first look makes Dagster's tables, so that the roles are granted on them too.
        _, limit = open_or_shut(instance, Municipality(database_url=database.url))
        start_reading_events(instance)
    granted = privileges.apply(database)
    ERR.print(f"deployed: {granted} grants; the pool lets {limit} runs through", highlight=False)
    return write_workspace(Path(os.environ["DAGSTER_HOME"]), code_port)
