"""Rules that judge a row: one channel of one meter over a billing day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.rules.catalogue import ROW_BITS, ROW_RULES, Role, Rule, Severity, everywhere, register
from meter_pipeline.vee.rules.expectation import Expectation, is_high, is_low
from meter_pipeline.vee.rules.interval_rules import Subject, spike
from meter_pipeline.vee.rules.model import Bools, DailyHistory, Ints


@dataclass(frozen=True, slots=True)
class RowSubject:
    """A day under judgement with each row's total so far, its daily history, and what was expected of it."""

    day: Subject
    total: Ints
    history: DailyHistory
    expected: Expectation


Check = Callable[[RowSubject], Bools]


def _rule(
    code: str, bit: int, severity: Severity | dict[Role, Severity], source: str, *, about: str, terminates: bool = False
) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        by_role = severity if isinstance(severity, dict) else everywhere(severity)
        register(ROW_RULES, ROW_BITS, Rule(code, bit, by_role, source, about, terminates, check))
        return check

    return add


def _recorded(code: str, bit: int, severity: Severity, source: str, about: str) -> Rule:
    """A rule found elsewhere and recorded under this code."""
    return register(ROW_RULES, ROW_BITS, Rule(code, bit, everywhere(severity), source, about))


@_rule(
    "UNKNOWN_METER",
    0,
    Severity.FAIL,
    "California DASMMD VEE B.3, meter identification",
    about="No reference data for this meter and channel, or it is installed nowhere on the day.",
    terminates=True,
)
def unknown_meter(r: RowSubject) -> Bools:
    return ~r.day.context.known


@_rule(
    "UNIT", 1, Severity.FAIL, "Oracle MDM UOM Check", about="The unit read is not the channel's unit.", terminates=True
)
def unit(r: RowSubject) -> Bools:
    return ~r.day.context.unit_ok


@_rule(
    "INTERVAL_SIZE",
    2,
    Severity.FAIL,
    "Oracle MDM Interval Size Validation",
    about="The interval length is not the channel's.",
    terminates=True,
)
def interval_size(r: RowSubject) -> Bools:
    return ~r.day.context.size_ok


@_rule(
    "MULTIPLIER",
    3,
    Severity.FAIL,
    "Oracle MDM Multiplier Check",
    about="The register multiplier is not positive, or the register disagrees with the intervals by a power of ten.",
)
def multiplier(r: RowSubject) -> Bools:
    difference = r.day.context.register_difference
    testable = (difference > 0) & (r.total > 0)
    ratio = np.where(testable, np.maximum(difference, 1) / np.maximum(r.total, 1), 1.0)
    t = r.day.thresholds
    suspect = np.zeros(r.day.day.rows, np.bool_)
    for factor in t.multiplier_ratios:
        for aim in (factor, 1.0 / factor):
            suspect |= testable & (np.abs(ratio / aim - 1.0) <= t.multiplier_within)
    # a quarter of a kilowatt hour beside a whole one on a coarse dial is rounding, not a factor
    return ~r.day.context.multiplier_ok | (suspect & sum_off(r.day, r.total))


@_rule("NO_DATA", 4, Severity.FAIL, "ERCOT TDSP Missing Interval Monitor", about="Nothing at all was read for the day.")
def no_data(r: RowSubject) -> Bools:
    found: Bools = (r.day.statistics.present == 0) & (r.day.context.expected > 0)
    return found


@_rule(
    "GAPS",
    5,
    Severity.WARN,
    "Itron IEE Gap; Oracle MDM Raise Missing Quantity",
    about="Some intervals of the day are missing.",
)
def gaps(r: RowSubject) -> Bools:
    found: Bools = (r.day.statistics.present > 0) & (r.day.statistics.present < r.day.context.expected)
    return found


def sum_off(s: Subject, total: Ints) -> Bools:
    """Rows whose interval total lies outside the register difference's tolerance."""
    difference = s.context.register_difference
    off: Bools = (difference != NO_VALUE) & (
        np.abs(np.where(difference == NO_VALUE, 0, difference) - total) > s.context.register_tolerance
    )
    return off


@_rule(
    "SUM_CHECK",
    6,
    Severity.FAIL,
    "California DASMMD VEE sum check; ERCOT tolerance of two multipliers [V]",
    about="The intervals do not add up to the register difference.",
)
def sum_check(r: RowSubject) -> Bools:
    return sum_off(r.day, r.total)


@_rule(
    "SPIKE_DAY",
    7,
    Severity.WARN,
    "Oracle MDM Interval Spike Check",
    about="The day has an interval far above its third highest.",
)
def spike_day(r: RowSubject) -> Bools:
    found = np.zeros(r.day.day.rows, np.bool_)
    hit = spike(r.day)
    if hit is not None:
        found[hit[0]] = hit[1].any(axis=1)
    return found


