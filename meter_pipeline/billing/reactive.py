"""Reactive energy in a day's determinants: kVA and kVAr demand, and kVArh, in a tariff's registers.

kVA is the root of kW squared and kVAr squared of the same window. Figures are exact: squares in whole numbers, one
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from math import isqrt
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, exceptions
from meter_pipeline.billing.tariffs.model import REACTIVE_MEASURES, Tariff
from meter_pipeline.calendar import local_clock
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

Numbers = npt.NDArray[np.int64]
#: Unit of the channels that count reactive energy, and their flows that are billed: reactive energy delivered with the
#: load.
REACTIVE_UNIT: Final = "kVArh"
REACTIVE_FLOWS: Final = ("import", "other")
#: Squares of two numbers below this fit a machine word together.
_SQUARES: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class ReactiveDay:
    """One tariff's services on a day. ``points``: their service points in the order of the rows of ``peaks`` and
    ``peak_slots`` (n, registers), which are written; ``interval_minutes`` (n,): in which peak slots count."""

    tariff: Tariff
    points: pl.Series
    peaks: Numbers
    peak_slots: npt.NDArray[np.int16]
    interval_minutes: npt.NDArray[np.int16]
    day: date
    zone: str
    holiday: bool


@dataclass(frozen=True, slots=True)
class _Channel:
    """Usage of some services by interval length: minutes -> rows (m,), values (m, slots), missing values (m,)."""

    by_minutes: dict[int, tuple[Numbers, Numbers, Numbers]]

    @classmethod
    def of(cls, matrices: Sequence[DayMatrix], row_of: pl.DataFrame, chosen: pl.Expr) -> _Channel:
        found: dict[int, tuple[Numbers, Numbers, Numbers]] = {}
        for matrix in matrices:
            picked = (
                matrix.keys.with_row_index("at").filter(chosen).join(row_of, on="service_point_id").sort("row", "at")
            )
            if not picked.height:
                continue
            rows = picked["row"].to_numpy()
            raw = matrix.values[picked["at"].to_numpy()]
            absent = raw == NO_VALUE
            starts = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
            values = np.add.reduceat(np.where(absent, 0, raw), starts, axis=0)
            missing = np.add.reduceat(absent.sum(axis=1), starts)
            found[matrix.interval_minutes] = (rows[starts], values, missing)
        return cls(found)

    def minutes_of(self, n: int) -> list[list[int]]:
        """The interval lengths in which each of n services has values."""
        parts: list[list[int]] = [[] for _ in range(n)]
        for minutes, (rows, _, _) in sorted(self.by_minutes.items()):
            for row in rows.tolist():
                parts[row].append(minutes)
        return parts


def fill_reactive(of: ReactiveDay, usage: Sequence[DayMatrix], reactive: Sequence[DayMatrix]) -> pl.DataFrame:
    """Writes the registers of ``of.tariff`` that count reactive energy. Returns exceptions: services without reactive
    intervals, with missing ones, or with intervals that do not make the tariff's window."""
    n = len(of.points)
    row_of = pl.DataFrame({"service_point_id": of.points, "row": np.arange(n, dtype=np.int64)})
    flow = pl.col("flow")
    active = _Channel.of(usage, row_of, (flow == "import") & (pl.col("unit") == of.tariff.unit))
    given = _Channel.of(reactive, row_of, flow.is_in(REACTIVE_FLOWS) & (pl.col("unit") == REACTIVE_UNIT))
    faults: dict[int, tuple[str, str]] = {}
    active_minutes, given_minutes = active.minutes_of(n), given.minutes_of(n)
    batches: dict[tuple[int, int], list[int]] = {}
    for row in range(n):
        if not given_minutes[row]:
            faults[row] = ("needs_reactive", f"{of.tariff.tariff_id}: no {REACTIVE_UNIT} intervals")
        elif len(given_minutes[row]) > 1 or len(active_minutes[row]) > 1:
            faults[row] = ("demand_interval", "intervals of several lengths beside reactive ones")
        else:
            batches.setdefault(((active_minutes[row] or given_minutes[row])[0], given_minutes[row][0]), []).append(row)
    for (used, sent), rows in sorted(batches.items()):
        window = of.tariff.demand_minutes or max(used, sent)
        if window % used or window % sent:
            detail = f"{window} minutes from {used}-minute kWh and {sent}-minute {REACTIVE_UNIT} intervals"
            faults |= dict.fromkeys(rows, ("demand_interval", detail))
            continue
        at = np.array(rows, np.int64)
        values, missing = _chosen(given.by_minutes[sent], at)
        for row, count in zip(rows, missing.tolist(), strict=True):
            if count:
                faults[row] = ("needs_reactive", f"{count} of {values.shape[1]} {REACTIVE_UNIT} intervals missing")
        kwh = _chosen(active.by_minutes[used], at)[0] if used in active.by_minutes else np.zeros_like(values)
        _registers(of, at, _windows(kwh, window // used), _windows(values, window // sent), window)
    parts = [exceptions(pl.DataFrame({"service_point_id": of.points[[row]]}), *why) for row, why in faults.items()]
    return pl.concat([p.cast(EXCEPTION_SCHEMA) for p in parts]) if parts else pl.DataFrame(schema=EXCEPTION_SCHEMA)


def _chosen(numbers: tuple[Numbers, Numbers, Numbers], rows: Numbers) -> tuple[Numbers, Numbers]:
    """Values and missing counts of some rows; zeros for one that has none."""
    have, values, missing = numbers
    at = np.searchsorted(have, rows)
    at = np.minimum(at, len(have) - 1)
    there = have[at] == rows
    return np.where(there[:, None], values[at], 0), np.where(there, missing[at], 0)


def _windows(values: Numbers, count: int) -> Numbers:
    return values if count == 1 else np.add.reduceat(values, np.arange(0, values.shape[1], count), axis=1)


def _registers(of: ReactiveDay, rows: Numbers, kwh: Numbers, kvarh: Numbers, window: int) -> None:
    clock = local_clock(of.zone, of.day, window)
    used, sent = kwh[:, : len(clock)], kvarh[:, : len(clock)]
    wide = max(int(np.abs(used).max(initial=0)), int(np.abs(sent).max(initial=0))) >= _SQUARES
    a, b = (used.astype(object), sent.astype(object)) if wide else (used, sent)
    squares = a * a + b * b
    for r, register in enumerate(of.tariff.registers):
        if register.measure not in REACTIVE_MEASURES:
            continue
        of_register = np.array([k for k, moment in enumerate(clock) if register.holds(moment, of.holiday)], np.int64)
        if not len(of_register):
            continue
        if register.measure == "kvarh":
            of.peaks[rows, r] = sent[:, of_register].sum(axis=1)
            continue
        inside = squares[:, of_register] if register.measure == "kva" else sent[:, of_register]
        best = np.asarray(inside.argmax(axis=1))
        top = inside[np.arange(len(rows)), best].tolist()
        apparent = register.measure == "kva"
        figures = [
            _root(int(t) * 3600, window * window) if apparent else _half_even(max(int(t), 0) * 60, window) for t in top
        ]
        of.peaks[rows, r] = figures
        step = np.maximum(of.interval_minutes[rows].astype(np.int64), 1)
        slots = of_register[best] * window // step
        of.peak_slots[rows, r] = np.where(np.array(figures) > 0, slots, -1).astype(np.int16)


def _root(numerator: int, denominator: int) -> int:
    """The root of a fraction, rounded to the nearest whole number, a half up."""
    return (isqrt(4 * numerator // denominator) + 1) // 2


def _half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))
