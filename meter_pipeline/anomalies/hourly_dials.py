"""Hourly flows from dials: the usual feed of a water meter is its register read every hour, not intervals."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

#: Longest distance between two reads of an hourly dial: an hour and the minutes by which a radio's clock wanders
LONGEST_S: Final = 65 * 60
#: Instants fit in this many bits for 30,000 years
_BITS: Final = 40
#: An hour of which less is enclosed by reads takes the flow of the hour beside it
_LEAST_S: Final = 600


def hourly_flows(reads: pl.DataFrame, start_s: int, end_s: int) -> dict[str, tuple[pl.Series, Floats]]:
    """By unit: service points and their (points, hours) flows in whole units, of those whose dial was read hour by
    hour.

    ``reads``: service_point_id, unit, at (UTC seconds), value (micro units, the multiplier applied) of one dial a
    service point, sorted by service point and instant. A point is left out where two reads of the day, which runs from
    ``start_s`` to ``end_s``, are more than LONGEST_S apart, or where its dial went back: its lowest hour is unknown.
    """
    hours = -(-(end_s - start_s) // 3600)
    edges = np.minimum(start_s + 3600 * np.arange(hours + 1), end_s)
    found: dict[str, tuple[pl.Series, Floats]] = {}
    for (unit,), part in reads.group_by("unit", maintain_order=True):
        names, number = _numbered(part["service_point_id"])
        at, value = part["at"].to_numpy().astype(np.int64), part["value"].to_numpy().astype(np.int64)
        flows, whole = _flows(number, at, value, len(names), edges)
        found[str(unit)] = (names.filter(pl.Series(whole)), flows[whole])
    return found


def _numbered(ids: pl.Series) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """The distinct ids of a sorted column, and each row's place among them."""
    new = (ids != ids.shift(1)).fill_null(True)
    return ids.filter(new), new.cast(pl.Int64).cum_sum().to_numpy() - 1


def _flows(
    number: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    value: npt.NDArray[np.int64],
    points: int,
    edges: npt.NDArray[np.int64],
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(points, hours) flows an hour, and which points have one in every hour."""
    first = np.searchsorted(number, np.arange(points))
    last = np.append(first[1:], number.size) - 1
    # the day as far as reads enclose it: a dial read at 17 minutes past leaves the last minutes to the next day's first
    # read
    opens = np.maximum(edges[0], at[first])
    closes = np.minimum(edges[-1], at[last])
    inside = np.clip(edges[None, :], opens[:, None], closes[:, None])
    key = (number << _BITS) + at
    before = np.searchsorted(key, (np.arange(points)[:, None] << _BITS) + inside, "right") - 1
    before = np.clip(before, first[:, None], np.maximum(last[:, None] - 1, first[:, None]))
    after = np.minimum(before + 1, last[:, None])
    span = np.maximum(at[after] - at[before], 1)
    level = value[before] + (value[after] - value[before]) * ((inside - at[before]) / span)
    elapsed = np.diff(inside, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        flows = np.where(elapsed >= _LEAST_S, np.diff(level, axis=1) / np.maximum(elapsed, 1) * 3600 / 1e6, np.nan)
    # only the day's first and last hour can be enclosed in part
    for hour, beside in ((0, 1), (-1, -2)):
        empty = np.isnan(flows[:, hour])
        flows[empty, hour] = flows[empty, beside]
    within = (at > edges[0] - LONGEST_S) & (at < edges[-1] + LONGEST_S)
    distance = np.diff(at, prepend=at[:1])
    step = np.diff(value, prepend=value[:1])
    same = np.zeros(at.size, np.bool_)
    same[1:] = number[1:] == number[:-1]
    overlaps = same & (at > edges[0]) & (at - distance < edges[-1])
    bad = np.zeros(points, np.bool_)
    bad[number[overlaps & ((distance > LONGEST_S) | (step < 0))]] = True
    count = np.bincount(number[within], minlength=points)
    near = (at[first] - edges[0] <= LONGEST_S) & (edges[-1] - at[last] <= LONGEST_S)
    whole = ~bad & near & (count >= 20) & np.isfinite(flows).all(axis=1)
    return flows, whole
