"""Versions on the ledger: an entry when the program, a rule set or a head-end's declaration comes into use as it was
not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.tables import observations
from meter_pipeline.ledger import entries
from meter_pipeline.postgres.database import Database

_KIND: Final = "version_in_use"


@dataclass(frozen=True, slots=True)
class Version:
    """What is in use: the ``kind`` of its entry (code_version, rule_version, head_end_version), what it is a version
    of, and the body, whose ``sha256`` says whether it is the same as before."""

    kind: str
    subject: str
    body: dict[str, Any]


def note(database: Database, versions: Sequence[Version], *, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Record those that are new here, each once, with what is remembered of it in one transaction; returns their
    subjects."""
    with database.connect("versions") as connection:
        known = {row["subject"]: row["figures"] for row in observations.observations(connection, _KIND)}
        fresh = [one for one in versions if known.get(f"{one.kind} {one.subject}") != one.body]
        for one in fresh:
            observations.observe(connection, _KIND, f"{one.kind} {one.subject}", clock.now(), one.body)
            entries.append(connection, one.kind, one.body, actor="versions", clock=clock)
    return [one.subject for one in fresh]
