"""A meter gives way to one of another kind or unit: no day is stopped, nothing is dropped, nothing counted twice."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest

from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, interval, local
from meter_pipeline_tests.vee.city import CALENDAR

DAY = date(2026, 9, 10)
DAYS = [DAY + timedelta(days=k) for k in (-1, 0, 1)]
CUT = local(DAY, 14)


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("E", "electricity", "kWh", "0.10"))
    made.tariff(flat("W", "water", "m3", "2.00"))
    made.cycle(DAYS[0], DAYS[-1] + timedelta(days=1))
    return made


def hours(town: Town, day: date, values: dict[str, tuple[int, int, int]], unit: str = "kWh", minutes: int = 60) -> None:
    """Raw intervals of meters, each with its constant value in micro units from one slot to another."""
    slots = CALENDAR.slots(day, minutes)
    vectors = {}
    for meter, (value, first, past) in values.items():
        vector = np.full(slots, NO_VALUE, np.int64)
        vector[first:past] = value
        vectors[meter] = vector
    town.city.intervals(day, vectors, minutes=minutes, unit=unit)


@pytest.mark.parametrize(("old", "new"), [("OLD", "NEW"), ("Z-OLD", "A-NEW")])
def test_a_register_gives_way_to_intervals_within_a_day(town: Town, old: str, new: str) -> None:
    """0.4 kWh an hour all along: 9.6 a day, whichever meter's name sorts first. The neighbour's day is not stopped."""
    town.service("1", "E")
    town.service("2", "E")
    town.meter(old, "1", dial(), removed=CUT, removal_read="1015.200")
    town.meter(new, "1", interval(), dial(sums_to="E1", billed=False), installed=CUT, install_read="0.000")
    town.meter("NEIGHBOUR", "2", interval())
    town.read(old, local(DAYS[0]), "1000.000")
    for day in DAYS:
        first = {DAYS[0]: 24, DAY: 14, DAYS[2]: 0}[day]
        hours(town, day, {new: (400_000, first, 24), "NEIGHBOUR": (400_000, 0, 24)})
    town.run(*DAYS, issue=True)
    assert list(town.usage("1").values()) == [Decimal("9.6")] * 3
    assert town.rows(
        "SELECT source, meters, exchange, register_micro FROM vee.daily_usage WHERE service_point_id = 'SP-1' "
        "AND billing_day = %s",
        DAY,
    ) == [("mixed", 2, True, 5_600_000)]
    assert (town.billed("1"), town.billed("2")) == (Decimal("28.8"), Decimal("28.8"))
    causes = town.rows("SELECT DISTINCT cause FROM billing.reconciliation WHERE joint = 'validated_to_determinants'")
    assert causes == [("none",)]


def test_an_overlap_of_a_register_and_intervals_counts_the_shared_time_once(town: Town) -> None:
    """The old register counts on for two hours beside the new meter: those hours are the new meter's."""
    town.service("1", "E")
    town.meter("OLD", "1", dial(), removed=CUT + timedelta(hours=2), removal_read="1016.000")
    town.meter("NEW", "1", interval(), installed=CUT, install_read="0.000")
    town.read("OLD", local(DAYS[0]), "1000.000")
    hours(town, DAY, {"NEW": (400_000, 14, 24)})
    hours(town, DAYS[2], {"NEW": (400_000, 0, 24)})
    town.run(*DAYS, issue=True)
    assert list(town.usage("1").values()) == [Decimal("9.6")] * 3
    assert town.billed("1") == Decimal("28.8")


def test_intervals_give_way_to_a_register(town: Town) -> None:
    town.service("1", "E")
    town.meter("OLD", "1", interval(), removed=CUT)
    town.meter("NEW", "1", dial(), installed=CUT, install_read="0.000")
    hours(town, DAYS[0], {"OLD": (400_000, 0, 24)})
    hours(town, DAY, {"OLD": (400_000, 0, 14)})
    town.read("NEW", local(DAYS[2] + timedelta(days=1)), "13.600")
    town.run(*DAYS, issue=True)
    assert list(town.usage("1").values()) == [Decimal("9.6")] * 3
    assert town.billed("1") == Decimal("28.8")


def test_gallons_give_way_to_cubic_metres(town: Town) -> None:
    """140 gal by the old meter and 0.1 m3 by the new on the day of the exchange, each kept in its own unit."""
    town.service("3", "W", "water")
    town.meter("GAL", "3", interval(unit="gal", channel="E1"), commodity="water", removed=CUT)
    town.meter("M3", "3", interval(unit="m3", channel="E1"), commodity="water", installed=CUT)
    for day in DAYS:
        past = {DAYS[0]: 24, DAY: 14, DAYS[2]: 0}[day]
        if past:
            hours(town, day, {"GAL": (10_000_000, 0, past)}, "gal")
        if past < 24:
            hours(town, day, {"M3": (10_000, past, 24)}, "m3")
    town.run(*DAYS, issue=True)
    assert town.rows(
        "SELECT source_unit, source_quantity, other_unit, other_quantity, energy[1] FROM billing.determinant_day "
        "WHERE billing_day = %s",
        DAY,
    ) == [("m3", 100_000, "gal", 140_000_000, 529_958 + 100_000)]
    assert town.billed("3") == Decimal("0.908499") + Decimal("0.629958") + Decimal("0.24")
    exchanged = town.rows("SELECT unit, exchange FROM vee.daily_usage WHERE billing_day = %s ORDER BY 1", DAY)
    assert exchanged == [("gal", True), ("m3", True)]


def test_every_register_of_a_meter_hands_over_at_once(town: Town) -> None:
    """Two dials a meter, both billed: an overlap takes the old time off both of them."""
    town.service("1", "E")
    town.meter("OLD", "1", dial(), dial(channel="R2"), removed=CUT + timedelta(hours=2))
    town.meter("NEW", "1", dial(), dial(channel="R2"), installed=CUT)
    for channel in ("R1", "R2"):
        town.read("OLD", local(DAY), "100.000", channel)
        town.read("OLD", CUT + timedelta(hours=2), "116.000", channel)
        town.read("NEW", CUT, "0.000", channel)
        town.read("NEW", local(DAYS[2]), "10.000", channel)
    town.run(DAY)
    assert town.usage("1")[DAY] == 2 * (Decimal("14") + Decimal("10"))
