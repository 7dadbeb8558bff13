"""Reads the inputs of validation: the day's rows and registers, and the history for estimates and clock shifts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.reading import beside, made_once, reading
from meter_pipeline.postgres.vectors import RAW_INTERVAL_DAY, VectorTable, read_frame, read_matrices, to_matrices
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.set_aside import without_faults
from meter_pipeline.sharding import between
from meter_pipeline.units import MICRO
from meter_pipeline.vee import account_mapping, day_edges
from meter_pipeline.vee.estimation import history as past
from meter_pipeline.vee.estimation import time_of_use
from meter_pipeline.vee.registers import assemble, read_window, series
from meter_pipeline.vee.registers.series import multiplied
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.interval_rules import code_table
from meter_pipeline.vee.rules.model import Bools, Ints, VectorHistory
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import day_inputs, validated

#: Intervals beside midnight that may anchor an interpolation, in hours
EDGE_HOURS: Final = 3
#: Like days fetched beyond those wanted, for rows whose own were estimated or incomplete
SPARE_LIKE_DAYS: Final = 4

#: Hours by which a head-end's day is shifted: (head_end, unit, flow, interval minutes) -> hours
Shifts: TypeAlias = dict[tuple[str, str, str, int], int]


#: Columns of a raw row that validation needs
_RAW: Final = VectorTable("raw.interval_day", extra=("unit",))


@dataclass(frozen=True, slots=True)
class Touched:
    """The part of a day that a run validates: service points, and meters, including those at the service points on
    the day. ``billed``: service points whose usage stays as stored and that are passed to billing, because a change
    of reference data concerns billing only. All sorted."""

    service_points: tuple[str, ...]
    meters: tuple[str, ...]
    billed: tuple[str, ...] = ()


@dataclass(slots=True)
class DayInputs:
    """The inputs of the day without its intervals: ``expected`` interval rows, sorted by service point; ``arrived``
    the channels in the raw table (meter_id, channel, unit, interval_minutes), sorted; ``vectors`` the raw day itself
    where it is one shard."""

    day: date
    start: datetime
    end: datetime
    future_s: int
    reference: day_inputs.Reference
    expected: pl.DataFrame
    arrived: pl.DataFrame
    vectors: list[DayMatrix] | None
    reused: pl.DataFrame
    registers: series.Registers
    mapped: pl.DataFrame
    account_faults: pl.DataFrame
    windows: pl.DataFrame
    points: pl.DataFrame
    aside: dict[str, str]
    aside_meters: pl.DataFrame

    @property
    def meters_aside(self) -> pl.DataFrame:
        """Meters of the services that are set aside: service_point_id, meter_id."""
        later = self.windows.filter(pl.col("service_point_id").is_in(list(self.aside)))
        return pl.concat([self.aside_meters, later.select("service_point_id", "meter_id")]).unique(maintain_order=True)

    @property
    def strangers(self) -> pl.DataFrame:
        """Channels of meters without expected intervals: meter_id, channel, unit, interval_minutes, declared."""
        known = pl.concat([self.expected["meter_id"], self.meters_aside["meter_id"]]).unique().implode()
        found = self.arrived.filter(~pl.col("meter_id").is_in(known))
        return found.with_columns(pl.col("interval_minutes").cast(pl.Int64), declared=pl.lit(False))


def read_day(
    session: Database,
    calendar: BillingCalendar,
    day: date,
    t: Thresholds,
    now: datetime,
    one_shard: int = 1 << 62,
    touched: Touched | None = None,
) -> DayInputs:
    """Read the inputs of validation without history and intervals: reference data, register reads, arrived channels
    (of the part ``touched``, where given). Reads the vectors too, where no more than ``one_shard`` rows arrived."""
    points, meters = (None, None) if touched is None else (touched.service_points, touched.meters)
    # all but the installations, half of all there is to read, comes over a second connection while those are read and
    # cut to the day
    with beside(session, "vee-read") as pool, reading(session) as own:
        reference = pool.submit(day_inputs.read_reference, own, day, day - timedelta(days=t.like_days_back), points)
        registers = pool.submit(
            day_inputs.read_registers, own, day - timedelta(days=1), day + timedelta(days=1), meters
        )
        came = pool.submit(_read_arrived, own, day, one_shard, meters)
        reused = pool.submit(validated.read_reused_sequences, own, day, meters)
        return _read_around(session, calendar, day, t, now, _Coming(reference, registers, came, reused), points)


@dataclass(frozen=True, slots=True)
class _Coming:
    """The part of a day's inputs that another thread reads: reference data, register reads, arrived channels,
    sequence numbers used twice."""

    reference: Future[day_inputs.Reference]
    registers: Future[pl.DataFrame]
    came: Future[tuple[pl.DataFrame, list[DayMatrix] | None]]
    reused: Future[pl.DataFrame]


def _read_arrived(
    session: Database, day: date, one_shard: int, meters: Sequence[str] | None
) -> tuple[pl.DataFrame, list[DayMatrix] | None]:
    if meters is not None and not validated.any_arrived(session, day, meters):
        return validated.NOTHING_ARRIVED, []
    arrived = validated.read_arrived(session, day, meters)
    if arrived.height > one_shard:
        return arrived, None
    if meters is None:
        return arrived, read_matrices(session, _RAW, day)
    frame = validated.read_vectors(session, _RAW, day, meters)
    return arrived, to_matrices(frame) if frame.height else []


def _read_around(
    session: Database,
    calendar: BillingCalendar,
    day: date,
    t: Thresholds,
    now: datetime,
    coming: _Coming,
    of_points: Sequence[str] | None,
) -> DayInputs:
    start, end = calendar.bounds(day)
    start_s, end_s = int(start.timestamp()), int(end.timestamp())
    installations = day_inputs.read_installations(session, day, start, end, points=of_points)
    reference = coming.reference.result()
    points = reference.service_points
    # The same frames stand for all days of a stretch on which nothing of them begins or ends (day_inputs).
    frames = [points, reference.agreements, reference.accounts, reference.tariffs, reference.cycles]
    what = ("payers", reference.supply_meters)
    accounts, faults = made_once(session, what, frames, lambda: _payers(reference, day))
    reads = coming.registers.result()

    def stand(service_points: Sequence[str]) -> tuple[pl.DataFrame, series.Registers, pl.DataFrame]:
        mine = installations if service_points is everyone else _of_points(installations, service_points)
        of_units = made_once(session, ("units",), [mine], lambda: assemble.with_units(mine))
        windows = assemble.day_windows(of_units, start_s, end_s)
        registers = _registers(session, calendar, day, windows, reads, t)

        def rows() -> pl.DataFrame:
            return assemble.expected_rows(windows, points, accounts)

        if made_once(session, ("intervals",), [mine], lambda: bool((mine["kind"] == "interval").any())):
            return windows, registers, rows()
        return windows, registers, made_once(session, ("nothing expected",), [mine, points, accounts], rows)

    everyone = installations["service_point_id"].unique().sort().to_list()
    (windows, registers, expected), aside = without_faults(everyone, stand)
    arrived, vectors = coming.came.result()
    return DayInputs(
        day,
        start,
        end,
        int(now.timestamp()),
        reference,
        expected,
        arrived,
        vectors,
        coming.reused.result(),
        registers,
        accounts,
        faults,
        windows,
        points,
        aside,
        _of_points(installations, list(aside)).select("service_point_id", "meter_id").unique(maintain_order=True),
    )


def _payers(reference: day_inputs.Reference, day: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Account, tariff and cycle of each service point on a day, null where they do not hold, and the exceptions."""
    mapped, faults = account_mapping.map_accounts(
        reference.service_points,
        reference.agreements,
        reference.accounts,
        reference.tariffs,
        reference.cycles,
        reference.supply_meters,
        day,
    )
    no_cycle = faults.filter(pl.col("kind") == "NO_CYCLE")["service_point_id"].implode()
    accounts = mapped.with_columns(
        tariff_id=pl.when(pl.col("tariff_version").is_not_null()).then(pl.col("tariff_id")),
        cycle_id=pl.when(~pl.col("service_point_id").is_in(no_cycle)).then(pl.col("cycle_id")),
    ).drop("tariff_version")
    return accounts, faults


