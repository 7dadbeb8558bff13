"""Patterns that a single day cannot show: tampering, stuck and reversed meters, and ordinary life
distinguished apart from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import (
    Bools,
    Floats,
    Ints,
    Window,
    certainty,
    findings,
    median_use,
    nothing,
    ratio,
    row_median,
)

#: the weeks before a fall that show the level it fell from
_BEFORE_DAYS = 28
#: days in which outage flags of one meter alone are counted
_OUTAGE_DAYS = 14


@dataclass(frozen=True, slots=True)
class Levels:
    """Usage as a share of the expected usage: ``now`` (points,) over the last days, ``before`` over the four weeks
    before them, ``days`` (points, days) day by day. ``counted`` and ``counted_before``: the days in each sum."""

    now: Floats
    before: Floats
    days: Floats
    counted: Floats
    counted_before: Floats


def levels(window: Window, days: int) -> Levels:
    """Measured usage over expected usage: each of the last ``days`` (at least ten), together, and in the four weeks
    before them.

    It reads no earlier days: its cost is that of a city's whole windows.
    """
    last = window.tail(days)
    earlier = slice(max(0, last.start - _BEFORE_DAYS), last.start)
    now, before = _summed(window, last), _summed(window, earlier)
    shown = window.tail(max(days, 10))
    expected = window.expected[:, shown]
    each = ratio(window.usage[:, shown], expected)
    each[~window.measured[:, shown]] = np.nan
    return Levels(
        now=ratio(now[0], now[1]),
        before=ratio(before[0], before[1]),
        days=each,
        counted=now[2],
        counted_before=before[2],
    )


def _summed(window: Window, days: slice) -> tuple[Floats, Floats, Floats]:
    """Measured usage, expected usage of the same days, and their number, by point."""
    usable = window.measured[:, days] & np.isfinite(window.expected[:, days])
    if not usable.any():
        return np.zeros(window.points), np.zeros(window.points), np.zeros(window.points)
    usage, expected = np.where(usable, window.usage[:, days], 0.0), np.where(usable, window.expected[:, days], 0.0)
    return usage.sum(axis=1), expected.sum(axis=1), usable.sum(axis=1).astype(np.float64)


def signature_flags(window: Window, limits: Thresholds = DEFAULT) -> tuple[pl.DataFrame, NeighbourChecks]:
    """usage_on_disconnected, reverse, register_back, stuck, and the benign solar_arrival, move, vacant; and what may be
    a tamper_fall or outage_alone, which the neighbours decide (neighbour_flags)."""
    frames = [_stuck(window, limits), _reverse(window), _disconnected(window, limits), _register(window)]
    level = levels(window, limits.fall_days)
    solar = _solar(window)
    frames.append(_benign(window, level, solar, limits))
    return pl.concat(frames), _falls(window, level, np.asarray(solar.any(axis=1)), limits)


@dataclass(frozen=True, slots=True)
class NeighbourChecks:
    """Points to compare with their neighbours, which may be in another part of the list of points.

    ``rows``: the points whose level fell, with (rows,) evidence; ``limit``: the share of the neighbours' change below
    which it is a fall. For every point (points,): the ``change`` of level, whether it can be ``checked``, and the
    neighbourhood. For outage flags (points, 14 days): the outages, and the expected and observed usage of the day.
    """

    rows: Ints
    days: Ints
    relative: Floats
    before: Floats
    expected_sum: Floats
    used: Floats
    shortfall: Floats
    limit: Floats
    change: Floats
    checked: Bools
    neighbourhood: Ints
    outage: Bools
    expected: Floats
    observed: Floats


def _falls(window: Window, level: Levels, generates: Bools, limits: Thresholds) -> NeighbourChecks:
    """A sudden lasting fall: the last thirteen checked days low without exception, their median below 46 % of the level
    before; or one to half, which needs more: see ``_halves``.

    Not where export began, the account changed, the service is off, or two days in a row stood empty before the new
    level (a move). A median below 6.5 % is vacancy.
    """
    last = window.tail(limits.fall_days)
    each = level.days[:, -(last.stop - last.start) :]
    with np.errstate(invalid="ignore"):
        # most points can be let go by their last day and the level before it; the run is looked at for the rest
        maybe = (
            (level.counted_before >= 10)
            & (level.before > 0.5)
            & (level.before < 2.0)
            & (each[:, -1] / level.before < 0.7)
            & ~window.provisional
        )
    rows = np.flatnonzero(
        maybe & ~generates & ~window.account_changed.any(axis=1) & ~window.disconnected[:, last].any(axis=1)
    )
    recent = each[rows] / level.before[rows, None]
    with np.errstate(invalid="ignore"):
        normal = recent >= 0.7
    in_run = (~normal)[:, ::-1].cumprod(axis=1)[:, ::-1].astype(bool)
    seen = np.isfinite(recent) & in_run
    days = seen.sum(axis=1)
    relative = row_median(np.where(seen, recent, np.nan))
    with np.errstate(invalid="ignore"):
        empty = seen & (recent < limits.empty_ratio)
        expected_sum = np.where(seen, window.expected[rows][:, last], 0.0).sum(axis=1)
        used = np.where(seen, window.usage[rows][:, last], 0.0).sum(axis=1)
        shortfall = level.before[rows] * expected_sum - used
        noise = window.sigma[rows] * np.sqrt(np.maximum(days, 1))
        fallen = (
            (days >= limits.fall_low_days)
            & (relative < 1.2 * limits.fall_ratio)
            & (relative > limits.empty_ratio)
            & (shortfall > limits.fall_sigma * window.tolerances[rows] * noise)
            & ~((empty[:, 1:] & empty[:, :-1]).any(axis=1) & (relative > 3 * limits.empty_ratio))
        )
    half = _halves(window, rows, recent, level.before[rows], limits)
    change = ratio(level.now, level.before)
    flagged = np.flatnonzero(fallen | half.found)
    deep = fallen[flagged]
    return NeighbourChecks(
        rows[flagged],
        np.where(deep, days[flagged], half.days[flagged]),
        np.where(deep, relative[flagged], half.relative[flagged]),
        level.before[rows[flagged]],
        np.where(deep, expected_sum[flagged], half.expected_sum[flagged]),
        np.where(deep, used[flagged], half.used[flagged]),
        np.where(deep, shortfall[flagged], half.shortfall[flagged]),
        np.where(half.found[flagged], limits.half_ratio, limits.fall_ratio),
        change,
        np.isfinite(change) & (level.counted >= 7),
        window.neighbourhood,
        np.zeros((window.points, min(_OUTAGE_DAYS, window.days)), bool)
        if window.outage is None
        else window.outage[:, window.tail(_OUTAGE_DAYS)],
        window.expected[:, -1],
        window.usage[:, -1],
    )


@dataclass(frozen=True, slots=True)
class _Halves:
    """Candidates for a fall to half, (rows,) each, and which of them are one."""

    days: Ints
    relative: Floats
    expected_sum: Floats
    used: Floats
    shortfall: Floats
    found: Bools


def _halves(window: Window, rows: Ints, recent: Floats, before: Floats, limits: Thresholds) -> _Halves:
    """A fall to about half, as when one of two phases is by-passed: thirteen checked days or more, a fifth of them at
    most as high as before, their median below 58 %.

    So shallow a fall is distinguished from ordinary life only on a steady meter: at least three weeks checked in the
    four before the last three, a tenth of them at most as low; and what is missing is eight times what the days scatter
    by.
    """
    last = window.tail(limits.fall_days)
    with np.errstate(invalid="ignore"):
        high, checked = recent >= 0.7, np.isfinite(recent)
    # the longest stretch up to today of which a fifth at most is high, and which begins low
    counted = checked[:, ::-1].cumsum(axis=1)[:, ::-1]
    allowed = (high[:, ::-1].cumsum(axis=1)[:, ::-1] <= limits.half_exceptions * counted) & checked & ~high
    start = np.where(allowed.any(axis=1), allowed.argmax(axis=1), recent.shape[1])
    run = checked & (np.arange(recent.shape[1])[None, :] >= start[:, None])
    days = run.sum(axis=1)
    relative = row_median(np.where(run, recent, np.nan))
    expected, usage = window.expected[rows][:, last], window.usage[rows][:, last]
    expected_sum = np.where(run, expected, 0.0).sum(axis=1)
    used = np.where(run, usage, 0.0).sum(axis=1)
    shortfall = before * expected_sum - used
    earlier = slice(max(0, last.start - _BEFORE_DAYS), last.start)
    was = ratio(window.usage[rows][:, earlier], window.expected[rows][:, earlier]) / before[:, None]
    was[~window.measured[rows][:, earlier]] = np.nan
    known = np.isfinite(was)
    with np.errstate(invalid="ignore"):
        low = (known & (was < 0.7)).sum(axis=1)
        noise = window.sigma[rows] * np.sqrt(np.maximum(days, 1))
        found = (
            (days >= limits.fall_low_days)
            & (relative < limits.half_ratio)
            & (relative > limits.empty_ratio)
            & (known.sum(axis=1) >= limits.half_history_days)
            & (low <= 0.1 * known.sum(axis=1))
            & (shortfall > limits.half_sigma * window.tolerances[rows] * noise)
        )
    return _Halves(days, relative, expected_sum, used, shortfall, np.asarray(found, np.bool_))


def joined(parts: Sequence[NeighbourChecks]) -> NeighbourChecks:
    """Parts of a city one after the other, candidates by their place in the whole."""
    starts = np.cumsum([0, *(part.change.size for part in parts[:-1])])
    fields = {name: [getattr(part, name) for part in parts] for name in NeighbourChecks.__dataclass_fields__}
    fields["rows"] = [rows + start for rows, start in zip(fields["rows"], starts, strict=True)]
    return NeighbourChecks(**{name: np.concatenate(values) for name, values in fields.items()})


def neighbour_flags(beside: NeighbourChecks, limits: Thresholds = DEFAULT) -> pl.DataFrame:
    """tamper_fall and outage_alone of a whole city."""
    return pl.concat([_fall(beside, limits), _outage(beside, limits)])


def _fall(beside: NeighbourChecks, limits: Thresholds) -> pl.DataFrame:
    """tamper_fall: the candidates whose fall is theirs alone, measured against the neighbours' own change, so that
    weather the model misses is not the customer's doing."""
    if beside.rows.size == 0:
        return nothing()
    around = _neighbours(beside)[beside.rows]
    against = beside.relative / around
    own = (against < beside.limit) & (around > limits.neighbours_ratio * 0.8)
    rows = beside.rows[own]
    return findings(
        "tamper_fall",
        rows,
        confidence=certainty(beside.limit[own] / np.maximum(against[own], 0.01), 1.0),
        expected=beside.expected_sum[own],
        observed=beside.used[own],
        evidence={
            "days": beside.days[own],
            "share_of_level_before": beside.relative[own],
            "level_before": beside.before[own],
            "neighbours": around[own],
            "shortfall": beside.shortfall[own],
        },
    )


