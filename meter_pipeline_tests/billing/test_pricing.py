"""Prices promise: exact whole numbers whatever the magnitudes, a period that may be cut anywhere, tiers that are exact
to the last unit."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter_pipeline.billing.bill_position import PeriodPosition
from meter_pipeline.billing.fixed_point import product, quotient, shared, shared_quotient
from meter_pipeline.billing.pricing import amounts, priced
from meter_pipeline.billing.tariffs import parse_tariff
from meter_pipeline_tests.billing.support import native, raw

MICRO = 10**6
TIERED = parse_tariff(
    raw(
        native(
            charges=[
                {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "12.37"},
                {
                    "kind": "usage",
                    "code": "ENERGY",
                    "name": "Energy",
                    "periods": {
                        "off-peak": [
                            {"upto": 300, "rate": "0.0812"},
                            {"upto": 900, "rate": "0.1131"},
                            {"rate": "0.1999"},
                        ],
                        "peak": [{"upto": 300, "rate": "0.1812"}, {"upto": 900, "rate": "0.2131"}, {"rate": "0.2999"}],
                    },
                },
                {"kind": "tax", "code": "TAX", "name": "Tax", "percent": "8.875"},
            ]
        )
    )
)


def at(energy: list[list[int]], days: int, period_days: int = 30, first_day: int = 0, **more: Any) -> PeriodPosition:
    n = len(energy)
    return PeriodPosition(
        energy=np.array(energy, np.int64),
        days=np.full(n, days, np.int64),
        period_days=np.full(n, period_days, np.int64),
        first_day=np.full(n, first_day, np.int64),
        attributes={"customer_class": np.array(["residential"] * n, dtype=object)},
        **more,
    )


use = st.integers(0, 4_000_000_000)


@given(st.lists(st.tuples(use, use), min_size=2, max_size=12))
def test_days_add_up_to_the_period_wherever_it_is_cut(daily: list[tuple[int, int]]) -> None:
    running, lines = [0, 0], np.zeros(len(TIERED.lines), np.int64)
    n = len(daily)
    for day, (off_peak, peak) in enumerate(daily, start=1):
        before = at([list(running)], day - 1, n)
        running[0] += off_peak
        running[1] += peak
        lines += (amounts(TIERED, at([list(running)], day, n)) - amounts(TIERED, before))[0]
    assert (lines == amounts(TIERED, at([running], n, n))[0]).all()


@given(use, use, st.integers(1, 30))
def test_tiers_hold_all_of_the_usage_and_their_money_is_right(off_peak: int, peak: int, days: int) -> None:
    position = at([[off_peak, peak]], days)
    money, used = priced(TIERED, position, closing=False)
    keys = [line.key for line in TIERED.lines]
    whole = off_peak + peak
    for name, quantity, rates in (
        ("off-peak", off_peak, ("0.0812", "0.1131", "0.1999")),
        ("peak", peak, ("0.1812", "0.2131", "0.2999")),
    ):
        lower = 0
        for tier, (limit, rate) in enumerate(zip((300, 900, None), rates, strict=True), start=1):
            upper = whole if limit is None else min(whole, limit * MICRO * days // 30)
            share = Fraction(quantity * (upper - lower), whole) if whole else Fraction(0)
            exact = share * Fraction(rate) / MICRO
            cents = (Decimal(exact.numerator) / Decimal(exact.denominator) * 100).quantize(Decimal(1), ROUND_HALF_UP)
            k = keys.index(f"ENERGY/{name}/{tier}")
            assert money[0, k] == int(cents) * 10_000
            column = used[k]
            assert column is not None
            assert abs(int(column[0]) - share) <= Fraction(1, 2)
            lower = upper


@given(st.integers(0, 30))
def test_a_fixed_charge_is_whole_however_a_period_is_shared(cut: int) -> None:
    first, second = at([[0, 0]], cut), at([[0, 0]], 30 - cut, first_day=cut)
    assert amounts(TIERED, first)[0, 0] + amounts(TIERED, second)[0, 0] == 12_370_000


@given(
    st.lists(st.integers(-(10**25), 10**25), min_size=1, max_size=5),
    st.integers(1, 10**14),
    st.sampled_from(["half_up", "half_even"]),
)
def test_quotients_are_exact_beyond_machine_words_and_symmetric(numbers: list[int], divisor: int, mode: str) -> None:
    column = np.array(numbers, dtype=object)
    found = quotient(column, divisor, mode)
    rule = ROUND_HALF_UP if mode == "half_up" else ROUND_HALF_EVEN
    from decimal import Context, localcontext

    with localcontext(Context(prec=60)):
        assert [int(x) for x in found] == [int((Decimal(n) / divisor).quantize(Decimal(1), rule)) for n in numbers]
    assert [int(x) for x in quotient(-column, divisor, mode)] == [-int(x) for x in found]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=4), st.integers(-(2**40), 2**40))
def test_products_never_overflow(numbers: list[int], factor: int) -> None:
    assert [int(x) for x in product(np.array(numbers, np.int64), factor)] == [n * factor for n in numbers]


@given(
    st.lists(
        st.tuples(st.integers(0, 2**49 - 1), st.integers(1, 2**49 - 1), st.integers(0, 2**60)), min_size=1, max_size=5
    ),
    st.integers(-(10**7), 10**7),
    st.sampled_from([1, 2, 3, 10, 5, 10**6, 10**9]),
    st.sampled_from(["half_up", "half_even", "up", "down"]),
    st.sampled_from([1, 2**20]),
)
def test_a_share_of_a_share_is_rounded_once_and_exactly(
    rows: list[tuple[int, int, int]], factor: int, divisor: int, mode: str, wide: int
) -> None:
    amount, whole = np.array([a * wide for a, _, _ in rows], object), np.array([w * wide for _, w, _ in rows], object)
    part = np.array([p % (w * wide + 1) for _, w, p in rows], object)
    a, p, w = (c.astype(np.int64) if max(c) < 2**62 else c for c in (amount, part, whole))
    found, rest = shared(a, p, w)
    assert [(int(q), int(r)) for q, r in zip(found, rest, strict=True)] == [
        divmod(one * share, of) for one, share, of in zip(amount, part, whole, strict=True)
    ]
    expected = quotient(amount * part * factor, whole * divisor, mode)
    assert [int(x) for x in shared_quotient(a, p, w, factor, divisor, mode)] == [int(x) for x in expected]


def test_a_minimum_is_a_top_up_and_is_taxed() -> None:
    tariff = parse_tariff(raw(native()))
    closed = amounts(tariff, at([[0, 0]], 30), closing=True)[0]
    assert dict(zip([line.key for line in tariff.lines], (int(c) for c in closed), strict=True)) == {
        "BASIC": 12_500_000,
        "ENERGY/off-peak/1": 0,
        "ENERGY/peak/1": 0,
        "FUEL/off-peak/1": 0,
        "FUEL/peak/1": 0,
        "MIN": 2_500_000,
        "TAX": 940_000,
    }


def test_water_differs_by_meter_size_and_sewer_by_the_winter_average() -> None:
    water = native(
        "W",
        commodity="water",
        unit="kgal",
        charges=[
            {
                "kind": "usage",
                "code": "WATER",
                "name": "Water",
                "by": {
                    "attribute": "meter_size",
                    "values": {"5/8": {"tiers": [{"upto": 5, "rate": 2}, {"rate": 4}]}, "*": {"rate": 3}},
                },
            },
            {"kind": "usage", "code": "SEWER", "name": "Sewer", "rate": 5, "basis": "winter_average_cap"},
            {
                "kind": "usage",
                "code": "DROUGHT",
                "name": "Over budget",
                "tiers": [{"upto": 1, "of": "budget", "rate": 0}, {"rate": 7}],
            },
        ],
    )
    del water["time_of_use"]
    tariff = parse_tariff(raw(water))
    position = PeriodPosition(
        energy=np.array([[8 * MICRO], [8 * MICRO]], np.int64),
        days=np.array([30, 30]),
        period_days=np.array([30, 30]),
        budget=np.array([6 * MICRO, 9 * MICRO]),
        winter_average=np.array([MICRO // 10, MICRO]),
        attributes={"meter_size": np.array(["5/8", "2"], dtype=object)},
    )
    cost = amounts(tariff, position)
    keys = [line.key for line in tariff.lines]
    assert dict(zip(keys, cost[0].tolist(), strict=True)) == {
        "WATER/all/1": 10_000_000,
        "WATER/all/2": 12_000_000,
        "SEWER/all/1": 15_000_000,
        "DROUGHT/all/1": 0,
        "DROUGHT/all/2": 14_000_000,
    }
    assert cost[1].tolist() == [24_000_000, 0, 40_000_000, 0, 0]


def test_a_published_tariff_without_a_rounding_rule_is_billed_in_cents() -> None:
    tariff = parse_tariff(
        raw({"name": "flat", "energyratestructure": [[{"rate": 0.123457}]], "fixedchargefirstmeter": 10})
    )
    cost = amounts(tariff, at([[1_234_567]], 7))
    assert (cost % 10_000 == 0).all()
    exact = amounts(tariff, at([[1_234_567]], 7), exact=True)
    assert exact[0, 0] == 1_234_567 * 123_457
