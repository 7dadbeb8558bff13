"""``bench baselines``: a city's meter-years fitted at once, and the cost of one meter beside eemeter and opendsm.

A peer's time is CPU seconds of its fit call alone on the same meters (data objects, imports and a first fit that
compiles are left out), so the comparison favours the peer. Ours is CPU seconds of the whole call, over the whole city.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from typing import Any

import numpy as np

from benchmarks.support import document, peak_rss_mib
from meter_pipeline.baselines import fit_station

DAYS = 365

_READ = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd
given = json.load(sys.stdin)
index = pd.date_range("2025-01-01", periods=len(given["temperatures"]) + 1, freq="D", tz="UTC")
hours = pd.date_range("2025-01-01", periods=24 * len(given["temperatures"]) + 1, freq="h", tz="UTC")
temperature = pd.Series(np.append(np.repeat(given["temperatures"], 24), given["temperatures"][-1]), index=hours)
seconds = []
"""
EEMETER = (
    _READ
    + """
import eemeter
for usage in given["usage"]:
    meter = pd.DataFrame({"value": usage + [np.nan]}, index=index)
    design = eemeter.create_caltrack_daily_design_matrix(meter, temperature)
    start = time.process_time()
    eemeter.fit_caltrack_usage_per_day_model(design)
    seconds.append(time.process_time() - start)
json.dump(seconds, sys.stdout)
"""
)
OPENDSM = (
    _READ
    + """
from opendsm import eemeter
for usage in given["usage"][:1] + given["usage"]:  # the first fit compiles
    frame = pd.DataFrame({"observed": usage, "temperature": given["temperatures"]}, index=index[:-1])
    data = eemeter.DailyBaselineData(frame, is_electricity_data=True)
    start = time.process_time()
    eemeter.DailyModel(model="legacy").fit(data, ignore_disqualification=True)
    seconds.append(time.process_time() - start)
json.dump(seconds[1:], sys.stdout)
"""
)


def city(meters: int, missing_share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(meters, 365) usage with NaN on 1 to 10 days of a share of the meters, and (365,) mean temperatures in
    Fahrenheit."""
    days = np.arange(DAYS)
    temperatures = 55 + 25 * np.sin(2 * np.pi * (days - 100) / 365) + rng.normal(0, 6, DAYS)
    usage = np.empty((meters, DAYS))
    for start in range(0, meters, 5000):
        part = usage[start : start + 5000]
        size = (part.shape[0], 1)
        part[:] = rng.uniform(5, 20, size) + rng.normal(0, 2, part.shape)
        part += (
            rng.uniform(0, 1, size) * (rng.random(size) < 0.5) * np.maximum(rng.uniform(50, 65, size) - temperatures, 0)
        )
        part += (
            rng.uniform(0, 2, size) * (rng.random(size) < 0.5) * np.maximum(temperatures - rng.uniform(65, 75, size), 0)
        )
    np.maximum(usage, 0.01, out=usage)
    for meter in np.flatnonzero(rng.random(meters) < missing_share):
        usage[meter, rng.choice(DAYS, rng.integers(1, 11), replace=False)] = np.nan
    return usage, temperatures


def _peer(variable: str, script: str, usage: np.ndarray, temperatures: np.ndarray) -> float | None:
    """Median CPU seconds of the peer's fit over the meters, or None where its interpreter is not named."""
    interpreter = os.environ.get(variable)
    if not interpreter:
        return None
    given = {
        "usage": [[None if np.isnan(v) else round(float(v), 6) for v in row] for row in usage],
        "temperatures": [round(float(t), 6) for t in temperatures],
    }
    answer = subprocess.run(
        [interpreter, "-c", script], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=900
    )
    times: list[float] = json.loads(answer.stdout.splitlines()[-1])
    return statistics.median(times)


def run(
    *, meters: int = 100_000, repeats: int = 3, peer_meters: int = 3, missing_share: float = 0.2, seed: int = 20260
) -> dict[str, Any]:
    """Fit ``meters`` meter-years ``repeats`` times and report the median; time the peers on ``peer_meters`` of the same
    meters in between."""
    usage, temperatures = city(meters, missing_share, np.random.default_rng(seed))
    start = time.perf_counter()
    fit_station(usage[:64], temperatures)
    first_s = time.perf_counter() - start
    wall, cpu = [], []
    peers: dict[str, float | None] = {}
    asked = [
        ("eemeter", "METER_PIPELINE_EEMETER_PYTHON", EEMETER),
        ("opendsm", "METER_PIPELINE_OPENDSM_PYTHON", OPENDSM),
    ]
    for _ in range(repeats):
        wall_0, cpu_0 = time.perf_counter(), time.process_time()
        fit = fit_station(usage, temperatures)
        wall.append(time.perf_counter() - wall_0)
        cpu.append(time.process_time() - cpu_0)
        assert int((fit.model < 0).sum()) == 0
        if asked:
            name, variable, script = asked.pop(0)
            peers[name] = _peer(variable, script, usage[:peer_meters], temperatures)
    for name, variable, script in asked:
        peers[name] = _peer(variable, script, usage[:peer_meters], temperatures)
    ours = statistics.median(cpu) / meters
    return document(
        "baselines",
        {
            "meters": meters,
            "days": DAYS,
            "repeats": repeats,
            "peer_meters": peer_meters,
            "missing_share": missing_share,
            "seed": seed,
        },
        {
            "meters": meters,
            "wall_s": round(statistics.median(wall), 3),
            "cpu_s": round(statistics.median(cpu), 3),
            "first_call_s": round(first_s, 3),
            "peak_rss_mib": peak_rss_mib(),
            "seconds_per_meter": {"ours": ours, **peers},
        },
        {f"{name}_over_ours": None if seconds is None else round(seconds / ours) for name, seconds in peers.items()},
    )


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
