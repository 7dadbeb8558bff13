"""Time-of-use registers in the store: estimates are scaled to each of them, and each is held against the intervals of
its hours."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import VeeOutcome, explain_day, validate_billing_day
from meter_pipeline.vee.estimation.time_of_use import slot_registers
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 3, 3)  # a Tuesday
PEAK = slice(64, 84)  # 16:00 to 21:00
OFF = np.r_[0:64, 84:96]


@pytest.fixture
def city(database: Database) -> City:
    city = City(database)
    city.reference(Installed("M-1", "SP-1"))
    with database.connect() as c:
        for channel in ("R2", "R3"):
            c.execute(
                "INSERT INTO ref.channels VALUES ('M-1', %s, 'register', 'kWh', NULL, 'import', 1, 6, 3, 'E1', FALSE)",
                (channel,),
            )
        for channel, days, first, last in (
            ("R2", "workday", 960, 1260),
            ("R3", "workday", 0, 960),
            ("R3", "workday", 1260, 1440),
            ("R3", "restday", 0, 1440),
        ):
            c.execute("INSERT INTO ref.register_hours VALUES ('AMI', %s, %s, %s, %s)", (channel, days, first, last))
    return city


def validate(city: City, day: date = DAY) -> VeeOutcome:
    return validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))


def read(city: City, **counted: int) -> None:
    start, end = CALENDAR.bounds(DAY)
    for channel, quantity in counted.items():
        city.register("M-1", (start, 5_000_000), (end, 5_000_000 + quantity), channel=channel)


def final_values(city: City) -> np.ndarray:
    rows = explain_day(city.database, CALENDAR, "M-1", DAY)["channels"][0]["intervals"]
    return np.array([int(r["final"] * 1_000_000) for r in rows])


@pytest.mark.parametrize("total", [True, False])
def test_estimates_sum_to_each_register_of_its_hours_and_to_the_total(city: City, total: bool) -> None:
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[56:72] = NO_VALUE  # 14:00 to 18:00: half before the peak, half in it
    city.intervals(DAY, {"M-1": holed})
    # the peak's register says that twice as much was used in the hole as usual, the other's half
    peak = int(curve[PEAK].sum()) + int(curve[64:72].sum())
    off = int(curve[OFF].sum()) - int(curve[56:64].sum()) // 2
    read(city, R2=peak, R3=off, **({"R1": peak + off} if total else {}))
    outcome = validate(city)
    final = final_values(city)
    assert (int(final[PEAK].sum()), int(final[OFF].sum())) == (peak, off)
    assert (outcome.estimated, outcome.sum_failed, outcome.rules.get("TOU_SUM", 0), outcome.exceptions) == (
        16,
        0,
        0,
        {},
    )
    assert "each time-of-use register" in city.rows("SELECT notes FROM vee.interval_day")[0][0]
    again = validate(city)
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 1)


def test_registers_that_add_up_but_not_to_the_intervals_of_their_hours_are_an_exception(city: City) -> None:
    curve = load_curve(DAY)
    city.intervals(DAY, {"M-1": curve})
    moved = 2_000_000
    read(city, R1=int(curve.sum()), R2=int(curve[PEAK].sum()) + moved, R3=int(curve[OFF].sum()) - moved)
    outcome = validate(city)
    assert (outcome.sum_failed, outcome.exceptions) == (0, {"TOU_SUM": 1})


def test_a_register_overrun_by_accepted_values_leaves_scaling_to_the_total(city: City) -> None:
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[56:72] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    peak = int(curve[72:84].sum()) - 3_000_000  # less than the accepted intervals of the peak alone
    read(city, R1=int(curve.sum()), R2=peak, R3=int(curve.sum()) - peak)
    validate(city)
    assert city.rows("SELECT total_micro, register_difference_micro FROM vee.interval_day") == [
        (int(curve.sum()), int(curve.sum()))
    ]


def test_a_correction_of_one_register_alone_makes_a_new_version(city: City) -> None:
    curve = load_curve(DAY)
    holed = curve.copy()
    holed[56:72] = NO_VALUE
    city.intervals(DAY, {"M-1": holed})
    peak, off = int(curve[PEAK].sum()), int(curve[OFF].sum())
    read(city, R1=peak + off, R2=peak, R3=off)
    validate(city)
    with city.database.connect() as c:
        for channel, by in (("R2", 500_000), ("R3", -500_000)):
            c.execute(
                "UPDATE raw.register_read SET value = value + %s WHERE channel = %s AND value > 5000000", (by, channel)
            )
    outcome = validate(city)
    final = final_values(city)
    assert outcome.updated == 1
    assert (int(final[PEAK].sum()), int(final[OFF].sum())) == (peak + 500_000, off - 500_000)
    assert city.rows("SELECT reason FROM vee.interval_day_version") == [("inputs",)]


HOURS = pl.DataFrame(
    {
        "channel": ["P", "O", "O"],
        "days": ["all", "all", "all"],
        "from_minute": [420, 0, 1140],
        "to_minute": [1140, 420, 1440],
    }
)


@pytest.mark.parametrize(("day", "slots"), [(date(2026, 3, 8), 92), (date(2026, 3, 9), 96), (date(2026, 11, 1), 100)])
def test_hours_are_those_of_the_local_clock_when_it_changes(day: date, slots: int) -> None:
    found = slot_registers(HOURS, CALENDAR, day, (), 15)
    assert found is not None
    names, counted = found
    assert (names, counted.size, int((counted == names.index("P")).sum())) == (["O", "P"], slots, 48)


def test_weekends_and_holidays_are_rest_days() -> None:
    hours = HOURS.with_columns(days=pl.Series(["workday", "workday", "workday"])).vstack(
        pl.DataFrame({"channel": ["O"], "days": ["restday"], "from_minute": [0], "to_minute": [1440]})
    )
    calendar = BillingCalendar("Europe/Berlin")
    for day, holidays, peak in (
        (date(2026, 3, 6), (), 48),
        (date(2026, 3, 7), (), 0),
        (date(2026, 3, 6), (date(2026, 3, 6),), 0),
    ):
        found = slot_registers(hours, calendar, day, holidays, 15)
        assert found is not None
        assert int((found[1] == 1).sum()) == peak


@pytest.mark.parametrize(
    "hours",
    [
        HOURS.with_columns(
            to_minute=pl.col("to_minute").replace({420: 430}), from_minute=pl.col("from_minute").replace({420: 430})
        ),
        HOURS.with_columns(to_minute=pl.col("to_minute").replace({420: 480})),
        HOURS.filter(pl.col("from_minute") != 1140),
    ],
    ids=["within an interval", "two registers at once", "an hour that none counts"],
)
def test_hours_that_do_not_fit_the_intervals_are_not_used(hours: pl.DataFrame) -> None:
    assert slot_registers(hours, CALENDAR, DAY + timedelta(days=1), (), 15) is None
