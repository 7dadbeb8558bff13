"""Days that drop out of an account's period: an agreement that is ended inside a sealed month, and a day between two
versions of a tariff. The first was charged for ever and held the last bill; in the second the law counted what the days
before the gap had used as the use of the day after it."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_days
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_intervals,
)

END = JULY + timedelta(days=6)
FLAT = {k: v for k, v in native().items() if k != "time_of_use"} | {
    "charges": [
        {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "6.00"},
        {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "1.00"},
    ]
}


def billed(database: Database, point: str) -> None:
    """Six days of 24 kWh."""
    for day in days(JULY, 6):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


def left(database: Database, day: date) -> None:
    """The agreement ends before a day, and every day is billed again."""
    with database.connect() as connection:
        connection.execute("UPDATE ref.agreements SET valid_to = %s", (day,))
    for again in days(JULY, 6):
        bill_billing_day(database, CHICAGO, again, clock=CLOCK)


def seal(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO billing.period (month, status, requested_by, requested_at, checklist, approved_by, sealed_at, control_totals, "
            "totals_sha256) VALUES (%s, 'sealed', 'ana', %s, '[]', 'ben', %s, '{}', %s)",
            (JULY, CLOCK.now(), CLOCK.now(), bytes(32)),
        )


def books(database: Database) -> Decimal:
    """Statements and posted adjustments."""
    with database.connect() as connection:
        row = connection.execute(
            "SELECT coalesce(sum(total), 0) + (SELECT coalesce(sum(net), 0) FROM billing.adjustment WHERE status <> 'superseded') "
            "FROM billing.statement"
        ).fetchone()
    assert row is not None
    return Decimal(row[0])


@pytest.mark.parametrize("issued_first", [False, True])
def test_who_left_in_a_sealed_month_pays_until_then(database: Database, issued_first: bool) -> None:
    """Two of six days: 2.00 of 6.00, and 48 kWh at 1.00. What was used after waits for an account."""
    add_tariff(database, FLAT)
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    billed(database, point)
    if issued_first:
        issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    seal(database)
    left(database, JULY + timedelta(days=2))
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert books(database) == Decimal("50.00")
    found = law_of_days(database, JULY, END)
    assert found.ok, found.sentence()
    assert {f.why for f in found.findings if f.waiting} == {"no_agreement"}
    assert sum(f.waiting for f in found.findings) == 4 * 24_000_000
    left(database, END)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    found = law_of_days(database, JULY, END)
    assert found.ok, found.sentence()
    assert books(database) == Decimal("150.00"), "the end was a mistake: all six days again"


def test_a_day_between_two_versions_of_a_tariff_holds_the_bill_and_stays_one_day(database: Database) -> None:
    gap = JULY + timedelta(days=2)
    add_tariff(database, FLAT, last=gap)
    add_tariff(database, FLAT, 2, first=gap + timedelta(days=1))
    add_cycle(database, JULY, END)
    billed(database, add_service(database, 1))
    assert issue_statements(database, CHICAGO, "C1", END, clock=CLOCK).exceptions == {"not_charged": 1}
    found = law_of_days(database, JULY, END)
    assert found.ok, found.sentence()
    assert [(f.billing_day, f.why) for f in found.findings] == [(gap, "no_tariff")]


def test_a_service_that_ended_before_the_day_is_on_the_bill_that_covers_it(database: Database) -> None:
    """An account with two services, one of which ends on the second day: the law of the last day looks at both."""
    add_tariff(database, FLAT)
    add_cycle(database, JULY, END)
    left_on = JULY + timedelta(days=2)
    points = [add_service(database, 1), add_service(database, 2, last=left_on)]
    with database.connect() as connection:
        connection.execute("UPDATE ref.agreements SET account_id = 'A-001'")
    for day in days(JULY, 6):
        put_intervals(database, day, {p: [1000] * 24 for p in points[: 2 if day < left_on else 1]})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issue_statements(database, CHICAGO, "C1", END, clock=CLOCK).issued == 1
    found = law_of_days(database, END - timedelta(days=1), END)
    assert found.ok, found.sentence()
