"""Every way that SQL offers of ending a pause, tried by log-ins that have one role each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import psycopg
from psycopg import sql

from meter_pipeline import database_roles
from meter_pipeline.control import pause
from meter_pipeline.postgres.database import Database

DECIDE = (
    "INSERT INTO control.dual_decision (request_id, action, subject, requested_by, expires_at, decision, decided_by, decided_at, reason) "
    "SELECT request_id, action, subject, requested_by, expires_at, 'confirmed', 'ben', now(), 'x' FROM control.dual_request ORDER BY request_id DESC LIMIT 1"
)
ASK = (
    "INSERT INTO control.dual_request (action, subject, body, digest, reason, requested_by, requested_at, expires_at) "
    "SELECT 'resume', resume_subject, '{}', sha256('x'), 'x', 'ana', now(), now() + interval '1 h' FROM control.emergency_pause WHERE state = 'paused'"
)
END = (
    "UPDATE control.emergency_pause AS p SET state = 'resumed', resume_request = q.request_id, resume_decision = 'confirmed', resumed_at = now() "
    "FROM control.dual_request AS q WHERE q.subject = p.resume_subject AND p.state = 'paused'"
)
#: Each deed is the statements of one transaction.
DEEDS: Sequence[Sequence[str]] = (
    (END,),
    (DECIDE, END),
    (ASK, DECIDE, END),
    (
        "INSERT INTO control.person (person, duties, changed_by, changed_at) VALUES ('eve', '{finance}', 'eve', now())",
        END,
    ),
    ("UPDATE control.emergency_pause SET state = 'resumed', resumed_at = now()",),
    ("DELETE FROM control.emergency_pause",),
    ("TRUNCATE control.emergency_pause CASCADE",),
    ("ALTER TABLE control.emergency_pause DISABLE TRIGGER ALL", END),
    ("ALTER TABLE control.emergency_pause RENAME TO gone",),
    ("DROP TABLE control.emergency_pause CASCADE",),
    ("SET session_replication_role = replica", ASK, DECIDE, END),
    ("SET row_security = off", ASK, DECIDE, END),
    ("SET ROLE meter_finance", ASK, DECIDE, END),
    ("SET ROLE meter_owner", ASK, DECIDE, END),
    ("SET ROLE meter_ledger_owner", ASK, DECIDE, END),
    ("RESET ROLE", ASK, DECIDE, END),
    ("GRANT meter_finance TO CURRENT_USER", "SET ROLE meter_finance", ASK, DECIDE, END),
)


def logins_of_one_role(administrator: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    """A log-in for each database role, member of that role alone: role -> log-in. For the caller to drop."""
    made = {}
    for role in database_roles.roles():
        login = f"only_{role.removeprefix('meter_')}_{uuid.uuid4().hex[:6]}"
        administrator.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOINHERIT IN ROLE {}").format(sql.Identifier(login), sql.Identifier(role))
        )
        made[role] = login
    return made


def try_everything(administrator: Database, person: str = "ann") -> dict[str, int]:
    """Raise a pause, let every role try every deed as itself and with whatever roles it can take, and see that the
    pause stands: role -> deeds tried. ``administrator`` is a superuser's."""
    pause.raise_pause(administrator, reason="stop", by=person)
    tried: dict[str, int] = {}
    with administrator.connect(autocommit=True) as connection:
        logins = logins_of_one_role(connection)
    try:
        for role, login in logins.items():
            for deed in DEEDS:
                for taken in (role, None):
                    attempt(administrator, login, taken, deed)
                    tried[role] = tried.get(role, 0) + 1
            with administrator.connect() as connection:
                standing = connection.execute("SELECT count(*) FROM control.emergency_pause WHERE state = 'paused'")
                assert standing.fetchone() == (1,), f"{role} ended the pause"
    finally:
        with administrator.connect(autocommit=True) as connection:
            for login in logins.values():
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))
    return tried


def attempt(administrator: Database, login: str, role: str | None, deed: Sequence[str]) -> None:
    """One transaction of a log-in, in a role; what the server refuses is refused, and what it does not is committed."""
    with administrator.connect() as connection:
        connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(login)))
        if role is not None:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        connection.commit()
        try:
            for statement in deed:
                connection.execute(statement.encode())
            connection.commit()
        except psycopg.Error:
            connection.rollback()
