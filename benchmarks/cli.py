"""What a command costs before its answer: processor seconds of whole processes, beside ``python -c "import polars"``.

Runs on the deployment in use (the demo's, after ``make demo``), ``rounds`` times each, alternating; the median counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any, Final

from benchmarks.support import document

#: command -> words after ``meter-pipeline``. ``explain`` asks for a line that does not exist: the search is the same.
COMMANDS: Final = {
    "help": ["--help"],
    "status": ["status", "--json"],
    "pause status": ["pause", "status", "--json"],
    "exceptions list": ["exceptions", "list", "--json"],
    "explain": ["explain", "A-0000001.CYCLE-1.20261001.0.1", "--json"],
    "settings": ["settings", "--json"],
}


def run(rounds: int = 5) -> dict[str, Any]:
    """Median processor seconds (user and system, children included) of each command."""
    program = [sys.executable, "-m", "meter_pipeline.cli.main"]
    floor, spent = [], {name: list[float]() for name in COMMANDS}
    for _ in range(rounds):
        floor.append(_processor([sys.executable, "-c", "import polars"]))
        for name, words in COMMANDS.items():
            spent[name].append(_processor([*program, *words]))
    figures = {name: round(statistics.median(seconds), 3) for name, seconds in spent.items()}
    base = statistics.median(floor)
    return document(
        "cli",
        {"rounds": rounds},
        figures | {"import polars": round(base, 3)},
        {f"{name.replace(' ', '_')}_over_import_polars": round(s / base, 2) for name, s in figures.items()},
    )


def _processor(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
