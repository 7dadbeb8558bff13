"""``meter-pipeline``: the rooms' commands, mounted."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

# Typer's rich help imports Markdown and syntax colouring: 0.25 s of 0.45 s for `--help`.
os.environ.setdefault("TYPER_USE_RICH", "0")

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

try:  # typer carries its own click since 0.20
    from typer._click.shell_completion import CompletionItem
except ImportError:
    from click.shell_completion import CompletionItem  # type: ignore[assignment]

from meter_pipeline.cli.output import ERR, PROBLEM

#: command -> (module under cli/, with a function's name after a colon where it is not the module's ``app``; one line
# of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init:init", "Make a deployment: a folder of settings, reference tables, tariffs and head-ends."),
    "settings": ("settings:settings", "Every setting, its value and where it comes from."),
    "doctor": ("doctor:doctor", "Check a deployment: settings, database, inbox, disk, clock, keys; what to do next."),
    "demo": ("demo:demo", "Bill the demo municipality from simulated feeds and show the result."),
    "ui": ("services:ui", "The Dagster UI on this deployment's data."),
    "services": ("services", "Run Dagster's services; print their environment."),
    "run": ("run:run", "Materialise billing days through Dagster."),
    "status": ("status:status", "State of files, billing days, pause, exceptions."),
    "database": ("database", "The database: migrate, back up, restore, stop the embedded server, print its URL."),
    "reference": ("reference", "Import reference data; enrol the meters of a new head-end's file."),
    "feeds": ("feeds", "Look into feed files."),
    "simulate": (
        "simulate",
        "Write the feeds of a municipality that never existed, with the truth about every defect.",
    ),
    "pull": ("pull:pull", "Ask head-ends that have an HTTP API for their missing days."),
    "ingest": ("ingest", "Read files again from the archive."),
    "dead-letters": ("dead_letters", "Payloads that could not be read: list, show, correct, replay, dismiss."),
    "vee": ("vee", "Validation and estimation explained, interval by interval."),
    "baselines": ("baselines", "Weather-normalised baselines."),
    "exceptions": ("exceptions", "The exception queue: list, show, assign, confirm, dismiss."),
    "tariffs": ("tariffs", "Price a load on a tariff."),
    "billing": ("billing", "Statements, adjustments, month-end close."),
    "month": ("month", "A month's unbilled revenue with its journal, the supply balance of zones, winter averages."),
    "rates": ("rates", "Rate studies: a year's bills under proposed tariffs."),
    "outputs": ("outputs", "Files for the customer system: reads, determinants, statements; acknowledgements."),
    "explain": ("explain:explain_command", "From a bill line to the reads behind it."),
    "pause": ("pause", "EMERGENCY_PAUSE: raise, status, request and confirm a resume."),
    "people": ("people", "The register of people: who may raise a pause, ask, confirm, audit."),
    "partitions": ("partitions", "Daily partitions: make ahead, archive to Parquet, restore, list."),
    "report": ("report:report", "The close report of a billing day or month as one HTML file."),
    "desk": ("desk", "The finance desk in a browser; tokens for it."),
    "metrics": ("metrics:metrics", "The state of the work in Prometheus text format."),
    "ledger": ("ledger", "The audit ledger: checkpoint, prove, verify, export, witness."),
    "migrate": ("migrate", "Leaving the legacy batch: status, advance, rollback, compare, gate."),
    "bench": ("bench:bench", "Headline figures beside their peers."),
}


class LazyGroup(TyperGroup):
    """Commands whose modules are imported when asked for; one whose module is not part of this installation is not
    listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [
            name
            for name, (where, _) in COMMANDS.items()
            if importlib.util.find_spec(f"meter_pipeline.cli.{where.partition(':')[0]}")
        ]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        """Names of commands from the list itself: completing one must not import them all."""
        found = [
            CompletionItem(name, help=COMMANDS[name][1])
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return found or TyperCommand.shell_complete(self, ctx, incomplete)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS or cmd_name not in self.list_commands(ctx):
            return None
        where, about = COMMANDS[cmd_name]
        if ctx.resilient_parsing is False and _listing():
            return TyperCommand(cmd_name, help=about, short_help=about)
        module_name, _, attribute = where.partition(":")
        module = importlib.import_module(f"meter_pipeline.cli.{module_name}")
        found: Any = getattr(module, attribute or "app")
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
            single.command(context_settings=getattr(module, "CONTEXT", None))(found)
            command: Any = typer.main.get_command(single)
        else:
            command = typer.main.get_group(found)
        command.name = cmd_name
        command.short_help = command.short_help or about
        return command


def _listing() -> bool:
    """Whether only the list of commands is wanted: ``meter-pipeline`` and ``meter-pipeline --help``."""
    return not any(argument in COMMANDS for argument in sys.argv[1:2])


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Meter reads to reconciled bills.",
)


@app.callback()
def root() -> None:
    """Meter reads to reconciled bills: nothing lost, nothing billed twice, a proof for every number."""


#: Next step after a failure that any command may end in.
_NEXT = {
    "SettingsError": "meter-pipeline init FOLDER makes a deployment; work inside it, or point METER_PIPELINE_DEPLOYMENT at it",
    "EmbeddedError": "look into .meter_pipeline/postgres (or METER_PIPELINE_HOME), or use a server of your own: METER_PIPELINE_DATABASE_URL",
    "MigrationError": "the failed file changed nothing; meter-pipeline doctor checks the server and the rights of this log-in",
    "RolesMissingError": "an administrator runs the script that this prints: meter-pipeline database roles --sql",
    "SkippedReleaseError": "nothing was changed; docs/operations.md, Upgrade of the program",
    "InsufficientPrivilege": "meter-pipeline doctor names the rights this log-in lacks, with the SQL for an administrator",
    "OperationalError": "check METER_PIPELINE_DATABASE_URL, or `meter-pipeline database start` for the embedded server",
}


def main() -> None:
    """Entry point: known failures end in one line that says what to do next, unknown ones keep their trace.

    Failures are known by name, so that no module is imported that the command itself did not need.
    """
    try:
        app()
    except BrokenPipeError:
        # Whoever read us has read enough (head, a pager that was left).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PROBLEM)
    except OSError as error:
        if error.filename is None:
            raise
        ERR.print(f"[bold red]Problem:[/] {escape(f'{error.filename}: {error.strerror}')}", highlight=False)
        ERR.print("[bold]Next:[/] give a file or folder that is there and that you may read and write", highlight=False)
        sys.exit(PROBLEM)
    except Exception as error:
        names = [
            kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith(("meter_pipeline", "psycopg"))
        ]
        known = next((name for name in names if name in _NEXT), None)
        if known is None:
            raise
        message = str(error).strip()
        if known == "InsufficientPrivilege":
            message = message.splitlines()[0]
        if known == "OperationalError":
            message = f"the database does not answer: {' '.join(message.split())}"
        ERR.print(f"[bold red]Problem:[/] {escape(message)}", highlight=False)
        ERR.print(f"[bold]Next:[/] {_NEXT[known]}", highlight=False)
        sys.exit(PROBLEM)


if __name__ == "__main__":
    main()
