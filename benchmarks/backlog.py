"""What a bad night leaves behind: five days at once after an outage, and a hundred thousand payloads that cannot be
read.

The burst: ``days`` billing days of ``meters`` x 96 intervals wait; all of them start at once, and for ``outage_s``
seconds the database throws its writers out and takes no connection. Sampled meanwhile: the writers' connections and
this process's memory; counted: writes attempted.

The malformed: a delimited file of ``good`` lines lands alone, then another with as many good lines and ``bad``
malformed ones among them.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import date, datetime, timedelta
from typing import Any

from benchmarks.load import CALENDAR, DAY, City, scratch
from benchmarks.support import document, peak_rss_mib
from meter_pipeline.clock import SystemClock
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import land
from meter_pipeline.ingest.tables import load
from meter_pipeline.postgres.database import Database, open_database
from meter_pipeline.settings import load_settings

HEAD_END = HeadEnd(
    "BENCH",
    "delimited",
    interval_minutes=15,
    unit="kWh",
    columns={"meter_id": "meter", "channel": "channel", "time": "start", "value": "kwh", "sequence": "seq"},
)


def run(
    meters: int = 20_000, days: int = 5, outage_s: float = 4.0, good: int = 96_000, bad: int = 100_000
) -> dict[str, Any]:
    """Both backlogs, one after the other, in a scratch database."""
    city, drop = scratch(meters)
    try:
        burst = _burst(city, days, float(outage_s))
        malformed = _malformed(city, good, bad)
    finally:
        drop()
    ratio = malformed.pop("_ratio")
    return document(
        "backlog",
        {"meters": meters, "days": days, "outage_s": outage_s, "good": good, "bad": bad},
        {**burst, **malformed},
        {
            "attempts_over_batches": round(burst["attempts"] / burst["batches"], 2),
            "good_load_with_bad_over_alone": ratio,
        },
    )


def _burst(city: City, days: int, outage_s: float) -> dict[str, Any]:
    wanted = [DAY + timedelta(days=n) for n in range(days)]
    for day in wanted:
        city.land(city.reads(day))
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # every connection that the outage refuses
    before, done, most = peak_rss_mib(), threading.Event(), {"connections": 0}
    attempts: list[float] = []
    real = load.write_batch

    async def counted(connection: Any, batch: load.Batch) -> bool:
        attempts.append(time.perf_counter())
        return await real(connection, batch)

    outcomes: list[Any] = []
    load.write_batch = counted
    watcher = threading.Thread(target=_watch, args=(city.database, done, most))
    runs = [threading.Thread(target=lambda d=day: outcomes.append(city.ingest(d)[1])) for day in wanted]
    try:
        watcher.start()
        started = time.perf_counter()
        for thread in runs:
            thread.start()
        while len(attempts) < days and any(thread.is_alive() for thread in runs):
            time.sleep(0.005)
        outage = _outage(city.database, outage_s)
        for thread in runs:
            thread.join()
        drained = time.perf_counter() - started
    finally:
        load.write_batch = real
        done.set()
        watcher.join()
    during = sum(outage[0] + 0.2 < at < outage[1] for at in attempts)
    batches = sum(o.writers.batches for o in outcomes)
    return {
        "burst_s": round(drained, 2),
        "intervals": sum(o.accepted for o in outcomes),
        "balanced": all(o.balanced for o in outcomes),
        "batches": batches,
        "attempts": len(attempts),
        "attempts_during_outage": during,
        "retries": sum(o.retries for o in outcomes),
        "breaker_opened": sum(o.breaker_opened for o in outcomes),
        "most_writer_connections": most["connections"],
        "peak_rss_mib_before": before,
        "peak_rss_mib": peak_rss_mib(),
    }


def _outage(database: Database, seconds: float) -> tuple[float, float]:
    """Throw the writers out and let nobody in for some seconds; when it began and ended."""
    name = database.read("SELECT current_database() AS n").item()
    with open_database(load_settings()).connect("outage", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'ingest-writer%%'",
            (name,),
        )
        began = time.perf_counter()
        time.sleep(seconds)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    return began, time.perf_counter()


def _watch(database: Database, done: threading.Event, most: dict[str, int]) -> None:
    with database.connect("watch", autocommit=True) as connection:
        while not done.wait(0.02):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'ingest-writer%'"
            ).fetchone()
            most["connections"] = max(most["connections"], int(row[0]) if row else 0)


def _malformed(city: City, good: int, bad: int) -> dict[str, Any]:
    meters = max(good // city.slots, 1)
    figures: dict[str, Any] = {}
    loads = {}
    for name, day, junk in (("alone", DAY + timedelta(days=60), 0), ("with_bad", DAY + timedelta(days=61), bad)):
        path = city.folder / f"malformed-{name}.csv"
        sent = _write(path, city, day, meters, junk)
        started = time.perf_counter()
        landed = land(city.database, CALENDAR, path, HEAD_END, city.places, clock=_After(day))
        figures[f"land_{name}_s"] = round(time.perf_counter() - started, 2)
        loads[name], outcome = city.ingest(day)
        figures[f"load_{name}_s"] = round(loads[name], 2)
        assert outcome.accepted == meters * city.slots, outcome.accepted
        if junk:
            with city.database.connect() as connection:
                kept = {
                    row[0]
                    for row in connection.execute(
                        "SELECT raw FROM raw.dead_letter WHERE file_sha256 = %s", (landed.sha256,)
                    )
                }
            figures |= {
                "dead_letters": landed.dead_letters,
                "dead_letters_complete": kept == sent,
                "dead_letters_per_s": round(bad / figures[f"land_{name}_s"]),
            }
    figures["_ratio"] = round(loads["with_bad"] / loads["alone"], 2)
    return figures


class _After(SystemClock):
    """The noon after a day, so that nothing of it lies in the future; time otherwise passes as it does."""

    def __init__(self, day: date) -> None:
        self.at = CALENDAR.bounds(day)[1] + timedelta(hours=12)

    def now(self) -> datetime:
        return self.at


def _write(path: Any, city: City, day: Any, meters: int, junk: int) -> set[bytes]:
    """A day's lines with malformed ones spread among them; the malformed ones, each different."""
    start = CALENDAR.bounds(day)[0]
    stamps = [(start + timedelta(minutes=15 * slot)).strftime("%Y-%m-%dT%H:%M:%SZ") for slot in range(city.slots)]
    faults = (
        "M{n:07d},E1,not-a-time-{n},1.0,1",
        "M{n:07d},E1,2026-12-28T00:00:00Z,1.x{n},1",
        "short line {n}",
        "M{n:07d},E1,2026-12-28T00:00:00Z,1e99,{n}",
    )
    spread, sent, made = junk / (meters * city.slots), set[bytes](), 0
    with path.open("wb") as out:
        out.write(b"meter,channel,start,kwh,seq\n")
        for index in range(meters * city.slots):
            meter, slot = divmod(index, city.slots)
            out.write(f"M{meter:07d},E1,{stamps[slot]},{index % 3000 / 1000:.3f},{slot + 1}\n".encode())
            while made < (index + 1) * spread and made < junk:
                line = faults[made % len(faults)].format(n=made).encode()
                sent.add(line)
                out.write(line + b"\n")
                made += 1
    return sent
