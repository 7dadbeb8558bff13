"""The adaptive controller: how large a batch is and how many are written at once, from measured write latency.

The target is absolute (a write, execute and commit, within 50 ms), so the law is additive increase, multiplicative
decrease with a dead band on the 90th percentile, and guards from Netflix's Gradient2: changes clamped, no growth when
the application is the limit, slow smoothing. A line fitted through (rows, latency) gives a ceiling, and says when batch
size cannot help because the cost is fixed. Batch size follows latency; concurrency follows what the server's sessions
wait for; so the two never chase each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

#: Wait events of our own sessions (pg_stat_activity, as "type:event") and what they ask for.
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
    batch_start: int = 2_048
    writers_most: int = 4
    writers_start: int = 2
    window_s: float = 0.25
    window_samples: int = 10
    patience_s: float = 5.0
    cores: int = 2


@dataclass(slots=True)
class Controller:
    """Feed it ``wrote`` for each batch and ``waits`` for each sample of the server; read ``batch`` and ``writers``."""

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

    def __post_init__(self) -> None:
        self.batch = self.batch or self.limits.batch_start
        self.writers = self.writers or self.limits.writers_start

    def wrote(self, now: float, rows: int, seconds: float, ok: bool, in_flight: int, waiting: bool) -> bool:
        """One write: its rows, seconds of execute and commit (never queueing), whether it succeeded; ``in_flight``
        writes at the time and whether more were ``waiting``. True where a window closed and a decision was taken.
        ``now`` is monotonic."""
        if self._opened is None:
            self._opened = now
        self._samples.append((rows, seconds, ok))
        self._busy = max(self._busy, in_flight / max(self.writers, 1) if waiting else 0.0)
        if ok:
            self._learn(rows, seconds)
        age = now - self._opened
        full = age >= self.limits.window_s and len(self._samples) >= self.limits.window_samples
        if not full and age < self.limits.patience_s:
            return False
        self._decide(now)
        return True

    def finish(self, now: float) -> None:
        """The load is over: what the open window saw goes into the history, and nothing is decided."""
        if not self._samples:
            return
        p90, line = self.p90 or 0.0, self.line()
        self._note(now, p90, "end", self._dominant(), line)

    def waits(self, events: dict[str, int]) -> None:
        """One sample of the server: sessions of ours by "type:event"; "CPU" for running, "idle in transaction" for
        sessions left open."""
        self._wait_samples += 1
        self._waits.update(events)

    def pool_exhausted(self) -> None:
        """No connection came in time: fewer writers at the next decision."""
        self._exhausted = True

    @property
    def p90(self) -> float | None:
        """90th percentile of the write latency in the open window, seconds."""
        return _quantile([s for _, s, _ in self._samples], 0.9)

    def _learn(self, rows: int, seconds: float) -> None:
        """Exponentially weighted least squares of seconds = a + b * rows, over about the last fifty writes."""
        keep = 0.98
        n, x, y, xx, xy = (keep * v for v in self._fit)
        self._fit = (n + 1, x + rows, y + seconds, xx + rows * rows, xy + rows * seconds)

    def line(self) -> tuple[float, float] | None:
        """Fixed seconds of a write and seconds a row, or None while batches have been too alike to tell."""
        n, x, y, xx, xy = self._fit
        spread = n * xx - x * x
        if n < 5 or spread <= 0.01 * n * xx:
            return None
        slope = (n * xy - x * y) / spread
        return ((y - slope * x) / n, slope) if slope > 0 else None

    def _decide(self, now: float) -> None:
        limits, target = self.limits, self.limits.target_s
        p90 = self.p90 or 0.0
        failed = any(not ok for _, _, ok in self._samples)
        move, batch, writers = "hold", float(self.batch), self.writers
        line = self.line()
        fixed_cost = line is not None and line[0] > target
        if self._cool:
            self._cool -= 1
            move = "cool"
        if failed or p90 > 2 * target:
            if move != "cool":
                batch, writers, move, self._cool = batch * 0.5, writers - 1, "error" if failed else "halve", 2
        elif p90 > target:
            batch, move = batch * 0.9, "shrink"
        elif p90 < 0.8 * target and self._busy >= 0.5 and move != "cool":
            batch, move = batch + max(10, 0.05 * batch), "grow"
            # Far below the target the step grows with the room there is, so that a short load gets there at all;
            # doubling is the clamp.
            batch = min(2.0 * self.batch, max(batch, self.batch * min(2.0, 0.8 * target / max(p90, 1e-4))))
        if line is not None and not fixed_cost:
            batch = min(batch, max((target - line[0]) / line[1], limits.batch_least))
        elif fixed_cost:
            writers, move = writers - 1, "fixed cost"
        dominant = self._dominant()
        if self._exhausted:
            writers, move = min(writers, self.writers - 1), "pool exhausted"
        elif dominant == "lock" or dominant == "cpu":
            writers = min(writers, self.writers - 1)
        elif dominant == "wal" and p90 > target:
            writers, batch = min(writers, self.writers - 1), max(batch, self.batch * 1.1)
        elif dominant == "data" and p90 > target:
            batch = min(batch, self.batch * 0.9)
        elif move == "grow" and dominant is None and writers < limits.writers_most:
            writers += 1
        if self.enabled:
            self.batch = int(min(max(batch, limits.batch_least), limits.batch_most))
            self.writers = int(min(max(writers, 1), limits.writers_most))
        self._note(now, p90, move, dominant, line)

    def _note(self, now: float, p90: float, move: str, dominant: str | None, line: tuple[float, float] | None) -> None:
        """Write the window down and open the next."""
        alarm = (
            "idle in transaction"
            if self._waits["idle in transaction"]
            else "fixed cost"
            if line is not None and line[0] > self.limits.target_s
            else ""
        )
        self.history.append(
            {
                "at_s": now,
                "samples": len(self._samples),
                "p90_ms": p90 * 1000,
                "batch": self.batch,
                "writers": self.writers,
                "move": move,
                "wait": dominant or "",
                "fixed_ms": line[0] * 1000 if line else None,
                "row_us": line[1] * 1e6 if line else None,
                "alarm": alarm,
            }
        )
        self._samples.clear()
        self._waits.clear()
        self._wait_samples, self._opened, self._busy, self._exhausted = 0, now, 0.0, False

    def _dominant(self) -> str | None:
        """What most of our sessions waited for, where at least a third of them did."""
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
        """The decisions as a table; at_s counts from the first."""
        schema = {
            "at_s": pl.Float64,
            "samples": pl.Int64,
            "p90_ms": pl.Float64,
            "batch": pl.Int64,
            "writers": pl.Int64,
            "move": pl.String,
            "wait": pl.String,
            "fixed_ms": pl.Float64,
            "row_us": pl.Float64,
            "alarm": pl.String,
        }
        frame = pl.DataFrame(self.history, schema=schema)
        return frame.with_columns(
            (pl.col("at_s") - pl.col("at_s").first()).round(3), pl.col("p90_ms", "fixed_ms", "row_us").round(3)
        )


def _quantile(values: list[float], share: float) -> float | None:
    """The nearest-rank quantile, or None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]
