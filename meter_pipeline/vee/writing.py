"""Writes a validated day: rows shard by shard, the day's small tables at the end, all in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.clock import Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.ledger.contents import content_of, stored_content
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.postgres.reading import first_time, is_undone
from meter_pipeline.postgres.vectors import from_matrix
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline.set_aside import of_a_row, without_faults
from meter_pipeline.vee import edits
from meter_pipeline.vee.loading import DayInputs
from meter_pipeline.vee.output_frames import nullable, points_of
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity
from meter_pipeline.vee.rules.model import Ints, ValidatedMatrix
from meter_pipeline.vee.summary import VeeOutcome
from meter_pipeline.vee.tables import part_of_day, usage_history, validated

_KEY: Final = list(validated.INTERVAL_DAY.keys)
#: Tables that hold a day as it is now, with their columns and the key of a row within the day.
_OF_THE_DAY: Final = (
    ("vee.register_day", validated.REGISTER_DAY, ("service_point_id", "meter_id", "channel")),
    ("vee.daily_usage", validated.DAILY_USAGE, ("service_point_id", "flow", "unit")),
)


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a matrix against the store: ``frame`` the rows to write, ``reasons`` for replacing others,
    ``known`` all its rows with the stored ones, ``written`` keys and hashes of the rows to write."""

    frame: pl.DataFrame
    reasons: pl.DataFrame
    known: pl.DataFrame
    written: pl.DataFrame


