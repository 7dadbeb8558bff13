"""A billing day's checkpoint: sign what the day changed, verify it, say so.

Belongs here: the stage function of the ledger_checkpoint asset and its blocking check. Does not belong here: Dagster.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import privileges
from meter_pipeline.ledger.checkpoints import CheckpointOutcome, checkpoint
from meter_pipeline.ledger.plots import growth_plot
from meter_pipeline.ledger.signing import SignerClient
from meter_pipeline.ledger.sources import Hashers
from meter_pipeline.ledger.verification import VerifyOutcome, verify
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.settings import Settings
from meter_pipeline.store import ledger as store
from meter_pipeline.store.database import Database


@dataclass(frozen=True, slots=True)
class LedgerDay:
    """What became of a billing day in the ledger. ``growth`` is (UTC day, entries, leaves) of the whole log."""

    billing_day: date
    checkpoint: CheckpointOutcome
    verification: VerifyOutcome
    growth: list[tuple[date, int, int]]

    def report(self) -> StageReport:
        """For the run's metadata: size, root, signer, last witness; entries by kind; the log's growth; the blocking check."""
        made, found = self.checkpoint, self.verification
        witness = made.witness
        figures = {
            "size": made.size,
            "root": made.root.hex(),
            "signer": made.vkey,
            "origin": made.origin,
            "entries added": made.added,
            "last witness": f"{witness.name} at {witness.size} entries, {witness.at:%Y-%m-%d %H:%M}Z" if witness else "none yet",
            "time stamped": made.stamped,
            "checkpoint": made.note,
            "logins no guard binds": ", ".join(found.bypass),
        }
        shown = [(finding.check, finding.index, finding.detail) for finding in found.findings]
        checked = ", ".join(f"{count} {name}" for name, count in found.checked.items())
        about = "; ".join(f"{check} at {index}: {detail}" for check, index, detail in shown[:5]) or f"Verified from entry {found.start}: {checked}."
        kinds = pl.DataFrame({"kind": list(made.kinds), "entries": list(made.kinds.values())}, schema={"kind": pl.String, "entries": pl.Int64})
        tables = {"entries by kind": kinds}
        if shown:
            tables["findings"] = pl.DataFrame(shown, schema={"check": pl.String, "place": pl.Int64, "detail": pl.String}, orient="row")
        return StageReport(
            rows=made.added,
            figures=figures,
            tables=tables,
            plots={"ledger growth": growth_plot(self.growth)} if self.growth else {},
            checks=[
                Check(
                    "ledger_verifies",
                    found.ok,
                    about,
                    {"first_bad_index": found.first_bad_index, "findings": len(found.findings), "from": found.start, "size": found.size},
                )
            ],
        )


def checkpoint_billing_day(
    database: Database,
    day: date,
    *,
    settings: Settings,
    clock: Clock = SYSTEM_CLOCK,
    signer: SignerClient | None = None,
    hashers: Hashers | None = None,
    full: bool = False,
) -> LedgerDay:
    """The checkpoint after a billing day's work, then its verification: the log since it was last verified, the day's rows against their
    leaves (their content too where ``hashers`` are given, by encoding), the guards.

    Raises SignerRefusedError where the signer sees a shorter log or a fork. Running it again signs the same tree.
    """
    made = checkpoint(database, home=settings.home, utility=_utility_name(settings), signer=signer, billing_day=day, clock=clock)
    found = verify(database, home=settings.home, full=full, days=[day], hashers=hashers)
    with database.connect("meter-pipeline-ledger") as connection:
        growth = store.growth(connection)
    return LedgerDay(day, made, found, growth)


def accept_guards(database: Database, *, accepted_by: str, reason: str) -> int:
    """Record the guards as they now stand, after a migration or a restore that someone vouches for."""
    with database.connect("meter-pipeline-ledger") as connection:
        return privileges.record(connection, accepted_by=accepted_by, reason=reason)


def _utility_name(settings: Settings) -> str:
    return settings.utility().name
