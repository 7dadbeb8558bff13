"""Bills that a change of rate, of rate structure or of meter size cuts: each part at its own rate, whole in the end."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)


def flat(tariff_id: str, *charges: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A tariff without periods."""
    document = native(tariff_id, charges=list(charges), **changes)
    del document["time_of_use"]
    return document


def energy(rate: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "usage", "code": "E", "name": "Energy", "rate": rate} | changes


def issued(database: Database, end: date) -> dict[str, Decimal]:
    """Statements issued by account; every joint must be explained."""
    outcome = issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    assert "open" not in outcome.reconciliation["cause"].to_list()
    found = database.read("SELECT account_id, total::text FROM billing.statement ORDER BY 1")
    return {account: Decimal(total) for account, total in found.iter_rows()}


def lines(database: Database) -> list[tuple[str, int, Decimal, Decimal]]:
    """Line key, version, quantity and amount of every statement line, in order."""
    found = database.read(
        "SELECT line_key, tariff_version, coalesce(quantity, 0)::text AS q, amount::text AS a FROM billing.statement_line "
        "ORDER BY statement_id, line_no"
    )
    return [(key, version, Decimal(q), Decimal(a)) for key, version, q, a in found.iter_rows()]


@pytest.mark.parametrize(("first", "second"), [("0.50", "0.10"), ("0.10", "0.50")])
def test_a_minimum_counts_both_versions_of_a_period(database: Database, first: str, second: str) -> None:
    """24 kWh a day for two days at each rate: 28.80, topped up to 30.00."""
    least = {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": "30.00", "of": ["E"]}
    changed, end = JULY + timedelta(days=2), JULY + timedelta(days=4)
    add_tariff(database, flat("E-TOU", energy(first), least), 1, last=changed)
    add_tariff(database, flat("E-TOU", energy(second), least), 2, first=changed)
    add_cycle(database, JULY, end)
    point = add_service(database, 1)
    for day in days(JULY, 4):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issued(database, end) == {"A-001": Decimal("30.00")}


def test_a_minimum_that_changes_is_owed_by_the_days_of_each_version(database: Database) -> None:
    def least(amount: str) -> dict[str, Any]:
        return {"kind": "minimum", "code": "MIN", "name": "Minimum", "amount": amount, "of": ["E"]}

    changed, end = JULY + timedelta(days=1), JULY + timedelta(days=4)
    add_tariff(database, flat("E-TOU", energy("0.01"), least("20.00")), 1, last=changed)
    add_tariff(database, flat("E-TOU", energy("0.01"), least("40.00")), 2, first=changed)
    add_cycle(database, JULY, end)
    point = add_service(database, 1)
    for day in days(JULY, 4):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issued(database, end) == {"A-001": Decimal("35.00")}, "one day of four at 20.00, three at 40.00"


def test_a_published_bimonthly_bill_with_a_change_of_rates(database: Database) -> None:
    """Seattle City Light, questions about residential billing procedures, January 2012, question 1: 5,900 kWh in each
    30 days, first block 16 kWh a day; 1,105.12 in all."""

    def seattle(first: str, second: str, base: str) -> dict[str, Any]:
        tiers = [{"upto": 16, "of": "daily", "rate": first}, {"rate": second}]
        fixed = {"kind": "fixed", "code": "B", "name": "Base", "amount": base, "per": "day"}
        return flat("E-TOU", {"kind": "usage", "code": "E", "name": "Energy", "tiers": tiers}, fixed)

    first, changed, end = date(2026, 6, 1), date(2026, 7, 1), date(2026, 7, 31)
    add_tariff(database, seattle("0.0461", "0.0956", "0.1155"), 1, last=changed)
    add_tariff(database, seattle("0.0476", "0.0987", "0.1192"), 2, first=changed)
    add_cycle(database, first, end)
    point = add_service(database, 1)
    whole, rest = divmod(5_900_000_000, 30)
    for k, day in enumerate(days(first, 60)):
        put_daily(database, day, {point: whole + (k % 30 < rest)}, "kWh", "electricity")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issued(database, end) == {"A-001": Decimal("1105.12")}
    assert lines(database) == [
        ("E/all/1", 1, Decimal(480), Decimal("22.13")),
        ("E/all/2", 1, Decimal(5420), Decimal("518.15")),
        ("B", 1, Decimal(0), Decimal("3.47")),
        ("E/all/1", 2, Decimal(480), Decimal("22.85")),
        ("E/all/2", 2, Decimal(5420), Decimal("534.95")),
        ("B", 2, Decimal(0), Decimal("3.58")),
        ("ROUNDING", 2, Decimal(0), Decimal("-0.01")),
    ]


def test_a_larger_meter_in_mid_period_pays_for_its_days(database: Database) -> None:
    """15.50 a month for a 5/8 inch meter until the 15th, 31.00 for an inch from the 16th on: 7.50 and 16.00."""
    sizes = {"attribute": "meter_size", "values": {"5/8": "15.50", "1": "31.00"}}
    document = flat(
        "W-STD", {"kind": "fixed", "code": "B", "name": "Base", "by": sizes}, commodity="water", unit="kgal"
    )
    first, end = date(2026, 5, 1), date(2026, 6, 1)
    add_tariff(database, document)
    add_cycle(database, first, end)
    point = add_service(database, 1, "W-STD", commodity="water")
    with database.connect() as connection:
        for size, since, until in (("5/8", "2015-01-01", "2026-05-16"), ("1", "2026-05-16", None)):
            row = (point, "meter_size", size, since, until)
            connection.execute("INSERT INTO ref.service_attributes VALUES (%s, %s, %s, %s, %s)", row)
    for day in days(first, 31):
        put_daily(database, day, {point: 100_000_000}, "gal", "water")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issued(database, end) == {"A-001": Decimal("23.50")}
    assert [amount for _, _, _, amount in lines(database)] == [Decimal("7.50"), Decimal("16.00")]
    segments = database.read("SELECT slots FROM billing.statement_segment ORDER BY segment_start")["slots"].to_list()
    assert segments == [15, 16]


def test_a_flat_tariff_that_becomes_time_of_use_in_mid_period(database: Database) -> None:
    """Lists by period get another length; the usage so far counts on, and nothing else in the city stops."""
    changed, end = JULY + timedelta(days=2), JULY + timedelta(days=4)
    add_tariff(database, flat("E-TOU", energy("0.10")), 1, last=changed)
    split = native(
        charges=[{"kind": "usage", "code": "E", "name": "Energy", "rates": {"off-peak": "0.10", "peak": "0.30"}}]
    )
    add_tariff(database, split, 2, first=changed)
    add_cycle(database, JULY, end)
    point = add_service(database, 1)
    for day in days(JULY, 4):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    # 2 July is a Thursday, 3 July a Friday, 4 July a Saturday: five peak hours on the 3rd.
    assert issued(database, end) == {"A-001": Decimal("10.60")}


def test_a_fuel_factor_by_the_day_of_service_cuts_the_bill(database: Database) -> None:
    """24 kWh a day: two days at 0.01 and two at 0.03."""
    changed, end = JULY + timedelta(days=2), JULY + timedelta(days=4)
    rates = [{"from": "2026-01-01", "rate": "0.01"}, {"from": changed.isoformat(), "rate": "0.03"}]
    fuel = {"kind": "rider", "code": "FUEL", "name": "Fuel", "dated": {"by": "service_date", "rates": rates}}
    add_tariff(database, flat("E-TOU", energy("0.10"), fuel))
    add_cycle(database, JULY, end)
    point = add_service(database, 1)
    for day in days(JULY, 4):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issued(database, end) == {"A-001": Decimal("11.52")}
    assert [(key, amount) for key, _, _, amount in lines(database) if key.startswith("FUEL")] == [
        ("FUEL/all/1", Decimal("0.48")),
        ("FUEL/all/1", Decimal("1.44")),
    ]
