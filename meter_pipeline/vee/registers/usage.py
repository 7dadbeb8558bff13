"""Daily usage of register-only meters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.output_frames import nullable
from meter_pipeline.vee.registers.pace import UsagePace, at_pace, no_pace, open_quantity, pace
from meter_pipeline.vee.registers.read_gaps import read_habit
from meter_pipeline.vee.registers.read_rules import ReadFindings
from meter_pipeline.vee.registers.series import Registers
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Ints
from meter_pipeline.vee.rules.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class RegisterUsage:
    """Result for register-only meters. ``frame``: one row per channel, a part of its service point's daily usage.
    ``quantity``: by series of the day's registers the day's usage, micro units, NO_VALUE where unknown and for
    registers beside intervals. By row of ``frame``: ``details`` are the figures of the findings, ``silent`` whether
    it had no reads for so long that it is reported. ``of_others``: service points of rows that depend on other
    meters of their class or head-end."""

    frame: pl.DataFrame
    quantity: Ints
    silent: Bools
    details: dict[int, dict[str, str]]
    of_others: list[str]


def register_usage(
    registers: Registers,
    mapped: pl.DataFrame,
    history: DailyHistory,
    thresholds: Thresholds,
    means: pl.DataFrame | None,
    judged: ReadFindings,
) -> RegisterUsage:
    """Daily usage of register-only meters: consumption shared exactly over the days between reads; a forward estimate
    until the next read.

    ``mapped``: the register-only series of ``registers.frame`` with class, commodity and account, and ``index`` into
    the series. ``history`` has the same rows; ``means`` as from ``class_means``. A forward estimate is average daily
    load (AEMO method 65), by the register's own reads or else by its days, or the class's mean (63), of the registers
    closed today or else of the interval meters, flag E; time before the very first read is a substitute at the rate of
    its first span (65); a share of a longer span between reads is a substitute by linear (17); reads near both
    midnights make an actual day. A day on which reads begin or end is the usage they enclose and the rest at the
    register's rate, so that the days from one read to another sum to their difference. ``judged``: the findings of the
    same rows; a doubtful span sets no rate for others. A service that is not active has usage 0 until a read shows
    usage.
    """
    at = mapped["index"].to_numpy()
    use = registers.use
    quantity = use.quantity[at].copy()
    known = quantity != NO_VALUE
    near = use.gap_s[at] <= thresholds.boundary_hours * 3600
    code = np.where(near, quality.ACTUAL, quality.pack("S", 17, 85)).astype(np.uint16)
    good = (history.totals != NO_VALUE)[:, -thresholds.adl_days :]
    recent = np.where(good, history.totals[:, -thresholds.adl_days :], 0)
    count = good.sum(axis=1)
    share = mapped["end_s"].to_numpy() - mapped["begin_s"].to_numpy()
    whole = int(mapped["day_seconds"][0]) if mapped.height else 1
    adl = np.where(count > 0, recent.sum(axis=1) // np.maximum(count, 1), 0)
    reason = np.where(use.broken[at], 18, 85)
    unknown = np.flatnonzero(~known)
    own = _own_pace(registers, mapped, judged, thresholds) if unknown.size else no_pace(registers.frame.height)
    off = (mapped["status"].fill_null("active") != "active").to_numpy()
    own.amount[at[off]], own.seconds[at[off]] = 0, 1
    for row in unknown:
        i = int(at[row])
        ended = open_quantity(use, own, i)
        if ended is not None:
            quantity[row] = ended
            code[row] = quality.pack("E" if use.tail_s[i] else "S", 68 if off[row] and use.tail_s[i] else 65, 85)
        elif own.seconds[i]:
            quantity[row] = at_pace(int(own.amount[i]), int(own.seconds[i]), int(share[row]))
            code[row] = quality.pack("E", 68 if off[row] else 65, int(reason[row]))
        elif count[row]:
            quantity[row] = int(adl[row]) * int(share[row]) // whole
            code[row] = quality.pack("E", 65, int(reason[row]))
    still = np.flatnonzero(quantity == NO_VALUE)
    asking = {*still.tolist(), *judged.fleet.tolist()}
    if still.size:
        group = mapped.select(pl.struct("unit", "flow", "customer_class").rank("dense")).to_series().to_numpy()
        for g in np.unique(group[still]):
            members = np.flatnonzero(known & (group == g))
            if members.size >= thresholds.profile_min_rows:
                mean = int(quantity[members].sum()) // members.size
                for row in still[group[still] == g]:
                    quantity[row] = mean * int(share[row]) // whole
                    code[row] = quality.pack("E", 63, int(reason[row]))
    if means is not None and means.height and (quantity == NO_VALUE).any():
        mean_of = (
            mapped.join(means, on=["unit", "flow", "customer_class"], how="left", maintain_order="left")["mean_micro"]
            .fill_null(NO_VALUE)
            .to_numpy()
        )
        for row in np.flatnonzero((quantity == NO_VALUE) & (mean_of != NO_VALUE)):
            quantity[row] = int(mean_of[row]) * int(share[row]) // whole
            code[row] = quality.pack("E", 63, int(reason[row]))
    flags = judged.flags.copy()
    flags |= np.where(mapped["handover"].to_numpy(), rr.EXCHANGE.mask, 0)
    if not use.closed[at].all():
        late, by_fleet = _overdue(registers, mapped, thresholds)
        flags |= np.where(~use.closed[at] & late[at], rr.READ_OVERDUE.mask, 0)
        asking |= set(np.flatnonzero(~use.closed[at] & by_fleet[at]).tolist())
    present = quantity != NO_VALUE
    actual = present & (code == quality.ACTUAL)
    flags |= np.where(present & ~actual, rr.ESTIMATED.mask, 0) | np.where(~present, rr.NOT_ESTIMATED.mask, 0)
    code[~present] = quality.MISSING
    of_series = np.full(registers.frame.height, NO_VALUE, np.int64)
    of_series[at] = quantity
    frame = mapped.select(
        "service_point_id",
        "meter_id",
        "flow",
        "unit",
        "commodity",
        "customer_class",
        "account_id",
        "tariff_id",
        "cycle_id",
        "billed",
    ).with_columns(
        quantity_micro=nullable(quantity),
        estimated_micro=pl.Series(np.where(present & ~actual, quantity, 0)),
        row_flags=pl.Series(flags),
        slots_expected=pl.lit(1, pl.Int32),
        actual=pl.Series(actual.astype(np.int32)),
        estimated=pl.Series((present & ~actual).astype(np.int32)),
        missing=pl.Series((~present).astype(np.int32)),
        quality=pl.Series(code.view(np.int16)),
        source=pl.lit("register"),
    )
    others = mapped["service_point_id"][sorted(asking)].unique().sort().to_list() if asking else []
    return RegisterUsage(frame, of_series, judged.silent, judged.details, others)


def _own_pace(registers: Registers, mapped: pl.DataFrame, judged: ReadFindings, thresholds: Thresholds) -> UsagePace:
    """Returns the rate of each series of the frame; those without reads have none."""
    until = int(mapped["end_s"].to_numpy().max(initial=0))
    found = pace(registers.reads, registers.found, until, thresholds.adl_days * 86_400, judged.doubtful)
    present = registers.reads.series[registers.reads.starts[:-1]]
    out = no_pace(registers.frame.height)
    for name in ("amount", "seconds", "lead_amount", "lead_seconds"):
        getattr(out, name)[present] = getattr(found, name)
    return out


def _overdue(registers: Registers, mapped: pl.DataFrame, thresholds: Thresholds) -> tuple[Bools, Bools]:
    """Returns series whose last read is earlier before the end of the day than ``overdue_factor`` times their usual
    distance between reads; and those for which only their head-end gives the usual distance.

    The usual distance is the register's own median; with fewer than three reads its head-end's; a head-end without any
    gives none.
    """
    count = registers.frame.height
    late = np.zeros(count, np.bool_)
    reads = registers.reads
    if not reads.series.size or not mapped.height:
        return late, late
    starts = reads.starts
    number = reads.series[starts[:-1]]
    habit, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
    habit[number], last[number] = read_habit(reads), reads.at[starts[1:] - 1]
    by_fleet = (last > 0) & (habit == 0)
    fleets = registers.frame["head_end"].fill_null("").to_numpy()
    for fleet in np.unique(fleets):
        mine = fleets == fleet
        known = mine & (habit > 0)
        if known.any():
            habit[mine & (habit == 0)] = int(np.median(habit[known]))
    ends = registers.frame["end_s"].to_numpy()
    return (last > 0) & (habit > 0) & (ends - last > thresholds.overdue_factor * habit), by_fleet
