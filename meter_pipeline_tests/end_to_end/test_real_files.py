"""Real files of other makers reach billing tables with nothing lost: counts and sums are those that independent readers
get."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from meter_pipeline.feeds.head_ends import HeadEnd, read_head_end
from meter_pipeline.feeds.registry import sniff
from meter_pipeline.postgres.database import Database
from meter_pipeline.units import base_unit
from meter_pipeline_tests.end_to_end.utility import SmallUtility
from meter_pipeline_tests.support import fixtures_dir

DECLARED = Path(__file__).parent.parent / "feeds" / "head_ends"
ACTUAL = "Example_NEM12_actual_interval.csv"
NEM12 = [
    ACTUAL,
    "Example_NEM12_different_interval_length.csv",
    "Example_NEM12_multiple_meters.csv",
    "Example_NEM12_multiple_quality.csv",
    "Example_NEM12_no_scheduled_read.csv",
    "Example_NEM12_substituted_interval.csv",
    "Example_NEM12_upper_case_units.csv",
    "Example_WesternPower.csv",
    pytest.param("Example_NEM12_month_solar.csv", marks=pytest.mark.slow),
]


def expected(family: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir() / "EXPECTED.json").read_text())[family]
    return found


def head_end(path: Path, name: str, zone: str | None = None) -> HeadEnd:
    found = sniff(path)
    return replace(found, name=name, zone=zone or found.zone)


def raw_sums(utility: SmallUtility) -> dict[str, tuple[int, Decimal]]:
    """Readings and exact sum in base units by meter/channel, of what the raw store holds."""
    frame = utility.read(
        "SELECT meter_id || '/' || channel AS c, count(*) AS n, sum(value)::text AS s FROM raw.interval WHERE value IS NOT NULL GROUP BY 1"
    )
    return {row["c"]: (row["n"], Decimal(row["s"])) for row in frame.to_dicts()}


def validated_actual(utility: SmallUtility) -> dict[str, Decimal]:
    """Sum of the validated intervals that are as read (or as the source substituted them), by meter/channel."""
    frame = utility.read(
        "SELECT meter_id || '/' || channel AS c, sum(value)::text AS s FROM vee.interval WHERE value IS NOT NULL GROUP BY 1"
    )
    return {row["c"]: Decimal(row["s"]) for row in frame.to_dicts()}


@pytest.mark.parametrize("name", NEM12)
def test_a_nem12_file_is_billed_as_independent_readers_read_it(database: Database, tmp_path: Path, name: str) -> None:
    path = fixtures_dir() / "nem12" / name
    wanted = expected("nem12")[name]["channels"]
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    landed = utility.land(path, declared)
    assert landed.rejected == 0
    assert landed.received == sum(c["readings"] for c in wanted.values())
    reports = utility.run_touched()
    stored = raw_sums(utility)
    for channel, want in wanted.items():
        _, factor = base_unit(want["unit"])
        readings, total = stored[channel]
        assert readings == want["readings"], channel
        assert total == Decimal(str(want["sum"])) * factor.numerator / factor.denominator, channel
    for day, stages in reports.items():
        for stage, report in stages.items():
            assert all(check.passed for check in report.checks), (
                day,
                stage,
                [c for c in report.checks if not c.passed],
            )
    billed = utility.read("SELECT coalesce(sum(source_quantity), 0)::bigint AS q FROM billing.determinant_day")["q"][0]
    validated = utility.read(
        "SELECT coalesce(sum(quantity_micro), 0)::bigint AS q FROM vee.daily_usage WHERE flow = 'import' AND unit = 'kWh'"
    )["q"][0]
    assert billed == validated


def test_a_stated_quantity_that_its_dials_contradict_is_reported(database: Database, tmp_path: Path) -> None:
    """Register 41 of the file goes from 950 to 10,015 and states 65 kWh; the dials are billed, so somebody has to be
    told."""
    path = fixtures_dir() / "nem12" / "Example_NEM13_forward_estimate.csv"
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    assert utility.land(path, declared).stated_differences == 1
    kept = utility.read("SELECT meter_id, channel, stated_micro, dials_micro, unit FROM raw.stated_difference").rows()
    assert kept == [("VDEF005890", "41", 65_000_000, 9_065_000_000, "kWh")]


def test_the_same_file_under_another_name_loads_nothing(database: Database, tmp_path: Path) -> None:
    path = fixtures_dir() / "nem12" / ACTUAL
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    utility.land(path, declared)
    utility.run_touched()
    before = utility.read("SELECT md5(string_agg(t::text, '' ORDER BY t)) AS h FROM raw.interval_day t")["h"][0]
    again = tmp_path / "renamed.csv"
    again.write_bytes(path.read_bytes())
    assert utility.land(again, declared).duplicate
    utility.run_touched()
    assert utility.read("SELECT md5(string_agg(t::text, '' ORDER BY t)) AS h FROM raw.interval_day t")["h"][0] == before


@pytest.mark.slow
def test_a_month_of_solar_is_billed_in_both_directions(database: Database, tmp_path: Path) -> None:
    path = fixtures_dir() / "nem12" / "Example_NEM12_partialchannel.csv"
    wanted = expected("nem12")[path.name]["channels"]
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    utility.land(path, declared)
    utility.run_touched()
    stored = raw_sums(utility)
    assert {c: (n, float(s)) for c, (n, s) in stored.items()} == {
        c: (w["readings"], w["sum"]) for c, w in wanted.items()
    }
    usage = utility.read(
        "SELECT flow, (sum(quantity_micro) / 1000000.0)::float8 AS q FROM vee.daily_usage GROUP BY 1 ORDER BY 1"
    )
    assert set(usage["flow"].to_list()) == {"export", "import"}


def test_a_file_with_two_spans_of_quality_is_billed(database: Database, tmp_path: Path) -> None:
    """sample_nem12.csv has no independent figures: its own decimal places are summed here, five slots of the second day
    being substitutes."""
    path = fixtures_dir() / "nem12" / "sample_nem12.csv"
    lines = [line.split(",") for line in path.read_text().splitlines() if line.startswith("300")]
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    declared = head_end(path, "NEM")
    utility.enrol(path, declared, "electricity")
    landed = utility.land(path, declared)
    assert (landed.received, landed.rejected) == (48 * len(lines), 0)
    utility.run_touched()
    energy = sum((Decimal(v) for line in lines[:2] for v in line[2:50]), Decimal(0))
    assert raw_sums(utility)["NMI1234567/E1"] == (96, energy)
    assert utility.read("SELECT sum(source_quantity)::bigint AS q FROM billing.determinant_day")["q"][0] == int(
        energy * 1_000_000
    )


def test_the_wide_export_of_a_head_end_is_billed(database: Database, tmp_path: Path) -> None:
    path = fixtures_dir() / "beacon" / "beacon-360-report.csv"
    utility = SmallUtility.make(database, tmp_path, "America/Los_Angeles")
    declared = (
        read_head_end(DECLARED / "beacon.toml")
        if (DECLARED / "beacon.toml").exists()
        else head_end(path, "BEACON", "America/Los_Angeles")
    )
    utility.enrol(path, declared, "water")
    landed = utility.land(path, declared)
    # two lines, a flow of 5.0 gallons and a dial of 227.6 CCF each
    assert (landed.received, landed.rejected) == (4, 0)
    utility.run_touched()
    flow = utility.read(
        "SELECT count(*) AS n, (sum(value) * 1000)::bigint AS s, min(unit) AS u FROM raw.interval WHERE value IS NOT NULL"
    ).row(0)
    assert flow == (2, 10_000, "gal")
    dial = utility.read(
        "SELECT count(*) AS n, (min(value) * 1000)::bigint AS s, (max(value) * 1000)::bigint AS t, min(unit) AS u FROM raw.register"
    ).row(0)
    assert dial == (2, 22_760_000, 22_760_000, "ft3")
    billed = utility.read(
        "SELECT sum(source_quantity)::bigint AS q, min(source_unit) AS u FROM billing.determinant_day"
    ).row(0)
    assert billed == (10_000_000, "gal")


def test_every_file_balances(database: Database, tmp_path: Path) -> None:
    """received = accepted + duplicate + superseded + rejected, file by file, over files that overlap each other."""
    utility = SmallUtility.make(database, tmp_path, "Etc/GMT-10")
    for name in (ACTUAL, "Example_NEM12_upper_case_units.csv", "Example_NEM12_substituted_interval.csv"):
        path = fixtures_dir() / "nem12" / name
        declared = head_end(path, "NEM")
        utility.enrol(path, declared, "electricity")
        utility.land(path, declared)
    utility.run_touched()
    totals = utility.read("SELECT received, accepted, duplicate, superseded, rejected FROM raw.control_total")
    assert totals.height == 3
    assert (
        totals.filter(
            pl.col("received") != pl.col("accepted") + pl.col("duplicate") + pl.col("superseded") + pl.col("rejected")
        ).height
        == 0
    )
