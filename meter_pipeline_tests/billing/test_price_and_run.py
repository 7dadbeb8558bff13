"""`tariffs price` and a run are one computation: what published rates and bug reports of other calculators ask
of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing.load import read_load
from meter_pipeline.billing.rate_calculator import price
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline_tests.billing.support import raw

ALWAYS = [[0] * 24] * 12


def electricity(*charges: dict[str, Any], **members: Any) -> dict[str, Any]:
    head = {"schema": "meter_pipeline.tariff/1", "tariff_id": "T", "name": "T", "commodity": "electricity"}
    return head | {"currency": "USD", "unit": "kWh"} | members | {"charges": list(charges)}


def urdb(**members: Any) -> dict[str, Any]:
    document = {"label": "x", "name": "x", "energyratestructure": [[{"rate": 0.0, "unit": "kWh"}]]}
    return document | {"energyweekdayschedule": ALWAYS, "energyweekendschedule": ALWAYS} | members


def energy(rate: str, **members: Any) -> dict[str, Any]:
    return {"kind": "usage", "code": "E", "name": "Energy", "rate": rate} | members


def monthly(values: list[str], hours: int = 48) -> list[str]:
    """A load of some hours at the beginning of each month of 2018: one figure a month in every hour."""
    rows = ["interval_start,kwh"]
    for month, value in enumerate(values, start=1):
        first = datetime(2018, month, 1)  # noqa: DTZ001 - a load in wall-clock time
        rows += [f"{(first + timedelta(hours=h)).isoformat()},{value}" for h in range(hours)]
    return rows


def once(values: list[str]) -> list[str]:
    """Two hours a month, the first with the month's figure."""
    rows = ["interval_start,kwh"]
    for month, value in enumerate(values, start=1):
        rows += [f"2018-{month:02}-01T00:00:00,{value}", f"2018-{month:02}-01T01:00:00,0"]
    return rows


def months(document: dict[str, Any], rows: list[str], column: str, **given: Any) -> list[Decimal]:
    zone = given.pop("zone", None)
    found = price(parse_tariff(raw(document)), read_load(rows, zone), **given)
    return [row[column].quantize(Decimal("0.01")) for row in found["monthly"]]


def amounts(*texts: str) -> list[Decimal]:
    return [Decimal(t).quantize(Decimal("0.01")) for t in texts]


PEAKS = ["20", "20", "20", "20", "20", "50", "100", "80", "60", "20", "20", "70"]
FLAT = {"flatdemandunit": "kW", "flatdemandstructure": [[{"rate": 10}]], "flatdemandmonths": [0] * 12}


def test_a_look_back_of_some_months_beside_twelve_zeros() -> None:
    """The documented form of a rolling look-back: lookbackRange 3 and no month marked."""
    document = urdb(**FLAT, lookbackpercent=0.6, lookbackrange=3, lookbackmonths=[0] * 12)
    expected = amounts("200", "200", "200", "200", "200", "500", "1000", "800", "600", "600", "480", "700")
    assert months(document, monthly(PEAKS), "demand_flat") == expected


def test_marked_months_are_those_whose_peaks_count() -> None:
    """Half of the summer's peaks, from June to September, for the eleven months after."""
    marks = [m in (6, 7, 8, 9) for m in range(1, 13)]
    document = urdb(**FLAT, lookbackpercent=0.5, lookbackmonths=marks)
    found = months(document, monthly(["90", *PEAKS[1:]]), "demand_flat")
    assert found == amounts("900", "200", "200", "200", "200", "500", "1000", "800", "600", "500", "500", "700")


def test_each_charge_has_its_own_look_back() -> None:
    charges = [
        {"kind": "demand", "code": c, "name": c, "rate": rate, "ratchet": {"percent": 100, "months": n}}
        for c, rate, n in (("FAC", "5", 11), ("DIST", "3", 2))
    ]
    charges.append({"kind": "demand", "code": "DEM", "name": "Demand", "rate": "9"})
    found = months(electricity(*charges), monthly(PEAKS), "demand_flat")
    expected = amounts("340", "340", "340", "340", "340", "850", "1700", "1520", "1340", "920", "860", "1340")
    assert found == expected


