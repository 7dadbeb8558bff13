"""Every reconciliation check, every check of a billed or validated day and the law fail where their fault is planted: a
row that somebody with every right altered in the database. A check without a fault in the list fails the test.

Faults of slots_complete and sum_check are in vee/test_day_checks.py, those of the schema checks in schemas/.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from meter_pipeline.billing.bill_run import statement_checks
from meter_pipeline.billing.day import BillingOutcome
from meter_pipeline.billing.day_reconciliation import day_checks
from meter_pipeline.billing.reconcile import CHECKS, STATEMENT_CHECKS
from meter_pipeline.billing.several_days_checks import several_days_checks
from meter_pipeline.defs.billing.checks import law_result
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.revenue_assurance import tables
from meter_pipeline.revenue_assurance.law import law, law_of_month
from meter_pipeline.vee import usage_report
from meter_pipeline_tests.lives.life import SECOND, Life, day_of
from meter_pipeline_tests.lives.player import Game
from meter_pipeline_tests.lives.stages import City
from meter_pipeline_tests.support import copy_database

DAY, END = day_of(1), day_of(SECOND)
_OF_DAY: Final = f"WHERE billing_day = '{DAY}'"
#: Reconciliation check -> the fault that makes it fail, and the asset check of the day that fails with it
PLANTED: Final = {
    "file_to_reads": (f"UPDATE raw.load_batch SET accepted = accepted - 1 {_OF_DAY}", "reconciliation"),
    "reads_to_validated": (f"DELETE FROM vee.interval_day {_OF_DAY}", "reconciliation"),
    "intervals_to_register": (
        f"UPDATE vee.interval_day SET total_micro = total_micro + 1000000 {_OF_DAY}",
        "reconciliation",
    ),
    "registers_to_usage": (
        f"UPDATE vee.register_day SET usage_micro = usage_micro + 1 {_OF_DAY} AND usage_micro IS NOT NULL",
        "reconciliation",
    ),
    "validated_to_determinants": (
        f"UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 1 {_OF_DAY}",
        "billed_equals_validated",
    ),
    "determinants_to_lines": (
        f"UPDATE billing.determinant_day SET energy[1] = energy[1] + 1 {_OF_DAY}",
        "billed_equals_validated",
    ),
    "lines_to_total": (f"UPDATE billing.charge_day SET total = total + 1 {_OF_DAY}", "lines_sum_to_total"),
    "lines_to_statement": (f"UPDATE billing.charge_day SET total = total + 1 {_OF_DAY}", None),
    "statement_to_ledger": ("UPDATE billing.statement_line SET amount = amount + 1 WHERE line_no = 1", None),
}


@pytest.fixture(scope="module")
def city(server: Database, template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """A meter whose register checks its intervals and one without intervals, billed for a period, with statements."""
    copy_database(server, "every_check", template.name)
    made = City(server.sibling("every_check"), tmp_path_factory.mktemp("every_check") / "city")
    game = Game(made, [Life(0, "checked", ()), Life(1, "register", ())])
    game.begin()
    game.take("issue")
    yield made
    with server.connect(autocommit=True) as connection:
        connection.execute(b"DROP DATABASE IF EXISTS every_check WITH (FORCE)")


@contextmanager
def altered(city: City, fault: str = "SELECT 1") -> Iterator[Connection]:
    """A session that has changed something behind the program's back, undone in the end."""
    with city.database.connect("fault") as connection:
        assert connection.execute(fault.encode()).rowcount > 0
        yield connection
        connection.rollback()


def failed(checks: pl.DataFrame) -> set[str]:
    return set(checks.filter(pl.col("cause") == "open")["joint"])


def test_every_reconciliation_check_has_a_fault_that_it_finds(city: City) -> None:
    assert set(PLANTED) == set(CHECKS)
    with altered(city) as connection:
        assert not failed(day_checks(connection, city.calendar, DAY))
        assert not failed(statement_checks(connection, "C1", day_of(0), END))


@pytest.mark.parametrize("check", PLANTED)
def test_a_planted_fault_fails_its_check(city: City, check: str) -> None:
    fault, of_asset = PLANTED[check]
    with altered(city, fault) as connection:
        if check in STATEMENT_CHECKS:
            assert check in failed(statement_checks(connection, "C1", day_of(0), END))
            return
        table = day_checks(connection, city.calendar, DAY)
        points = [
            point for (point,) in connection.execute("SELECT service_point_id FROM ref.service_points").fetchall()
        ]
        together = several_days_checks(connection, city.calendar, [day_of(0), DAY, day_of(2)], points)
        beside = day_checks(connection, city.calendar, day_of(2))
    assert check in failed(table)
    # Of several days at once: the same open rows of the same days.
    for day, alone in ((DAY, table), (day_of(2), beside)):
        mine = together.filter(pl.col("billing_day") == day).drop("billing_day")
        assert_frame_equal(mine, alone.filter((pl.col("cause") == "open") & pl.col("subject").is_in(points)))
    assert (check in failed(together)) == (check != "file_to_reads")
    report = BillingOutcome(DAY, reconciliation=table).report()
    assert {of_asset, "reconciliation"} <= {c.name for c in report.checks if not c.passed}


@pytest.mark.parametrize(
    "fault",
    [
        f"UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 1 {_OF_DAY}",
        f"DELETE FROM billing.determinant_day {_OF_DAY}",
        f"UPDATE billing.determinant_day SET energy[1] = energy[1] + 1 {_OF_DAY}",
        f"UPDATE billing.charge_day SET total = total + 1, amounts[1] = amounts[1] + 1 {_OF_DAY}",
        "UPDATE billing.statement_segment SET energy[1] = energy[1] + 1",
        # What a sealed day would explain explains nothing of days that no later read revised.
        (
            f"UPDATE billing.charge_day SET total = total + 10000, amounts[1] = amounts[1] + 10000 {_OF_DAY}; "
            "UPDATE billing.statement SET sealed_days_due = -0.01"
        ),
    ],
)
@pytest.mark.parametrize("few", [0, tables.FEW])
def test_the_law_fails_where_a_figure_was_altered(
    city: City, fault: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether bills are looked for by name or the days of a whole city are read."""
    monkeypatch.setattr(tables, "FEW", few)
    with altered(city, fault) as connection:
        assert not law_result(law(connection, DAY, day_of(2))).passed


def test_nothing_is_open_in_the_city_as_it_is_and_usage_that_was_altered_is_found(city: City) -> None:
    """Last: what it alters stays."""
    assert law_result(law_of_month(city.database, day_of(0).replace(day=1))).passed
    assert [c.passed for c in usage_report(city.database, city.calendar, DAY).checks] == [True]
    with city.database.connect("fault") as connection:
        connection.execute(f"UPDATE vee.daily_usage SET quantity_micro = quantity_micro + 1 {_OF_DAY}".encode())
    assert [c.name for c in usage_report(city.database, city.calendar, DAY).checks if not c.passed] == [
        "usage_is_validated"
    ]
    assert not law_result(law_of_month(city.database, day_of(0).replace(day=1))).passed
