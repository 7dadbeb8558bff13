"""A billing year's end promises: the annual minimum is owed once, against the year's bills; credit left over is paid
once, and both reconcile."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_end import closes_year, year_before
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.tariffs import parse_tariff
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
    put_intervals,
    raw,
)

#: Three-day periods, so that the test is short: the second holds the first of July, where this tariff's year ends.
STARTS = (JULY - timedelta(days=3), JULY, JULY + timedelta(days=3), JULY + timedelta(days=6))
SELL = {"rate": "0.05", "yearend_rate": "0.03", "trueup_month": 7}


def bills(database: Database, document: dict[str, object], export: bool = False) -> list[tuple[str, str, str]]:
    """(period start, line, amount) of lines that only a year's end has, after three periods; every joint must be
    explained."""
    add_tariff(database, document)
    add_cycle(database, *STARTS)
    point = add_service(database, 1)
    for day in days(STARTS[0], 9):
        put_intervals(database, day, {point: [100] * 24})
        if export:
            with database.connect() as connection:
                connection.execute("UPDATE vee.interval_day SET flow = 'export' WHERE billing_day = %s", (day,))
                connection.execute("UPDATE vee.daily_usage SET flow = 'export' WHERE billing_day = %s", (day,))
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        if day + timedelta(days=1) in STARTS:
            done = issue_statements(database, CHICAGO, "C1", day + timedelta(days=1), clock=CLOCK)
            assert done.issued == 1
            assert "open" not in done.reconciliation["cause"].to_list()
    found = database.read(
        "SELECT s.period_start::text, l.line_key, l.amount::text FROM billing.statement_line AS l JOIN billing.statement AS s USING (statement_id) "
        "WHERE l.line_key IN ('ANNUAL-MINIMUM', 'YEAR-END-CREDIT') ORDER BY 1, 2"
    )
    return found.rows()


def test_the_annual_minimum_is_owed_at_the_year_s_end_for_the_days_billed(database: Database) -> None:
    document = native(annual_minimum="3650.00", metering="net_metering", sell=SELL)
    found = bills(database, document)
    billed = database.read(
        "SELECT sum(amount)::text AS a FROM billing.statement_line JOIN billing.statement USING (statement_id) "
        "WHERE period_start <= '2026-07-01' AND line_key <> 'ANNUAL-MINIMUM'"
    )["a"][0]
    assert [(start, key) for start, key, _ in found] == [("2026-07-01", "ANNUAL-MINIMUM")]
    assert Decimal(found[0][2]) == Decimal("60.00") - Decimal(billed), "6 days of 365 at 3650.00"


def test_credit_left_over_is_paid_once_and_starts_again_from_nothing(database: Database) -> None:
    found = bills(database, native(metering="net_metering", sell=SELL), export=True)
    assert found == [("2026-07-01", "YEAR-END-CREDIT", "-0.430000")], "six days of 2.4 kWh at 0.03"
    left = database.read("SELECT carry_out FROM billing.statement_segment ORDER BY segment_start")[
        "carry_out"
    ].to_list()
    assert [sum(c) for c in left] == [7_200_000, 0, 7_200_000]


def test_a_year_has_one_end_whatever_its_periods() -> None:
    tariff = parse_tariff(raw(native(metering="net_metering", sell=SELL)))
    for length in (7, 30, 61):
        first, ends = date(2020, 1, 5), []
        while first < date(2026, 1, 1):
            past = first + timedelta(days=length)
            if closes_year(tariff, first, past):
                ends.append(first.year)
                assert year_before(tariff, past) == date(first.year, 7, 1)
            first = past
        assert ends == list(range(2020, 2026))
