"""Unbilled revenue promises: what is served and on no bill yet, to the cent; it rolls forward; the journal balances; it
is sealed with the month. The city is small enough to be computed by hand: every service day costs 24 kWh x 0.10 + 1.00,
and 10 % tax: 3.74."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.close import approve_close, request_close
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.unbilled import journal as book
from meter_pipeline.unbilled import tables
from meter_pipeline.unbilled.month import MOVES, Unbilled, compute, keep, refresh
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

AUGUST, SEPTEMBER = date(2026, 8, 1), date(2026, 9, 1)
MID_JULY, MID_AUGUST = date(2026, 7, 16), date(2026, 8, 16)
FLAT = native(
    "E-FLAT",
    time_of_use=None,
    charges=[
        {"kind": "fixed", "code": "BASIC", "name": "Basic service", "amount": "1.00", "per": "day"},
        {"kind": "usage", "code": "ENERGY", "name": "Energy", "rate": "0.10"},
        {"kind": "tax", "code": "TAX", "name": "City tax", "percent": "10"},
    ],
)
FLAT.pop("time_of_use")
ACCOUNTS: list[tuple[str, ...]] = [
    ("*", "*", "*", "4000", "1420"),
    ("electricity", "*", "energy", "4100", "1420"),
    ("*", "*", "tax", "2310", "1420"),
]


def micro(text: str) -> int:
    return int(Decimal(text) * 10**6)


def serve(database: Database, first: date, count: int, points: list[str]) -> None:
    for day in days(first, count):
        put_intervals(database, day, {point: [1000] * 24 for point in points})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


def accounts(database: Database, rows: list[tuple[str, ...]]) -> None:
    with database.connect() as connection:
        for row in rows:
            connection.execute("INSERT INTO ref.revenue_accounts VALUES (%s, %s, %s, %s, %s, '2020-01-01', NULL)", row)


def put(database: Database, month: date) -> Unbilled:
    found = compute(database, month)
    with database.connect() as connection:
        keep(connection, found)
    return found


def moves(found: Unbilled) -> dict[str, str]:
    return {move: str(Decimal(found.total(move)).scaleb(-6).normalize()) for move in MOVES}


def half_a_summer(database: Database) -> None:
    """July and half of August: one service billed from mid-month to mid-month, one by calendar months."""
    add_tariff(database, FLAT)
    add_cycle(database, date(2026, 6, 16), MID_JULY, MID_AUGUST)
    add_cycle(database, JULY, AUGUST, SEPTEMBER, cycle_id="C2")
    points = [
        add_service(database, 1, "E-FLAT", first=JULY),
        add_service(database, 2, "E-FLAT", first=JULY, cycle="C2"),
    ]
    serve(database, JULY, 46, points)
    for cycle, end in (("C1", MID_JULY), ("C2", AUGUST), ("C1", MID_AUGUST)):
        issue_statements(database, CHICAGO, cycle, end, clock=CLOCK)


@pytest.fixture
def city(copy_of: Callable[[Callable[[Database], None]], Database]) -> Database:
    return copy_of(half_a_summer)


def test_a_city_by_hand_rolls_forward_and_its_journal_balances(city: Database, tmp_path: Path) -> None:
    accounts(city, ACCOUNTS)
    july = put(city, JULY)
    assert july.open_points == []
    # 16 days from mid-July on; the other service's bill ends with the month.
    assert july.detail.select("account_id", "component", "days", "amount").rows() == [
        ("A-001", "energy", 16, micro("38.40")),
        ("A-001", "fixed", 16, micro("16.00")),
        ("A-001", "tax", 16, micro("5.44")),
    ]
    assert moves(july) == {
        "opening": "0",
        "restated": "0",
        "charged": "231.88",
        "corrected": "0",
        "issued": "172.04",
        "at_period_end": "0",
        "elsewhere": "0",
        "closing": "59.84",
    }
    august = put(city, AUGUST)
    assert august.open_points == []
    # Served: 2 x 15 days; billed: 31 days of the first service; left: 15 days of the second.
    assert moves(august) == {
        "opening": "59.84",
        "restated": "0",
        "charged": "112.2",
        "corrected": "0",
        "issued": "115.94",
        "at_period_end": "0",
        "elsewhere": "0",
        "closing": "56.1",
    }
    booked = [
        (str(e["entry_date"]), e["entry"], e["account_code"], str(e["debit"]), str(e["credit"])) for e in august.journal
    ]
    assert booked == [
        ("2026-08-01", "reversal", "2310", "5.44", "0.00"),
        ("2026-08-01", "reversal", "4000", "16.00", "0.00"),
        ("2026-08-01", "reversal", "4100", "38.40", "0.00"),
        ("2026-08-01", "reversal", "1420", "0.00", "59.84"),
        ("2026-08-31", "accrual", "2310", "0.00", "5.10"),
        ("2026-08-31", "accrual", "4000", "0.00", "15.00"),
        ("2026-08-31", "accrual", "4100", "0.00", "36.00"),
        ("2026-08-31", "accrual", "1420", "56.10", "0.00"),
    ]
    assert book.unbalanced(august.journal) == []
    book.write_csv(tmp_path / "journal.csv", tables.journal(city, AUGUST))
    assert (tmp_path / "journal.csv").read_text().splitlines()[:2] == [
        "entry_date,entry,account_code,debit,credit,currency,description",
        "2026-08-01,reversal,2310,5.44,0.00,USD,Reversal of unbilled revenue 2026-07",
    ]


def test_a_component_without_an_account_is_named_and_nothing_is_booked(city: Database) -> None:
    accounts(city, ACCOUNTS[1:])
    found = compute(city, JULY)
    assert found.no_account == [
        "fixed of electricity, class residential: no revenue account; add a row to reference/revenue_accounts.csv and import the folder"
    ]
    assert found.journal == []
    assert found.total("closing") == micro("59.84"), "the figure stands all the same"


def test_a_bill_corrected_after_the_month_is_unbilled_until_its_adjustment_is_posted(city: Database) -> None:
    # A later read of the 31st: 48 kWh instead of 24, 2.64 with tax. The bill by calendar months is posted in July, the
    # adjustment in August.
    put_intervals(city, date(2026, 7, 31), {"SP-002": [2000] * 24})
    bill_billing_day(city, CHICAGO, date(2026, 7, 31), clock=CLOCK)
    july = put(city, JULY)
    assert july.open_points == []
    corrections = july.detail.filter(july.detail["source"] == "correction")
    assert corrections.select("account_id", "component", "amount").rows() == [
        ("A-002", "energy", micro("2.40")),
        ("A-002", "tax", micro("0.24")),
    ]
    assert moves(july)["closing"] == "62.48"
    assert moves(july)["at_period_end"] == "0"
    august = put(city, AUGUST)
    assert august.open_points == []
    assert moves(august)["issued"] == "118.58", "the adjustment is posted in August"
    assert moves(august)["closing"] == "56.1"


def test_a_charge_changed_behind_a_bill_is_an_open_point(city: Database) -> None:
    with city.connect() as connection:
        connection.execute(
            "UPDATE billing.charge_day SET amounts[2] = amounts[2] + 10000, total = total + 10000 "
            "WHERE billing_day = '2026-07-03' AND service_point_id = 'SP-001'"
        )
    said = compute(city, JULY).open_points
    assert len(said) == 1
    assert said[0].startswith("A-001.C1.20260616.0: its days come to 56110000 millionths, the bill says 56100000")


def test_what_the_month_holds_is_sealed_with_it(city: Database) -> None:
    accounts(city, ACCOUNTS)
    points = request_close(city, JULY, person="accountant")
    assert all(p["ok"] for p in points), points
    seal = approve_close(city, JULY, person="controller")
    assert seal.control_totals["unbilled"]["closing"] == "59840000"
    assert len(tables.journal(city, JULY)) == 4
    before = tables.roll(city, JULY)
    for table in tables.KEPT:
        with city.connect() as connection, pytest.raises(psycopg.IntegrityError, match="period 2026-07 is sealed"):
            connection.execute(f"DELETE FROM {table} WHERE month = '2026-07-01'".encode())
    assert refresh(city, JULY).roll.equals(before), "a sealed month is read, not computed again"
    assert refresh(city, AUGUST).total("opening") == micro("59.84")
    assert tables.horizon(city, AUGUST) == MID_JULY, "the scan begins with what was left unbilled"


def test_days_before_a_seal_that_become_known_later_are_restated(city: Database) -> None:
    approve = request_close(city, JULY, person="accountant")
    assert approve
    approve_close(city, JULY, person="controller")
    # Of a sealed day the charge stays, and the bill's adjustment goes to the open month.
    put_intervals(city, date(2026, 7, 31), {"SP-002": [2000] * 24})
    bill_billing_day(city, CHICAGO, date(2026, 7, 31), clock=CLOCK)
    august = compute(city, AUGUST)
    assert august.open_points == []
    assert (moves(august)["restated"], moves(august)["issued"], moves(august)["closing"]) == ("2.64", "118.58", "56.1")


def test_a_month_is_named_by_its_first_day(database: Database) -> None:
    with pytest.raises(ValueError, match="2026-07-02 is not the first day of a month"):
        compute(database, date(2026, 7, 2))
    assert compute(database, JULY).roll.height == 0, "a city without charges has nothing unbilled"


def test_billing_may_compute_and_finance_may_seal(city: Database) -> None:
    privileges.apply(city)
    assert refresh(city.acting_as("meter_billing"), JULY).total("closing") == micro("59.84")
    with city.connect(role="meter_finance") as connection:
        keep(connection, compute(city.acting_as("meter_finance"), JULY))
