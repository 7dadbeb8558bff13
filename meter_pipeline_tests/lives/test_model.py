"""The model of what an account owes, on bills worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from meter_pipeline_tests.lives.life import CYCLES, Life
from meter_pipeline_tests.lives.model import Agreement, IntervalMeter, Rates, RegisterMeter, World, owes

FLAT = (Rates(Decimal("30.00"), ((None, Decimal("1.00")),)),)
TIERS = (Rates(Decimal("15.00"), ((Decimal("30"), Decimal("1.00")), (None, Decimal("2.00")))),)


def world(**changes: object) -> World:
    hours = {h: Decimal("0.5") for h in range(144)}
    plain = World(
        [IntervalMeter(0, 144, "kWh", hours)],
        [Agreement("A", "T", "C1", -1000, None)],
        {"T": FLAT},
        {"C1": ((0, 3), (3, 6))},
        "kWh",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_period_is_its_fixed_amount_and_its_usage() -> None:
    assert owes(world(), 6) == {("A", "C1", 0): Decimal("66.00"), ("A", "C1", 3): Decimal("66.00")}


def test_a_move_shares_the_fixed_amount_by_days() -> None:
    moved = world(agreements=[Agreement("A", "T", "C1", -1000, 1), Agreement("B", "T", "C1", 1, None)])
    assert owes(moved, 3) == {("A", "C1", 0): Decimal("22.00"), ("B", "C1", 0): Decimal("44.00")}


def test_tiers_are_earned_day_by_day() -> None:
    assert owes(world(tariffs={"T": TIERS}), 3) == {("A", "C1", 0): Decimal("57.00")}, "15.00 + 30 at 1.00 + 6 at 2.00"
    part = world(tariffs={"T": TIERS}, agreements=[Agreement("A", "T", "C1", 2, None)])
    assert owes(part, 3) == {("A", "C1", 0): Decimal("19.00")}, "5.00 + 10 at 1.00 + 2 at 2.00"


def test_a_minimum_tops_up() -> None:
    least = (Rates(Decimal(0), ((None, Decimal("1.00")),), Decimal("60.00")),)
    assert owes(world(tariffs={"T": least}), 3) == {("A", "C1", 0): Decimal("60.00")}


def test_a_new_version_is_priced_from_its_first_day() -> None:
    versions = (*FLAT, Rates(Decimal("30.00"), ((None, Decimal("2.00")),), first_day=2))
    assert owes(world(tariffs={"T": versions}), 3) == {("A", "C1", 0): Decimal("78.00")}, (
        "30.00 + 24 at 1.00 + 12 at 2.00"
    )


def test_a_register_and_gallons() -> None:
    dials = [(0, Decimal(0)), (36, Decimal(1440))]
    meters = [
        RegisterMeter(0, 36, "gal", dials),
        RegisterMeter(36, 144, "m3", [(36, Decimal(0)), (144, Decimal("16.2"))]),
    ]
    bills = owes(world(meters=meters, unit="m3"), 3)
    assert bills == {("A", "C1", 0): Decimal("40.85")}, (
        "1,440 gal are 5.450993 m3, a day and a half at 0.15 m3 an hour 5.4"
    )


def test_a_life_tells_the_product_what_is_true() -> None:
    life = Life(3, "interval", ("late_read", "exchange_kind", "move"))
    first = life.begin()
    assert {r[3].day for r in first.reads} == {30, 31, 1, 2} - {2} | {2}, "local days are later than UTC's"
    assert len(first.reads) == 48, "the second day is missing"
    assert len(life.happen("late_read").reads) == 24
    exchanged = life.happen("exchange_kind")
    assert [r[4] for r in exchanged.reads] == ["72"], "the new register's read at the end of the first period"
    assert [i["removed_at"] is None for i in exchanged.rows["installations"]] == [False, True]
    assert [a["account_id"] for a in life.happen("move").rows["agreements"]] == ["A-00003", "B-00003"]
    assert set(CYCLES) == {"C1", "C2"}
