"""A bill, or a correction, that waited for a hold goes out by itself when a person releases it: the day whose run
issues it is asked for."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from meter_pipeline.anomalies import queue
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.billing.tables.released_bills import released_bills
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.end_to_end.town import Town, dial, flat, local
from meter_pipeline_tests.vee.city import CALENDAR

FIRST = date(2026, 8, 28)
VISITS = [FIRST + timedelta(days=4 * k) for k in range(-1, 4)]
DAYS = [FIRST + timedelta(days=k) for k in range(4)]


@pytest.fixture
def town(database: Database) -> Town:
    made = Town(database)
    made.tariff(flat("W", "water", "m3", "2.00"))
    made.cycle(FIRST, VISITS[2], VISITS[3])
    made.service("1", "W", "water")
    made.meter("M", "1", dial("m3"), commodity="water")
    return made


def visit(town: Town, k: int, shown: str) -> None:
    town.read("M", local(VISITS[k], 0 if k == 2 else 10), shown, unit="m3")


def release(town: Town, at: datetime) -> int:
    [(case,)] = town.rows("SELECT DISTINCT case_id FROM anomaly.bill_hold")
    with town.database.connect() as connection:
        done = queue.decide(
            connection, {"case_id": case}, "dismissed", by="ana", reason="seen on site", clock=town.clock(at.date())
        )
    return done.released


def issue_what_waits(town: Town) -> list[str]:
    done = issue_waiting(town.database, CALENDAR, VISITS[2], clock=town.clock(VISITS[2]))
    return [account for one in done for account in one.accounts]


def test_a_released_bill_asks_for_its_last_day(town: Town) -> None:
    for k, shown in enumerate(("100", "104", "1108")):
        visit(town, k, shown)
    town.run(*DAYS)
    issue_statements(town.database, CALENDAR, "C1", VISITS[2], clock=town.clock(DAYS[-1]))
    assert town.rows("SELECT account_id, reason FROM billing.statement_exception") == [("A-1", "held")]
    assert released_bills(town.database) == [], "the hold stands"
    release(town, local(VISITS[2]))
    [(day, [what])] = released_bills(town.database)
    assert (day, what) == (DAYS[-1], b"bill A-1 C1 2026-08-28")
    assert issue_what_waits(town) == ["A-1"]
    assert town.billed("1") > Decimal(900), "as the person said"
    assert released_bills(town.database) == []


def test_a_bill_that_waits_for_more_asks_no_second_time(town: Town) -> None:
    for k, shown in enumerate(("100", "104", "1108")):
        visit(town, k, shown)
    town.run(*DAYS)
    issue_statements(town.database, CALENDAR, "C1", VISITS[2], clock=town.clock(DAYS[-1]))
    with town.database.connect() as connection:
        connection.execute("DELETE FROM billing.charge_day WHERE billing_day = %s", (DAYS[1],))
    release(town, local(VISITS[2]))
    assert [day for day, _ in released_bills(town.database)] == [DAYS[-1]]
    assert issue_what_waits(town) == []
    assert town.rows("SELECT reason FROM billing.statement_exception") == [("days_missing",)]
    assert released_bills(town.database) == [], "tried; it waits under another name"


def test_a_released_correction_asks_for_a_day_of_it(town: Town) -> None:
    for k, shown in enumerate(("100", "104")):
        visit(town, k, shown)
    town.run(*DAYS)
    issue_statements(town.database, CALENDAR, "C1", VISITS[2], clock=town.clock(DAYS[-1]))
    assert town.billed("1") == 4
    visit(town, 2, "1108")
    town.run(*DAYS)
    [(waits,)] = town.rows("SELECT DISTINCT waits_for FROM billing.late_change")
    assert waits.startswith("validation of ")
    assert released_bills(town.database) == []
    release(town, local(VISITS[2]))
    assert {day for day, _ in released_bills(town.database)} <= set(DAYS)
    [(asked, _), *_] = released_bills(town.database)
    town.run(asked)
    [(status, net)] = town.rows("SELECT status, net FROM billing.adjustment")
    assert (status, net > 1000) == ("requested", True), (
        "the bill and what is above the threshold wait for a second person"
    )
    assert released_bills(town.database) == []
