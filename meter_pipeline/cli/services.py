"""``meter-pipeline ui`` and ``meter-pipeline services``: Dagster on this deployment."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from meter_pipeline.cli.output import ERR, OUT
from meter_pipeline.services import environment, prepare
from meter_pipeline.settings import PROJECT_ROOT, load_settings
from meter_pipeline.store.database import open_database

app = typer.Typer(no_args_is_help=True, help="Run Dagster's services; print their environment.")
#: The script that stands beside this interpreter, so that a newcomer needs no activated environment.
DAGSTER = Path(sys.executable).parent / "dagster"


def ui(
    port: Annotated[int, typer.Option(help="Port of the web server.")] = 3000,
    host: Annotated[str, typer.Option(help="Address it listens on.")] = "127.0.0.1",
) -> None:
    """Open the Dagster UI, with daemon and code server, on this deployment's data (Ctrl-C ends it)."""
    settings = load_settings()
    database = prepare(settings)
    os.environ.update(environment(settings, database))
    os.chdir(os.environ["DAGSTER_HOME"])  # where dagster.yaml is; from the project it warns of a second one
    ERR.print(f"[bold]Dagster UI:[/] http://{host}:{port}  (Ctrl-C ends it)")
    os.execv(str(DAGSTER), [str(DAGSTER), "dev", "-w", str(PROJECT_ROOT / "workspace.yaml"), "-h", host, "-p", str(port)])  # noqa: S606 - our own script, no shell


@app.command()
def env() -> None:
    """Print the environment in which any dagster command works here: eval "$(meter-pipeline services env)"."""
    settings = load_settings()
    for name, value in environment(settings, open_database(settings)).items():
        OUT.print(f"export {name}={shlex.quote(value)}", highlight=False, soft_wrap=True)
