"""The long real files, day by day to billing tables: a year of Green Button, 148,484 water register reads. Minutes, so not in the default run."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from meter_pipeline.feeds.head_ends import read_head_end
from meter_pipeline.store.database import Database
from meter_pipeline_tests.end_to_end.test_real_files import DECLARED, expected
from meter_pipeline_tests.end_to_end.utility import SmallUtility
from meter_pipeline_tests.support import fixtures_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
HOURLY = [
    "Coastal_Multi_Family_12hr_Jan_1_2011_to_Jan_1_2012_RetailCustomer_3.xml.gz",
    "Desert_Single_Family_Jan_1_2011_to_Jan_1_2012_RetailCustomer_7.xml.gz",
]


@pytest.mark.parametrize("name", HOURLY)
def test_a_year_of_hourly_green_button_is_billed(database: Database, tmp_path: Path, name: str) -> None:
    wanted = expected("green_button")[name]
    utility = SmallUtility.make(database, tmp_path, "America/Los_Angeles")
    declared = replace(read_head_end(DECLARED / "green-button.toml"), name="GREEN")
    path = fixtures_dir() / "green_button" / name
    utility.enrol(path, declared, "electricity")
    landed = utility.land(path, declared)
    assert (landed.received, landed.rejected) == (wanted["readings"], 0)
    utility.run_touched()
    stored = utility.read("SELECT count(*) AS n, (sum(value) * 1000)::text AS wh FROM raw.interval WHERE value IS NOT NULL").to_dicts()[0]
    assert stored["n"] == wanted["readings"]
    assert Decimal(stored["wh"]) == Decimal(str(wanted["sum_raw"]))
    billed = utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0]
    validated = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage WHERE flow = 'import'")["q"][0]
    assert billed == validated


def test_every_water_register_read_is_accounted_for(database: Database, tmp_path: Path) -> None:
    wanted = expected("water_registers")["swm_trialA_extended.csv"]
    utility = SmallUtility.make(database, tmp_path, "Europe/Madrid")
    declared = replace(read_head_end(DECLARED / "water-alicante.toml"), name="WATER")
    path = fixtures_dir() / "water_registers" / "swm_trialA_extended.zip"
    utility.enrol(path, declared, "water")
    landed = utility.land(path, declared)
    assert (landed.received, landed.rejected) == (wanted["rows"], 0)
    reports = utility.run_touched()
    assert utility.read("SELECT count(*) AS n FROM raw.register_read")["n"][0] == wanted["rows"]
    assert utility.read("SELECT count(DISTINCT meter_id) AS n FROM raw.register_read")["n"][0] == wanted["meters"]
    totals = utility.read("SELECT received, accepted, duplicate, superseded, rejected FROM raw.control_total").row(0)
    assert totals == (wanted["rows"], wanted["rows"], 0, 0, 0)
    for day, stages in reports.items():
        for stage, report in stages.items():
            assert all(check.passed for check in report.checks), (day, stage, [c for c in report.checks if not c.passed])
    # Usage of every closed day is billed, to the litre.
    billed = utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0]
    validated = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage WHERE flow = 'import'")["q"][0]
    assert billed == validated
