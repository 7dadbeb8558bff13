"""The interval length of each channel of a file that declares none: the distance at which its reads stand.

A file may hold meters of 15 minutes, of an hour and of a day. What its reads do not show is not guessed: a value of a
day that is read as one of 15 minutes is billed with 95 estimates beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.rejects import FeedRefused

I64 = npt.NDArray[np.int64]
MINUTE_US: Final = 60_000_000
_LONGEST: Final = 1440
#: equal distances in a row that are no gap: a channel of its own length, or one whose length changed
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Lengths:
    """By row, in the order given: the minutes of its interval; ``refused``: rows whose length the file does not show,
    with why."""

    minutes: I64
    refused: dict[int, str]


def lengths_of(key: I64, instants: I64, at_end: bool) -> Lengths:
    """Interval lengths of rows by their channel (``key``) and UTC microseconds; ``at_end``: these are the intervals'
    ends.

    A channel has the commonest distance between its reads where that comes four times and more often than all others.
    One that shows too little has the length of the others where these have one; in a file of several lengths its reads
    are refused. Raises FeedRefused where the file shows no length at all.
    """
    size = key.size
    if not size:
        return Lengths(np.zeros(0, np.int64), {})
    order = np.lexsort((instants, key))
    channel = np.zeros(size, np.int64)
    channel[1:] = np.cumsum(np.diff(key[order]) != 0)
    step = np.zeros(size, np.int64)
    step[1:] = np.where(np.diff(channel) == 0, np.diff(instants[order]), 0)
    shown = step > 0
    if not shown.any():
        raise FeedRefused("bad_interval", "no interval length is declared and the file does not show one")
    lengths, counts = np.unique(step[shown], return_counts=True)
    usual = int(lengths[counts.argmax()])
    if not _is_length(usual):
        message = f"reads stand {usual / MINUTE_US:g} minutes apart: declare interval_minutes, or kind register"
        raise FeedRefused("bad_interval", message)
    own, times, among = _commonest(channel[shown], step[shown], int(channel[-1]) + 1)
    sure = (times >= _SHOWN) & (2 * times > among) & _is_length(own)
    kinds = np.unique(own[sure])
    if kinds.size < 2:
        # One length in the file: channels with too few reads have it too, their distances being gaps.
        usual = int(kinds[0]) if kinds.size else usual
        clear = sure | (own % usual == 0)
        minutes_of = np.where(sure, own, usual) // MINUTE_US
    else:
        clear = sure | (own == usual)
        minutes_of = own // MINUTE_US
    minutes, refused = np.empty(size, np.int64), dict[int, str]()
    minutes[order] = minutes_of[channel]
    for at in np.flatnonzero(~clear[channel]).tolist():
        refused[int(order[at])] = _unclear(int(own[channel[at]]), int(among[channel[at]]))
    changed = _changed(step, minutes_of[channel] * MINUTE_US) & clear[channel]
    other = step.copy()
    if not at_end:  # the read before the first such distance is of the new length
        before = np.flatnonzero(changed[1:] & ~changed[:-1])
        changed[before] = True
        other[before] = step[before + 1]
    for at in np.flatnonzero(changed).tolist():
        refused[int(order[at])] = (
            f"reads stand {other[at] / MINUTE_US:g} minutes apart here and {minutes_of[channel[at]]} elsewhere in "
            "the channel: declare interval_minutes, or the column that says it"
        )
    return Lengths(minutes, refused)


def _is_length(step: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether a distance is a length that an interval may have."""
    given = np.asarray(step, np.int64)
    return np.asarray((given > 0) & (given % MINUTE_US == 0) & (given <= _LONGEST * MINUTE_US), np.bool_)


def _commonest(channel: I64, step: I64, channels: int) -> tuple[I64, I64, I64]:
    """By channel: its commonest distance (the shortest of those), how often it comes, and how many distances there
    are."""
    order = np.lexsort((step, channel))
    channel, step = channel[order], step[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(channel) != 0) | (np.diff(step) != 0)])
    times = np.diff(np.r_[starts, channel.size])
    of, length = channel[starts], step[starts]
    best = np.lexsort((length, -times, of))
    first = best[np.flatnonzero(np.r_[True, np.diff(of[best]) != 0])]
    own, most = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    own[of[first]], most[of[first]] = length[first], times[first]
    return own, most, np.bincount(channel, minlength=channels).astype(np.int64)


def _changed(step: I64, own: I64) -> npt.NDArray[np.bool_]:
    """Rows behind four equal distances in a row that are not their channel's: a length that changed, not gaps."""
    odd = (step > 0) & (step != own)
    starts = np.r_[True, ~((step[1:] == step[:-1]) & odd[1:] & odd[:-1])]
    run = np.cumsum(starts) - 1
    return np.asarray(odd & (np.bincount(run)[run] >= _SHOWN), np.bool_)


def _unclear(own: int, among: int) -> str:
    if not among:
        return "a channel with one read shows no interval length: declare interval_minutes, or the column that says it"
    return (
        f"{among + 1} reads of the channel, most of them {own / MINUTE_US:g} minutes apart, show no interval length: "
        "declare interval_minutes, or the column that says it"
    )
