"""Every column that the ledger holds is found when it is changed; the table of docs/audit.md says so by table."""

from __future__ import annotations

import os
import re

import pytest

from meter_pipeline.ledger.verification import verify
from meter_pipeline.ledger_hashers import hashers
from meter_pipeline.postgres import privileges
from meter_pipeline_tests.ledger.tamper_table import BEGIN, END, drill, page
from meter_pipeline_tests.ledger.test_changed_unseen import city as city
from meter_pipeline_tests.retention.test_days import City
from meter_pipeline_tests.support import ROOT


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_held_column_is_found_when_it_is_changed(city: City) -> None:
    """With METER_PIPELINE_WRITE_PAGES=1 the table goes into docs/audit.md."""
    privileges.apply(city.database)
    rows = drill(city)
    assert {row.table: row.unseen for row in rows if row.unseen} == {}
    assert sum(row.found for row in rows) > 130
    assert verify(city.database, home=city.settings.home, full=True, hashers=hashers()).findings == []
    document = ROOT / "docs" / "audit.md"
    made = f"{BEGIN}\n{page(rows)}{END}"
    if os.environ.get("METER_PIPELINE_WRITE_PAGES"):
        text = document.read_text("utf-8")
        document.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: made, text, flags=re.DOTALL), "utf-8")
