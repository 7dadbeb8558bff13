"""Who lives here: the traits of every service point, drawn from the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meter_pipeline.simulator.randomness import draws, lognormal_table
from meter_pipeline.simulator.spec import Spec

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CLASSES = ("residential", "commercial", "industrial", "municipal")
#: cumulative share of each class in 65,536ths
_CLASS_EDGES = np.array([56_360, 62_914, 63_570, 65_536])
_TRAITS = 32
#: share of residential electricity accounts on the time-of-use tariff, in percent
TOU_PERCENT = 30


@dataclass(slots=True)
class Block:
    """Traits of the service points first .. first + n of one commodity, one array element each.

    Quantities are in quanta (Wh divided by the multiplier, 0.1 gal, 0.1 ft3): ``base`` per day, ``heat`` and ``cool``
    per degree-day Fahrenheit, ``solar`` the export system's output on a clear midsummer day (0: none), ``irrigation``
    per watering day.
    """

    commodity: str
    first: int
    customer_class: Ints
    base: Floats
    heat: Floats
    cool: Floats
    heat_balance_f: Floats
    cool_balance_f: Floats
    solar: Floats
    irrigation: Floats
    weekend: Floats
    noise: Floats
    profile: Ints
    multiplier: Ints
    dials: Ints
    start_dial: Ints
    station: Ints
    cycle: Ints
    time_of_use: npt.NDArray[np.bool_]
    installed_years: Ints

    @property
    def size(self) -> int:
        return len(self.base)


def _percent(column: npt.NDArray[np.uint16]) -> Ints:
    return column.astype(np.int64) * 100 >> 16


def _spread(column: npt.NDArray[np.uint16], low: float, high: float) -> Floats:
    return np.asarray(low + column * ((high - low) / 65536.0), np.float64)


def block(spec: Spec, commodity: str, first: int, last: int) -> Block:
    """The traits of service points first .. last (excluded) of a commodity."""
    u = draws(spec.seed, f"traits-{commodity}", 0, first, last - first, _TRAITS)
    n = last - first
    kind = np.searchsorted(_CLASS_EDGES, u[:, 0], side="right").astype(np.int64)
    residential, industrial = kind == 0, kind == 2
    size = lognormal_table(0.45)[u[:, 1]] / 1000.0
    ones, zeros = np.ones(n), np.zeros(n)
    multiplier = np.ones(n, np.int64)
    solar = irrigation = zeros
    profile = kind.copy()
    if commodity == "electricity":
        base = size * np.choose(kind, [11_000.0, 110_000.0, 2_400_000.0, 60_000.0])
        electric_heat = residential & (_percent(u[:, 2]) < 35)
        heat = np.where(electric_heat, _spread(u[:, 3], 500, 1400), base * _spread(u[:, 3], 0.0, 0.006))
        cool = np.where(_percent(u[:, 4]) < 78, base * _spread(u[:, 5], 0.03, 0.09), 0.0)
        solar = np.where(residential & (_percent(u[:, 6]) < 9), _spread(u[:, 7], 14_000, 42_000), 0.0)
        for segment in spec.segments:
            if segment.file_format == "cmep":  # its records do not tell export from import
                solar[max(segment.first - first, 0) : max(segment.last - first, 0)] = 0.0
        profile = np.where(electric_heat, 4, profile)
        current_transformer = industrial | ((kind == 1) & (_percent(u[:, 15]) < 30))
        multiplier = np.where(industrial, 80, np.where(current_transformer, 40, 1)).astype(np.int64)
        dials = np.full(n, 5, np.int64)
        base, heat, cool = base / multiplier, heat / multiplier, cool / multiplier
    elif commodity == "water":
        base = size * np.choose(kind, [1_700.0, 9_000.0, 120_000.0, 14_000.0])
        heat, cool = zeros, zeros
        irrigation = np.where(_percent(u[:, 14]) < 40, _spread(u[:, 3], 900, 3_200), 0.0)
        dials = np.full(n, 7, np.int64)
    else:
        base = size * np.choose(kind, [380.0, 2_600.0, 60_000.0, 3_000.0])
        heat = np.where(_percent(u[:, 2]) < 92, base * _spread(u[:, 3], 0.08, 0.24), 0.0)
        cool = zeros
        dials = np.full(n, 6, np.int64)
    decimals = 3 if commodity == "electricity" else 1
    modulus = 10 ** (dials + decimals)
    return Block(
        commodity=commodity,
        first=first,
        customer_class=kind,
        base=np.rint(base),
        heat=np.rint(heat),
        cool=np.rint(cool),
        heat_balance_f=np.rint(_spread(u[:, 8], 57, 66)),
        cool_balance_f=np.rint(_spread(u[:, 9], 66, 74)),
        solar=np.rint(solar),
        irrigation=np.rint(irrigation),
        weekend=np.choose(kind, [1.06 * ones, 0.55 * ones, 0.85 * ones, 0.60 * ones]),
        noise=_spread(u[:, 11], 0.05, 0.13),
        profile=profile,
        multiplier=multiplier,
        dials=dials,
        start_dial=(u[:, 13].astype(np.int64) << 16 | u[:, 12]) % (modulus * 8 // 10),
        station=(_percent(u[:, 18]) < 35).astype(np.int64),
        cycle=_percent(u[:, 19]) // 25,
        time_of_use=residential & (_percent(u[:, 17]) < TOU_PERCENT),
        installed_years=_percent(u[:, 20]) // 10,
    )
