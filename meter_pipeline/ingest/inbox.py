"""Lands the inbox: folders of files by head-end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import PauseProbe
from meter_pipeline.feeds.head_ends import HeadEnd, read_head_ends
from meter_pipeline.ingest import plain_files
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.landing import FileFolders, IdentityTaken, Landed, Prepared, prepare_file, register
from meter_pipeline.ingest.plots import files_plot
from meter_pipeline.ingest.tables import raw
from meter_pipeline.ingest.writer import PauseCheck
from meter_pipeline.postgres import driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.report import StageReport
from meter_pipeline.settings import Settings

_LOG: Final = logging.getLogger(__name__)
#: Files read at once: one a core of a small machine. Each holds its reads, some 30 MB for half a million.
AT_ONCE: Final = 2
#: State of the pause that stops a file's landing, as PauseProbe gives it
PauseState: TypeAlias = Any


@dataclass(slots=True)
class LandingOutcome:
    """Result of landing an inbox. ``postponed``: files that could not be read now (growing, unknown head-end), path
    and reason; they are tried again."""

    landed: list[Landed] = field(default_factory=list)
    postponed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def days(self) -> list[date]:
        """Billing days that wait because of these files."""
        return sorted({day for one in self.landed for day in one.days})

    def report(self) -> StageReport:
        """For Dagster and the CLI."""
        new = [one for one in self.landed if not one.duplicate]
        figures = {
            "files": len(self.landed),
            "duplicates": len(self.landed) - len(new),
            "held": len(self.postponed),
            "reads": sum(f.received for f in new),
            "reads_rejected": sum(f.rejected for f in new),
            "dead_letters": sum(f.dead_letters for f in new),
            "refused": sum(f.refused is not None for f in new),
            "billing_days": len(self.days),
            "stated_differences": sum(f.stated_differences for f in new),
        }
        files = pl.DataFrame(
            [
                (f.file_name, f.head_end, f.received, f.rejected, f.dead_letters, len(f.days), _note(f))
                for f in self.landed
            ],
            schema={
                "file": pl.String,
                "head_end": pl.String,
                "reads": pl.Int64,
                "rejected": pl.Int64,
                "dead_letters": pl.Int64,
                "days": pl.Int64,
                "note": pl.String,
            },
            orient="row",
        )
        postponed = pl.DataFrame(self.postponed, schema={"file": pl.String, "why": pl.String}, orient="row")
        fresh = files.filter(pl.col("note") != "duplicate")
        tables = {name: t.head(200) for name, t in (("files", files), ("held", postponed)) if t.height}
        return StageReport(len(new), figures, tables, {"reads by file": files_plot(fresh)} if fresh.height else {})


def _note(file: Landed) -> str:
    """Returns the note for people about a landed file, beyond its counts."""
    stated = (
        f"{file.stated_differences} stated quantities differ from their dials: raw.stated_difference"
        if file.stated_differences
        else ""
    )
    return "duplicate" if file.duplicate else file.refused or stated


def new_files(database: Database, inbox: Path, names: Sequence[str] | None = None) -> list[str]:
    """Returns the plain files of an inbox (all by default) that were not landed with this name, size and
    modification time."""
    found = [entry for entry in plain_files.entries(inbox) if entry.fault is None]
    if names is not None:
        wanted = set(names)
        found = [entry for entry in found if entry.path in wanted]
    if not found:
        return []
    with database.connect("landing") as connection:
        seen = raw.seen_names(connection, [plain_files.shown(entry.path) for entry in found])
    return [e.path for e in found if (e.size, e.modified_ns) not in seen.get(plain_files.shown(e.path), ())]


def waiting_days(database: Database) -> list[tuple[date, list[bytes]]]:
    """Billing days with reads staged and not loaded, and the hashes of the files they wait in."""
    with database.connect("landing") as connection:
        return raw.waiting_days(connection)


#: How long before the first billing day a read still opens it: two bimonthly reads that were missed.
_OPENING: Final = timedelta(days=130)


def opening_days(database: Database, first: date) -> list[date]:
    """Days before the first billing day with reads staged and not loaded, in order: the reads that open the
    first day.
    """
    return [day for day, _ in waiting_days(database) if first - _OPENING <= day < first]


def land_inbox(
    database: Database,
    calendar: BillingCalendar,
    settings: Settings,
    *,
    clock: Clock = SYSTEM_CLOCK,
    run_id: str | None = None,
) -> LandingOutcome:
    """Land every new file of the settings' inbox. A bad file is refused by itself. A file of an undeclared head-end,
    and an entry that is not a plain file (a link, a pipe), is postponed and not read.

    A pause stops landing too: the remaining files are left for the next call.
    """
    outcome = LandingOutcome()
    outcome.postponed += [
        (plain_files.shown(e.path), e.fault) for e in plain_files.entries(settings.inbox) if e.fault is not None
    ]
    names = new_files(database, settings.inbox)
    if not names:
        return outcome
    landing = _Landing(
        outcome,
        database,
        calendar,
        settings.inbox,
        {name.upper(): head_end for name, head_end in read_head_ends(settings.head_ends).items()},
        FileFolders(settings.archive, settings.staging),
        Declared.of(raw.channels(database), raw.dated_channels(database)),
        clock,
        run_id,
    )
    with PauseProbe(database, application_name="landing-pause", clock=clock) as pause:
        landing.land_all(names, pause)
    return outcome


@dataclass(slots=True)
class _Landing:
    """The shared state of one landing of an inbox."""

    outcome: LandingOutcome
    database: Database
    calendar: BillingCalendar
    inbox: Path
    by_folder: dict[str, HeadEnd]
    places: FileFolders
    channels: Declared
    clock: Clock
    run_id: str | None

    def land_all(self, names: Sequence[str], pause: PauseCheck) -> None:
        """Read, pack and stage several files in parallel and ahead (numba, Polars and hashing release the GIL).
        Register them one after another in the order of their names, each after another check of the pause: so the
        register and the ledger do not depend on the number of threads."""
        ahead: deque[tuple[str, HeadEnd | None, Future[Prepared] | PauseState | None]] = deque()
        waiting = iter(names)
        with ThreadPoolExecutor(AT_ONCE, "landing") as pool:
            for _ in range(len(names)):
                for name in islice(waiting, AT_ONCE + 1 - len(ahead)):
                    head_end = self.by_folder.get(name.split("/", 1)[0].upper())
                    coming: Future[Prepared] | PauseState | None = None
                    if head_end is not None:
                        coming = pause.check(head_end.commodity, head_end.name)
                        if coming is None:
                            coming = pool.submit(self._prepare, name, head_end)
                    ahead.append((name, head_end, coming))
                self._land_one(pause, *ahead.popleft())

    def _prepare(self, name: str, head_end: HeadEnd) -> Prepared:
        return prepare_file(
            self.database,
            self.calendar,
            self.inbox / name,
            head_end,
            self.places,
            self.clock.now(),
            name=plain_files.shown(name),
            channels=self.channels,
            run_id=self.run_id,
        )

    def _land_one(
        self, pause: PauseCheck, name: str, head_end: HeadEnd | None, coming: Future[Prepared] | PauseState | None
    ) -> None:
        hold = self.outcome.postponed.append
        called = plain_files.shown(name)
        if head_end is None:
            hold((called, f"no head-end {called.split('/', 1)[0]} is declared"))
            return
        try:
            if isinstance(coming, Future):
                prepared = coming.result()
                coming = pause.check(head_end.commodity, head_end.name)
                if coming is None:
                    self.outcome.landed.append(self._register(name, head_end, prepared))
                    return
            hold((called, coming.words() if coming is not None and hasattr(coming, "words") else "paused"))
        except driver.Error:
            raise
        except (OSError, ValueError) as error:
            hold((called, str(error)))
        except Exception as error:
            # One file that a parser ends on costs only itself; it is tried again, and the log has where it ended.
            if getattr(error, "code", None) != "file_growing":
                _LOG.exception("%s could not be read", called)
            hold((called, f"could not be read: {type(error).__name__}: {error}"))

    def _register(self, name: str, head_end: HeadEnd, prepared: Prepared) -> Landed:
        try:
            return register(self.database, prepared, self.places, clock=self.clock)
        except IdentityTaken:
            return register(self.database, self._prepare(name, head_end), self.places, clock=self.clock)
