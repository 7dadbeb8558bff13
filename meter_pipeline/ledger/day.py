"""The ledger's part of a billing day: verify the inputs of the bills, then sign the day's changes and verify them.

Each verification continues from the last one, so that the second costs only what billing wrote. Reads and validated
days are matched with their leaves, and hashed again from their content, before billing; charges and statements after
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import polars as pl

from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.ledger import privileges
from meter_pipeline.ledger.checkpoints import CheckpointOutcome, checkpoint, keys_file, order
from meter_pipeline.ledger.outcome import VerifyOutcome
from meter_pipeline.ledger.plots import growth_plot
from meter_pipeline.ledger.row_rules import Hasher
from meter_pipeline.ledger.signing import signer_client
from meter_pipeline.ledger.sources import BEFORE_BILLING, SOURCES, Source
from meter_pipeline.ledger.tables import entries
from meter_pipeline.ledger.verification import verify
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class LedgerDay:
    """Result of a billing day's checkpoint. ``growth`` is (UTC day, entries, leaves) of the whole log."""

    billing_day: date
    checkpoint: CheckpointOutcome
    verification: VerifyOutcome
    growth: list[tuple[date, int, int]]

    def report(self) -> StageReport:
        """For the run's metadata: size, root, signer, last witness; entries by kind; the log's growth; the blocking
        check."""
        made, found = self.checkpoint, self.verification
        witness = made.witness
        figures = {
            "size": made.size,
            "root": made.root.hex(),
            "signer": made.vkey,
            "origin": made.origin,
            "entries added": made.added,
            "last witness": f"{witness.name} at {witness.size} entries, {witness.at:%Y-%m-%d %H:%M}Z"
            if witness
            else "none yet",
            "time stamped": made.stamped,
            "checkpoint": made.note,
            "logins no guard binds": ", ".join(found.bypass),
        }
        shown, result = _rows_and_check(found)
        kinds = pl.DataFrame(
            {"kind": list(made.kinds), "entries": list(made.kinds.values())},
            schema={"kind": pl.String, "entries": pl.Int64},
        )
        tables = {"entries by kind": kinds}
        if shown:
            tables["findings"] = pl.DataFrame(shown, schema=_FINDING, orient="row")
        return StageReport(
            rows=made.added,
            figures=figures,
            tables=tables,
            plots={"ledger growth": growth_plot(self.growth)} if self.growth else {},
            checks=[result],
        )


@dataclass(frozen=True, slots=True)
class LedgerBefore:
    """Result of the verification of a day's bill inputs. ``vkey``: the signer of the latest checkpoint, where there
    is one."""

    billing_day: date
    verification: VerifyOutcome
    ordered: int
    vkey: str | None

    def report(self) -> StageReport:
        """For the run's metadata: size, root, signer, last witness, what was checked; the blocking check."""
        found = self.verification
        shown, result = _rows_and_check(found)
        witness = found.witness
        figures = {
            "size": found.size,
            "root": found.root.hex(),
            "signer": self.vkey or "nothing signed yet",
            "entries ordered": self.ordered,
            "last witness": f"{witness.name} at {witness.size} entries, {witness.at:%Y-%m-%d %H:%M}Z"
            if witness
            else "none yet",
        } | {f"checked: {name}": count for name, count in found.checked.items()}
        tables = {"findings": pl.DataFrame(shown, schema=_FINDING, orient="row")} if shown else {}
        return StageReport(rows=found.size - found.start, figures=figures, tables=tables, checks=[result])


_FINDING: Final = {"check": pl.String, "place": pl.Int64, "detail": pl.String}


def _rows_and_check(found: VerifyOutcome) -> tuple[list[tuple[str, int | None, str]], Check]:
    """Returns the findings as rows, and the check."""
    shown = [(finding.check, finding.index, finding.detail) for finding in found.findings]
    checked = ", ".join(f"{count} {name}" for name, count in found.checked.items())
    about = (
        "; ".join(f"{check} at {index}: {detail}" for check, index, detail in shown[:5])
        or f"Verified from entry {found.start}: {checked}."
    )
    figures = {
        "first_bad_index": found.first_bad_index,
        "findings": len(shown),
        "from": found.start,
        "size": found.size,
    }
    return shown, Check("ledger_verifies", found.ok, about, figures)


def verify_before_billing(
    database: Database,
    day: date,
    *,
    settings: Settings,
    clock: Clock = SYSTEM_CLOCK,
    hashers: Mapping[str, Hasher] | None = None,
    points: Sequence[str] | None = None,
) -> LedgerBefore:
    """Sequence the entries of reads and validation, verify them from the last verification on, and match the day's
    reads and validated rows with their leaves (their content too where ``hashers`` are given). The checkpoint after
    billing signs them. ``points``: the service points that will be billed, where these are a part; only their rows are
    checked.

    This finds a read that was changed without an entry, and a row without an entry: no bill may be computed from it.
    Raises SequencerBusyError.
    """
    # It is asked after billing, and takes a moment to start.
    signer_client(settings.home / "keys").start()
    ordered = order(database, utility=_utility_name(settings), clock=clock)
    found = verify(database, home=settings.home, days=[day], hashers=hashers, sources=BEFORE_BILLING, points=points)
    known_keys = keys_file(settings.home, ordered.origin)
    vkeys = known_keys.read_text("utf-8").split() if known_keys.exists() else []
    return LedgerBefore(day, found, ordered.added, vkeys[-1] if vkeys else None)


def checkpoint_billing_day(
    database: Database,
    day: date,
    *,
    settings: Settings,
    clock: Clock = SYSTEM_CLOCK,
    hashers: Mapping[str, Hasher] | None = None,
    full: bool = False,
    sources: Sequence[Source] = SOURCES,
    points: Sequence[str] | None = None,
) -> LedgerDay:
    """Make the checkpoint after a billing day's work, then verify: the log since the last verification, the day's rows
    against their leaves (their content too where ``hashers`` are given, by encoding), the guards. ``sources``:
    AFTER_BILLING where verify_before_billing has checked the rest. ``points``: the service points that were billed,
    where these are a part.

    Raises SignerRefusedError where the signer sees a shorter log or a fork. Running it again signs the same tree.
    """
    made = checkpoint(database, home=settings.home, utility=_utility_name(settings), billing_day=day, clock=clock)
    found = verify(database, home=settings.home, full=full, days=[day], hashers=hashers, sources=sources, points=points)
    with database.connect("meter-pipeline-ledger") as connection:
        growth = entries.growth(connection)
    return LedgerDay(day, made, found, growth)


def accept_guards(database: Database, *, accepted_by: str, reason: str) -> int:
    """Record the present guards, after a migration or a restore that a person confirms."""
    with database.connect("meter-pipeline-ledger") as connection:
        return privileges.record(connection, accepted_by=accepted_by, reason=reason)


def _utility_name(settings: Settings) -> str:
    return settings.utility().name
