"""A register read every few days: its interval meter's days sum to it exactly, estimates are shared over all of them, a
sum that misses is told."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee import VeeOutcome, validate_billing_day
from meter_pipeline.vee.tables import true_up
from meter_pipeline_tests.vee.city import CALENDAR, City, Installed, load_curve, noon_after

DAY = date(2026, 2, 3)
DAYS = [DAY + timedelta(days=k) for k in range(3)]
CURVES = {d: load_curve(d, seed=k) for k, d in enumerate(DAYS)}
TRUE = sum(int(c.sum()) for c in CURVES.values())


@pytest.fixture
def city(database: Database) -> City:
    made = City(database)
    made.reference(Installed("M-1", "SP-1"))
    return made


def validate(city: City, day: date) -> VeeOutcome:
    return validate_billing_day(city.database, CALENDAR, day, clock=noon_after(DAYS[-1], 2))


def registers(city: City, quantity: int) -> None:
    city.register("M-1", (CALENDAR.bounds(DAYS[0])[0], 7_000_000), (CALENDAR.bounds(DAYS[-1])[1], 7_000_000 + quantity))


def settle(city: City) -> list[date]:
    ran = []
    while waiting := [day for day, _ in true_up.waiting(city.database)]:
        for day in waiting:
            validate(city, day)
            ran.append(day)
        assert len(ran) < 20, "the days ask for each other"
    return ran


def totals(city: City) -> list[int]:
    return [t for (t,) in city.rows("SELECT total_micro FROM vee.interval_day ORDER BY billing_day")]


@pytest.mark.parametrize("order", list(permutations(range(3)))[::2])
def test_estimates_of_several_days_sum_to_the_register_that_encloses_them_in_any_order(
    city: City, order: tuple[int, ...]
) -> None:
    registers(city, TRUE + 12_345)
    for day, gap in zip(DAYS, (slice(20, 40), slice(0, 0), slice(88, 96)), strict=True):
        holed = CURVES[day].copy()
        holed[gap] = NO_VALUE
        city.intervals(day, {"M-1": holed})
    for k in order:
        validate(city, DAYS[k])
    settle(city)
    assert sum(totals(city)) == TRUE + 12_345
    assert totals(city)[1] == int(CURVES[DAYS[1]].sum())
    before = totals(city)
    for day in DAYS:
        again = validate(city, day)
        assert (again.updated, again.redetermine) == (0, [])
    assert totals(city) == before


def test_a_stretch_without_estimates_is_checked_on_the_day_that_closes_it(city: City) -> None:
    registers(city, TRUE - 900_000)
    for day in DAYS:
        city.intervals(day, {"M-1": CURVES[day]})
    outcomes = [validate(city, day) for day in DAYS]
    settle(city)
    assert [o.exceptions.get("SUM_CHECK", 0) for o in outcomes] == [0, 0, 1]
    assert totals(city) == [int(c.sum()) for c in CURVES.values()]


def test_a_peak_waits_for_the_register_and_is_borne_out_by_it(city: City) -> None:
    peaked = CURVES[DAYS[0]].copy()
    peaked[40] = 9_000_000
    extra = 9_000_000 - int(CURVES[DAYS[0]][40])
    registers(city, TRUE + extra)
    city.intervals(DAYS[0], {"M-1": peaked})
    for day in DAYS[1:]:
        city.intervals(day, {"M-1": CURVES[day]})
    assert "SPIKE" in validate(city, DAYS[0]).rules
    for day in DAYS[1:]:
        validate(city, day)
    assert settle(city) == [DAYS[0]]
    assert city.rows(
        "SELECT bool_or('PEAK' = ANY(rules)), bool_or('SPIKE' = ANY(rules)) FROM vee.interval WHERE billing_day = %s",
        DAYS[0],
    ) == [(True, False)]


def test_a_day_that_is_all_there_says_nothing_while_another_of_its_stretch_is_missing(city: City) -> None:
    registers(city, TRUE)
    city.intervals(DAYS[0], {"M-1": CURVES[DAYS[0]]})
    validate(city, DAYS[0])
    assert city.rows("SELECT register_difference_micro FROM vee.interval_day") == [(None,)]
