"""Validate, estimate, scale, validate again: a raw day becomes a validated day."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.estimation import time_of_use
from meter_pipeline.vee.estimation.methods import Estimate, EstimateNeed, estimate
from meter_pipeline.vee.estimation.scaling import scale_rows, share_until, shift_rows
from meter_pipeline.vee.rules import expectation
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, Role, Severity, mask_of
from meter_pipeline.vee.rules.interval_rules import Subject, code_table, run_interval_rules, subject
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Ints, RowContext, ValidatedMatrix, VectorLoader
from meter_pipeline.vee.rules.movement import Movement
from meter_pipeline.vee.rules.policy import DayPolicy
from meter_pipeline.vee.rules.statistics import row_statistics
from meter_pipeline.vee.rules.thresholds import Thresholds

#: AEMO reason given for an estimate, by the interval rule that asked for it; the first that applies wins
_REASONS: Final = (
    ("EXCHANGE_SLOT", 1),
    ("TEST_MODE", 90),
    ("PULSE_OVERFLOW", 95),
    ("TRUNCATED", 80),
    ("CLOCK_DRIFT", 86),
    ("METER_FAULT", 45),
    ("NEGATIVE", 39),
    ("RANGE", 96),
    ("SPIKE", 74),
    ("NULL_DATA", 78),
    ("GAP", 85),
)


def _bit(code: str) -> np.int32:
    return np.int32(INTERVAL_RULES[code].mask)


class Peers:
    """The whole rows of a day by interval length and group, summed by slot: what a class's shape and mean day are made
    of.

    Sums are exact, so neither the order of rows nor the shards they came in matter. ``whole`` says that all of the
    day's rows are in; until then rows that wait for an estimate are left open.
    """

    def __init__(self, *, whole: bool = False, sums: dict[tuple[int, int], tuple[int, Ints]] | None = None) -> None:
        self.whole = whole
        self.sums = {} if sums is None else sums

    def copy(self) -> Peers:
        """The same, to be counted on without changing this one."""
        return type(self)(whole=self.whole, sums=dict(self.sums))

    def add(self, minutes: int, values: Ints, complete: Bools, group: npt.NDArray[np.int32]) -> None:
        """Count in the complete rows of some rows."""
        rows = np.flatnonzero(complete)
        if not rows.size:
            return
        rows = rows[np.argsort(group[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(group[rows], prepend=-1))
        for first, past in zip(starts, [*starts[1:], rows.size], strict=True):
            members = rows[first:past]
            sums = values.sum(axis=0) if members.size == values.shape[0] else values[members].sum(axis=0)
            self._count_in((minutes, int(group[members[0]])), int(members.size), sums)

    def merge(self, others: Peers) -> None:
        """Count in the rows that another has counted."""
        for key, (count, sums) in others.sums.items():
            self._count_in(key, count, sums)

    def _count_in(self, key: tuple[int, int], count: int, sums: Ints) -> None:
        before, total = self.sums.get(key, (0, np.zeros(sums.shape[0], np.int64)))
        self.sums[key] = (before + count, total + sums)

    def shapes(self, minutes: int, group: npt.NDArray[np.int32], slots: int, least: int) -> tuple[Ints, Ints]:
        """Shape of the day and mean day of each row's group.

        Returns (rows, slots) in millionths of the whole day, zero rows where fewer than ``least`` complete rows or no
        usage; and the mean day in micro units, NO_VALUE there.
        """
        shape = np.zeros((group.size, slots), np.int64)
        mean = np.full(group.size, NO_VALUE, np.int64)
        for g in np.unique(group):
            members, sums = self.sums.get((minutes, int(g)), (0, np.zeros(slots, np.int64)))
            positive = np.maximum(sums, 0)
            whole = int(positive.sum())
            if members < least or whole <= 0:
                continue
            mine = group == g
            mean[mine] = whole // members
            shape[mine] = [int(s) * 1_000_000 // whole for s in positive]
        return shape, mean


class UnknownPeers(Peers):
    """Peers of a run for some service points of a day, which does not read the others. An estimate that would stand on
    its class's shape is given one of no meaning, so that its method tells that the whole day is needed."""

    def shapes(self, minutes: int, group: npt.NDArray[np.int32], slots: int, least: int) -> tuple[Ints, Ints]:
        """Ones."""
        return np.ones((group.size, slots), np.int64), np.ones(group.size, np.int64)


