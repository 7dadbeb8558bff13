"""Reading for VEE: the day's rows and registers, and the history its estimates and shifts stand on.

Belongs here: calling the store's bulk reads and bringing them into the shapes of model.py. Does not belong here: SQL, judgement, writing.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.store import validated as store
from meter_pipeline.store.database import Database
from meter_pipeline.store.vectors import RAW_INTERVAL_DAY, read_matrices, to_matrices
from meter_pipeline.vee import assemble, references
from meter_pipeline.vee import history as past
from meter_pipeline.vee import row_rules as rr
from meter_pipeline.vee.interval_rules import code_table
from meter_pipeline.vee.model import Bools, Ints, VectorHistory
from meter_pipeline.vee.outcome import VeeOutcome
from meter_pipeline.vee.thresholds import Thresholds

#: Days around a billing day in which a register read may close or open it
REGISTER_REACH_DAYS: Final = 100
#: Intervals beside midnight that may anchor an interpolation, in hours
EDGE_HOURS: Final = 3
#: Like days fetched beyond those wanted, for rows whose own were estimated or incomplete
SPARE_LIKE_DAYS: Final = 4


@dataclass(slots=True)
class DayInputs:
    """What was read for the day, before judgement."""

    day: date
    start: datetime
    end: datetime
    reference: store.Reference
    rows: list[assemble.DayRows]
    unexpected: pl.DataFrame
    registers: assemble.Registers
    mapped: pl.DataFrame
    account_faults: pl.DataFrame
    windows: pl.DataFrame
    points: pl.DataFrame


def read_day(session: Database, calendar: BillingCalendar, day: date, t: Thresholds, now: datetime) -> DayInputs:
    """Everything the day's judgement needs but history: raw vectors, register reads, reference data, assembled into rows."""
    # the reads come over a second connection while reference data is read and joined
    with ThreadPoolExecutor(1, "vee-read") as pool, store.reading(session) as own:
        registers = pool.submit(store.read_registers, own, day - timedelta(days=1), day + timedelta(days=1))
        vectors = pool.submit(read_matrices, own, RAW_INTERVAL_DAY, day)
        return _read_around(session, calendar, day, t, now, registers, vectors)


def _read_around(
    session: Database, calendar: BillingCalendar, day: date, t: Thresholds, now: datetime, registers_read: Future[pl.DataFrame],
    vectors_read: Future[list[DayMatrix]],
) -> DayInputs:  # fmt: skip
    start, end = calendar.bounds(day)
    start_s, end_s = int(start.timestamp()), int(end.timestamp())
    reference = store.read_reference(session, day, start, end, day - timedelta(days=t.like_days_back))
    windows = assemble.day_windows(assemble.with_units(reference.installations), start_s, end_s)
    points = reference.service_points
    mapped, faults = references.map_accounts(points, reference.agreements, reference.accounts, reference.tariffs, reference.cycles, day)
    accounts = mapped.with_columns(
        tariff_id=pl.when(pl.col("tariff_version").is_not_null()).then(pl.col("tariff_id")),
        cycle_id=pl.when(~pl.col("service_point_id").is_in(faults.filter(pl.col("kind") == "NO_CYCLE")["service_point_id"].implode())).then(
            pl.col("cycle_id")
        ),
    ).drop("tariff_version")
    reads = registers_read.result()
    registers = assemble.register_series(windows, reads, t)
    raw = vectors_read.result()
    expected = assemble.expected_rows(windows, points, accounts)
    lengths = {m.interval_minutes for m in raw} | set(expected["interval_minutes"].drop_nulls().to_list())
    slots = {int(m): calendar.slots(day, int(m)) for m in lengths}
    rows, unexpected = assemble.assemble(
        raw, expected, day, start_s, slots, t, int(now.timestamp()), store.read_reused_sequences(session, day)
    )
    lonely = registers.frame.filter(pl.Series((registers.use.quantity == NO_VALUE) | (registers.use.reads == 0)))["meter_id"].unique().sort().to_list()
    if lonely:
        reach = timedelta(days=REGISTER_REACH_DAYS)
        wide = store.read_registers(session, day - reach, day + reach, lonely)
        others = reads.filter(~pl.col("meter_id").is_in(lonely))
        registers = assemble.register_series(windows, pl.concat([others, wide], how="vertical_relaxed"), t)
    for part in rows:
        assemble.attach_registers(part, registers, t)
    return DayInputs(day, start, end, reference, rows, unexpected, registers, accounts, faults, windows, points)


