"""Register reads that enclose several days of an interval meter: what the register leaves for one of them.

A stretch runs from a read at one midnight to the next read at a midnight, several days later. Its difference less what
the other days really read is what is left for this day. Where other days were estimated too, what is left is shared in
proportion to the unscaled estimates, by differences of one cumulative function, so that the days of a stretch sum to
its register exactly whatever order they run in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.vectors import to_matrices
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.estimation.scaling import share_until
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.registers.series import Registers
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES
from meter_pipeline.vee.rules.interval_rules import code_table
from meter_pipeline.vee.rules.model import Bools, Ints, ValidatedMatrix
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import true_up as requests
from meter_pipeline.vee.tables import validated

#: Longest stretch looked at, in days: a quarter's manual read of an interval meter
MOST_DAYS: Final = 100
_TAG: Final = b"mp-stretch/1"


@dataclass(frozen=True, slots=True)
class RegisterSpan:
    """One row's stretch: register difference in micro units, first and last day, both included."""

    row: int
    meter_id: str
    quantity: int
    first: date
    last: date


@dataclass(frozen=True, slots=True)
class SpanDay:
    """What a validated day of a stretch takes: really read, estimated before scaling, in all; ``spiked``: a peak waits
    for its register."""

    read: int
    unscaled: int
    total: int
    whole: bool
    spiked: bool


Others: TypeAlias = dict[int, dict[date, SpanDay]]
#: By day: the channels (service point, meter, channel) whose share of a stretch is now another, and what it is
Again: TypeAlias = dict[date, list[tuple[str, str, str, int]]]


def find(
    rows: DayRows, registers: Registers, calendar: BillingCalendar, day: date, t: Thresholds
) -> list[RegisterSpan]:
    """Stretches of the rows whose day no pair of reads encloses by itself. Meters that came or went within the stretch
    have none."""
    context = rows.context
    open_rows = np.flatnonzero(
        ~context.register_doubted
        & (context.register_difference == NO_VALUE)
        & context.known
        & context.unit_ok
        & (context.expected == rows.matrix.slots)
    )
    if not open_rows.size or not registers.reads.series.size:
        return []
    own = registers.frame.filter(pl.col("total") & ~pl.col("register_only"))
    key = ["service_point_id", "meter_id", "sums_to"]
    single = own.filter(pl.len().over(key) == 1).select(*key, "series", "installed_s", "removed_s")
    wanted = (
        rows.keys[open_rows]
        .select("service_point_id", "meter_id", pl.col("channel").alias("sums_to"))
        .with_columns(row=pl.Series(open_rows))
    )
    start, end = (int(moment.timestamp()) for moment in calendar.bounds(day))
    snap = t.register_boundary_seconds
    reads, found = registers.reads, registers.found
    out = []
    for row, meter, series, installed, removed in (
        wanted.join(single, on=key).select("row", "meter_id", "series", "installed_s", "removed_s").iter_rows()
    ):
        lo, hi = np.searchsorted(reads.series, [series, series + 1])
        used = np.flatnonzero(found.used[lo:hi]) + lo
        at = reads.at[used]
        opening, closing = np.searchsorted(at, start + snap, "right") - 1, np.searchsorted(at, end - snap)
        if opening < 0 or closing >= at.size or closing <= opening:
            continue
        begins, ends = int(at[opening]), int(at[closing])
        steps = found.consumed[used[opening + 1 : closing + 1]]
        first, last = _day_beginning(calendar, begins, snap), _day_ending(calendar, ends, snap)
        if first is None or last is None or (last - first).days >= MOST_DAYS or (steps == NO_VALUE).any():
            continue
        if installed > begins or (removed is not None and removed < ends):
            continue
        out.append(RegisterSpan(int(row), meter, int(steps.sum()), first, last))
    return out


def _day_beginning(calendar: BillingCalendar, at: int, snap: int) -> date | None:
    """The day that begins within the snap of an instant."""
    day = calendar.day_of(datetime.fromtimestamp(at + snap, UTC))
    return day if abs(calendar.start_s(day) - at) <= snap else None


def _day_ending(calendar: BillingCalendar, at: int, snap: int) -> date | None:
    following = _day_beginning(calendar, at, snap)
    return None if following is None else following - timedelta(days=1)


