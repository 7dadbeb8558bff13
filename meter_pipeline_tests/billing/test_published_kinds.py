"""Kinds of charges that US utilities publish, each billed by hand: steps of a customer charge, contracted and rounded
demand, credits for a high power factor, discounts by class, called peaks, factors that change inside a month.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing.bill_explanation import BillUse, explain_bill
from meter_pipeline.billing.tariffs import TariffRefusedError, parse_tariff
from meter_pipeline_tests.billing.support import raw
from meter_pipeline_tests.billing.test_price_and_run import amounts, electricity, energy, months, urdb

DEMAND = {"kind": "demand", "code": "D", "name": "D", "rate": "10"}
TOU = {
    "periods": ["off", "peak"],
    "default": "off",
    "rules": [{"period": "peak", "dates": ["2026-07-08", "2026-07-20"], "from": "16:00", "to": "21:00"}],
}


def hourly(values: list[str], start: str = "2026-01-01", reactive: str | None = None) -> list[str]:
    first = datetime.fromisoformat(start)
    rows = ["interval_start,kwh" + (",kvarh" if reactive is not None else "")]
    for hour, value in enumerate(values):
        stamp = (first + timedelta(hours=hour)).isoformat()
        rows.append(f"{stamp},{value}" + (f",{reactive}" if reactive is not None else ""))
    return rows


def daily(value: str, start: str = "2026-01-01", days: int = 31) -> list[str]:
    first = datetime.fromisoformat(start)
    return ["interval_start,kwh", *(f"{(first + timedelta(days=d)).isoformat()},{value}" for d in range(days))]


@pytest.mark.parametrize(("kwh", "owed"), [("5", "20.50"), ("20", "72.00"), ("40", "144.00")])
def test_a_customer_charge_by_steps_of_use(kwh: str, owed: str) -> None:
    """5.00 up to 200 kWh a month, 10.00 up to 700, 20.00 above, as cooperatives publish it; 0.10 a kWh."""
    steps = [{"upto": 200, "amount": "5"}, {"upto": 700, "amount": "10"}, {"amount": "20"}]
    fixed = {"kind": "fixed", "code": "CC", "name": "Customer charge", "steps": steps}
    assert months(electricity(fixed, energy("0.10")), daily(kwh), "total") == amounts(owed)


def test_a_customer_charge_by_steps_of_demand() -> None:
    steps = [{"upto": 50, "amount": "5"}, {"amount": "75"}]
    fixed = {"kind": "fixed", "code": "CC", "name": "Customer charge", "demand": "D", "steps": steps}
    rows = hourly(["49.9"] * 744), hourly(["20"] * 700 + ["50.1"] * 44)
    assert [months(electricity(DEMAND, fixed), load, "fixed") for load in rows] == [amounts("5"), amounts("75")]


def test_demand_is_billed_in_whole_kilowatts() -> None:
    for mode, owed in (("half_up", "260"), ("down", "250"), ("up", "260")):
        document = electricity(DEMAND | {"whole": {"step": 1, "mode": mode}})
        assert months(document, hourly(["25.5"] * 744), "demand_flat") == amounts(owed)
    tenths = electricity(DEMAND | {"whole": {"step": "0.1"}})
    assert months(tenths, hourly(["25.54"] * 744), "demand_flat") == amounts("255")


def test_demand_is_at_least_a_share_of_what_was_contracted() -> None:
    document = electricity(DEMAND | {"contract": {"percent": 75}})
    for kw, owed in (("20", "750"), ("90", "900")):
        found = months(document, hourly([kw] * 744), "demand_flat", attributes={"contract_kw": "100"})
        assert found == amounts(owed)
    with pytest.raises(TariffRefusedError, match="contract_kw"):
        months(document, hourly(["20"] * 744), "demand_flat")


def test_hours_use_counts_every_ratchet_and_the_contract() -> None:
    """10 kW measured, 60 % of 100 kW contracted: the first 200 hours' use are 12,000 kWh, more than was used."""
    tiers = [{"upto": 200, "of": "per_kw", "rate": "0.10"}, {"rate": "0.02"}]
    blocks = {"kind": "usage", "code": "E", "name": "E", "tiers": tiers}
    rows = hourly(["10"] * 744)
    contracted = electricity(blocks, DEMAND | {"rate": "0", "contract": {"percent": 60}})
    assert months(contracted, rows, "energy", attributes={"contract_kw": "100"}) == amounts("744")
    assert months(electricity(blocks, DEMAND | {"rate": "0"}), rows, "energy") == amounts("308.80")
    ratchets = [{"percent": 50, "months": 1}, {"percent": 10, "months": 11, "floor": 60}]
    assert months(electricity(blocks, DEMAND | {"rate": "0", "ratchet": ratchets}), rows, "energy") == amounts("744")


