"""A billing day's reads into the raw store, exactly once: the function behind the raw_reads asset.

One run at a time holds a day, by an advisory lock that waits; should that lock's connection die while its batches live
on, the next run's epoch fences them off. A run killed anywhere leaves committed batches, which raw.load_batch names;
the next run does the rest. A day loaded for the first time becomes visible at once when its partition is attached,
after its last batch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control import PauseProbe
from meter_pipeline.control.watch import observe_breaker
from meter_pipeline.feeds.head_ends import HeadEnd, read_head_ends
from meter_pipeline.ingest import plan, read_again, staging
from meter_pipeline.ingest.breaker import Breaker
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.dead_letter_rows import finish_letters, payload_letters
from meter_pipeline.ingest.landing import FileFolders
from meter_pipeline.ingest.staging import StagedDay
from meter_pipeline.ingest.tables import load, raw
from meter_pipeline.ingest.tables.load import INTERVAL, Kind
from meter_pipeline.ingest.writer import BREAKER, PauseCheck, WriterCounts, Writers
from meter_pipeline.ledger import entries
from meter_pipeline.postgres import day_lock, driver
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.day_lock import DayLock
from meter_pipeline.schemas.report import Check, StageReport
from meter_pipeline.settings import Settings


@dataclass(slots=True)
class IngestOutcome:
    """Result of a run of a billing day: reads by outcome, one row of ``files`` per feed file, the controller's history,
    the writers' figures."""

    day: date
    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    superseded: int = 0
    rejected: int = 0
    payloads: int = 0
    files: pl.DataFrame = field(default_factory=pl.DataFrame)
    totals: pl.DataFrame = field(default_factory=pl.DataFrame)
    controller: pl.DataFrame = field(default_factory=pl.DataFrame)
    writers: WriterCounts = field(default_factory=WriterCounts)
    retries: int = 0
    breaker_opened: int = 0
    target_ms: float = 50.0

    @property
    def balanced(self) -> bool:
        """Whether every file that touches the day has received = accepted + duplicate + superseded + rejected (+
        waiting for other days)."""
        return bool(self.totals["balanced"].all()) if self.totals.height else True

    def report(self) -> StageReport:
        """For Dagster and the CLI: figures, tables, the controller's plot, the control-total check."""
        from meter_pipeline.ingest.plots import controller_plot

        latencies = sorted(self.writers.latencies_ms)
        p99 = latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] if latencies else None
        figures: dict[str, Any] = {
            "received": self.received,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "superseded": self.superseded,
            "rejected": self.rejected,
            "payloads": self.payloads,
            "files": self.files.height,
            "batches": self.writers.batches,
            "megabytes_written": round(self.writers.bytes / 1e6, 2),
            "write_p99_ms": None if p99 is None else round(p99, 1),
            "retries": self.retries,
            "breaker_opened": self.breaker_opened,
            "waited_for_pause_s": round(self.writers.waited_s, 1),
            "already_committed": self.writers.already,
        }
        tables = {"files": self.files, "controller": self.controller}
        broken = self.totals.filter(~pl.col("balanced")) if self.totals.height else self.totals
        check = Check(
            "control_totals",
            self.balanced,
            "Per file: received = accepted + duplicate + superseded + rejected (+ reads of days that still wait).",
            {
                "files": self.totals.height,
                "broken": broken.height,
                "names": ", ".join(broken["file_name"].to_list()[:5]) if broken.height else "",
            },
        )
        plots = {"controller": controller_plot(self.controller, self.target_ms)} if self.controller.height > 1 else {}
        return StageReport(self.accepted, figures, {k: t for k, t in tables.items() if t.height}, plots, [check])


@dataclass(slots=True)
class Loading:
    """The parts that load a day. ``head_ends`` gives the declarations by name, which are needed only to parse a file
    of the archive again whose staged reads are lost. ``pause`` is asked before every batch; ``rng`` spreads retries."""

    places: FileFolders
    head_ends: Callable[[], dict[str, HeadEnd]]
    pause: PauseCheck
    controller: Controller = field(default_factory=Controller)
    breaker: Breaker = field(default_factory=Breaker)
    rng: random.Random = field(default_factory=random.Random)


def ingest_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    *,
    settings: Settings,
    clock: Clock = SYSTEM_CLOCK,
    run_id: str | None = None,
) -> IngestOutcome:
    """Write every staged read of a billing day that is not in the store yet. Idempotent; blocks until done, also while
    paused. ``settings`` gives the folders and head-ends. Raises as ``load_billing_day``."""
    with PauseProbe(database, application_name="ingest-pause", clock=clock) as pause:
        places = FileFolders(settings.archive, settings.staging)
        loading = Loading(places, lambda: read_head_ends(settings.head_ends), pause)
        return load_billing_day(database, calendar, day, loading, clock=clock, run_id=run_id)