@dataclass(slots=True)
class Writer:
    """Writes one day's rows. ``stored``: keys, versions and hashes of the stored rows, sorted by key; of the service
    points ``only``, where the run is for some."""

    connection: Connection
    database: Database
    day: date
    start: datetime
    now: datetime
    clock: Clock
    actor: str
    stored: pl.DataFrame
    only: Sequence[str] | None = None
    first: bool = False
    _written: list[pl.DataFrame] = field(default_factory=list)
    _current: list[pl.DataFrame] = field(default_factory=list)
    _derived: int = 0
    _of_first: Future[list[dict[str, Any]]] | None = None

    def begin(self) -> None:
        """Open the day; later writes can be rolled back by ``undo``."""
        if first_time(self.database, "the list of rules"):
            validated.write_rules(self.connection, published_rules())
        self.first = validated.open_day(self.connection, self.day)
        self.connection.execute("SAVEPOINT vee_rows")

    def undo(self) -> None:
        """Roll back all rows since ``begin``."""
        self.connection.execute("ROLLBACK TO SAVEPOINT vee_rows")
        self._written, self._current = [], []

    def changes(self, v: ValidatedMatrix, edited: edits.Applied, stored: pl.DataFrame) -> Changes:
        """Returns the rows to write of a matrix whose keys have every stored column. ``stored``: the stored rows
        within the range of its rows."""
        at = np.flatnonzero(v.keys["has_point"].to_numpy())
        keys = v.keys.filter("has_point").select(*_KEY, *validated.EXTRA)
        known = keys.join(
            stored.select(*_KEY, "version", "input_hash", "content_hash", "locked"),
            on=_KEY,
            how="left",
            maintain_order="left",
            suffix="_old",
        )
        changed = (
            known["content_hash_old"].is_null() | (known["content_hash_old"] != known["content_hash"])
        ).to_numpy()
        rows = np.flatnonzero(changed)
        versions = known["version_old"].fill_null(0) + 1
        written = keys.with_columns(version=versions.cast(pl.Int32))[rows]
        whole = rows.size == v.keys.height
        values, codes = (v.values, v.quality) if whole else (v.values[at[rows]], v.quality[at[rows]])
        matrix = DayMatrix(self.day, v.raw.interval_minutes, written, values, codes, np.zeros(values.shape, np.int32))
        frame = from_matrix(matrix, self.start) if rows.size else pl.DataFrame()
        replaced = known[rows].filter(pl.col("content_hash_old").is_not_null())
        moved = pl.col("input_hash") != pl.col("input_hash_old")
        reasons = replaced.select(*_KEY, reason=pl.when(moved).then(pl.lit("inputs")).otherwise(pl.lit("re-estimated")))
        reasons = reasons.join(edits.authors(edited, v), on=_KEY, how="left", maintain_order="left").select(
            *_KEY, pl.coalesce("said", "reason").alias("reason"), "by"
        )
        minutes = pl.lit(v.raw.interval_minutes, pl.Int32).alias("minutes")
        return Changes(frame, reasons, known, written.select(minutes, *_KEY, "content_hash", "row_flags"))

    def write(self, found: Changes, outcome: VeeOutcome) -> dict[str, str]:
        """Write the changed rows of a matrix. Returns the errors by service point."""
        before_writing(self.database, clock=self.clock)
        nothing = pl.DataFrame(schema=dict.fromkeys(_KEY, pl.String))

        def put(frames: Sequence[pl.DataFrame]) -> None:
            [frame] = frames
            reasons = found.reasons
            if frame.height < found.frame.height:
                reasons = reasons.join(frame.select(_KEY), on=_KEY, how="semi", maintain_order="left")
            validated.write_intervals(
                self.connection, self.day, frame, nothing, self.first, now=self.now, actor=self.actor, reasons=reasons
            )

        faults = self._sound([found.frame], put) if found.frame.height else {}
        known, written = found.known, found.written
        if faults:
            sound = ~pl.col("service_point_id").is_in(list(faults))
            known, written = known.filter(sound), written.filter(sound)
        if self.stored.height:
            self._current.append(known.select(_KEY))
        fresh = int(known["content_hash_old"].is_null().sum())
        outcome.unchanged += known.height - written.height
        outcome.inserted += fresh
        outcome.updated += written.height - fresh
        if written.height:
            self._written.append(written)
        return faults

    def _sound(self, frames: Sequence[pl.DataFrame], put: Callable[[Sequence[pl.DataFrame]], None]) -> dict[str, str]:
        """Call ``put`` for the rows of some frames. Returns the errors by service point. A failed attempt is rolled
        back."""
        points = points_of(frames)
        self.connection.execute("SAVEPOINT vee_put")
        tried = False

        def attempt(some: Sequence[str]) -> None:
            nonlocal tried
            if tried:
                self.connection.execute("ROLLBACK TO SAVEPOINT vee_put")
            tried = True
            mine = pl.col("service_point_id").is_in(list(some))
            put(frames if len(some) == len(points) else [f.filter(mine) if f.height else f for f in frames])

        _, faults = without_faults(points, attempt, of_a_row)
        self.connection.execute("RELEASE SAVEPOINT vee_put")
        return faults

    def put_usage(
        self, read: DayInputs, usage: pl.DataFrame, of_registers: Ints, aside: dict[str, str], outcome: VeeOutcome
    ) -> pl.DataFrame:
        """Write the registers' days and daily usage, delete rows that no longer exist, and attach a new day. Returns
        the usage written. ``of_registers``: the day's usage of each register-only series, micro units, NO_VALUE for
        the others; ``aside``: service points whose usage could not be computed; those that could not be written are
        added; no row of them is kept."""
        connection, day = self.connection, self.day
        before_writing(self.database, clock=self.clock)
        registers = _register_frame(read, of_registers)
        if aside:
            registers = registers.filter(~pl.col("service_point_id").is_in(list(aside)))
        faults = self._sound([registers, usage], self._put_tables)
        if faults:
            sound = ~pl.col("service_point_id").is_in(list(faults))
            registers, usage = registers.filter(sound), usage.filter(sound)
        if self.first and not is_undone(self.database):
            self._of_first = _made_beside(self.day, [registers, usage])
        aside |= faults
        if aside:
            self._take_out(sorted(aside))
        gone = self.stored.join(pl.concat(self._current), on=_KEY, how="anti") if self._current else self.stored
        if gone.height:
            outcome.withdrawn = gone.height
            withdrawn = gone.select(*_KEY, pl.lit("withdrawn").alias("reason"))
            validated.write_intervals(
                connection, day, pl.DataFrame(), withdrawn, False, now=self.now, actor=self.actor, reasons=withdrawn
            )
        if self.first:
            validated.attach_day(connection, day)
        usage_history.usage_written(self.database, day)
        if self.only is None:
            usage_history.write_usage_history(self.database, connection, day, usage)
        elif not usage_history.change_usage_history(self.database, connection, day, usage, self.only):
            usage_history.write_usage_history(self.database, connection, day, part_of_day.day_usage(connection, day))
        return usage

    def _put_tables(self, frames: Sequence[pl.DataFrame]) -> None:
        self._derived = 0
        for (table, columns, key), frame in zip(_OF_THE_DAY, frames, strict=True):
            if self.first and frame.height:
                validated.first_rows(self.connection, table, self.day, frame, columns)
                self._derived += frame.height
            elif not self.first:
                self._derived += validated.replace_rows(
                    self.connection, table, self.day, frame, columns, ("billing_day", *key), self.only
                )

    def contents(self) -> list[dict[str, Any]]:
        """Returns the content records of the registers' days and of daily usage for the day's entry, over every
        column and row; empty where no row of them was written, and where the entry is rolled back with them."""
        if not self._derived or is_undone(self.database):
            return []
        if self._of_first is not None:
            return self._of_first.result()
        of = ("billing_day", self.day.isoformat())
        return [stored_content(self.connection, table, columns, key, of) for table, columns, key in _OF_THE_DAY]

    def _take_out(self, points: list[str]) -> None:
        """Delete rows of some service points that were written before their usage failed: they have no leaf yet and
        leave no version."""
        theirs = pl.col("service_point_id").is_in(points)
        validated.take_out(
            self.connection, self.day, [row for w in self._written for row in w.filter(theirs).select(_KEY).rows()]
        )
        self._written = [w.filter(~theirs) for w in self._written]
        self._current = [c.filter(~theirs) for c in self._current]

    def finish(self, exceptions: pl.DataFrame, shape: pl.DataFrame) -> None:
        """Write the day's exceptions and the load shapes of its head-ends. ``undo`` is not possible after this:
        savepoints of several days in one transaction would be nested, and the server searches all of them for every
        row."""
        connection, day = self.connection, self.day
        connection.execute("RELEASE SAVEPOINT vee_rows")
        validated.replace_rows(
            connection, "vee.exception", day, exceptions, validated.EXCEPTION, ("billing_day", "kind", *_KEY)
        )
        if shape.height:
            validated.replace_rows(
                connection,
                "vee.group_day",
                day,
                shape,
                validated.GROUP_DAY,
                ("billing_day", "head_end", "unit", "flow", "interval_minutes"),
            )

    def written(self) -> pl.DataFrame:
        """The rows written (minutes, key, content_hash, row_flags), sorted by interval length and key whatever shards
        they came in."""
        if not self._written:
            return pl.DataFrame(schema={"content_hash": pl.Binary, "row_flags": pl.Int64})
        return pl.concat(self._written).sort("minutes", *_KEY)


