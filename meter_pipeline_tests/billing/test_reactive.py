"""kVA, kVAr, kVArh and power factor: demand and surcharges worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline_tests.billing.support import raw
from meter_pipeline_tests.billing.test_price_and_run import electricity, energy

DEMAND = {"kind": "demand", "code": "D", "name": "Demand", "rate": "10"}


def load(*rows: tuple[str, str]) -> list[str]:
    """Hours of 1 January 2018, kWh and kVArh."""
    return [
        "interval_start,kwh,kvarh",
        *(f"2018-01-01T{h:02}:00:00,{kwh},{kvarh}" for h, (kwh, kvarh) in enumerate(rows)),
    ]


def bill(*charges: dict[str, Any], rows: list[str], **members: Any) -> dict[str, str]:
    found = price(parse_tariff(raw(electricity(*charges, **members))), read_load(rows))
    return {line["line"].split("/")[0]: str(line["amount"].quantize(Decimal("0.01"))) for line in found["lines"]}


def test_kva_demand_is_the_highest_of_one_window() -> None:
    """30 kW with 40 kVAr are 50 kVA; the hour of 45 kW and no kVAr has 45."""
    rows = load(("30", "40"), ("45", "0"), ("1", "1"))
    assert bill(DEMAND | {"measure": "kva"}, rows=rows)["D"] == "500.00"


def test_kva_of_half_hours_made_of_quarter_hours() -> None:
    """Two quarter-hours of 3 kWh and 4 kVArh are 12 kW, 16 kVAr and 20 kVA in their half-hour."""
    rows = [
        "interval_start,kwh,kvarh",
        *(f"2018-01-01T00:{m:02}:00,{k},{v}" for m, k, v in ((0, 2, 3), (15, 4, 5), (30, 1, 1), (45, 0, 0))),
    ]
    assert bill(DEMAND | {"measure": "kva"}, rows=rows, demand_minutes=30)["D"] == "200.00"


def test_kvar_above_half_of_the_kw() -> None:
    """60 kVAr above half of 80 kW: 20 kVAr at 10."""
    charge = DEMAND | {"measure": "kvar", "above": {"percent": 50}}
    assert bill(charge, rows=load(("80", "10"), ("20", "60")))["D"] == "200.00"


def test_demand_is_at_least_nine_tenths_of_the_kva() -> None:
    charge = DEMAND | {"at_least": {"percent": 90, "measure": "kva"}}
    assert bill(charge, rows=load(("30", "40"), ("40", "0")))["D"] == "450.00"


@pytest.mark.parametrize(
    ("rule", "demand"),
    [
        # 600 kWh with 800 kVArh: power factor 0.60. 300 kW x 0.90 / 0.60 = 450 kW.
        ({"target": "0.90"}, "4500.00"),
        # 30 hundredths below 0.90, 1 % of the demand each: 300 x 1.30 = 390 kW.
        ({"target": "0.90", "rule": "points", "percent": 1}, "3900.00"),
        ({"target": "0.60"}, "3000.00"),
    ],
)
def test_demand_is_raised_for_a_low_power_factor(rule: dict[str, Any], demand: str) -> None:
    rows = load(("300", "400"), ("300", "400"))
    assert bill(DEMAND | {"power_factor": rule}, rows=rows)["D"] == demand


def test_a_power_factor_is_rounded_as_the_tariff_says() -> None:
    """100 kWh and 75.88 kVArh: 0.7966; whole hundredths make it 0.80. 100 kW x 0.90 / 0.80 = 112.50 kW."""
    rows = load(("100", "75.88"), ("0", "0"))
    assert bill(DEMAND | {"power_factor": {"target": "0.90", "places": 2}}, rows=rows)["D"] == "1125.00"


def test_a_surcharge_of_half_a_percent_for_each_hundredth() -> None:
    """Power factor 0.60: 30 hundredths x 0.5 % of 60.00 of energy."""
    surcharge: dict[str, Any] = {"kind": "rider", "code": "PF", "name": "Power factor", "of": ["E"]}
    surcharge |= {"power_factor": {"target": "0.90", "rule": "points", "percent": "0.5"}}
    rows = load(("300", "400"), ("300", "400"))
    assert bill(energy("0.10"), surcharge, rows=rows)["PF"] == "9.00"


def test_kvarh_above_a_third_of_the_kwh() -> None:
    """800 kVArh above 40 % of 600 kWh: 560 at 0.02."""
    charge = {
        "kind": "usage",
        "code": "Q",
        "name": "Reactive",
        "basis": "reactive",
        "rate": "0.02",
        "above_percent": 40,
    }
    found = price(parse_tariff(raw(electricity(charge))), read_load(load(("300", "400"), ("300", "400"))))
    assert found["annual"]["energy"] == Decimal("11.2")
    [line] = found["lines"]
    assert line["line"] == "Q/all/1"


def test_a_ratchet_of_kva() -> None:
    """January 50 kVA; February 10, billed at 80 % of January's."""
    rows = [*load(("30", "40"), ("1", "0")), "2018-02-01T00:00:00,10,0", "2018-02-01T01:00:00,0,0"]
    charge = DEMAND | {"measure": "kva", "ratchet": {"percent": 80, "months": 11}}
    found = price(parse_tariff(raw(electricity(charge))), read_load(rows))
    assert [m["demand_flat"] for m in found["monthly"]] == [Decimal(500), Decimal(400)]


def test_a_load_without_kvarh_is_refused() -> None:
    with pytest.raises(TariffRefusedError, match="no kVArh intervals"):
        bill(DEMAND | {"measure": "kva"}, rows=["interval_start,kwh", "2018-01-01T00:00:00,1", "2018-01-01T01:00:00,1"])


@pytest.mark.parametrize(
    ("charge", "field"),
    [
        (DEMAND | {"above": {"percent": 50}}, "charges[0].above"),
        (DEMAND | {"measure": "kvar", "power_factor": {"target": "0.9"}}, "charges[0].power_factor"),
        (DEMAND | {"power_factor": {"target": 90}}, "charges[0].power_factor.target"),
        (DEMAND | {"power_factor": {"target": "0.9", "percent": 1}}, "charges[0].power_factor.percent"),
        (DEMAND | {"at_least": {"percent": 90, "measure": "kw"}}, "charges[0].at_least.measure"),
        (DEMAND | {"measure": "kva", "per": "day", "above": {"percent": 50}}, "charges[0].above"),
        (energy("0.1", above_percent=10), "charges[0].above_percent"),
        (energy("0.1", basis="reactive", factor="0.9"), "charges[0].factor"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(charge: dict[str, Any], field: str) -> None:
    with pytest.raises(TariffRefusedError) as refused:
        parse_tariff(raw(electricity(charge)))
    assert refused.value.field == field
