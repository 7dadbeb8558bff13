"""From ten thousand meters to a million, a quarter-hour day each: seconds, memory and bytes, and what an interval costs
as the city grows.

Each size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.support import document


def run(sizes: str = "10000,100000,1000000", interval: int = 15, city: str = "") -> dict[str, Any]:
    """Bill a day of each size in turn. ``sizes``: meters, comma-separated; ``city``: a folder that keeps the simulated
    cities for the next time."""
    runs: list[dict[str, Any]] = []
    for meters in [int(size) for size in str(sizes).split(",")]:
        code = f"import json; from benchmarks.day import run; print(json.dumps(run(meters={meters}, interval={interval}, city={str(city)!r})))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{meters} meters: {done.stderr.strip()[-2000:]}")
        document_of_day = json.loads(done.stdout.strip().splitlines()[-1])
        figures = document_of_day["figures"]
        wanted = (
            "intervals",
            "wall_s",
            "intervals_per_s",
            "peak_rss_mib",
            "bytes_per_interval",
            "stage_s",
            "stage_peak_mib",
            "stage_busy_cores",
            "floor_s",
        )
        runs.append({"meters": meters} | {name: figures[name] for name in wanted} | document_of_day["ratios"])
    cost = {run["meters"]: run["wall_s"] / run["intervals"] for run in runs}
    ratio = round(cost[1_000_000] / cost[100_000], 3) if {1_000_000, 100_000} <= set(cost) else None
    largest = max(runs, key=lambda run: run["meters"])
    over_floor = {f"ours_over_floor_{run['meters']}": run["ours_over_floor"] for run in runs}
    ratios = {"cost_1m_over_100k": ratio, "ours_over_floor": largest["ours_over_floor"], **over_floor}
    return document("scale", {"interval": interval}, {"runs": runs}, ratios)
