"""Register reads as they were loaded, made into one series a register with its dial, multiplier and capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline import units
from meter_pipeline.vee.registers.reads import Series, Steps, steps
from meter_pipeline.vee.registers.window_use import WindowUse, use_in_windows
from meter_pipeline.vee.rules.model import Ints
from meter_pipeline.vee.rules.thresholds import Thresholds

_BIG: Final = 4e18


@dataclass(slots=True)
class Registers:
    """The day's register series: ``frame`` one row per series (installation and register channel) in the order of
    ``use``.

    ``frame`` has service_point_id, meter_id, channel, flow, unit, sums_to, billed, register_only, head_end and the
    window; ``reads`` and ``found`` the reads and their causes; ``use`` what each used in its window of the day.
    """

    frame: pl.DataFrame
    reads: Series
    found: Steps
    use: WindowUse

    def of_points(self, service_points: Sequence[str]) -> Registers:
        """The series of some service points, beside all reads."""
        mine = self.frame["service_point_id"].is_in(list(service_points))
        at = np.flatnonzero(mine.to_numpy())
        use = WindowUse(*(getattr(self.use, f.name)[at] for f in fields(WindowUse)))
        return Registers(self.frame.filter(mine), self.reads, self.found, use)

    def of_rows(self, first: int, past: int) -> Registers:
        """The series [first, past) of the frame, beside all reads."""
        use = WindowUse(*(getattr(self.use, f.name)[first:past] for f in fields(WindowUse)))
        return Registers(self.frame.slice(first, past - first), self.reads, self.found, use)


def _spread(use: WindowUse, present: Ints, count: int) -> WindowUse:
    """Window use for every series of the frame, those without any read included."""
    out = WindowUse.empty(count)
    for field in fields(WindowUse):
        getattr(out, field.name)[present] = getattr(use, field.name)
    return out


def register_series(
    windows: pl.DataFrame, reads: pl.DataFrame, thresholds: Thresholds, within: dict[str, tuple[int, int]]
) -> Registers:
    """Register reads as series with the day's use of each, multipliers applied, install and removal reads put in.

    ``windows`` as from ``day_windows``; ``reads`` with meter_id, channel, at, value. ``within``: from and to which
    instant (UTC seconds) ``reads`` holds every read, by meter, and under "" of all the others: install and removal
    reads beyond it are left out, because unread reads may lie between. A register is the total of its interval
    channel where it is billed or alone; others that sum to the same channel are time-of-use registers. A billed
    register is usage of its own (``register_only``) where its meter has no billed interval channel of the same flow.
    """
    intervals = (
        windows.filter(pl.col("kind") == "interval")
        .select("service_point_id", "meter_id", pl.col("channel").alias("sums_to"))
        .unique()
    )
    declared = windows.filter(pl.col("kind") == "register")
    if intervals.height:
        declared = declared.join(
            intervals.with_columns(has_interval=pl.lit(True)),
            on=["service_point_id", "meter_id", "sums_to"],
            how="left",
        )
        # Intervals and a dial of one meter measure the same energy also where no sums_to ties them, in whatever unit.
        same = ["service_point_id", "meter_id", "flow"]
        billed = windows.filter((pl.col("kind") == "interval") & pl.col("billed")).select(same).unique()
        declared = declared.join(billed.with_columns(by_interval=pl.lit(True)), on=same, how="left")
    else:
        declared = declared.with_columns(pl.lit(None, pl.Boolean).alias(c) for c in ("has_interval", "by_interval"))
    counted = pl.col("has_interval").is_null() & pl.col("by_interval").is_null()
    frame = (
        declared.with_columns(register_only=counted & pl.col("billed"))
        .sort("service_point_id", "meter_id", "channel", "installed_s")
        .with_row_index("series")
    )
    alone = (
        ~pl.struct("service_point_id", "meter_id", "sums_to").is_duplicated()
        if not frame["billed"].all()
        else pl.lit(True)
    )
    frame = frame.with_columns(total=pl.col("billed") | alone)
    both = reads.join(
        frame.select("series", "meter_id", "channel", "installed_s", "removed_s"), on=["meter_id", "channel"]
    )
    inside = both.filter(
        (pl.col("at") >= pl.col("installed_s"))
        & (pl.col("removed_s").is_null() | (pl.col("at") <= pl.col("removed_s")))
    )
    ends = frame.filter("total")
    first, last = (
        pl.col("meter_id").replace_strict(
            {m: span[k] for m, span in within.items()}, default=within[""][k], return_dtype=pl.Int64
        )
        for k in (0, 1)
    )
    synthetic = [
        ends.filter(pl.col(value).is_not_null() & pl.col(at).is_between(first, last)).select(
            "series", pl.col(at).alias("at"), pl.col(value).alias("value")
        )
        for at, value in (("installed_s", "install_micro"), ("removed_s", "removal_micro"))
    ]
    everything = (
        pl.concat([*synthetic, inside.select("series", "at", "value")], how="vertical_relaxed")
        .with_columns(pl.int_range(pl.len()).alias("origin"))
        .sort("series", "at", "origin")
        # sorted as they are, the first read of an instant is the one that differs from the one before
        .filter(
            (pl.col("series") != pl.col("series").shift(1))
            | (pl.col("at") != pl.col("at").shift(1))
            | (pl.int_range(pl.len()) == 0)
        )
    )
    number = everything["series"].to_numpy().astype(np.int64)
    present = number[np.flatnonzero(np.diff(number, prepend=-1))]
    series = _series(frame, number, everything["at"].to_numpy().astype(np.int64), everything["value"].to_numpy())
    found = steps(series, thresholds)
    # a register of intervals is taken over all the time its meter stood there; what that is more than its own time is
    # taken off again
    opens, closes = (
        frame.select(pl.when("register_only").then(own_edge).otherwise(pl.col("register_" + own_edge)))
        .to_series()
        .to_numpy()
        .astype(np.int64)
        for own_edge in ("begin_s", "end_s")
    )
    part = use_in_windows(
        series, found, opens[present], closes[present], thresholds.register_boundary_seconds, grains(frame)[present]
    )
    return Registers(frame, series, found, _spread(part, present, frame.height))


def grains(frame: pl.DataFrame) -> Ints:
    """By series of a register frame, a millionth of the dial's own unit in micro base units."""
    grain: Ints = np.maximum(frame["unit_micro"].to_numpy() // units.MICRO, 1)
    return grain


def _series(frame: pl.DataFrame, number: Ints, at: Ints, value: Ints) -> Series:
    """Reads in the order of their series, with the multiplier applied.

    A dial that stands so high that its multiple leaves 64 bits is counted from the lowest of its reads; whole units are
    taken off, so no part of a millionth is lost. Raises OverflowError where even what it counted is beyond them.
    """
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    present = number[starts]
    own = frame["multiplier_micro"].to_numpy().astype(np.int64)
    read = np.ascontiguousarray(value).astype(np.int64)
    times = np.abs(own[present]) / units.MICRO
    base = np.zeros(present.size, np.int64)
    if read.size:
        lowest, highest = np.minimum.reduceat(read, starts), np.maximum.reduceat(read, starts)
        high = np.flatnonzero(np.maximum(np.abs(lowest), np.abs(highest)) * times > _BIG)
        base[high] = lowest[high] // units.MICRO * units.MICRO
        over = high[(highest[high] - base[high]) * times[high] > _BIG]
        if over.size:
            name = frame["meter_id"][int(present[over[0]])]
            raise OverflowError(f"meter {name}: its dial times its multiplier is beyond 64 bits")
    index = np.repeat(np.arange(present.size), np.diff(np.append(starts, read.size)))
    dial = multiplied(read - base[index], own[number])
    # the dial's digits are of its own unit; one that cannot run over within 64 bits is taken not to
    dials, unit = frame["dials"].fill_null(0).to_numpy().astype(np.float64), frame["unit_micro"].to_numpy()
    modulus = frame["modulus_micro"].fill_null(0).to_numpy().astype(np.int64)
    whole = np.where(modulus > 0, modulus / units.MICRO, 10.0**dials) * unit
    known = ((dials > 0) | (modulus > 0)) & (whole <= _BIG)
    turn = np.where(known, 10 ** np.where(known, dials, 0).astype(np.int64) * unit, 0)
    turn = np.where(known & (modulus > 0), multiplied(np.where(known, modulus, 0), unit), turn)
    refused = known[number] & ((read >= turn[number]) | (read < 0))
    rolls = known & (whole * np.abs(own) / units.MICRO <= _BIG)
    capacity = np.where(rolls, multiplied(np.where(rolls, turn, 0), own), 0)
    return Series(number, at, dial, np.ascontiguousarray(capacity[present]), refused, read)


def multiplied(value: Ints, multiplier_micro: Ints) -> Ints:
    """value * multiplier in integers: whole multipliers exactly, others rounded down to a millionth of the unit."""
    whole, rest = multiplier_micro // units.MICRO, multiplier_micro % units.MICRO
    out: Ints = value * whole + (value // units.MICRO) * rest + (value % units.MICRO) * rest // units.MICRO
    return out
