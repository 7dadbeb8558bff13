"""Exports of the customer system, imported without a person where no issued money changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.corrections.apply import AppliedChanges, apply
from meter_pipeline.corrections.preview import preview_folder
from meter_pipeline.mapping import make_tables, read_mapping
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.faults import ReferenceRefused

#: Who an import without a person is recorded as.
ACTOR: Final = "customer_exports"


@dataclass(frozen=True, slots=True)
class ExportsOutcome:
    """Result of importing a folder of exports. ``changes``: cells that it changes; ``waits``: digest of the preview
    that two people must make, because money on issued bills changes; empty where it was imported."""

    changes: int
    waits: str = ""
    made: AppliedChanges = field(default_factory=AppliedChanges)


def listing(folder: Path) -> str:
    """One short key of a folder's exports, over their names and bytes; empty where there are none."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")) if folder.is_dir() else []
    if not files:
        return ""
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def import_exports(
    database: Database,
    calendar: BillingCalendar,
    mapping: Path,
    exports: Path,
    out: Path,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> ExportsOutcome:
    """Turn exports into tables as ``mapping`` declares, preview the import, and make it where no issued money changes.

    The tables are written to ``out``. Raises ReferenceRefused with every fault, file and line of the export, and
    MappingError for a declaration that cannot be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    made = make_tables(read_mapping(mapping), exports, out, calendar.zone)
    if made.faults:
        raise ReferenceRefused(list(made.faults))
    found = preview_folder(database, calendar, out, clock=clock)
    changes = len(found.document["changes"])
    if not changes:
        return ExportsOutcome(0)
    if found.issued:
        return ExportsOutcome(changes, found.digest.hex())
    why = f"exports {', '.join(sorted(p.name for p in exports.iterdir() if p.is_file()))}"[:400]
    return ExportsOutcome(changes, "", apply(database, found.digest, by=ACTOR, why=why, clock=clock))