class StoredVectors:
    """Reads what estimates stand on: the edges of the days beside, like days and days of similar temperature, all validated.

    The day after is read raw, actual values only: it is validated later than the day it serves as anchor for.
    """

    def __init__(
        self, database: Database, calendar: BillingCalendar, day: date, rows: assemble.DayRows, reference: store.Reference,
        available: list[date], t: Thresholds,
    ) -> None:
        self.database, self.calendar, self.day, self.rows = database, calendar, day, rows
        self.available, self.temperatures = set(available), reference.temperatures
        self.like = past.like_days(day, reference.holidays, t.like_days_back, self.available)[-(t.like_days + SPARE_LIKE_DAYS) :]
        self.today = reference.temperatures.get(day, float("nan"))
        known = [d for d in available if d in reference.temperatures and np.isfinite(self.today)]
        near = sorted((abs(reference.temperatures[d] - self.today), day - d, d) for d in known)[: t.proxy_days * 2]
        self.chosen = sorted({*self.like, *(d for gap, _, d in near if gap <= t.proxy_celsius)})

    def _keys(self, rows: Ints) -> tuple[pl.DataFrame, list[str]]:
        keys = self.rows.keys[rows].select("service_point_id", "meter_id", "channel").with_row_index("row")
        return keys, keys["meter_id"].unique().sort().to_list()

    def edges(self, rows: Ints) -> tuple[Ints, Ints]:
        minutes = self.rows.matrix.interval_minutes
        width = min(max(EDGE_HOURS * 60 // minutes, 1), self.rows.matrix.slots)
        keys, meters = self._keys(rows)
        before = np.full((rows.size, width), NO_VALUE, np.int64)
        after = np.full((rows.size, width), NO_VALUE, np.int64)
        if self.day - timedelta(days=1) in self.available:
            for at, m in _validated_rows(self.database, self.day - timedelta(days=1), meters, keys, minutes):
                before[at] = np.where(_usable(m), m.values, NO_VALUE)[:, -width:]
        frame = store.read_vectors(self.database, RAW_INTERVAL_DAY, self.day + timedelta(days=1), meters)
        for m in to_matrices(frame) if frame.height else []:
            if m.interval_minutes == minutes:
                found = m.keys.select("meter_id", "channel").with_row_index("source").join(keys, on=["meter_id", "channel"])
                anchors = np.where((m.quality == quality.ACTUAL) & (m.values >= 0), m.values, NO_VALUE)
                after[found["row"].to_numpy()] = anchors[found["source"].to_numpy(), :width]
        return before, after

    def days(self, rows: Ints) -> VectorHistory:
        minutes, slots = self.rows.matrix.interval_minutes, self.rows.matrix.slots
        keys, meters = self._keys(rows)
        out = VectorHistory(
            self.chosen,
            np.full((len(self.chosen), rows.size, slots), NO_VALUE, np.int64),
            np.zeros((len(self.chosen), rows.size, slots), np.bool_),
            np.array([d in self.like for d in self.chosen], np.bool_),
            np.array([self.temperatures.get(d, np.nan) for d in self.chosen], np.float64),
            self.today,
        )
        for k, other in enumerate(self.chosen):
            to = past.slot_map(self.calendar.zone, self.day, other, minutes)
            for at, m in _validated_rows(self.database, other, meters, keys, minutes):
                usable = _usable(m)
                whole = usable.all(axis=1) & (m.keys["expected"].to_numpy() == m.slots)
                out.values[k, at] = m.values[:, to]
                out.usable[k, at] = usable[:, to] & whole[:, None]
        return out


def _usable(m: DayMatrix) -> Bools:
    usable: Bools = (m.values != NO_VALUE) & ~code_table("estimate")[m.quality] & ~code_table("outage")[m.quality]
    return usable


def _validated_rows(database: Database, day: date, meters: list[str], keys: pl.DataFrame, minutes: int) -> list[tuple[Ints, DayMatrix]]:
    """Validated vectors of a day with the row (of ``keys``) each belongs to."""
    frame = store.read_vectors(database, store.INTERVAL_DAY_VALUES, day, meters)
    out = []
    for m in to_matrices(frame) if frame.height else []:
        if m.interval_minutes != minutes:
            continue
        found = m.keys.select("service_point_id", "meter_id", "channel").with_row_index("source").join(keys, on=["service_point_id", "meter_id", "channel"])
        source = found["source"].to_numpy()
        picked = DayMatrix(m.billing_day, minutes, m.keys[source], m.values[source], m.quality[source], m.sequence[source])
        out.append((found["row"].to_numpy(), picked))
    return out


def mark_shifts(
    database: Database, calendar: BillingCalendar, day: date, read: DayInputs, rows: assemble.DayRows, shape: pl.DataFrame, available: list[date],
    t: Thresholds, outcome: VeeOutcome,
) -> pl.DataFrame:
    """Flag the rows of a head-end whose whole day lies shifted by hours against its own history; returns ``shape`` with ``shifted_hours``."""
    like = past.like_days(day, read.reference.holidays, t.like_days_back, set(available))[-t.like_days :]
    if len(like) < t.like_days_min:
        like = available[-t.like_days :]
    if not like or not shape.height:
        return shape
    minutes = rows.matrix.interval_minutes
    groups = store.read_groups(database, like).filter(pl.col("interval_minutes") == minutes).sort("billing_day")
    found: list[int] = []
    for head_end, unit, flow, members, today in shape.select("head_end", "unit", "flow", "shape_members", "shape").iter_rows():
        mine = (pl.col("head_end") == head_end) & (pl.col("unit") == unit) & (pl.col("flow") == flow)
        usual = np.zeros(rows.matrix.slots, np.float64)
        same = groups.filter(mine & (pl.col("shape_members") >= t.shift_min_rows))
        for other, sums, count in same.select("billing_day", "shape", "shape_members").iter_rows():
            usual += np.array(sums, np.float64)[past.slot_map(calendar.zone, day, other, minutes)] / count
        hours = past.hour_shift(np.array(today, np.float64), usual, minutes, t.shift_ratio) if same.height and members >= t.shift_min_rows else 0
        found.append(hours)
        if hours:
            outcome.shifted_head_ends[f"{head_end} {unit} {flow}"] = hours
            rows.context.register_flags |= np.where(rows.keys.select(mine).to_series().to_numpy(), rr.HOUR_SHIFT.mask, 0)
    return shape.with_columns(shifted_hours=pl.Series(found, dtype=pl.Int16))
