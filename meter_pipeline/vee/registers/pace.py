"""A register's rate by its own reads, and the usage of a window that its reads do not enclose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers.reads import Series, Steps
from meter_pipeline.vee.registers.window_use import WindowUse
from meter_pipeline.vee.rules.model import Bools, Ints


@dataclass(frozen=True, slots=True)
class UsagePace:
    """Rate of each series outside its reads: ``amount`` micro units in ``seconds``, 0 seconds where it is
    not known.

    ``amount``/``seconds``: over the steps of the last ``span`` up to its last read. ``lead_amount``/``lead_seconds``:
    over its first step, for time before its first read.
    """

    amount: Ints
    seconds: Ints
    lead_amount: Ints
    lead_seconds: Ints


def no_pace(count: int) -> UsagePace:
    """``count`` series of which nothing is known."""
    zero = [np.zeros(count, np.int64) for _ in range(4)]
    return UsagePace(*zero)


def pace(reads: Series, found: Steps, until: int, span_s: int, doubtful: Bools | None = None) -> UsagePace:
    """The pace of every series from reads up to ``until`` (UTC seconds), for estimates of time that no reads enclose.

    ``doubtful``: reads whose stretch is no pace, for the rules doubt it.
    """
    count = reads.starts.size - 1
    out = no_pace(count)
    if not count:
        return out
    number = np.repeat(np.arange(count), np.diff(reads.starts))[found.used]
    at, consumed = reads.at[found.used], found.consumed[found.used]
    same = np.zeros(at.size, np.bool_)
    same[1:] = number[1:] == number[:-1]
    opening = np.flatnonzero(~same)
    elapsed = np.zeros(at.size, np.int64)
    elapsed[1:] = np.where(same[1:], np.diff(at), 0)
    believed = np.ones(at.size, np.bool_) if doubtful is None else ~doubtful[found.used]
    known = same & (consumed != NO_VALUE) & (elapsed > 0) & believed
    last = np.zeros(count, np.int64)
    behind = (at <= until) & believed
    np.maximum.at(last, number[behind], at[behind])
    recent = np.flatnonzero(known & (at <= until) & (at > last[number] - span_s))
    np.add.at(out.amount, number[recent], consumed[recent])
    np.add.at(out.seconds, number[recent], elapsed[recent])
    second = opening[opening + 1 < at.size] + 1
    second = second[known[second]]
    out.lead_amount[number[second]], out.lead_seconds[number[second]] = consumed[second], elapsed[second]
    return out


def at_pace(amount: int, seconds: int, wanted_s: int) -> int:
    """Returns the usage of ``wanted_s`` seconds at a rate, not below 0, rounded down."""
    return max(amount, 0) * wanted_s // seconds


def open_quantity(use: WindowUse, own: UsagePace, k: int) -> int | None:
    """Returns the usage of window ``k`` where its reads do not enclose it: the enclosed part, and its ends at the
    series' own pace.

    Time before the first read goes at the pace of the first step, time after the last at that of the last steps. None
    where no step says a pace, or the window holds an unexplained decrease. Windows that adjoin differ from their
    register only by what lies outside its reads.
    """
    amount, seconds = int(own.amount[k]), int(own.seconds[k])
    lead, lead_s = (int(own.lead_amount[k]), int(own.lead_seconds[k])) if own.lead_seconds[k] else (amount, seconds)
    ahead, behind = int(use.lead_s[k]), int(use.tail_s[k])
    if use.broken[k] or (ahead and not lead_s) or (behind and not seconds) or not (ahead or behind):
        return None
    return (
        int(use.enclosed[k])
        + (at_pace(lead, lead_s, ahead) if ahead else 0)
        + (at_pace(amount, seconds, behind) if behind else 0)
    )
