"""A day's validation by one process, and with its shards judged beforehand by steps of their own: what the steps take
over, and what stays.

Beside it, in the same run: the stage as it is by default, one process that streams the shards itself. Timed: the
stage's function; for the steps also their whole processes, imports and all. Each way has a copy of the same database,
in which the day's reads are loaded and nothing is validated. The steps are processes on this machine, ``workers`` of
them at once: what an engine adds (a queue, a worker's start) is not in it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.day import DAY, roomy, simulated_city
from benchmarks.support import Stopwatch, document
from meter_pipeline.clock import SYSTEM_CLOCK
from meter_pipeline.postgres.database import Database, ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.reference import import_folder
from meter_pipeline.settings import Settings, load_settings

_STEP = """
import json, sys, time
from datetime import date
from pathlib import Path
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.vee.spread import Beforehand, judge_step
url, zone, day, folder, steps, number = sys.argv[1:]
began, used = time.perf_counter(), time.process_time()
done = judge_step(Database(url), BillingCalendar(zone), date.fromisoformat(day), Beforehand(Path(folder), int(steps)), int(number))
import resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
spent = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - used, "peak_mib": peak}
print(json.dumps(spent | {"shards": done.shards, "rows": done.rows, "bytes": done.size}))
"""


def run(meters: int = 100_000, interval: int = 15, steps: int = 4, workers: int = 2, city: str = "") -> dict[str, Any]:
    """Validate a day of ``meters`` meters both ways; ``city``: a folder that keeps the simulated city for the next
    time."""
    settings = load_settings()
    base = open_database(settings)
    names = [f"bench_{uuid.uuid4().hex[:10]}" for _ in range(3)]
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=roomy(settings)))
    try:
        loaded = ensure_database(base, names[0])
        migrate(loaded)
        mine = _load(loaded, settings, work, meters, interval, Path(city) / f"{meters}x{interval}" if city else None)
        with base.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (names[0],))
        alone, spread = (ensure_database(base, name, names[0]) for name in names[1:])
        return _run(alone, spread, mine, work, meters, interval, steps, workers)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with base.connect(autocommit=True) as connection:
            for name in names:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _load(
    database: Database, settings: Settings, work: Path, meters: int, interval: int, kept: Path | None
) -> Settings:
    from meter_pipeline.ingest import ingest_billing_day, land_inbox

    data = kept or work / "city"
    if not (data / "inbox").is_dir():
        simulated_city(data, meters, interval)
    mine = replace(settings, home=work / "home", data=data, inbox=data / "inbox", database_url=database.url)
    mine.home.mkdir(parents=True)
    import_folder(database, data / "reference")
    land_inbox(database, mine.calendar(), mine, clock=SYSTEM_CLOCK, run_id="bench")
    ingest_billing_day(database, mine.calendar(), DAY, settings=mine, clock=SYSTEM_CLOCK, run_id="bench")
    return mine


def _run(
    alone: Database, spread: Database, mine: Settings, work: Path, meters: int, interval: int, steps: int, workers: int
) -> dict[str, Any]:
    from meter_pipeline.vee import validate_billing_day
    from meter_pipeline.vee.spread import Beforehand

    calendar, watch, folder = mine.calendar(), Stopwatch(memory=True), work / "shards"
    with watch.lap("one process"):
        one = validate_billing_day(alone, calendar, DAY, clock=SYSTEM_CLOCK)
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda number: _step(spread, mine, folder, steps, number), range(steps)))
    steps_wall = time.perf_counter() - began
    with watch.lap("the stage"):
        taken = validate_billing_day(spread, calendar, DAY, clock=SYSTEM_CLOCK, beforehand=Beforehand(folder, steps))
    if taken.shards_taken != sum(one_step["shards"] for one_step in done):
        raise RuntimeError(f"{taken.shards_taken} of {sum(one_step['shards'] for one_step in done)} shards were taken")
    digest = "SELECT md5(string_agg(encode(content_hash, 'hex'), '' ORDER BY service_point_id, meter_id, channel)) AS d FROM vee.interval_day WHERE billing_day = $1"
    if alone.read(digest, (DAY,))["d"][0] != spread.read(digest, (DAY,))["d"][0]:
        raise RuntimeError("the two ways left different rows")
    seconds = {name: round(value, 3) for name, value in watch.seconds.items()}
    return document(
        "spread",
        {"meters": meters, "interval": interval, "steps": steps, "workers": workers, "billing_day": DAY.isoformat()},
        {
            "rows": one.rows,
            "one_process_s": seconds["one process"],
            "one_process_cpu_s": round(watch.busy["one process"], 2),
            "steps_s": [round(one_step["seconds"], 2) for one_step in done],
            "steps_cpu_s": [round(one_step["cpu_s"], 2) for one_step in done],
            "steps_with_their_start_s": round(steps_wall, 2),
            "steps_peak_mib": round(max(one_step["peak_mib"] for one_step in done)),
            "shards": taken.shards_taken,
            "shard_bytes_per_row": round(
                sum(one_step["bytes"] for one_step in done) / max(sum(one_step["rows"] for one_step in done), 1)
            ),
            "stage_after_steps_s": seconds["the stage"],
            "stage_after_steps_cpu_s": round(watch.busy["the stage"], 2),
            "stage_steps_s": taken.seconds,
            "peak_mib": watch.peaks,
        },
        {"stage_after_steps_over_one_process": round(watch.seconds["the stage"] / watch.seconds["one process"], 3)},
    )


def _step(database: Database, mine: Settings, folder: Path, steps: int, number: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-c",
        _STEP,
        database.url,
        mine.utility().zone,
        DAY.isoformat(),
        str(folder),
        str(steps),
        str(number),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"step {number}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
