"""What simulated files hold: bytes, what a parser makes of them, what landing stages, the payloads in it."""

from __future__ import annotations

import random
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.ingest import staging
from meter_pipeline.ingest.known_channels import Declared
from meter_pipeline.ingest.staged_days import staged_days
from meter_pipeline.postgres import vectors
from meter_pipeline.schemas.reads import INTERVAL_READS, NO_VALUE, REGISTER_READS, REJECTS, ParsedFeed
from meter_pipeline.units import MAX_DIAL_MICRO
from meter_pipeline_tests.simulation.invariants import Payload

DAY: Final = date(2024, 3, 10)
CALENDAR: Final = BillingCalendar("America/Chicago")
START, END = CALENDAR.bounds(DAY)
NORTH: Final = HeadEnd("NORTH", "jsonl")
METERS: Final = ("M-0", "M-1", "M-2", "M-3")
CHANNELS: Final = pl.DataFrame(
    [
        row
        for meter in METERS
        for row in (
            (meter, "E1", "interval", "kWh", 60, "electricity"),
            (meter, "R1", "register", "kWh", None, "electricity"),
        )
    ],
    schema={
        "meter_id": pl.String,
        "channel": pl.String,
        "kind": pl.String,
        "unit": pl.String,
        "interval_minutes": pl.Int32,
        "commodity": pl.String,
    },
    orient="row",
)
#: Distinct files there are: enough for every overlap, few enough to be prepared once.
CONTENTS: Final = 240
POISON: Final = 91 * 10**17
#: Actual, substituted, final substituted, estimated: what a late file may say of a read, so that the condition rank is
# tried with the versions.
QUALITIES: Final = tuple(quality.pack(flag) for flag in "AASFE")


@lru_cache(maxsize=1)
def declared() -> Declared:
    """CHANNELS as landing asks them. Not at import: the fork server of the killed writers imports this module, and the
    threads that Polars starts when it sorts are in none of its children, which then wait for them for ever."""
    return Declared.of(CHANNELS)


@lru_cache(maxsize=CONTENTS)
def content(number: int) -> tuple[bytes, ParsedFeed]:
    """A file: its bytes and what a parser makes of them. A few meters, versions and sequences, sometimes a repetition,
    junk, or a value no table takes."""
    rng = random.Random(number)
    intervals: list[dict[str, Any]] = []
    registers: list[dict[str, Any]] = []
    for meter in rng.sample(METERS, rng.randint(1, 3)):
        version = rng.randint(1, 3)
        common = {
            "meter_id": meter,
            "unit": "kWh",
            "sequence": rng.randint(0, 2),
            "source_version": version,
            "read_time": START + timedelta(seconds=rng.choice((0, 60, 120))),
            "line": 1,
        }
        for slot in rng.sample(range(23), rng.randint(0, 3)):
            said = {"value": _value(meter, slot, common) * 1000, "quality": rng.choice(QUALITIES)}
            intervals.append(
                {
                    **common,
                    **said,
                    "channel": "E1",
                    "interval_start": START + timedelta(hours=slot),
                    "interval_minutes": 60,
                }
            )
            if rng.random() < 0.1:
                intervals.append(intervals[-1])
        for hour in rng.sample(range(1, 4), rng.randint(0, 2)):
            value = POISON if rng.random() < 0.04 else _value(meter, hour, common) * 10**6
            said = {"value": value, "quality": rng.choice(QUALITIES)}
            registers.append({**common, **said, "channel": "R1", "read_at": START + timedelta(hours=hour)})
    rejects = (
        [
            {
                "line": 9,
                "byte_offset": 99,
                "raw": b"junk",
                "reasons": [{"code": "bad_json", "detail": "junk"}],
                "reads": 1,
            }
        ]
        if rng.random() < 0.15
        else []
    )
    parsed = ParsedFeed(
        "jsonl",
        pl.DataFrame(intervals, schema=INTERVAL_READS),
        pl.DataFrame(registers, schema=REGISTER_READS),
        pl.DataFrame(rejects, schema=REJECTS),
    )
    return repr((number, intervals, registers)).encode(), parsed


def _value(meter: str, slot: int, common: dict[str, Any]) -> int:
    """Values differ with what orders them, and agree where nothing does: of two actual reads that differ and are
    equally old the first stands, so that their order of arrival would tell (ingest/test_unordered.py)."""
    said = (meter, slot, common["source_version"], str(common["read_time"]), common["sequence"])
    return random.Random(repr(said)).randint(0, 3)


_prepare: Final = staged_days


@lru_cache(maxsize=CONTENTS)
def prepared(number: int) -> tuple[dict[date, staging.StagedDay], pl.DataFrame]:
    """What landing stages of a file. Pure, so made once."""
    return _prepare(content(number)[1], CALENDAR, NORTH.name, declared(), START + timedelta(days=30))


@lru_cache(maxsize=CONTENTS)
def payloads(number: int) -> list[Payload]:
    """The payloads of a file, intervals before registers, in staged order."""
    found: list[Payload] = []
    for staged in prepared(number)[0].values():
        if staged.intervals.height:
            numbered = staged.intervals.with_row_index("n")
            rows: dict[int, Payload] = {}
            for matrix in vectors.to_matrices(numbered):
                for at, key in enumerate(matrix.keys.iter_rows(named=True)):
                    slots = {
                        int(slot): (
                            int(matrix.values[at, slot]),
                            int(matrix.quality[at, slot]),
                            int(matrix.sequence[at, slot]),
                        )
                        for slot in np.flatnonzero(matrix.values[at] != NO_VALUE)
                    }
                    taken = int(key["read_time"].timestamp()) if key["read_time"] is not None else -1
                    name: tuple[Any, ...] = (key["meter_id"], key["channel"])
                    rows[key["n"]] = Payload(
                        "interval", name, key["payload_hash"], key["source_version"], taken, key["reads"], slots
                    )
            found += [rows[n] for n in sorted(rows)]
        for row in staged.registers.iter_rows(named=True):
            name = (row["meter_id"], row["channel"], row["read_at"])
            slot = {0: (row["value"], row["quality"], row["sequence"])}
            taken = int(row["read_time"].timestamp()) if row["read_time"] is not None else -1
            found.append(
                Payload(
                    "register",
                    name,
                    row["payload_hash"],
                    row["source_version"],
                    taken,
                    row["reads"],
                    slot,
                    abs(row["value"]) > MAX_DIAL_MICRO,
                )
            )
    return found


class SimulatedFile:
    """Stands for the path of a file in the inbox."""

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.data = content(number)[0]

    def stat(self) -> Any:
        return type("Stat", (), {"st_size": len(self.data), "st_mtime_ns": self.number})()


def parse(path: Any, head_end: HeadEnd, calendar: BillingCalendar) -> ParsedFeed:
    return content(path.number)[1]
