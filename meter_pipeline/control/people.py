"""People: one spelling of each, and the duties that let them ask and confirm."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.tables import register
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import driver

#: ASCII only, lower case: no second spelling and no look-alike letter can pass for a second person. Same as
# control.person_name in SQL.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
DUTIES: Final = ("operator", "finance", "engineer", "auditor")


class Refused(Exception):
    """A steering action was refused and the refusal is on record. ``code`` is stable; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Denial:
    """Why an action may not go ahead: a stable code and words. Data, so that the refusal can be committed before anyone
    hears of it."""

    code: str
    words: str


def canonical(name: str) -> str | None:
    """A name in its one spelling (NFKC-folded, trimmed, lower case), or None where it cannot be a person.

    Full-width and other compatibility forms of ASCII letters are those letters; letters of other scripts that look
    alike are none.
    """
    folded = unicodedata.normalize("NFKC", name).strip()
    folded = folded.lower() if folded.isascii() else folded
    return folded if _NAME.fullmatch(folded) else None


#: Characters that look alike in a list of names (Unicode TR39, the part within ASCII).
_ALIKE: Final = (("rn", "m"), ("vv", "w"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"))


def skeleton(person: str) -> str:
    """Returns the visual form of a canonical name. A confirmer would confuse two people whose names look alike."""
    for seen, looks in _ALIKE:
        person = person.replace(seen, looks)
    return re.sub(r"[._-]", "", person)


def denial(connection: driver.Connection, name: str, duties: Sequence[str]) -> Denial | None:
    """Why this person may not act with one of these duties, or None if they may: the rule of control.may_decide.

    While the register is empty anyone may: a new installation must be able to resume. Once it names a person, a name
    outside it may do nothing; while it names no active person for any of the duties, any person of the register may.
    The status command says so.
    """
    if not register.has_people(connection):
        return None
    found = register.person(connection, name)
    if found is None or not found[1]:
        return Denial("not_authorised", f"{name} is not in the register of people")
    if not any(register.anybody_with(connection, duty) for duty in duties):
        return None
    if not set(found[0]) & set(duties):
        return Denial("not_authorised", f"{name} has no duty of {' or '.join(duties)}")
    return None


def put(
    connection: driver.Connection,
    name: str,
    duties: Sequence[str],
    *,
    by: str,
    active: bool = True,
    os_user: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> str:
    """Enter or change a person, in the caller's transaction and on the ledger. Raises ValueError naming what is
    wrong.
    """
    person, editor = canonical(name), canonical(by)
    if person is None or editor is None:
        raise ValueError(
            f"{name if person is None else by!r} is no name: lower-case ASCII letters, digits and . _ @ - only"
        )
    unknown = sorted(set(duties) - set(DUTIES))
    if unknown or not duties:
        raise ValueError(f"duties are {', '.join(DUTIES)}; not {', '.join(unknown) or 'none'}")
    if person == editor and register.people(connection):
        raise ValueError(f"{person} cannot change their own duties")
    alike = [
        p["person"]
        for p in register.people(connection)
        if p["person"] != person and skeleton(p["person"]) == skeleton(person)
    ]
    if alike:
        raise ValueError(f"{person} looks like {', '.join(alike)}: choose a name that cannot be taken for another")
    now = clock.now()
    register.put_person(connection, person, duties, active, editor, now)
    if os_user is not None:
        register.put_os_user(connection, person, os_user or None)
    entries.append(
        connection,
        "flag_flipped",
        {
            "flag": f"person:{person}",
            "to": {"duties": sorted(duties), "active": active} | ({} if os_user is None else {"os_user": os_user}),
            "by": editor,
        },
        clock=clock,
    )
    return person
