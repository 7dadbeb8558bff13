"""A leak's adjustment promises: the amounts of the rule, by hand; sewer apart; once per so many months; its evidence on
it; and that the law, the reconciliation and later corrections are not disturbed by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.anomalies.tables.exception_cases import upsert_cases
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.adjustments import decide
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.proposals import AdjustmentError, propose
from meter_pipeline.desk.access import Access
from meter_pipeline.desk.web import Desk
from meter_pipeline.leak_adjustments.request import apply, preview
from meter_pipeline.leak_adjustments.rules import LeakRefusedError
from meter_pipeline.ledger.contents import verify_contents
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.sources import ADJUSTMENTS
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.reporting.month_assets import leak_adjustments
from meter_pipeline.revenue_assurance.law import law_of_days
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    native,
    put_daily,
)
from meter_pipeline_tests.desk.support import Office, post
from meter_pipeline_tests.end_to_end.utility import SmallUtility

STARTS = [JULY + timedelta(days=k) for k in (0, 3, 6, 9, 12)]
LEAK = "flow-SP-001-20260707"
BILL = "A-001.C1.20260707.0"
NEXT = "A-001.C1.20260710.0"

WATER = native(
    "W",
    commodity="water",
    unit="kgal",
    time_of_use={"periods": ["all"], "default": "all", "rules": []},
    charges=[
        {"kind": "fixed", "code": "BASIC", "name": "Basic", "amount": "10.00"},
        {"kind": "usage", "code": "WATER", "name": "Water", "tiers": [{"upto": 5, "rate": "2.00"}, {"rate": "4.00"}]},
        {"kind": "usage", "code": "SEWER", "name": "Sewer", "rate": "3.00", "factor": "0.9"},
        {"kind": "tax", "code": "TAX", "name": "Tax", "percent": "5", "of": ["WATER", "SEWER"]},
    ],
)


def use(database: Database, first: date, thousand_gallons: int) -> None:
    """Three days of a period, the same each day, billed."""
    for k in range(3):
        day = first + timedelta(days=k)
        put_daily(database, day, {"SP-001": thousand_gallons * 1000 * 10**6}, "gal", "water")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)


def rule(database: Database, **changes: Any) -> None:
    values: dict[str, Any] = {
        "customer_class": "*",
        "seasons": None,
        "normal_periods": 2,
        "least_periods": 2,
        "share_percent": 50,
        "sewer_codes": "SEWER",
        "sewer_share_percent": 100,
        "months_between": 12,
        "most_bills": 1,
        "evidence": "repair receipt",
        "valid_from": date(2020, 1, 1),
        "valid_to": None,
    } | changes
    with database.connect() as connection:
        connection.execute("DELETE FROM ref.leak_adjustment_rules")
        connection.execute(
            f"INSERT INTO ref.leak_adjustment_rules ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})".encode(),
            list(values.values()),
        )


def case(database: Database, name: str = LEAK, **changes: Any) -> None:
    row: dict[str, Any] = {
        "first_day": JULY + timedelta(days=6),
        "last_day": JULY + timedelta(days=10),
        "days": 5,
        "opened_at": datetime(2026, 7, 8, tzinfo=UTC),
        "decided_at": datetime(2026, 7, 15, tzinfo=UTC),
        "confidence": 0.9,
        "hold": False,
        "case_id": name,
        "family": "flow",
        "kind": "leak",
        "subject": "SP-001",
        "service_point_id": "SP-001",
        "commodity": "water",
        "severity": "warn",
        "state": "confirmed",
        "assigned_to": None,
        "decided_by": "ana",
        "reason": "toilet valve",
    } | changes
    with database.connect() as connection:
        upsert_cases(connection, [row])


def leaking(database: Database) -> None:
    """A house whose bills are 3 and 6 thousand gallons, then 18 and 12 with a leak."""
    add_tariff(database, WATER)
    add_cycle(database, *STARTS)
    add_service(database, 1, "W", commodity="water")
    for start, each in zip(STARTS[:4], (1, 2, 6, 4), strict=True):
        use(database, start, each)
        issue_statements(database, CHICAGO, "C1", start + timedelta(days=3), clock=CLOCK)
    rule(database)
    case(database)


@pytest.fixture
def city(copy_of: Callable[[Callable[[Database], None]], Database]) -> Database:
    """A copy of the leaking house, the test's own."""
    return copy_of(leaking)