def _average_daily_load(history: DailyHistory, rows: Ints, days: int) -> Ints:
    totals, actual = history.totals[rows, -days:], history.actual[rows, -days:]
    good = actual & (totals != NO_VALUE)
    count = good.sum(axis=1)
    mean: Ints = np.where(count > 0, np.where(good, totals, 0).sum(axis=1) // np.maximum(count, 1), NO_VALUE)
    return mean


def _repairable(s: Subject, values: Ints, flags: npt.NDArray[np.int32], total: Ints) -> Bools:
    """Spikes (rows, slots) that the register says never happened: without them the intervals fit under its difference,
    with them not."""
    difference, tolerance = s.context.register_difference, s.context.register_tolerance
    known = difference != NO_VALUE
    rows = np.flatnonzero(known & (total > np.where(known, difference, 0) + tolerance))
    out = (
        np.zeros((0, 0), np.bool_)
        if not rows.size
        else (flags[rows] & _bit("SPIKE")).astype(np.bool_) & (values[rows] != NO_VALUE)
    )
    suspects = np.zeros(values.shape, np.bool_) if rows.size else np.zeros((values.shape[0], 1), np.bool_)
    if rows.size:
        without = total[rows] - np.where(out, values[rows], 0).sum(axis=1)
        helps = out.any(axis=1) & (without <= difference[rows] + tolerance[rows])
        suspects[rows[helps]] = out[helps]
    return suspects


def _reasons(flags: npt.NDArray[np.int32]) -> npt.NDArray[np.int16]:
    reasons = np.full(flags.shape, 85, np.int16)
    for code, reason in reversed(_REASONS):
        reasons[(flags & _bit(code)) != 0] = reason
    return reasons


def _codes(flag: str, method: npt.NDArray[np.uint8], reasons: npt.NDArray[np.int16]) -> npt.NDArray[np.uint16]:
    """Quality codes of estimates, any shape."""
    pairs = method.astype(np.int32) * 128 + reasons
    table = np.zeros(1 << 15, np.uint16)
    for pair in np.flatnonzero(np.bincount(pairs.ravel(), minlength=1 << 15)):
        table[pair] = quality.pack(flag, int(pair) >> 7, int(pair) & 127)
    packed: npt.NDArray[np.uint16] = table[pairs]
    return packed


def validate_matrix(
    day: DayMatrix,
    keys: pl.DataFrame,
    context: RowContext,
    history: DailyHistory,
    load_vectors: VectorLoader,
    thresholds: Thresholds,
    *,
    final: bool = False,
    role: Role = Role.INITIAL,
    peers: Peers | None = None,
    policy: DayPolicy | None = None,
    movement: Movement | None = None,
) -> ValidatedMatrix:
    """A validated day from a raw one: every expected slot ends up actual, estimated or null, and says which and why.

    ``keys`` has a row for every matrix row: service point, meter, channel, unit, flow, head-end. ``load_vectors``
    loads history for the rows that interpolation within the day leaves open. ``final``: the retry window has passed, so
    that estimates are final substitutes (AEMO flag F). ``peers``: the complete rows of the day where the matrix is one
    shard of it (by default the matrix is the day); while the shards are not all read, the matrix adds its own, and
    returns the rows that need an estimate in ``left_open``, to be validated again. ``policy``: the findings that
    estimates replace, beyond those of severity ``fail``. ``movement``: how the rows' groups moved on the day, where the
    matrix is a part of it.

    The raw matrix is not changed. The result of a row does not depend on the order of rows.
    """
    s = subject(day, context, row_statistics(day.values, context.first, context.last), thresholds, history)
    work = _Work.of(s, run_interval_rules(s, role))
    more = policy.estimate_intervals if policy is not None and role is Role.INITIAL else 0
    repaired = _remove_invalid(s, work, np.int32(mask_of(INTERVAL_RULES, Severity.FAIL, role) | more))
    usable = context.known & context.unit_ok & context.size_ok
    if policy is not None and policy.estimate_off_register:
        # the register counts, whichever of its intervals is wrong: all of them are estimated and scaled to it
        over = work.total > context.register_difference + context.register_tolerance
        missed = np.flatnonzero(usable & rr.sum_off(s, work.total) & ((work.present == context.expected) | over))
        work.clear(missed)
        repaired = np.union1d(repaired, missed)
    # values of a row in another unit or size stay raw: they would be billed in this unit
    work.clear(np.flatnonzero(~usable))
    rows = np.flatnonzero((work.present < context.expected) & usable)
    left_open = np.zeros(0, np.int64)
    all_peers = Peers() if peers is None else peers
    if not all_peers.whole and (rows.size or peers is not None):
        complete = (work.present == context.expected) & (context.expected == day.slots) & usable & context.active
        all_peers.add(day.interval_minutes, work.values, complete, context.group)
    if peers is not None and not peers.whole:
        rows, left_open = left_open, rows
    if rows.size:
        _estimate_rows(s, work, rows, history, load_vectors, all_peers, final=final)
    work.row_flags[repaired] |= rr.REPAIRED.mask
    work.row_flags |= _without_meter(context, work.values, work.codes, final=final)
    expected = expectation.expectation(s, work.total, history, movement)
    with_value, estimated = _counted(work)
    work.row_flags |= rr.run_row_rules(s, work.total, history, expected, role)
    answered = context.expected + np.maximum(context.meterless[:, 1] - context.meterless[:, 0], 0).astype(np.int32)
    return ValidatedMatrix(
        raw=day,
        keys=keys,
        values=work.values,
        quality=work.codes,
        flags=work.flags,
        row_flags=work.row_flags,
        expected=answered,
        actual=(with_value - estimated).astype(np.int32),
        estimated=estimated,
        missing=(answered - with_value).astype(np.int32),
        total=work.total,
        difference=work.difference,
        unscaled=work.unscaled,
        rules_version=thresholds.version,
        rules_digest=thresholds.digest,
        anchors=work.anchors,
        left_open=left_open,
        moved=expected.moved,
    )


@dataclass(slots=True)
class _Work:
    """The arrays of a matrix while it is validated. ``values``, ``codes`` and ``flags`` are (rows, slots), the others
    (rows,): ``present`` the number of slots with a value, ``total`` their sum, ``difference`` the register's
    difference, ``unscaled`` the sum of the estimates before scaling."""

    values: Ints
    codes: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.int32]
    present: npt.NDArray[np.int32]
    total: Ints
    difference: Ints
    row_flags: Ints
    unscaled: Ints
    anchors: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, s: Subject, flags: npt.NDArray[np.int32]) -> _Work:
        """Copies of the raw matrix."""
        c, rows = s.context, s.day.rows
        difference = np.where(c.known & c.unit_ok & c.size_ok, c.register_difference, NO_VALUE)
        present, total = s.statistics.present.copy(), s.statistics.total.copy()
        row_flags, unscaled = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        values, codes = s.day.values.copy(), s.day.quality.copy()
        return cls(values, codes, flags, present, total, difference, row_flags, unscaled)

    def remove(self, rows: Ints, slots: Bools) -> None:
        """Remove the values in ``slots`` (len(rows), slots) of some rows."""
        if not rows.size:
            return
        self.values[rows] = np.where(slots, NO_VALUE, self.values[rows])
        kept = self.values[rows] != NO_VALUE
        self.present[rows] = kept.sum(axis=1)
        self.total[rows] = np.where(kept, self.values[rows], 0).sum(axis=1)

    def clear(self, rows: Ints) -> None:
        """Remove all values of some rows."""
        self.values[rows], self.present[rows], self.total[rows] = NO_VALUE, 0, 0