def _of_points(frame: pl.DataFrame, service_points: Sequence[str]) -> pl.DataFrame:
    """Returns rows of some service points; the frame itself where they are all of them."""
    found = frame.filter(pl.col("service_point_id").is_in(list(service_points)))
    return frame if found.height == frame.height else found


def _registers(
    session: Database, calendar: BillingCalendar, day: date, windows: pl.DataFrame, reads: pl.DataFrame, t: Thresholds
) -> series.Registers:
    """Returns the day's register series: from the reads of the day and its neighbours, or of months where those are
    not sufficient."""
    start_s, end_s = calendar.start_s(day), calendar.start_s(day + timedelta(days=1))
    within = {"": (calendar.start_s(day - timedelta(days=1)), calendar.start_s(day + timedelta(days=2)))}
    registers = series.register_series(windows, reads, t, within)
    open_series = pl.Series((registers.use.quantity == NO_VALUE) | (registers.use.reads == 0))
    lonely = registers.frame.filter(open_series)["meter_id"].unique().sort().to_list()
    if not lonely:
        return registers
    # two reads behind: one opens the stretch that ends today, the one before it says what is usual
    wide = read_window.reads_around(session, day, start_s, end_s, windows, lonely, before=2).reads
    span = read_window.near_span(start_s, end_s)
    if not wide.height and not _ends_within(windows, span):
        # These meters have no register reads within a year, so a second computation gives the same result.
        return registers
    others = reads.filter(~pl.col("meter_id").is_in(lonely))
    within |= dict.fromkeys(lonely, span)
    return series.register_series(windows, pl.concat([others, wide], how="vertical_relaxed"), t, within)


