"""Limits on estimates promise: bills without a read are counted in a row and by cause, the next one beyond the limit
waits for a read or a person or is asked a read for, and the bill says the count."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from meter_pipeline.anomalies import decide, show_case
from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_document import bill_documents
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.billing.bill_settings import BillSettings
from meter_pipeline.billing.estimate_limits.rules import limit_action
from meter_pipeline.billing.tables.statements import waits_for_removed_period
from meter_pipeline.corrections.apply import change_row
from meter_pipeline.outbound import records
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused
from meter_pipeline.reference.folder import read_folder
from meter_pipeline.reference.importing import RowChange
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    native,
    put_intervals,
)

STARTS = [JULY + timedelta(days=2 * k) for k in range(6)]
CASE = "estimates-SP-001-20260705"


def limit(database: Database, cause: str = "*", most: int = 2, action: str = "hold", shown: bool = True) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO ref.estimate_limits VALUES ('*', '*', %s, %s, %s, %s, '2020-01-01', NULL)",
            (cause, most, action, shown),
        )


@pytest.fixture
def city(database: Database) -> Database:
    add_tariff(database, native())
    add_cycle(database, *STARTS)
    add_service(database, 1)
    with database.connect() as connection:
        connection.execute("INSERT INTO ref.meters VALUES ('M-001', 'electricity', 'HE', NULL, NULL)")
        connection.execute(
            "INSERT INTO ref.installations VALUES ('SP-001', 'M-001', %s, NULL, NULL, NULL)",
            (datetime(2020, 1, 1, tzinfo=UTC),),
        )
    return database


def period(database: Database, number: int, *, estimated: bool = True, rejected: bool = False) -> dict[str, int]:
    """Two days of the period of a number, billed, and its statements; why accounts wait."""
    for k in range(2):
        day = STARTS[number] + timedelta(days=k)
        put_intervals(database, day, {"SP-001": [1000] * 24}, estimated=24 if estimated else 0)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        if rejected:
            with database.connect() as connection:
                connection.execute(
                    "INSERT INTO vee.exception (billing_day, kind, service_point_id, meter_id, channel, severity, detail, first_seen) "
                    "VALUES (%s, 'SPIKE', 'SP-001', 'M-001', 'E1', 'fail', 'x', now())",
                    (day,),
                )
    return issue_statements(database, CHICAGO, "C1", STARTS[number + 1], clock=CLOCK).exceptions


def counts(database: Database) -> list[tuple[Any, ...]]:
    found = database.read("SELECT cause, in_a_row, of_cause, action FROM analyst.estimated_bills ORDER BY period_start")
    return found.rows()


def test_the_third_estimated_bill_waits_and_a_read_releases_it(city: Database) -> None:
    limit(city)
    assert [period(city, 0), period(city, 1), period(city, 2)] == [{}, {}, {"held": 1}]
    assert counts(city) == [("no_read", 1, 1, "none"), ("no_read", 2, 2, "none"), ("no_read", 3, 3, "hold")]
    with city.connect() as connection:
        shown = show_case(connection, CASE)
    assert (shown["state"], shown["hold"], shown["flags"][0]["observed"]) == ("open", True, 3.0)
    assert shown["flags"][0]["evidence"]["rule"] == "*, *, * from 2020-01-01"
    assert period(city, 2, estimated=False) == {}, "a read came"
    with city.connect() as connection:
        assert show_case(connection, CASE)["state"] == "expired"
    assert len(counts(city)) == 2
    assert period(city, 3) == {}
    assert counts(city)[-1] == ("no_read", 1, 1, "none"), "the row begins again"


def test_a_person_lets_the_bill_go_and_it_stays_decided(city: Database) -> None:
    limit(city, most=0)
    assert period(city, 0) == {"held": 1}
    with city.connect() as connection:
        decide(
            connection, {"case_id": "estimates-SP-001-20260701"}, "dismissed", by="ana", reason="vacation", clock=CLOCK
        )
    assert issue_statements(city, CHICAGO, "C1", STARTS[1], clock=CLOCK).issued == 1
    assert period(city, 1) == {"held": 1}


def test_what_waits_for_a_removed_period_is_no_work_any_more(city: Database) -> None:
    """The third bill waits for its estimates, and its period is removed as typed by mistake: the statements step takes
    out why the account waits, the estimated bill and the case. The bills that are out keep theirs."""
    limit(city)
    assert [period(city, 0), period(city, 1), period(city, 2)] == [{}, {}, {"held": 1}]
    removed = RowChange("billing_cycles", ("C1", STARTS[2].isoformat()), by="ana", why="typed twice")
    change_row(city, CHICAGO, removed, clock=CLOCK)
    billing = city.acting_as("meter_billing")
    privileges.apply(city)
    assert issue_waiting(billing, CHICAGO, STARTS[4], clock=CLOCK) == []
    assert city.read("SELECT * FROM billing.statement_exception").is_empty()
    assert counts(city) == [("no_read", 1, 1, "none"), ("no_read", 2, 2, "none")]
    with city.connect() as connection:
        assert show_case(connection, CASE)["state"] == "expired"
        assert not waits_for_removed_period(city)


def test_a_read_is_asked_for_and_the_bill_goes_out(city: Database) -> None:
    limit(city, most=1, action="read_request")
    assert [period(city, 0), period(city, 1)] == [{}, {}]
    assert records.read_requests(city, "C1", STARTS[1], "America/Chicago") == []
    (asked,) = records.read_requests(city, "C1", STARTS[2], "America/Chicago")
    assert asked == {
        "meter_id": "M-001",
        "account_id": "A-001",
        "service_point_id": "SP-001",
        "route": "R1",
        "cycle_id": "C1",
        "period_last": STARTS[2] - timedelta(days=1),
        "cause": "no_read",
        "in_a_row": 2,
        "most_bills": 1,
    }


def test_causes_are_counted_apart(city: Database) -> None:
    limit(city, cause="rejected", most=1)
    assert [period(city, 0), period(city, 1, rejected=True)] == [{}, {}]
    assert period(city, 2, rejected=True) == {"held": 1}
    assert counts(city)[1:] == [("rejected", 2, 1, "none"), ("rejected", 3, 2, "hold")]


def test_the_bill_says_the_count_where_the_rule_does(city: Database) -> None:
    limit(city, most=9)
    period(city, 0)
    period(city, 1)
    names = ["A-001.C1.20260701.0", "A-001.C1.20260703.0"]
    made = bill_documents(city, names, "Utility", "America/Chicago", BillSettings())
    assert [b["services"][0]["made_from"].rpartition(". ")[2] for b in made] == [
        "Estimated bills in a row: 1.",
        "Estimated bills in a row: 2.",
    ]


def test_without_rules_nothing_is_counted(city: Database) -> None:
    period(city, 0)
    assert counts(city) == []


def test_a_hold_of_one_cause_comes_before_a_request_of_all() -> None:
    row = {
        "customer_class": "*",
        "commodity": "*",
        "count_on_bill": False,
        "valid_from": date(2020, 1, 1),
        "valid_to": None,
    }
    rows = [
        row | {"cause": "*", "most_bills": 1, "action": "read_request"},
        row | {"cause": "no_read", "most_bills": 2, "action": "hold"},
        row | {"cause": "no_read", "most_bills": 5, "action": "hold", "customer_class": "municipal"},
    ]
    home, city_hall = ({"customer_class": c, "commodity": "water"} for c in ("residential", "municipal"))
    assert limit_action(rows, home, "no_read", 2, 2, JULY).action == "read_request"
    assert limit_action(rows, home, "no_read", 3, 3, JULY).action == "hold"
    assert limit_action(rows, city_hall, "no_read", 3, 3, JULY).action == "read_request"
    assert limit_action(rows, home, "rejected", 1, 1, JULY).action == "none"


def test_limits_that_overlap_or_are_negative_are_refused(tmp_path: Path) -> None:
    (tmp_path / "estimate_limits.csv").write_text(
        "customer_class,commodity,cause,most_bills,action,count_on_bill,valid_from,valid_to\n*,*,*,2,hold,true,2026-01-01,\n"
        "*,*,*,3,hold,true,2026-06-01,\n*,*,no_read,-1,hold,true,2026-06-01,\n"
    )
    with pytest.raises(ReferenceRefused) as refused:
        read_folder(tmp_path)
    assert [str(f) for f in refused.value.faults] == [
        "estimate_limits.csv:3: overlaps the stretch that starts 2026-01-01 (line 2) of * * *",
        "estimate_limits.csv:4: most_bills: -1 is below 0",
    ]


def test_the_role_of_billing_may(city: Database) -> None:
    privileges.apply(city)
    limit(city, most=0)
    put_intervals(city, JULY, {"SP-001": [1000] * 24}, estimated=24)
    put_intervals(city, JULY + timedelta(days=1), {"SP-001": [1000] * 24}, estimated=24)
    for day in (JULY, JULY + timedelta(days=1)):
        bill_billing_day(city.acting_as("meter_billing"), CHICAGO, day, clock=CLOCK)
    found = issue_statements(city.acting_as("meter_billing"), CHICAGO, "C1", STARTS[1], clock=CLOCK)
    assert (found.exceptions, found.beyond_limits) == ({"held": 1}, 1)