def test_a_ratchet_may_name_its_source_months() -> None:
    ratchet = {"percent": [100] * 12, "months": 11, "sources": [6, 7, 8, 9]}
    charge = {"kind": "demand", "code": "D", "name": "D", "rate": "10", "ratchet": ratchet}
    found = months(electricity(charge), monthly(["90", *PEAKS[1:]]), "demand_flat")
    assert found == amounts("900", "200", "200", "200", "200", "500", "1000", "1000", "1000", "1000", "1000", "1000")


def test_amounts_by_the_year_and_by_the_day() -> None:
    rows = monthly(["10", "10"], 24)
    for unit, total in (("$/year", "32.33"), ("$/day", "124.00"), ("$/month", "124.00")):
        document = urdb(energyratestructure=[[{"rate": 0.1}]], fixedchargefirstmeter=100, fixedchargeunits=unit)
        assert months(document, rows, "total") == amounts(total, total), unit


def test_periods_with_different_numbers_of_demand_tiers_and_limits_written_out() -> None:
    peak = [[0] * 12 + [1] * 6 + [0] * 6] * 12
    structure = [[{"max": 10**38, "rate": 15}], [{"max": 100, "rate": 25}, {"max": 9.9999999999999998e37, "rate": 35}]]
    document = urdb(
        demandrateunit="kW", demandratestructure=structure, demandweekdayschedule=peak, demandweekendschedule=peak
    )
    rows = ["interval_start,kwh", *(f"2018-01-01T{h:02}:00:00,{130 if h == 13 else 40}" for h in range(24))]
    text = raw(document).replace(b"1e+38", b"1" + b"0" * 38)
    assert price(parse_tariff(text), read_load(rows))["monthly"][0]["demand_tou"] == 4150


def test_a_rate_of_sixteen_decimals_is_read_exactly() -> None:
    document = urdb(energyratestructure=[[{"rate": "0.0912000000000001"}]])
    assert months(document, monthly(["1"], 24), "energy") == amounts("2.19")


def test_blocks_of_kwh_before_blocks_of_hours_use() -> None:
    tiers = [{"rate": 0.11, "unit": "kWh", "max": 3000}, {"rate": 0.1, "unit": "kWh/kW", "max": 200}]
    tiers += [{"rate": 0.02, "unit": "kWh/kW", "max": 400}, {"rate": 0.015, "unit": "kWh/kW"}]
    found = months(urdb(energyratestructure=[tiers]), monthly(["30"], 744), "energy")
    assert found == amounts("904.80"), "3,000 at 0.11, to 6,000 at 0.10, to 12,000 at 0.02, 10,320 at 0.015"


def test_blocks_of_kwh_inside_hours_use() -> None:
    """The first 200 hours' use of 30 kW are 6,000 kWh: 3,000 at 0.11 and 3,000 at 0.10; the rest at 0.02."""
    within = {"upto": 200, "of": "per_kw"}
    tiers = [
        {"upto": 3000, "rate": "0.11", "within": within},
        {"upto": 200, "of": "per_kw", "rate": "0.10"},
        {"rate": "0.02"},
    ]
    charge = {"kind": "usage", "code": "E", "name": "E", "tiers": tiers}
    assert months(electricity(charge), monthly(["30"], 744), "energy") == amounts("956.40")
    # At 10 kW 200 hours are 2,000 kWh: the first block ends there.
    assert months(electricity(charge), monthly(["10"], 744), "energy") == amounts("328.80")


def test_hours_use_counts_the_billing_demand() -> None:
    """A peak of 100 kW in January, 60 % of it in February: 12,000 kWh at the first rate, although 20 kW were
    measured.
    """
    tiers = [{"rate": 0.1, "unit": "kWh/kW", "max": 200}, {"rate": 0.04, "unit": "kWh/kW"}]
    document = urdb(energyratestructure=[tiers], **FLAT, lookbackpercent=0.6, lookbackrange=11)
    rows = monthly(["20", "20"], 672)
    rows[1] = rows[1].rsplit(",", 1)[0] + ",100"
    assert months(document, rows, "energy")[1] == amounts("1257.60")[0]
    demand = {"kind": "demand", "code": "D", "name": "D", "rate": "1", "ratchet": {"percent": 60, "months": 11}}
    use = {
        "kind": "usage",
        "code": "E",
        "name": "E",
        "tiers": [{"upto": 200, "of": "per_kw", "rate": "0.1"}, {"rate": "0.04"}],
    }
    assert months(electricity(use, demand), rows, "energy")[1] == amounts("1257.60")[0]


