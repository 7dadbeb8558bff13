"""Registers: every step has a cause, every gap has a cause, and consumption is what the dial says; real water meters
included."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers.read_gaps import Gap, gaps
from meter_pipeline.vee.registers.read_rules import _median_by
from meter_pipeline.vee.registers.reads import Series, Step, steps
from meter_pipeline.vee.registers.window_use import use_in_windows
from meter_pipeline.vee.rules.thresholds import default
from meter_pipeline_tests.support import fixtures_dir

UNIT = 1_000_000


def series(dials: list[int], capacity: int = 0, step_s: int = 3600) -> Series:
    return Series(
        np.zeros(len(dials), np.int64),
        np.arange(len(dials), dtype=np.int64) * step_s,
        np.array(dials, np.int64) * UNIT,
        np.array([capacity * UNIT], np.int64),
    )


@pytest.mark.parametrize(
    ("dials", "capacity", "cause", "consumed"),
    [
        ([10, 15], 0, Step.NORMAL, 5),
        ([99_990, 4], 100_000, Step.ROLLOVER, 14),
        ([50_000, 49_000], 100_000, Step.DECREASE, None),
        ([50_000, 12], 100_000, Step.DECREASE, None),
        ([99_990, 4], 0, Step.DECREASE, None),
    ],
)
def test_a_fall_is_a_rollover_only_across_the_last_digit(
    dials: list[int], capacity: int, cause: Step, consumed: int | None
) -> None:
    found = steps(series(dials, capacity), default())
    assert found.cause[1] == cause
    assert found.consumed[1] == (NO_VALUE if consumed is None else consumed * UNIT)


def test_a_small_fall_is_backflow_and_counts_net() -> None:
    reads = Series(
        np.zeros(3, np.int64), np.arange(3) * 3600, np.array([1_000_000, 992_000, 1_010_000]), np.zeros(1, np.int64)
    )
    found = steps(reads, default())
    assert found.cause.tolist() == [Step.FIRST, Step.REVERSE_FLOW, Step.NORMAL]
    assert int(found.consumed[1:].sum()) == 10_000


def test_one_read_out_of_line_is_left_out_and_the_next_recovers() -> None:
    found = steps(series([100, 105, 9, 111, 115]), default())
    assert found.cause.tolist() == [Step.FIRST, Step.NORMAL, Step.READ_ERROR, Step.RECOVERED, Step.NORMAL]
    assert int(found.consumed[found.used & (found.consumed != NO_VALUE)].sum()) == 15 * UNIT
    high = steps(series([100, 105, 90_105, 111, 115]), default())
    assert high.cause.tolist() == [Step.FIRST, Step.NORMAL, Step.READ_ERROR, Step.RECOVERED, Step.NORMAL]


def test_a_read_with_too_many_digits_is_left_out() -> None:
    found = steps(series([99_000, 100_500, 99_200], 100_000), default())
    assert found.cause.tolist() == [Step.FIRST, Step.DIALS, Step.RECOVERED]


def test_a_window_without_a_closing_read_has_no_quantity() -> None:
    reads = series([10, 20])
    use = use_in_windows(reads, steps(reads, default()), np.array([0]), np.array([7200]), 0)
    assert use.quantity[0] == NO_VALUE
    assert not use.closed[0]


@pytest.fixture(scope="module")
def water() -> tuple[Series, np.ndarray, pl.DataFrame]:
    """The real registers: sorted by meter and UTC time, in micro cubic metres, with the local offset at each read."""
    path = fixtures_dir() / "water_registers" / "swm_trialA_extended.zip"
    with zipfile.ZipFile(path) as archive:
        content = archive.read(archive.namelist()[0])
    frame = (
        pl.read_csv(io.BytesIO(content), separator=";", new_columns=["meter", "local", "dial", "difference"])
        .with_columns(pl.col("local").str.to_datetime("%d/%m/%Y %H:%M:%S"))
        .with_columns(at=pl.col("local").dt.replace_time_zone("Europe/Madrid", ambiguous="earliest").dt.epoch("s"))
        .sort("meter", "at")
    )
    number = frame["meter"].rank("dense").cast(pl.Int64).to_numpy() - 1
    at = frame["at"].to_numpy()
    offset = frame["local"].dt.epoch("s").to_numpy() - at
    meters = int(number.max()) + 1
    return Series(number, at, frame["dial"].to_numpy() * 1000, np.zeros(meters, np.int64)), offset, frame


def test_every_one_of_the_real_water_reads_is_accounted_for(water: tuple[Series, np.ndarray, pl.DataFrame]) -> None:
    reads, offset, frame = water
    found = steps(reads, default())
    late, _ = gaps(reads, np.zeros(reads.starts.size - 1, np.int64), default(), offset)
    by_step = Counter(Step(int(cause)) for cause in found.cause)
    by_gap = Counter(Gap(int(cause)) for cause in late[late > 0])
    assert reads.series.size == 148_484 == by_step.total()
    assert by_step[Step.FIRST] == 89
    assert by_step[Step.REVERSE_FLOW] == 43
    assert by_step[Step.DECREASE] == 0
    # the expected 2,614 gaps are of the wall clock: eight of them are the hour that local time skipped on 26 March
    assert by_gap == {
        Gap.LOST_MESSAGES: 1_963,
        Gap.IRREGULAR: 467,
        Gap.HEAD_END: 161,
        Gap.LONG_SILENCE: 15,
        Gap.CLOCK_CHANGE: 8,
    }
    assert by_gap.total() == 2_614
    ends = reads.dial[reads.starts[1:] - 1] - reads.dial[reads.starts[:-1]]
    assert int(found.consumed[found.consumed != NO_VALUE].sum()) == int(ends.sum())
    assert frame["meter"].n_unique() == 89


def test_the_days_of_the_real_water_meters_add_up_to_their_registers(
    water: tuple[Series, np.ndarray, pl.DataFrame],
) -> None:
    reads, _, _ = water
    calendar = BillingCalendar("Europe/Madrid")
    found = steps(reads, default())
    first, last = reads.at[reads.starts[:-1]], reads.at[reads.starts[1:] - 1]
    total = np.zeros(first.size, np.int64)
    for day in calendar.days(date(2017, 3, 1), date(2017, 5, 19)):
        start = calendar.start_s(day)
        opens = np.clip(start, first, last)
        closes = np.clip(start + calendar.seconds(day), first, last)
        part = use_in_windows(reads, found, opens, closes, 0)
        total += np.where(part.quantity == NO_VALUE, 0, part.quantity)
    assert np.array_equal(total, reads.dial[reads.starts[1:] - 1] - reads.dial[reads.starts[:-1]])
    assert calendar.seconds(date(2017, 3, 26)) == 82_800
    assert ZoneInfo(calendar.zone).key == "Europe/Madrid"


def test_one_register_that_is_read_each_hour_is_no_class() -> None:
    """A meter of 1 gal an hour made one of 100 gal an hour READ_HIGH: 23 of the stretches of the class were its own."""
    group, values, known = np.zeros(10, np.int64), np.arange(10, dtype=np.float64), np.ones(10, np.bool_)
    assert np.isnan(_median_by(group, values, known, np.zeros(10, np.int64), 8)).all()
    assert _median_by(group, values, known, np.arange(10), 8).tolist() == [4.5] * 10