@_rule(
    "HIGH",
    8,
    Severity.WARN,
    "Oracle MDM High/Low Check; ADU against weather-adjusted history",
    about="Far more than the meter's own average, measured against what its class did today.",
)
def high(r: RowSubject) -> Bools:
    return is_high(r.expected, r.day.thresholds)


@_rule(
    "LOW",
    9,
    Severity.WARN,
    "Oracle MDM High/Low Check",
    about="Far less than the meter's own average, measured against its class.",
)
def low(r: RowSubject) -> Bools:
    return is_low(r.expected, r.day.thresholds)


@_rule(
    "ZERO",
    10,
    Severity.WARN,
    "California DASMMD VEE B.3, zero consumption for active meters",
    about="No usage all day on an active service that usually uses some.",
)
def zero(r: RowSubject) -> Bools:
    needed = round(r.day.thresholds.zero_hours * 60 / r.day.day.interval_minutes)
    all_day: Bools = (
        (r.day.statistics.zero_run >= np.minimum(needed, r.day.context.expected))
        & (r.day.context.expected > 0)
        & r.day.context.active
    )
    if r.history.totals.shape[1]:
        known = (r.history.totals != NO_VALUE) & r.history.actual
        usual = np.where(known, r.history.totals > 0, False).sum(axis=1) * 2 > known.sum(axis=1)
        all_day &= usual | ~known.any(axis=1)
    return all_day


@_rule("STUCK", 11, Severity.WARN, "Oracle MDM Consecutive Interval Check", about="A run of one repeated value.")
def stuck(r: RowSubject) -> Bools:
    needed = r.day.thresholds.consecutive_needed(r.day.day.interval_minutes)
    found: Bools = r.day.statistics.run >= needed
    return found


@_rule(
    "INACTIVE",
    12,
    Severity.FAIL,
    "California DASMMD VEE B.3, usage for inactive meters",
    about="Usage on an inactive service.",
)
def inactive(r: RowSubject) -> Bools:
    found: Bools = ~r.day.context.active & (r.day.statistics.top[:, 0] > 0)
    return found


@_rule(
    "SIBLING",
    13,
    Severity.WARN,
    "Oracle MDM Ensure IMD Exists for Sibling MCs",
    about="Another channel of the same meter has no data for the day.",
)
def sibling(r: RowSubject) -> Bools:
    return r.day.context.sibling_missing


@_rule(
    "TOU_SUM",
    14,
    Severity.FAIL,
    "Oracle MDM Sum Check: TOU registers against the check register; California B.3",
    about="The time-of-use registers do not add up to the total register, or one of them not to the intervals of its hours.",
)
def tou_sum(r: RowSubject) -> Bools:
    return r.day.context.tou_mismatch


@_rule(
    "DUPLICATE",
    15,
    Severity.WARN,
    "Oracle MDM Duplicate IMD Check",
    about="A sequence number came with more than one payload.",
)
def duplicate(r: RowSubject) -> Bools:
    return r.day.context.sequence_reused


@_rule(
    "PROLONGED_ESTIMATION",
    16,
    Severity.WARN,
    "Oracle MDM Prolonged Estimation; ERCOT five days [V]",
    about="Estimated for days on end.",
)
def prolonged(r: RowSubject) -> Bools:
    incomplete = r.day.statistics.present < r.day.context.expected
    found: Bools = incomplete & (r.day.context.estimate_streak + 1 >= r.day.thresholds.prolonged_days)
    return found


ROLLOVER = _recorded(
    "ROLLOVER",
    17,
    Severity.INFORM,
    "California DASMMD VEE B.3, number of dials",
    "The register ran over its last digit.",
)


DECREASE = _recorded(
    "DECREASE",
    18,
    Severity.FAIL,
    "AEMO reason 18, reading below previous",
    "The register went back and nothing explains it.",
)


REVERSE_FLOW = _recorded(
    "REVERSE_FLOW", 19, Severity.WARN, "AEMO reason 39", "The register went back a little: backflow or play."
)


READ_ERROR = _recorded(
    "READ_ERROR",
    20,
    Severity.WARN,
    "Itron IEE Delta High/Low",
    "One register read out of line with its neighbours: not used.",
)


NO_REGISTER = _recorded(
    "NO_REGISTER",
    21,
    Severity.INFORM,
    "California DASMMD VEE sum check",
    "The meter has a register but no read closes the day.",
)


EXCHANGE = _recorded(
    "EXCHANGE", 22, Severity.INFORM, "CC&B start and stop reads; AEMO reason 1", "The meter was exchanged on the day."
)


UNSCALED = _recorded(
    "UNSCALED", 23, Severity.INFORM, "Itron IEE UNSCALED status", "Estimated without a register to scale to."
)


INFEASIBLE = _recorded(
    "INFEASIBLE",
    24,
    Severity.FAIL,
    "Itron IEE scaling",
    "The accepted intervals already exceed the register difference.",
)


