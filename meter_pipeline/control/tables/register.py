"""People with their duties and identities: accounts of the operating system, shells, codes, sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import dict_row

Connection: TypeAlias = psycopg.Connection[Any]


def person(connection: Connection, name: str) -> tuple[list[str], bool] | None:
    """The duties of a person and whether they may still act, or None."""
    row = connection.execute("SELECT duties, active FROM control.person WHERE person = %s", (name,)).fetchone()
    return (row[0], row[1]) if row else None


def anybody_with(connection: Connection, duty: str) -> bool:
    """Whether the register names an active person for a duty."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM control.person WHERE active AND %s = ANY (duties))", (duty,)
    ).fetchone()
    return bool(row and row[0])


def has_people(connection: Connection) -> bool:
    """Whether the register names a person, active or not."""
    row = connection.execute("SELECT EXISTS (SELECT FROM control.person)").fetchone()
    return bool(row and row[0])


def first_entry(connection: Connection) -> tuple[str, datetime] | None:
    """Who made the register's first entry still unchanged, and when."""
    return connection.execute(
        "SELECT changed_by, changed_at FROM control.person ORDER BY changed_at, person LIMIT 1"
    ).fetchone()


def person_of_os_user(connection: Connection, os_user: str) -> str | None:
    """The active person whom an operating system user proves."""
    row = connection.execute("SELECT person FROM control.person WHERE os_user = %s AND active", (os_user,)).fetchone()
    return str(row[0]) if row else None


def put_os_user(connection: Connection, name: str, os_user: str | None) -> None:
    connection.execute("UPDATE control.person SET os_user = %s WHERE person = %s", (os_user, name))


def take_shell(connection: Connection, shell: bytes, name: str, at: datetime) -> str:
    """Who acts in a shell session: this person where no person has before."""
    connection.execute(
        "INSERT INTO control.shell (shell, person, first_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (shell, name, at),
    )
    row = connection.execute("SELECT person FROM control.shell WHERE shell = %s", (shell,)).fetchone()
    return str(row[0]) if row else name


def put_code(connection: Connection, sha256: bytes, name: str, at: datetime, expires_at: datetime) -> None:
    connection.execute(
        "INSERT INTO control.sign_code (code_sha256, person, made_at, expires_at) VALUES (%s, %s, %s, %s)",
        (sha256, name, at, expires_at),
    )


def use_code(connection: Connection, sha256: bytes, at: datetime) -> str | None:
    """The person of a code that is still good, which it is no more after this; None for any other."""
    row = connection.execute(
        "SELECT person FROM control.sign_code WHERE code_sha256 = %s AND expires_at > %s", (sha256, at)
    ).fetchone()
    if row is None:
        return None
    used = connection.execute(
        "INSERT INTO control.sign_code_use (code_sha256, used_at) VALUES (%s, %s) ON CONFLICT DO NOTHING", (sha256, at)
    )
    return str(row[0]) if used.rowcount == 1 else None


def sessions_ended(connection: Connection, name: str) -> datetime | None:
    """Desk sessions of a person that began before this instant are over."""
    row = connection.execute("SELECT sessions_ended_at FROM control.person WHERE person = %s", (name,)).fetchone()
    return row[0] if row else None


def put_person(connection: Connection, name: str, duties: Sequence[str], active: bool, by: str, at: datetime) -> None:
    connection.execute(
        """INSERT INTO control.person (person, duties, active, changed_by, changed_at) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (person) DO UPDATE SET (duties, active, changed_by, changed_at)
             = (EXCLUDED.duties, EXCLUDED.active, EXCLUDED.changed_by, EXCLUDED.changed_at)""",
        (name, sorted(duties), active, by, at),
    )
    if not active:
        connection.execute("UPDATE control.person SET sessions_ended_at = clock_timestamp() WHERE person = %s", (name,))


def people(connection: Connection) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT person, duties, active, changed_by, changed_at FROM control.person ORDER BY person"
        ).fetchall()
