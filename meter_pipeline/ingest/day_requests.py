"""When a billing day that waits is asked for: at once, then again at growing intervals while its runs fail.

A day's run may fail for hours (a disk, a parser's fault, a table that does not verify). It is asked for again after 10,
20, 40 and 80 minutes and then every two hours, and people get an alert when that last interval is reached. Days that
were never asked for come first, so that no number of failing days keeps a new one waiting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from meter_pipeline.clock import Clock
from meter_pipeline.control import notify
from meter_pipeline.ingest.tables import day_requests as tables
from meter_pipeline.ingest.tables.day_requests import RequestCount
from meter_pipeline.postgres.database import Database

FIRST_INTERVAL: Final = timedelta(minutes=10)
MOST_INTERVAL: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Request:
    """A day to ask for: the ``times``-th time (from 1) on the same evidence."""

    day: date
    evidence: bytes
    times: int

    @property
    def run_key(self) -> str:
        """The run key: Dagster starts one run for each key."""
        again = f":{self.times}" if self.times > 1 else ""
        return f"{self.day.isoformat()}:{self.evidence.hex()[:16]}{again}"


def interval(times: int) -> timedelta:
    """How long after the ``times``-th request the next one is made."""
    doublings = min(max(times - 1, 0), 20)
    return min(FIRST_INTERVAL * (1 << doublings), MOST_INTERVAL)


def evidence_of(files: Sequence[bytes]) -> bytes:
    """SHA-256 over the files that a day waits for."""
    return hashlib.sha256(b"".join(sorted(files))).digest()


def due(
    waiting: Mapping[date, bytes],
    asked: Mapping[date, RequestCount],
    now: datetime,
    running: Collection[date],
    most: int,
) -> list[Request]:
    """Days to ask for now, at most so many: those never asked for on this evidence by day, then the others by when they
    were due. A day whose run is queued or running (``running``) is left alone, unless its evidence is new."""
    found: list[tuple[tuple[bool, datetime, date], Request]] = []
    for day, evidence in waiting.items():
        before = asked.get(day)
        if before is None or before.evidence != evidence:
            found.append(((False, now, day), Request(day, evidence, 1)))
            continue
        at = before.last_asked + interval(before.times)
        if at <= now and day not in running:
            found.append(((True, at, day), Request(day, evidence, before.times + 1)))
    return [request for _, request in sorted(found, key=lambda pair: pair[0])[:most]]


def ask(
    database: Database, waiting: Mapping[date, Sequence[bytes]], running: Collection[date], *, most: int, clock: Clock
) -> list[Request]:
    """The days to request now, remembered as requested; people get an alert for a day whose longest interval is
    reached.
    """
    now = clock.now()
    evidence = {day: evidence_of(files) for day, files in waiting.items()}
    with database.connect("day-requests") as connection:
        requests = due(evidence, tables.asked(connection), now, running, most)
        tables.note(connection, [(r.day, r.evidence, r.times) for r in requests], now)
        tables.forget(connection, list(waiting))
        for request in requests:
            if request.times > 1 and interval(request.times) == MOST_INTERVAL:
                notify.tell(connection, _alert(request), clock=clock)
        connection.commit()
    return sorted(requests, key=lambda request: request.day)


def _alert(request: Request) -> notify.Alert:
    return notify.Alert(
        f"day:{request.day}:{request.evidence.hex()[:16]}:waits",
        "warning",
        f"Billing day {request.day} still waits after {request.times - 1} runs",
        f"Its runs fail: see why in the UI under Runs, partition {request.day}. It is asked for again every "
        f"{int(MOST_INTERVAL.total_seconds() // 3600)} hours, and at once when a file for it arrives.",
    )