ON_PEAK = {"period": "on", "days": "weekdays", "from": "14:00", "to": "20:00"}
TOU = {"periods": ["off", "on"], "default": "off", "rules": [ON_PEAK]}


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        ({}, "9.60"),
        ({"holidays": "us-federal"}, "9.60"),
        ({"holidays": {"names": ["labor"]}}, "10.80"),
        ({"holidays": {"dates": ["2018-07-04", "2018-07-05"]}}, "8.40"),
    ],
)
def test_holidays_are_off_peak(members: dict[str, Any], cost: str) -> None:
    """3 to 5 July 2018, Tuesday to Thursday, one kWh an hour: six hours of each working day at 0.30, the others at
    0.10.
    """
    charge = {"kind": "usage", "code": "E", "name": "E", "rates": {"off": "0.10", "on": "0.30"}}
    rows = ["interval_start,kwh", *(f"2018-07-0{d}T{h:02}:00:00,1" for d in (3, 4, 5) for h in range(24))]
    document = electricity(charge, time_of_use=TOU, **members)
    assert months(document, rows, "energy") == amounts(cost)
    said = price(parse_tariff(raw(document)), read_load(rows))["notes"]
    assert bool(said) == (not members), "a list that was assumed is told"


NET = ["300", "250", "-100", "-500", "-50", "-50", "100", "0", "0", "0", "250", "350"]


def test_credit_is_settled_in_the_true_up_month_and_starts_again() -> None:
    sell = {"rate": "0", "yearend_rate": "0.03", "trueup_month": 4}
    document = electricity(energy("0.12"), metering="net_metering", sell=sell)
    found = months(document, once(NET), "energy")
    # 600 kWh are paid in April; the 100 of May and June meet July's use.
    assert found == amounts("36", "30", "0", "-18", "0", "0", "0", "0", "0", "0", "30", "42")


def test_credit_left_over_may_be_forfeited() -> None:
    sell = {"rate": "0", "trueup_month": 4, "trueup": "forfeit"}
    document = electricity(energy("0.12"), metering="net_metering", sell=sell)
    assert sum(months(document, once(NET), "energy"), Decimal(0)) == Decimal("138.00")


def test_a_month_s_surplus_is_paid_and_nothing_is_carried() -> None:
    basic = {"kind": "fixed", "code": "B", "name": "B", "amount": "10.00"}
    paid = electricity(energy("0.12"), basic, metering="net_metering", sell={"rate": "0.035", "rollover": "none"})
    assert months(paid, once(["-300", "100"]), "total") == amounts("-0.50", "22.00")
    surplus = {"kind": "usage", "code": "X", "name": "X", "basis": "export", "rate": "-0.035", "component": "credit"}
    sell = {"rate": "0", "rollover": "none"}
    charged = electricity(energy("0.12"), basic, surplus, metering="net_metering", sell=sell)
    assert months(charged, once(["-300", "100"]), "total") == amounts("-0.50", "22.00")


@pytest.mark.parametrize(
    ("offsets", "totals"), [("energy", ("10.00", "10.00", "15.00")), ("bill", ("0.00", "0.00", "20.00"))]
)
def test_money_credits_pay_energy_or_the_bill(offsets: str, totals: tuple[str, str, str]) -> None:
    """300 kWh sent at 0.10 make 30.00: used for 24.00 of February's energy and 1.00 more, or for whole bills."""
    sell = {"rate": "0.10", "rollover": "money", "offsets": offsets}
    basic = {"kind": "fixed", "code": "B", "name": "B", "amount": "10.00"}
    document = electricity(energy("0.12"), basic, metering="net_metering", sell=sell)
    used = {"energy": ["-300", "200", "91.6666666667"], "bill": ["-300", "83.3333333333", "83.3333333333"]}[offsets]
    assert months(document, once(used), "total") == amounts(*totals)


