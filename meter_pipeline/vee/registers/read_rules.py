"""Rules for register-only meters: compare the usage between two reads with the possible usage of the meter, its class
and its service.

A span is the time from one used read to the next. A register that is read near every midnight is validated day by day,
like intervals; one that is read every few days or once a quarter is validated by its spans, each compared with those
before it. A day carries the findings of every span it lies in, so that each bill with a part of it is reviewed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.units import from_micro
from meter_pipeline.vee.estimation.past_usage import PastStretches
from meter_pipeline.vee.registers.assemble import STEP_RULES
from meter_pipeline.vee.registers.read_gaps import GAP_ABOUT, Gap, gaps
from meter_pipeline.vee.registers.reads import Step
from meter_pipeline.vee.registers.series import Registers
from meter_pipeline.vee.rules import expectation
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import ROW_RULES, Rule
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Floats, Ints
from meter_pipeline.vee.rules.movement import ClassMovement, MovementSums
from meter_pipeline.vee.rules.thresholds import Thresholds

_WEEK_S: Final = 7 * 86_400


@dataclass(slots=True)
class ReadFindings:
    """Findings of a day's register-only series. ``flags``: row rule bits by row of the frame. ``silent``: rows
    without reads for long enough to be reported. ``doubtful``: by read, whether the span that ends there is too
    large to estimate from. ``details``: figures by row and rule code. ``stored``: the stored class movement, where
    the rows are a part of the day; otherwise ``moved`` and ``paces`` have it. ``fleet``: rows whose finding depends
    on other meters of their head-end."""

    flags: Ints
    silent: Bools
    doubtful: Bools
    details: dict[int, dict[str, str]] = field(default_factory=dict)
    stored: ClassMovement | None = None
    moved: MovementSums | None = None
    paces: list[tuple[int, int, float | None, float | None]] = field(default_factory=list)
    fleet: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, rows: Ints, rule: Rule, details: list[str] | str) -> None:
        """Set a rule's flag on some rows."""
        np.bitwise_or.at(self.flags, rows, rule.mask)
        for k, row in enumerate(rows.tolist()):
            self.details.setdefault(row, {})[rule.code] = details if isinstance(details, str) else details[k]


@dataclass(frozen=True, slots=True)
class ReadSpans:
    """Spans between used reads, in the order of the reads. ``at``: index of the read that ends each; ``row``: row of
    the frame; ``opens``, ``closes``: UTC seconds; ``amount``: micro units; ``usual``: expected usage by the earlier
    spans, micro units, NaN without any; ``zeros``: number of consecutive spans without usage, this one included, 0
    where it has usage or the register never had any."""

    at: Ints
    row: Ints
    opens: Ints
    closes: Ints
    amount: Ints
    usual: Floats
    zeros: Ints

    @property
    def elapsed(self) -> Ints:
        """Seconds of each."""
        return self.closes - self.opens


@lru_cache(maxsize=1)
def _kernel() -> Any:
    import numba

    @numba.njit(cache=True, nogil=True)
    def kernel(first, row, opens, amount, elapsed, ratio, floor_per_s, most, past, usual, zeros):  # type: ignore[no-untyped-def]  # compiled
        """Computes ``usual`` and ``zeros`` of consecutive spans; ``first`` marks the first of each series. A span
        far above those before it is no history, unless the next span confirms its rate. ``past``: begins, closes,
        amount and elapsed of PastStretches; those that closed by a series' first read come before its own."""
        begins, closed, billed, lasted = past
        sums = np.zeros(most, np.float64)
        lengths = np.zeros(most, np.float64)
        in_a_row = 0
        doubt_amount = 0.0
        doubt_elapsed = 0.0
        run = 0
        ever = False
        for i in range(amount.shape[0]):
            if first[i]:
                in_a_row = 0
                doubt_elapsed = 0.0
                run = 0
                ever = False
                for p in range(begins[row[i]], begins[row[i] + 1]):
                    if closed[p] <= opens[i] + 86_400 and lasted[p] > 0:
                        sums[in_a_row % most] = billed[p]
                        lengths[in_a_row % most] = lasted[p]
                        in_a_row += 1
                        ever = ever or billed[p] > 0
            total = 0.0
            span = 0.0
            for k in range(min(in_a_row, most)):
                total += sums[k]
                span += lengths[k]
            if doubt_elapsed > 0 and amount[i] > 0:
                pace = amount[i] / elapsed[i]
                before = doubt_amount / doubt_elapsed
                if 0.5 * before <= pace <= 2.0 * before:
                    # the new level is borne out: it is the history from here on
                    in_a_row = 1
                    sums[0] = doubt_amount
                    lengths[0] = doubt_elapsed
                    total = doubt_amount
                    span = doubt_elapsed
            doubt_elapsed = 0.0
            if span > 0:
                usual[i] = total / span * elapsed[i]
            if amount[i] == 0:
                run += 1
                zeros[i] = run if ever else 0
            else:
                run = 0
                ever = True
            if span > 0 and amount[i] > ratio * usual[i] + floor_per_s[i] * elapsed[i]:
                doubt_amount = amount[i]
                doubt_elapsed = elapsed[i]
                continue
            sums[in_a_row % most] = amount[i]
            lengths[in_a_row % most] = elapsed[i]
            in_a_row += 1

    return kernel


