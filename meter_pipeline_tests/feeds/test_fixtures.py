"""Real files made by others give the counts and sums that independent readers give."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled
from meter_pipeline.feeds.head_ends import HeadEnd, read_head_end
from meter_pipeline.feeds.inspect import report
from meter_pipeline.feeds.registry import parse, sniff
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline_tests.support import fixtures_dir

UTC = BillingCalendar("UTC")
HERE = Path(__file__).parent


def declared(name: str) -> HeadEnd:
    return read_head_end(HERE / "head_ends" / f"{name}.toml")


def parsed(folder: str, file: str, head_end: str) -> ParsedFeed:
    return parse(fixtures_dir() / folder / file, declared(head_end), UTC)


def expected(folder: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((fixtures_dir() / "EXPECTED.json").read_text("utf-8"), parse_float=Decimal)
    return dict(document[folder])


NEM = (
    "Example_NEM12_actual_interval.csv",
    "Example_NEM12_different_interval_length.csv",
    "Example_NEM12_month_solar.csv",
    "Example_NEM12_multiple_meters.csv",
    "Example_NEM12_multiple_quality.csv",
    "Example_NEM12_no_scheduled_read.csv",
    "Example_NEM12_partialchannel.csv",
    "Example_NEM12_substituted_interval.csv",
    "Example_NEM12_upper_case_units.csv",
    "Example_NEM13_consumption_data.csv",
    "Example_NEM13_forward_estimate.csv",
    "Example_WesternPower.csv",
)


@pytest.mark.parametrize("file", NEM)
def test_nem_files_equal_the_independent_readers(file: str) -> None:
    wanted = expected("nem12")[file]
    found = report(file, parsed("nem12", file, "nem12"))
    assert found["rejected"] == []
    assert found["format"] == wanted["version"].lower()
    channels = {f"{each['meter_id']}/{each['channel']}": each for each in found["channels"]}
    assert sorted(channels) == sorted(wanted["channels"])
    for key, want in wanted["channels"].items():
        if isinstance(want, list):
            want = dict(zip(("readings", "sum", "unit", "quality"), want, strict=True))
        have = channels[key]
        assert (have["readings"], Decimal(have["sum"]), have["unit"], have["quality"]) == (
            want["readings"],
            Decimal(want["sum"]),
            want["unit"],
            want["quality"],
        )


@pytest.mark.parametrize("file", NEM)
def test_a_nem_file_is_recognised_by_its_header(file: str) -> None:
    assert sniff(fixtures_dir() / "nem12" / file).format == "nem12"


def test_nem13_gives_two_dials_and_the_stated_quantity_even_where_they_disagree() -> None:
    feed = parsed("nem12", "Example_NEM13_forward_estimate.csv", "nem12")
    dials = feed.registers.filter(channel="41").sort("read_at")["value"].to_list()
    dials_at = feed.registers.filter(channel="41").sort("read_at")["read_at"].to_list()
    stated = feed.periods.filter(channel="41")["value"].to_list()
    assert dials == [950_000_000, 10_015_000_000]
    assert stated == [65_000_000]
    # 111 kWh of register 11 agree and are not listed
    assert report("forward", feed)["stated_differences"] == [
        {
            "line": 4,
            "meter_id": "VDEF005890",
            "channel": "41",
            "period_start": dials_at[0],
            "period_end": dials_at[1],
            "stated": "65",
            "by_dials": "9065",
        }
    ]


def test_every_water_dial_is_accounted_for() -> None:
    want = expected("water_registers")["swm_trialA_extended.csv"]
    feed = parsed("water_registers", "swm_trialA_extended.zip", "water-alicante")
    channels = report("water", feed)["channels"]
    assert feed.registers.height == want["rows"]
    assert feed.rejects.height == 0
    assert len(channels) == want["meters"]
    assert sum(each["decreases"] for each in channels) == want["reg_decrease"]
    # The expected count was made on wall-clock time; eight of its gaps are only the hour the clocks skipped on 26
    # March.
    local = feed.registers["read_at"].dt.convert_time_zone("Europe/Madrid")
    wall = feed.registers.with_columns(local.dt.replace_time_zone(None).alias("wall")).sort("meter_id", "wall")
    gap = pl.col("wall").diff().over("meter_id") > pl.duration(hours=2)
    assert wall.select(gap.sum()).item() == want["gaps_gt_2h"]
    assert sum(each["gaps_over_2h"] for each in channels) == want["gaps_gt_2h"] - 8
    spelled = local.sort().dt.strftime("%Y-%m-%d %H:%M:%S")
    assert (spelled[0], spelled[-1]) == (want["tmin"], want["tmax"])


GREEN = (
    "Coastal_Multi_Family_12hr_Jan_1_2011_to_Jan_1_2012_RetailCustomer_3.xml.gz",
    "Desert_Single_Family_Jan_1_2011_to_Jan_1_2012_RetailCustomer_7.xml.gz",
    "TestGBDataOneYearDailyBinnedMonthly.xml",
    "ngma_natural_gas_billing_billing_data_Service_1_1_2021-05-26_to_2024-04-25.xml",
)


@pytest.mark.parametrize("file", GREEN)
def test_green_button_files_equal_a_plain_count_of_the_document(file: str) -> None:
    want = expected("green_button")[file]
    feed = parsed("green_button", file, "green-button")
    (channel,) = report(file, feed)["channels"]
    assert channel["readings"] == want["readings"] == want["distinct_starts"]
    assert Decimal(channel["sum"]) == Decimal(want["sum_raw"])
    assert (int(channel["first"].timestamp()), int(channel["last"].timestamp())) == (want["first"], want["last"])
    assert feed.rejects.height == 0
    assert sniff(fixtures_dir() / "green_button" / file).format == "espi"


def test_civil_days_of_23_and_25_hours_are_readings_of_a_day() -> None:
    feed = parsed("green_button", GREEN[2], "green-button")
    assert feed.intervals["interval_minutes"].unique().to_list() == [1440]
    assert feed.registers.height == 0


def test_monthly_blocks_become_a_dial_whose_advance_is_what_was_used() -> None:
    feed = parsed("green_button", GREEN[3], "green-button")
    assert feed.periods.height == 35
    assert feed.registers.height == 36  # clock changes leave no seams
    dials = feed.registers.sort("read_at")["value"]
    assert (dials.diff().drop_nulls() >= 0).all()
    assert dials[-1] - dials[0] == feed.periods["value"].sum() == 3_484_000_000
    assert feed.registers["unit"].unique().to_list() == ["therm"]


def test_a_beacon_line_is_a_dial_and_a_flow() -> None:
    feed = parsed("beacon", "beacon-360-report.csv", "beacon")
    flows, dials = feed.intervals, feed.registers
    assert flows.select("meter_id", "channel", "value", "unit").rows() == [("1470158170", "F1", 5_000_000, "gal")] * 2
    assert (
        dials.select("meter_id", "channel", "value", "unit").rows() == [("1470158170", "R1", 22_760_000_000, "ft3")] * 2
    )
    assert feed.rejects.height == 0
    assert sniff(fixtures_dir() / "beacon" / "beacon-360-report.csv").format == "wide_csv"


@pytest.mark.parametrize("compile_loops", [False, True])
def test_nem12_values_with_exponents_and_blanks_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile_loops: bool
) -> None:
    texts = ["1.5E-3", "1e2", "0E+5", "-2.5e-1", " 3.25 ", "1.50E+2", "100E-2", "+7E0", "2E-6", "0.5", "1e-0", "12"]
    record = f"300,20260302,{','.join(texts * 4)},A,,,20260303010203,"
    (tmp_path / "nem12").write_text(f"100,NEM12,202603030000,A,B\n200,N1,E1,,E1,,S,kWh,30,\n{record}\n900\n")
    if compile_loops:
        monkeypatch.setattr(compiled, "COMPILE_FROM_BYTES", 0)
    feed = parse(tmp_path / "nem12", HeadEnd("x", "nem12"), BillingCalendar("UTC"))
    micro = [1500, 100_000_000, 0, -250_000, 3_250_000, 150_000_000, 1_000_000, 7_000_000, 2, 500_000, 1_000_000]
    assert feed.intervals["value"].to_list() == [*micro, 12_000_000] * 4
