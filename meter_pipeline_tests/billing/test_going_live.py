"""Going live inside a billing period and inside a month: the first bill covers the days from then on, nothing waits for
days before, and the first month can be closed."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.close import checklist
from meter_pipeline.billing.tables.opening import write_opening
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_intervals,
)

OPENS = date(2026, 7, 11)
#: A period of thirty days, of which twenty are billed here, and one after it
STARTS = (date(2026, 7, 1), date(2026, 7, 31), date(2026, 8, 30))
TARIFF = native(
    "E-TIER",
    charges=[
        {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "30.00"},
        {
            "kind": "usage",
            "code": "ENERGY",
            "name": "Energy",
            "tiers": [{"upto": "300", "rate": "0.10"}, {"rate": "0.20"}],
        },
    ],
    proration={"fixed": "days", "tiers": "days"},
)
del TARIFF["time_of_use"]


def test_a_period_that_had_begun_is_billed_from_the_first_day_on(database: Database) -> None:
    with database.connect() as connection:
        write_opening(connection, OPENS)
        write_opening(connection, OPENS)
    add_tariff(database, TARIFF)
    add_cycle(database, date(2026, 6, 11), OPENS, cycle_id="C0")
    add_cycle(database, *STARTS)
    point = add_service(database, 1, "E-TIER")
    add_service(database, 2, "E-TIER", cycle="C0")
    for day in days(OPENS, 21):
        put_intervals(database, day, {point: [1000] * 24, "SP-002": [1000] * 24})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    done = issue_statements(database, CHICAGO, "C1", STARTS[1], clock=CLOCK)
    assert (done.issued, done.exceptions) == (1, {})
    lines = database.read("SELECT line_key, amount::text AS amount FROM billing.statement_line ORDER BY 1")
    # 20 of 30 days: 20.00 of 30.00, and 200 kWh in the first block of 480
    assert {k: Decimal(a) for k, a in lines.iter_rows()} == {
        "BASIC": Decimal("20.00"),
        "ENERGY/all/1": Decimal("20.00"),
        "ENERGY/all/2": Decimal("56.00"),
    }
    points = {p["point"]: p for p in checklist(database, date(2026, 7, 1))}
    assert points["every day is billed"]["ok"], points
    assert points["every period that ended has its statements"]["ok"], "a period that ended before is nobody's here"
    assert points["no statement waits"]["ok"]


def test_a_day_without_charges_after_it_still_waits(database: Database) -> None:
    with database.connect() as connection:
        write_opening(connection, OPENS)
    add_tariff(database, TARIFF)
    add_cycle(database, *STARTS)
    point = add_service(database, 1, "E-TIER")
    for day in days(OPENS, 20):
        put_intervals(database, day, {point: [1000] * 24})
        if day != OPENS + timedelta(days=3):
            bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    assert issue_statements(database, CHICAGO, "C1", STARTS[1], clock=CLOCK).exceptions == {"days_missing": 1}