def stretches(
    registers: Registers, at: Ints, wanted: Bools, floor_per_s: Floats, t: Thresholds, past: PastStretches
) -> ReadSpans:
    """Returns every span of the ``wanted`` rows, whose series are ``at``, with the expected usage from earlier spans.

    ``floor_per_s`` by row: micro units a second that are never unusual. ``past``: periods billed before the first read.
    """
    reads, found = registers.reads, registers.found
    place = np.full(registers.frame.height, -1, np.int64)
    place[at[wanted]] = np.flatnonzero(wanted)
    used = np.flatnonzero(found.used & (place[reads.series] >= 0)) if reads.series.size else np.zeros(0, np.int64)
    follows = np.zeros(used.size, np.bool_)
    follows[1:] = reads.series[used[1:]] == reads.series[used[:-1]]
    known = np.flatnonzero(follows & (found.consumed[used] != NO_VALUE))
    known = known[reads.at[used[known]] > reads.at[used[known - 1]]]
    ends = used[known]
    row = place[reads.series[ends]]
    opens, closes = reads.at[used[known - 1]], reads.at[ends]
    amount = np.maximum(found.consumed[ends], 0)
    usual, zeros = np.full(ends.size, np.nan), np.zeros(ends.size, np.int64)
    if ends.size:
        first = np.ones(ends.size, np.bool_)
        first[1:] = row[1:] != row[:-1]
        elapsed = (closes - opens).astype(np.float64)
        billed = (past.begins, past.closes, past.amount.astype(np.float64), past.elapsed.astype(np.float64))
        figures = (first, row, opens, amount.astype(np.float64), elapsed)
        _kernel()(*figures, t.high_ratio, floor_per_s[row], t.history_reads, billed, usual, zeros)
    return ReadSpans(ends, row, opens, closes, amount, usual, zeros)


def _median_by(group: Ints, values: Floats, known: Bools, row: Ints, least: int) -> Floats:
    """Returns for each element the median of its group's known values, NaN where these are of fewer than ``least``
    rows: one register that is read every hour is no class."""
    out = np.full(values.size, np.nan)
    at = np.flatnonzero(known)
    if at.size < least:
        return out
    order = at[np.argsort(group[at], kind="stable")]
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    medians = {
        int(group[part[0]]): float(np.median(values[part]))
        for part in np.split(order, cuts)
        if part.size >= least and np.unique(row[part]).size >= least
    }
    if medians:
        names, found = np.array(sorted(medians)), np.array([medians[g] for g in sorted(medians)])
        near = np.minimum(np.searchsorted(names, group), names.size - 1)
        out = np.where(names[near] == group, found[near], np.nan)
    return out


