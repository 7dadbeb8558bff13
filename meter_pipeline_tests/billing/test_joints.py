"""The joints promise that each side is read from its own place: what was altered in one of them shows, by key, with no
help from the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from meter_pipeline.billing import bill_billing_day, reconcile
from meter_pipeline.billing.bill_run import issue_statements, statement_checks
from meter_pipeline.billing.close import checklist
from meter_pipeline.billing.day_reconciliation import day_checks
from meter_pipeline.billing.explain import explain
from meter_pipeline.billing.tables import reconciliation as checks
from meter_pipeline.postgres import privileges
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

END = JULY + timedelta(days=5)


def issued(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in range(3)]
    for day in days(JULY, 5):
        put_intervals(
            database,
            day,
            {p: [1000 + k] * 24 for k, p in enumerate(points)},
            estimated=24 if day >= JULY + timedelta(days=1) else 0,
        )
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)


@pytest.fixture
def city(copy_of: Callable[[Callable[[Database], None]], Database]) -> Database:
    """Five days of three services, and their bills."""
    return copy_of(issued)


def altered(database: Database, *changes: str) -> list[tuple[Any, ...]]:
    """Open joints of the period once somebody with every right has changed something behind the program's back."""
    with database.connect() as connection:
        for change in changes:
            connection.execute(change.encode())
        found = statement_checks(connection, "C1", JULY, END)
        connection.rollback()
    return [
        (row["joint"], row["expected"], row["actual"], row["detail"])
        for row in found.filter(found["cause"] == "open").to_dicts()
    ]


def test_statements_are_compared_with_the_ledger_by_key_and_payload(city: Database) -> None:
    assert altered(city) == []
    one = "A-001.C1.20260701.0"
    changed = altered(
        city, f"UPDATE billing.statement_line SET amount = amount + 1 WHERE statement_id = '{one}' AND line_no = 2"
    )
    assert {joint for joint, *_ in changed} == {"lines_to_statement", "statement_to_ledger"}
    assert f"lines are not those issued: {one}" in changed[-1][3]
    renamed = altered(
        city, f"UPDATE billing.statement_line SET service_point_id = 'SP-000' WHERE statement_id = '{one}'"
    )
    assert [joint for joint, *_ in renamed] == ["statement_to_ledger"], "no sum moves, and it shows all the same"
    gone = altered(
        city, *(f"DELETE FROM billing.statement{t} WHERE statement_id = '{one}'" for t in ("_line", "_segment", ""))
    )
    assert [(joint, int(expected), int(actual)) for joint, expected, actual, _ in gone] == [
        ("statement_to_ledger", 0, 1)
    ]
    assert "leaf without statement" in gone[0][3]
    forged = altered(
        city,
        'INSERT INTO billing.statement SELECT (jsonb_populate_record(s, \'{"statement_id": "FORGED", "revision": 7}\')).* FROM billing.statement AS s '
        f"WHERE statement_id = '{one}'",
        "UPDATE billing.statement SET lines_sha256 = sha256('x') WHERE statement_id = 'FORGED'",
    )
    assert any("statement without leaf: FORGED" in detail for *_, detail in forged)
    moved = altered(city, f"UPDATE billing.statement SET ledger_leaf = 0 WHERE statement_id = '{one}'")
    assert "the place it names holds another leaf" in moved[0][3]


def test_a_changed_charge_shows_against_the_statement_and_stands_against_the_close(city: Database) -> None:
    with city.connect() as connection:
        connection.execute(
            "UPDATE billing.charge_day SET total = total + 1000000 WHERE service_point_id = 'SP-002' AND billing_day = '2026-07-03'"
        )
        found = day_checks(connection, CHICAGO, JULY + timedelta(days=2)).filter(pl.col("joint") == "lines_to_total")
        assert dict(found.select("subject", "cause").iter_rows()) == {"all": "none", "SP-002": "open"}
    against = {p["point"]: p for p in checklist(city, JULY)}["statements are what their days and the ledger say"]
    assert not against["ok"]
    assert "A-002" in against["detail"]


