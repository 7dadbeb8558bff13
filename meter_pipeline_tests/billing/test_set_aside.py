"""One person's record stops one person: a fault in any step that works on services sets that service aside under a
name, holds its bill, and the city is billed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from meter_pipeline.billing import bill_billing_day, day_shards, proposals, recalculate, segment_positions
from meter_pipeline.billing.accrual import accrue
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.billing.carried import price_stretches
from meter_pipeline.billing.reprice import reprice
from meter_pipeline.postgres.database import Database
from meter_pipeline.set_aside import apart
from meter_pipeline_tests.billing.support import (
    CHICAGO,
    CLOCK,
    JULY,
    add_cycle,
    add_service,
    add_tariff,
    days,
    native,
    put_daily,
    put_intervals,
)

END = JULY + timedelta(days=3)
CITY = 7
FAULTY = "SP-004"


def city(database: Database) -> list[str]:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in range(1, CITY + 1)]
    for day in days(JULY, 3):
        put_intervals(database, day, {p: [1000] * 24 for p in points})
    return points


def bill(database: Database, *which: date) -> None:
    for day in which or days(JULY, 3):
        done = bill_billing_day(database, CHICAGO, day, clock=CLOCK)
        assert "open" not in done.reconciliation["cause"].to_list(), done.reconciliation


def issued(database: Database) -> list[str]:
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    return list(database.read("SELECT account_id FROM billing.statement ORDER BY 1")["account_id"].to_list())


def waiting(database: Database) -> list[tuple[str, str]]:
    found = database.read("SELECT DISTINCT account_id, reason FROM billing.statement_exception ORDER BY 1, 2")
    return [(account, reason) for account, reason in found.iter_rows()]


def everyone_but_the_faulty() -> list[str]:
    return [f"A-{n:03}" for n in range(1, CITY + 1) if f"SP-{n:03}" != FAULTY]


def failing(step: Callable[..., Any], holds: Callable[..., bool]) -> Callable[..., Any]:
    """A step that raises where its input holds the faulty service."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if holds(*arguments):
            raise ArithmeticError("a fault of one service")
        return step(*arguments, **named)

    return wrapped


def in_services(bound: Any, *_: object) -> bool:
    return FAULTY in bound.services["service_point_id"].to_list()


def in_determinants(determinants: Any, *_: object) -> bool:
    return FAULTY in determinants.services["service_point_id"].to_list()


@pytest.mark.parametrize(
    ("module", "step", "holds"),
    [(day_shards, "day_determinants", in_services), (day_shards, "accrue", in_determinants)],
)
def test_a_fault_in_a_day_s_step(
    database: Database, monkeypatch: pytest.MonkeyPatch, module: Any, step: str, holds: Callable[..., bool]
) -> None:
    city(database)
    monkeypatch.setattr(module, step, failing(getattr(module, step), holds))
    bill(database)
    found = database.read("SELECT DISTINCT service_point_id, reason FROM billing.exception_day")
    assert found.rows() == [(FAULTY, "set_aside")]
    assert issued(database) == everyone_but_the_faulty()
    assert ("A-004", "not_charged") in waiting(database)
    monkeypatch.undo()
    bill(database)
    assert len(issued(database)) == CITY, "once it can be worked out it is billed by itself"


def test_a_fault_in_the_pricing_of_statements(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    city(database)
    bill(database)

    def holds(rows: pl.DataFrame, *_: object) -> bool:
        return FAULTY in rows["service_point_id"].to_list()

    monkeypatch.setattr(segment_positions, "price_stretches", failing(price_stretches, holds))
    assert issued(database) == everyone_but_the_faulty()
    assert waiting(database) == [("A-004", "set_aside")]
    monkeypatch.undo()
    assert len(issued(database)) == CITY


def test_a_fault_in_the_days_after_a_late_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    points = city(database)
    bill(database)
    put_intervals(database, JULY, {p: [2000] * 24 for p in points})
    monkeypatch.setattr(recalculate, "accrue", failing(accrue, in_determinants))
    bill(database, JULY)
    assert issued(database) == everyone_but_the_faulty()
    assert waiting(database) == [("A-004", "days_missing")]
    monkeypatch.undo()
    bill(database, *days(JULY + timedelta(days=1), 2))
    assert len(issued(database)) == CITY


def test_a_fault_in_a_correction(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    points = city(database)
    bill(database)
    assert len(issued(database)) == CITY

    def holds(_session: object, _calendar: object, accounts: list[str], *_: object) -> bool:
        return "A-004" in accounts

    monkeypatch.setattr(proposals, "reprice", failing(reprice, holds))
    put_intervals(database, JULY, {p: [1100] * 24 for p in points})
    bill(database, JULY)
    corrected = database.read("SELECT account_id FROM billing.adjustment ORDER BY 1")["account_id"].to_list()
    assert corrected == everyone_but_the_faulty()
    waits = database.read("SELECT DISTINCT statement_id, waits_for FROM billing.late_change").rows()
    assert [statement for statement, _ in waits] == ["A-004.C1.20260701.0"]
    assert "a fault of one service" in waits[0][1]


def test_two_agreements_in_force(database: Database) -> None:
    city(database)
    with database.connect() as connection:  # past the guard
        connection.execute("ALTER TABLE ref.agreements DROP CONSTRAINT one_agreement_at_a_time")
        connection.execute(
            "INSERT INTO ref.agreements VALUES ('A-001', %s, 'E-TOU', 'C1', '2026-01-01', NULL)", (FAULTY,)
        )
    bill(database)
    [told] = database.read(
        "SELECT DISTINCT detail FROM billing.exception_day WHERE reason = 'overlap' AND account_id = 'A-004'"
    )["detail"]
    assert "A-004 from 2020-01-01" in told
    assert "A-001 from 2026-01-01" in told
    assert issued(database) == [a for a in everyone_but_the_faulty() if a != "A-001"], (
        "neither of the two is billed for it"
    )


def test_usage_beyond_any_bill(database: Database) -> None:
    water = native(
        "W-STD", commodity="water", unit="m3", charges=[{"kind": "usage", "code": "W", "name": "Water", "rate": "2.00"}]
    )
    del water["time_of_use"]
    add_tariff(database, water)
    add_cycle(database, JULY, END)
    points = [add_service(database, n, "W-STD", commodity="water") for n in range(1, CITY + 1)]
    for day in days(JULY, 3):
        put_daily(database, day, {p: 9 * 10**18 if p == FAULTY else 10**6 for p in points}, "m3", "water")
    bill(database)
    assert issued(database) == everyone_but_the_faulty()
    assert ("A-004", "not_charged") in waiting(database)


def test_only_what_fails_is_left_out_and_a_server_s_fault_is_nobody_s() -> None:
    import psycopg

    def compute(keys: list[str]) -> list[str]:
        if {"C", "F"} & set(keys):
            raise ValueError("no")
        return list(keys)

    found = apart(list("ABCDEFG"), compute)  # type: ignore[arg-type]
    assert sorted(k for part in found.results for k in part) == list("ABDEG")
    assert sorted(found.faults) == ["C", "F"]

    def away(_: object) -> None:
        raise psycopg.OperationalError("the server is away")

    with pytest.raises(psycopg.OperationalError):
        apart(["A", "B"], away)
