"""Holidays by rule: the lists that tariffs publish, as dates of a year."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

#: The six off-peak holidays of NERC, which most US tariffs share.
NERC: Final = ("new-year", "memorial", "independence", "labor", "thanksgiving", "christmas")
#: The federal holidays of the United States (5 U.S.C. 6103).
US_FEDERAL: Final = (
    *("new-year", "martin-luther-king", "presidents", "memorial", "juneteenth", "independence", "labor", "columbus"),
    *("veterans", "thanksgiving", "christmas"),
)
LISTS: Final[dict[str, tuple[str, ...]]] = {"nerc": NERC, "us-federal": US_FEDERAL}
OBSERVED: Final = ("as_is", "monday", "nearest")


def _weekday(month: int, weekday: int, which: int) -> Callable[[int], date]:
    """The which-th weekday (0 Monday) of a month; -1 the last one."""

    def found(year: int) -> date:
        if which > 0:
            first = date(year, month, 1)
            return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (which - 1))
        last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
        return last - timedelta(days=(last.weekday() - weekday) % 7)

    return found


def _day(month: int, day: int) -> Callable[[int], date]:
    return lambda year: date(year, month, day)


RULES: Final[dict[str, Callable[[int], date]]] = {
    "new-year": _day(1, 1),
    "martin-luther-king": _weekday(1, 0, 3),
    "presidents": _weekday(2, 0, 3),
    "memorial": _weekday(5, 0, -1),
    "juneteenth": _day(6, 19),
    "independence": _day(7, 4),
    "labor": _weekday(9, 0, 1),
    "columbus": _weekday(10, 0, 2),
    "veterans": _day(11, 11),
    "thanksgiving": _weekday(11, 3, 4),
    "day-after-thanksgiving": lambda year: _weekday(11, 3, 4)(year) + timedelta(days=1),
    "christmas-eve": _day(12, 24),
    "christmas": _day(12, 25),
    "new-year-eve": _day(12, 31),
}


@dataclass(frozen=True, slots=True)
class HolidayList:
    """A tariff's own holidays: by rule and as dates. ``observed``: as_is; monday, a Sunday's holiday also on the Monday
    after; nearest, that and a Saturday's also on the Friday before."""

    names: tuple[str, ...] = ()
    dates: frozenset[date] = frozenset()
    observed: str = "as_is"

    def holds(self, day: date) -> bool:
        """Whether a day is one of them."""
        return day in self.dates or day in _of_year(self.names, self.observed, day.year)


@lru_cache(maxsize=256)
def _of_year(names: tuple[str, ...], observed: str, year: int) -> frozenset[date]:
    found = {RULES[name](y) for name in names for y in (year, year + 1)}
    if observed in ("monday", "nearest"):
        found |= {d + timedelta(days=1) for d in list(found) if d.weekday() == 6}
    if observed == "nearest":
        found |= {d - timedelta(days=1) for d in list(found) if d.weekday() == 5}
    return frozenset(found)