@pytest.mark.parametrize(
    ("change", "joint"),
    [
        (
            "UPDATE billing.determinant_day SET source_quantity = source_quantity + 1 WHERE service_point_id = 'SP-001'",
            "validated_to_determinants",
        ),
        (
            "UPDATE vee.daily_usage SET quantity_micro = quantity_micro - 1 WHERE service_point_id = 'SP-001'",
            "validated_to_determinants",
        ),
        (
            "UPDATE billing.determinant_day SET energy = ARRAY[1, 2] WHERE service_point_id = 'SP-001'",
            "determinants_to_lines",
        ),
        (
            "UPDATE billing.charge_day SET energy_to_date = ARRAY[1, 2] WHERE service_point_id = 'SP-001' AND billing_day = '2026-07-02'",
            "determinants_to_lines",
        ),
        (
            "DELETE FROM billing.charge_day WHERE service_point_id = 'SP-001' AND billing_day = '2026-07-03'",
            "determinants_to_lines",
        ),
    ],
)
def test_either_side_of_a_day_s_joint_shows_when_it_is_altered(city: Database, change: str, joint: str) -> None:
    day = JULY + timedelta(days=2)
    with city.connect() as connection:
        assert "open" not in day_checks(connection, CHICAGO, day)["cause"].to_list()
        connection.execute(change.encode())
        wrong = day_checks(connection, CHICAGO, day).filter(pl.col("cause") == "open")
    assert (joint, 1, "SP-001") in wrong.select("joint", "items", "subject").rows()


def test_estimates_in_a_row_are_reported_with_the_day_they_began(city: Database) -> None:
    last = END - timedelta(days=1)
    with city.connect() as connection:
        found = checks.estimate_streaks(connection, last, 3)
        assert checks.estimate_streaks(connection, last, 5).height == 0
        assert checks.estimate_streaks(connection, JULY, 1).height == 0
    assert found.rows() == [(f"SP-00{n}", f"A-00{n}", 4, JULY + timedelta(days=1)) for n in range(3)]
    again = bill_billing_day(city, CHICAGO, last, clock=CLOCK).report()
    assert again.figures["estimate streaks"] == 3
    noted = city.read("SELECT account_id, reason FROM billing.statement_exception ORDER BY 1")
    assert noted.rows() == [(f"A-00{n}", "estimate_streak") for n in range(3)], "issued, and somebody should look"


def test_billing_compares_with_the_ledger_in_its_own_role(database: Database) -> None:
    privileges.apply(database)
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    for day in days(JULY, 5):
        put_intervals(database, day, {point: [1000] * 24})
        bill_billing_day(database.acting_as("meter_billing"), CHICAGO, day, clock=CLOCK)
    done = issue_statements(database.acting_as("meter_billing"), CHICAGO, "C1", END, clock=CLOCK)
    assert (done.issued, set(done.reconciliation["cause"].to_list()) - {"period_end"}) == (1, {"none"})
    put_intervals(database, JULY, {point: [2000] * 24})
    assert len(bill_billing_day(database.acting_as("meter_billing"), CHICAGO, JULY, clock=CLOCK).adjustments) == 1
    for role in ("meter_finance", "meter_auditor"):
        told = explain(database.acting_as(role), "A-001.C1.20260701.0.1")
        assert told is not None
        assert [e["kind"] for e in told["ledger"]] == ["bill_issued"]


def test_a_cause_that_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="closed list"):
        reconcile.table({"lines_to_total": [("all", "USD", "just because", 1, 2, 1, "")]})


def test_a_page_shows_what_was_last_found_and_a_close_looks_again(city: Database) -> None:
    named = "statements are what their days and the ledger say"
    with city.connect() as connection:
        connection.execute(
            "UPDATE billing.charge_day SET total = total + 1000000 WHERE service_point_id = 'SP-002' AND billing_day = '2026-07-03'"
        )
        connection.commit()
    assert {p["point"]: p["ok"] for p in checklist(city, JULY, anew=False)}[named]
    assert not {p["point"]: p["ok"] for p in checklist(city, JULY)}[named]
    with city.connect() as connection:
        connection.execute("DELETE FROM billing.reconciliation WHERE subject = 'C1'")
        connection.commit()
    assert "never compared" in {p["point"]: p["detail"] for p in checklist(city, JULY, anew=False)}[named]
