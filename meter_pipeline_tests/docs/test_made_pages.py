"""Pages made from code are what the code says now, and the settings page names every variable the program reads."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from meter_pipeline.schemas.contracts import CONTRACTS
from meter_pipeline.settings import SETTINGS
from meter_pipeline_tests.support import ROOT

_spec = importlib.util.spec_from_file_location("make_pages", ROOT / "tools" / "make_pages.py")
assert _spec is not None
assert _spec.loader is not None
make_pages = importlib.util.module_from_spec(_spec)
sys.path.insert(0, str(ROOT / "tools"))  # as for the script itself
_spec.loader.exec_module(make_pages)


@pytest.mark.parametrize("name", sorted(make_pages.PAGES))
def test_a_made_page_is_up_to_date(name: str) -> None:
    committed = (ROOT / "docs" / name).read_text("utf-8")
    assert committed == make_pages.PAGES[name](), "run `make pages`"


def test_every_variable_the_program_reads_is_a_setting() -> None:
    read: set[str] = set()
    for path in (ROOT / "meter_pipeline").rglob("*.py"):
        read |= set(re.findall(r'"(METER_PIPELINE_[A-Z_]*[A-Z])"', path.read_text("utf-8")))
    # The deployment's folder and the beginning of a name are no settings.
    other = {"METER_PIPELINE_DEPLOYMENT", "METER_PIPELINE_DATABASE"}
    assert read - {setting.variable for setting in SETTINGS} <= other


def test_the_diagram_of_the_tables_has_every_table_and_arrow() -> None:
    drawn = make_pages.diagram()
    for contract in CONTRACTS.values():
        for source in {column.rsplit(".", 1)[0] for columns in contract.lineage.values() for column in columns}:
            if source.count(".") == 1 and source != contract.table:
                assert f"{contract.table} is computed from {source}</title>" in drawn
                assert f">{source.split('.')[1]}</text>" in drawn
    boxes = re.findall(r'<rect x="(\d+)" y="(\d+)"', drawn)
    assert len(boxes) == len(set(boxes)) > 50, "no two tables in one place"
