"""Small histories of corrections: two corrections of any kind, three days, in every order of reading, billing, issuing,
sealing and correcting. Each account of a town is one pair of corrections; each order is a town.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from meter_pipeline.corrections.apply import import_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline_tests.corrections.town import DEAR, FIRST, FLAT, PERIODS, Town, agreement, channel, point

#: Each export holds all agreements: a payer that it does not name any more never paid.
WHOLE = Snapshot(frozenset({"agreements"}), date(2026, 2, 20), datetime(2026, 2, 20, 6, tzinfo=UTC), Decimal(1))
DAYS = [FIRST + timedelta(days=k) for k in range(3)]
Rows = dict[str, list[dict[str, Any]]]


def ratio(rows: Rows, p: str) -> None:
    """The dial counts in tens."""
    rows["channels"][0]["multiplier"] = 10


def other_ratio(rows: Rows, p: str) -> None:
    """The dial counts in fives."""
    rows["channels"][0]["multiplier"] = 5


def tariff(rows: Rows, p: str) -> None:
    """Every agreement is on the dear tariff."""
    for row in rows["agreements"]:
        row["tariff_id"] = "E-DEAR"


def moved_out(rows: Rows, p: str) -> None:
    """Somebody else pays from the second day on."""
    _payer_from(rows, p, DAYS[1])


def moved_out_later(rows: Rows, p: str) -> None:
    """Somebody else pays from the third day on."""
    _payer_from(rows, p, DAYS[2])


def not_billed(rows: Rows, p: str) -> None:
    """The channel does not count for the bill, and does after all: no change in the end."""
    rows["channels"][0]["decimals"] = 0


def as_first_known(rows: Rows, p: str) -> None:
    """What was known first was right."""
    rows.update(known_first(p))


def _payer_from(rows: Rows, p: str, day: date) -> None:
    tariff_id = rows["agreements"][0]["tariff_id"]
    rows["agreements"] = [
        agreement(p, tariff_id=tariff_id, valid_to=day),
        agreement(p, tariff_id=tariff_id, account_id=f"AX-{p}", valid_from=day),
    ]


KINDS: tuple[Callable[[Rows, str], None], ...] = (
    ratio,
    other_ratio,
    tariff,
    moved_out,
    moved_out_later,
    not_billed,
    as_first_known,
)
PAIRS = {f"{a.__name__}+{b.__name__}": (f"P{k}", a, b) for k, (a, b) in enumerate(product(KINDS, repeat=2))}


def known_first(p: str) -> Rows:
    return {
        "channels": [channel(p, channel="R1", kind="register", interval_minutes=None, dials=6)],
        "agreements": [agreement(p)],
    }


@dataclass
class Books:
    """What is known of every account: after none, one or both of its corrections."""

    state: dict[str, Rows]

    @classmethod
    def at_first(cls) -> Books:
        return cls({p: known_first(p) for p, _, _ in PAIRS.values()})

    def correct(self, nth: int) -> None:
        for p, *both in PAIRS.values():
            both[nth](self.state[p], p)

    def tables(self) -> Rows:
        return {
            name: [deepcopy(row) for rows in self.state.values() for row in rows[name]]
            for name in ("channels", "agreements")
        }


def begin(database: Database, folder: Path, books: Books) -> Town:
    city = Town(database, folder)
    city.tariffs({"E-FLAT": [FLAT], "E-DEAR": [DEAR]}, FIRST)
    names = [p for p, _, _ in PAIRS.values()]
    start = city.calendar.bounds(FIRST)[0]
    city.refer(
        {
            "billing_cycles": [{"cycle_id": "C1", "period_start": a, "period_end": b} for a, b in PERIODS],
            "service_points": [point(p) for p in names],
            "meters": [{"meter_id": f"M{p}", "commodity": "electricity", "head_end": "REGISTER-KWH"} for p in names],
            "installations": [
                {"service_point_id": f"SP-{p}", "meter_id": f"M{p}", "installed_at": start, "install_read": 0}
                for p in names
            ],
            "accounts": [
                {"account_id": f"{kind}-{p}", "customer_class": "residential", "opened": date(2015, 1, 1)}
                for p in names
                for kind in ("AC", "AX")
            ],
            **books.tables(),
        }
    )
    return city


def orders(sealed: bool = True) -> Iterator[tuple[str, ...]]:
    """Every order of three days, an issue after them, two corrections anywhere, and a seal anywhere after the first
    day.
    """
    steps = ("day 0", "day 1", "day 2", "issue")
    for first in range(len(steps) + 1):
        for second in range(first, len(steps) + 1):
            found = [*steps[:first], "correct 0", *steps[first:second], "correct 1", *steps[second:]]
            yield tuple(found)
            for at in range(found.index("day 0") + 1, len(found) + 1) if sealed else ():
                yield (*found[:at], "seal", *found[at:])


def play(database: Database, folder: Path, order: tuple[str, ...]) -> dict[str, Decimal]:
    """What every account owes in the end of a town that lived through an order."""
    books = Books.at_first()
    city = begin(database, folder, books)
    for step in order:
        match step.split():
            case ["day", k]:
                _read(city, DAYS[int(k)])
                city.run_day(DAYS[int(k)])
                city.settle()
            case ["correct", k]:
                books.correct(int(k))
                exported = city.folder_of(books.tables())
                import_folder(database, city.calendar, exported, snapshot=WHOLE, clock=city.clock)
                assert import_folder(database, city.calendar, exported, snapshot=WHOLE, clock=city.clock).days == []
                city.settle()
            case ["issue"]:
                city.issue("C1", PERIODS[0][1])
            case ["seal"]:
                city.seal(date(2026, 1, 1))
    return finish(city)


def finish(city: Town) -> dict[str, Decimal]:
    city.settle()
    for _ in range(4):
        city.issue("C1", PERIODS[0][1])
        for _, adjustment in city.waiting_adjustments():
            city.decide(adjustment, approve=True)
    return city.owed()


def truth(database: Database, folder: Path) -> dict[str, Decimal]:
    """What every account owes in a town that knew the truth from the start."""
    books = Books.at_first()
    books.correct(0)
    books.correct(1)
    city = begin(database, folder, books)
    for day in DAYS:
        _read(city, day)
        city.run_day(day)
    return finish(city)


def _read(city: Town, day: date) -> None:
    end = city.calendar.bounds(day)[1]
    city.read(
        [("REGISTER-KWH", f"M{p}", "R1", end, str(10 * ((day - FIRST).days + 1)), 1) for p, _, _ in PAIRS.values()]
    )