def _neighbours(beside: NeighbourChecks) -> Floats:
    """(points,) the median change of the point's neighbourhood, where it has ten checked members, else of all points;
    1 where no point can be checked."""
    relative, checked, codes = beside.change, beside.checked, beside.neighbourhood
    everyone = float(np.median(relative[checked])) if checked.any() else 1.0
    result = np.full(relative.size, everyone if everyone > 0 else 1.0)
    rows = np.flatnonzero(checked & (codes >= 0))
    order = rows[np.argsort(codes[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    medians = {}
    for part in np.split(order, edges):
        if part.size >= 10:
            medians[int(codes[part[0]])] = float(np.median(relative[part]))
    if medians:
        table = np.full(int(codes.max()) + 1, np.nan)
        table[list(medians)] = list(medians.values())
        local = np.where(codes >= 0, table[np.maximum(codes, 0)], np.nan)
        result = np.where(np.isfinite(local) & (local > 0), local, result)
    return result


def _stuck(window: Window, limits: Thresholds) -> pl.DataFrame:
    """Exactly zero for days on a meter that hardly ever counted zero, while its expectation is far from zero. Not where
    it exports."""
    days = limits.stuck_days[window.commodity]
    last = window.tail(days)
    rows = np.flatnonzero(window.measured[:, -1] & (window.usage[:, -1] == 0))
    measured, usage = window.measured[rows], window.usage[rows]
    zero = measured & (usage == 0)
    run = (zero | ~measured)[:, ::-1].cumprod(axis=1).sum(axis=1)
    in_run = np.arange(window.days)[None, :] >= (window.days - run)[:, None]
    zeros = (zero & in_run).sum(axis=1)
    seen = (measured & ~in_run).sum(axis=1)
    idle = ratio((zero & ~in_run).sum(axis=1).astype(np.float64), seen.astype(np.float64))
    expected = window.expected[rows][:, last]
    expected_sum = np.where(np.isfinite(expected), expected, median_use(window, rows)[:, None]).sum(axis=1)
    noise = np.maximum(window.sigma[rows], 0.0) * np.sqrt(days)
    generating = (
        np.zeros(rows.size, bool) if window.export is None else (np.nan_to_num(window.export[rows]) > 0).any(axis=1)
    )
    with np.errstate(invalid="ignore"):
        stuck = (
            (zeros >= days * window.tolerances[rows])
            & (seen >= 14)
            & (idle <= limits.stuck_zero_share)
            & (expected_sum > limits.stuck_sigma * noise)
            & (expected_sum > 0)
            & ~generating
            & ~window.disconnected[rows][:, last].any(axis=1)
        )
    zeros, expected_sum, idle = zeros[stuck], expected_sum[stuck], idle[stuck]
    return findings(
        "stuck",
        rows[stuck],
        confidence=certainty(zeros / days, 1.0),
        expected=expected_sum,
        observed=np.zeros(zeros.size),
        evidence={"days_at_zero": zeros, "zero_share_before": idle},
    )


def _reverse(window: Window) -> pl.DataFrame:
    """Import below zero over a day, or so reported by validation. Generation shows on the export channel and is no
    reversal."""
    today = window.usage[:, -1]
    with np.errstate(invalid="ignore"):
        backward = np.isfinite(today) & (today < 0) & (np.nan_to_num(window.coverage[:, -1]) > 0)
    if window.reverse_reported is not None:
        backward |= window.reverse_reported
    rows = np.flatnonzero(backward)
    return findings(
        "reverse",
        rows,
        confidence=np.full(rows.size, 0.97),
        expected=window.expected[rows, -1],
        observed=today[rows],
        evidence={"usage": today[rows], "days": (np.nan_to_num(window.usage[rows]) < 0).sum(axis=1)},
    )


def _disconnected(window: Window, limits: Thresholds) -> pl.DataFrame:
    """Measured usage on a service that is off, on two of its days running: the first may be the day it was cut."""
    last = window.tail(limits.disconnected_days)
    with np.errstate(invalid="ignore"):
        using = window.disconnected & window.measured & (window.usage > limits.disconnected_use[window.commodity])
    rows = np.flatnonzero(using[:, last].all(axis=1) & (window.days >= limits.disconnected_days))
    return findings(
        "usage_on_disconnected",
        rows,
        confidence=np.full(rows.size, 0.95),
        expected=np.zeros(rows.size),
        observed=window.usage[rows, -1],
        evidence={"days": using[rows].sum(axis=1), "use": np.where(using[rows], window.usage[rows], 0.0).sum(axis=1)},
    )


def _register(window: Window) -> pl.DataFrame:
    """A register that went back, as validation found it."""
    rows = np.flatnonzero(window.register_back) if window.register_back is not None else np.zeros(0, np.int64)
    return findings(
        "register_back",
        rows,
        confidence=np.full(rows.size, 0.95),
        expected=window.expected[rows, -1],
        observed=window.usage[rows, -1],
        evidence={"register_decreased": np.ones(rows.size, bool)},
    )


def _outage(beside: NeighbourChecks, limits: Thresholds) -> pl.DataFrame:
    """Outage flags on at least three of fourteen days on which hardly a neighbour had one."""
    if not beside.outage[:, -1].any():
        return nothing()
    codes = np.maximum(beside.neighbourhood, 0)
    size = np.maximum(np.bincount(codes), 1)
    share = np.stack([np.bincount(codes, weights=day) / size for day in beside.outage.T], axis=1)
    alone = beside.outage & (share[codes] < 0.05)
    rows = np.flatnonzero((alone.sum(axis=1) >= limits.outage_days) & beside.outage[:, -1])
    return findings(
        "outage_alone",
        rows,
        confidence=np.full(rows.size, 0.7),
        expected=beside.expected[rows],
        observed=beside.observed[rows],
        evidence={"days": alone[rows].sum(axis=1)},
    )


def _solar(window: Window) -> Bools:
    """(points, days) where export is delivered."""
    return np.zeros((window.points, 1), bool) if window.export is None else np.nan_to_num(window.export) > 0


def _benign(window: Window, level: Levels, solar: Bools, limits: Thresholds) -> pl.DataFrame:
    """Ordinary life, named so that a person (and the tamper rule) need not wonder: flagged on the day it becomes clear,
    not every day after."""
    frames = []
    if solar.shape[1] > 10:
        seen = np.isfinite(window.usage[:, :-3]).sum(axis=1) >= 10
        began = solar[:, -3:].all(axis=1) & (solar[:, :-3].sum(axis=1) == 0) & seen
        rows = np.flatnonzero(began)
        frames.append(_life(window, "solar_arrival", rows, 0.95, {"days_of_export": np.full(rows.size, 3)}))
    nearly = limits.empty_ratio
    recent = level.days[:, -10:]
    low = np.isfinite(recent) & (recent < nearly) & (recent > 0)
    rows = np.flatnonzero(
        (low.sum(axis=1) >= 8) & (np.isfinite(recent).sum(axis=1) - low.sum(axis=1) == 0) & ~window.provisional
    )
    frames.append(
        _life(
            window,
            "vacant",
            rows,
            0.7,
            {"share_of_expected": np.nan_to_num(np.nanmean(recent[rows], axis=1)) if rows.size else np.zeros(0)},
        )
    )
    if level.days.shape[1] >= 7:
        gap = level.days[:, -7:-5]
        back = level.days[:, -5:]
        moved = (
            (np.isfinite(gap) & (gap < nearly)).all(axis=1)
            & (np.isfinite(back) & (back > 0.3)).all(axis=1)
            & ~window.provisional
        )
        rows = np.flatnonzero(moved | window.account_changed[:, -1])
        frames.append(_life(window, "move", rows, 0.6, {"account_changed": window.account_changed[rows, -1]}))
    return pl.concat(frames)


def _life(window: Window, kind: str, rows: np.ndarray, confidence: float, evidence: dict) -> pl.DataFrame:  # type: ignore[type-arg]
    return findings(
        kind,
        rows,
        confidence=np.full(rows.size, confidence),
        expected=window.expected[rows, -1],
        observed=window.usage[rows, -1],
        evidence=evidence,
    )
