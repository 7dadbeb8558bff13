"""The command line is promised to explain itself: an example with every command, plain text where it is piped, one JSON
document, a next step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

from meter_pipeline.cli import main
from meter_pipeline.cli.exceptions import in_words
from meter_pipeline.cli.output import progress, table


def leaves(command: Any, path: tuple[str, ...] = (), context: Any = None) -> Iterator[tuple[str, Any]]:
    context = click.Context(command, parent=context)
    if not hasattr(command, "list_commands"):
        yield " ".join(path), command
        return
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name), context)


def test_every_command_says_what_it_does_and_shows_an_example(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["meter-pipeline", "demo"])  # a command is asked for, so modules are really loaded
    without = [
        name for name, command in leaves(typer.main.get_command(main.app)) if "xample" not in (command.help or "")
    ]
    assert without == []


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).parent / "meter-pipeline"
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("METER_PIPELINE_", "_METER", "COLUMNS", "FORCE_COLOR"))
    }
    return subprocess.run(
        [str(beside), *words], env=clean | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """It was a traceback, whichever command was asked to write it."""
    (tmp_path / "taken").write_text("a file")
    done = run("simulate", "--meters", "4", "--days", "1", "--out", str(tmp_path / "taken" / "city"))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said.endswith(
        "taken/city: Not a directory Next: give a file or folder that is there and that you may read and write"
    )
    assert "Traceback" not in done.stderr


def test_piped_output_has_no_colours_and_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "\x1b[" not in done.stdout
    assert all(name in done.stdout for name in main.COMMANDS)


def test_completion_answers_with_names_of_commands_and_options() -> None:
    def complete(line: str) -> list[str]:
        asked = run(_METER_PIPELINE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
        return asked.stdout.split()

    assert complete("meter-pipeline de") == ["demo", "dead-letters", "desk"]
    assert "list" in complete("meter-pipeline exceptions li")


def test_a_failure_says_what_to_do_next(tmp_path: Path) -> None:
    done = run(
        "status",
        METER_PIPELINE_DATA=str(tmp_path),
        METER_PIPELINE_HOME=str(tmp_path),
        METER_PIPELINE_DATABASE_URL="postgresql://127.0.0.1:1/nothing",
    )
    assert done.returncode == 1
    assert "Problem:" in done.stderr
    assert "Next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_fits_a_narrow_terminal_without_breaking_its_numbers(capsys: Any) -> None:
    from rich.console import Console

    names = ["head_end", "files", "received", "accepted", "duplicate", "superseded", "rejected", "waiting"]
    console = Console(width=80, file=sys.stdout)
    console.print(table("Reads", names, [["WATER", 10, 1234567, 1234000, 500, 60, 5, 2]], numbers=names[1:]))
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert "superseded" in printed
    assert "1234567" in printed


def test_progress_tells_how_fast_and_how_long_still() -> None:
    columns = [type(column).__name__ for column in progress().columns]
    assert {"Rate", "MofNCompleteColumn", "TimeRemainingColumn"} <= set(columns)


def test_evidence_of_several_services_is_told_in_words() -> None:
    candidates = [
        {"kind": "over", "service_point_id": "SP-1", "leaves": "0.5"},
        {"service_point_id": "SP-2", "kind": "stopped"},
    ]
    said = in_words({"candidates": candidates, "room_percent": 1.0})
    assert said == "candidates SP-1 (kind over, leaves 0.5); SP-2 (kind stopped), room_percent 1"
