"""Totalised and deduct meters: usage that is billed at another service point, reconciled there, under the law."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.day import BillingOutcome
from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_day
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    put_daily,
    put_intervals,
)
from meter_pipeline_tests.billing.test_cut_bills import flat
from meter_pipeline_tests.billing.test_not_priced import DEMAND, totals, waiting

END = JULY + timedelta(days=2)
WATER: dict[str, Any] = {
    "schema": "meter_pipeline.tariff/1",
    "tariff_id": "W",
    "name": "W",
    "commodity": "water",
    "currency": "USD",
    "unit": "gal",
    "charges": [{"kind": "usage", "code": "W", "name": "Water", "rate": "0.01"}],
}


def part(database: Database, member: str, attribute: str, target: str, first: date = date(2020, 1, 1)) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.service_attributes VALUES (%s, %s, %s, %s, NULL)", (member, attribute, target, first)
        )


def reconciled(outcome: BillingOutcome) -> bool:
    return set(outcome.reconciliation["cause"].to_list()) <= {"none", "wholly_estimated"}


def test_meters_are_totalised_hour_by_hour(database: Database) -> None:
    """20 kW at nine and 20 at ten are a demand of 25 of both together, not of 40; the total has no meter of its own."""
    add_tariff(database, flat("E", DEMAND))
    add_cycle(database, JULY, END)
    total = add_service(database, 1, "E")
    first, second = (add_service(database, n, agreed=False) for n in (2, 3))
    part(database, first, "totals_into", total)
    part(database, second, "totals_into", total)
    for day in days(JULY, 2):
        put_intervals(
            database, day, {first: [5000] * 9 + [20000] + [5000] * 14, second: [5000] * 10 + [20000] + [5000] * 13}
        )
        outcome = bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        assert outcome.exceptions == {}
        assert reconciled(outcome)
        assert law_of_day(database, day).ok
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-001": Decimal(250)}


def test_a_deduct_meter_is_taken_off_the_meter_before_it(database: Database) -> None:
    """Main 1,000 gallons a day; 300 of them through a tenant's meter, who pays for them, and 100 through one of
    nobody's. On the first day the main dial lags."""
    add_tariff(database, WATER)
    add_cycle(database, JULY, END)
    main, tenant = (add_service(database, n, "W", commodity="water") for n in (1, 2))
    garden = add_service(database, 3, "W", commodity="water", agreed=False)
    for member in (tenant, garden):
        part(database, member, "deducts_from", main.lower() + " ")
    for day, used in zip(days(JULY, 2), (300, 1700), strict=True):
        quantities = {main: used * 10**6, tenant: 300 * 10**6, garden: 100 * 10**6}
        put_daily(database, day, quantities, "gal", "water")
        outcome = bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        assert outcome.exceptions == {}
        assert reconciled(outcome)
        assert law_of_day(database, day).ok
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-001": Decimal(12), "A-002": Decimal(6)}


def test_a_bill_waits_for_a_part_that_is_not_known(database: Database) -> None:
    add_tariff(database, WATER)
    add_cycle(database, JULY, END)
    main = add_service(database, 1, "W", commodity="water")
    garden = add_service(database, 3, "W", commodity="water", agreed=False)
    part(database, garden, "deducts_from", main)
    for day, known in zip(days(JULY, 2), (True, False), strict=True):
        put_daily(database, day, {main: 10**9} | ({garden: 10**8} if known else {}), "gal", "water")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {}
    assert waiting(database) == [
        ("not_charged", "SP-001: usage_missing usage of SP-003 is not known from 2026-07-02, 1 days")
    ]
    put_daily(database, JULY + timedelta(days=1), {garden: 10**8}, "gal", "water")
    bill_billing_day(database, CHICAGO, JULY + timedelta(days=1), clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert totals(database) == {"A-001": Decimal(18)}


@pytest.mark.parametrize("case", ["more than the main", "billed twice", "nested", "nowhere"])
def test_what_is_not_as_it_is_declared_waits_under_a_name(database: Database, case: str) -> None:
    add_tariff(database, WATER)
    add_cycle(database, JULY, JULY + timedelta(days=1))
    main = add_service(database, 1, "W", commodity="water")
    other = add_service(database, 2, "W", commodity="water", agreed=case == "billed twice")
    part(
        database,
        other,
        "totals_into" if case == "billed twice" else "deducts_from",
        "SP-999" if case == "nowhere" else main,
    )
    if case == "nested":
        part(database, main, "totals_into", other)
    put_daily(database, JULY, {main: 10**9, other: 2 * 10**9}, "gal", "water")
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", JULY + timedelta(days=1), clock=CLOCK)
    named = "SELECT DISTINCT service_point_id FROM billing.exception_day WHERE reason IN ('virtual_point', 'deducts_exceed') ORDER BY 1"
    expected = {
        "more than the main": [main],
        "billed twice": [main, other],
        "nested": [main, other],
        "nowhere": [other],
    }
    assert database.read(named)["service_point_id"].to_list() == expected[case]
    assert ("A-001" in totals(database)) == (case == "nowhere")
    assert "A-002" not in totals(database)
