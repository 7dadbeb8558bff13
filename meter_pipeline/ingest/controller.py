"""The adaptive controller: sets the batch size and the number of writers from measured write latency.

A write has a fixed part, whatever the size of its batch: the floor (a commit to a slow disk or a distant server). The
floor is measured when a session commits an empty transaction, and learned from a line fitted through (rows, latency).
The target is 50 ms, or twice the floor where that is more: smaller batches would write fewer rows in the same time. On
a link of 55 ms a target of 50 ms took the rate from 69,311 rows/s to 1,161.

Latency is reduced by the part that causes it: the batch where rows do, the writers where they wait for each other.
Where batches are too alike to tell, a smaller one is tried for one window. A smaller batch that is not written faster,
at a lower rate, is taken back, because on a busy machine every batch waits some times for a processor, whatever its
size. A batch has at least the rows that take nine tenths of its transaction, and a removed writer comes back where the
others wrote clearly less: without that, a busy machine came to batches of 1,843 rows by one writer, at a third of the
rate. Growth and shrinking are clamped, with a dead band on the 90th percentile, and there is no growth when the
application is the limit (Netflix's Gradient2).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

#: Wait events of our own sessions (pg_stat_activity, as "type:event") and the change of writers or batch they ask for.
LOCK_WAITS: Final = frozenset({"Lock:transactionid", "Lock:tuple", "Lock:relation"})
WAL_WAITS: Final = frozenset(
    {
        "IO:WALSync",
        "IO:WALWrite",
        "IO:WalSync",
        "IO:WalWrite",
        "LWLock:WALWrite",
        "LWLock:WALInsert",
        "LWLock:WALWriteLock",
        "IPC:SyncRep",
    }
)
DATA_WAITS: Final = frozenset(
    {"IO:DataFileRead", "IO:DataFileExtend", "Lock:extend", "LWLock:BufferMapping", "LWLock:BufferContent"}
)


#: The most of a write, beside an empty commit, that may go into what is around its rows (its claim, its ledger entry,
# round trips). Smaller batches only make that more.
_MOST_AROUND: Final = 0.1
#: Below this share of the target batches grow; between it and the target nothing moves.
_GROW_BELOW: Final = 0.85


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and target. Rows are payload rows (a meter's channel-day, or a register read); times in seconds.

    A window is ten writes and at least a quarter of a second: a city's day is written in one to three seconds, in which
    windows of a whole second (Netflix's WindowedLimit) decide once or never. Ten writes carry a 90th percentile;
    Envoy's gradient controller samples 0.1 s.
    """

    target_s: float = 0.05
    batch_least: int = 64
    batch_most: int = 16_384
    batch_start: int = 4_096
    writers_most: int = 4
    writers_start: int = 2
    window_s: float = 0.25
    window_samples: int = 10
    patience_s: float = 5.0
    cores: int = 2
    #: A first guess of a core's seconds a row, for the first batch: what a day costs.
    row_guess_s: float = 6e-6


