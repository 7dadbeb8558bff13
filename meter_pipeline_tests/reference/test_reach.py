"""The declared reach promises: every column is declared, and the stages read no column of reference data that
is not.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from meter_pipeline.billing import bill_billing_day
from meter_pipeline.billing.bill_run import issue_statements
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.history import RECORD_TIME
from meter_pipeline.reference.reach import BILL, REACHES, VALIDATE, Days
from meter_pipeline.schemas.reference import TABLES
from meter_pipeline.vee import validate_billing_day
from meter_pipeline_tests.corrections.town import FIRST, PERIODS, Town, town

DAYS = [FIRST + timedelta(days=k) for k in range(3)]


def test_every_column_says_what_it_reaches() -> None:
    documents = {"tariff_document": {"tariff_id", "version", "body", "sha256"}}
    assert {t: set(c) for t, c in REACHES.items()} == {n: set(t.columns) for n, t in TABLES.items()} | documents
    for table, columns in REACHES.items():
        for column, reach in columns.items():
            makes_money = {VALIDATE, BILL} & set(reach.stages)
            # Limits on estimates say which bills wait, rules of back-billing what of a later correction is charged.
            known = table in ("weather", "estimate_limits", "past_usage", "back_billing_rules")
            assert (reach.days == Days.NONE) == (not makes_money) or known, f"{table}.{column}"


@pytest.fixture
def city(database: Database, tmp_path: Path) -> Town:
    made = town(database, tmp_path / "town")
    made.days(DAYS[:2])
    made.reads(DAYS[2:])
    made.run_day(DAYS[2], bill=False)
    validate_billing_day(
        made.database, made.calendar, DAYS[2], clock=made.clock
    )  # who owns the tables makes partitions
    return made


def limited(database: Database, stage: str, without: tuple[str, str] | None = None) -> Database:
    """The database as a role that may do anything but read columns of ref that the stage is not declared to read."""
    role = "reach_test"
    with database.connect(autocommit=True) as connection:
        connection.execute(
            f"DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$".encode()
        )
        schemas = "raw, vee, billing, ledger, control, archive, anomaly, migration"
        connection.execute(f"GRANT USAGE ON SCHEMA ref, {schemas} TO {role}".encode())
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schemas} TO {role}".encode())
        connection.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schemas} TO {role}".encode())
        connection.execute(f"GRANT CREATE ON SCHEMA raw, vee, billing TO {role}".encode())
        connection.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA ref FROM {role}".encode())
        for table, columns in REACHES.items():
            named = [c for c, reach in columns.items() if stage in reach.stages and (table, c) != without]
            if named:
                listed = sql.SQL(", ").join(map(sql.Identifier, named))
                connection.execute(
                    sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(
                        listed, sql.Identifier("ref", table), sql.Identifier(role)
                    )
                )
    return database.acting_as(role)


def play(city: Town, database: Database, stage: str) -> None:
    if stage == VALIDATE:
        validate_billing_day(database, city.calendar, DAYS[2], clock=city.clock)
        return
    bill_billing_day(database, city.calendar, DAYS[2], clock=city.clock)
    issue_statements(database, city.calendar, "C1", PERIODS[0][1], clock=city.clock)


@pytest.mark.parametrize("stage", [VALIDATE, BILL])
def test_a_stage_reads_only_the_columns_that_are_declared_for_it(city: Town, stage: str) -> None:
    play(city, limited(city.database, stage), stage)


@pytest.mark.parametrize(
    ("stage", "table", "column"), [(VALIDATE, "channels", "multiplier"), (BILL, "agreements", "tariff_id")]
)
def test_a_column_that_is_read_and_not_declared_is_found(city: Town, stage: str, table: str, column: str) -> None:
    with pytest.raises(Exception, match=f"permission denied for table {table}") as found:
        play(city, limited(city.database, stage, (table, column)), stage)
    assert isinstance(found.value, psycopg.Error) or "adbc" in type(found.value).__module__


def test_record_time_is_no_column_that_a_stage_reads() -> None:
    everything: set[Any] = {c for columns in REACHES.values() for c in columns}
    assert not everything & RECORD_TIME