def test_the_repeated_hour_is_two_windows() -> None:
    """25 hours at 20 kW on the day the clocks go back: seven of them at night, and a demand of 20 kW, not 40."""
    night = {
        "periods": ["day", "night"],
        "default": "day",
        "rules": [{"period": "night", "days": "all", "from": "00:00", "to": "06:00"}],
    }
    charges: list[dict[str, Any]] = [
        {"kind": "demand", "code": "D", "name": "D", "rate": "10"},
        {"kind": "usage", "code": "E", "name": "E", "rates": {"night": "0.05", "day": "0.25"}},
    ]
    document = electricity(*charges, demand_minutes=60, time_of_use=night)
    first = datetime.fromisoformat("2018-11-04T05:00:00+00:00")
    rows = ["interval_start,kwh", *(f"{(first + timedelta(minutes=15 * k)).isoformat()},5" for k in range(100))]
    assert months(document, rows, "demand_flat", zone="America/Chicago") == amounts("200")
    assert months(document, rows, "energy", zone="America/Chicago") == amounts("97.00")
    naive = [rows[0]]
    for row in rows[1:]:
        stamp, value = row.split(",")
        local = datetime.fromisoformat(stamp) - timedelta(hours=5 if stamp < "2018-11-04T07" else 6)
        naive.append(f"{local.replace(tzinfo=None).isoformat()},{value}")
    assert months(document, naive, "energy", zone="America/Chicago") == amounts("97.00"), "a wall clock's second hour"


def test_water_and_gas_and_what_a_service_has() -> None:
    water = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": "W",
        "name": "W",
        "commodity": "water",
        "currency": "USD",
        "unit": "kgal",
    }
    sizes = {"attribute": "meter_size", "values": {"5/8": "15.50", "1": "31.00"}}
    tiers = [{"upto": 2, "rate": "3.00"}, {"rate": "5.00"}]
    charges = [
        {"kind": "fixed", "code": "B", "name": "B", "by": sizes},
        {"kind": "usage", "code": "W", "name": "W", "tiers": tiers},
    ]
    rows = ["interval_start,gal", *(f"2018-06-{d:02}T00:00:00,100" for d in range(1, 31))]
    found = months(water | {"charges": charges}, rows, "total", attributes={"meter_size": "1"})
    assert found == amounts("42.00")
    with pytest.raises(TariffRefusedError, match="meter_size"):
        months(water | {"charges": charges}, rows, "total")
    gas = water | {
        "commodity": "gas",
        "unit": "therm",
        "heat_content": [{"from": "2018-01-01", "therms_per_ccf": "1.02"}],
        "charges": [energy("1.00")],
    }
    rows = ["interval_start,ccf", "2018-06-01T00:00:00,10", "2018-06-02T00:00:00,10"]
    assert months(gas, rows, "total") == amounts("20.40")
    late = gas | {"heat_content": [{"from": "2018-06-02", "therms_per_ccf": "1.02"}]}
    with pytest.raises(TariffRefusedError, match="heat_content"):
        months(late, rows, "total")


def test_a_demand_window_that_the_load_cannot_make_is_refused() -> None:
    rows = ["interval_start,kwh", *(f"2018-01-01T{h:02}:{m:02}:00,5" for h in range(24) for m in range(0, 60, 10))]
    charge = {"kind": "demand", "code": "D", "name": "D", "rate": "10"}
    with pytest.raises(TariffRefusedError) as refused:
        months(electricity(charge, demand_minutes=15), rows, "total")
    assert refused.value.field == "demand_minutes"


def test_all_usage_at_the_tier_reached() -> None:
    tiers = [{"upto": 100, "rate": "0.10"}, {"upto": 200, "rate": "0.20"}, {"rate": "0.30"}]
    charge = {"kind": "usage", "code": "E", "name": "E", "allocation": "reached", "tiers": tiers}
    assert months(electricity(charge), once(["100", "101", "200", "300"]), "energy") == amounts(
        "10", "20.20", "40", "90"
    )


def test_a_winter_average_is_a_volume_whatever_the_use() -> None:
    """Eight thousand gallons a month at 2.47 and 28.00: 47.76, in months of 30 and of 31 days."""
    water = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": "W",
        "name": "W",
        "commodity": "water",
        "currency": "USD",
        "unit": "kgal",
    }
    charges = [
        {"kind": "usage", "code": "WW", "name": "Sewer", "rate": "2.47", "basis": "winter_average"},
        {"kind": "fixed", "code": "B", "name": "B", "amount": "28.00"},
    ]
    rows = [
        "interval_start,gal",
        *(f"2018-{m:02}-{d:02}T00:00:00,400" for m, n in ((6, 30), (7, 31)) for d in range(1, n + 1)),
    ]
    found = months(water | {"charges": charges}, rows, "total", attributes={"winter_average_per_day": "0.262985"})
    assert found == amounts("47.76", "47.76")


