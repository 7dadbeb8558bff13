"""A reconciliation check that is open for one service holds that service's bill and corrections and nobody else's; and
no cause explains more than the amount it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import polars as pl
import pytest

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements, issue_waiting
from meter_pipeline.billing.day_reconciliation import day_checks
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
from meter_pipeline_tests.support import copy_database

END = JULY + timedelta(days=3)
SECOND = JULY + timedelta(days=1)
#: The register of one service counted 4 kWh less than its intervals, and validation did not say so.
FAULT = (
    "UPDATE vee.interval_day SET register_difference_micro = total_micro - 4000000 "
    f"WHERE service_point_id = 'SP-002' AND billing_day = '{SECOND}'"
)
MENDED = FAULT.replace(" - 4000000", "")


#: A file of head-end HE for the second day whose one read is in no batch
FILE = (
    (
        "INSERT INTO raw.feed_file (sha256, content_sha256, file_name, head_end, commodity, file_format, bytes, archive_path, landed_at, "
        "received, rejected, dead_letters) VALUES (sha256('f'), sha256('f'), 'f.csv', 'HE', 'electricity', 'csv', 1, 'f.csv', now(), 1, 0, 0)"
    ),
    (
        "INSERT INTO raw.feed_file_day (sha256, billing_day, staged_path, staged_sha256, received, interval_rows, register_rows, "
        f"duplicate_in_file, superseded_in_file, loaded_at) VALUES (sha256('f'), '{SECOND}', 's', sha256('s'), 1, 1, 0, 0, 0, now())"
    ),
)


def run(database: Database, *statements: str) -> None:
    with database.connect() as connection:
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount > 0


def town(database: Database, *, fault: str = "") -> list[str]:
    """Two accounts, three days."""
    add_tariff(database, native())
    add_cycle(database, JULY, END)
    points = [add_service(database, n) for n in (1, 2)]
    for day in days(JULY, 3):
        put_intervals(database, day, dict.fromkeys(points, [1000] * 24))
        if fault and day == SECOND:
            run(database, fault)
        bill_billing_day(database, CHICAGO, day, clock=CLOCK)
    issue_statements(database, CHICAGO, "C1", END, clock=CLOCK)
    return points


def adjusted(database: Database) -> list[str]:
    return database.read("SELECT account_id FROM billing.adjustment WHERE status = 'posted' ORDER BY 1")[
        "account_id"
    ].to_list()


def issued(database: Database) -> list[str]:
    return database.read("SELECT account_id FROM billing.statement ORDER BY 1")["account_id"].to_list()


@pytest.fixture(scope="module")
def street(server: Database, template: Database) -> Iterator[Database]:
    """One day of two services, which no test changes for good."""
    copy_database(server, "open_service", template.name)
    database = server.sibling("open_service")
    put_intervals(database, SECOND, {add_service(database, n): [100_000] * 24 for n in (1, 2)})
    yield database
    with server.connect(autocommit=True) as connection:
        connection.execute(b"DROP DATABASE IF EXISTS open_service WITH (FORCE)")


def test_an_open_check_of_one_service_holds_its_correction_alone(database: Database) -> None:
    points = town(database)
    put_intervals(database, SECOND, dict.fromkeys(points, [2000] * 24))
    run(database, FAULT)
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)
    assert adjusted(database) == ["A-001"]
    [(statement, why)] = database.read("SELECT statement_id, waits_for FROM billing.late_change").rows()
    assert statement.startswith("A-002.")
    assert why == f"reconciliation of {SECOND} is open: intervals_to_register of SP-002"
    run(database, MENDED)
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)
    assert adjusted(database) == ["A-001", "A-002"]
    nets = database.read("SELECT DISTINCT net::text AS net FROM billing.adjustment")["net"].to_list()
    assert len(nets) == 1, "both used the same"


def test_an_open_check_of_one_service_holds_its_bill_alone(database: Database) -> None:
    town(database, fault=FAULT)
    assert issued(database) == ["A-001"]
    waiting = database.read("SELECT account_id, reason, detail FROM billing.statement_exception").rows()
    assert waiting == [("A-002", "not_reconciled", f"SP-002: intervals_to_register of {SECOND} is open")]
    run(database, MENDED)
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)
    issue_waiting(database, CHICAGO, END, clock=CLOCK)
    assert issued(database) == ["A-001", "A-002"]
    totals = database.read("SELECT DISTINCT total::text AS total FROM billing.statement")["total"].to_list()
    assert len(totals) == 1


def test_a_file_that_does_not_add_up_holds_the_services_of_its_head_end(database: Database) -> None:
    """Nobody knows whose read is missing."""
    points = town(database)
    put_intervals(database, SECOND, dict.fromkeys(points, [2000] * 24))
    run(
        database,
        f"UPDATE vee.interval_day SET head_end = 'OTHER' WHERE service_point_id = 'SP-001' AND billing_day = '{SECOND}'",
        *FILE,
    )
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)
    assert adjusted(database) == ["A-001"]
    [why] = database.read("SELECT waits_for FROM billing.late_change")["waits_for"].to_list()
    assert why == f"reconciliation of {SECOND} is open: file_to_reads of SP-002"


def test_a_file_that_waits_holds_the_corrections_of_its_head_end_s_meters(database: Database) -> None:
    points = town(database)
    run(
        database,
        "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES ('M-001', 'electricity', 'HE'), ('M-002', 'electricity', 'OTHER')",
        "INSERT INTO ref.installations (service_point_id, meter_id, installed_at) VALUES ('SP-001', 'M-001', '2020-01-01T06:00Z'), "
        "('SP-002', 'M-002', '2020-01-01T06:00Z')",
        *FILE,
        "UPDATE raw.feed_file_day SET loaded_at = NULL",
    )
    put_intervals(database, SECOND, dict.fromkeys(points, [2000] * 24))
    bill_billing_day(database, CHICAGO, SECOND, clock=CLOCK)
    assert adjusted(database) == ["A-002"]
    [why] = database.read("SELECT waits_for FROM billing.late_change")["waits_for"].to_list()
    assert why == f"reads of {SECOND} wait to be loaded"


#: Intervals say 2,400 kWh. What validation says of it, and what the register counted.
_STATED = (
    "INSERT INTO vee.exception (billing_day, kind, service_point_id, meter_id, channel, severity, detail, first_seen) "
    f"VALUES ('{SECOND}', 'SUM_CHECK', 'SP-002', 'M-002', 'E1', 'fail', "
    "'intervals 2400000000 against register 2000000000 micro kWh', now())"
)
_ROW = f"service_point_id = 'SP-002' AND billing_day = '{SECOND}'"
_SOME_ESTIMATED = (
    f"UPDATE vee.interval_day SET estimated = 2, actual = 22 WHERE {_ROW}",
    f"UPDATE vee.daily_usage SET estimated_micro = 200000000 WHERE {_ROW}",
)
_ONE_MISSING = (f"UPDATE vee.interval_day SET missing = 1, actual = 23 WHERE {_ROW}",)


def _stated(register: int) -> str:
    return _STATED.replace("2000000000", str(register))


@pytest.mark.parametrize(
    ("register", "facts", "cause"),
    [
        (2_000_000_000, (_STATED,), "sum_check_failed"),
        (1_990_000_000, (_STATED,), "open"),
        (2_800_000_000, (_STATED,), "open"),
        (2_000_000_000, (f"UPDATE vee.interval_day SET row_flags = 64 WHERE {_ROW}",), "open"),
        (2_200_000_000, _SOME_ESTIMATED, "estimated"),
        (2_190_000_000, _SOME_ESTIMATED, "open"),
        (2_600_000_000, _SOME_ESTIMATED, "open"),
        (2_190_000_000, (*_SOME_ESTIMATED, _stated(2_190_000_000)), "sum_check_failed"),
        (2_500_000_000, (*_ONE_MISSING, _stated(2_500_000_000)), "intervals_missing"),
        (2_600_000_000, (*_ONE_MISSING, _stated(2_500_000_000)), "open"),
        (2_600_000_000, _ONE_MISSING, "open"),
    ],
)
def test_a_cause_explains_the_amount_that_it_comes_to(
    street: Database, register: int, facts: tuple[str, ...], cause: str
) -> None:
    with street.connect() as connection:
        counted = f"UPDATE vee.interval_day SET register_difference_micro = {register} WHERE {_ROW}"
        for fact in (counted, *facts):
            assert connection.execute(fact.encode()).rowcount == 1
        found = day_checks(connection, CHICAGO, SECOND).filter(pl.col("joint") == "intervals_to_register")
        connection.rollback()
    subject = "SP-002" if cause == "open" else "reads around the day"
    assert found.select("cause", "subject").rows() == [(cause, subject)]
