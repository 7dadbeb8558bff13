"""Who stands at the command line: a desk token, or the operating system user, and the shell session they act in."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from meter_pipeline.cli.output import problem
from meter_pipeline.control import decisions
from meter_pipeline.control.people import Refused
from meter_pipeline.control.tables import register
from meter_pipeline.postgres.database import Database
from meter_pipeline.settings import load_settings

#: A desk token; never an argument, which every user of the machine can read in the list of processes.
APPROVER_VARIABLE = "METER_PIPELINE_APPROVER_CODE"
TOKEN_VARIABLE = "METER_PIPELINE_TOKEN"  # noqa: S105 - the name of a variable


def acting(database: Database, action: str, subject: str, by: str, duties: Sequence[str]) -> str:
    """The person who takes a decision from here, in their one spelling: entitled, and proven once the register of
    people names a person. Raises Refused, on record."""
    return decisions.admit(database, action, subject, by, duties, _proof(database, by))


def acting_or_exit(database: Database, action: str, subject: str, by: str, duties: Sequence[str]) -> str:
    """As ``acting``; a refusal is said and ends the command with exit code 1."""
    try:
        return acting(database, action, subject, by, duties)
    except Refused as refusal:
        problem(str(refusal), "meter-pipeline people list")


def approving(database: Database, action: str, subject: str, approver: str, duties: Sequence[str]) -> str:
    """The second person named in a call, proven by a code they made in a session of their own. Raises Refused."""
    code = os.environ.get(APPROVER_VARIABLE) or None
    return decisions.admit(database, action, subject, approver, duties, decisions.Proof(code=code))


def _proof(database: Database, by: str) -> decisions.Proof:
    os_user = pwd.getpwuid(os.getuid()).pw_name
    with database.connect("identity", autocommit=True) as connection:
        register_has_people = register.has_people(connection)
        mapped = register.person_of_os_user(connection, os_user) if register_has_people else None
    if not register_has_people:
        return decisions.Proof()
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and mapped is None and sys.stdin.isatty():
        import getpass

        token = getpass.getpass(f"Desk token of {by}: ")
    return decisions.Proof(_owner_of(token) if token else None, None if token else os_user, None, _shell())


def _owner_of(token: str) -> str | None:
    """Whose desk token this is."""
    from meter_pipeline.desk.access import AccessError, from_environment

    try:
        return from_environment(load_settings().home / "desk", os.environ).owner_of(token)
    except AccessError as error:
        problem(str(error), "docs/operations.md, people")


def _shell() -> bytes:
    """The shell session of this process: its host and boot, session leader and when that began."""
    leader = os.getsid(0)
    boot = Path("/proc/sys/kernel/random/boot_id")
    stat = Path(f"/proc/{leader}/stat")
    # Field 22 is the start; the command before it stands in brackets and may hold blanks.
    begun = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else ""
    parts = (socket.gethostname(), boot.read_text().strip() if boot.exists() else "", str(leader), begun)
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