@dataclass(slots=True)
class Controller:
    """Call ``wrote`` for each batch and ``waits`` for each sample of the server; read ``batch`` and ``writers``."""

    limits: Limits = field(default_factory=Limits)
    enabled: bool = True
    batch: int = 0
    writers: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    _samples: list[tuple[int, float, bool]] = field(default_factory=list)
    _waits: Counter[str] = field(default_factory=Counter)
    _wait_samples: int = 0
    _opened: float | None = None
    _cool: int = 0
    _busy: float = 0.0
    _fit: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    _exhausted: bool = False
    _measured: float | None = None
    _learned: float = 0.0
    _rate_before: float | None = None
    _shrunk_from: tuple[int, float, float] | None = None
    _hold_batch: int = 0
    _hold_writers: int = 0
    _fewer_from: tuple[int, float] | None = None
    _hold_fewer: int = 0
    _parts: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    _slow_start: bool = True

    def __post_init__(self) -> None:
        self.batch = self.batch or self.limits.batch_start
        self.writers = self.writers or self.limits.writers_start

    def wrote(self, now: float, rows: int, seconds: float, ok: bool, in_flight: int, waiting: bool) -> bool:
        """Record one write: its rows, seconds of execute and commit (without queueing), whether it succeeded;
        ``in_flight`` writes at the time and whether more were ``waiting``. Returns True where a window closed and a
        decision was made. ``now`` is monotonic."""
        if self._opened is None:
            self._opened = now
        self._samples.append((rows, seconds, ok))
        self._busy = max(self._busy, in_flight / max(self.writers, 1) if waiting else 0.0)
        if ok:
            self._learn(rows, seconds)
        age = now - self._opened
        # Where a write takes long whatever its size, two of each writer must do, or a load is over before a decision.
        # So too while batches have only grown: a day of 100,000 rows is over in windows of a quarter of a second.
        enough = self.limits.window_samples
        if self.floor > self.limits.target_s or self._slow_start:
            enough = min(enough, 2 * self.writers)
        full = (age >= self.limits.window_s or self._slow_start) and len(self._samples) >= enough
        if not full and age < self.limits.patience_s:
            return False
        self._decide(now)
        return True

    def first_write(self, now: float) -> None:
        """Record the first write of a session. The server read its catalogue in it, so its time does not predict the
        next. The window begins when all first writes are over; its rate would otherwise be too high."""
        if not self._samples:
            self._opened = now

    def parts(self, rows: int, sent_s: float, around_s: float) -> None:
        """Record of one write the seconds in which its ``rows`` were written, and the seconds of everything around
        them."""
        keep = 0.95
        n, kept, sent, around = (keep * v for v in self._parts)
        self._parts = (n + 1, kept + rows, sent + sent_s, around + around_s)

    @property
    def least_rows(self) -> int:
        """Returns the smallest batch for latency's sake: with fewer rows, the work around them would take more than
        _MOST_AROUND of the write, without an empty commit. Both are measured on the same server, busy or not."""
        n, rows, sent, around = self._parts
        if n < 1 or sent <= 0:
            return self.limits.batch_least
        each = around / n - (self._measured or 0.0)
        wanted = each * (1 - _MOST_AROUND) / _MOST_AROUND * rows / sent
        return int(min(max(wanted, self.limits.batch_least), self.limits.batch_start))

    def finish(self, now: float) -> None:
        """The load is over: add the open window to the history and make no decision."""
        if not self._samples:
            return
        p90, line = self.p90 or 0.0, self.line()
        self._note(now, p90, "end", self._dominant(), line)

    def waits(self, events: dict[str, int]) -> None:
        """Record one sample of the server: our sessions by "type:event"; "CPU" for running, "idle in transaction"
        for sessions left open."""
        self._wait_samples += 1
        self._waits.update(events)

    def pool_exhausted(self) -> None:
        """Record that no connection came in time: fewer writers at the next decision."""
        self._exhausted = True

    @property
    def p90(self) -> float | None:
        """90th percentile of the write latency in the open window, seconds."""
        return _quantile([s for _, s, _ in self._samples], 0.9)

    def empty_commit(self, seconds: float) -> None:
        """Record the seconds of an empty commit. The first one also sets the starting batch: a day has few writes in
        which to find it."""
        first = self._measured is None
        self._measured = seconds if self._measured is None else min(self._measured, seconds)
        if not first or not self.enabled or self.history:
            return
        room = self.target - self.floor
        self.batch = int(min(max(0.95 * room / self.limits.row_guess_s, self.batch), self.limits.batch_most))
        if 4 * self.floor > self.limits.target_s:
            # While some writers wait for their COMMIT, others use the cores.
            writers = math.ceil(self.limits.cores * (1 + self.floor / room))
            self.writers = min(max(writers, self.writers), self.limits.writers_most)

    @property
    def floor(self) -> float:
        """Returns the seconds of a write without rows: measured on an empty commit, and learned from writes, which
        make about eight round trips where a commit makes one."""
        if self._measured is None:
            return self._learned
        return max(self._measured, min(self._learned, 10 * self._measured))

    @property
    def target(self) -> float:
        """Returns the 90th percentile aimed at, in seconds: the limits' target, or twice the floor where that is
        more."""
        return self.floor + max(self.limits.target_s, self.floor)

    def _learn(self, rows: int, seconds: float) -> None:
        """Exponentially weighted least squares of seconds = a + b * rows, over about the last fifty writes."""
        keep = 0.98
        n, x, y, xx, xy = (keep * v for v in self._fit)
        self._fit = (n + 1, x + rows, y + seconds, xx + rows * rows, xy + rows * seconds)

    def line(self) -> tuple[float, float] | None:
        """Returns the fixed seconds of a write and the seconds a row; None while batches are too alike to tell."""
        n, x, y, xx, xy = self._fit
        spread = n * xx - x * x
        if n < 5 or spread <= 0.01 * n * xx:
            return None
        slope = max((n * xy - x * y) / spread, 0.0)
        fixed = (y - slope * x) / n
        return (fixed, slope) if slope > 0 or fixed > 0 else None

    def _learn_floor(self, line: tuple[float, float] | None) -> None:
        """Set the floor to the line's fixed part less a tenth for its error; never above the last write."""
        quickest = min((s for _, s, ok in self._samples if ok), default=0.0)
        if line is not None:
            self._learned = 0.9 * max(line[0], 0.0)
        self._learned = min(self._learned, quickest)

    def _decide(self, now: float) -> None:
        line = self.line()
        self._learn_floor(line)
        p90 = self.p90 or 0.0
        dominant = self._dominant()
        move, batch, writers = self._by_latency(p90, line)
        self._slow_start &= move == "grow"
        move, batch, writers = self._by_waits(move, batch, writers, p90, dominant)
        rate = self._rate(now)
        move, batch = self._worth_it(move, batch, rate / self.writers, p90)
        writers = self._by_rate(rate, self._fewer(move, rate, writers))
        if p90 > 2 * self.target:
            # Another server than the one the line was drawn for: only what this window saw is kept.
            self._fit = (0.0, 0.0, 0.0, 0.0, 0.0)
            for rows, seconds, ok in self._samples:
                if ok:
                    self._learn(rows, seconds)
        if self.enabled:
            limits = self.limits
            self.batch = int(min(max(batch, limits.batch_least), limits.batch_most))
            self.writers = int(min(max(writers, 1), limits.writers_most))
        self._note(now, p90, move, dominant, line)

    def _by_latency(self, p90: float, line: tuple[float, float] | None) -> tuple[str, float, int]:
        """Returns the move that the 90th percentile requires: (move, rows, writers)."""
        batch, writers, target = float(self.batch), self.writers, self.target
        cool = self._cool > 0
        self._cool -= cool
        fits = (target - line[0]) / line[1] if line is not None and line[1] > 0 else float(self.limits.batch_most)
        if any(not ok for _, _, ok in self._samples):
            if cool:
                return "cool", batch, writers
            self._cool = 2
            return "error", batch * 0.5, writers - 1
        if p90 > target:
            least = min(batch, self.least_rows)
            if line is not None and line[1] * batch < 0.2 * p90:
                return "writers", batch, writers - 1  # the batch is not what moves it
            if batch <= least:
                return "hold", batch, writers
            if p90 > 2 * target and not cool:
                self._cool = 2
                return "halve", max(batch * 0.5, least), writers
            # Without a line this is also the try that shows whether rows move it.
            shrunk = batch * (0.9 if line is not None else min(max(target / p90, 0.7), 0.9))
            return "shrink", max(min(shrunk, fits), least), writers
        if p90 < _GROW_BELOW * target and self._busy >= 0.5 and not cool:
            # Far below the target the step grows with the room there is, so that a short load gets there at all;
            # doubling is the clamp.
            room = min(2.0, _GROW_BELOW * target / max(p90, 1e-4))
            return (
                "grow",
                min(
                    max(batch + max(10, 0.05 * batch), batch * room), 2 * batch, max(fits, batch * 0.5, self.least_rows)
                ),
                writers,
            )
        return ("cool" if cool else "hold"), min(batch, max(fits, self.least_rows)), writers

    def _by_waits(
        self, move: str, batch: float, writers: int, p90: float, dominant: str | None
    ) -> tuple[str, float, int]:
        """Returns the move that the server's wait events require."""
        if self._exhausted:
            return "pool exhausted", batch, min(writers, self.writers - 1)
        if dominant in ("lock", "cpu"):
            return move, batch, min(writers, self.writers - 1)
        if dominant == "wal" and p90 > self.target:
            return move, max(batch, self.batch * 1.1), min(writers, self.writers - 1)
        if dominant == "data" and p90 > self.target:
            return move, min(batch, max(self.batch * 0.9, min(self.batch, self.least_rows))), writers
        if move == "grow" and dominant is None and writers < self.limits.writers_most and not self._hold_writers:
            return move, batch, writers + 1
        return move, batch, writers

    def _rate(self, now: float) -> float:
        """Rows a second of the open window."""
        age = now - self._opened if self._opened is not None else 0.0
        return sum(rows for rows, _, ok in self._samples if ok) / age if age > 0 else 0.0

    def _worth_it(self, move: str, batch: float, rate: float, p90: float) -> tuple[str, float]:
        """Take back a smaller batch that is not written faster, at a lower ``rate`` of a writer, and try none for
        twenty windows. After errors batches shrink in any case."""
        before, self._shrunk_from = self._shrunk_from, None
        self._hold_batch = max(self._hold_batch - 1, 0)
        if move == "error":
            return move, batch
        if before is not None:
            was, rate_was, p90_was = before
            if rate < 0.85 * rate_was and p90 > 0.95 * p90_was:
                self._hold_batch = 20
                return "taken back", float(was)
        if batch < self.batch and move in ("shrink", "halve"):
            if self._hold_batch:
                return "hold", float(self.batch)
            self._shrunk_from = (self.batch, rate, p90)
        return move, batch

    def _fewer(self, move: str, rate: float, writers: int) -> int:
        """Bring a removed writer back where the others wrote clearly fewer rows, and remove none for twenty windows:
        the writes did not wait for each other."""
        before, self._fewer_from = self._fewer_from, None
        self._hold_fewer = max(self._hold_fewer - 1, 0)
        if before is not None and move != "error" and rate < 0.85 * before[1]:
            self._hold_fewer, self._hold_writers = 20, 0
            return before[0]
        if writers < self.writers and move not in ("error", "pool exhausted"):
            if self._hold_fewer:
                return self.writers
            self._fewer_from = (self.writers, rate)
        return writers

    def _by_rate(self, rate: float, writers: int) -> int:
        """Remove the last added writer if it wrote no more rows, and add none for twenty windows: on a server with
        busy processors writers only wait for each other."""
        self._hold_writers = max(self._hold_writers - 1, 0)
        before, self._rate_before = self._rate_before, None
        if before is not None and rate < 1.05 * before and writers >= self.writers > 1:
            self._hold_writers = 20
            return self.writers - 1
        if writers > self.writers:
            self._rate_before = rate
        return writers

    def _note(self, now: float, p90: float, move: str, dominant: str | None, line: tuple[float, float] | None) -> None:
        """Record the window and open the next."""
        slow = self.floor > self.limits.target_s
        alarm = "idle in transaction" if self._waits["idle in transaction"] else "fixed cost" if slow else ""
        self.history.append(
            {
                "at_s": now,
                "samples": len(self._samples),
                "p90_ms": p90 * 1000,
                "batch": self.batch,
                "writers": self.writers,
                "move": move,
                "wait": dominant or "",
                "floor_ms": self.floor * 1000,
                "fixed_ms": line[0] * 1000 if line else None,
                "row_us": line[1] * 1e6 if line else None,
                "alarm": alarm,
            }
        )
        self._samples.clear()
        self._waits.clear()
        self._wait_samples, self._opened, self._busy, self._exhausted = 0, now, 0.0, False

    def _dominant(self) -> str | None:
        """Returns the wait event of most of our sessions, where at least a third of them have it."""
        total = sum(self._waits.values())
        if not total:
            return None
        sums = {
            "lock": sum(self._waits[e] for e in LOCK_WAITS),
            "wal": sum(self._waits[e] for e in WAL_WAITS),
            "data": sum(self._waits[e] for e in DATA_WAITS),
        }
        name, count = max(sums.items(), key=lambda item: item[1])
        if count * 3 >= total:
            return name
        return "cpu" if self._wait_samples and self._waits["CPU"] / self._wait_samples > self.limits.cores else None

    def frame(self) -> pl.DataFrame:
        """Returns the decisions as a table; at_s counts from the first."""
        schema = {
            "at_s": pl.Float64,
            "samples": pl.Int64,
            "p90_ms": pl.Float64,
            "batch": pl.Int64,
            "writers": pl.Int64,
            "move": pl.String,
            "wait": pl.String,
            "floor_ms": pl.Float64,
            "fixed_ms": pl.Float64,
            "row_us": pl.Float64,
            "alarm": pl.String,
        }
        frame = pl.DataFrame(self.history, schema=schema)
        return frame.with_columns(
            (pl.col("at_s") - pl.col("at_s").first()).round(3),
            pl.col("p90_ms", "floor_ms", "fixed_ms", "row_us").round(3),
        )


def _quantile(values: list[float], share: float) -> float | None:
    """The nearest-rank quantile, or None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]