def _made_beside(day: date, frames: Sequence[pl.DataFrame]) -> Future[list[dict[str, Any]]]:
    """Computes the content records of the rows that were just copied (ledger/contents.py). A thread computes them
    from the frames while the server works; reading the rows back takes twice the time."""

    def made() -> list[dict[str, Any]]:
        of = ("billing_day", day.isoformat())
        return [
            content_of(table, frame.select(columns) if frame.height else pl.DataFrame(schema=list(columns)), key, of)
            for (table, columns, key), frame in zip(_OF_THE_DAY, frames, strict=True)
        ]

    pool = ThreadPoolExecutor(1, "vee-contents")
    coming = pool.submit(made)
    pool.shutdown(wait=False)
    return coming


def _register_frame(read: DayInputs, of_registers: Ints) -> pl.DataFrame:
    use = read.registers.use
    return (
        read.registers.frame.select("service_point_id", "meter_id", "channel", "unit")
        .with_columns(
            billing_day=pl.lit(read.day, pl.Date),
            quantity_micro=nullable(use.quantity),
            usage_micro=nullable(of_registers),
            gap_seconds=pl.Series(use.gap_s),
            causes=pl.Series(use.causes),
            reads=pl.Series(use.reads.astype(np.int32)),
            closed=pl.Series(use.closed),
            broken=pl.Series(use.broken),
        )
        .unique(["service_point_id", "meter_id", "channel"], keep="last", maintain_order=True)
        .select(validated.REGISTER_DAY)
    )


def published_rules() -> list[tuple[str, int, str, str, str, str]]:
    """Returns the stored list of rules: scope, bit, code, severity for first reads, source, about."""
    return [
        (
            scope,
            rule.bit,
            rule.code,
            rule.severity.get(Role.INITIAL, Severity.INFORM).name.lower(),
            rule.source,
            rule.about,
        )
        for scope, registry in (("interval", INTERVAL_RULES), ("row", ROW_RULES))
        for rule in registry.values()
    ]
