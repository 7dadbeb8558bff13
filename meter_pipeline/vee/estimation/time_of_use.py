"""Time-of-use registers beside the intervals of the hours each of them counts.

The hours are reference data (ref.register_hours), by head-end and register channel in local time: a head-end's meters
are programmed alike. A program that leaves a slot to no register or to two, or that changes within an interval, is not
used for that interval length. (Source: Itron IEE, TOU scaling; Oracle MDM Sum Check, time-of-use registers against the
check register.)
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.estimation.scaling import scale_rows, split_exactly
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.registers.series import Registers
from meter_pipeline.vee.rules.model import Bools, Ints, RowContext


def slot_registers(
    hours: pl.DataFrame, calendar: BillingCalendar, day: date, holidays: Collection[date], minutes: int
) -> tuple[list[str], npt.NDArray[np.int8]] | None:
    """The registers of one program (rows of one head-end), sorted, and the number of the one that counts each slot;
    None where it does not fit."""
    rest = day.weekday() >= 5 or day in holidays
    today = hours.filter(pl.col("days").is_in(["all", "restday" if rest else "workday"]))
    names = sorted(hours["channel"].unique().to_list())
    start, zone = calendar.start_s(day), ZoneInfo(calendar.zone)
    found = np.full(calendar.slots(day, minutes), -1, np.int8)
    spans = [(names.index(c), a, b) for c, a, b in today.select("channel", "from_minute", "to_minute").iter_rows()]
    for slot in range(found.size):
        local = datetime.fromtimestamp(start + slot * minutes * 60, UTC).astimezone(zone)
        begins = local.hour * 60 + local.minute
        touching = [(n, a, b) for n, a, b in spans if a < begins + minutes and b > begins]
        if len(touching) != 1 or touching[0][1] > begins or touching[0][2] < begins + minutes:
            return None
        found[slot] = touching[0][0]
    return names, found


def attach(
    rows: DayRows,
    registers: Registers,
    hours: pl.DataFrame,
    calendar: BillingCalendar,
    day: date,
    holidays: Collection[date],
) -> None:
    """Give each row whose time-of-use registers are all known for the day what each counted; mark those that their
    intervals belie."""
    parts = registers.frame.with_columns(
        quantity=pl.Series(np.where(registers.use.gap_s == 0, registers.use.quantity, NO_VALUE))
    ).filter(
        ~pl.col("total")
        & (pl.col("quantity") != NO_VALUE)
        & (pl.col("begin_s") == pl.col("register_begin_s"))
        & (pl.col("end_s") == pl.col("register_end_s"))
    )
    context, minutes = rows.context, rows.matrix.interval_minutes
    if not hours.height or not parts.height or not rows.keys.height:
        return
    own = rows.keys.select(
        "service_point_id", "meter_id", pl.col("channel").alias("sums_to"), "head_end"
    ).with_row_index("row")
    read = own.join(
        parts.select("service_point_id", "meter_id", "sums_to", "channel", "quantity"),
        on=["service_point_id", "meter_id", "sums_to"],
    )
    programs = []
    for (head_end,), mine in sorted(read.group_by("head_end"), key=lambda g: str(g[0])):
        program = slot_registers(hours.filter(pl.col("head_end") == head_end), calendar, day, holidays, minutes)
        if program is not None:
            programs.append((mine, *program))
    if not programs:
        return
    width = max(len(names) for _, names, _ in programs)
    context.tou_quantity = np.full((rows.matrix.rows, width), NO_VALUE, np.int64)
    context.tou_hours = np.stack([counted for _, _, counted in programs])
    for number, (mine, names, _) in enumerate(programs):
        known = mine.filter(pl.col("channel").is_in(names))
        at = known["channel"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int64).to_numpy()
        context.tou_quantity[known["row"].to_numpy(), at] = known["quantity"].to_numpy()
        here = np.unique(known["row"].to_numpy())
        all_read = here[(context.tou_quantity[here, : len(names)] != NO_VALUE).all(axis=1)]
        context.tou_program[all_read] = number
        context.tou_quantity[here[~np.isin(here, all_read)]] = NO_VALUE
    _check(rows)


def _check(rows: DayRows) -> None:
    """Mark whole rows of which a register does not say what the intervals of its hours do, whatever the sum of all
    says."""
    context, values = rows.context, rows.matrix.values
    for row in np.flatnonzero(context.tou_program >= 0):
        if (values[row] != NO_VALUE).all():
            left = _left(context, int(row), values[row])
            context.tou_mismatch[row] |= bool((np.abs(left) > context.register_tolerance[row]).any())


def _left(context: RowContext, row: int, accepted: Ints) -> Ints:
    """Returns each register's count beyond the accepted values of its hours."""
    quantity = context.tou_quantity[row]
    counted = np.zeros(quantity.size, np.int64)
    has_value = accepted != NO_VALUE
    np.add.at(counted, context.tou_hours[context.tou_program[row]][has_value], accepted[has_value])
    left: Ints = np.where(quantity == NO_VALUE, 0, quantity) - counted
    return left


def scale(context: RowContext, row: int, accepted: Ints, estimates: Ints, done: Bools, residual: int) -> Ints | None:
    """A row's estimates scaled so that they sum to ``residual`` and, register by register, to what each counted in its
    hours.

    Where the registers add up to the total that is exact for each; what their rounding leaves is shared among them.
    None where a register is overrun by the accepted values, or counted something in hours of which nothing is
    estimated: then the total alone is right.
    """
    left, tolerance = _left(context, row, accepted), int(context.register_tolerance[row])
    hours = context.tou_hours[context.tou_program[row]]
    waiting = np.isin(np.arange(left.size), hours[done])
    if (left < -tolerance).any() or (np.abs(left[~waiting]) > tolerance).any():
        return None
    amounts = np.zeros(left.size, np.int64)
    amounts[waiting] = split_exactly(residual, np.maximum(left[waiting], 0))
    scaled: Ints = scale_rows(estimates[None], done[None], amounts[None], hours.astype(np.int32))[0]
    return scaled
