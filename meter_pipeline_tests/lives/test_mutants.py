"""The lives find faults: each of a kept list is put into the product, and a history shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.lives.life import Life
from meter_pipeline_tests.lives.mutants import MUTANTS
from meter_pipeline_tests.lives.player import Failure, play
from meter_pipeline_tests.lives.stages import City
from meter_pipeline_tests.support import ROOT


def played(database: Database, folder: Path, name: str) -> list[Failure]:
    _, script, base, history = MUTANTS[name]
    return play(City(database, folder / "city"), script, [Life(0, base, history)]).failures


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_is_found(name: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name][0](monkeypatch)
    assert played(database, tmp_path, name), f"{name} was not found"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_without_the_fault_the_same_history_pays_right(name: str, database: Database, tmp_path: Path) -> None:
    assert not played(database, tmp_path, name)


def test_the_page_names_every_fault() -> None:
    rows = re.findall(r"^\| ([a-z][a-z -]+) \| [^|]+ \| [^|]+ \|$", (ROOT / "docs/lives.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(MUTANTS)


def test_a_doubled_day_is_found(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the list in every run of the tests; the others are slow together."""
    MUTANTS["doubled day"][0](monkeypatch)
    assert played(database, tmp_path, "doubled day")
