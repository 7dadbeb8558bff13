"""Who may take a decision, asked by every door: the desk, the command line, jobs and the rooms themselves.

Two questions. May this name decide this (``entitled``: the register of people and its duties)? And is it that person
(``prove``: a desk token, the operating system user, a code made for a job)? The rooms ask the first in the decision's
own transaction, and the database asks it again (control.may_decide). Doors through which a name is typed ask the
second. While the register of people is empty, a name that is typed is believed: the demo, and the first hour of a
deployment.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.flags import Flag
from meter_pipeline.control.people import Denial, Refused, canonical, denial
from meter_pipeline.control.tables import dual_requests, register
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection

#: Who works the queues, who decides about money, who edits reads, who acts on the migration.
WORK: Final = ("finance", "operator", "engineer")
FINANCE: Final = ("finance",)
EDITS: Final = ("operator", "engineer")
#: How long a code for a job is good: to copy it from one window to another.
CODE_LIFE: Final = timedelta(minutes=10)
#: For so long the one who made the register's first entry may go on filling it.
FIRST_HOUR: Final = timedelta(hours=1)

#: Sum of absolute amounts, in the currency, above which a second person decides an adjustment. About a quarter of a
#: household's monthly bill: routine re-estimates pass, a mistake in a tariff does not. Two people change it; the
#: database reads it (control.adjustment_limit) and takes no other.
ADJUSTMENT_THRESHOLD: Final = Flag("adjustment_threshold", "50.00", needs_two=lambda before, after: True)


@dataclass(frozen=True, slots=True)
class Proof:
    """How a person proves who they are. ``token_of``: whose desk token was given; ``os_user``: the operating system
    user of the process; ``code``: a code made for a job; ``shell``: 32 bytes that name the shell session, None where
    there is none."""

    token_of: str | None = None
    os_user: str | None = None
    code: str | None = None
    shell: bytes | None = None


def entitled(connection: Connection, by: str, duties: Sequence[str]) -> str:
    """The person in their one spelling. Raises Refused: bad_name, not_authorised. Nothing is written."""
    person = canonical(by)
    if refused := denial(connection, person or by, duties):
        raise Refused(refused.code, refused.words)
    if person is not None:
        return person
    # With an empty register a name is unproven; one with look-alike letters is refused even so.
    plain = unicodedata.normalize("NFKC", by).strip()
    if not plain or not plain.isascii() or not plain.isprintable():
        raise Refused("bad_name", f"{by!r} is no name: ASCII letters, digits and . _ @ - only")
    return plain


def prove(connection: Connection, person: str, proof: Proof, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Raises Refused (not_proven, two_names) unless the proof is this person's; with an empty register nothing is
    asked.

    A shell belongs to the person who proves themself in it first: who holds two people's tokens does not act as both in
    one shell. In the caller's transaction.
    """
    if not register.has_people(connection):
        return
    if proof.code is not None:
        found = register.use_code(connection, hashlib.sha256(proof.code.strip().encode()).digest(), clock.now())
    else:
        found = proof.token_of
        if found is None and proof.os_user is not None:
            found = register.person_of_os_user(connection, proof.os_user)
    if found is None:
        raise Refused(
            "not_proven",
            f"prove that you are {person}: a desk token in METER_PIPELINE_TOKEN, or your operating system user in the "
            "register (people put --os-user); in a job, a code of  meter-pipeline people code",
        )
    if found != person:
        raise Refused("not_proven", f"the proof given is {found}'s, not {person}'s")
    if (
        proof.shell is not None
        and (first := register.take_shell(connection, proof.shell, person, clock.now())) != person
    ):
        raise Refused("two_names", f"{first} acts in this shell; {person} decides in a session of their own")


def admit(
    database: Database,
    action: str,
    subject: str,
    by: str,
    duties: Sequence[str],
    proof: Proof,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """The person who comes through a door by a typed name: entitled and proven. Commits. Raises Refused, on record."""
    with database.connect("decisions") as connection:
        try:
            person = entitled(connection, by, duties)
            prove(connection, person, proof, clock=clock)
        except Refused as refusal:
            why = Denial(refusal.code, str(refusal))
            connection.rollback()
            record(connection, action, subject, by, why, clock)
            connection.commit()
            raise
        connection.commit()
    return person


def record(
    connection: Connection, action: str, subject: str, by: str, why: Denial, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Put a refusal on record, in the caller's transaction."""
    # PostgreSQL stores no NUL and no lone surrogate, and the name is text that a person typed.
    actor = by.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")[:200]
    dual_requests.insert_refusal(connection, action, subject[:200], actor, why.code, why.words, clock.now())


def make_code(connection: Connection, person: str, *, clock: Clock = SYSTEM_CLOCK) -> str:
    """A code by which a person who has proven themself does so once in a job, in the caller's transaction."""
    code = secrets.token_urlsafe(12)
    now = clock.now()
    register.put_code(connection, hashlib.sha256(code.encode()).digest(), person, now, now + CODE_LIFE)
    return code


def may_fill_register(connection: Connection, editor: str, *, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Whether a person may still enter people unproven: the register is empty, or its first entry is theirs and of this
    hour."""
    first = register.first_entry(connection)
    return first is None or (first[0] == canonical(editor) and clock.now() - first[1] < FIRST_HOUR)
