"""Another client of the server, in a process of its own that imports nothing else: ``python -m benchmarks.probe_client
URL``. Until standard input closes it runs one point query and one small write a turn, then prints the milliseconds of
each statement as a JSON list.
"""

from __future__ import annotations

import json
import select
import sys
import time

import psycopg

#: Seconds between two turns: often enough for a percentile, seldom enough to be no load itself.
PAUSE_S = 0.005


def probe(url: str) -> list[float]:
    """Milliseconds of each statement, in order."""
    felt: list[float] = []
    with psycopg.connect(url, autocommit=True, application_name="probe") as connection:
        print("ready", flush=True)
        n = 0
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            n += 1
            for statement, parameters in (
                (
                    "SELECT status FROM ref.channels AS c LEFT JOIN ref.service_points ON false WHERE meter_id = %s",
                    (f"M{n % 1000:07d}",),
                ),
                ("INSERT INTO probe VALUES (%s, now()) ON CONFLICT (n) DO UPDATE SET written = now()", (n % 100,)),
            ):
                started = time.perf_counter()
                connection.execute(statement.encode(), parameters)
                felt.append((time.perf_counter() - started) * 1000)
    return felt


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
