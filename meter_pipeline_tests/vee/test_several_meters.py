"""Service points with several meters: each meter has its own history, and a new one that of the meter it replaces."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial

import numpy as np
import polars as pl
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import validate_billing_day
from meter_pipeline.vee.edits import edit
from meter_pipeline.vee.estimation.history import align_daily, estimate_streaks, own_daily
from meter_pipeline.vee.tables.usage_history import UsageHistory
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, noon_after

DAY = date(2026, 6, 10)


@pytest.fixture
def city(database: Database) -> City:
    return City(database)


def _totals(city: City, day: date) -> dict[str, int]:
    return dict(city.rows("SELECT meter_id, total_micro FROM vee.interval_day WHERE billing_day = %s ORDER BY 1", day))


def test_a_lost_first_day_of_an_exchanged_meter_is_estimated_from_the_meter_it_replaced(city: City) -> None:
    """Two meters at one service point, 9 and 1 kWh an hour. The small one is exchanged and the new one's first day is
    lost: it was estimated at the whole service's 240 kWh, 456 for the point where 240 is right."""
    exchanged = CALENDAR.bounds(DAY + timedelta(days=8))[0]
    small = partial(Installed, service_point_id="SP-1", interval_minutes=60, register=False)
    city.reference(
        small("BIG"),
        small("OLD", removed_at=exchanged),
        small("NEW", installed_at=exchanged),
    )
    for k in range(10):
        day = DAY + timedelta(days=k)
        values = {"BIG": np.full(24, 9_000_000)}
        if k < 8:
            values["OLD"] = np.full(24, 1_000_000)
        elif k > 8:
            values["NEW"] = np.full(24, 1_000_000)
        city.intervals(day, values, minutes=60)
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))
    assert _totals(city, DAY + timedelta(days=8)) == {"BIG": 216_000_000, "NEW": 24_000_000}
    assert city.rows("SELECT count(*) FROM vee.interval_day WHERE 'LOW' = ANY (vee.row_rules(row_flags))") == [(0,)]


def _past(*rows: tuple[str, date, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [("SP", meter, "E1", "import", "kWh", day, total, True) for meter, day, total in rows],
        schema={
            "service_point_id": pl.String,
            "meter_id": pl.String,
            "channel": pl.String,
            "flow": pl.String,
            "unit": pl.String,
            "billing_day": pl.Date,
            "total_micro": pl.Int64,
            "whole": pl.Boolean,
        },
        orient="row",
    )


def _keys(*meters: str) -> pl.DataFrame:
    return pl.DataFrame(
        [("SP", meter, "E1", "import", "kWh") for meter in meters],
        schema=dict.fromkeys(("service_point_id", "meter_id", "channel", "flow", "unit"), pl.String),
        orient="row",
    )


def test_a_meter_takes_over_only_from_the_one_it_replaced() -> None:
    days = [DAY, DAY + timedelta(days=1)]
    old, other = ("OLD", DAY, 5), ("OTHER", DAY, 50)
    assert own_daily(_keys("NEW"), _keys("NEW", "OTHER"), _past(old, other), days)[0].tolist() == [[5, NO_VALUE]]
    # two meters gone, or two new: nobody can say which followed which
    assert own_daily(_keys("NEW"), _keys("NEW"), _past(old, other), days)[0].tolist() == [[NO_VALUE, NO_VALUE]]
    assert own_daily(_keys("N1", "N2"), _keys("N1", "N2"), _past(old), days)[0].tolist() == [[NO_VALUE, NO_VALUE]] * 2
    # an added meter beside one that goes on has no history
    assert own_daily(_keys("NEW"), _keys("NEW", "OTHER"), _past(other), days)[0].tolist() == [[NO_VALUE, NO_VALUE]]


def test_a_head_end_without_any_history_beside_a_city_that_has_it() -> None:
    """A first head-end of half-hours joined a city of hours that was billed the day before: validation of the whole
    city ended in an IndexError."""
    usage = UsageHistory([DAY], [b"k"], [np.zeros(0, np.int64)], [np.zeros(0, np.int16)], {b"k": _keys()})
    found = align_daily(_keys("A", "B"), usage, [DAY], [True])
    assert (found.totals == NO_VALUE).all()
    assert estimate_streaks(_keys("A"), usage, DAY + timedelta(days=1)).tolist() == [0]


def test_reads_that_a_person_refuses_are_not_put_back_by_a_register_that_stood_still_too(city: City) -> None:
    """A meter stuck with its register: refused reads were estimated and scaled to the register's nothing, 0.00 kWh."""
    city.reference(Installed("STUCK", "SP-1", interval_minutes=60))
    dial = 1_000_000_000
    city.register("STUCK", (CALENDAR.bounds(DAY)[0], dial))
    for k in range(7):
        day = DAY + timedelta(days=k)
        hourly = 1_000_000 if k < 6 else 0
        dial += 24 * hourly
        city.intervals(day, {"STUCK": np.full(24, hourly)}, minutes=60)
        city.register("STUCK", (CALENDAR.bounds(day)[1], dial))
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))
    stopped = DAY + timedelta(days=6)
    assert _totals(city, stopped) == {"STUCK": 0}
    edit(city.database, CALENDAR, "STUCK", "E1", stopped, 1, [None] * 24, reason="meter stuck, replaced", by="ana")
    validate_billing_day(city.database, CALENDAR, stopped, clock=noon_after(stopped))
    assert _totals(city, stopped) == {"STUCK": 24_000_000}
    [(rules, difference)] = city.rows(
        "SELECT vee.row_rules(row_flags), register_difference_micro FROM vee.interval_day WHERE billing_day = %s",
        stopped,
    )
    assert "REGISTER_DOUBTED" in rules
    assert difference is None


def test_a_lost_day_of_an_empty_house_is_still_its_registers_nothing(city: City) -> None:
    city.reference(Installed("M", "SP-1", interval_minutes=60))
    city.register(
        "M", *[(CALENDAR.bounds(DAY)[0] + timedelta(days=k), 1_000_000_000 + min(k, 6) * 24_000_000) for k in range(8)]
    )
    for k in range(7):
        day = DAY + timedelta(days=k)
        if k < 6:
            city.intervals(day, {"M": np.full(24, 1_000_000)}, minutes=60)
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))
    assert _totals(city, DAY + timedelta(days=6)) == {"M": 0}


def test_a_net_channel_keeps_its_negative_values_and_is_estimated_around_them(city: City) -> None:
    net = Installed("NET", "SP-1", interval_minutes=60, flow="other", dials=None)
    city.reference(net)
    shape = np.array([1_000_000] * 8 + [-1_500_000] * 8 + [2_000_000] * 8, np.int64)
    dial = 1_000_000_000
    city.register("NET", (CALENDAR.bounds(DAY)[0], dial))
    for k in range(8):
        day = DAY + timedelta(days=k)
        values = shape.copy()
        if k == 7:
            values[6:18] = NO_VALUE
        city.intervals(day, {"NET": values}, minutes=60)
        dial += int(shape.sum())
        city.register("NET", (CALENDAR.bounds(day)[1], dial))
        validate_billing_day(city.database, CALENDAR, day, clock=noon_after(day))
    last = DAY + timedelta(days=7)
    assert _totals(city, last) == {"NET": int(shape.sum())}, "12 kWh of the day, not 21.6"
    [(values, rules)] = city.rows(
        "SELECT values, vee.row_rules(row_flags) FROM vee.interval_day WHERE billing_day = %s", last
    )
    assert min(values[8:16]) < 0, "the gap over noon is export, as on the days before"
    assert not {"INFEASIBLE", "SUM_CHECK"} & set(rules)
