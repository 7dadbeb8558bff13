"""Runs all detectors on one window of days, or on all points in parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.anomalies import communication, signatures
from meter_pipeline.anomalies.flow import flow_flags
from meter_pipeline.anomalies.residuals import residual_flags
from meter_pipeline.anomalies.thresholds import DEFAULT, Thresholds
from meter_pipeline.anomalies.window import Window, findings

#: Points judged at once: eight weeks of them are 7 MB a matrix, and a city of a million needs no more memory than its
# packed weeks.
PART: Final = 16_384
#: More points than this, and more than one in a hundred, do not break alone: the fault is the program's.
_MOST_BROKEN: Final = 10


@dataclass(frozen=True, slots=True)
class WindowFindings:
    """Findings of one window (``found``), and the data of those that need all other points. ``broken``: the error of
    a point whose detector failed."""

    found: pl.DataFrame
    beside: signatures.NeighbourChecks
    contact: communication.Contact
    broken: Exception | None = None

    @property
    def points(self) -> int:
        return int(self.beside.change.size)


def detect(window: Window) -> pl.DataFrame:
    """Returns every finding about the window's last day (a frame of FINDINGS), sorted by row and kind.

    A spike explained by a burst or a leak is flagged one time, and so is a register that decreased because the meter
    ran backward. Where the day has no temperature, expectations are NaN and the detectors that use them give no
    findings.
    """
    return conclude([examine(window, DEFAULT)], window.head_ends, window.collectors, DEFAULT)


def detect_in_parts(
    window: Callable[[slice], Window],
    points: int,
    head_ends: list[str],
    collectors: list[str],
    limits: Thresholds = DEFAULT,
    *,
    part: int = PART,
    threads: int | None = None,
) -> pl.DataFrame:
    """As ``detect``, for windows that are made, examined and released ``part`` points at a time. The findings do not
    depend on ``part`` and ``threads``."""
    parts = [slice(start, min(start + part, points)) for start in range(0, points, part)]
    with ThreadPoolExecutor(max_workers=min(threads or min(os.cpu_count() or 1, 4), len(parts))) as pool:
        each = list(pool.map(lambda which: _examine_apart(window, which, limits), parts))
    examined = [part for found in each for part in found]
    broken = sum(1 for part in examined if part.broken)
    if broken > max(_MOST_BROKEN, points // 100):
        raise next(part.broken for part in examined if part.broken)
    return conclude(examined, head_ends, collectors, limits)


def _examine_apart(window: Callable[[slice], Window], which: slice, limits: Thresholds) -> list[WindowFindings]:
    """Examine a part of the points; where that fails, its halves, until the points whose data break a detector are
    alone. Such a point gets the finding that it was not checked; its neighbours are checked as if it had no data."""
    try:
        return [examine(window(which), limits)]
    except Exception as error:
        if not isinstance(error, ValueError | TypeError | ArithmeticError | LookupError | pl.exceptions.PolarsError):
            raise
        if which.stop - which.start == 1:
            return [_not_judged(window(which), error, limits)]
        middle = (which.start + which.stop) // 2
        halves = slice(which.start, middle), slice(middle, which.stop)
        return [part for half in halves for part in _examine_apart(window, half, limits)]


def _not_judged(window: Window, error: Exception, limits: Thresholds) -> WindowFindings:
    """Returns one point with the finding that it was not checked, and without weight for its neighbours."""
    blank: dict[str, Any] = {
        f.name: np.full_like(value, np.nan)
        for f in fields(Window)
        if isinstance(value := getattr(window, f.name), np.ndarray)
        and value.dtype.kind == "f"
        and f.name != "tolerance"
    }
    silent = examine(replace(window, **blank, _measured=None), limits)
    why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    nothing = np.array([np.nan])
    found = findings(
        "not_judged",
        np.zeros(1, np.int64),
        confidence=np.ones(1),
        expected=nothing,
        observed=nothing,
        evidence={"error": [why]},
    )
    return WindowFindings(found, silent.beside, silent.contact, error)


def examine(window: Window, limits: Thresholds = DEFAULT) -> WindowFindings:
    """Examine one part of the points; its window can be released afterwards."""
    own, beside = signatures.signature_flags(window, limits)
    found = pl.concat([residual_flags(window, limits), flow_flags(window, limits), own])
    return WindowFindings(found, beside, communication.contact(window))


def conclude(
    parts: Sequence[WindowFindings], head_ends: list[str], collectors: list[str], limits: Thresholds = DEFAULT
) -> pl.DataFrame:
    """Returns the findings of points examined in parts, whatever the parts. Rows count through the parts in their
    order."""
    starts = np.cumsum([0, *(part.points for part in parts[:-1])])
    own = [part.found.with_columns(pl.col("row") + int(start)) for part, start in zip(parts, starts, strict=True)]
    beside = signatures.joined([part.beside for part in parts])
    contact = communication.joined([part.contact for part in parts])
    found = pl.concat(
        [
            *own,
            signatures.neighbour_flags(beside, limits),
            communication.dropout_flags(contact, head_ends, collectors, limits),
        ]
    )
    water = found.filter(pl.col("kind").is_in(["burst", "leak", "leak_drift"])).select("row")
    found = pl.concat(
        [
            found.filter(pl.col("kind") != "spike"),
            found.filter(pl.col("kind") == "spike").join(water, on="row", how="anti"),
        ]
    )
    backward = found.filter(pl.col("kind") == "reverse")["row"].implode()
    found = found.filter(~((pl.col("kind") == "register_back") & pl.col("row").is_in(backward)))
    return found.sort("row", "group", "kind").with_columns(
        pl.when(pl.col(c).is_finite()).then(pl.col(c)).alias(c) for c in ("expected", "observed")
    )


def lowest_and_sustained(hourly: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest hour and the highest flow kept up for three hours of each row of (points, hours) flows; NaN
    where an hour is NaN."""
    lowest = hourly.min(axis=1)
    sustained = np.minimum(np.minimum(hourly[:, :-2], hourly[:, 1:-1]), hourly[:, 2:]).max(axis=1)
    return lowest, sustained