def _remove_invalid(s: Subject, work: _Work, failing: np.int32) -> Ints:
    """Remove the values that a rule in ``failing`` flags, and spikes that the register disproves. Returns the rows of
    the latter."""
    failing = np.int32(failing & ~INTERVAL_RULES["GAP"].mask)
    rows = np.flatnonzero((work.flags & failing).any(axis=1)) if work.flags.any() else np.zeros(0, np.int64)
    work.remove(rows, (work.flags[rows] & failing) != 0)
    suspects = _repairable(s, work.values, work.flags, work.total)
    repaired = np.flatnonzero(suspects.any(axis=1))
    work.remove(repaired, suspects[repaired])
    return repaired


def _estimate_rows(
    s: Subject,
    work: _Work,
    rows: Ints,
    history: DailyHistory,
    load_vectors: VectorLoader,
    peers: Peers,
    *,
    final: bool,
) -> None:
    """Estimate the missing values of some rows, scale them to the register and validate the estimates."""
    minutes, thresholds = s.day.interval_minutes, s.thresholds
    shape, mean = peers.shapes(minutes, s.context.group[rows], s.day.slots, thresholds.profile_min_rows)
    need = _need(s, work.values, work.flags, rows, history, shape, mean)
    found = estimate(need, rows, load_vectors, minutes, thresholds, work.difference[rows] != NO_VALUE)
    _scale_straddles(s.context, rows, found)
    done = found.method != 0
    work.unscaled[rows] = np.where(done, found.values, 0).sum(axis=1)
    work.row_flags[rows] |= _scale(s.context, rows, found, done, need, work.total, work.difference)
    work.values[rows] = np.where(done, found.values, work.values[rows])
    own = work.codes[rows]
    own[done] = _codes("F" if final else "S", found.method[done], _reasons(work.flags[rows])[done])
    work.codes[rows] = own
    work.row_flags[rows] |= np.where(done.any(axis=1), rr.ESTIMATED.mask, 0)
    work.row_flags[rows] |= np.where((need.missing & ~done).any(axis=1), rr.NOT_ESTIMATED.mask, 0)
    work.total[rows] = np.where(work.values[rows] != NO_VALUE, work.values[rows], 0).sum(axis=1)
    work.anchors = {int(row): note for row, note in zip(rows, found.notes, strict=True) if note}
    work.row_flags[rows] |= _again(s.day, s.context, rows, work.values, work.codes, done, thresholds)


