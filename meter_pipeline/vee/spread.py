"""A day's shards judged beforehand, by as many processes as there are, on as many machines: each leaves its shards as
files in a shared folder.

The stage itself stays what it is: one transaction, by one process, which writes the day. For each shard it looks
whether somebody judged it already, from what it knows itself: the shard's file is named by a hash of what its judgement
stands on (the files loaded for the day, expected rows, registers, edits, thresholds, weather, and which transactions
wrote the usage of the days around it, by which their intervals are known). A shard that is missing, cut off, or made of
what has changed since is judged by the stage. So a step that dies, or a read that comes in between, costs time and no
byte.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from dataclasses import dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.clock import SYSTEM_CLOCK, Clock
from meter_pipeline.control.pause_check import before_writing
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import reading
from meter_pipeline.sharding import between
from meter_pipeline.vee import parcel
from meter_pipeline.vee.registers.read_window import FAR_DAYS
from meter_pipeline.vee.rules import thresholds as threshold_file
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.streaming import City, Made, Piece, each, judge, open_city, parts_of
from meter_pipeline.vee.summary import VeeOutcome
from meter_pipeline.vee.tables import validated
from meter_pipeline.vee.validate import validate_matrix

_LOG: Final = logging.getLogger(__name__)
#: Changed whenever a shard's file or its judgement changes in a way that its inputs do not show
_TAG: Final = b"mp-shard/1"


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: shards judged, rows (meters' channel-days) in them, bytes of their files."""

    number: int
    shards: int
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Beforehand:
    """Where ``steps`` steps leave the shards they judge."""

    folder: Path
    steps: int

    def of(self, connection: Any, city: City, outcome: VeeOutcome) -> Made:
        """Looks up a shard among those left for the city's day, and counts in the outcome those that are taken."""
        state, noted = _state(city), validated.noted_shards(connection, city.read.day)

        def made(number: int, expected: pl.DataFrame) -> Piece | None:
            del number
            inputs = _inputs(city, expected, state)
            if inputs not in noted:
                return None
            try:
                piece = parcel.read(self.path(city.read.day, inputs), noted[inputs])
            except (FileNotFoundError, parcel.ParcelError) as problem:
                _LOG.warning("a judged shard of %s is judged again: %s", city.read.day, problem)
                return None
            outcome.shards_taken += 1
            return piece

        return made

    def path(self, day: date, inputs: bytes) -> Path:
        """A shard's file, by the hash of what its judgement stands on."""
        return self.folder / day.isoformat() / f"{inputs.hex()}.npz"

    def clear(self, day: date) -> None:
        """Take a day's shards away: they are written, or will never be."""
        shutil.rmtree(self.folder / day.isoformat(), ignore_errors=True)


def judge_step(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    beforehand: Beforehand,
    number: int,
    *,
    shards: int = 0,
    clock: Clock = SYSTEM_CLOCK,
    thresholds: Thresholds | None = None,
) -> Step:
    """Judge the shards of step ``number`` of a billing day and leave them in the folder. Reads what
    ``validate_billing_day`` reads; all it writes to the database is the files' hashes (vee.judged_shard).

    In memory are what the shards share (some 3 kB a meter) and three of them. Done again it leaves the same files.
    Raises psycopg errors, OSError, and control.gate.Held where a pause is raised.
    """
    t = thresholds or threshold_file.default()
    with reading(database) as session, reading(database) as ahead, database.connect("vee-shards") as connection:
        city, state, mine = _open(connection, session, ahead, calendar, day, t, beforehand, number, shards, clock)
        connection.commit()
        size = rows = 0
        for expected, (read, unexpected) in zip(mine, each(city, mine) if mine else (), strict=True):
            piece, inputs = judge(city, validate_matrix, read, unexpected, {}), _inputs(city, expected, state)
            written, digest = parcel.write(beforehand.path(day, inputs), piece)
            before_writing(database, clock=clock)
            validated.note_shard(connection, day, inputs, digest, clock.now())
            connection.commit()
            size += written
            rows += expected.height
    return Step(number, len(mine), rows, size)


def _open(
    connection: Any,
    session: Database,
    ahead: Database,
    calendar: BillingCalendar,
    day: date,
    t: Thresholds,
    beforehand: Beforehand,
    number: int,
    shards: int,
    clock: Clock,
) -> tuple[City, bytes, list[pl.DataFrame]]:
    city = open_city(connection, session, ahead, calendar, day, t, clock.now(), 0)
    parts = parts_of(city.read.expected, shards, beforehand.steps)
    first, past = (len(parts) * k // beforehand.steps for k in (number, number + 1))
    # the state is read before the shards' own reads: what comes in between makes another state, and the file is not
    # taken
    return city, _state(city), parts[first:past]


def _state(city: City) -> bytes:
    """Hash of what all shards of the day stand on: the files loaded for it and for the day after (whose first reads
    anchor gaps), thresholds, weather, holidays, the days validated around it, edits, and how much of the day has
    passed."""
    read, far = city.read, timedelta(days=FAR_DAYS)
    reference = read.reference
    parts = (
        city.thresholds.digest,
        city.policy.estimates_more,
        city.final,
        city.calendar.zone,
        read.day,
        min(read.future_s, int(read.end.timestamp())),
        city.days,
        city.like,
        city.available,
        sorted(reference.holidays),
        sorted(reference.temperatures.items()),
        sorted(map(repr, reference.register_hours.rows())),
        sorted(map(repr, read.reused.rows())),
        city.overrides.rows(),
        validated.loaded_files(city.session, read.day),
        validated.usage_versions(city.session, read.day - far, read.day + far),
    )
    return hashlib.sha256(_TAG + repr(parts).encode()).digest()


def _inputs(city: City, expected: pl.DataFrame, state: bytes) -> bytes:
    """Hash of what one shard's judgement stands on: the state, its expected rows, its registers and their use of the
    day, its usage history."""
    points = expected["service_point_id"]
    registers = city.read.registers.of_rows(*between(city.read.registers.frame, points))
    series, reads = registers.frame["series"].to_numpy(), registers.reads
    lo, hi = np.searchsorted(reads.series, [series[0], series[-1] + 1]) if series.size else (0, 0)
    history = city.history.around(points)
    digest = hashlib.sha256(state)
    for frame in (expected, registers.frame, *history.keys.values()):
        buffer = io.BytesIO()
        frame.rechunk().write_ipc(buffer)
        digest.update(buffer.getbuffer())
    use = [getattr(registers.use, f.name) for f in fields(registers.use)]
    for array in (*use, reads.at[lo:hi], reads.dial[lo:hi], *history.quantity, *history.state):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
