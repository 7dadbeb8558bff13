"""Dials read every few days beside an install or removal read: days stand between the reads that are nearest to
them.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local

FIRST = date(2026, 9, 1)
DAYS = [FIRST + timedelta(days=k) for k in range(10)]


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("E", "electricity", "kWh", "1.00"))
    made.cycle(FIRST, DAYS[5], FIRST + timedelta(days=10))
    return made


def test_an_install_read_is_the_previous_read_of_the_first_days_only(town: Town) -> None:
    """Reads on the 1st, 6th and 11th: 100 and 50 kWh, whether the meter came on the 1st or has stood for years."""
    for name in ("NEW", "OLD"):
        town.service(name, "E")
    town.meter("NEW", "NEW", dial(), installed=local(FIRST), install_read="1000.000")
    town.meter("OLD", "OLD", dial())
    town.read("OLD", local(FIRST), "1000.000")
    for meter in ("NEW", "OLD"):
        town.read(meter, local(DAYS[5]), "1100.000")
        town.read(meter, local(FIRST + timedelta(days=10)), "1150.000")
    town.run(*DAYS, issue=True)
    for name in ("NEW", "OLD"):
        assert list(town.usage(name).values()) == [Decimal(20)] * 5 + [Decimal(10)] * 5
        assert town.billed(name) == 150


def test_a_removal_read_of_later_leaves_the_reads_before_it_alone(town: Town) -> None:
    """The removal on the 11th is on record when the 5th is validated: the read of the 6th stands between them."""
    town.service("1", "E")
    town.meter("M", "1", dial(), removed=local(FIRST + timedelta(days=10)), removal_read="1150.000")
    town.read("M", local(FIRST), "1000.000")
    town.read("M", local(DAYS[5]), "1100.000")
    town.run(*DAYS, issue=True)
    assert list(town.usage("1").values()) == [Decimal(20)] * 5 + [Decimal(10)] * 5


def test_a_removal_read_months_ahead_closes_a_register_that_nobody_read(town: Town) -> None:
    town.service("1", "E")
    removed = local(FIRST + timedelta(days=150))
    town.meter("M", "1", dial(), removed=removed, removal_read="1150.000")
    town.read("M", local(FIRST), "1000.000")
    town.run(*DAYS)
    # 150 days and the hour by which clocks go back in between
    assert all(Decimal("0.9997") < used < Decimal("0.9998") for used in town.usage("1").values())


def test_a_new_dial_starts_at_nothing(town: Town) -> None:
    """9,000 to 9,500 by the old meter, 0 to 500 by the new one: 1,000 kWh and no negative step."""
    town.service("1", "E")
    swap = local(DAYS[4], 10)
    town.meter("OLD", "1", dial(), removed=swap, removal_read="9500.000")
    town.meter("NEW", "1", dial(), installed=swap, install_read="0.000")
    town.read("OLD", local(FIRST), "9000.000")
    town.read("NEW", local(FIRST + timedelta(days=10)), "500.000")
    town.run(*DAYS, issue=True)
    assert sum(town.usage("1").values()) == 1000
    assert town.billed("1") == 1000
    assert town.exceptions("1") == {}


def test_a_bill_between_two_read_dials_is_actual(town: Town) -> None:
    """Hand-read at ten in the morning: the shares of the stretch are counted; only what no read closes is estimated."""
    town.service("1", "E")
    town.meter("M", "1", dial())
    town.read("M", local(FIRST - timedelta(days=3), 10), "970.000")
    town.read("M", local(DAYS[6], 10), "1067.000")
    town.run(*DAYS, issue=True)
    found = dict(town.rows("SELECT billing_day, estimated FROM billing.determinant_day"))
    assert [found[d] for d in DAYS] == [0] * 6 + [1] * 4
    assert town.rows("SELECT slots, estimated FROM billing.statement_segment ORDER BY segment_start") == [
        (5, 0),
        (5, 4),
    ]