def test_a_high_power_factor_earns_a_credit_where_the_tariff_says_so() -> None:
    """One percent for each hundredth above and below 0.85, as California's large tariffs have it."""
    rule = {"target": "0.85", "rule": "points", "percent": 1}
    for credit, reactive, owed in ((True, "0", "85"), (False, "0", "100"), (True, "10", "114.29")):
        rider = {"kind": "rider", "code": "PF", "name": "PF", "of": ["D"], "power_factor": rule | {"credit": credit}}
        assert months(electricity(DEMAND, rider), hourly(["10"] * 744, reactive=reactive), "total") == amounts(owed)


def test_a_discount_by_class_and_one_with_a_cap() -> None:
    by = {"attribute": "customer_class", "values": {"low-income": "-35", "*": 0}}
    discount = {"kind": "rider", "code": "CARE", "name": "CARE", "of": ["E"]}
    document = electricity(energy("0.30"), discount | {"by": by})
    for name, owed in (("low-income", "120.90"), ("residential", "186.00")):
        assert months(document, daily("20"), "total", attributes={"customer_class": name}) == amounts(owed)
    capped = electricity(energy("0.30"), discount | {"percent": "-35", "cap": "20"})
    assert months(capped, daily("20"), "total") == amounts("166.00")


def test_a_charge_for_each_kilowatt_of_solar() -> None:
    fixed = {"kind": "fixed", "code": "GRID", "name": "Grid access", "amount": "5.41", "times": "solar_kw"}
    assert months(electricity(fixed), daily("1"), "fixed", attributes={"solar_kw": "6.4"}) == amounts("34.62")


def test_peaks_that_were_called() -> None:
    """Five hours at 1.00 on a called day, all others at 0.10."""
    priced = {"kind": "usage", "code": "E", "name": "E", "rates": {"off": "0.10", "peak": "1.00"}}
    document = electricity(priced, time_of_use=TOU)
    assert months(document, hourly(["1"] * 48, "2026-07-08"), "energy") == amounts("9.30")
    with pytest.raises(TariffRefusedError, match="made of dates alone"):
        parse_tariff(raw(electricity(DEMAND | {"period": "peak"}, time_of_use=TOU)))
    mixed = {"period": "peak", "dates": ["2026-07-08"], "days": "weekdays"}
    with pytest.raises(TariffRefusedError, match="names its own days"):
        parse_tariff(raw(electricity(DEMAND, time_of_use=TOU | {"rules": [mixed]})))


@pytest.mark.parametrize(
    ("days", "peaks", "owed"),
    [
        (3, {3: "10", 4: "10", 9: "7", 20: "8", 25: "3"}, "56"),
        (2, {1: "9", 2: "6", 30: "7", 31: "8"}, "51"),
        (3, {31: "9", 30: "9", 29: "9"}, "54"),
    ],
)
def test_the_average_of_the_highest_days(days: int, peaks: dict[int, str], owed: str) -> None:
    """Several hours of one day count as one: 6.00 a kW of the average of the highest peaks of different days."""
    first = datetime(2026, 1, 1)  # noqa: DTZ001 - wall-clock time
    moments = [first + timedelta(hours=k) for k in range(744)]
    load = [peaks.get(m.day, "2") if m.hour in (11, 12) else "1" for m in moments]
    charge = DEMAND | {"rate": "6", "highest_days": days}
    assert months(electricity(charge), hourly(load), "demand_flat") == amounts(owed)


