"""What every benchmark shares: the machine it ran on, timing, peak memory, and the shape of its document."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Cores, memory, versions: a figure without them says nothing."""
    import polars as pl

    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * size / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "polars": pl.__version__,
    }


def document(
    bench: str, config: dict[str, Any], figures: dict[str, Any], ratios: dict[str, float | None]
) -> dict[str, Any]:
    """The document of the command-line contract."""
    return {"bench": bench, "config": config, "figures": figures, "ratios": ratios, "machine": machine()}


def peak_rss_mib() -> float:
    """Largest resident set of this process so far, MiB. Children are not in it."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


class Stopwatch:
    """Seconds by stage name, summed over laps; with ``memory`` also the largest resident set of each lap, MiB.

    ``busy``: processor seconds of the whole machine in each lap, the database server's with ours: over the lap's
    seconds it says how many cores a stage kept busy, and so what working side by side could still give.
    """

    def __init__(self, *, memory: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.peaks: dict[str, float] = {}
        self._memory = memory

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        if self._memory:
            _forget_peak()
        busy, started = _busy_seconds(), time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
            self.busy[name] = self.busy.get(name, 0.0) + _busy_seconds() - busy
            if self._memory:
                self.peaks[name] = max(self.peaks.get(name, 0.0), _peak_since())


def _busy_seconds() -> float:
    """Processor seconds of the machine so far in user and system mode (proc(5), stat); 0 where Linux does not say."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _forget_peak() -> None:
    """Have Linux count the largest resident set anew from here (proc(5), clear_refs), so that what made the data is not
    counted."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_since() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return peak_rss_mib()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024, 1)


def alternate(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each, run in turn (A B A B ...), so that a drifting machine drifts for all alike."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
