"""Reads that did not come: one meter, one collector, or a head-end.

Belongs here: telling the three apart. Does not belong here: estimating what is missing (vee/).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import Bools, Floats, Ints, Window, certainty, findings

#: a meter is short of reads when more than this share of the day is missing
_SHORT = 0.02
#: days looked back on for what was due and what is usual
_BACK = 15


def dropout_flags(window: Window, limits: Thresholds = DEFAULT) -> pl.DataFrame:
    """dropout_head_end, dropout_collector and dropout_meter, the larger cause explaining the smaller.

    A group drops out when at least half of its members lack part of the day and that is five times its usual share. A meter drops out when
    it has sent nothing for two days in a row that no group explains.
    """
    recent = window.coverage[:, window.tail(_BACK)]
    due = np.isfinite(recent)
    short = due & (np.nan_to_num(recent, nan=1.0) < 1.0 - _SHORT)
    explained = np.zeros(short.shape, bool)
    frames = []
    for kind, codes, names in (
        ("dropout_head_end", window.head_end, window.head_ends),
        ("dropout_collector", window.collector, window.collectors),
    ):
        share, members = _share(short & ~explained, due & ~explained, codes, len(names))
        usual = np.median(share[:, :-1], axis=1, keepdims=True) if share.shape[1] > 1 else np.zeros((len(names), 1))
        out = (members >= limits.group_members) & (share >= limits.group_share) & (share >= 5 * usual)
        explained |= _members(out, codes)
        groups = np.flatnonzero(out[:, -1])
        sizes = members[groups, -1]
        frames.append(
            findings(
                kind, np.full(groups.size, -1, np.int64), groups=[names[g] for g in groups], confidence=share[groups, -1],
                expected=sizes.astype(np.float64), observed=np.round(share[groups, -1] * sizes),
                evidence={"members": sizes, "share_short": share[groups, -1], "usual_share": usual[groups, 0]},
            )
        )  # fmt: skip
    silent = due & (np.nan_to_num(recent, nan=1.0) <= 0.0) & ~explained
    run = silent[:, ::-1].cumprod(axis=1).sum(axis=1)
    # a meter that never spoke in the window is a matter of enrolment, not of communication
    with np.errstate(invalid="ignore"):
        spoke = (window.coverage > 0).any(axis=1)
    # a register read every few days is known by its usage on days that owed no read
    spoke |= (np.isnan(window.coverage) & np.isfinite(window.usage)).any(axis=1)
    rows = np.flatnonzero((run >= limits.dropout_days) & spoke & ~window.disconnected[:, -1])
    frames.append(
        findings(
            "dropout_meter", rows, confidence=certainty(run[rows].astype(np.float64), float(limits.dropout_days)),
            expected=window.expected[rows, -1], observed=np.full(rows.size, np.nan), evidence={"days_silent": run[rows]},
        )
    )  # fmt: skip
    return pl.concat(frames)


def _share(short: Bools, due: Bools, codes: Ints, groups: int) -> tuple[Floats, Ints]:
    """(groups, days) share of members short of reads, and members due."""
    share, members = np.zeros((groups, short.shape[1])), np.zeros((groups, short.shape[1]), np.int64)
    known = codes >= 0
    for day in range(short.shape[1]):
        n = np.bincount(codes[known & due[:, day]], minlength=groups)[:groups]
        k = np.bincount(codes[known & short[:, day]], minlength=groups)[:groups]
        members[:, day] = n
        share[:, day] = k / np.maximum(n, 1)
    return share, members


def _members(out: Bools, codes: Ints) -> Bools:
    """(points, days) whether the point's group is out on the day."""
    if out.shape[0] == 0:
        return np.zeros((codes.size, out.shape[1]), bool)
    found: Bools = out[np.maximum(codes, 0)] & (codes >= 0)[:, None]
    return found