HOUR_SHIFT = _recorded(
    "HOUR_SHIFT",
    25,
    Severity.WARN,
    "California DASMMD VEE 3.1",
    "The head-end's day is shifted by whole hours against its history.",
)


DIALS = _recorded(
    "DIALS",
    26,
    Severity.FAIL,
    "California DASMMD VEE B.3, number of dials",
    "A register read has more digits than the meter.",
)


ESTIMATED = _recorded(
    "ESTIMATED", 27, Severity.INFORM, "California DASMMD VEE 3.7", "Some intervals of the day are our estimates."
)


NOT_ESTIMATED = _recorded(
    "NOT_ESTIMATED", 28, Severity.FAIL, "ERCOT: nulls refused", "Intervals stay null: no method had what it needs."
)


REFERENCE = _recorded("REFERENCE", 29, Severity.FAIL, "V5", "No account, tariff in force or billing cycle for the day.")


REPAIRED = _recorded(
    "REPAIRED", 30, Severity.INFORM, "California 3.6", "Suspect intervals were replaced; the register bears it out."
)


METERLESS_GAP = _recorded(
    "METERLESS_GAP", 31, Severity.WARN, "ERCOT mismatch causes", "No meter was in place for part of the day."
)


DAY_EDGE = _recorded(
    "DAY_EDGE",
    49,
    Severity.INFORM,
    "IANA time zone database: Australia/Lord_Howe changes by 30 minutes",
    "The first or the last interval reaches over midnight; the register may differ by so much.",
)


READ_OVERDUE = _recorded(
    "READ_OVERDUE",
    33,
    Severity.WARN,
    "ERCOT TDSP Missing Interval Monitor; AEMO reason 85",
    "The register has not been read for more than twice its usual distance between reads.",
)


ESTIMATE_SUSPECT = _recorded(
    "ESTIMATE_SUSPECT", 32, Severity.FAIL, "California DASMMD VEE 3.6", "An estimate itself fails validation."
)


REGISTER_DOUBTED = _recorded(
    "REGISTER_DOUBTED",
    45,
    Severity.INFORM,
    "Oracle MDM manual override rules",
    "The register counted just what a person refused, so the estimates are not scaled to it.",
)


# rules of meters that are read by their register alone (registers/read_rules.py)
READ_HIGH = _recorded(
    "READ_HIGH",
    40,
    Severity.FAIL,
    "CC&B High/Low; Itron IEE Delta ratio; California DASMMD VEE B.3, high/low usage",
    "Between two reads the register counted far more than in the stretches before, measured against its class.",
)


READ_LOW = _recorded(
    "READ_LOW",
    41,
    Severity.WARN,
    "CC&B High/Low; California DASMMD VEE B.3, high/low usage",
    "Between two reads the register counted far less than in the stretches before, measured against its class.",
)


READ_ZERO = _recorded(
    "READ_ZERO",
    42,
    Severity.WARN,
    "California DASMMD VEE B.3, zero consumption for active meters",
    "The register of an active service that used something before has not moved for several reads.",
)


READ_INACTIVE = _recorded(
    "READ_INACTIVE",
    43,
    Severity.WARN,
    "California DASMMD VEE B.3, usage for inactive meters",
    "The register of an inactive service moved between two reads.",
)


READ_IMPOSSIBLE = _recorded(
    "READ_IMPOSSIBLE",
    44,
    Severity.FAIL,
    "Itron IEE Demand High/Low Limit",
    "Between two reads the register counted more than the service can carry.",
)


READ_GAP = _recorded(
    "READ_GAP",
    47,
    Severity.INFORM,
    "Itron IEE Gap; ERCOT TDSP Missing Interval Monitor",
    "A register that is read several times a day was silent for longer than its habit.",
)


NEVER_READ = _recorded(
    "NEVER_READ",
    46,
    Severity.FAIL,
    "ERCOT: nulls refused",
    "No read of the register is known, so nothing says what was used.",
)


SET_ASIDE = _recorded(
    "SET_ASIDE",
    48,
    Severity.FAIL,
    "C5",
    "The service's day could not be worked out and is left out; those of all others were.",
)


def run_row_rules(
    s: Subject, total: Ints, history: DailyHistory, expected: Expectation, role: Role = Role.INITIAL
) -> Ints:
    """Row flags of every row rule the role has. ``expected``: from ``expectation``.

    Early termination: a row hit by a terminating rule carries that bit alone, for nothing after it could be trusted.
    """
    flags = s.context.register_flags.copy()
    stopped = np.zeros(s.day.rows, np.bool_)
    row_subject = RowSubject(s, total, history, expected)
    for rule in ROW_RULES.values():
        if rule.check is None or role not in rule.severity:
            continue
        hit: Bools = rule.check(row_subject) & ~stopped
        if rule.terminates:
            flags[hit] = 0
            stopped |= hit
        flags |= np.where(hit, np.int64(rule.mask), np.int64(0))
    return flags
