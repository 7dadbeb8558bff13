"""The long real files, day by day to billing tables: years of Green Button, quarters between register reads, 148,484
water register reads.

Minutes each, so not in the default run.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.feeds.head_ends import read_head_end
from meter_pipeline.ingest.landing import Landed
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.test_real_files import DECLARED, expected, head_end
from meter_pipeline_tests.end_to_end.utility import SmallUtility
from meter_pipeline_tests.support import fixtures_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
HOURLY = [
    "Coastal_Multi_Family_12hr_Jan_1_2011_to_Jan_1_2012_RetailCustomer_3.xml.gz",
    "Desert_Single_Family_Jan_1_2011_to_Jan_1_2012_RetailCustomer_7.xml.gz",
]


def _green_button(
    database: Database, folder: Path, name: str, zone: str, commodity: str
) -> tuple[SmallUtility, Landed]:
    """A utility that enrolled the meters of a Green Button file, and the file's landing."""
    utility = SmallUtility.make(database, folder, zone)
    declared = replace(read_head_end(DECLARED / "green-button.toml"), name="GREEN")
    path = fixtures_dir() / "green_button" / name
    utility.enrol(path, declared, commodity)
    return utility, utility.land(path, declared)


def _stored_as_sent(utility: SmallUtility, wanted: dict[str, Any]) -> None:
    """The raw store has every reading of the file, to the watt-hour."""
    stored = utility.read(
        "SELECT count(*) AS n, (sum(value) * 1000)::text AS wh FROM raw.interval WHERE value IS NOT NULL"
    ).to_dicts()[0]
    assert stored["n"] == wanted["readings"]
    assert Decimal(stored["wh"]) == Decimal(str(wanted["sum_raw"]))


def _billed(utility: SmallUtility) -> int:
    """Micro units that were billed."""
    return int(utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0])


@pytest.mark.parametrize("name", HOURLY)
def test_a_year_of_hourly_green_button_is_billed(database: Database, tmp_path: Path, name: str) -> None:
    wanted = expected("green_button")[name]
    utility, landed = _green_button(database, tmp_path, name, "America/Los_Angeles", "electricity")
    assert (landed.received, landed.rejected) == (wanted["readings"], 0)
    utility.run_touched()
    _stored_as_sent(utility, wanted)
    validated = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage WHERE flow = 'import'")
    assert _billed(utility) == validated["q"][0]


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
            assert all(check.passed for check in report.checks), (
                day,
                stage,
                [c for c in report.checks if not c.passed],
            )
    # Usage of every closed day is billed, to the litre.
    validated = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage WHERE flow = 'import'")
    assert _billed(utility) == validated["q"][0]


def test_a_year_of_daily_green_button_is_billed_through_both_clock_changes(database: Database, tmp_path: Path) -> None:
    name = "TestGBDataOneYearDailyBinnedMonthly.xml"
    wanted = expected("green_button")[name]
    utility, landed = _green_button(database, tmp_path, name, "America/New_York", "electricity")
    assert (landed.received, landed.rejected) == (wanted["readings"], 0)
    utility.run_touched()
    _stored_as_sent(utility, wanted)
    assert _billed(utility) == int(wanted["sum_raw"]) * 1000


def test_three_years_of_monthly_green_button_are_billed_to_the_therm(database: Database, tmp_path: Path) -> None:
    """Blocks of 28 to 35 days stand on a dial; the days between are estimated and trued up as each block closes."""
    name = "ngma_natural_gas_billing_billing_data_Service_1_1_2021-05-26_to_2024-04-25.xml"
    wanted = expected("green_button")[name]
    utility, landed = _green_button(database, tmp_path, name, "America/New_York", "gas")
    assert landed.rejected == 0
    utility.run_span()
    usage = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage")["q"][0]
    # Blocks end at midnight UTC, 20:00 of 25 April: the day's last four hours go on at the pace of the last block, 91
    # therms in 30 days.
    tail = 91_000_000 * 4 * 3600 // (30 * 86_400)
    assert usage == int(wanted["sum_raw"]) * 1000 + tail
    assert _billed(utility) == usage


def _quarter(database: Database, folder: Path, name: str) -> SmallUtility:
    path = fixtures_dir() / "nem12" / name
    utility = SmallUtility.make(database, folder, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    assert utility.land(path, declared).rejected == 0
    utility.run_span()
    return utility


def _until(utility: SmallUtility, service_point: str, day: str) -> str:
    """Micro units of a service point's usage before a day."""
    return str(
        utility.read(
            f"SELECT sum(quantity_micro)::text AS q FROM vee.daily_usage WHERE service_point_id = '{service_point}' AND billing_day < '{day}'"
        )["q"][0]
    )


def test_a_quarter_between_two_register_reads_is_billed_to_the_unit(database: Database, tmp_path: Path) -> None:
    """VABC005890: 6342.8 on 5 October 2003, 7654.9 on 7 January 2004, 1312.1 kWh between them by the file's own
    figure.
    """
    utility = _quarter(database, tmp_path, "Example_NEM13_consumption_data.csv")
    found = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage")["q"][0]
    # the rest of the day of the second read, 10:03:33 to midnight, is a forward estimate at the quarter's pace
    span = int(
        (datetime(2004, 1, 7, 10, 3, 33, tzinfo=UTC) - datetime(2003, 10, 5, 9, 30, 55, tzinfo=UTC)).total_seconds()
    )
    rest = 86_400 - (10 * 3600 + 3 * 60 + 33)
    assert found == 1_312_100_000 + 1_312_100_000 * rest // span
    assert utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0] == found


def test_a_forward_estimate_between_two_reads_is_billed_by_its_dials(database: Database, tmp_path: Path) -> None:
    """VDEF005890, two registers read on 8 January 2004 and put at E64 for the midnight of 8 April: 888 to 999 and 950
    to 10015. The file states 111 kWh for the one, as its dials do, and 65 for the other, against 9,065 of its dials:
    the dials are billed, the stated figure stays in ``periods``."""
    utility = _quarter(database, tmp_path, "Example_NEM13_forward_estimate.csv")
    found = utility.read("SELECT sum(quantity_micro)::bigint AS q FROM vee.daily_usage")["q"][0]
    assert found == (111 + 9_065) * 1_000_000
    assert utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0] == found


def test_a_register_stated_twice_is_billed_once_and_goes_on_at_its_pace(database: Database, tmp_path: Path) -> None:
    """sample_nem13.csv gives NMI1234567/E1 two pairs of dials for one span (222.5 and 68 kWh): one of them wins whole,
    and the days after its last read are estimated at its pace until the file's last day; what NMI7654321 sent out is
    exact."""
    utility = _quarter(database, tmp_path, "sample_nem13.csv")
    assert _until(utility, "SP-NMI1234567", "2024-01-01") in ("68000000", "222500000")
    assert _until(utility, "SP-NMI7654321", "2024-02-01") == "400501000"
