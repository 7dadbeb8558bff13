"""Rules that judge single intervals.

A rule returns the rows it looked into and a boolean matrix over them, or None when no row can be hit. Its result for a
row never depends on other rows or on their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.rules.catalogue import INTERVAL_BITS, INTERVAL_RULES, Role, Rule, Severity, everywhere, register
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Ints, RowContext
from meter_pipeline.vee.rules.statistics import RowStatistics, row_statistics
from meter_pipeline.vee.rules.thresholds import Thresholds


@dataclass(slots=True)
class Subject:
    """A day to validate: the matrix, the context of its rows, their statistics, the thresholds.

    ``coded``: rows with any quality code other than plain actual; quality rules check only these. ``trusted``: the
    statistics without the intervals that the meter or head-end itself refuses, which count neither as a peak nor for
    its measure. ``largest``: each row's largest completely actual day of its history, NO_VALUE where the history is too
    short.
    """

    day: DayMatrix
    context: RowContext
    statistics: RowStatistics
    thresholds: Thresholds
    coded: Ints
    trusted: RowStatistics
    largest: Ints

    def slots_of(self, rows: Ints) -> Bools:
        """Expected slots of some rows, (len(rows), slots)."""
        slot = np.arange(self.day.slots, dtype=np.int32)
        within: Bools = (slot >= self.context.first[rows, None]) & (slot < self.context.last[rows, None])
        return within


#: Quality codes by which the meter or head-end refuses its own value
_REFUSED: Final = ("null", "test", "overflow", "fault", "truncated")


def subject(
    day: DayMatrix,
    context: RowContext,
    statistics: RowStatistics,
    thresholds: Thresholds,
    history: DailyHistory | None = None,
) -> Subject:
    """Put a day under judgement."""
    coded = np.flatnonzero(day.quality.any(axis=1)).astype(np.int64)
    largest = np.full(day.rows, NO_VALUE, np.int64)
    if history is not None and history.totals.shape[1]:
        actual = np.where(history.actual, history.totals, NO_VALUE)
        enough = (actual != NO_VALUE).sum(axis=1) >= thresholds.high_low_min_days
        largest = np.where(enough, actual.max(axis=1), NO_VALUE)
    return Subject(day, context, statistics, thresholds, coded, _trusted(day, context, statistics, coded), largest)


def _refused(codes: npt.NDArray[np.uint16]) -> Bools:
    found = np.zeros(codes.shape, np.bool_)
    for name in _REFUSED:
        found |= code_table(name)[codes]
    return found


def _trusted(day: DayMatrix, context: RowContext, statistics: RowStatistics, coded: Ints) -> RowStatistics:
    refused = _refused(day.quality[coded]) & (day.values[coded] != NO_VALUE)
    some = refused.any(axis=1)
    if not some.any():
        return statistics
    rows = coded[some]
    own = row_statistics(np.where(refused[some], NO_VALUE, day.values[rows]), context.first[rows], context.last[rows])
    out = replace(statistics, **{f.name: getattr(statistics, f.name).copy() for f in fields(statistics)})
    for f in fields(statistics):
        getattr(out, f.name)[rows] = getattr(own, f.name)
    return out


Hit = tuple[Ints, Bools]
Check = Callable[[Subject], Hit | None]


def _rule(
    code: str, bit: int, severity: Severity | dict[Role, Severity], source: str, *, about: str
) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        by_role = severity if isinstance(severity, dict) else {Role.INITIAL: severity, Role.MANUAL: severity}
        register(INTERVAL_RULES, INTERVAL_BITS, Rule(code, bit, by_role, source, about, check=check))
        return check

    return add


def _where(candidates: Bools | np.bool_) -> Ints:
    return np.flatnonzero(candidates).astype(np.int64)


def _hit(rows: Ints, mask: Bools) -> Hit | None:
    return (rows, mask) if rows.size and mask.any() else None


@_rule(
    "GAP",
    0,
    Severity.FAIL,
    "California DASMMD VEE A.3; Itron IEE Gap",
    about="No value in a slot the meter should have filled.",
)
def gap(s: Subject) -> Hit | None:
    rows = _where(s.statistics.present < s.context.expected)
    return _hit(rows, (s.day.values[rows] == NO_VALUE) & s.slots_of(rows))


@_rule(
    "OUTSIDE_INSTALLATION",
    1,
    Severity.FAIL,
    "CC&B installation history; SAP logical register",
    about="A value from before the meter was installed here or after it was removed: kept raw, not used.",
)
def outside_installation(s: Subject) -> Hit | None:
    rows = _where(s.statistics.outside > 0)
    return _hit(rows, (s.day.values[rows] != NO_VALUE) & ~s.slots_of(rows))


@_rule("FUTURE", 2, Severity.FAIL, "California DASMMD VEE 3.1, time check", about="The interval has not ended yet.")
def future(s: Subject) -> Hit | None:
    start = s.context.future_from
    if start >= s.day.slots:
        return None
    late = s.day.values[:, start:] != NO_VALUE
    rows = _where(late.any(axis=1))
    mask = np.zeros((rows.size, s.day.slots), np.bool_)
    mask[:, start:] = late[rows]
    return _hit(rows, mask)


@_rule(
    "RANGE",
    3,
    everywhere(Severity.FAIL),
    "Itron IEE Demand High/Low Limit; California DASMMD demand check",
    about="More than the service can carry in one interval.",
)
def out_of_range(s: Subject) -> Hit | None:
    limit = s.context.limit
    rows = _where((s.statistics.top[:, 0] > limit) | (s.statistics.smallest < -limit))
    values = s.day.values[rows]
    return _hit(
        rows, (values != NO_VALUE) & s.slots_of(rows) & ((values > limit[rows, None]) | (values < -limit[rows, None]))
    )


@_rule(
    "NEGATIVE",
    4,
    everywhere(Severity.FAIL),
    "Oracle MDM Negative Consumption; CalTRACK 2.3.5",
    about="Less than nothing on a channel that counts one direction only.",
)
def negative(s: Subject) -> Hit | None:
    rows = _where((s.statistics.smallest < 0) & ~s.context.signed)
    values = s.day.values[rows]
    return _hit(rows, (values != NO_VALUE) & (values < 0) & s.slots_of(rows))


def _offset_rows(s: Subject) -> tuple[Ints, npt.NDArray[np.int32]] | None:
    if s.day.offsets is None:
        return None
    rows = _where(s.day.offsets.any(axis=1))
    if not rows.size:
        return None
    return rows, np.abs(s.day.offsets[rows].astype(np.int32))


@_rule(
    "CLOCK_SNAPPED",
    5,
    Severity.INFORM,
    "California DASMMD VEE, time tolerance of meter (3 minutes is ours)",
    about="The clock was off the grid within tolerance; the value stands in its slot.",
)
def clock_snapped(s: Subject) -> Hit | None:
    found = _offset_rows(s)
    if found is None:
        return None
    rows, offset = found
    return _hit(rows, (offset > 0) & (offset <= s.thresholds.snap_seconds) & (s.day.values[rows] != NO_VALUE))


@_rule(
    "CLOCK_DRIFT",
    6,
    Severity.FAIL,
    "California DASMMD VEE B.3, time tolerance of meter",
    about="The clock was off the grid beyond tolerance: the value belongs to no one slot.",
)
def clock_drift(s: Subject) -> Hit | None:
    found = _offset_rows(s)
    if found is None:
        return None
    rows, offset = found
    return _hit(rows, (offset > s.thresholds.snap_seconds) & (s.day.values[rows] != NO_VALUE))


#: AEMO reason codes as published with MDFF v2.6. A reason on a substituted value says why it was substituted, and
# condemns it no more. Each set: the quality flags, and the reasons (None: any).
_CODE_SETS: Final[dict[str, tuple[Sequence[str], tuple[int, ...] | None]]] = {
    "null": ("NM", None),
    "estimate": ("SFE", None),
    "outage": (quality.FLAGS, (43, 79)),
    "test": ("A", (90,)),
    "overflow": ("A", (95,)),
    "fault": ("A", (45, 82, 83, 84, 88, 96, 98)),
    "truncated": ("A", (80, 81)),
    "time": ("A", (86, 89)),
}


@lru_cache
def _code_tables() -> dict[str, npt.NDArray[np.bool_]]:
    """Which quality codes say what, as tables over all 65,536 codes."""
    flag, reason, valid = quality.unpack_all()
    return {
        name: valid
        & np.isin(flag, [quality.FLAGS.index(letter) for letter in flags])
        & (True if reasons is None else np.isin(reason, reasons))
        for name, (flags, reasons) in _CODE_SETS.items()
    }


def code_table(name: str) -> npt.NDArray[np.bool_]:
    """Table over all quality codes of one of the sets null, estimate, outage, test, overflow, fault, truncated,
    time.
    """
    return _code_tables()[name]


def _coded(s: Subject, name: str) -> Hit | None:
    if not s.coded.size:
        return None
    mask = code_table(name)[s.day.quality[s.coded]] & (s.day.values[s.coded] != NO_VALUE)
    some = mask.any(axis=1)
    return _hit(s.coded[some], mask[some])


@_rule(
    "NULL_DATA", 7, Severity.FAIL, "AEMO MDFF quality flag N", about="The head-end itself says that it has no value."
)
def null_data(s: Subject) -> Hit | None:
    return _coded(s, "null")


@_rule(
    "SOURCE_ESTIMATE",
    8,
    Severity.INFORM,
    "AEMO MDFF quality flags S, F, E",
    about="The head-end sent its own estimate.",
)
def source_estimate(s: Subject) -> Hit | None:
    return _coded(s, "estimate")


@_rule(
    "OUTAGE",
    9,
    Severity.INFORM,
    "California PSWG msg00129: outage intervals are actual data; AEMO reasons 43, 79",
    about="Power was off: the value stands, but is neither an anchor nor a like day.",
)
def outage(s: Subject) -> Hit | None:
    return _coded(s, "outage")


@_rule(
    "TEST_MODE",
    10,
    Severity.FAIL,
    "AEMO reason 90",
    about="The meter was under test: what it counted was not used by the customer.",
)
def test_mode(s: Subject) -> Hit | None:
    return _coded(s, "test")


@_rule(
    "PULSE_OVERFLOW", 11, Severity.FAIL, "AEMO reason 95", about="The pulse counter ran over: the value is too small."
)
def pulse_overflow(s: Subject) -> Hit | None:
    return _coded(s, "overflow")


@_rule(
    "METER_FAULT",
    12,
    Severity.FAIL,
    "AEMO reasons 45, 82 to 84, 88, 96, 98",
    about="The meter reports a fault of its own.",
)
def meter_fault(s: Subject) -> Hit | None:
    return _coded(s, "fault")


@_rule(
    "TRUNCATED",
    13,
    Severity.FAIL,
    "AEMO reasons 80, 81; Oracle MDM Interval Size Validation",
    about="The interval is shorter or longer than its slot.",
)
def truncated(s: Subject) -> Hit | None:
    return _coded(s, "truncated")


@_rule(
    "TIME_RESET",
    14,
    Severity.WARN,
    "AEMO reasons 86, 89",
    about="The meter's clock failed or was set within the interval.",
)
def time_reset(s: Subject) -> Hit | None:
    return _coded(s, "time")


@_rule(
    "SPIKE",
    15,
    everywhere(Severity.WARN),
    "Oracle MDM Interval Spike Check: highest against third highest of the day; 180 % is ours",
    about="The highest interval of the day stands far above the third highest, and neither register nor history bears it out.",
)
def spike(s: Subject) -> Hit | None:
    return _far_above(s, ~_borne_out(s))


def _borne_out(s: Subject) -> Bools:
    """Rows whose register counted as much as all their intervals, the highest included; without a register, rows that
    have had as large a day."""
    difference = s.context.register_difference
    known = difference != NO_VALUE
    registered: Bools = known & (s.trusted.total <= np.where(known, difference, 0) + s.context.register_tolerance)
    remembered: Bools = ~known & (s.largest != NO_VALUE) & (s.trusted.total <= s.largest)
    return registered | remembered


def _far_above(s: Subject, among: Bools) -> Hit | None:
    t, top = s.thresholds, s.trusted.top
    third = np.where(top[:, 2] == NO_VALUE, 0, top[:, 2])
    highest = np.where(top[:, 0] == NO_VALUE, 0, top[:, 0])
    floor = (s.context.limit * t.spike_floor_share).astype(np.int64)
    over = (
        (s.trusted.present >= 3)
        & (highest > floor)
        & ((highest - third) * 100.0 > t.spike_percent * np.maximum(third, 0))
    )
    rows = _where(over & among)
    values = s.day.values[rows]
    cut = third[rows] + np.floor(np.maximum(third[rows], 0) * (t.spike_percent / 100.0)).astype(np.int64)
    high = (values != NO_VALUE) & (values > np.maximum(cut, floor[rows])[:, None]) & s.slots_of(rows)
    return _hit(rows, high & ~_refused(s.day.quality[rows]))


@_rule(
    "CONSECUTIVE",
    16,
    {Role.INITIAL: Severity.WARN},
    "Oracle MDM Consecutive Interval Check",
    about="The same non-zero value over and over: a stuck channel or an estimate in disguise.",
)
def consecutive(s: Subject) -> Hit | None:
    needed = s.thresholds.consecutive_needed(s.day.interval_minutes)
    rows = _where(s.statistics.run >= needed)
    slot = np.arange(s.day.slots, dtype=np.int32)
    start = s.statistics.run_start[rows, None]
    return _hit(rows, (slot >= start) & (slot < start + s.statistics.run[rows, None]))


@_rule(
    "INACTIVE_USAGE",
    17,
    Severity.WARN,
    "California DASMMD VEE B.3, usage for inactive meters",
    about="Usage on a service that is inactive or disconnected.",
)
def inactive_usage(s: Subject) -> Hit | None:
    rows = _where(~s.context.active & (s.statistics.top[:, 0] > 0))
    values = s.day.values[rows]
    return _hit(rows, (values != NO_VALUE) & (values > 0) & s.slots_of(rows))


@_rule(
    "SEQUENCE_REUSED",
    18,
    Severity.WARN,
    "Oracle MDM Duplicate IMD Check",
    about="The sequence number of this interval was used for another value before.",
)
def sequence_reused(s: Subject) -> Hit | None:
    rows = _where(s.context.sequence_reused)
    if not rows.size:
        return None
    return _hit(rows, (s.day.values[rows] != NO_VALUE) & s.slots_of(rows) & s.context.reused_slots[rows])


@_rule(
    "EXCHANGE_SLOT",
    19,
    Severity.INFORM,
    "ERCOT TDSP list of mismatch causes: meter exchange",
    about="A meter exchange falls within the interval: this meter's part of it.",
)
def exchange_slot(s: Subject) -> Hit | None:
    rows = _where((s.context.straddle >= 0).any(axis=1))
    slot = np.arange(s.day.slots, dtype=np.int32)
    straddle = s.context.straddle[rows]
    return _hit(rows, (slot == straddle[:, :1]) | (slot == straddle[:, 1:]))


@_rule(
    "PEAK",
    20,
    Severity.INFORM,
    "California DAI msg00150: data verified by a sum check still goes through the spike check",
    about="The highest interval of the day stands far above the third highest, and the register, or a day as large before, bears it out.",
)
def peak(s: Subject) -> Hit | None:
    return _far_above(s, _borne_out(s))


register(
    INTERVAL_RULES,
    INTERVAL_BITS,
    Rule(
        "EDITED",
        21,
        everywhere(Severity.INFORM),
        "California DASMMD VEE, manual override; Oracle MDM manual override rules",
        "A person put this value in the place of the read, or refused the read.",
    ),
)


def run_interval_rules(s: Subject, role: Role = Role.INITIAL) -> npt.NDArray[np.int32]:
    """Flags (rows, slots) of every interval rule the role has."""
    flags = np.zeros((s.day.rows, s.day.slots), np.int32)
    for rule in INTERVAL_RULES.values():
        if rule.check is None or role not in rule.severity:
            continue
        found: Hit | None = rule.check(s)
        if found is not None:
            rows, mask = found
            flags[rows] |= np.where(mask, np.int32(rule.mask), np.int32(0))
    return flags
