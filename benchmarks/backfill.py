"""``bench backfill``: a year of daily reads in one range run, and how memory behaves over it.

One cumulative register read a meter and day. The files are landed first (timed apart); the range run is raw_reads, one
day after the other, with metadata and check results by partition.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from benchmarks.day import _daily_registers
from benchmarks.support import document
from meter_pipeline.deployment import environment
from meter_pipeline.postgres.database import ensure_database, open_database
from meter_pipeline.postgres.migrations import migrate
from meter_pipeline.settings import load_settings

FIRST = date(2025, 10, 1)

#: The range run, in a process of its own so that its memory is its own. Arguments: first day, last day. Prints one
# JSON line.
_RUN = """
import json, resource, sys, threading, time
import dagster as dg
from meter_pipeline.defs.ingest import assets as ingest
from meter_pipeline.defs.lib.run_guard import PauseGuard
from meter_pipeline.defs.resources import Municipality

samples, stop = [], threading.Event()
def watch():
    while not stop.wait(1.0):
        samples.append(round(int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20, 1))

threading.Thread(target=watch, daemon=True).start()
municipality = Municipality()
tags = {'dagster/asset_partition_range_start': sys.argv[1], 'dagster/asset_partition_range_end': sys.argv[2]}
with dg.DagsterInstance.get() as instance:
    began = time.monotonic()
    result = dg.materialize(
        [ingest.raw_reads()], instance=instance, resources={'municipality': municipality, 'pause_guard': PauseGuard(municipality=municipality)}, tags=tags,
        raise_on_error=False,
    )
    wall = time.monotonic() - began
    stop.set()
    partitions = len(instance.get_materialized_partitions(dg.AssetKey('raw_reads')))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({'ok': result.success, 'wall_s': wall, 'cpu_s': used.ru_utime + used.ru_stime,
                  'rss': samples, 'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  'materialised': partitions}))
"""


def run(meters: int = 100_000, days: int = 365) -> dict[str, Any]:
    """A range run over ``days`` billing days of ``meters`` register reads each."""
    settings = load_settings()
    base = open_database(settings)
    name = f"bench_{uuid.uuid4().hex[:10]}"
    database = ensure_database(base, name)
    work = Path(tempfile.mkdtemp(prefix="backfill-", dir=settings.home))
    try:
        migrate(database)
        mine = replace(
            settings, home=work / "home", data=work / "city", inbox=work / "city" / "inbox", database_url=database.url
        )
        mine.home.mkdir(parents=True)
        written = _files(mine.data, meters, days)
        from meter_pipeline.ingest import land_inbox
        from meter_pipeline.reference import import_folder

        import_folder(database, mine.data / "reference")
        began = time.monotonic()
        land_inbox(database, mine.calendar(), mine, run_id="bench")
        land_s = time.monotonic() - began
        last = FIRST + timedelta(days=days - 1)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _RUN, FIRST.isoformat(), last.isoformat()],
            env=os.environ | environment(mine, database),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        said = json.loads(done.stdout.strip().splitlines()[-1])
        with database.connect(autocommit=True) as connection:
            row = connection.execute("SELECT count(*), count(DISTINCT billing_day) FROM raw.register_read").fetchone()
        rss = said["rss"] or [said["peak"]]
        fifth = max(1, len(rss) // 5)
        # The first fifth is importing and the first days; from then on memory should not grow with the days.
        early, late = statistics.median(rss[fifth : 2 * fifth] or rss), statistics.median(rss[-fifth:])
        figures = {
            "reads": row[0] if row else 0,
            "days": row[1] if row else 0,
            "materialised": said["materialised"],
            "ok": said["ok"],
            "write_files_s": round(written, 1),
            "land_s": round(land_s, 1),
            "wall_s": round(said["wall_s"], 1),
            "reads_per_s": round((row[0] if row else 0) / said["wall_s"]),
            "peak_rss_mib": round(said["peak"], 1),
            "run_cpu_s": round(said["cpu_s"], 1),
            "rss_second_fifth_mib": early,
            "rss_last_fifth_mib": late,
        }
        return document(
            "backfill",
            {"meters": meters, "days": days},
            figures,
            {"rss_last_over_second_fifth": round(late / early, 3)},
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with base.connect(autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _files(city: Path, meters: int, days: int) -> float:
    """A delimited file a day with one dial reading a meter, taken at the midnight that closes the day; returns the
    seconds it took."""
    began = time.monotonic()
    _daily_registers(city, meters)
    inbox = city / "inbox" / "DAILY"
    for path in inbox.glob("*.csv"):
        path.unlink()
    zone = ZoneInfo("America/Chicago")
    ids = pl.DataFrame({"n": pl.int_range(meters, dtype=pl.Int64, eager=True)}).with_columns(
        m=pl.format("W{}", pl.col("n").cast(pl.String).str.zfill(7))
    )
    for index in range(days):
        day = FIRST + timedelta(days=index)
        stamp = (
            datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
            .astimezone(UTC)
            .strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        dial = 100_000 + (pl.col("n") * 7919) % 500_000 + index * (20 + (pl.col("n") * 104_729) % 400)
        ids.select(meter_id="m", read_at=pl.lit(stamp), dial=dial, sequence=pl.lit(index + 1)).write_csv(
            inbox / f"daily_{day}.csv"
        )
    return time.monotonic() - began