def lines(database: Database, adjustment: str) -> dict[str, Decimal]:
    """What an adjustment changes, by charge."""
    found = database.rows(
        "SELECT split_part(line_key, '/', 1) AS code, sum(amount) AS amount FROM billing.adjustment_line WHERE adjustment_id = $1 GROUP BY 1",
        [adjustment],
    )
    return {row["code"]: row["amount"].normalize() for row in found}


def test_a_leak_by_hand(city: Database) -> None:
    """18 used, 4.5 normal (3 + 6 in 6 days, for 3).

    Water: half of 13.5 is forgiven, 11.25 are charged: 10.00 + 25.00, were 62.00. Sewer: all is forgiven, 0.9 x 4.5 at
    3.00 is 12.15, was 48.60. Tax: 5 % of 47.15 is 2.36, was 5.53."""
    leak, (name,) = apply(city, CHICAGO, LEAK, shown="plumber's receipt 4711", requested_by="ben", clock=CLOCK)
    assert name == f"{BILL}.A1"
    assert lines(city, name) == {"WATER": Decimal(-27), "SEWER": Decimal("-36.45"), "TAX": Decimal("-3.17")}
    first, second = (bill.document() for bill in leak.bills)
    assert (first["used"], first["normal"], first["forgiven"], first["sewer_forgiven"]) == ("18", "4.5", "6.75", "13.5")
    assert first["net"] == "-66.62"
    assert second["why_not"] == "the rule adjusts 1 bills of a leak"
    (row,) = city.rows("SELECT * FROM analyst.leak_adjustments")
    assert (row["net"], row["status"], row["shown"]) == (Decimal("-66.62"), "requested", "plumber's receipt 4711")
    assert row["case_evidence"]["confirmed_by"] == "ana"
    (adjustment,) = city.rows("SELECT reason, evidence FROM billing.adjustment")
    assert adjustment["reason"] == "leak"
    assert adjustment["evidence"] == (
        f"leak {LEAK}, 2026-07-07 to 2026-07-11, confirmed by ana: toilet valve; used 18 kgal, normal 4.5, forgiven 6.75, sewer 13.5; "
        "rule of class * from 2020-01-01; shown: plumber's receipt 4711"
    )


def test_the_months_asset_compares_each_with_its_lines_and_its_case(city: Database) -> None:
    _, (made,) = apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ana", clock=CLOCK)
    month = city.rows("SELECT posting_month FROM billing.adjustment WHERE adjustment_id = $1", [made])[0][
        "posting_month"
    ]
    found = leak_adjustments(city, month)
    assert [(c.name, c.passed) for c in found.checks] == [("leaks_are_their_lines", True)]
    assert (found.rows, list(found.plots)) == (1, ["Forgiven for leaks"])
    with city.connect() as connection:
        connection.execute("UPDATE anomaly.exception_case SET state = 'dismissed'")
    (check,) = leak_adjustments(city, month).checks
    assert (check.passed, check.description.split(": ")[0]) == (False, made)
    assert check.description.endswith("its case dismissed")


def test_two_people_above_the_threshold_then_law_and_corrections_stand(city: Database) -> None:
    _, (name,) = apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    with pytest.raises(AdjustmentError, match="another person"):
        decide(city, name, approve=True, person="ben", clock=CLOCK)
    decide(city, name, approve=True, person="cleo", clock=CLOCK)
    found = law_of_days(city, JULY, STARTS[4])
    assert (found.bills_open, found.bills_waiting) == ([], [])
    assert propose(city, CHICAGO, BILL).lines.height == 0, "a correction does not take it back"
    compared = issue_statements(city, CHICAGO, "C1", STARTS[3], clock=CLOCK).reconciliation
    assert set(compared["cause"].to_list()) == {"none"}
    # A late read of the leak's first day: 18 becomes 17. The bill is corrected by what its days changed, and the credit
    # stays.
    put_daily(city, STARTS[2], {"SP-001": 5_000 * 10**6}, "gal", "water")
    made = bill_billing_day(city, CHICAGO, STARTS[2], clock=CLOCK).adjustments
    assert made == [f"{BILL}.A2"]
    assert lines(city, made[0]) == {"WATER": Decimal(-4), "SEWER": Decimal("-2.7"), "TAX": Decimal("-0.33")}
    assert law_of_days(city, JULY, STARTS[4]).bills_open == []