def judge(
    registers: Registers,
    only: pl.DataFrame,
    history: DailyHistory,
    t: Thresholds,
    day: tuple[int, int],
    stored: ClassMovement | None = None,
    past: PastStretches | None = None,
) -> ReadFindings:
    """Validate the register-only series of a day, which runs from ``day[0]`` to ``day[1]`` (UTC seconds).

    ``only``: their rows with ``index`` into the series, unit, flow, customer_class, status, status_since_s (UTC seconds
    from which the service has that status), multiplier_micro and decimals. ``history``: daily totals by row.
    ``stored``: the stored class movement, where the rows are a part of the day. ``past``: usage billed before the first
    billing day.
    """
    at = only["index"].to_numpy().astype(np.int64)
    no = np.zeros(at.size, np.bool_)
    out = ReadFindings(np.zeros(at.size, np.int64), no, np.zeros(registers.reads.series.size, np.bool_), stored=stored)
    if not at.size:
        return out
    names = only.select("customer_class", "unit")
    limits = {key: t.limit_per_hour(*key) for key in names.unique().iter_rows()}
    limit = np.array([limits[key] for key in names.iter_rows()], np.float64)
    group = only.select(pl.struct("unit", "flow", "customer_class").rank("dense").cast(pl.Int64)).to_series().to_numpy()
    multiplier = only["multiplier_micro"].to_numpy().astype(np.int64)
    # value of one step of the dial's last digit, in base units
    digit = (
        10.0 ** -only["decimals"].fill_null(0).clip(0, 6).to_numpy() * multiplier * only["unit_micro"].to_numpy() / 1e12
    )
    _multiplier(out, multiplier, digit, limit)
    use = registers.use
    active = (only["status"].fill_null("active") == "active").to_numpy()
    out.add(np.flatnonzero(_never_read(registers, at) & active), rr.NEVER_READ, "no read of this register is known")
    daily = (use.quantity[at] != NO_VALUE) & (use.gap_s[at] <= t.boundary_hours * 3600)
    floor = limit * t.high_floor_share / 3600
    found = stretches(registers, at, ~daily, floor, t, past or PastStretches.none(at.size))
    moved = _moved(out, only, found, group, t) if stored is None else _as_stored(stored, only, found)
    flagged = _stretch_rules(only, found, moved, limit, floor, digit * 1e6, t)
    out.doubtful[found.at[flagged["READ_HIGH"] | flagged["READ_IMPOSSIBLE"]]] = True
    inside = (found.opens < day[1]) & (found.closes > day[0])
    for code, hit in flagged.items():
        picked = np.flatnonzero(hit & inside)
        out.add(found.row[picked], ROW_RULES[code], [_detail(registers, only, found, int(k)) for k in picked])
    most = limit * (day[1] - day[0]) / 3600
    _day_rules(out, only, np.flatnonzero(daily), use.quantity[at], history, most, t)
    _gaps(out, registers, at, day, t)
    _steps(out, registers, at, day)
    return out


def count_in(movement: ClassMovement, only: pl.DataFrame, found: ReadFindings) -> None:
    """Add the class movement of the registers to the stored movement of the day."""
    group = only.select(pl.struct("unit", "flow", "customer_class").rank("dense").cast(pl.Int32) - 1).to_series()
    movement.add(0, only, group.to_numpy(), found.moved)
    names = only.select("unit", "flow", "customer_class")
    for week, row, move, pace in found.paces:
        movement.paces[week, *names.row(row)] = (move, pace)


def _never_read(registers: Registers, at: Ints) -> Bools:
    read = np.zeros(registers.frame.height, np.bool_)
    read[registers.reads.series] = True
    never: Bools = ~read[at]
    return never


def _multiplier(out: ReadFindings, multiplier: Ints, digit: Floats, limit: Floats) -> None:
    """Flags a multiplier of zero, or one with which the last digit of the dial is more than the service can use in a
    day."""
    wrong = np.flatnonzero((multiplier <= 0) | (digit * 1e6 > limit * 24))
    details = [
        f"the multiplier is {from_micro(int(multiplier[k]))}"
        + ("" if multiplier[k] <= 0 else ": one step of the dial is more than the service can carry in a day")
        for k in wrong
    ]
    out.add(wrong, ROW_RULES["MULTIPLIER"], details)


def _ratio(found: ReadSpans) -> Floats:
    """Returns each span's usage over the expected usage; NaN without an expectation."""
    tested = np.nan_to_num(found.usual) > 0
    return np.where(tested, found.amount.astype(np.float64) / np.where(tested, found.usual, 1.0), np.nan)


