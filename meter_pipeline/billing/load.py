"""A customer's load from a CSV file: interval starts and quantities, laid out by local day.

Stamps with an offset are converted to a zone where one is given; stamps without one are local wall-clock times.
Quantities are net: negative ones are exports. A second column may hold exports of their own, and kvarh reactive energy.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.units import base_unit

#: Quantities of a load are kept to a billionth of the unit: spreadsheets and programs write 601.1999999999999 for
#: 601.2.
LOAD_SCALE: Final = 10**9
_DAY: Final = 1440
#: Columns that hold the quantity, and that hold exports apart.
_QUANTITIES: Final = ("kwh", "m3", "gal", "kgal", "ccf", "ft3", "cf", "therm", "mj")
_EXPORTS: Final = ("export_kwh", "export")
_REACTIVE: Final = "kvarh"


class LoadRefusedError(ValueError):
    """A load that can't be read; the message names line and column."""


@dataclass(frozen=True, slots=True)
class LoadDay:
    """A local day's usage and exports, a value a slot, in 1/LOAD_SCALE of the load's unit; ``reactive``: kVArh, where
    the load has them."""

    day: date
    imports: npt.NDArray[np.int64]
    exports: npt.NDArray[np.int64]
    reactive: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Days in order, their interval in minutes (1440: a total a day), the base unit and the zone of the days;
    ``missing``: how many intervals between the first and the last were not given, and count as no use."""

    days: tuple[LoadDay, ...]
    interval_minutes: int
    unit: str
    zone: str
    missing: int = 0

    @property
    def exports(self) -> bool:
        """Whether anything was exported."""
        return any(day.exports.any() for day in self.days)


@dataclass(frozen=True, slots=True)
class _Row:
    instant: datetime
    wall: datetime
    imported: int
    exported: int
    reactive: int | None = None


def _stamp(text: str, zone: ZoneInfo | None, line: int) -> datetime:
    """A sortable instant. Wall-clock times without a zone to put them in are read as UTC, whose days all have
    24 hours.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise LoadRefusedError(f"load.interval_start: line {line}: {text[:40]!r} is not an ISO time") from error
    if moment.tzinfo is None:
        placed = moment.replace(tzinfo=zone or UTC)
        before, after = placed.utcoffset(), placed.replace(fold=1).utcoffset()
        if before is not None and after is not None and before < after:
            raise LoadRefusedError(
                f"load.interval_start: line {line}: clocks in {zone} skip {text[:40]}; write stamps with their offset"
            )
        return placed
    return moment if zone is not None else moment.replace(tzinfo=UTC)


def _quantity(text: str, column: str, factor: Decimal, line: int) -> int:
    try:
        value = Decimal(text.strip()) if text.isascii() and "_" not in text else None
    except ArithmeticError:
        value = None
    if value is None or not value.is_finite() or abs(value) > 10**9:
        raise LoadRefusedError(f"load.{column}: line {line}: {text[:40]!r} is not a number of {column}")
    return int((value * factor * LOAD_SCALE).quantize(Decimal(1), ROUND_HALF_EVEN))


def read_load(lines: Iterable[str], zone: str | None = None) -> Load:
    """A load from CSV lines with columns interval_start and kwh (or another unit), in any order of rows.

    Raises LoadRefusedError.
    """
    rows = csv.DictReader(lines)
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    column = next((c for c in _QUANTITIES if c in names), None)
    if "interval_start" not in names or column is None:
        raise LoadRefusedError("load: needs the columns interval_start and kwh (or m3, gal, kgal, ccf, ft3, therm, MJ)")
    apart = next((c for c in _EXPORTS if c in names), None)
    reactive = names.get(_REACTIVE)
    unit, ratio = base_unit(column)
    factor = Decimal(ratio.numerator) / Decimal(ratio.denominator)
    info = ZoneInfo(zone) if zone else None
    read: list[_Row] = []
    for line, row in enumerate(rows, start=2):
        moment = _stamp(row[names["interval_start"]] or "", info, line)
        amount = _quantity(row[names[column]] or "", column, factor, line)
        sent = _quantity(row[names[apart]] or "0", apart, factor, line) if apart else 0
        if apart and min(amount, sent) < 0:
            raise LoadRefusedError(f"load.{column}: line {line}: is negative beside a column of exports")
        wall = moment.astimezone(info).replace(tzinfo=None) if info else moment.replace(tzinfo=None)
        turned = _quantity(row[reactive] or "", _REACTIVE, Decimal(1), line) if reactive is not None else None
        read.append(_Row(moment.astimezone(UTC), wall, max(amount, 0), sent + max(-amount, 0), turned))
    if len(read) < 2:
        raise LoadRefusedError("load: needs at least two intervals to tell their length")
    read.sort(key=lambda r: r.instant)
    read = _second_hours(read, info)
    return _by_day(read, _interval(read), unit, zone or "UTC")


def _second_hours(read: list[_Row], zone: ZoneInfo | None) -> list[_Row]:
    """Rows of an hour that a wall clock without offsets shows twice, the second of each moved to the second hour."""
    found: list[_Row] = []
    for row in read:
        if found and found[-1].instant == row.instant:
            later = row.wall.replace(tzinfo=zone, fold=1).astimezone(UTC) if zone is not None else row.instant
            if later == row.instant:
                raise LoadRefusedError(f"load.interval_start: {row.wall.isoformat()} comes twice")
            row = _Row(later, row.wall, row.imported, row.exported, row.reactive)
        found.append(row)
    return sorted(found, key=lambda r: r.instant)


def _interval(read: list[_Row]) -> int:
    """Minutes of the shortest step."""
    steps = [b.instant - a.instant for a, b in pairwise(read)]
    shortest = min((s for s in steps if s > timedelta(0)), default=timedelta(hours=1))
    minutes = shortest // timedelta(minutes=1)
    if timedelta(hours=23) <= shortest <= timedelta(hours=25):
        return _DAY
    if shortest != timedelta(minutes=minutes) or not 1 <= minutes <= 60 or 60 % minutes:
        raise LoadRefusedError(
            f"load.interval_start: intervals of {shortest} are neither days nor 1 to 60 minutes that divide an hour"
        )
    return int(minutes)


def _by_day(read: list[_Row], minutes: int, unit: str, zone: str) -> Load:
    calendar = BillingCalendar(zone)
    days: dict[date, LoadDay] = {}
    for row in read:
        day = row.wall.date()
        if day not in days:
            slots = calendar.slots(day, minutes)
            turned = None if row.reactive is None else np.zeros(slots, np.int64)
            days[day] = LoadDay(day, np.zeros(slots, np.int64), np.zeros(slots, np.int64), turned)
        seconds = int(row.instant.timestamp()) - calendar.start_s(day)
        slot = 0 if minutes == _DAY else seconds // (60 * minutes)
        values = days[day]
        values.imports[slot] += row.imported
        values.exports[slot] += row.exported
        if values.reactive is not None:
            values.reactive[slot] += row.reactive or 0
    first, last = read[0], read[-1]
    days_apart = (last.wall.date() - first.wall.date()).days
    steps = days_apart if minutes == _DAY else (last.instant - first.instant) // timedelta(minutes=minutes)
    missing = steps + 1 - len(read)
    return Load(tuple(days[d] for d in sorted(days)), minutes, unit, zone, missing)


def load_file(path: Path, zone: str | None = None) -> Load:
    """As read_load, from a file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return read_load(file, zone)
