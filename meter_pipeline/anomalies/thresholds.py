"""Numbers a utility may want to change, in one place, with where each comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: Litres are exact; a US gallon is 3.785411784 L. Detection compares flows, it bills nothing.
_PER_GALLON: Final = {"gal": 1.0, "m3": 0.003785411784, "ft3": 0.13368055555555556}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Defaults; flows in US gallons per hour by customer class (residential, commercial, industrial, municipal).

    leak_flow: EyeOnWater and Badger default to 1 gal/h for homes, 20 to 40 for apartments; larger classes scale with
    their night use.
    """

    sigma: float = 3.0
    spike_sigma: float = 8.0
    spike_ratio: float = 3.0
    leak_flow: tuple[float, float, float, float] = (1.0, 2.0, 50.0, 5.0)
    #: days a meter that is known to pass water at all times must exceed its own floor
    leak_days_continuous: int = 3
    leak_history_days: int = 28
    #: a drifting leak is 30 % above its flow three days ago
    drift_rise: float = 1.3
    burst_flow: tuple[float, float, float, float] = (100.0, 150.0, 1000.0, 250.0)
    #: times the highest three-hour flow of the window before
    burst_ratio: float = 1.7
    #: a fall is looked for in the last three weeks, and takes thirteen judged days: longer than most holidays
    fall_days: int = 21
    fall_low_days: int = 13
    fall_ratio: float = 0.46
    #: below this share of the expectation a building is empty rather than by-passed
    empty_ratio: float = 0.065
    fall_sigma: float = 5.0
    #: a fall to half, of a meter that was steady for so many days: below this share of the level before, all but a
    #: fifth of the days, and so many times what the days scatter by
    half_ratio: float = 0.58
    half_exceptions: float = 0.2
    half_history_days: int = 21
    half_sigma: float = 8.0
    neighbours_ratio: float = 0.75
    stuck_days: dict[str, int] = field(default_factory=lambda: {"electricity": 3, "gas": 4, "water": 4})
    stuck_zero_share: float = 0.05
    stuck_sigma: float = 3.0
    #: smallest use that counts on a disconnected service, per day in the commodity's usual unit (kWh, gal, ft3)
    disconnected_use: dict[str, float] = field(default_factory=lambda: {"electricity": 0.5, "gas": 10.0, "water": 5.0})
    disconnected_days: int = 2
    dropout_days: int = 2
    group_share: float = 0.5
    group_members: int = 5
    outage_days: int = 3


DEFAULT: Final = Thresholds()


def per_gallon(unit: str) -> float:
    """How many of ``unit`` a US gallon is."""
    return _PER_GALLON.get(unit, 1.0)
