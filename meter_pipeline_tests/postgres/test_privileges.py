"""Each database role can do what the manifest says and nothing else, table by table and verb by verb; and a few
refusals tried for real."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from meter_pipeline import database_roles
from meter_pipeline.control import pause
from meter_pipeline.control.people import Refused
from meter_pipeline.control.probe import PauseProbe
from meter_pipeline.postgres import privileges
from meter_pipeline.postgres.database import Database
from meter_pipeline_tests.control.test_pause import CHECKED
from meter_pipeline_tests.postgres.pause_attempts import try_everything
from meter_pipeline_tests.support import ROOT

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


def documented_logins(suffix: str) -> list[tuple[str, str]]:
    """Name and CREATE ROLE statement of every log-in of docs/operations.md, renamed so that tests do not meet."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    found = re.findall(r"^CREATE ROLE (svc_[a-z]+) ([^;]+);", text, re.MULTILINE)
    return [(f"{name}_{suffix}", f"CREATE ROLE {name}_{suffix} {rest.replace('...', 'x')}") for name, rest in found]


@pytest.fixture
def logins(granted: Database) -> Iterator[dict[str, str]]:
    suffix = uuid.uuid4().hex[:8]
    made = documented_logins(suffix)
    with granted.connect(autocommit=True) as connection:
        for _, statement in made:
            connection.execute(statement.encode())
    yield {name.rpartition("_")[0]: name for name, _ in made}
    with granted.connect(autocommit=True) as connection:
        for name, _ in made:
            connection.execute(f"DROP ROLE {name}".encode())


def test_no_service_log_in_ends_a_pause_whatever_role_it_takes(granted: Database, logins: dict[str, str]) -> None:
    """Every log-in of the documentation but the people's, in every role of the manifest it may take: none becomes
    finance, and none can write the decision, the end of the pause or the register."""
    pause.raise_pause(granted, reason="stop", by="ann")
    request = pause.request_resume(granted, reason="fixed", by="ann", checklist=CHECKED).request_id
    decide = (
        "INSERT INTO control.dual_decision (request_id, action, subject, requested_by, expires_at, decision, decided_by, decided_at, reason) "
        "SELECT request_id, action, subject, requested_by, expires_at, 'confirmed', 'ben', now(), 'x' FROM control.dual_request"
    )
    end = f"UPDATE control.emergency_pause SET state = 'resumed', resume_request = {request}, resume_decision = 'confirmed', resumed_at = now()"
    register = (
        "INSERT INTO control.person (person, duties, changed_by, changed_at) VALUES ('eve', '{finance}', 'eve', now())"
    )
    tried = 0
    for login in set(logins) - {"svc_people", "svc_deploy"}:
        for role in [None, *MANIFEST.roles]:
            for deed in (decide, end, register, "SET ROLE meter_finance", "SET ROLE meter_owner"):
                with granted.connect(autocommit=True) as connection:
                    connection.execute(f"SET SESSION AUTHORIZATION {logins[login]}".encode())
                    try:
                        if role is not None:
                            connection.execute(f"SET ROLE {role}".encode())
                    except psycopg.errors.InsufficientPrivilege:
                        continue
                    tried += 1
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(deed.encode())
    assert tried > 40
    with granted.connect(autocommit=True) as connection:
        assert pause.is_paused(connection) is not None


def test_no_database_role_ends_a_pause_by_any_statement(granted: Database) -> None:
    tried = try_everything(granted)
    assert set(tried) == set(database_roles.roles())
    assert min(tried.values()) > 30


def test_a_role_has_the_rights_of_another_and_does_not_become_it(granted: Database) -> None:
    """From PostgreSQL 16 on: meter_ingest writes ledger entries, and cannot act as the ledger's writer."""
    with granted.connect() as connection:
        if connection.info.server_version < 160000:
            pytest.skip("the server cannot grant a membership without SET")
        # As an administrator makes them, and twice: what was granted otherwise before is put right.
        connection.execute("GRANT meter_ledger_writer TO meter_ingest WITH SET TRUE")
        for _ in range(2):
            connection.execute(database_roles.administrators_script("postgres").encode())
        rows = connection.execute(
            "SELECT r.rolname, m.rolname, a.inherit_option, a.set_option FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid "
            "JOIN pg_roles m ON m.oid = a.member WHERE m.rolname = ANY (%s)",
            (list(MANIFEST.roles),),
        ).fetchall()
    assert rows
    assert {(inherits, becomes) for *_, inherits, becomes in rows} == {(True, False)}