def test_a_demand_may_have_several_ratchets() -> None:
    """Eighty percent of the summer's peaks for eleven months, or half of those of the three months before."""
    ratchets = [{"percent": 80, "months": 11, "sources": [6, 7, 8, 9]}, {"percent": 50, "months": 3}]
    charge = {"kind": "demand", "code": "D", "name": "D", "rate": "10", "ratchet": ratchets}
    found = months(electricity(charge), monthly(["90", *PEAKS[1:]]), "demand_flat")
    assert found == amounts("900", "450", "450", "450", "200", "500", "1000", "800", "800", "800", "800", "800")


def test_demand_by_the_day() -> None:
    """Peaks of 5, 7 and 2 kW on three days at 0.50 a kW and day."""
    charge = {"kind": "demand", "code": "D", "name": "D", "rate": "0.50", "per": "day"}
    rows = ["interval_start,kwh"]
    rows += [
        f"2018-01-0{d}T{h:02}:00:00,{peak if h == 9 else 1}" for d, peak in ((1, 5), (2, 7), (3, 2)) for h in range(24)
    ]
    assert months(electricity(charge), rows, "demand_flat") == amounts("7.00")


def test_demand_in_the_system_s_peak_hour() -> None:
    charge = {"kind": "demand", "code": "D", "name": "D", "rate": "10", "hours": ["2018-01-02T17:00"]}
    rows = ["interval_start,kwh", *(f"2018-01-0{d}T{h:02}:00:00,{d + h}" for d in (1, 2, 3) for h in range(24))]
    rows += [f"2018-02-01T{h:02}:00:00,9" for h in range(24)]
    assert months(electricity(charge), rows, "demand_flat") == amounts("190.00", "0.00")


def test_a_minimum_by_the_kw_of_billing_demand() -> None:
    demand = {"kind": "demand", "code": "D", "name": "D", "rate": "2", "ratchet": {"percent": 100, "months": 11}}
    least = {"kind": "minimum", "code": "M", "name": "M", "amount": "5", "per": "kw", "demand": "D", "of": ["E", "D"]}
    found = months(electricity(energy("0.10"), demand, least), once(["40", "10"]), "total")
    # 40 kW x 5 = 200 in both months, although the second measured 10.
    assert found == amounts("200.00", "200.00")


def test_a_tax_has_a_cap_and_a_largest_base() -> None:
    capped = {"kind": "tax", "code": "T", "name": "T", "percent": "10", "cap": "4.00"}
    based = {"kind": "tax", "code": "B", "name": "B", "percent": "10", "base_cap": "30.00", "of": ["E"]}
    found = months(electricity(energy("1.00"), capped, based), once(["20", "100"]), "tax")
    assert found == amounts("4.00", "7.00")


@pytest.mark.parametrize(("by", "expected"), [("service_date", "1.00"), ("bill_date", "7.00")])
def test_a_factor_by_the_day_of_service_or_of_the_bill(by: str, expected: str) -> None:
    rates = [{"from": "2018-01-01", "rate": "0.01"}, {"from": "2018-02-01", "rate": "0.07"}]
    fuel = {"kind": "rider", "code": "FUEL", "name": "Fuel", "dated": {"by": by, "rates": rates}}
    rows = ["interval_start,kwh", *(f"2018-01-{d:02}T{h:02}:00:00,0" for d in range(1, 32) for h in range(24))]
    rows[1] = "2018-01-01T00:00:00,100"
    assert months(electricity(fuel), rows, "energy") == amounts(expected), (
        "January's bill is dated the first of February"
    )


