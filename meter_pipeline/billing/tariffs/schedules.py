"""Time-of-use schedules: the period of a local moment, the possible periods of a day, and the days of each season in
a bill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class MatrixSchedule:
    """URDB's two 12 x 24 matrices of period indices (month, hour), weekdays and weekends."""

    periods: tuple[str, ...]
    weekday: tuple[tuple[int, ...], ...]
    weekend: tuple[tuple[int, ...], ...]
    holidays_as_weekend: bool = False
    default: int = 0

    @property
    def asks_holidays(self) -> bool:
        """Whether holidays differ from other days."""
        return self.holidays_as_weekend

    def period(self, local: datetime, holiday: bool) -> int:
        """Index of the period that holds a local wall-clock moment."""
        weekend = local.weekday() >= 5 or (holiday and self.holidays_as_weekend)
        return (self.weekend if weekend else self.weekday)[local.month - 1][local.hour]

    def occurring(self, day: date) -> frozenset[int]:
        """Periods that can occur at all in the month or season that holds the day, whatever weekday it is: a demand
        charge is owed, and a tier's limit grows, on those days only."""
        return frozenset(self.weekday[day.month - 1]) | frozenset(self.weekend[day.month - 1])


@dataclass(frozen=True, slots=True)
class ScheduleRule:
    """A rule of a schedule; the first match applies. ``seasons``: (month, day) pairs from and to, both included,
    wrapping over new year; empty: all year.

    ``weekdays`` 0 Monday to 6 Sunday; ``holiday``: None: holidays follow ``weekdays``, True: only holidays, False:
    never on a holiday. Minutes since local midnight, start included, end not. ``dates``: it applies on these days only
    (critical peaks that were called).
    """

    period: int
    seasons: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    weekdays: frozenset[int]
    holiday: bool | None
    start: int
    end: int
    dates: frozenset[date] | None = None

    def season_holds(self, day: date) -> bool:
        moment = (day.month, day.day)
        return not self.seasons or any(
            a <= moment <= b if a <= b else moment >= a or moment <= b for a, b in self.seasons
        )

    def on(self, weekday: int, holiday: bool) -> bool:
        """Whether it applies on a kind of day."""
        if self.holiday is None:
            return weekday in self.weekdays
        return holiday if self.holiday else not holiday and weekday in self.weekdays

    def holds(self, local: datetime, holiday: bool) -> bool:
        minute = local.hour * 60 + local.minute
        if self.dates is not None and local.date() not in self.dates:
            return False
        return self.on(local.weekday(), holiday) and self.start <= minute < self.end and self.season_holds(local.date())


@dataclass(frozen=True, slots=True)
class RuleSchedule:
    """The native schema's rules, first match applies; a moment without a rule is period ``default``."""

    periods: tuple[str, ...]
    rules: tuple[ScheduleRule, ...] = ()
    default: int = 0

    @property
    def asks_holidays(self) -> bool:
        """Whether holidays differ from other days."""
        return any(rule.holiday is not None for rule in self.rules)

    @property
    def called(self) -> frozenset[int]:
        """Periods of days that were called."""
        return frozenset(rule.period for rule in self.rules if rule.dates is not None)

    @property
    def regular(self) -> frozenset[int]:
        """Periods of calendar days."""
        return frozenset(rule.period for rule in self.rules if rule.dates is None) | {self.default}

    def period(self, local: datetime, holiday: bool) -> int:
        """As MatrixSchedule.period."""
        for rule in self.rules:
            if rule.holds(local, holiday):
                return rule.period
        return self.default

    def occurring(self, day: date) -> frozenset[int]:
        """As MatrixSchedule.occurring."""
        # Days that were called make no season of their own.
        return _occurring(
            self.default, tuple(rule for rule in self.rules if rule.dates is None and rule.season_holds(day))
        )


@lru_cache(maxsize=4096)
def _occurring(default: int, rules: tuple[ScheduleRule, ...]) -> frozenset[int]:
    """Periods of the kinds of day there are: seven weekdays, each also as a holiday."""
    edges = sorted({0, *(r.start for r in rules), *(r.end for r in rules if r.end < _MINUTES)})
    found: set[int] = set()
    for weekday in range(7):
        for holiday in (False, True):
            of_day = [r for r in rules if r.on(weekday, holiday)]
            found |= {next((r.period for r in of_day if r.start <= edge < r.end), default) for edge in edges}
    return frozenset(found)


AnySchedule = MatrixSchedule | RuleSchedule


@lru_cache(maxsize=1024)
def seasons_of(schedule: AnySchedule) -> tuple[frozenset[int], ...]:
    """Returns sets of periods that share days: one set where every day can have every period, a set a season where
    summer and winter have their own periods. A period that never occurs is in the first set."""
    sets: list[frozenset[int]] = []
    for occurring in {schedule.occurring(date(2024, 1, 1) + timedelta(days=k)) for k in range(366)}:
        joined = occurring.union(*(s for s in sets if s & occurring))
        sets = [*(s for s in sets if not s & occurring), joined]
    sets.sort(key=min)
    absent = frozenset(range(len(schedule.periods))).difference(*sets)
    return (sets[0] | absent, *sets[1:])


@lru_cache(maxsize=65536)
def _days_by_season(schedule: AnySchedule, first: int, past: int) -> tuple[int, ...]:
    seasons = seasons_of(schedule)
    counts = [0] * len(seasons)
    for ordinal in range(first, past):
        occurring = schedule.occurring(date.fromordinal(ordinal))
        counts[next(k for k, season in enumerate(seasons) if season & occurring)] += 1
    return tuple(counts)


def season_days(
    schedule: AnySchedule, first: Sequence[int], days: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64] | None:
    """Returns (n, seasons): how many of ``days`` days from ``first`` (proleptic ordinals) on are in each of
    seasons_of. None where there is one season, with all days."""
    if len(seasons_of(schedule)) == 1:
        return None
    # A city's accounts share a few starts and lengths: a schedule is asked for each of these, not for each account.
    spans, place = np.unique(np.stack([np.asarray(first, np.int64), days], axis=1), axis=0, return_inverse=True)
    counted = [_days_by_season(schedule, f, f + n) for f, n in spans.tolist()]
    return np.array(counted, np.int64).reshape(len(counted), len(seasons_of(schedule)))[place.reshape(-1)]