def load_billing_day(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    loading: Loading,
    *,
    clock: Clock = SYSTEM_CLOCK,
    run_id: str | None = None,
) -> IngestOutcome:
    """As ``ingest_billing_day``, with parts of the caller's. Raises psycopg.Error when the database stays out of reach,
    ingest.tables.load.DayTakenOverError when another run took the day."""
    with database.connect("ingest-day", autocommit=True) as lock:
        day_lock.take(lock, DayLock.LOAD, day)
        return _Day(database, calendar, day, loading, clock, run_id, lock).run()


@dataclass(slots=True)
class _Day:
    """One run over one billing day."""

    database: Database
    calendar: BillingCalendar
    day: date
    loading: Loading
    clock: Clock
    run_id: str | None
    lock: driver.Connection
    waiting: list[raw.WaitingFile] = field(default_factory=list)
    restaged: bool = False

    def run(self) -> IngestOutcome:
        """Load the reads that wait. Returns the counts and tables of the run."""
        outcome = IngestOutcome(self.day, target_ms=self.loading.controller.limits.target_s * 1000)
        waiting = self.waiting = raw.waiting(self.lock, self.day)
        if waiting:
            epoch = raw.take_day(self.lock, self.day, self.run_id or "", self.clock.now())
            staged = self._staged_reads()
            waiting = self.waiting
            loaded = raw.loaded_rows(self.lock, self.day)
            sources = [plan.Source(w.sha256, w.file_name, w.head_end, w.commodity, w.file_format) for w in waiting]
            writers = Writers(
                self.database,
                self.clock,
                epoch,
                sources,
                self._letters,
                self.loading.pause,
                self.loading.controller,
                self.loading.breaker,
                self.loading.rng,
                self.run_id,
                self._tell_breaker,
            )
            outcome.payloads = asyncio.run(self._load(writers, staged, [w.sha256 for w in waiting], loaded))
            self._finish(waiting, outcome)
            if raw.close_breaker(self.lock, BREAKER, self.run_id or "", self.clock.now()):
                self._tell_breaker(False)
            outcome.writers, outcome.controller = writers.figures, self.loading.controller.frame()
            outcome.retries, outcome.breaker_opened = writers.retries, self.loading.breaker.opened
        outcome.totals = raw.control_totals(self.lock, self.day)
        return outcome

    async def _load(
        self,
        writers: Writers,
        staged: Sequence[StagedDay],
        hashes: Sequence[bytes],
        loaded: dict[tuple[bytes, str], list[tuple[int, int]]],
    ) -> int:
        payloads = 0
        async with writers.session():
            first_rows = [item.first_row for item in self.waiting]
            for kind in load.KINDS:
                frames = [s.intervals if kind is INTERVAL else s.registers for s in staged]
                ranges = {i: loaded.get((h, kind.name), []) for i, h in enumerate(hashes)}
                for incoming in await asyncio.to_thread(plan.lay_out, kind, frames, ranges, first_rows):
                    payloads += incoming.height
                    await self._pass(writers, kind, incoming)
                await asyncio.to_thread(self._attach_leftover, kind)
        return payloads

    async def _pass(self, writers: Writers, kind: Kind, incoming: pl.DataFrame) -> None:
        """One pass: straight into a fresh partition, or compared with what is there."""
        state = await asyncio.to_thread(self._open, kind.table)
        if state == "created":
            await writers.write(await asyncio.to_thread(plan.first_pass, kind, self.day, incoming))
            await asyncio.to_thread(self._attach, kind.table)
            return
        if state == "open":
            # An earlier run was killed: its committed rows are in the unattached table. Keyed and attached, it is
            # compared with like the rest.
            await asyncio.to_thread(self._attach, kind.table)
        later = await asyncio.to_thread(plan.later_pass, self.database, kind, self.day, incoming)
        if later.kept.height and await asyncio.to_thread(self._open, kind.history) != "attached":
            await asyncio.to_thread(self._attach, kind.history)
        await writers.write(later)

    def _tell_breaker(self, is_open: bool) -> None:
        """Hand the breaker's state to the rules that may raise the pause."""
        with self.database.connect("ingest-breaker") as connection:
            observe_breaker(connection, BREAKER, is_open=is_open, clock=self.clock)
            connection.commit()

    def _open(self, table: str) -> str:
        return raw.open_partition(self.lock, table, self.day)

    def _attach(self, table: str) -> None:
        raw.attach_partition(self.lock, table, self.day)

    def _attach_leftover(self, kind: Kind) -> None:
        """A run killed between its last batch and the attach leaves nothing to write and a table to attach."""
        if raw.partition_is_open(self.lock, kind.table, self.day):
            self._attach(kind.table)

    def _finish(self, waiting: Sequence[raw.WaitingFile], outcome: IngestOutcome) -> None:
        """Control totals of each file, in the ledger too, in one transaction; then the staged copies may go. Raises
        NotWhole where a staged row is in no committed batch."""
        self._see_that_all_is_claimed(waiting)
        rows = []
        with self.lock.transaction():
            for item in waiting:
                received, accepted, duplicate, superseded, rejected = raw.finish_file_day(
                    self.lock, item.sha256, self.day, self.clock.now()
                )
                body = {
                    "sha256": item.sha256,
                    "file_name": item.file_name,
                    "head_end": item.head_end,
                    "billing_day": self.day,
                    "received": received,
                    "accepted": accepted,
                    "duplicate": duplicate,
                    "superseded": superseded,
                    "rejected": rejected,
                    "balanced": received == accepted + duplicate + superseded + rejected,
                    "run_id": self.run_id,
                }
                entries.append(self.lock, "file_loaded", body, clock=self.clock, actor=plan.ACTOR)
                rows.append((item.file_name, item.head_end, received, accepted, duplicate, superseded, rejected))
        columns = ("file_name", "head_end", "received", "accepted", "duplicate", "superseded", "rejected")
        outcome.files = pl.DataFrame(
            rows, schema={c: pl.String if c in ("file_name", "head_end") else pl.Int64 for c in columns}, orient="row"
        )
        for name in columns[2:]:
            setattr(outcome, name, int(outcome.files[name].sum()))
        for item in waiting:
            staging.remove(self.loading.places.staging, item.staged_path)

    def _see_that_all_is_claimed(self, waiting: Sequence[raw.WaitingFile]) -> None:
        """Counted from the claims, by another path than the writers': control totals alone would call a day done whose
        rows were lost and counted twice in equal number."""
        claims = raw.loaded_rows(self.lock, self.day)
        for item in waiting:
            for kind, staged in ((INTERVAL, item.interval_rows), (load.REGISTER, item.register_rows)):
                ranges = claims.get((item.sha256, kind.name), ())
                missing = staged - sum(past - first for first, past in ranges if first >= item.first_row)
                if missing:
                    raise load.NotWhole(
                        f"{missing} of {staged} {kind.name} rows of {item.file_name} are in no committed batch of {self.day}"
                    )

    def _staged_reads(self) -> list[StagedDay]:
        """The staged reads of the files that wait, in their order; ``self.waiting`` follows where a file reads
        otherwise than when it was landed."""
        found = {item.sha256: self._staged(item) for item in self.waiting}
        if self.restaged:
            self.waiting = raw.waiting(self.lock, self.day)
            found |= {i.sha256: staging.read(self.loading.places.staging, i.staged_path) for i in self.waiting}
        return [found[item.sha256] for item in self.waiting]

    def _staged(self, item: raw.WaitingFile) -> StagedDay:
        """The staged reads of a file, made again from the archive where they are lost or torn."""
        try:
            found = staging.read(self.loading.places.staging, item.staged_path)
            if found.content_sha256 == item.staged_sha256:
                return found
        except (OSError, pl.exceptions.PolarsError):
            pass
        return self._staged_again(item)

    def _staged_again(self, item: raw.WaitingFile) -> StagedDay:
        """Staged reads follow from the archived file: they are made again, as the file reads by now."""
        declared = self.loading.head_ends()
        self.restaged |= read_again.staged_day(
            self.database, self.calendar, self.loading.places, item, declared, clock=self.clock
        )
        return staging.read(self.loading.places.staging, item.staged_path)

    def _letters(self, load_pass: plan.WritePlan, at: int, error: driver.Error) -> pl.DataFrame:
        """The dead letter of a payload that the database refused."""
        payload = load_pass.incoming.row(at, named=True)
        item = self.waiting[payload["src"]]
        detail = " ".join(str(error).split())[:500]
        reasons = pl.Series("reasons", [[{"code": "database_refused", "detail": f"{error.sqlstate}: {detail}"}]])
        content = load_pass.current.filter(pl.col("at") == at).head(1).drop("at")
        bad = content.with_columns(
            reasons, received=pl.lit(payload["reads"], pl.Int64), first_line=pl.lit(None, pl.Int64)
        )
        letters = [payload_letters(bad)]
        return finish_letters(
            letters, item.sha256, item.file_name, item.head_end, item.file_format, self.run_id, self.clock.now()
        )
