"""Independent readers of NEM12 agree with ours, value by value."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.feeds import make_nem12
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import HeadEnd, parse
from meter_pipeline_tests.support import fixtures_dir

pytestmark = pytest.mark.oracle


def ours(path: Path) -> list[tuple[str, str, str, int]]:
    frame = parse(path, HeadEnd("n", "nem12"), BillingCalendar("UTC")).intervals
    local = frame.with_columns(
        (pl.col("interval_start").dt.replace_time_zone(None) + timedelta(hours=10)).dt.strftime("%Y-%m-%d %H:%M")
    )
    return sorted(local.select("meter_id", "channel", "interval_start", "value").rows())


def theirs(path: Path) -> list[tuple[str, str, str, int]]:
    reader = pytest.importorskip("aemo_mdff_reader")
    rows = []
    for reading in reader.parse(str(path)):
        start = reading.interval_start.replace(tzinfo=UTC)
        rows.append((reading.nmi, reading.nmi_suffix, f"{start:%Y-%m-%d %H:%M}", round(float(reading.value) * 10**6)))
    return sorted(rows)


@pytest.mark.parametrize(
    "file", ["Example_NEM12_actual_interval.csv", "Example_NEM12_month_solar.csv", "sample_nem12.csv"]
)
def test_real_files_equal_aemo_mdff_reader(file: str) -> None:
    path = fixtures_dir() / "nem12" / file
    assert ours(path) == theirs(path)


def test_a_generated_file_equals_aemo_mdff_reader(tmp_path: Path) -> None:
    path = tmp_path / "month.csv"
    assert make_nem12(path, channels=40) == len(ours(path))
    assert ours(path) == theirs(path)