def _ends_within(windows: pl.DataFrame, span: tuple[int, int]) -> bool:
    """Whether any register has an install or removal read within a span of time, UTC seconds."""
    ends = [
        pl.col(value).is_not_null() & pl.col(at).is_between(*span)
        for at, value in (("installed_s", "install_micro"), ("removed_s", "removal_micro"))
    ]
    return bool(windows.select(((pl.col("kind") == "register") & pl.any_horizontal(ends)).any()).item())


def read_rows(
    session: Database, calendar: BillingCalendar, read: DayInputs, expected: pl.DataFrame, t: Thresholds
) -> tuple[list[assemble.DayRows], pl.DataFrame]:
    """Returns the rows to validate of some expected ones, with their registers, and the raw rows of their meters
    that are not expected."""
    raw = (
        read.vectors if read.vectors is not None else _read_vectors(session, read, expected["meter_id"].unique().sort())
    )
    start_s = int(read.start.timestamp())
    lengths = {m.interval_minutes for m in raw} | set(expected["interval_minutes"].drop_nulls().unique().to_list())
    slots = {int(m): calendar.slots(read.day, int(m)) for m in lengths}
    rows, unexpected = assemble.assemble(raw, expected, read.day, start_s, slots, t, read.future_s, read.reused)
    registers = read.registers.of_rows(*between(read.registers.frame, expected["service_point_id"]))
    for part in rows:
        assemble.attach_registers(part, registers, t)
        day_edges.settle(part, calendar, read.day)
        time_of_use.attach(part, registers, read.reference.register_hours, calendar, read.day, read.reference.holidays)
    return rows, unexpected


def _read_vectors(session: Database, read: DayInputs, meters: pl.Series) -> list[DayMatrix]:
    """Returns raw vectors of some meters (sorted). Where few others lie between the first and the last of them the
    key's range is read, otherwise each is looked up."""
    if not len(meters):
        return []
    came = read.arrived["meter_id"]
    arrived = int(came.search_sorted(meters[-1], "right")) - int(came.search_sorted(meters[0], "left"))
    if arrived <= 2 * len(meters) + 1000:
        frame = read_frame(session, _RAW, read.day, " AND meter_id BETWEEN $2 AND $3", (meters[0], meters[-1]))
        if frame.height:
            frame = frame.join(pl.DataFrame({"meter_id": meters}), on="meter_id", how="semi", maintain_order="left")
    else:
        frame = validated.read_vectors(session, _RAW, read.day, meters.to_list())
    return to_matrices(frame) if frame.height else []


