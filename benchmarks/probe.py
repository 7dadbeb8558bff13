"""What another client feels while a day loads: a point query and a small committed write, again and again, from a
process of its own.

Three stretches in one run: nobody loads; a day loads under the controller; a day loads in the largest batches with the
most writers and no controller. The figure is the 99th percentile of both statements together, in milliseconds.

Then days load through a proxy that makes every COMMIT take longer, under the controller and in fixed settings: how many
rows a second, beside the best fixed setting that keeps the other client within the target.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from statistics import median
from typing import Any

from benchmarks import commit_latency
from benchmarks.load import DAY, City, scratch
from benchmarks.support import document
from meter_pipeline.ingest.controller import Controller, Limits
from meter_pipeline.postgres.database import Database

#: Milliseconds by which every COMMIT is made to take longer.
ADDED_MS = (1, 20, 55, 100, 300)
#: Rows a batch and writers of the fixed settings beside the controller.
FIXED = ((2_048, 2), (2_048, 4), (8_192, 2), (8_192, 4), (16_384, 2), (16_384, 4))
#: Loads of the day in each setting.
ROUNDS = 3


def run(
    meters: int = 100_000, idle_s: float = 5.0, days: int = 3, rounds: int = ROUNDS, most_added_ms: int = ADDED_MS[-1]
) -> dict[str, Any]:
    """Probe idle for ``idle_s`` seconds, then while ``days`` days of ``meters`` x 96 intervals load, with the
    controller on and off by turns; then ``rounds`` loads of a day in each setting for each of ADDED_MS up to
    ``most_added_ms``."""
    city, drop = scratch(meters)
    try:
        with city.database.connect() as connection:
            connection.execute("CREATE TABLE probe (n integer PRIMARY KEY, written timestamptz)")
        found: dict[str, list[float]] = {"idle": [], "on": [], "off": []}
        with _probing(city, found["idle"]):
            time.sleep(idle_s)
        writes: dict[str, list[float]] = {"on": [], "off": []}
        decisions: list[Any] = []
        for n in range(days):
            for index, name in enumerate(("on", "off")):
                day = DAY + timedelta(days=2 * n + index)
                city.land(city.reads(day))
                with _probing(city, found[name]):
                    _, outcome = city.ingest(day, controller=_controller(name))
                writes[name] += outcome.writers.latencies_ms
                if name == "on":
                    decisions = outcome.controller.select(
                        "at_s", "samples", "p90_ms", "batch", "writers", "move", "wait"
                    ).rows()
        figures: dict[str, Any] = {
            f"p99_ms_{key}": _p99(found[k])
            for k, key in (("idle", "idle"), ("on", "controller_on"), ("off", "controller_off"))
        }
        figures |= {
            "write_p99_ms_controller_on": _p99(writes["on"]),
            "write_p99_ms_controller_off": _p99(writes["off"]),
        }
        figures["decisions_of_the_last_day"] = decisions
        figures["probes"] = {name: len(values) for name, values in found.items()}
        ratio = (
            figures["p99_ms_controller_on"] / figures["p99_ms_idle"]
            if figures["p99_ms_idle"] and figures["p99_ms_controller_on"]
            else None
        )
        added = [ms for ms in ADDED_MS if ms <= most_added_ms]
        figures["commit_latency"] = slow = slow_commits(city, added, rounds)
        return document(
            "probe",
            {"meters": meters, "days": days, "idle_s": idle_s, "rounds": rounds},
            figures,
            {"on_over_idle": None if ratio is None else round(ratio, 2)}
            | {f"controller_over_best_fixed_{one['added_ms']}ms": one["controller_over_best_fixed"] for one in slow},
        )
    finally:
        drop()


def slow_commits(city: City, added: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """One day, landed once and loaded once a setting for each of ``added`` milliseconds; other clients reach the server
    directly."""
    day = DAY - timedelta(days=1)
    city.land(city.reads(day))
    city.keep_staged()
    return [_slow_commit(city, day, added_ms, rounds) for added_ms in added]


def _slow_commit(city: City, day: date, added_ms: int, rounds: int) -> dict[str, Any]:
    """The day's loads while each COMMIT takes ``added_ms`` longer, the settings by turns; medians of the loads."""
    settings = [None, *FIXED]
    seconds: dict[Any, list[float]] = {setting: [] for setting in settings}
    felt: dict[Any, list[float]] = {setting: [] for setting in settings}
    ended: dict[Any, dict[str, Any]] = {}
    for setting in settings * rounds:
        city.load_again(day)
        controller = Controller() if setting is None else _fixed(*setting)
        with commit_latency.added(city.database.url, added_ms / 1000) as url, _probing(city, felt[setting]):
            took, outcome = replace(city, database=Database(url)).ingest(day, controller=controller)
        if outcome.received != city.meters * city.slots:
            raise AssertionError(f"{outcome.received} reads were loaded, not {city.meters * city.slots}")
        seconds[setting].append(took)
        # A day of one batch ends before the controller decides anything.
        ended[setting] = outcome.controller.row(-1, named=True) if outcome.controller.height else {}
    tried: list[dict[str, Any]] = [
        {
            "setting": "controller" if setting is None else f"{setting[0]} rows, {setting[1]} writers",
            "rows_per_s": round(city.meters / median(seconds[setting])),
            "p99_ms_of_others": _p99(felt[setting]),
            "ended_at": f"{ended[setting].get('batch')} rows, {ended[setting].get('writers')} writers",
            "floor_ms": ended[setting].get("floor_ms"),
        }
        for setting in settings
    ]
    ours, *fixed = tried
    within = [one for one in fixed if (one["p99_ms_of_others"] or 0) <= Limits().target_s * 1000] or fixed
    best = max(within, key=lambda one: one["rows_per_s"])
    return {
        "added_ms": added_ms,
        "controller": ours,
        "best_fixed": best,
        "controller_over_best_fixed": round(ours["rows_per_s"] / best["rows_per_s"], 2),
        "fixed": fixed,
    }


def _fixed(rows: int, writers: int) -> Controller:
    return Controller(Limits(batch_most=rows, batch_start=rows, writers_start=writers), enabled=False)


def _controller(name: str) -> Controller:
    if name == "on":
        return Controller()
    limits = Limits(batch_most=100_000, batch_start=100_000, writers_start=4)
    return Controller(limits, enabled=False)


@contextmanager
def _probing(city: City, into: list[float]) -> Iterator[None]:
    """Run the probe in a process of its own for the length of the block, and collect what it felt."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.probe_client", city.database.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # connected
    try:
        yield
    finally:
        told, _ = process.communicate("")
        into += json.loads(told)


def _p99(values: list[float]) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2) if ordered else None
