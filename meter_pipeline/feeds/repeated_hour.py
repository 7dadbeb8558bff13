"""The local hour that comes twice when clocks go back: which pass a row is of, by the order of the file.

A local time that occurs twice is settled per meter and channel: where the local times of the repeated hour run through
twice, the first pass is before the clocks went back, the second after (in a file that runs backwards, the other way
round). A read repeated on the next line stays in its pass. Where the times run through once, or three times, it cannot
be determined.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.times import zone_rules

I64 = npt.NDArray[np.int64]


def runs_backwards(key: I64, instants: I64) -> bool:
    """Whether a file lists each channel from late to early. The first 100,000 pairs of rows decide."""
    sample_key, sample = key[:100_000], instants[:100_000]
    order = np.argsort(sample_key, kind="stable")
    steps = np.diff(sample[order])[np.diff(sample_key[order]) == 0]
    return bool((steps < 0).sum() > (steps > 0).sum())


def second_passes(
    key: I64, first: I64, zone: str, backwards: bool
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of rows in a repeated hour (in file order): which belong to its second pass in time, and which are settled at
    all."""
    window = np.searchsorted(zone_rules(zone).transitions, np.floor_divide(first, 1_000_000), side="right")
    order = np.lexsort((np.arange(key.size), window, key))
    ordered_key, ordered_window, ordered = key[order], window[order], first[order]
    starts = np.ones(key.size, np.bool_)
    starts[1:] = (ordered_key[1:] != ordered_key[:-1]) | (ordered_window[1:] != ordered_window[:-1])
    group = np.cumsum(starts) - 1
    step = np.zeros(key.size, np.int64)
    step[1:] = ordered[1:] - ordered[:-1]
    step[starts] = 0
    # Equal neighbours are one read sent twice, except where the hour holds a single stamp, twice: then they are its two
    # passes.
    same = np.zeros(key.size, np.bool_)
    same[1:] = ~starts[1:] & (step[1:] == 0)
    size = np.bincount(group)
    pair = (size == 2) & (np.bincount(group, weights=same) == 1)
    turns = ((step > 0) if backwards else (step < 0)) | (same & pair[group])
    running = np.cumsum(turns)
    within = running - running[starts][group]
    total = np.bincount(group, weights=turns).astype(np.int64)
    later = (within == 0) if backwards else (within == 1)
    settled = total[group] == 1
    later_rows = np.zeros(key.size, np.bool_)
    settled_rows = np.zeros(key.size, np.bool_)
    later_rows[order] = later & settled
    settled_rows[order] = settled
    return later_rows, settled_rows