def test_a_bill_that_has_to_be_corrected_is_corrected_first(city: Database) -> None:
    put_daily(city, STARTS[2], {"SP-001": 90_000 * 10**6}, "gal", "water")
    bill_billing_day(city, CHICAGO, STARTS[2], clock=CLOCK)
    assert "decide its correction first" in preview(city, CHICAGO, LEAK).bills[0].why


def test_once_per_so_many_months_and_once_per_bill(city: Database) -> None:
    apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    with pytest.raises(LeakRefusedError, match=rf"{BILL}: {BILL}.A1 adjusts it already \(requested\)"):
        apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    case(city, "flow-SP-001-20260711", first_day=JULY + timedelta(days=10), last_day=JULY + timedelta(days=11))
    with pytest.raises(LeakRefusedError, match="forgave another leak less than 12 months apart"):
        apply(city, CHICAGO, "flow-SP-001-20260711", shown="receipt", requested_by="ben", clock=CLOCK)
    rule(city, most_bills=2)
    _, names = apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    assert names == [f"{NEXT}.A1"], "the leak's second bill, where the rule adjusts two"


def test_one_share_for_water_and_sewer_and_nothing_left(city: Database) -> None:
    rule(city, share_percent=100, sewer_share_percent=None)
    _, (name,) = apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    # 4.5 at 2.00 is 9.00; 12.15 of sewer; 5 % of 21.15 is 1.06
    assert lines(city, name) == {"WATER": Decimal(-53), "SEWER": Decimal("-36.45"), "TAX": Decimal("-4.47")}


def test_what_is_refused_is_named(city: Database) -> None:
    with pytest.raises(LeakRefusedError, match="the rule asks for evidence: repair receipt"):
        apply(city, CHICAGO, LEAK, shown=" ", requested_by="ben", clock=CLOCK)
    with pytest.raises(LeakRefusedError, match="no case flow-X"):
        preview(city, CHICAGO, "flow-X")
    case(city, "flow-open", state="open", decided_by=None, decided_at=None, reason=None)
    with pytest.raises(LeakRefusedError, match="flow-open is open: confirm it first"):
        preview(city, CHICAGO, "flow-open")
    case(city, "spike-1", family="spike", kind="spike")
    with pytest.raises(LeakRefusedError, match="spike-1 is a case of spike, not of a leak"):
        preview(city, CHICAGO, "spike-1")
    case(city, "flow-late", first_day=date(2026, 8, 1), last_day=date(2026, 8, 3))
    with pytest.raises(LeakRefusedError, match="no bill of SP-001 holds a day from 2026-08-01 to 2026-08-03"):
        preview(city, CHICAGO, "flow-late")
    rule(city, valid_to=date(2026, 7, 8))
    with pytest.raises(LeakRefusedError, match="no rule for class residential is in force on 2026-07-09"):
        apply(city, CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    assert city.rows("SELECT adjustment_id FROM billing.adjustment") == []


def test_finance_role_may_and_the_ledger_covers_the_row(city: Database) -> None:
    privileges.apply(city)
    apply(city.acting_as("meter_finance"), CHICAGO, LEAK, shown="receipt", requested_by="ben", clock=CLOCK)
    with city.connect() as connection:
        connection.execute("UPDATE billing.leak_adjustment SET shown = 'nothing'")
    outcome = VerifyOutcome(None, 0, 0, b"")
    with city.connect() as connection:
        verify_contents(city, connection, ADJUSTMENTS, None, outcome)
    assert [f.detail for f in outcome.findings if "billing.leak_adjustment" in f.detail]


def test_one_click_at_the_desk(city: Database, tmp_path: Path) -> None:
    utility = SmallUtility.make(city, tmp_path, "America/Chicago")
    desk = Desk(city, utility.settings, Access(tmp_path / "access"))
    client = Office(utility, desk, "").client("ben")
    page = f"/exceptions/{LEAK}"
    shown = client.get(page).text
    assert "-66.62" in shown
    assert "repair receipt" in shown
    said = post(client, page, f"{page}/leak", shown="receipt 4711").text
    assert f"Asked for: {BILL}.A1." in said
    assert "adjusts it already" in client.get(page).text
    desk.close()
