"""Small feeds for the ingest tests: a parser of a toy format, reference meters, and the raw tables' bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import FileFolders
from meter_pipeline.ingest.breaker import Breaker
from meter_pipeline.ingest.controller import Controller
from meter_pipeline.ingest.day import IngestOutcome, Loading, load_billing_day
from meter_pipeline.ingest.writer import PauseCheck
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import INTERVAL_READS, REGISTER_READS, REJECTS, ParsedFeed

DAY = date(2024, 3, 10)
CALENDAR = BillingCalendar("America/Chicago")
START, END = CALENDAR.bounds(DAY)
NORTH = HeadEnd("NORTH", "jsonl")
METERS = [f"M-{n}" for n in range(6)]


class NoPause:
    """Nothing is ever paused."""

    def check(self, commodity: str | None = None, head_end: str | None = None) -> None:
        return None


class FixedClock:
    """Wall time stands still, monotonic time runs, sleeping is real: for tests whose rows must be equal."""

    def now(self) -> datetime:
        return datetime(2024, 4, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        import time

        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)


CLOCK = FixedClock()


@dataclass(frozen=True)
class Read:
    """One interval read (slot) or register read (hour) of the toy format."""

    meter: str
    slot: int
    value: int
    version: int = 1
    sequence: int = 0
    quality: int = 0
    register: bool = False
    read_time: int = 0

    def line(self) -> str:
        return json.dumps(
            [
                self.meter,
                self.slot,
                self.value,
                self.version,
                self.sequence,
                self.quality,
                self.register,
                self.read_time,
            ]
        )


def write_file(folder: Path, name: str, reads: Iterable[Read], junk: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join([*(r.line() for r in reads), *junk]) + "\n")
    return path


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
    """One JSON list a line; anything else is rejected with its bytes."""
    intervals: list[dict[str, Any]] = []
    registers: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    offset = 0
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            meter, slot, value, version, sequence, quality, register, taken = json.loads(raw)
        except ValueError:
            reason = [{"code": "bad_json", "detail": "not a list"}]
            rejects.append(
                {"line": number, "byte_offset": offset, "raw": raw.rstrip(b"\n"), "reasons": reason, "reads": 1}
            )
        else:
            common = {
                "meter_id": meter,
                "unit": "kWh",
                "value": value,
                "sequence": sequence,
                "quality": quality,
                "source_version": version,
                "read_time": START + timedelta(seconds=taken),
                "line": number,
            }
            if register:
                registers.append({**common, "channel": "R1", "read_at": START + timedelta(hours=slot + 1)})
            else:
                intervals.append(
                    {
                        **common,
                        "channel": "E1",
                        "interval_start": START + timedelta(minutes=15 * slot),
                        "interval_minutes": 15,
                    }
                )
        offset += len(raw)
    return ParsedFeed(
        "jsonl",
        pl.DataFrame(intervals, schema=INTERVAL_READS),
        pl.DataFrame(registers, schema=REGISTER_READS),
        pl.DataFrame(rejects, schema=REJECTS),
    )


def enrol(database: Database, meters: Sequence[str] = METERS) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        # As rows from before history was kept: they have no record time of their own, and no ledger entry.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.executemany(
            "INSERT INTO ref.meters (meter_id, commodity, head_end) VALUES (%s, 'electricity', 'NORTH')",
            [(m,) for m in meters],
        )
        cursor.executemany(
            "INSERT INTO ref.channels (meter_id, channel, kind, unit, interval_minutes, flow, multiplier, billed) "
            "VALUES (%s, %s, %s, 'kWh', %s, 'import', 1, true)",
            [row for m in meters for row in ((m, "E1", "interval", 15), (m, "R1", "register", None))],
        )


def places(folder: Path) -> FileFolders:
    return FileFolders(folder / "archive", folder / "staging")


def load_day(
    database: Database,
    folder: Path,
    day: date = DAY,
    *,
    controller: Controller | None = None,
    breaker: Breaker | None = None,
    pause: PauseCheck | None = None,
) -> IngestOutcome:
    """A run of the day as these tests make it: nothing paused unless said, retries from a fixed seed."""
    parts = Loading(
        places(folder),
        lambda: {"NORTH": NORTH},
        pause or NoPause(),
        controller or Controller(),
        breaker or Breaker(),
        random.Random(1),
    )
    return load_billing_day(database, CALENDAR, day, parts, clock=CLOCK)


def raw_bytes(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every column of every row of the tables that must not depend on arrival."""
    tables = {
        "raw.interval_day": "billing_day, meter_id, channel",
        "raw.interval_payload": "billing_day, meter_id, channel, payload_hash",
        "raw.register_read": "billing_day, meter_id, channel, read_at",
        "raw.register_payload": "billing_day, meter_id, channel, read_at, payload_hash",
    }
    with database.connect() as connection:
        return {
            t: connection.execute(f"SELECT * FROM {t} ORDER BY {order}".encode()).fetchall()
            for t, order in tables.items()
        }


def truncate(database: Database) -> None:
    """Forget every file and read, partitions included."""
    with database.connect(autocommit=True) as connection:
        parts = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'raw'::regnamespace AND relkind = 'r' AND relname ~ '_[0-9]{8}$'"
        )
        for (name,) in parts.fetchall():
            connection.execute(f"DROP TABLE raw.{name}".encode())
        connection.execute(
            "TRUNCATE raw.feed_file, raw.feed_file_arrival, raw.feed_file_day, raw.reused_sequence, raw.stated_difference, raw.rounding, raw.load_batch, "
            "raw.day_load, raw.dead_letter"
        )
