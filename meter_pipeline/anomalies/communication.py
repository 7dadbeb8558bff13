"""Reads that did not come: one meter, one collector, or a head-end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import Bools, Floats, Ints, Window, certainty, findings

#: a meter is short of reads when more than this share of the day is missing
_SHORT = 0.02
#: days looked back on for due reads and the usual share
_BACK = 15


@dataclass(frozen=True, slots=True)
class Contact:
    """(points, recent days) whether reads were ``due``, ``short`` of the day, and wholly ``silent``; (points,) the
    rest. What distinguishes dropouts: it is kept of a whole city while its windows come and go, since a collector's
    meters are not neighbours in any list."""

    due: Bools
    short: Bools
    silent: Bools
    may_be_lost: Bools
    expected: Floats
    head_end: Ints
    collector: Ints


def contact(window: Window) -> Contact:
    """The figures of a window by which dropouts are detected."""
    recent = window.coverage[:, window.tail(_BACK)]
    due = np.isfinite(recent)
    filled = np.where(due, recent, 1.0)
    # a meter that never spoke in the window is a matter of enrolment, not of communication
    with np.errstate(invalid="ignore"):
        spoke: Bools = np.asarray((window.coverage > 0).any(axis=1))
    # a register read every few days is known by its usage on days that owed no read
    quiet = np.flatnonzero(~spoke)
    spoke[quiet] = (np.isnan(window.coverage[quiet]) & np.isfinite(window.usage[quiet])).any(axis=1)
    return Contact(
        due,
        due & (filled < 1.0 - _SHORT),
        due & (filled <= 0.0),
        spoke & ~window.disconnected[:, -1],
        window.expected[:, -1],
        window.head_end,
        window.collector,
    )


def joined(parts: Sequence[Contact]) -> Contact:
    """Parts of a city one after the other."""
    return Contact(*(np.concatenate([getattr(part, name) for part in parts]) for name in Contact.__dataclass_fields__))


def dropout_flags(
    city: Contact, head_ends: list[str], collectors: list[str], limits: Thresholds = DEFAULT
) -> pl.DataFrame:
    """dropout_head_end, dropout_collector and dropout_meter, the larger cause explaining the smaller.

    A group drops out when at least half of its members lack part of the day and that is five times its usual share. A
    meter drops out when it has sent nothing for two days in a row that no group explains.
    """
    due, short = city.due, city.short
    explained = np.zeros(short.shape, bool)
    frames = []
    for kind, codes, names in (
        ("dropout_head_end", city.head_end, head_ends),
        ("dropout_collector", city.collector, collectors),
    ):
        if not names:
            continue
        share, members = _share(short & ~explained, due & ~explained, codes, len(names))
        usual = np.median(share[:, :-1], axis=1, keepdims=True) if share.shape[1] > 1 else np.zeros((len(names), 1))
        out = (members >= limits.group_members) & (share >= limits.group_share) & (share >= 5 * usual)
        if out.any():
            explained |= _members(out, codes)
        groups = np.flatnonzero(out[:, -1])
        sizes = members[groups, -1]
        frames.append(
            findings(
                kind,
                np.full(groups.size, -1, np.int64),
                groups=[names[g] for g in groups],
                confidence=share[groups, -1],
                expected=sizes.astype(np.float64),
                observed=np.round(share[groups, -1] * sizes),
                evidence={"members": sizes, "share_short": share[groups, -1], "usual_share": usual[groups, 0]},
            )
        )
    now = np.flatnonzero(city.silent[:, -1] & city.may_be_lost)
    run = (city.silent[now] & ~explained[now])[:, ::-1].cumprod(axis=1).sum(axis=1)
    rows, run = now[run >= limits.dropout_days], run[run >= limits.dropout_days]
    frames.append(
        findings(
            "dropout_meter",
            rows,
            confidence=certainty(run.astype(np.float64), float(limits.dropout_days)),
            expected=city.expected[rows],
            observed=np.full(rows.size, np.nan),
            evidence={"days_silent": run},
        )
    )
    return pl.concat(frames)


def _share(short: Bools, due: Bools, codes: Ints, groups: int) -> tuple[Floats, Ints]:
    """(groups, days) share of members short of reads, and members due."""
    share, members = np.zeros((groups, short.shape[1])), np.zeros((groups, short.shape[1]), np.int64)
    known = codes >= 0
    everyone = bool(known.all())
    for day in range(short.shape[1]):
        n = np.bincount(codes[due[:, day] if everyone else known & due[:, day]], minlength=groups)[:groups]
        k = np.bincount(codes[short[:, day] if everyone else known & short[:, day]], minlength=groups)[:groups]
        members[:, day] = n
        share[:, day] = k / np.maximum(n, 1)
    return share, members


def _members(out: Bools, codes: Ints) -> Bools:
    """(points, days) whether the point's group is out on the day."""
    if out.shape[0] == 0:
        return np.zeros((codes.size, out.shape[1]), bool)
    found: Bools = out[np.maximum(codes, 0)] & (codes >= 0)[:, None]
    return found
