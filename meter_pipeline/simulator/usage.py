"""Usage of a service point: a day's total from its traits and the weather, and its intervals from the total.

The total comes first and the intervals share it out by cumulative rounding, so their sum equals it exactly, a register
is a running sum of totals, and four hundred days of totals cost no intervals. All arithmetic is on integers or on
single IEEE operations.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from meter_pipeline.calendar import local_clock
from meter_pipeline.simulator.city import Block, Floats, Ints
from meter_pipeline.simulator.randomness import draws, exponential_table, normal_table
from meter_pipeline.simulator.spec import Spec
from meter_pipeline.simulator.weather import STATIONS, daily_temperatures, mean_fahrenheit

#: relative use by local hour (0 to 23) per profile: residential, commercial, industrial, municipal, electrically heated
_HOURS = {
    "electricity": (
        (34, 30, 28, 27, 28, 34, 52, 66, 58, 50, 47, 47, 48, 47, 48, 54, 66, 84, 98, 100, 92, 78, 60, 44),
        (30, 28, 28, 28, 30, 36, 50, 72, 90, 98, 100, 100, 98, 100, 100, 98, 94, 84, 66, 54, 46, 40, 36, 32),
        (78, 76, 76, 76, 80, 86, 94, 100, 100, 100, 100, 98, 96, 98, 100, 100, 96, 92, 90, 88, 86, 84, 82, 80),
        (70, 70, 70, 68, 66, 60, 54, 60, 76, 84, 86, 86, 84, 84, 84, 80, 70, 64, 72, 84, 90, 88, 80, 74),
        (70, 70, 72, 74, 78, 86, 98, 100, 88, 74, 64, 58, 54, 52, 52, 58, 70, 84, 94, 96, 90, 84, 78, 72),
    ),
    "water": (
        (3, 1, 1, 1, 3, 16, 70, 100, 80, 56, 46, 44, 46, 40, 36, 40, 54, 70, 82, 76, 60, 44, 26, 10),
        (6, 4, 4, 4, 6, 18, 46, 76, 92, 98, 100, 100, 98, 96, 94, 90, 80, 62, 46, 36, 28, 22, 14, 9),
        (76, 74, 74, 74, 78, 84, 92, 100, 100, 100, 100, 98, 96, 98, 100, 98, 94, 90, 88, 86, 84, 82, 80, 78),
        (10, 6, 6, 6, 8, 20, 40, 70, 92, 98, 100, 96, 92, 92, 90, 84, 70, 54, 40, 30, 24, 18, 14, 12),
    ),
    "gas": (
        (50, 48, 48, 52, 60, 78, 98, 100, 82, 66, 58, 54, 52, 50, 50, 56, 70, 86, 94, 90, 82, 72, 62, 54),
        (40, 40, 40, 44, 56, 74, 94, 100, 98, 92, 88, 86, 84, 84, 82, 80, 74, 64, 54, 48, 44, 42, 42, 40),
        (88, 88, 88, 88, 90, 94, 98, 100, 100, 100, 100, 98, 98, 98, 100, 98, 96, 94, 92, 92, 90, 90, 90, 88),
        (44, 44, 44, 48, 60, 78, 96, 100, 98, 94, 90, 88, 86, 86, 84, 80, 72, 60, 52, 48, 46, 46, 44, 44),
    ),
}
#: solar output by local hour, and by month in percent of June
_SUN = (0, 0, 0, 0, 0, 0, 4, 20, 44, 66, 84, 96, 100, 98, 88, 70, 48, 24, 6, 0, 0, 0, 0, 0)
_SUN_MONTH = (35, 48, 66, 82, 94, 100, 98, 88, 72, 54, 39, 32)
#: federal holidays by rule are in reference_tables.py; usage needs only the fixed ones
_FIXED_HOLIDAYS = {(1, 1), (7, 4), (11, 11), (12, 25)}


@lru_cache(maxsize=8)
def city_temperatures(seed: int, first: date, days: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Per station, (days, 2) minimum and maximum in tenths of a degree Celsius from ``first``."""
    return tuple(daily_temperatures(seed, station, first, days) for station in range(len(STATIONS)))


def fahrenheit(spec: Spec, day: date) -> Floats:
    """(stations,) mean temperature of a day in degrees Fahrenheit. The day may lie a day outside the simulated
    range.
    """
    first = spec.start - timedelta(days=spec.history_days)
    weather = city_temperatures(spec.seed, first, spec.history_days + spec.days + 2)
    index = (day - first).days
    return np.array([mean_fahrenheit(station)[index] for station in weather])


