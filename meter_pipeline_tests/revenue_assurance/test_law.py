"""The law promises: every validated unit is billed, accrued or waiting for a reason, to the millionth; and a row that
is dropped, doubled or changed behind billing's back is found."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline.revenue_assurance.law import law_of_day, law_of_days, law_of_month
from meter_pipeline.revenue_assurance.result import LawResult
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
PAST = JULY + timedelta(days=5)
WATER = native(
    "W-STD",
    commodity="water",
    unit="kgal",
    time_of_use=None,
    charges=[{"kind": "usage", "code": "WATER", "name": "Water", "rate": "4.10"}],
)
WATER.pop("time_of_use")


def town(database: Database) -> None:
    """Three days in a period that is billed and two in one that is open: two services of intervals, one of a dial in
    cubic metres on a tariff in thousands of gallons."""
    add_tariff(database, native())
    add_tariff(database, WATER)
    add_cycle(database, JULY, END, END + timedelta(days=3))
    points = [add_service(database, 1), add_service(database, 2)]
    tap = add_service(database, 3, "W-STD", commodity="water")
    for day in days(JULY, 5):
        put_intervals(database, day, {point: [1000 + k] * 24 for k, point in enumerate(points)})
        put_daily(database, day, {tap: 1_234_567}, "m3", "water")
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)


def law(database: Database) -> LawResult:
    return law_of_days(database, JULY, PAST)


def test_every_unit_is_billed_or_accrued(database: Database) -> None:
    town(database)
    result = law(database)
    assert result.ok, result.sentence()
    assert result.service_points == 3
    assert result.totals == {
        "kWh": [5 * (24_000_000 + 24_024_000), 3 * (24_000_000 + 24_024_000), 2 * (24_000_000 + 24_024_000), 0, 0],
        "m3": [5 * 1_234_567, 3 * 1_234_567, 2 * 1_234_567, 0, 0],
    }
    assert law_of_month(database, JULY).totals == result.totals, "days that were not billed add nothing"
    document = law_of_day(database, JULY).document()
    assert document["ok"] is True
    assert document["open"] == []
    assert document["service_points"] == 3
    assert json.dumps(document, default=str)


def test_a_net_channel_counts_both_ways(database: Database) -> None:
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    point = add_service(database, 1)
    put_intervals(database, JULY, {point: [1000] * 18 + [-1000] * 6}, flow="net")
    bill_billing_day(database, CHICAGO, JULY, clock=CLOCK)
    result = law_of_day(database, JULY)
    assert result.ok, result.sentence()
    assert result.totals["kWh"][:1] == [18_000_000], "used; the six sent hours are not taken off"
    with database.connect() as connection:
        connection.execute("UPDATE billing.determinant_day SET source_export = source_export - 1")
    assert not law_of_day(database, JULY).ok


_AT = "billing_day = '2026-07-0{}' AND service_point_id = 'SP-00{}'"
#: SQL that harms one row, and what the law says of it
HARM = [
    (
        f"UPDATE billing.determinant_day SET source_quantity = source_quantity - 1 WHERE {_AT.format(2, 1)}",
        "0.000001 kWh of validated usage is in no determinant",
    ),
    (
        f"UPDATE billing.determinant_day SET energy = ARRAY[energy[1] - 7, energy[2]] WHERE {_AT.format(5, 1)}",
        "its position moved by 24, its determinants are 23.999993",
    ),
    (
        f"UPDATE billing.determinant_day SET energy = ARRAY[energy[1] * 2] WHERE {_AT.format(5, 3)}",
        "1.234567 m3 became 0.652276 kgal",
    ),
    (f"DELETE FROM billing.charge_day WHERE {_AT.format(4, 2)}", "not charged, and no reason is given"),
    (f"DELETE FROM billing.determinant_day WHERE {_AT.format(4, 2)}", "kWh of validated usage is in no determinant"),
    (f"DELETE FROM billing.determinant_day WHERE {_AT.format(2, 2)}", "stands on 72.072 kWh, its days on 48.048"),
    (
        f"UPDATE billing.charge_day SET total = total - 10000 WHERE {_AT.format(5, 1)}",
        "the day's lines are not its total",
    ),
    (
        f"UPDATE billing.charge_day SET total = total - 10000, amounts[1] = amounts[1] - 10000 WHERE {_AT.format(2, 1)}",
        "A-001.C1.20260701.0: bills",
    ),
    (
        "UPDATE billing.statement_segment SET energy = ARRAY[energy[1] - 1, energy[2]] WHERE service_point_id = 'SP-001'",
        "A-001.C1.20260701.0 SP-001: stands on 71.999999 kWh, its days on 72",
    ),
    (
        "UPDATE billing.statement_line SET amount = amount - 0.01 WHERE statement_id = 'A-002.C1.20260701.0' AND line_no = 1",
        "its lines are",
    ),
    (
        (
            "DELETE FROM billing.statement_segment WHERE service_point_id = 'SP-002'; "
            "DELETE FROM billing.statement_line WHERE service_point_id = 'SP-002'; "
            "DELETE FROM billing.statement WHERE account_id = 'A-002'"
        ),
        "without account A-002, and no reason is given",
    ),
    (
        (
            "CREATE TEMP TABLE twice AS SELECT * FROM billing.statement WHERE account_id = 'A-001'; "
            "UPDATE twice SET statement_id = statement_id || 'X', revision = 1; INSERT INTO billing.statement SELECT * FROM twice; "
            "CREATE TEMP TABLE segments AS SELECT * FROM billing.statement_segment WHERE service_point_id = 'SP-001'; "
            "UPDATE segments SET statement_id = statement_id || 'X'; INSERT INTO billing.statement_segment SELECT * FROM segments"
        ),
        "on 2 bills",
    ),
    (
        f"UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 1 WHERE {_AT.format(1, 2)}",
        "0.000001 kWh of validated usage is in no determinant",
    ),
    (f"UPDATE vee.daily_usage SET quantity_micro = NULL WHERE {_AT.format(4, 2)}", "no usage is known"),
    (
        "UPDATE ref.agreements SET valid_from = '2026-07-05' WHERE service_point_id = 'SP-001'",
        "who has no agreement on the day",
    ),
    (
        (
            "INSERT INTO ref.accounts VALUES ('A-009', 'residential', '2020-01-01', NULL); "
            "UPDATE ref.agreements SET account_id = 'A-009' WHERE service_point_id = 'SP-001'"
        ),
        "charged to A-001, while A-009 has the agreement",
    ),
]


@pytest.mark.parametrize(("harm", "said"), HARM)
def test_a_row_that_was_changed_dropped_or_doubled_is_found(database: Database, harm: str, said: str) -> None:
    town(database)
    with database.connect() as connection:
        for statement in harm.split("; "):
            assert connection.execute(statement.encode()).rowcount >= 1, statement
    result = law(database)
    assert not result.ok
    words = [f.why for f in result.open] + result.bills_open
    assert any(said in w for w in words), words


def test_what_an_exception_names_is_waiting_and_nothing_more(database: Database) -> None:
    town(database)
    with database.connect() as connection:
        connection.execute(
            "DELETE FROM billing.determinant_day WHERE billing_day = '2026-07-05' AND service_point_id = 'SP-003'"
        )
        connection.execute(
            "DELETE FROM billing.charge_day WHERE billing_day = '2026-07-05' AND service_point_id = 'SP-003'"
        )
        connection.execute(
            "INSERT INTO billing.exception_day VALUES ('2026-07-05', 'SP-003', 'A-003', 'attribute_missing', 'meter_size')"
        )
    result = law(database)
    assert result.ok, result.sentence()
    (waits,) = [f for f in result.findings if f.service_point_id == "SP-003"]
    assert (waits.waiting, waits.accrued, waits.why) == (1_234_567, 0, "attribute_missing")
    with database.connect() as connection:  # the same words do not excuse a quantity that is merely too small
        connection.execute(
            "INSERT INTO billing.exception_day VALUES ('2026-07-04', 'SP-001', 'A-001', 'needs_intervals', 'E-TOU')"
        )
        connection.execute(
            "UPDATE billing.determinant_day SET source_quantity = 1 WHERE billing_day = '2026-07-04' AND service_point_id = 'SP-001'"
        )
    assert not law(database).ok


def test_a_day_that_no_stage_has_billed_waits_as_a_whole(database: Database) -> None:
    town(database)
    put_intervals(database, PAST, {"SP-001": [500] * 24})
    result = law_of_day(database, PAST)
    assert result.ok
    assert [(f.service_point_id, f.waiting, f.why) for f in result.findings] == [
        ("SP-001", 12_000_000, "day_not_billed")
    ]


def test_a_correction_that_waits_explains_its_own_quantity_and_no_other(database: Database) -> None:
    town(database)
    put_intervals(database, date(2026, 7, 2), {"SP-001": [100_000] * 24})
    bill_billing_day(database, CHICAGO, date(2026, 7, 2), clock=CLOCK)
    result = law(database)
    assert result.ok, result.sentence()
    assert any("waits for a decision" in w for w in result.bills_waiting)
    with database.connect() as connection:
        connection.execute("UPDATE billing.adjustment_segment SET energy[1] = energy[1] - 1")
    assert not law(database).ok
