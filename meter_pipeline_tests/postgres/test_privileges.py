"""Each database role can do what the manifest says and nothing else, table by table and verb by verb; and a few
refusals tried for real."""

from __future__ import annotations

import psycopg
import pytest

from meter_pipeline.control import pause
from meter_pipeline.control.people import Refused
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.control.test_pause import CHECKED

MANIFEST = privileges.load()


@pytest.fixture
def granted(database: Database) -> Database:
    privileges.apply(database)
    return database


def test_the_database_agrees_with_the_manifest_and_applying_twice_changes_nothing(granted: Database) -> None:
    with granted.connect() as connection:
        assert privileges.differences(connection, MANIFEST) == []
    privileges.apply(granted)
    with granted.connect() as connection:
        assert privileges.differences(connection, MANIFEST) == []
        connection.execute("GRANT DELETE ON raw.dead_letter TO meter_billing")
        assert privileges.differences(connection, MANIFEST) == [
            "meter_billing on raw.dead_letter: has DELETE SELECT, should have SELECT"
        ]


def test_every_table_is_named_for_the_auditor_and_no_one_else_is_left_out(granted: Database) -> None:
    with granted.connect() as connection:
        unnamed = [
            f"{s}.{t}" for s, t in privileges.tables(connection) if not MANIFEST.verbs_for("meter_auditor", s, t)
        ]
    assert unnamed == []


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("meter_ingest", "UPDATE billing.reconciliation SET items = 0"),
        ("meter_ingest", "UPDATE control.emergency_pause SET state = 'resumed'"),
        (
            "meter_ingest",
            "INSERT INTO control.person (person, duties, changed_by, changed_at) VALUES ('eve', '{finance}', 'eve', now())",
        ),
        ("meter_billing", "UPDATE raw.dead_letter SET status = 'dismissed'"),
        ("meter_billing", "DELETE FROM vee.interval_day"),
        ("meter_finance", "UPDATE raw.interval_day SET slots = 1"),
        (
            "meter_finance",
            "INSERT INTO control.person (person, duties, changed_by, changed_at) VALUES ('eve', '{finance}', 'eve', now())",
        ),
        ("meter_auditor", "UPDATE raw.dead_letter SET status = 'dismissed'"),
        (
            "meter_auditor",
            "INSERT INTO control.refusal (refused_at, action, subject, actor, code, detail) VALUES (now(), 'a', 's', 'a', 'c', 'd')",
        ),
        ("meter_owner", "DELETE FROM ledger.entry"),
    ],
)
def test_what_a_role_may_not_do_is_refused(granted: Database, role: str, statement: str) -> None:
    with granted.connect(role=role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_service_raises_the_pause_and_cannot_end_it(granted: Database) -> None:
    """The ingest role raises, adds evidence (which takes a request back) and polls; the decision is refused by row
    security."""
    ingest = granted.acting_as("meter_ingest")
    pause.raise_pause(ingest, reason="stop", by="ingest-service")
    with granted.connect(role="meter_finance") as connection:
        assert pause.is_paused(connection) is not None
    with PauseProbe(granted, role="meter_ingest") as probe:
        assert probe.check() is not None
    request = pause.request_resume(granted, reason="fixed", by="ann", checklist=CHECKED).request_id
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pause.confirm_resume(ingest, request, by="bob")
    pause.raise_pause(ingest, reason="more", by="ingest-service")
    with pytest.raises(Refused, match="withdrawn"):
        pause.confirm_resume(granted, request, by="bob")


def test_finance_resumes_with_its_own_role(granted: Database) -> None:
    finance = granted.acting_as("meter_finance")
    pause.raise_pause(finance, reason="stop", by="ann")
    request = pause.request_resume(finance, reason="fixed", by="ann", checklist=CHECKED).request_id
    pause.confirm_resume(finance, request, by="bob")
    with granted.connect() as connection:
        assert pause.is_paused(connection) is None


def test_a_partition_is_made_by_a_service_without_owning_the_table(granted: Database) -> None:
    with granted.connect(role="meter_ingest") as connection:
        made = connection.execute("SELECT raw.open_partition('raw.interval_day'::regclass, '2026-02-28')").fetchone()
        assert made == ("created",)
        connection.execute("SELECT count(*) FROM raw.interval_day_20260228")
        connection.execute("SELECT raw.attach_partition('raw.interval_day'::regclass, '2026-02-28')")
    with granted.connect(role="meter_auditor") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT raw.open_partition('raw.interval_day'::regclass, '2026-03-01')")
