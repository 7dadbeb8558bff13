"""A correction that contradicts its register changes no issued bill before a person has seen it."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest

from meter_pipeline.anomalies import decide
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local

DAY = date(2026, 9, 10)
DAYS = [DAY + timedelta(days=k) for k in range(3)]


@pytest.fixture
def town(database: Database) -> Town:
    """An interval meter of 9.6 kWh a day beside its register; its bill of three days is issued."""
    made = Town(database)
    made.tariff(flat("E", "electricity", "kWh", "0.10"))
    made.cycle(DAY, DAYS[-1] + timedelta(days=1))
    made.service("M", "E")
    made.meter("M-1", "M", interval(), dial(sums_to="E1", billed=False))
    for k in range(4):
        made.read("M-1", local(DAY + timedelta(days=k)), str(Decimal("100") + Decimal("9.6") * k))
    for day in DAYS:
        made.city.intervals(day, {"M-1": np.full(24, 400_000, np.int64)}, minutes=60)
    made.run(*DAYS, issue=True)
    assert made.billed("M") == Decimal("28.8")
    return made


def test_a_correction_of_twelve_times_its_register_waits_for_a_person(town: Town) -> None:
    """It was billed and adjusted with nobody asked, and the month was sealed with it."""
    town.city.intervals(DAYS[1], {"M-1": np.full(24, 12 * 400_000, np.int64)}, minutes=60)
    town.run(*DAYS[1:])
    assert town.rows("SELECT status FROM billing.adjustment") == []
    [(waits,)] = town.rows("SELECT DISTINCT waits_for FROM billing.late_change")
    assert waits == f"validation of {DAYS[1]} found SUM_CHECK: released by a person, or corrected"

    # the head-end takes it back: nothing is left to correct
    town.city.intervals(DAYS[1], {"M-1": np.full(24, 400_000, np.int64)}, minutes=60)
    town.run(*DAYS[1:])
    assert town.rows("SELECT status FROM billing.adjustment") == []
    assert town.rows("SELECT count(*) FROM billing.late_change") == [(0,)]
    assert town.rows("SELECT count(*) FROM anomaly.exception_case") == [(0,)]


def test_once_released_it_is_adjusted(town: Town) -> None:
    town.city.intervals(DAYS[1], {"M-1": np.full(24, 12 * 400_000, np.int64)}, minutes=60)
    town.run(*DAYS[1:])
    with town.database.connect() as connection:
        decide(connection, {"family": ["validation"]}, "dismissed", by="bo", reason="the register was reset on site")
    town.run(DAYS[2])
    [(status, net)] = town.rows("SELECT status, net FROM billing.adjustment")
    assert (status, net) == ("posted", Decimal("10.56"))


def test_an_unusual_read_proposes_one_correction_that_a_second_person_decides(database: Database) -> None:
    """Eight days of water billed at the usual 1 m3 a day; the next dial says ten. It may be true: nothing is posted
    before a person has decided, however small it is."""
    town, first = Town(database), date(2026, 9, 1)
    days = [first + timedelta(days=k) for k in range(8)]
    town.tariff(flat("W", "water", "m3", "0.20"))
    town.cycle(first, first + timedelta(days=8))
    town.service("1", "W", "water")
    town.meter("M", "1", dial("m3"), commodity="water")
    for k in range(-40, 1, 8):
        town.read("M", local(first + timedelta(days=k)), str(108 + k), unit="m3")
    town.run(*days, issue=True)
    assert town.billed("1") == 8
    town.read("M", local(first + timedelta(days=8)), "188.000", unit="m3")
    town.run(days[-1])
    assert town.exceptions("1").keys() == {"READ_HIGH"}
    rows = town.rows("SELECT status, net, approval_required, evidence FROM billing.adjustment")
    [(status, net, needs, evidence)] = rows
    assert (status, net, needs) == ("requested", Decimal("14.40"), True)  # 8 days x 9 m3 x 0.20
    assert evidence.startswith("validation found READ_HIGH; days that changed after it was issued: ")
    town.run(days[-1])
    assert town.rows("SELECT status, net, approval_required, evidence FROM billing.adjustment") == rows