def _moved(
    out: ReadFindings, only: pl.DataFrame, found: ReadSpans, group: Ints, t: Thresholds
) -> tuple[Floats, Floats]:
    """Returns by span the movement of its class and the class's rate, micro units a second; NaN where too few spans
    have one. Spans that end in the same week are compared with each other, because they had the same weather."""
    ratio, elapsed = _ratio(found), np.maximum(found.elapsed, 1).astype(np.float64)
    week = found.closes // _WEEK_S
    cohort = week * (int(group.max(initial=0)) + 1) + group[found.row]
    move = _median_by(cohort, ratio, np.isfinite(ratio), found.row, t.profile_min_rows)
    pace = _median_by(cohort, found.amount / elapsed, np.ones(ratio.size, np.bool_), found.row, t.profile_min_rows)
    for k in np.unique(cohort, return_index=True)[1].tolist():
        if np.isfinite(move[k]) or np.isfinite(pace[k]):
            out.paces.append((int(week[k]), int(found.row[k]), _or_none(move[k]), _or_none(pace[k])))
    return move, pace


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _as_stored(stored: ClassMovement, only: pl.DataFrame, found: ReadSpans) -> tuple[Floats, Floats]:
    """The same, from the stored values of the whole day."""
    names = list(only.select("unit", "flow", "customer_class").iter_rows())
    nothing = (None, None)
    days_in_store = [
        stored.paces.get((week, *names[row]), nothing)
        for week, row in zip((found.closes // _WEEK_S).tolist(), found.row.tolist(), strict=True)
    ]
    move, pace = (
        np.array([np.nan if pair[k] is None else pair[k] for pair in days_in_store], np.float64) for k in (0, 1)
    )
    return move, pace


def _stretch_rules(
    only: pl.DataFrame,
    found: ReadSpans,
    moved: tuple[Floats, Floats],
    limit: Floats,
    floor: Floats,
    step: Floats,
    t: Thresholds,
) -> dict[str, Bools]:
    """Returns by rule the spans that it flags."""
    row, elapsed = found.row, np.maximum(found.elapsed, 1).astype(np.float64)
    amount = found.amount.astype(np.float64)
    tested = np.nan_to_num(found.usual) > 0
    move, pace = moved
    expected = found.usual * np.where(np.isfinite(move), move, 1.0)
    peers = pace * elapsed
    slack = floor[row] * elapsed
    with np.errstate(invalid="ignore"):
        above_own = tested & (amount > t.high_ratio * expected + slack)
        above_class = ~np.isfinite(found.usual) & (amount > t.class_ratio * peers + slack)
        low = tested & (amount > 0) & (amount < t.low_ratio * expected - slack)
    status = only["status"].fill_null("active").to_numpy()
    since = only["status_since_s"].fill_null(0).to_numpy()
    off = (status[row] != "active") & (since[row] <= found.opens)
    impossible = amount - step[row] > limit[row] * elapsed / 3600
    return {
        "READ_HIGH": (above_own | above_class) & ~impossible,
        "READ_IMPOSSIBLE": impossible,
        "READ_LOW": low & ~off,
        "READ_ZERO": (found.zeros >= t.zero_reads) & (status[row] == "active"),
        "READ_INACTIVE": off & (amount > 0),
    }


def _detail(registers: Registers, only: pl.DataFrame, found: ReadSpans, k: int) -> str:
    """Describes a span: its usage, its days, and the expected usage."""
    unit = only["unit"][int(found.row[k])]
    until = datetime.fromtimestamp(int(found.closes[k]), UTC)
    detail = f"{from_micro(int(found.amount[k]))} {unit} in {found.elapsed[k] / 86_400:.2f} days to {until:%Y-%m-%d %H:%M} UTC"
    if np.isfinite(found.usual[k]):
        detail += f"; usual in that time: {found.usual[k] / 1e6:.3f}"
    if found.zeros[k]:
        detail += f"; {int(found.zeros[k])} reads in a row without usage"
    return detail


def _day_rules(
    out: ReadFindings,
    only: pl.DataFrame,
    rows: Ints,
    quantity: Ints,
    history: DailyHistory,
    most: Floats,
    t: Thresholds,
) -> None:
    """Registers whose reads enclose the day: high and low compared with their own days, and the day's own rules."""
    if not rows.size:
        return
    used = quantity[rows].astype(np.float64)
    group = (
        only.select(pl.struct("unit", "flow", "customer_class").rank("dense").cast(pl.Int32) - 1).to_series().to_numpy()
    )
    movement = None if out.stored is None else out.stored.movement(0, only[rows], group[rows])
    expected = expectation.expected_use(
        used, np.ones(rows.size, np.bool_), group[rows], _of_rows(history, rows), t, movement
    )
    out.moved = expected.moved
    unit = only["unit"].to_numpy()
    off = (only["status"].fill_null("active") != "active").to_numpy()[rows]
    days = history.totals[rows]
    silent = np.where(days == NO_VALUE, 1, days)[:, -(t.zero_days - 1) :]
    quiet = (used == 0) & (silent.shape[1] == t.zero_days - 1) & (silent == 0).all(axis=1)
    quiet &= ((days != NO_VALUE) & (days > 0)).any(axis=1) & ~off
    hits = {
        "HIGH": expectation.is_high(expected, t) & ~off,
        "LOW": expectation.is_low(expected, t) & (used > 0) & ~off,
        "READ_ZERO": quiet,
        "READ_INACTIVE": off & (used > 0),
        "READ_IMPOSSIBLE": used > most[rows],
    }
    for code, hit in hits.items():
        at = np.flatnonzero(hit)
        details = [f"{from_micro(int(quantity[rows[k]]))} {unit[rows[k]]} in the day" for k in at]
        out.add(rows[at], ROW_RULES[code], details)


def _of_rows(history: DailyHistory, rows: Ints) -> DailyHistory:
    return DailyHistory(history.days, history.totals[rows], history.actual[rows], history.like)


def _gaps(out: ReadFindings, registers: Registers, at: Ints, day: tuple[int, int], t: Thresholds) -> None:
    """Registers that are read several times a day and had no read within the day for longer than usual."""
    reads = registers.reads
    starts = reads.starts
    counts = np.diff(starts)
    if not reads.series.size:
        return
    number = reads.series[starts[:-1]]
    row = np.full(registers.frame.height, -1, np.int64)
    row[at] = np.arange(at.size)
    # a register that reads on without a pause needs no more than its longest and shortest distance to say so
    distance = np.diff(reads.at, prepend=reads.at[0])
    distance[starts[:-1]] = 0
    longest = np.maximum.reduceat(distance, starts[:-1])
    inner = np.where(distance == 0, np.int64(1) << 60, distance)
    shortest = np.minimum.reduceat(inner, starts[:-1])
    suspect = np.flatnonzero(
        (row[number] >= 0) & (counts >= 4) & (longest > t.gap_factor * shortest) & (shortest <= 6 * 3600)
    )
    if not suspect.size:
        return
    out.fleet = row[number[suspect]]
    picked = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in suspect])
    part = type(reads)(reads.series[picked], reads.at[picked], reads.dial[picked], reads.capacity[suspect])
    fleets = registers.frame["head_end"].fill_null("").rank("dense").to_numpy().astype(np.int64)
    cause, silence = gaps(part, fleets[number[suspect]], t)
    late = np.flatnonzero(
        (cause != Gap.NONE) & (cause != Gap.CLOCK_CHANGE) & (part.at > day[0]) & (part.at - silence < day[1])
    )
    rows = row[part.series[late]]
    details = [
        f"{silence[k] / 3600:.1f} hours without a read to {datetime.fromtimestamp(int(part.at[k]), UTC):%Y-%m-%d %H:%M} UTC: "
        f"{GAP_ABOUT[Gap(int(cause[k]))]}"
        for k in late
    ]
    out.add(rows, rr.READ_GAP, details)
    out.silent[rows[silence[late] >= t.gap_hours * 3600]] = True


