"""The dials of the evening before the first billing day open its usage, although no run is ever asked for that day."""

from __future__ import annotations

import os
import re
import time
from datetime import date
from pathlib import Path

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.defs.ingest.assets import _raw_reads
from meter_pipeline.defs.lib.resources import Municipality
from meter_pipeline.ingest import land_inbox
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import load_settings
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.support import ROOT

FIRST, SECOND, END = date(2026, 11, 2), date(2026, 11, 3), date(2026, 11, 4)


@pytest.fixture
def springfield(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The city of docs/adopt.md, its files written by the page's own commands."""
    for name in ("reference", "tariffs", "head_ends", "inbox"):
        (tmp_path / name).mkdir()
    (tmp_path / "utility.toml").write_text(
        'name = "Springfield"\nzone = "America/Chicago"\ncurrency = "USD"\nfirst_billing_day = "2026-11-02"\n'
    )
    page = (ROOT / "docs" / "adopt.md").read_text("utf-8")
    for name, content in re.findall(r"^cat > (\S+) <<'FILE'\n(.*?)^FILE\n", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for content, name in re.findall(r"^printf '([^']+)' > (\S+)$", page, re.MULTILINE):
        (tmp_path / name).write_text(content.replace("\\n", "\n"))
    for content, name in re.findall(r"^echo '([^']+)' >> (\S+)$", page, re.MULTILINE):
        (tmp_path / name).write_text("tariff_id,commodity,version,valid_from,valid_to,document\n" + content + "\n")
    for path in (tmp_path / "inbox").rglob("*.csv"):
        os.utime(path, (time.time() - 60,) * 2)
    monkeypatch.setenv("METER_PIPELINE_DEPLOYMENT", str(tmp_path))
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("METER_PIPELINE_DATA", str(tmp_path))
    monkeypatch.setenv("METER_PIPELINE_INBOX", str(tmp_path / "inbox"))
    return tmp_path


def test_the_dials_before_the_first_billing_day_open_its_usage(springfield: Path, database: Database) -> None:
    settings = load_settings()
    calendar = settings.calendar()
    import_folder(database, springfield / "reference")
    land_inbox(database, calendar, settings)
    city = Municipality(database_url=database.url)
    for day in (FIRST, SECOND):
        _raw_reads(city, day, "run")
    for day in (FIRST, SECOND):
        validate_billing_day(database, calendar, day)
        bill_billing_day(database, calendar, day)
    issue_statements(database, calendar, "C1", END)
    found = database.read("SELECT account_id, total::text AS total FROM billing.statement ORDER BY 1").rows()
    # 30 kWh and 2 days; the first was estimated at the second's pace before, 36 kWh and 5.32
    assert [(account, total.rstrip("0")) for account, total in found] == [("A-1", "4.6"), ("A-2", "15.4")]