def _counted(work: _Work) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Set the quality of empty slots to missing. Returns the number of slots with a value and with an estimate."""
    rows, slots = work.values.shape
    empty = work.values == NO_VALUE
    some = np.flatnonzero(empty.any(axis=1))
    work.codes[some] = np.where(empty[some], np.uint16(quality.MISSING), work.codes[some])
    estimated = np.zeros(rows, np.int32)
    coded = np.flatnonzero(work.codes.any(axis=1))
    estimated[coded] = (code_table("estimate")[work.codes[coded]] & ~empty[coded]).sum(axis=1)
    with_value = np.full(rows, slots, np.int32)
    with_value[some] = (~empty[some]).sum(axis=1)
    return with_value, estimated


def _without_meter(context: RowContext, values: Ints, codes: npt.NDArray[np.uint16], *, final: bool) -> Ints:
    """Fill slots in which no meter stood with nothing: registers of both meters hold all that was metered (AEMO method
    19, reason 1)."""
    begin, end = context.meterless[:, 0], np.minimum(context.meterless[:, 1], context.future_from)
    rows = np.flatnonzero(end > begin)
    if rows.size:
        slot = np.arange(values.shape[1])
        gap = (slot >= begin[rows, None]) & (slot < end[rows, None])
        values[rows] = np.where(gap, 0, values[rows])
        codes[rows] = np.where(gap, np.uint16(quality.pack("F" if final else "S", 19, 1)), codes[rows])
    flags = np.zeros(values.shape[0], np.int64)
    flags[rows] = rr.ESTIMATED.mask
    return flags


def _need(
    s: Subject, values: Ints, flags: npt.NDArray[np.int32], rows: Ints, history: DailyHistory, shape: Ints, mean: Ints
) -> EstimateNeed:
    within = s.slots_of(rows)
    within[:, s.context.future_from :] = False
    has_value = values[rows] != NO_VALUE
    outage = (flags[rows] & _bit("OUTAGE")) != 0
    return EstimateNeed(
        values=np.ascontiguousarray(values[rows]),
        missing=within & ~has_value,
        anchor=has_value & ~outage,
        first=s.context.first[rows],
        last=np.minimum(s.context.last[rows], s.context.future_from).astype(np.int32),
        daily=_average_daily_load(history, rows, s.thresholds.adl_days),
        shape=shape,
        class_daily=mean,
        active=s.context.active[rows],
        signed=s.context.signed[rows],
    )


def _scale_straddles(context: RowContext, rows: Ints, found: Estimate) -> None:
    """An estimate of a slot that an exchange cuts is for this meter's part of it only."""
    for side in (0, 1):
        slot = context.straddle[rows, side]
        cut = np.flatnonzero(slot >= 0)
        for i in cut:
            if found.method[i, slot[i]]:
                share = int(context.straddle_share[rows[i], side])
                found.values[i, slot[i]] = int(found.values[i, slot[i]]) * share // 1_000_000