def test_a_bill_of_fewer_days_averages_those_it_has() -> None:
    charge = electricity(DEMAND | {"rate": "6", "highest_days": 5}, proration={"demand": "none"})
    assert months(charge, hourly(["4"] * 24 + ["7"] * 24), "demand_flat") == amounts("33")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ratchet": {"percent": 80, "months": 11}}, "ratchet: cannot stand beside highest_days"),
        ({"per": "day"}, "per: is day"),
        ({"highest_days": 1}, "highest_days: must be a whole number from 2 to 10"),
    ],
)
def test_highest_days_beside_what_is_for_one_peak(more: dict[str, Any], says: str) -> None:
    with pytest.raises(TariffRefusedError, match=says):
        parse_tariff(raw(electricity(DEMAND | {"highest_days": 3} | more)))


@pytest.mark.parametrize("last", [{}, {"unit": "kWh daily"}])
def test_the_block_above_the_last_limit_of_a_urdb_rate_needs_no_unit(last: dict[str, Any]) -> None:
    """Ten kWh of each day at 0.10, the other ten at 0.30: 31 days. Without a unit it was taken for one of the month."""
    rate = urdb(energyratestructure=[[{"rate": 0.1, "max": 10, "unit": "kWh daily"}, {"rate": 0.3} | last]])
    assert months(rate, daily("20"), "energy") == amounts("124")
    bounded = urdb(
        energyratestructure=[[{"rate": 0.1, "max": 10, "unit": "kWh daily"}, {"rate": 0.3, "max": 20}, {"rate": 1}]]
    )
    with pytest.raises(TariffRefusedError, match="daily limits can't stand among limits of the period"):
        parse_tariff(raw(bounded))


def test_a_urdb_rate_of_daily_demand_charges_every_day_s_peak() -> None:
    """``demandrateunit`` of "kW daily", as in standby rates: 31 days of 1, 2 or 3 kW at 5.00."""
    rate = urdb(demandrateunit="kW daily", demandratestructure=[[{"rate": 5}]])
    rate |= {"demandweekdayschedule": [[0] * 24] * 12, "demandweekendschedule": [[0] * 24] * 12}
    load = [str(1 + day % 3) for day in range(1, 32) for _ in range(24)]
    assert months(rate, hourly(load), "demand_tou") == amounts("310")


@pytest.mark.parametrize(
    ("offsets", "owed"), [("energy", ("5", "20")), ("above_minimum", ("8", "17")), ("bill", ("0", "25"))]
)
def test_what_money_credit_may_pay_of_a_bill_with_a_minimum(offsets: str, owed: tuple[str, str]) -> None:
    """January takes 372 kWh and sends 1,116, which earn 55.80; February takes 336. A bill of at least 8.00, as island
    utilities write it, is owed whatever the credit."""
    fixed = {"kind": "fixed", "code": "F", "name": "F", "amount": "5"}
    least = {"kind": "minimum", "code": "M", "name": "M", "amount": "8", "of": ["F", "E"]}
    sell = {"rate": "0.05", "rollover": "money", "offsets": offsets}
    document = electricity(fixed, energy("0.10"), least, metering="net_billing", sell=sell)
    load = (["-3"] * 12 + ["1"] * 12) * 31 + (["1"] * 12 + ["0"] * 12) * 28
    assert months(document, hourly(load), "total") == amounts(*owed)


