"""Pages made from code are what the code says now, and the settings page names every variable the program reads."""

from __future__ import annotations

import importlib.util
import re

import pytest

from meter_pipeline.settings import SETTINGS
from meter_pipeline_tests.support import ROOT

_spec = importlib.util.spec_from_file_location("make_pages", ROOT / "tools" / "make_pages.py")
assert _spec is not None
assert _spec.loader is not None
make_pages = importlib.util.module_from_spec(_spec)
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
