"""Statements promise: lines that are the sum of their days, wherever the period is cut; first and final bills for their
days; nothing issued twice; nobody billed before every day is."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

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
    put_intervals,
)

END = JULY + timedelta(days=5)  # a period of five days: short, so that the tests are


def billed(database: Database, points: list[str], span: list[date]) -> None:
    for k, day in enumerate(span):
        put_intervals(database, day, {p: [100 + 13 * n + k] * 24 for n, p in enumerate(points)})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


def totals(database: Database) -> dict[str, Decimal]:
    return {
        a: Decimal(t)
        for a, t in database.read("SELECT account_id, total::text FROM billing.statement ORDER BY 1").iter_rows()
    }


def test_a_statement_is_the_sum_of_its_days_and_what_the_end_owes(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in range(2)]
    billed(database, points, days(JULY, 5))
    outcome = issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    assert (outcome.issued, outcome.exceptions) == (2, {})
    found = database.read(
        "SELECT s.statement_id, s.total::text, s.accrued::text, (SELECT sum(amount) FROM billing.statement_line AS l WHERE l.statement_id = "
        "s.statement_id)::text AS lines, s.kind FROM billing.statement AS s ORDER BY 1"
    )
    for _, total, _, lines, kind in found.iter_rows():
        assert Decimal(total) == Decimal(lines)
        assert kind == "regular"
    assert found["statement_id"].to_list() == ["A-000.C1.20260701.0", "A-001.C1.20260701.0"]
    assert set(outcome.reconciliation["cause"].to_list()) <= {"none", "period_end"}
    basic = database.read("SELECT amount::text AS a FROM billing.statement_line WHERE line_key = 'BASIC'")[
        "a"
    ].to_list()
    assert basic == ["12.500000", "12.500000"]


def test_issuing_again_issues_nothing(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, JULY + timedelta(days=3))
    billed(database, [add_service(database, 1)], days(JULY, 3))
    end = JULY + timedelta(days=3)
    assert issue_statements(database, CHICAGO, "C1", end, clock=CLOCK).issued == 1
    again = issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    assert (again.issued, again.already) == (0, 1)


def test_an_account_waits_until_every_day_is_billed(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, JULY + timedelta(days=4))
    point, end = add_service(database, 1), JULY + timedelta(days=4)
    span = days(JULY, 4)
    billed(database, [point], [span[0], span[1], span[3]])
    assert issue_statements(database, CHICAGO, "C1", end, clock=CLOCK).exceptions == {"days_missing": 1}
    billed(database, [point], [span[2]])
    outcome = issue_statements(database, CHICAGO, "C1", end, clock=CLOCK)
    assert (outcome.issued, outcome.exceptions) == (1, {})


def test_two_accounts_that_share_a_period_pay_the_whole_fixed_charge_between_them(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    moved = JULY + timedelta(days=2)
    add_service(database, 1, last=moved, account="A-OUT")
    point = add_service(database, 1, first=moved, account="A-IN")
    billed(database, [point], days(JULY, 5))
    assert issue_statements(database, CHICAGO, "C1", END, clock=CLOCK).issued == 2
    kinds = dict(database.read("SELECT account_id, kind FROM billing.statement").iter_rows())
    assert kinds == {"A-OUT": "final", "A-IN": "first"}
    basic = database.read("SELECT sum(amount)::text AS a FROM billing.statement_line WHERE line_key = 'BASIC'")["a"][0]
    assert Decimal(basic) == Decimal("12.50")


def test_a_new_version_with_the_same_rates_changes_no_bill(database: Database) -> None:
    tiered = native(
        charges=[
            {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "10.01"},
            {
                "kind": "usage",
                "code": "ENERGY",
                "name": "Energy",
                "tiers": [{"upto": "10.5", "rate": "0.10"}, {"rate": "0.31"}],
            },
            {"kind": "demand", "code": "PEAK", "name": "Demand", "rate": "3.33", "period": "peak"},
        ]
    )
    add_cycle(database, JULY, END)
    add_tariff(database, tiered, 1, last=JULY + timedelta(days=3))
    add_tariff(database, tiered, 2, first=JULY + timedelta(days=3))
    add_tariff(database, tiered | {"tariff_id": "E-ONE"})
    cut, whole = add_service(database, 1), add_service(database, 2, "E-ONE")
    for k, day in enumerate(days(JULY, 5)):
        put_intervals(database, day, {p: [100 + 17 * (k % 5)] * 24 for p in (cut, whole)})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    sums = totals(database)
    assert sums["A-001"] == sums["A-002"] > 0
    versions = database.read(
        "SELECT tariff_version, count(*) AS n FROM billing.statement_segment WHERE tariff_id = 'E-TOU' GROUP BY 1 ORDER BY 1"
    )
    assert versions.rows() == [(1, 1), (2, 1)]
