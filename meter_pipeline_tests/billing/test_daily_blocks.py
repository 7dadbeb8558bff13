"""Blocks that begin again each day."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing.bill_explanation import BillUse, explain_bill
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline_tests.billing.support import raw
from meter_pipeline_tests.billing.test_price_and_run import amounts, electricity, months

TIERS = [{"upto": 10, "rate": "0.10"}, {"rate": "0.30"}]
CHARGE: dict[str, Any] = {"kind": "usage", "code": "E", "name": "Energy", "restart": "day", "tiers": TIERS}
#: 16 kWh on the first day, 4 on the second: 10 + 4 at 0.10 and 6 at 0.30.
LOAD = [
    "interval_start,kwh",
    *(f"2018-01-0{d}T{h:02}:00:00,{use}" for d, use in ((1, 2), (2, "0.5")) for h in range(8)),
]


def test_what_one_day_leaves_of_a_block_is_no_other_day_s() -> None:
    assert months(electricity(CHARGE), LOAD, "energy") == amounts("3.20")


def test_all_of_a_day_at_the_block_it_reaches() -> None:
    assert months(electricity(CHARGE | {"allocation": "reached"}), LOAD, "energy") == amounts("5.20")


def test_periods_share_the_day_s_blocks() -> None:
    """Three quarters of the first day's 16 kWh are on-peak, and so are three quarters of each block."""
    on = [{"upto": 10, "rate": "0.20"}, {"rate": "0.40"}]
    hours = {"periods": ["off", "on"], "default": "off", "rules": [{"period": "on", "from": "02:00", "to": "24:00"}]}
    charge = {k: v for k, v in CHARGE.items() if k != "tiers"} | {"periods": {"off": TIERS, "on": on}}
    # First day: 2.5 and 7.5 in the first block, 1.5 and 4.5 beyond; second: 1 and 3 in the first.
    assert months(electricity(charge, time_of_use=hours), LOAD, "energy") == amounts(
        str(0.25 + 1.5 + 0.45 + 1.8 + 0.1 + 0.6)
    )


def test_water_by_the_day_needs_no_intervals() -> None:
    head = {"schema": "meter_pipeline.tariff/1", "tariff_id": "W", "name": "W", "commodity": "water", "currency": "USD"}
    rows = ["interval_start,kgal", *(f"2018-01-{d:02}T00:00:00,{12 if d == 1 else 1}" for d in range(1, 32))]
    # 12 on the first day: 10 and 2; one on each of thirty others.
    assert months(head | {"unit": "kgal", "charges": [CHARGE]}, rows, "energy") == amounts("4.60")


def test_explain_spreads_the_use_over_the_days() -> None:
    """310 kWh in 31 days fill the first block of every day; 341 leave one beyond it."""
    tariff = parse_tariff(raw(electricity(CHARGE)))
    use = BillUse(date(2026, 1, 1), energy={"all": Decimal(341)})
    assert [str(step.amount) for step in explain_bill(tariff, use)] == ["31", "9.3"]


@pytest.mark.parametrize(
    ("changes", "members", "field"),
    [
        ({"factor": "0.9"}, {}, "charges[0].factor"),
        ({"basis": "export"}, {"metering": "net_billing", "sell": {"rate": 0}}, "charges[0].basis"),
        ({"tiers": [{"upto": 5, "of": "daily", "rate": 1}, {"rate": 2}]}, {}, "charges[0].restart"),
        ({"tiers": [{"rate": 2}]}, {}, "charges[0].restart"),
        ({}, {"metering": "net_metering", "sell": {"rate": 0}}, "metering"),
        ({}, {"whole_units": 1}, "whole_units"),
    ],
)
def test_what_a_day_s_blocks_cannot_stand_beside(changes: dict[str, Any], members: dict[str, Any], field: str) -> None:
    with pytest.raises(TariffRefusedError) as refused:
        parse_tariff(raw(electricity(CHARGE | changes, **members)))
    assert refused.value.field == field
