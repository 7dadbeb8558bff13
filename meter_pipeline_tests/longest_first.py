"""Longest files first, so that no worker ends the run alone with a long one.

``--dist loadfile`` hands out whole files in the order of collection. Seconds of each file are those of the last run
with ``--write-file-seconds``, kept in file_seconds.json; a file without any goes first, since it may be long.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

KEPT = Path(__file__).with_name("file_seconds.json")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--write-file-seconds``: keep what each file took in this run."""
    parser.addoption("--write-file-seconds", action="store_true", help=f"Write each file's seconds to {KEPT.name}.")


def pytest_configure(config: pytest.Config) -> None:
    """Workers send their reports to the first process, so only that one counts."""
    if config.getoption("--write-file-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Seconds(), "file-seconds")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by file, tests of a file staying in order."""
    kept: dict[str, float] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    items.sort(key=lambda item: -kept.get(item.nodeid.partition("::")[0], 1e9))


class _Seconds:
    def __init__(self) -> None:
        self.files: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.files[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]  # seconds are a float

    def pytest_sessionfinish(self, **_: Any) -> None:
        found = {name: round(seconds, 1) for name, seconds in sorted(self.files.items())}
        KEPT.write_text(json.dumps(found, indent=0) + "\n")