def test_a_factor_that_changes_inside_a_month_is_charged_by_the_day_of_service() -> None:
    """310 kWh at 0.05; 100 of them at 0.01, 210 at 0.02: price cuts the month as a bill is cut."""
    rates = [{"from": "2025-12-01", "rate": "0.01"}, {"from": "2026-01-11", "rate": "0.02"}]
    fuel = {"kind": "rider", "code": "FU", "name": "Fuel", "dated": {"by": "service_date", "rates": rates}}
    assert months(electricity(energy("0.05"), fuel), daily("10"), "total") == amounts("20.70")
    by_bill = fuel | {"dated": {"by": "bill_date", "rates": rates}}
    assert months(electricity(energy("0.05"), by_bill), daily("10"), "total") == amounts("21.70")


def test_a_non_bypassable_charge_is_on_all_that_is_taken() -> None:
    """310 kWh taken and 186 sent: 124 at 0.10, and 310 at 0.03."""
    rider = {"kind": "rider", "code": "NBC", "name": "NBC", "rate": "0.03", "basis": "imports"}
    document = electricity(energy("0.10"), rider, metering="net_metering", sell={"rate": "0"})
    rows = ["interval_start,kwh,export_kwh", *(f"2026-01-{day:02},10,6" for day in range(1, 32))]
    assert months(document, rows, "total") == amounts("21.70")


def test_caps_hold_over_a_bill_that_a_factor_cuts() -> None:
    """A tax of 8 % on the first 10.00, and a discount of at most 3.00, are not owed once for each part."""
    rates = [{"from": "2025-12-01", "rate": "0.01"}, {"from": "2026-01-11", "rate": "0.02"}]
    fuel = {"kind": "rider", "code": "FU", "name": "Fuel", "dated": {"by": "service_date", "rates": rates}}
    tax = {"kind": "tax", "code": "T", "name": "T", "percent": 8, "of": ["E"], "base_cap": "10"}
    discount = {"kind": "rider", "code": "C", "name": "C", "percent": -35, "of": ["E"], "cap": "3"}
    document = electricity(energy("0.05"), fuel, tax, discount)
    assert months(document, daily("10"), "total") == amounts("18.50")


@pytest.mark.parametrize(
    ("charge", "says"),
    [
        ({"kind": "fixed", "code": "F", "name": "F", "amount": 1, "steps": [{"upto": 1, "amount": 1}, {"amount": 2}]}, "beside"),
        ({"kind": "fixed", "code": "F", "name": "F", "steps": [{"upto": 1, "amount": 1}, {"upto": 2, "amount": 2}]}, "last"),
        ({"kind": "fixed", "code": "F", "name": "F", "steps": [{"upto": 2, "amount": 1}, {"upto": 1, "amount": 2}, {"amount": 3}]}, "above"),
        ({"kind": "fixed", "code": "F", "name": "F", "amount": 1, "demand": "D"}, "demand"),
        ({**DEMAND, "code": "X", "per": "day", "whole": {"step": 1}}, "not of each day"),
        ({**DEMAND, "code": "X", "whole": {"step": 0}}, "step"),
        ({"kind": "tax", "code": "T", "name": "T", "percent": 1, "by": {"attribute": "rate_code", "values": {"A": 1}}}, "exactly one"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_by_name(charge: dict[str, Any], says: str) -> None:
    with pytest.raises(TariffRefusedError, match=says):
        parse_tariff(raw(electricity(DEMAND, energy("0.1"), charge)))


def test_steps_are_explained() -> None:
    steps = [{"upto": 200, "amount": "5"}, {"amount": "10"}]
    document = electricity({"kind": "fixed", "code": "CC", "name": "CC", "steps": steps}, energy("0.10"))
    step = explain_bill(parse_tariff(raw(document)), BillUse(date(2026, 1, 1), energy={"all": Decimal(310)}))[0]
    assert (step.amount, step.how) == (Decimal(10), "5 or 10 a month, by use (up to 200, above)")
