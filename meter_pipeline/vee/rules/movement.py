"""How a class of meters moved on a day: its use today, and on each earlier day, over what its members use on average.

A day that is validated whole works it out from its own rows; a run for some service points of a day takes it as that
day stored it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.vee.rules.model import Bools, Floats, Ints

#: Members from which on a class says something about one of them
LEAST_MEMBERS: Final = 8


@dataclass(frozen=True, slots=True)
class Movement:
    """By group: ``today`` (groups,) and ``days`` (groups, days), 1.0 where the group has too few members to say."""

    today: Floats
    days: Floats


@dataclass(frozen=True, slots=True)
class MovementSums:
    """Sums behind a movement, by group: use today and usual use of the members that are known today, and by earlier
    day how many were known and the sum of their shares of their own average."""

    total: Floats
    usual: Floats
    members: Ints
    seen: Ints
    shares: Floats

    def movement(self) -> Movement:
        """The quotients."""
        today = np.where(
            (self.members >= LEAST_MEMBERS) & (self.usual > 0), self.total / np.maximum(self.usual, 1e-9), 1.0
        )
        days = np.where(self.seen >= LEAST_MEMBERS, self.shares / np.maximum(self.seen, 1), 1.0)
        return Movement(today, days)

    def of(self, group: int) -> MovementSums:
        """Those of one group."""
        one = slice(group, group + 1)
        return MovementSums(self.total[one], self.usual[one], self.members[one], self.seen[one], self.shares[one])


def added(parts: Iterable[MovementSums]) -> MovementSums:
    """The sums of several sets of rows, of the same groups and days."""
    first, *rest = parts
    for part in rest:
        first = MovementSums(
            first.total + part.total,
            first.usual + part.usual,
            first.members + part.members,
            first.seen + part.seen,
            first.shares + part.shares,
        )
    return first


def movement_sums(
    total: Ints | Floats, base: Floats, own: Floats, share: Floats, good: Bools, group: npt.NDArray[np.int32]
) -> MovementSums:
    """Sums by group over rows: ``base`` the usual use of the rows known today, 0 for others; ``own`` a row's average;
    ``share`` (rows, days) each earlier day over it; ``good`` (rows, days) which of those days count."""
    groups, days = int(group.max(initial=0)) + 1, good.shape[1]
    seen, shares = np.zeros((groups, days), np.int64), np.zeros((groups, days))
    for d in range(days):
        counted = good[:, d] & (own > 0)
        seen[:, d] = np.bincount(group, counted, groups)
        shares[:, d] = np.bincount(group, share[:, d] * counted, groups)
    return MovementSums(
        np.bincount(group, np.where(base > 0, total, 0).astype(np.float64), groups).astype(np.float64),
        np.bincount(group, base, groups).astype(np.float64),
        np.bincount(group, base > 0, groups).astype(np.int64),
        seen,
        shares,
    )


#: Interval length in minutes (0: registers alone), unit, flow, customer class
ClassKey: TypeAlias = tuple[int, str, str, str]
#: Week that stretches between reads end in, and their class; then how they moved, and their pace: micro units a second
Pace: TypeAlias = tuple[float | None, float | None]


@dataclass(slots=True)
class ClassMovement:
    """How every class of a day moved, as it is stored beside the day: ``sums`` by class; ``paces`` of registers that
    are read less than daily, by the week their stretches end in and their class."""

    days: int = 0
    sums: dict[ClassKey, MovementSums] = field(default_factory=dict)
    paces: dict[tuple[int, str, str, str], Pace] = field(default_factory=dict)

    def add(self, minutes: int, keys: pl.DataFrame, group: npt.NDArray[np.int32], moved: MovementSums | None) -> None:
        """Count in what some rows moved. ``keys``: unit, flow and customer_class by row, ``group`` beside it. A class
        of which no row could be compared (registers read less than daily) moved nothing, and may lie beyond the
        sums."""
        if moved is None:
            return
        self.days = moved.seen.shape[1]
        for names, number in _groups(keys, group):
            if number >= moved.total.size:
                continue
            own = moved.of(number)
            sums = self.sums.get((minutes, *names))
            self.sums[minutes, *names] = own if sums is None else added((sums, own))

    def movement(self, minutes: int, keys: pl.DataFrame, group: npt.NDArray[np.int32]) -> Movement:
        """The movement of some rows' groups."""
        count = int(group.max(initial=0)) + 1
        today, days = np.ones(count), np.ones((count, self.days))
        for names, number in _groups(keys, group):
            sums = self.sums.get((minutes, *names))
            if sums is not None:
                found = sums.movement()
                today[number], days[number] = found.today[0], found.days[0]
        return Movement(today, days)

    def text(self) -> str:
        """As JSON; a float is written so that it reads back the same."""
        sums = [
            [*key, float(s.total[0]), float(s.usual[0]), int(s.members[0]), s.seen[0].tolist(), s.shares[0].tolist()]
            for key, s in sorted(self.sums.items())
        ]
        paces = [[*key, *pace] for key, pace in sorted(self.paces.items())]
        return json.dumps({"days": self.days, "classes": sums, "paces": paces})

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> ClassMovement:
        """Reads the output of ``text``."""
        sums = {
            (int(minutes), unit, flow, of): MovementSums(
                np.array([total]),
                np.array([usual]),
                np.array([members], np.int64),
                np.array([seen], np.int64).reshape(1, -1),
                np.array([shares], np.float64).reshape(1, -1),
            )
            for minutes, unit, flow, of, total, usual, members, seen, shares in stored["classes"]
        }
        paces = {(int(week), unit, flow, of): (move, pace) for week, unit, flow, of, move, pace in stored["paces"]}
        return cls(int(stored["days"]), sums, paces)


def _groups(keys: pl.DataFrame, group: npt.NDArray[np.int32]) -> list[tuple[tuple[str, str, str], int]]:
    """The classes of some rows, by name and number."""
    found = keys.select("unit", "flow", "customer_class").with_columns(group=pl.Series(group)).unique()
    return [((unit, flow, of), int(number)) for unit, flow, of, number in found.sort("group").iter_rows()]