def attach(session: Database, rows: DayRows, stretches: Sequence[RegisterSpan], day: date) -> Others:
    """Give each row with a stretch what the register leaves for it; returns what the other days take, for ``settle``.

    Where nothing else of the stretch was estimated that is the row's register difference itself, as if it had been read
    daily. A stretch that does not add up is reported on its last day only. With a day of the stretch not validated yet,
    or partly null, nothing is said.
    """
    context = rows.context
    others = _others(session, rows, stretches, day)
    values, estimate = rows.matrix.values, code_table("estimate")
    for s in stretches:
        found = others.get(s.row, {})
        days = [s.first + timedelta(days=k) for k in range((s.last - s.first).days + 1)]
        rest = [d for d in days if d != day]
        if any(d not in found or not found[d].whole for d in rest):
            continue
        left = s.quantity - sum(found[d].read for d in rest)
        before, after = sum(found[d].unscaled for d in rest if d < day), sum(found[d].unscaled for d in rest if d > day)
        tolerance = int(context.register_tolerance[s.row]) * len(days)
        whole = bool((values[s.row] != NO_VALUE).all()) and not estimate[rows.matrix.quality[s.row]].any()
        misses = abs(left - int(values[s.row].sum())) > tolerance if whole else False
        if before or after:
            context.stretch_left[s.row], context.stretch_before[s.row], context.stretch_after[s.row] = (
                left,
                before,
                after,
            )
            context.register_tolerance[s.row] = tolerance
        elif not misses or day == s.last:
            context.register_difference[s.row] = left
            context.register_tolerance[s.row] = tolerance
    return others


def settle(
    rows: DayRows, v: ValidatedMatrix, stretches: Sequence[RegisterSpan], others: Others, day: date, again: Again
) -> None:
    """Adds to ``again`` the other days of stretches that come out differently beside what this day has become, or whose
    peak is now borne out."""
    for s in stretches:
        found = dict(others.get(s.row, {}))
        scaled = _ours(v.values[s.row], v.quality[s.row], v.flags[s.row])
        read = int(v.values[s.row][(v.values[s.row] != NO_VALUE) & ~scaled].sum())
        unscaled = int(v.unscaled[s.row]) if scaled.any() else 0
        found[day] = SpanDay(read, unscaled, int(v.total[s.row]), not v.missing[s.row], False)
        days = [s.first + timedelta(days=k) for k in range((s.last - s.first).days + 1)]
        if any(d not in found or not found[d].whole for d in days):
            continue
        left = max(s.quantity - sum(o.read for o in found.values()), 0)
        everything, before = sum(o.unscaled for o in found.values()), 0
        names = rows.keys.row(s.row, named=True)
        for d in days:
            own = found[d]
            share = (
                share_until(left, before + own.unscaled, everything) - share_until(left, before, everything)
                if everything > 0
                else 0
            )
            before += own.unscaled
            if d != day and ((own.unscaled and own.total != own.read + share) or own.spiked):
                again.setdefault(d, []).append(
                    (names["service_point_id"], names["meter_id"], names["channel"], own.read + share)
                )


def asked(again: Again, day: date) -> list[requests.Request]:
    """The requests for the days of ``again``, one a day."""
    return [_request(d, day, sorted(lines)) for d, lines in sorted(again.items())]


def _ours(values: Ints, codes: npt.NDArray[np.uint16], flags: npt.NDArray[np.int32]) -> Bools:
    """Slots with an estimate of our own: one that the head-end sent or a person entered is not ours to scale."""
    theirs = np.int32(INTERVAL_RULES["SOURCE_ESTIMATE"].mask | INTERVAL_RULES["EDITED"].mask)
    ours: Bools = (values != NO_VALUE) & code_table("estimate")[codes] & ((flags & theirs) == 0)
    return ours


def _request(day: date, read_day: date, lines: list[tuple[str, str, str, int]]) -> requests.Request:
    digest = hashlib.sha256(_TAG)
    for line in lines:
        digest.update("\x1f".join(map(str, line)).encode() + b"\x1e")
    return requests.Request(day, read_day, digest.digest(), len(lines), tuple(point for point, *_ in lines))


def _others(session: Database, rows: DayRows, stretches: Sequence[RegisterSpan], day: date) -> Others:
    """Returns by row the part of its stretch that each validated other day takes."""
    wanted: dict[date, list[RegisterSpan]] = {}
    for s in stretches:
        for k in range((s.last - s.first).days + 1):
            other = s.first + timedelta(days=k)
            if other != day:
                wanted.setdefault(other, []).append(s)
    out: Others = {}
    spike = np.int32(INTERVAL_RULES["SPIKE"].mask)
    key = ["service_point_id", "meter_id", "channel"]
    for other, mine in sorted(wanted.items()):
        frame = validated.read_vectors(session, validated.INTERVAL_DAY, other, sorted({s.meter_id for s in mine}))
        index = rows.keys[[s.row for s in mine]].select(key).with_columns(row=pl.Series([s.row for s in mine]))
        for m in to_matrices(frame) if frame.height else []:
            for i, row in m.keys.select(key).with_row_index("i").join(index, on=key).select("i", "row").iter_rows():
                names = m.keys.row(i, named=True)
                flags = np.array(names["flags"] or [0] * m.slots, np.int32)
                scaled = _ours(m.values[i], m.quality[i], flags)
                spiked = names["register_difference_micro"] is None and bool((flags & spike).any())
                out.setdefault(row, {})[other] = SpanDay(
                    int(m.values[i][(m.values[i] != NO_VALUE) & ~scaled].sum()),
                    int(names["unscaled_micro"]) if scaled.any() else 0,
                    int(names["total_micro"]),
                    names["missing"] == 0 and names["expected"] == m.slots,
                    spiked,
                )
    return out