def _steps(out: ReadFindings, registers: Registers, at: Ints, day: tuple[int, int]) -> None:
    """Reads of the day that rolled over, decreased or were refused. A read with too many digits is an error like
    others when a later read continues from the last good one."""
    reads, found = registers.reads, registers.found
    if not reads.series.size:
        return
    row = np.full(registers.frame.height, -1, np.int64)
    row[at] = np.arange(at.size)
    odd = np.isin(found.cause, [int(s) for s in STEP_RULES]) & (row[reads.series] >= 0)
    odd &= (reads.at > day[0]) & (reads.at <= day[1])
    for k in np.flatnonzero(odd).tolist():
        rule = STEP_RULES[Step(int(found.cause[k]))]
        past = int(np.searchsorted(reads.series, reads.series[k], "right"))
        if rule is rr.DIALS and found.used[k + 1 : past].any():
            rule = rr.READ_ERROR
        until = datetime.fromtimestamp(int(reads.at[k]), UTC)
        detail = f"{rule.about.rstrip('.')}: {from_micro(int(reads.as_read[k]))} at {until:%Y-%m-%d %H:%M} UTC"
        if k and reads.series[k - 1] == reads.series[k]:
            detail += f", {from_micro(int(reads.as_read[k - 1]))} before"
        out.add(row[reads.series[k : k + 1]], rule, detail)
