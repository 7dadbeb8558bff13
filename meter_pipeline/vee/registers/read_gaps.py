"""Why a register was not read for longer than its habit: lost messages, its head-end, or the meter itself."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from meter_pipeline.vee.registers.reads import Series
from meter_pipeline.vee.rules.model import Ints
from meter_pipeline.vee.rules.thresholds import Thresholds


class Gap(IntEnum):
    """Why a register was silent for longer than its habit. NONE: it was not."""

    NONE = 0
    LOST_MESSAGES = 1
    HEAD_END = 2
    IRREGULAR = 3
    LONG_SILENCE = 4
    CLOCK_CHANGE = 5


GAP_ABOUT: Final = {
    Gap.NONE: "no gap",
    Gap.LOST_MESSAGES: "whole radio messages lost: one read distance and a multiple of the reads a message carries",
    Gap.HEAD_END: "many meters of the head-end silent at once",
    Gap.IRREGULAR: "the meter read late or skipped",
    Gap.LONG_SILENCE: "a day or more without a read",
    Gap.CLOCK_CHANGE: "no gap: the local clock went forward between two reads that are as far apart as ever",
}


def read_habit(reads: Series) -> Ints:
    """Usual distance between reads of each series, in seconds (median; 0 for fewer than three reads)."""
    starts = reads.starts
    distances = np.diff(reads.at)
    number = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    within = number[1:] == number[:-1]
    # all distances sorted within their series: the middle ones of a series stand at known places
    counts = np.maximum(np.diff(starts) - 1, 0)
    ordered = distances[within][np.lexsort((distances[within], number[1:][within]))]
    first = np.cumsum(counts) - counts
    enough = np.flatnonzero(counts >= 2)
    habit = np.zeros(counts.size, np.int64)
    habit[enough] = (
        ordered[first[enough] + (counts[enough] - 1) // 2] + ordered[first[enough] + counts[enough] // 2]
    ) // 2
    return habit


def _message_size(over: Ints, most: int) -> int:
    """How many reads one radio message of a fleet carries, from its gaps counted in read distances beyond the first.

    The n (2 to ``most``) that divides clearly more of the gaps than chance would; 1 where none does.
    """
    best, best_gain = 1, 0.25
    if over.size < 20:
        return best
    for n in range(2, most + 1):
        gain = float((over % n == 0).mean()) - 1.0 / n
        if gain > best_gain + 1e-9:
            best, best_gain = n, gain
    return best


def gaps(
    reads: Series, head_end: Ints, thresholds: Thresholds, utc_offset: Ints | None = None
) -> tuple[npt.NDArray[np.int8], Ints]:
    """Why each read came late: (cause, distance in seconds) per read; Gap.NONE within the habit.

    ``utc_offset``: seconds by which local time leads UTC at each read; with it, a distance that is long on the wall
    clock only is reported as a clock change.

    ``head_end`` numbers each series' head-end. A gap is a distance of more than ``gap_factor`` times the habit. It is
    the head-end's when the same hour saw a share of its meters fall silent together; lost messages when its length in
    read distances is one and a whole number of messages; a long silence from a day on; else irregular.
    """
    n = reads.series.size
    cause, distance = np.zeros(n, np.int8), np.zeros(n, np.int64)
    if n < 2:
        return cause, distance
    starts = reads.starts
    inside = np.ones(n, np.bool_)
    inside[starts[:-1]] = False
    distance[1:] = np.where(inside[1:], np.diff(reads.at), 0)
    number = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    habit = read_habit(reads)[number]
    late = inside & (habit > 0) & (distance > habit * thresholds.gap_factor)
    if utc_offset is not None:
        wall = distance.copy()
        wall[1:] += np.where(inside[1:], np.diff(utc_offset), 0)
        cause[inside & ~late & (habit > 0) & (wall > habit * thresholds.gap_factor)] = Gap.CLOCK_CHANGE
    index = np.flatnonzero(late)
    if not index.size:
        return cause, distance
    cause[index] = Gap.IRREGULAR
    spans = np.rint(distance[index] / habit[index]).astype(np.int64)
    whole = np.abs(distance[index] - spans * habit[index]) <= habit[index] // 4
    fleets = head_end[number[index]]
    for fleet in np.unique(fleets):
        mine = fleets == fleet
        n_reads = _message_size((spans - 1)[mine & whole], thresholds.batch_reads_max)
        if n_reads > 1:
            cause[index[mine & whole & ((spans - 1) % n_reads == 0)]] = Gap.LOST_MESSAGES
    long = distance[index] >= 86_400
    cause[index[long & (cause[index] == Gap.IRREGULAR)]] = Gap.LONG_SILENCE
    # silent together: share of the head-end's series whose gap covers the same hour
    begin = (reads.at[index] - distance[index]) // 3600
    end = reads.at[index] // 3600
    origin = int(begin.min())
    for fleet in np.unique(fleets):
        mine = np.flatnonzero(fleets == fleet)
        members = int((head_end == fleet).sum())
        if members < 4:
            continue
        change = np.zeros(int(end[mine].max()) - origin + 2, np.int64)
        np.add.at(change, begin[mine] - origin + 1, 1)
        np.add.at(change, end[mine] - origin, -1)
        silent = np.cumsum(change)
        broad = np.concatenate([[0], np.cumsum(silent >= max(3, thresholds.outage_share * members))])
        touched = broad[np.maximum(end[mine] - origin, 0)] - broad[begin[mine] - origin + 1] > 0
        cause[index[mine[touched]]] = Gap.HEAD_END
    return cause, distance
