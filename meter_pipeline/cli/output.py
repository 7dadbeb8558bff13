"""How every command speaks: one JSON document on stdout, or a table for people; progress and logs on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

#: Columns where no terminal says: a table that is piped to a pager or a file is not folded at 80. COLUMNS
# overrides it, NO_COLOR too.
PIPED_WIDTH = 140


def _console(*, stderr: bool) -> Console:
    """Colours and the terminal's width where there is a terminal; neither where the output is piped."""
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, width=PIPED_WIDTH if piped else None)


OUT = _console(stderr=False)
ERR = _console(stderr=True)
#: Lines of a long list that a terminal is shown; --json has them all.
SHOWN_LINES = 20

#: exit codes of the contract
OK, PROBLEM, USAGE = 0, 1, 2


def plain(value: Any) -> Any:
    """JSON's own types: decimals as exact strings, instants as ISO 8601 with Z, bytes as hex."""
    match value:
        case bool() | None | int() | float() | str():
            return value
        case Decimal():
            return format(value, "f")
        case datetime():
            text = value.isoformat()
            return text.replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Path():
            return str(value)
        case Mapping():
            return {str(k): plain(v) for k, v in value.items()}
        case Sequence() | set() | frozenset():
            return [plain(v) for v in value]
        case _:
            item = getattr(value, "item", None)
            if callable(item):
                return plain(item())
            raise TypeError(f"no JSON for {type(value).__name__}")


def decimal_text(value: Decimal | str | None) -> str:
    """A quantity without the zeros that its column adds: 12.500000 is "12.5"; None is an empty text."""
    if value is None:
        return ""
    text = format(Decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def emit(document: Any, as_json: bool, render: Callable[[Any], None] | None = None) -> None:
    """Print one document: as JSON on stdout, or through ``render`` for people."""
    if as_json:
        sys.stdout.write(json.dumps(plain(document), ensure_ascii=False, allow_nan=False) + "\n")
    elif render is not None:
        render(document)
    else:
        OUT.print_json(json.dumps(plain(document), ensure_ascii=False, allow_nan=False))


def table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[str] = ()
) -> Table:
    """A table that fits the terminal; columns named in ``numbers`` are set to the right and never broken while there is
    room to break words."""
    made = Table(
        title=title,
        title_justify="left",
        header_style="bold",
        expand=False,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        number = column in numbers
        made.add_column(
            column.replace("_", " "),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number and len(columns) <= 8,
        )
    for row in rows:
        made.add_row(*("" if cell is None else str(plain(cell)) for cell in row))
    return made


class Rate(ProgressColumn):
    """How fast it goes: a second where it is fast, a minute where it is slow."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed or task.total is None:
            return Text("")
        return Text(f"{speed:,.1f}/s" if speed >= 1 else f"{speed * 60:,.1f}/min", style="progress.data.speed")


def progress() -> Progress:
    """A progress display on stderr: how many of how many, how fast, how long and how long still. Nothing at all when
    piped."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
        disable=not ERR.is_terminal,
    )


def problem(message: str, hint: str | None = None) -> NoReturn:
    """Say what was wrong and what to do next, and leave with exit code 1."""
    ERR.print(f"[bold red]Problem:[/] {message}", highlight=False)
    if hint:
        ERR.print(f"[bold]Next:[/] {hint}", highlight=False)
    raise typer.Exit(PROBLEM)
