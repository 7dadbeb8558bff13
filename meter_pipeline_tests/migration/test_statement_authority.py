"""Statements promise: while legacy has authority over an account it gets its bill from legacy alone, and the stage
cannot turn while ours are written."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.migration import put_stage
from meter_pipeline.billing import bill_billing_day, bill_run
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.close import checklist
from meter_pipeline.billing.period_prices import price_period
from meter_pipeline.control import flags
from meter_pipeline.control.migration_stage import STAGE, cohort_point
from meter_pipeline.migration import dual_write, tables
from meter_pipeline.migration.rollback import roll_back
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
LAST = END - timedelta(days=1)
ACCOUNTS = [f"A-{n:03d}" for n in range(6)]


@pytest.fixture
def billed(database: Database) -> Database:
    """Six accounts with five billed days, and no statement yet."""
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in range(len(ACCOUNTS))]
    for day in days(JULY, 5):
        put_intervals(database, day, {p: [1000 + k] * 24 for k, p in enumerate(points)})
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    return database


def accounts_of(database: Database, table: str) -> list[str]:
    return database.read(f"SELECT account_id FROM {table} ORDER BY 1")["account_id"].to_list()


@pytest.mark.parametrize(
    ("stage", "issued"), [("off", 6), ("shadow", 0), ("dual_write", 0), ("ramp_down", 6), ("complete", 6)]
)
def test_one_side_bills_in_every_stage(billed: Database, stage: str, issued: int) -> None:
    put_stage(billed, stage, 10_000 if issued and stage != "off" else 0)
    done = issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK)
    assert (done.issued, done.exceptions) == (issued, {} if issued else {"billed_by_legacy": 6})
    points = {p["point"]: p["ok"] for p in checklist(billed, JULY)}
    assert points["no statement waits"]
    assert points["every period that ended has its statements"]


def test_live_bills_its_cohort_and_no_flip_bills_the_rest_again(billed: Database) -> None:
    half = sorted(cohort_point(a) for a in ACCOUNTS)[3]
    put_stage(billed, "live", half)
    ours = [a for a in ACCOUNTS if cohort_point(a) < half]
    done = issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK)
    assert done.exceptions == {"billed_by_legacy": 6 - len(ours)}
    assert accounts_of(billed, "billing.statement") == ours
    assert accounts_of(billed, "billing.statement_exception") == [a for a in ACCOUNTS if a not in ours]
    for stage in ("ramp_down", "complete"):
        put_stage(billed, stage, 10_000)
        again = issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK)
        assert (again.issued, again.exceptions) == (0, {"billed_by_legacy": 6 - len(ours)}), "legacy billed that period"
    assert accounts_of(billed, "billing.statement") == ours


def test_a_day_recorded_as_legacy_s_stays_so_when_the_move_is_complete(billed: Database) -> None:
    put_stage(billed, "dual_write")
    with billed.connect() as connection:
        dual_write.write(connection, [(dual_write.Record(LAST, ACCOUNTS[0], {"figures": []}), None)])
        connection.commit()
    put_stage(billed, "complete", 10_000)
    assert issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK).exceptions == {"billed_by_legacy": 1}
    assert accounts_of(billed, "billing.statement") == ACCOUNTS[1:]


def test_a_side_once_recorded_is_the_statement_s_too(billed: Database) -> None:
    put_stage(billed, "live", 10_000)
    with billed.connect() as connection:
        dual_write.write(connection, [(dual_write.Record(LAST, ACCOUNTS[0], {"figures": []}), None)])
        connection.commit()
    roll_back(billed, ["drill"], by="test")
    assert issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK).exceptions == {"billed_by_legacy": 5}
    assert accounts_of(billed, "billing.statement") == ACCOUNTS[:1]


def test_a_rollback_while_the_city_is_priced_leaves_no_statement_of_ours(
    billed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_stage(billed, "live", 10_000)

    def turned(*given: Any) -> Any:
        assert roll_back(billed, ["drill"], by="test") is not None
        return price_period(*given)

    monkeypatch.setattr(bill_run, "price_period", turned)
    done = issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK)
    assert (done.issued, done.exceptions) == (0, {"billed_by_legacy": 6})


def test_a_rollback_waits_for_statements_being_written(billed: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put_stage(billed, "live", 10_000)
    reconciled, writing, back = (
        bill_run.statement_checks,
        threading.Event(),
        threading.Thread(target=lambda: roll_back(billed, ["drill"], by="test")),
    )

    def held(*given: Any) -> Any:
        writing.set()
        back.start()
        back.join(0.3)
        assert back.is_alive(), "the stage is held until the statements are committed"
        return reconciled(*given)

    monkeypatch.setattr(bill_run, "statement_checks", held)
    assert issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK).issued == 6
    back.join(10)
    assert writing.is_set()
    with billed.connect() as connection:
        assert flags.read(connection, STAGE).value["stage"] == "dual_write"


def test_legacy_is_sent_the_statements_issued_while_live(billed: Database) -> None:
    put_stage(billed, "live", 10_000)
    issue_statements(billed, CHICAGO, "C1", END, clock=CLOCK)
    dual_write.publish_billing_day(billed, LAST, clock=CLOCK)
    sent = billed.read(
        "SELECT account_id, payload::text AS payload FROM migration.outbox WHERE side = 'legacy' ORDER BY 1"
    )
    lines = billed.read("SELECT l.statement_id || '.' || l.line_no AS code FROM billing.statement_line l ORDER BY 1")[
        "code"
    ].to_list()
    assert sent["account_id"].to_list() == ACCOUNTS
    assert lines
    assert all(any(code in payload for payload in sent["payload"]) for code in lines)
    with billed.connect() as connection:
        assert tables.undelivered(connection) == []


def test_billing_s_role_holds_the_stage_and_cannot_turn_it(billed: Database) -> None:
    put_stage(billed, "dual_write")
    privileges.apply(billed)
    role = billed.acting_as("meter_billing")
    assert issue_statements(role, CHICAGO, "C1", END, clock=CLOCK).exceptions == {"billed_by_legacy": 6}
    with role.connect() as connection, pytest.raises(Exception, match="permission denied"):
        connection.execute("UPDATE control.flag SET version = version + 1")
