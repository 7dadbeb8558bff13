"""Reads into day matrices: from one row per read to one row per payload.

A payload is a meter's channel-day from one file and one source version: reads of a file that carry different versions
are different payloads, so that versions stay comparable slot by slot. Inside a payload the greatest (condition rank,
read time, sequence, line) is kept for a slot; a loser that says the same is a duplicate, one that says something else
is superseded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.quality import MISSING, condition_rank
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

#: Seconds a read may lie before its slot's start and still be counted to it. AMI clocks are kept within seconds;
# California's VEE rules and : AEMO both treat drift of a minute or two as a clock fault to be flagged, not as another
# interval. Never more than a quarter interval.
TOLERANCE_S: Final = 60
#: A file whose key changes at more than one read in so many is not sorted by meter.
SORTED_ENOUGH: Final = 4
MINUTE_US: Final = 60_000_000
_PAYLOAD: Final = ["billing_day", "interval_minutes", "meter_id", "channel", "source_version", "unit"]
_EPOCH: Final = date(1970, 1, 1).toordinal()


def locate(
    frame: pl.DataFrame, calendar: BillingCalendar, tolerance_s: int = TOLERANCE_S
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Billing day (days since 1970), slot from 0 and offset in seconds of each interval read of a canonical frame."""
    instants = frame["interval_start"].to_physical().to_numpy()
    minutes = frame["interval_minutes"].to_numpy()
    lengths = np.unique(minutes[:: max(len(minutes) // 1000, 1)]) if len(minutes) else minutes
    if len(lengths) != 1 or not (minutes == lengths[0]).all():
        lengths = np.unique(minutes)
    if len(lengths) == 1:
        return _locate(calendar, instants, int(lengths[0]), tolerance_s)
    n = len(instants)
    found = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    for length in lengths.tolist():
        rows = np.flatnonzero(minutes == length)
        for whole, part in zip(found, _locate(calendar, instants[rows], length, tolerance_s), strict=True):
            whole[rows] = part
    return found


def _locate(
    calendar: BillingCalendar, instants: npt.NDArray[np.int64], length: int, tolerance_s: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    tolerance_s = min(tolerance_s, length * 15)
    start = int(instants.min())
    minute = (instants - start) // MINUTE_US
    span = int(minute.max()) + 1
    if span < len(instants) and start % MINUTE_US == 0 and bool((minute * MINUTE_US + start == instants).all()):
        # Whole minutes, and fewer different ones than reads: place each minute once and look the reads up.
        table = calendar.locate(start + np.arange(span, dtype=np.int64) * MINUTE_US, length, tolerance_s)
        day, slot, offset = (column[minute] for column in table)
    else:
        day, slot, offset = calendar.locate(instants, length, tolerance_s)
    return day - np.int32(_EPOCH), slot, offset


def pack_intervals(frame: pl.DataFrame, calendar: BillingCalendar) -> list[DayMatrix]:
    """The day matrices of canonical interval reads (schemas.reads.INTERVAL_READS), in any order: one per (billing day,
    interval length).

    Rows are payloads sorted by meter_id, channel, source_version. Keys carry unit, source_version, read_time (the
    latest of the payload's reads), first_line, and the reads by outcome: ``received`` in all, ``duplicate``
    and ``superseded`` by another read of the payload, ``conflicts`` (superseded by a read of the same sequence number:
    the number was reused). A null value is a read that says there is none: its quality is kept, its slot has NO_VALUE.
    Interval lengths must be 1 to 1440 minutes.
    """
    if not frame.height:
        return []
    day, slot, offset = locate(frame, calendar, TOLERANCE_S)
    return _scatter(_Rows(frame, day, slot, offset), calendar)


@dataclass(slots=True)
class _Rows:
    """Reads with their places. The frame may be long: its text columns are looked at once, run by run."""

    frame: pl.DataFrame
    day: npt.NDArray[np.int32]
    slot: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int32]


def _payloads(rows: _Rows) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """The distinct payloads, sorted, and each read's payload number. Files are mostly sorted by meter, so keys are
    compared run by run."""
    frame = rows.frame
    changed = (
        frame.select(
            pl.any_horizontal(
                pl.col(c).ne_missing(pl.col(c).shift())
                for c in ("meter_id", "channel", "source_version", "unit", "interval_minutes")
            )
        )
        .to_series()
        .to_numpy(writable=True)
    )
    changed[1:] |= rows.day[1:] != rows.day[:-1]
    changed[0] = True
    heads = np.flatnonzero(changed)
    if len(heads) * SORTED_ENOUGH > frame.height:
        return _payloads_unsorted(rows)
    runs = frame.select("interval_minutes", "meter_id", "channel", "source_version", "unit", "line")[
        heads
    ].with_columns(billing_day=pl.Series(rows.day[heads]).cast(pl.Date))
    lengths = np.diff(np.append(heads, frame.height))
    payloads = runs.group_by(_PAYLOAD).agg(first_line=pl.col("line").min()).sort(_PAYLOAD)
    if payloads.height == runs.height and payloads.select(_PAYLOAD).equals(runs.select(_PAYLOAD)):
        number = np.arange(runs.height)
    else:
        number = (
            (
                runs.select(_PAYLOAD).join(
                    payloads.select(_PAYLOAD).with_row_index("n"),
                    on=_PAYLOAD,
                    how="left",
                    nulls_equal=True,
                    maintain_order="left",
                )
            )["n"]
            .to_numpy()
            .astype(np.int64)
        )
    return payloads, np.repeat(number, lengths)


def _payloads_unsorted(rows: _Rows) -> tuple[pl.DataFrame, npt.NDArray[np.int64]]:
    """As _payloads, for files in another order (all meters of a slot, then the next slot): each column is coded once,
    and a read's payload is the rank of its combined code."""
    frame = rows.frame
    code = np.zeros(frame.height, np.int64)
    space = 1
    columns: list[npt.NDArray[Any]] = [
        frame[c].cast(pl.Categorical).to_physical().to_numpy() for c in ("meter_id", "channel", "unit")
    ]
    for column in (
        *columns,
        frame["source_version"].fill_null(NO_VALUE).to_numpy(),
        frame["interval_minutes"].to_numpy(),
        rows.day,
    ):
        low, high = int(column.min()), int(column.max())
        if high - low < 2 * frame.height:
            part, size = column.astype(np.int64) - low, high - low + 1
        else:
            found, part = np.unique(column, return_inverse=True)
            size = len(found)
        if space * size > 2**62:
            found, code = np.unique(code, return_inverse=True)
            space = len(found)
        code, space = code * size + part, space * size
    if space > 8 * frame.height + 1024:
        found, code = np.unique(code, return_inverse=True)
        space = len(found)
    first = np.full(space, -1, np.int64)
    first[code[::-1]] = np.arange(frame.height - 1, -1, -1)
    used = first >= 0
    head = first[used]
    listed = frame.select("interval_minutes", "meter_id", "channel", "source_version", "unit", first_line="line")[
        head
    ].with_columns(billing_day=pl.Series(rows.day[head]).cast(pl.Date))
    ordered = listed.with_row_index("was").sort(_PAYLOAD)
    place = np.empty(len(head), np.int64)
    place[ordered["was"].to_numpy()] = np.arange(len(head))
    return ordered.drop("was").select(*_PAYLOAD, "first_line"), place[(np.cumsum(used) - 1)[code]]


def _scatter(rows: _Rows, calendar: BillingCalendar) -> list[DayMatrix]:
    frame = rows.frame
    payloads, payload = _payloads(rows)
    layouts = payloads.group_by("billing_day", "interval_minutes", maintain_order=True).agg(rows=pl.len())
    slots = [
        calendar.slots(day, minutes) for day, minutes in layouts.select("billing_day", "interval_minutes").iter_rows()
    ]
    per_payload = np.repeat(slots, layouts["rows"].to_numpy())
    base = np.cumsum(per_payload) - per_payload
    cells = int(per_payload.sum())
    cell = base[payload] + rows.slot
    received = np.bincount(payload, minlength=payloads.height)

    keep: npt.NDArray[np.int64] | None = None
    complete = len(cell) == cells and bool((cell == np.arange(cells)).all())
    lost = pl.DataFrame(schema={"payload": pl.Int64, "same": pl.Boolean, "reused": pl.Boolean})
    if not complete:
        taken = np.zeros(cells, np.uint8)
        taken[cell] = 1
        if int(np.count_nonzero(taken)) < len(cell):
            keep, lost = _later_wins(frame, cell, payload, cells)
            cell, payload = cell[keep], payload[keep]

    def spread(column: npt.NDArray[Any], empty: int) -> npt.NDArray[Any]:
        if complete:
            return column
        out = np.full(cells, empty, column.dtype)
        out[cell] = column if keep is None else column[keep]
        return out

    values = spread(frame["value"].fill_null(NO_VALUE).to_numpy(), NO_VALUE)
    quality = spread(frame["quality"].fill_null(0).to_numpy(), MISSING)
    sequence = spread(frame["sequence"].fill_null(0).to_numpy(), 0)
    if frame["value"].null_count():
        sequence = np.where(values == NO_VALUE, np.int32(0), sequence)
    off = np.clip(rows.offset, -32768, 32767).astype(np.int16)
    offsets = spread(off, 0) if off.any() else None
    begins = base if complete else None
    latest = _latest(frame["read_time"], payload, keep, begins, payloads.height)
    keys = _count(payloads, received, lost).with_columns(latest)

    matrices = []
    first_row = first_cell = 0
    for (day, minutes, n), width in zip(layouts.iter_rows(), slots, strict=True):
        part, shape = slice(first_cell, first_cell + n * width), (n, width)
        behind = None if offsets is None or not offsets[part].any() else offsets[part].reshape(shape)
        matrices.append(
            DayMatrix(
                day,
                minutes,
                keys.slice(first_row, n).drop("billing_day", "interval_minutes"),
                values[part].reshape(shape),
                quality[part].reshape(shape),
                sequence[part].reshape(shape),
                behind,
            )
        )
        first_row, first_cell = first_row + n, first_cell + n * width
    return matrices


def _later_wins(
    frame: pl.DataFrame, cell: npt.NDArray[np.int64], payload: npt.NDArray[np.int64], cells: int
) -> tuple[npt.NDArray[np.int64], pl.DataFrame]:
    """Choose the read to keep where several of a payload share a slot, and classify the others."""
    crowded = np.flatnonzero((np.bincount(cell, minlength=cells) > 1)[cell])
    few = frame.select("read_time", "sequence", "line", "value", "quality")[crowded]
    rank = few.select(
        pl.col("read_time").to_physical().fill_null(NO_VALUE), pl.col("sequence").fill_null(0), "line"
    ).to_numpy()
    condition = condition_rank(few["quality"].fill_null(0).to_numpy(), few["value"].is_null().to_numpy())
    order = np.lexsort((rank[:, 2], rank[:, 1], rank[:, 0], condition, cell[crowded]))
    sorted_cell = cell[crowded][order]
    last = np.append(sorted_cell[1:] != sorted_cell[:-1], True)
    winner = order[last][np.cumsum(last) - last]
    losers, beaten_by = order[~last], winner[~last]
    value = few["value"].fill_null(NO_VALUE).to_numpy()
    quality, sequence = few["quality"].fill_null(0).to_numpy(), few["sequence"].fill_null(0).to_numpy()
    same = (value[losers] == value[beaten_by]) & (quality[losers] == quality[beaten_by])
    lost = pl.DataFrame(
        {"payload": payload[crowded[losers]], "same": same, "reused": ~same & (sequence[losers] == sequence[beaten_by])}
    )
    alive = np.ones(len(cell), np.bool_)
    alive[crowded[losers]] = False
    return np.flatnonzero(alive), lost


def _latest(
    times: pl.Series,
    payload: npt.NDArray[np.int64],
    keep: npt.NDArray[np.int64] | None,
    begins: npt.NDArray[np.int64] | None,
    n: int,
) -> pl.Series:
    """The latest read time of each payload; null where none of its reads has one. ``begins``: the first read of each
    payload, where they lie in order."""
    if times.null_count() == 0 and times.min() == times.max():
        return pl.Series("read_time", times[:1]).new_from_index(0, n)
    physical = times.to_physical().fill_null(NO_VALUE).to_numpy()
    if begins is not None:
        latest = np.maximum.reduceat(physical, begins)
    else:
        latest = np.full(n, NO_VALUE, np.int64)
        np.maximum.at(latest, payload, physical if keep is None else physical[keep])
    return pl.select(
        pl.when(pl.Series(latest) != NO_VALUE).then(pl.Series(latest)).cast(times.dtype).alias("read_time")
    ).to_series()


def _count(payloads: pl.DataFrame, received: npt.NDArray[np.int64], lost: pl.DataFrame) -> pl.DataFrame:
    """The payloads with their reads counted: received, duplicate, superseded, conflicts."""
    counts = {"received": received}
    of = lost["payload"].to_numpy()
    for name, which in (("duplicate", lost["same"]), ("superseded", ~lost["same"]), ("conflicts", lost["reused"])):
        counts[name] = np.bincount(of[which.to_numpy()], minlength=payloads.height)
    return payloads.with_columns(pl.Series(name, count, dtype=pl.Int64) for name, count in counts.items())


def register_days(read_at: pl.Series, calendar: BillingCalendar) -> pl.Series:
    """Billing day of each register reading: the one whose (start, end] holds it, so that a midnight reading closes the
    day before."""
    if not len(read_at):
        return pl.Series("billing_day", [], dtype=pl.Date)
    before = read_at.dt.offset_by("-1us").to_physical().to_numpy()
    day, _, _ = calendar.locate(before, 60)
    return pl.Series("billing_day", day - np.int32(_EPOCH)).cast(pl.Date)


def pack_registers(frame: pl.DataFrame, calendar: BillingCalendar) -> pl.DataFrame:
    """Canonical register reads (schemas.reads.REGISTER_READS) with their billing_day, instants cut to whole seconds,
    sorted by key."""
    cut = frame.with_columns(pl.col("read_at").dt.truncate("1s"))
    return cut.with_columns(register_days(cut["read_at"], calendar)).sort(
        "billing_day", "meter_id", "channel", "read_at", "source_version", "read_time", "sequence", "line"
    )