def test_whole_units_are_billed_and_the_rest_goes_on() -> None:
    """3,700, 3,700 and 3,700 gallons at 2.00 a thousand: 3, 4 and 4 of them, as the dial shows."""
    charges = [{"kind": "usage", "code": "W", "name": "W", "rate": "2.00"}]
    water = {
        "schema": "meter_pipeline.tariff/1",
        "tariff_id": "W",
        "name": "W",
        "commodity": "water",
        "currency": "USD",
    }
    document = water | {"unit": "kgal", "whole_units": 1, "charges": charges}
    rows = [
        "interval_start,gal",
        *(f"2018-0{m}-{d:02}T00:00:00,{370 if d < 11 else 0}" for m in (1, 2, 3) for d in range(1, 21)),
    ]
    assert months(document, rows, "total") == amounts("6.00", "8.00", "8.00")


def test_a_certificate_of_exemption_is_honoured() -> None:
    tax = {"kind": "tax", "code": "T", "name": "T", "percent": "10", "certificate": True}
    document = electricity(energy("1.00"), tax)
    assert months(document, once(["20", "0"]), "tax") == amounts("2.00", "0.00")
    assert months(document, once(["20", "0"]), "tax", attributes={"tax_exempt": "true"}) == amounts("0.00", "0.00")


@pytest.mark.parametrize(
    ("mode", "total"), [("half_up", "16.00"), ("down", "14.00"), ("up", "16.00"), ("half_even", "16.00")]
)
def test_a_bill_s_use_is_rounded_to_whole_units(mode: str, total: str) -> None:
    """7,500 gallons at 2.00 a thousand: 8 thousands, or 7, and nothing goes on to the next bill."""
    head = {"schema": "meter_pipeline.tariff/1", "tariff_id": "W", "name": "W", "commodity": "water", "currency": "USD"}
    charges = [{"kind": "usage", "code": "W", "name": "W", "rate": "2.00"}]
    document = head | {"unit": "kgal", "whole_units": {"step": 1, "mode": mode}, "charges": charges}
    rows = [
        "interval_start,gal",
        *(f"2018-0{m}-{d:02}T00:00:00,250" for m in (1, 2) for d in range(1, 31) if m == 1 or d < 3),
    ]
    assert months(document, rows, "total") == amounts(
        total, "2.00" if mode == "up" else "0.00" if mode != "half_up" else "2.00"
    )


def test_a_percentage_by_date_is_a_drought_surcharge_by_stage() -> None:
    """15 % from 10 January, 30 % from the 21st, on water of 1.00 a day."""
    stages = [{"from": "2018-01-10", "percent": 15}, {"from": "2018-01-21", "percent": 30}]
    surcharge = {"kind": "rider", "code": "DROUGHT", "name": "Drought stage", "of": ["E"]}
    document = electricity(energy("1.00"), surcharge | {"dated": {"by": "service_date", "percents": stages}})
    tariff = parse_tariff(raw(document))
    assert [day.isoformat() for day in sorted(tariff.rate_days)] == ["0001-01-01", "2018-01-10", "2018-01-21"]
    by_bill = electricity(energy("1.00"), surcharge | {"dated": {"by": "bill_date", "percents": stages}})
    rows = [
        "interval_start,kwh",
        *(f"2018-01-{d:02}T{h:02}:00:00,{20 if d + h == 1 else 0}" for d in range(1, 32) for h in (0, 1)),
    ]
    # January's bill is dated the first of February.
    assert months(by_bill, rows, "total") == amounts("26.00")


def test_a_published_demand_in_kva_is_priced_from_kvarh() -> None:
    """30 kW and 40 kVAr are 50 kVA at 10."""
    document = urdb(**FLAT | {"flatdemandunit": "kVA"})
    rows = ["interval_start,kwh,kvarh", "2018-01-01T00:00:00,30,40", "2018-01-01T01:00:00,45,0"]
    assert months(document, rows, "demand_flat") == amounts("500.00")
    with pytest.raises(TariffRefusedError, match="flatdemandunit"):
        months(document, once(["20"]), "demand_flat")


@pytest.mark.parametrize("name", ["fixedattrs", "fixedkeyvals", "energyattributes"])
def test_a_publisher_s_own_words_are_named(name: str) -> None:
    tariff = parse_tariff(raw(urdb(**{name: [{"Account charge ($/month)": "3"}]})))
    [note] = tariff.notes
    assert "Account charge" in note
    assert parse_tariff(raw(urdb(**{name: []}))).notes == ()
