"""The month's report promises: unbilled revenue and the supply balance stand in it with their pictures, and `report
--json` says them.
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.cli.month import app as month_app
from meter_pipeline.cli.output import plain
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting import write_month
from meter_pipeline.settings import Settings
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    native,
    put_daily,
    put_intervals,
)
from meter_pipeline_tests.support import ROOT


def test_the_months_report_holds_unbilled_revenue_and_the_supply_balance(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(ROOT / "data" / "utility.toml", data / "utility.toml")
    settings = Settings(tmp_path / "home", data, data / "inbox", database.url)
    add_tariff(database, native())
    add_cycle(database, JULY, date(2026, 8, 1))
    point = add_service(database, 1)
    put_intervals(database, JULY, {point: [1000] * 24})
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.zones VALUES ('F-1', 'feeder', 'electricity', 'Main', NULL, '2020-01-01', NULL)"
        )
        connection.execute("INSERT INTO ref.zone_members VALUES ('SP-001', 'F-1', '2020-01-01', NULL)")
        connection.execute("INSERT INTO ref.zone_supplies VALUES ('F-1', 'SP-900', 'in', '2020-01-01', NULL)")
    put_daily(database, JULY, {"SP-900": 25_000_000}, "kWh", "electricity")
    path, document = write_month(database, settings, JULY, CLOCK)
    text = path.read_text()
    assert "Not computed yet: <code>meter-pipeline month unbilled --month 2026-07</code>" in text
    assert text.count("None in the month") == 3  # units, estimated bills, leaks
    assert "No rule is in force" in text
    monkeypatch.setenv("METER_PIPELINE_DATABASE_URL", database.url)
    monkeypatch.setenv("METER_PIPELINE_DATA", str(data))
    monkeypatch.setenv("METER_PIPELINE_HOME", str(tmp_path / "home"))
    for command in ("unbilled", "balance"):
        done = CliRunner().invoke(month_app, [command, "--month", "2026-07", "--json"])
        assert done.exit_code == 0, done.output
    zone = json.loads(done.stdout)["zones"][0]
    assert (zone["losses"].rstrip("0").rstrip("."), zone["losses_percent"]) == ("1", "4.00")
    path, document = write_month(database, settings, JULY, CLOCK)
    text = path.read_text()
    assert "Supply balance by zone" in text
    assert "How it moved" in text
    # Columns of the movement that are zero throughout are left out.
    assert "corrected</th>" not in text
    assert "Losses of zone F-1 by billing day, kWh" in text
    written = re.sub(r"<(code|pre)>.*?</\1>", "", text, flags=re.DOTALL)  # a command to type, the signed note
    assert not re.findall(r".{20}(?<![\w./-])\d{4}-\d{2}-\d{2}.{20}", written), "a date in ISO 8601 is left"
    assert ">7/1<" in written
    spoken = plain({name: document[name].document() for name in ("law", "unbilled", "balance")})
    assert spoken["unbilled"]["totals"]["closing"] == spoken["unbilled"]["totals"]["charged"]
    assert json.dumps(spoken)