def _scale(
    context: RowContext, rows: Ints, found: Estimate, done: Bools, need: EstimateNeed, total: Ints, difference: Ints
) -> Ints:
    """Scale each row's estimates to what the register leaves for them; row flags for those that have none or
    cannot be.
    """
    known = difference[rows] != NO_VALUE
    whole = (need.missing == done).all(axis=1)
    residual = np.where(known, difference[rows], 0) - total[rows]
    tolerance = context.register_tolerance[rows]
    feasible = (residual >= 0) | context.signed[rows]
    forgiven = known & ~feasible & (residual >= -tolerance)
    residual = np.where(forgiven, 0, residual)
    scale = known & whole & (feasible | forgiven) & done.any(axis=1)
    if scale.any():
        by_hours = {
            int(i): time_of_use.scale(context, int(rows[i]), need.values[i], found.values[i], done[i], int(residual[i]))
            for i in np.flatnonzero(scale & (context.tou_program[rows] >= 0))
        }
        plain, net = scale & ~context.signed[rows], scale & context.signed[rows]
        if plain.any():
            found.values[plain] = scale_rows(found.values[plain], done[plain], residual[plain])
        if net.any():
            found.values[net] = shift_rows(found.values[net], done[net], residual[net])
        for at, own in by_hours.items():
            if own is not None:
                found.values[at] = own
                found.notes[at] = f"{found.notes[at]}; scaled to each time-of-use register".lstrip("; ")
    infeasible = known & ~feasible & ~forgiven
    for i in np.flatnonzero((context.stretch_left[rows] != NO_VALUE) & ~known & whole & done.any(axis=1)):
        _scale_in_stretch(context, int(rows[i]), int(i), found, done, total, difference, scale, infeasible)
    flags: Ints = np.where(done.any(axis=1) & ~scale, rr.UNSCALED.mask, 0).astype(np.int64)
    flags |= np.where(infeasible, rr.INFEASIBLE.mask, 0)
    return flags


def _scale_in_stretch(
    context: RowContext,
    row: int,
    i: int,
    found: Estimate,
    done: Bools,
    total: Ints,
    difference: Ints,
    scale: Bools,
    infeasible: Bools,
) -> None:
    """Scale a row's estimates to its part of what a register over several days leaves for the estimates of all
    of them.
    """
    before, after = int(context.stretch_before[row]), int(context.stretch_after[row])
    own = int(np.where(done[i], found.values[i], 0).sum())
    everything = before + own + after
    left = int(context.stretch_left[row]) - int(total[row])
    if left < 0 and not context.signed[row]:
        if left < -int(context.register_tolerance[row]):
            infeasible[i] = True
            return
        left = 0
    if everything <= 0:
        return
    share = share_until(left, before + own, everything) - share_until(left, before, everything)
    found.values[i] = scale_rows(found.values[i : i + 1], done[i : i + 1], np.array([share], np.int64))[0]
    difference[row], scale[i] = int(total[row]) + share, True


def _again(
    day: DayMatrix,
    context: RowContext,
    rows: Ints,
    values: Ints,
    codes: npt.NDArray[np.uint16],
    done: Bools,
    thresholds: Thresholds,
) -> Ints:
    """Validate the estimates themselves (source: California DASMMD VEE 3.6): rows whose estimates fail are for a
    person."""
    part = DayMatrix(
        day.billing_day, day.interval_minutes, pl.DataFrame(), values[rows], codes[rows], day.sequence[rows]
    )
    narrowed = context.take(rows)
    s = subject(part, narrowed, row_statistics(part.values, narrowed.first, narrowed.last), thresholds)
    failing = np.int32(mask_of(INTERVAL_RULES, Severity.FAIL, Role.ESTIMATE))
    bad = ((run_interval_rules(s, Role.ESTIMATE) & failing) != 0) & done
    flags: Ints = np.where(bad.any(axis=1), rr.ESTIMATE_SUSPECT.mask, 0).astype(np.int64)
    return flags
