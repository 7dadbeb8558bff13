"""Specification of a simulation: the size of the city, its days, its seed, and who sends which format."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Final, NamedTuple

from meter_pipeline.calendar import BillingCalendar

#: letter of a commodity's meters and service points
LETTER: Final = {"electricity": "E", "water": "W", "gas": "G"}
#: unit of the interval and register channels in the feeds, and micro base units per quantum (one count of the last
# decimal shown)
UNIT: Final = {"electricity": "kWh", "water": "gal", "gas": "ft3"}
MICRO_PER_QUANTUM: Final = {"electricity": 1_000, "water": 100_000, "gas": 100_000}
DECIMALS: Final = {"electricity": 3, "water": 1, "gas": 1}
#: a replacement meter carries its predecessor's number plus this
EXCHANGED: Final = 5_000_000
#: share of a commodity's meters per head-end: (name, format, share); the first takes what others leave or what
# --formats leaves out
SHARES: Final[dict[str, tuple[tuple[str, str, float], ...]]] = {
    "electricity": (
        ("AMI", "delimited", 0.70),
        ("MESH", "jsonl", 0.12),
        ("MDP", "nem12", 0.10),
        ("CMEP", "cmep", 0.08),
    ),
    "water": (("WATER", "delimited", 1.0),),
    "gas": (("GAS", "delimited", 0.85), ("AMR", "register", 0.15)),
}
#: head-end of the daily register reads
REGISTER_HEAD_END: Final = {"electricity": "REG-E", "water": "REG-W", "gas": "REG-G"}
#: The network's services by the unit belong to accounts up to the 71st of electricity
_NETWORK_METERS: Final = 130
ALL_FORMATS: Final = ("delimited", "jsonl", "nem12", "cmep", "register")


class Segment(NamedTuple):
    """A head-end's meters: a contiguous range of a commodity's index, first included, last not."""

    commodity: str
    head_end: str
    file_format: str
    first: int
    last: int
    interval_minutes: int

    @property
    def meters(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Spec:
    """A city and a stretch of its life.

    ``meters`` counts metered service points. ``mix`` is ``city`` (55 % electricity, 25 % water, 20 % gas) or
    ``electricity``. ``interval_minutes`` is that of electricity; water and gas are hourly. ``defects`` False gives a
    clean city: weather, solar and daylight saving, and nothing else. ``intensity`` scales how many defects are planted.
    ``history_days`` is weather before ``start``. ``taken_over`` is a billing cycle whose accounts come over from
    another system on the first day, after its final bills: their first bills here are prorated from that day.
    ``network`` adds zones with supply meters, services billed by the unit and the month's rules (network.py). Raises
    ValueError for a size, interval or zone that cannot be simulated.
    """

    meters: int
    days: int
    interval_minutes: int = 15
    start: date = date(2026, 10, 29)
    seed: int = 1
    zone: str = "America/Chicago"
    defects: bool = True
    mix: str = "city"
    formats: tuple[str, ...] = ALL_FORMATS
    registers: bool = True
    intensity: float = 1.0
    history_days: int = 400
    meters_per_file: int = 25_000
    taken_over: str = ""
    network: bool = False
    name: str = field(default="Cedar Fork Municipal Utilities")

    def __post_init__(self) -> None:
        if not 1 <= self.meters < EXCHANGED:
            raise ValueError(f"meters must be 1 to {EXCHANGED - 1:,}")
        if not 1 <= self.days <= 3660:
            raise ValueError("days must be 1 to 3660")
        if self.interval_minutes not in (5, 10, 15, 30, 60):
            raise ValueError("interval must be 5, 10, 15, 30 or 60 minutes")
        if self.mix not in ("city", "electricity"):
            raise ValueError("mix must be city or electricity")
        unknown = sorted(set(self.formats) - set(ALL_FORMATS))
        if unknown or "delimited" not in self.formats:
            raise ValueError(f"formats must be of {', '.join(ALL_FORMATS)} and hold delimited")
        if self.network and (self.mix != "city" or self.meters < _NETWORK_METERS):
            raise ValueError(f"a network needs a city of at least {_NETWORK_METERS} meters")
        if self.meters_per_file < 1:
            raise ValueError("meters per file must be positive")
        BillingCalendar(self.zone)

    @cached_property
    def calendar(self) -> BillingCalendar:
        return BillingCalendar(self.zone)

    @property
    def end(self) -> date:
        """The day after the last."""
        return self.start + timedelta(days=self.days)

    def day(self, index: int) -> date:
        return self.start + timedelta(days=index)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Service points per commodity."""
        if self.mix == "electricity" or self.meters < 4:
            return {"electricity": self.meters, "water": 0, "gas": 0}
        water, gas = self.meters * 25 // 100, self.meters * 20 // 100
        return {"electricity": self.meters - water - gas, "water": water, "gas": gas}

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The head-ends with interval meters or register-only meters, in the order of their meters."""
        found: list[Segment] = []
        for commodity, count in self.counts.items():
            interval = self.interval_minutes if commodity == "electricity" else 60
            first_name, first_format, _ = SHARES[commodity][0]
            others = [(n, f, int(count * share)) for n, f, share in SHARES[commodity][1:] if f in self.formats]
            edge = count - sum(size for _, _, size in others)
            found.append(Segment(commodity, first_name, first_format, 0, edge, interval))
            for name, file_format, size in others:
                found.append(Segment(commodity, name, file_format, edge, edge + size, interval))
                edge += size
        return tuple(s for s in found if s.meters)


def meter_id(commodity: str, index: int, *, exchanged: bool = False) -> str:
    """The meter that stands at a service point at first, or the one that replaces it."""
    return f"{LETTER[commodity]}{index + (EXCHANGED if exchanged else 0):07d}"


def service_point_id(commodity: str, index: int) -> str:
    return f"SP-{LETTER[commodity]}{index:07d}"


#: The committed demo: a week around the end of daylight saving time, the 25 h day of 2026-11-01 in it. CYCLE-1 ends
# with October, so that its accounts, taken over on the first day, get their first statements within the week.
DEMO: Final = Spec(
    meters=200,
    days=7,
    interval_minutes=15,
    start=date(2026, 10, 29),
    seed=20261029,
    history_days=400,
    taken_over="CYCLE-1",
    network=True,
)