class StoredVectors:
    """Reads the history for estimates: the edges of the neighbouring days, similar days and days of similar
    temperature, all validated.

    The day after is read raw, actual values only: it is validated later than this day.
    """

    def __init__(
        self,
        database: Database,
        calendar: BillingCalendar,
        day: date,
        rows: assemble.DayRows,
        reference: day_inputs.Reference,
        available: list[date],
        t: Thresholds,
    ) -> None:
        self.database, self.calendar, self.day, self.rows = database, calendar, day, rows
        self.available, self.temperatures = set(available), reference.temperatures
        self.like = past.like_days(day, reference.holidays, t.like_days_back, self.available)[
            -(t.like_days + SPARE_LIKE_DAYS) :
        ]
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
        following = self.day + timedelta(days=1)
        factors = day_inputs.interval_factors(self.database, following)
        frame = validated.read_vectors(self.database, RAW_INTERVAL_DAY, following, meters)
        for m in to_matrices(frame) if frame.height else []:
            if m.interval_minutes == minutes:
                found = (
                    m.keys.select("meter_id", "channel").with_row_index("source").join(keys, on=["meter_id", "channel"])
                )
                at, source = found["row"].to_numpy(), found["source"].to_numpy()
                own, plain = m.values[source, :width], m.quality[source, :width] == quality.ACTUAL
                if factors:
                    times = [factors.get(key, MICRO) for key in found.select("meter_id", "channel").iter_rows()]
                    own = np.where(own == NO_VALUE, own, multiplied(own, np.array(times, np.int64)[:, None]))
                signed = self.rows.context.signed[rows[at], None]
                after[at] = np.where(plain & ((own >= 0) | signed), own, NO_VALUE)
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


def _validated_rows(
    database: Database, day: date, meters: list[str], keys: pl.DataFrame, minutes: int
) -> list[tuple[Ints, DayMatrix]]:
    """Validated vectors of a day with the row (of ``keys``) each belongs to."""
    frame = validated.read_vectors(database, validated.INTERVAL_DAY_VALUES, day, meters)
    out = []
    for m in to_matrices(frame) if frame.height else []:
        if m.interval_minutes != minutes:
            continue
        found = (
            m.keys.select("service_point_id", "meter_id", "channel")
            .with_row_index("source")
            .join(keys, on=["service_point_id", "meter_id", "channel"])
        )
        source = found["source"].to_numpy()
        picked = DayMatrix(
            m.billing_day, minutes, m.keys[source], m.values[source], m.quality[source], m.sequence[source]
        )
        out.append((found["row"].to_numpy(), picked))
    return out


def find_shifts(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    holidays: Collection[date],
    shape: pl.DataFrame,
    available: list[date],
    t: Thresholds,
) -> Shifts:
    """Returns head-ends whose whole day is shifted by hours against their own history: (head_end, unit, flow, interval
    minutes) -> hours.

    ``shape``: the load shapes of the day (output_frames.head_end_shapes), of all meters.
    """
    like = past.like_days(day, holidays, t.like_days_back, set(available))[-t.like_days :]
    if len(like) < t.like_days_min:
        like = available[-t.like_days :]
    if not like or not shape.height:
        return {}
    history = validated.read_groups(database, like).sort("billing_day")
    found: Shifts = {}
    for head_end, unit, flow, minutes, members, today in shape.select(
        "head_end", "unit", "flow", "interval_minutes", "shape_members", "shape"
    ).iter_rows():
        mine = (
            (pl.col("head_end") == head_end)
            & (pl.col("unit") == unit)
            & (pl.col("flow") == flow)
            & (pl.col("interval_minutes") == minutes)
        )
        same = history.filter(mine & (pl.col("shape_members") >= t.shift_min_rows))
        if not same.height or members < t.shift_min_rows:
            continue
        usual = np.zeros(len(today), np.float64)
        for other, sums, count in same.select("billing_day", "shape", "shape_members").iter_rows():
            usual += np.array(sums, np.float64)[past.slot_map(calendar.zone, day, other, minutes)] / count
        hours = past.hour_shift(np.array(today, np.float64), usual, minutes, t.shift_ratio)
        if hours:
            found[head_end, unit, flow, minutes] = hours
    return found


def mark_shifts(rows: assemble.DayRows, shifts: Shifts) -> None:
    """Flag the rows of head-ends whose day is shifted."""
    for head_end, unit, flow, minutes in shifts:
        if minutes == rows.matrix.interval_minutes:
            mine = rows.keys.select(
                (pl.col("head_end") == head_end) & (pl.col("unit") == unit) & (pl.col("flow") == flow)
            ).to_series()
            rows.context.register_flags |= np.where(mine.fill_null(False).to_numpy(), rr.HOUR_SHIFT.mask, 0)


def shifted(shape: pl.DataFrame, shifts: Shifts) -> pl.DataFrame:
    """The day's shapes with ``shifted_hours``."""
    hours = (
        [shifts.get(key, 0) for key in shape.select("head_end", "unit", "flow", "interval_minutes").iter_rows()]
        if shape.height
        else []
    )
    return shape.with_columns(shifted_hours=pl.Series(hours, dtype=pl.Int16)) if hours else shape
