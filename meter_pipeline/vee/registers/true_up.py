"""Days that a register read allows to be trued up: those between it and the reads around it, where they now come out
differently.

A read closes the days since the read before it, which were estimated until then; one that comes late also cuts the days
up to the read after it. Only days that were validated, and whose figure differs from the stored one, are asked for: a
run that changes nothing asks for nothing. (AEMO methods 62 to 67: forward estimates are replaced when the meter is
read.)
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers import read_window, series
from meter_pipeline.vee.registers.exchange import OPEN_END
from meter_pipeline.vee.registers.pace import open_quantity, pace
from meter_pipeline.vee.registers.series import Registers
from meter_pipeline.vee.registers.window_use import use_in_windows
from meter_pipeline.vee.rules.model import Bools, Ints
from meter_pipeline.vee.rules.thresholds import Thresholds
from meter_pipeline.vee.tables import true_up

_TAG: Final = b"mp-true-up/1"


def find(
    session: Database,
    calendar: BillingCalendar,
    day: date,
    windows: pl.DataFrame,
    registers: Registers,
    settled: pl.Series,
    t: Thresholds,
) -> list[true_up.Request]:
    """Requests that the day's reads of register-only meters make: one per day that now comes out differently.

    ``windows`` and ``registers`` are those of the day (``assemble.day_windows``, ``series.register_series``).
    ``settled``: service points whose day before is wholly actual (``history.whole_points``): reads enclosed it, so the
    read that opens this day was not their first.
    """
    start, end = (int(moment.timestamp()) for moment in calendar.bounds(day))
    frame = registers.frame.with_columns(reads=pl.Series(registers.use.reads))
    own = frame.filter(pl.col("register_only") & (pl.col("reads") > 0))
    if not own.height:
        return []
    follows = own["service_point_id"].is_in(settled.implode()).to_numpy()
    first, _ = _around(registers, own["series"].to_numpy().astype(np.int64), start, end, follows)
    # most fleets read at midnight: their first read stands on the day's own edge, and no earlier day waits for it
    behind = first < start - t.register_boundary_seconds
    tomorrow, far = day + timedelta(days=1), day + timedelta(days=read_window.FAR_DAYS)
    later = true_up.any_to_compare(session, tomorrow, far, own["service_point_id"].to_list())
    meters = own.filter(pl.Series(behind | later))["meter_id"].unique().sort().to_list()
    if not meters:
        return []
    # two reads behind tell a register that was read before from one whose first stretch this is
    around = read_window.reads_around(session, day, start, end, windows, meters, before=2)
    within = {"": read_window.near_span(start, end)}
    wide = series.register_series(windows.filter(pl.col("meter_id").is_in(meters)), around.reads, t, within)
    mine = wide.frame.with_columns(reads=pl.Series(wide.use.reads)).filter(
        pl.col("register_only") & (pl.col("reads") > 0)
    )
    before, after = _around(
        wide, mine["series"].to_numpy().astype(np.int64), start, end, np.zeros(mine.height, np.bool_)
    )
    if not mine.height:
        return []
    # Days that no register's stretch touches are not read: most stretches are the day itself.
    opened, closed = int(before.min()), int(after.max())
    span = timedelta(days=around.days)
    if closed < OPEN_END:
        far = min(far, calendar.day_of(datetime.fromtimestamp(closed, UTC)))
    touched_later = true_up.validated_days(session, tomorrow, far) if later and far > day else []
    near = [
        other
        for other in (*_validated_before(session, calendar, day, span, opened), *touched_later)
        if calendar.start_s(other) < closed and calendar.start_s(other + timedelta(days=1)) > opened
    ]
    kept_from = first_whole_day(session) if near else date.max
    found = []
    for other in near:
        if other < kept_from or other > day + span:
            continue
        opens, closes = (int(moment.timestamp()) for moment in calendar.bounds(other))
        touched = mine.filter(pl.Series((opens < after) & (closes > before)))
        coming = true_up.validated_anyway(session).get(other)
        if coming:
            touched = touched.filter(~pl.col("service_point_id").is_in(list(coming)))
        if touched.height:
            request = _compare(session, wide, touched, day, other, opens, closes, t)
            if request is not None:
                found.append(request)
    return found


def _validated_before(
    session: Database, calendar: BillingCalendar, day: date, span: timedelta, opened: int
) -> list[date]:
    """Validated days of the ``span`` before a day that end after an instant (UTC seconds); nothing is read where the
    day before ends no later than that."""
    yesterday = day - timedelta(days=1)
    if calendar.start_s(day) <= opened:
        return []
    return true_up.validated_days(session, day - span, yesterday)


def first_whole_day(session: Database) -> date:
    """The first day that can be validated again to the same figures: it and the reads that opened it are in the
    database, not archived."""
    last = true_up.last_archived(session)
    return date.min if last is None else last + timedelta(days=read_window.NEAR_DAYS + 1)


def _around(registers: Registers, series: Ints, start: int, end: int, follows: Bools) -> tuple[Ints, Ints]:
    """Instants of the used reads before and after those of the day, by series; the far past and the far future where
    there are none.

    The far past also where the read before is the very first: until it, time is estimated at the pace of the stretch
    that the day closes. ``follows``: series known to have earlier reads than those at hand.
    """
    used = registers.found.used
    number, at = registers.reads.series[used], registers.reads.at[used]
    # one sorted key of series and instant: instants fit in 40 bits for 30,000 years
    key = number * OPEN_END + at
    last = np.searchsorted(key, series * OPEN_END + start, "right") - 1
    following = np.searchsorted(key, series * OPEN_END + end, "right")
    before, after = np.zeros(series.size, np.int64), np.full(series.size, OPEN_END, np.int64)
    there = last >= 0
    there[there] = number[last[there]] == series[there]
    before[there] = at[last[there]]
    # before the very first read the pace of the first stretch is taken: a second read says it
    second = there & (last > 0)
    second[second] = number[last[second] - 1] == series[second]
    before[there & ~second & ~follows] = 0
    there = following < number.size
    there[there] = number[following[there]] == series[there]
    after[there] = at[following[there]]
    return before, after


def _compare(
    session: Database,
    wide: Registers,
    touched: pl.DataFrame,
    day: date,
    other: date,
    opens: int,
    closes: int,
    t: Thresholds,
) -> true_up.Request | None:
    """Compares another day's usage by the present registers with its stored usage."""
    count = wide.frame.height
    begin, finish = np.full(count, closes, np.int64), np.full(count, closes, np.int64)
    at = touched["series"].to_numpy().astype(np.int64)
    begin[at] = np.maximum(touched["installed_s"].to_numpy(), opens)
    finish[at] = np.minimum(touched["removed_s"].fill_null(OPEN_END).to_numpy(), closes)
    present = wide.reads.series[wide.reads.starts[:-1]]
    grain = series.grains(wide.frame)[present]
    use = use_in_windows(wide.reads, wide.found, begin[present], finish[present], t.register_boundary_seconds, grain)
    quantity = np.full(count, NO_VALUE, np.int64)
    quantity[present] = use.quantity
    own = pace(wide.reads, wide.found, closes, t.adl_days * 86_400)
    lead = np.full(count, NO_VALUE, np.int64)
    for k in np.flatnonzero((use.quantity == NO_VALUE) & (use.lead_s > 0)).tolist():
        ended = open_quantity(use, own, k)
        lead[present[k]] = NO_VALUE if ended is None else ended
    key = ["service_point_id", "meter_id", "channel"]
    enclosed, leads = pl.Series(quantity[at]), pl.Series(lead[at])
    now = touched.select(key).with_columns(
        now=pl.select(pl.when(enclosed != NO_VALUE).then(enclosed).otherwise(leads)).to_series(),
        lead=enclosed == NO_VALUE,
    )
    stored = true_up.register_days(session, other, touched["service_point_id"].unique().sort().to_list())
    was = pl.when("lead").then("usage_micro").otherwise("quantity_micro")
    differs = (
        now.filter(pl.Series(finish[at] > begin[at]) & (pl.col("now") != NO_VALUE))
        .join(stored, on=key)
        .filter(was.ne_missing(pl.col("now")))
        .sort(key)
    )
    if not differs.height:
        return None
    digest = hashlib.sha256(_TAG)
    for row in differs.select(*key, "now").iter_rows():
        digest.update("\x1f".join(map(str, row)).encode() + b"\x1e")
    points = tuple(differs["service_point_id"].to_list())
    return true_up.Request(other, day, digest.digest(), differs.height, points)