def day_totals(spec: Spec, traits: Block, day: date) -> tuple[Ints, Ints]:
    """Import and export of each service point on a day, in quanta: two (n,) int64 arrays, export zero without solar."""
    u = draws(spec.seed, f"day-{traits.commodity}", day.toordinal(), traits.first, traits.size, 8)
    temperature = fahrenheit(spec, day)[traits.station]
    free = day.weekday() >= 5 or (day.month, day.day) in _FIXED_HOLIDAYS
    use = traits.base * traits.weekend if free else traits.base.copy()
    use += traits.heat * np.maximum(traits.heat_balance_f - temperature, 0.0)
    use += traits.cool * np.maximum(temperature - traits.cool_balance_f, 0.0)
    noise = 1.0 + traits.noise * normal_table()[u[:, 0]] / 1000.0
    use *= np.maximum(noise, 0.2)
    if traits.commodity == "water":
        # Watering needs warmth and falls on alternate days, odd and even meters in turn.
        watering = (traits.first + np.arange(traits.size) + day.toordinal()) % 2 == 0
        warmth = np.clip((temperature - 58.0) / 25.0, 0.0, 1.5)
        use += np.where(watering, traits.irrigation * warmth, 0.0)
    hours = spec.calendar.seconds(day) / 3600.0
    use *= hours / 24.0
    export = np.zeros(traits.size)
    if traits.commodity == "electricity":
        sky = draws(spec.seed, "sky", day.toordinal(), 0, 1, 1)[0, 0] / 65536.0
        clear = 0.18 + 0.82 * sky
        output = traits.solar * (_SUN_MONTH[day.month - 1] / 100.0) * clear * (0.96 + 0.04 * u[:, 1] / 65536.0)
        used_at_home = np.minimum(use * 0.38, output * 0.6)
        use -= used_at_home
        export = output - used_at_home
    return np.rint(use).astype(np.int64), np.rint(export).astype(np.int64)


@lru_cache(maxsize=64)
def _hours_of(zone: str, day: date, interval_minutes: int) -> npt.NDArray[np.int64]:
    return np.array([clock.hour for clock in local_clock(zone, day, interval_minutes)], np.int64)


@lru_cache(maxsize=2)
def _appliances() -> npt.NDArray[np.float64]:
    """Weight of a draw: a floor and an exponential part, as appliances come and go."""
    return (350.0 + exponential_table(650)).astype(np.float64)


@lru_cache(maxsize=2)
def _taps() -> npt.NDArray[np.float64]:
    """Weight of a draw for water, where most hours of a night hold no draw-off at all."""
    return exponential_table(1000).astype(np.float64)


def import_weights(spec: Spec, traits: Block, day: date, interval_minutes: int) -> Floats:
    """(n, slots) float64 whole-numbered weights by which a day's import is shared out. Rows may be all zero (water)."""
    hours = _hours_of(spec.zone, day, interval_minutes)
    u = draws(
        spec.seed,
        f"slots-{traits.commodity}-{interval_minutes}",
        day.toordinal(),
        traits.first,
        traits.size,
        len(hours),
    )
    table = np.array(_HOURS[traits.commodity], np.float64)
    shape = table[:, hours][traits.profile]
    if traits.commodity == "water":
        # Homes and shops draw now and then; large users run through the night.
        weights = shape * _taps()[u]
        return np.where((weights < 9_000) & (traits.profile < 2)[:, None], 0.0, weights)
    weights = _appliances()[u]
    weights *= shape
    if traits.commodity == "electricity":
        rows = np.flatnonzero(traits.solar > 0)
        if rows.size:
            weights[rows] *= 100.0 - np.minimum(np.array(_SUN, np.float64)[hours], 92.0)
    return weights


def export_weights(spec: Spec, traits: Block, rows: Ints, day: date, interval_minutes: int) -> Floats:
    """(len(rows), slots) weights of solar export for those rows of the block."""
    hours = _hours_of(spec.zone, day, interval_minutes)
    sun = np.array(_SUN, np.float64)[hours]
    found = np.empty((len(rows), len(hours)))
    for k, row in enumerate(rows.tolist()):
        u = draws(spec.seed, f"clouds-{interval_minutes}", day.toordinal(), traits.first + row, 1, len(hours))
        found[k] = sun * (16_384.0 + u[0])
    return found


def share_out(totals: Ints, weights: Floats) -> Ints:
    """(n, slots) int64 intervals that sum to the totals exactly, in proportion to the weights (overwritten).

    A row without weight is shared out evenly. Negative totals (a meter running backward) work alike.
    """
    running = np.cumsum(weights, axis=1, out=weights)
    whole = running[:, -1].copy()
    empty = whole == 0
    if empty.any():
        running[empty] = np.arange(1, running.shape[1] + 1, dtype=np.float64)
        whole[empty] = running.shape[1]
    running *= totals[:, None].astype(np.float64)
    running /= whole[:, None]
    np.floor(running, out=running)
    edges = running.astype(np.int64)
    edges[:, -1] = totals  # the product may be beyond 2**53, where the division need not give the total back
    edges[:, 1:] -= edges[:, :-1].copy()
    return edges
