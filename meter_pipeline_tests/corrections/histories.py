"""Exhaustive small histories of corrections, played side by side.

A history is an account: two corrections of any kind at any places among three days that are read and billed, an issue
and perhaps a seal. Days, the issue and the seal happen to a whole city, so that all histories with the seal at one
place share a city: five cities hold them all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

from meter_pipeline.corrections.apply import change_row, import_folder
from meter_pipeline.postgres.database import Database
from meter_pipeline.reference.importing import RowChange
from meter_pipeline.reference.tables import Snapshot
from meter_pipeline_tests.corrections.town import DEAR, FIRST, FLAT, PERIODS, Town, agreement, channel, point
from meter_pipeline_tests.lives.prices import document

#: Each export holds all agreements and dated values: a value that it does not name any more never held.
WHOLE = Snapshot(
    frozenset({"account_values", "agreements", "channel_values"}),
    FIRST,
    datetime(2026, 2, 20, 6, tzinfo=UTC),
    Decimal(1),
)
DAYS = [FIRST + timedelta(days=k) for k in range(3)]
STEPS = ("day 0", "day 1", "day 2", "issue")
#: Places of the seal among the steps; None: the month is not sealed.
SEALS = (None, 1, 2, 3, 4)
REGISTER, INTERVAL = "register", "interval"
METERS = (REGISTER, INTERVAL)
Row = dict[str, Any]
Rows = dict[str, list[Row]]
Kind = Callable[[Rows, str], None]


def ratio(rows: Rows, p: str) -> None:
    """The meter counts in tens."""
    rows["channels"][0]["multiplier"] = 10


def other_ratio(rows: Rows, p: str) -> None:
    """The meter counts in fives."""
    rows["channels"][0]["multiplier"] = 5


def ratio_since(rows: Rows, p: str) -> None:
    """The current transformers were exchanged on the second day: from then on the meter counts in threes."""
    held = rows["channels"][0]
    value = {"meter_id": held["meter_id"], "channel": held["channel"], "valid_from": DAYS[1], "multiplier": 3}
    rows["channel_values"] = [value]


def class_since(rows: Rows, p: str) -> None:
    """The account is a shop from the second day on, and pays twice as much on the flat tariff."""
    rows["account_values"] = [{"account_id": f"AC-{p}", "valid_from": DAYS[1], "customer_class": "commercial"}]


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


def vacant(rows: Rows, p: str) -> None:
    """The account left before the third day, and nobody pays from then on."""
    ended = min(rows["agreements"][-1].get("valid_to") or DAYS[2], DAYS[2])
    rows["agreements"] = [r for r in rows["agreements"] if r["valid_from"] < DAYS[2]]
    rows["agreements"][-1] |= {"valid_to": ended}


def not_billed(rows: Rows, p: str) -> None:
    """The channel does not count for the bill."""
    rows["channels"][0]["billed"] = False


def other_account(rows: Rows, p: str) -> None:
    """The agreements name the wrong account."""
    for row in rows["agreements"]:
        row["account_id"] = f"AX-{p}"


def installed_later(rows: Rows, p: str) -> None:
    """The meter was set at the end of the first day: what its dial showed then was not used here."""
    row = rows["installations"][0]
    row["installed_at"] = CALENDAR_START[1]
    row["install_read"] = None if row["install_read"] is None else 10


def as_first_known(rows: Rows, p: str) -> None:
    """What was known first was right."""
    rows.update(known_first(p, meter_of(p)))


KINDS: tuple[Kind, ...] = (
    ratio,
    other_ratio,
    ratio_since,
    class_since,
    tariff,
    moved_out,
    moved_out_later,
    vacant,
    not_billed,
    other_account,
    installed_later,
    as_first_known,
)
#: Starts of the days in UTC.
CALENDAR_START = [datetime(d.year, d.month, d.day, 6, tzinfo=UTC) for d in DAYS]


def _payer_from(rows: Rows, p: str, day: date) -> None:
    tariff_id = rows["agreements"][0]["tariff_id"]
    rows["agreements"] = [
        agreement(p, tariff_id=tariff_id, valid_to=day),
        agreement(p, tariff_id=tariff_id, account_id=f"AX-{p}", valid_from=day),
    ]


def meter_of(p: str) -> str:
    return REGISTER if p[0] == "R" else INTERVAL


def known_first(p: str, meter: str) -> Rows:
    register = meter == REGISTER
    stands: Row = {
        "channel": "R1" if register else "E1",
        "kind": meter,
        "interval_minutes": None if register else 60,
        "dials": 6 if register else None,
    }
    return {
        "installations": [
            {
                "service_point_id": f"SP-{p}",
                "meter_id": f"M{p}",
                "installed_at": CALENDAR_START[0],
                "install_read": 0 if register else None,
            }
        ],
        "channels": [channel(p, **stands)],
        "channel_values": [],
        "account_values": [],
        "agreements": [agreement(p)],
    }


@dataclass(frozen=True, slots=True)
class History:
    """Two corrections, each before the step of its number (the number of steps: after the last one)."""

    name: str
    meter: str
    kinds: tuple[Kind, Kind]
    places: tuple[int, int]

    def told(self, steps: tuple[str, ...]) -> str:
        """The order in words."""
        first, second = self.places
        a, b = (k.__name__ for k in self.kinds)
        return " ".join([self.meter, *steps[:first], f"[{a}]", *steps[first:second], f"[{b}]", *steps[second:]])


def steps_of(seal: int | None) -> tuple[str, ...]:
    return STEPS if seal is None else (*STEPS[:seal], "seal", *STEPS[seal:])


def histories(seal: int | None, kinds: tuple[Kind, ...] = KINDS) -> list[History]:
    """Every history of the city whose month is sealed before the step ``seal``."""
    slots = range(len(steps_of(seal)) + 1)
    pairs = [(a, b) for a in kinds for b in kinds]
    every = product(METERS, pairs, ((a, b) for a in slots for b in slots if a <= b))
    return [History(f"{m[0].upper()}{n:05}", m, pair, at) for n, (m, pair, at) in enumerate(every)]


@dataclass
class Books:
    """What is known of every account."""

    state: dict[str, Rows]

    def correct(self, made: list[History], nth: int) -> list[tuple[str, str]]:
        """Make some corrections; the keys of the agreements of their accounts that a person takes out."""
        gone = []
        for h in made:
            before = {r["valid_from"] for r in self.state[h.name]["agreements"]}
            h.kinds[nth](self.state[h.name], h.name)
            kept = {r["valid_from"] for r in self.state[h.name]["agreements"]}
            if h.kinds[nth] is vacant:
                gone += [(f"SP-{h.name}", str(day)) for day in sorted(before - kept)]
        return gone

    def tables(self) -> Rows:
        names = ("channels", "channel_values", "account_values", "agreements", "installations")
        return {t: [deepcopy(row) for rows in self.state.values() for row in rows[t]] for t in names}


def begin(database: Database, folder: Path, known: dict[str, Rows]) -> Town:
    city = Town(database, folder)
    city.tariffs({"E-DEAR": [DEAR]}, FIRST)
    by_class = {"attribute": "customer_class", "values": {"residential": {"rate": "0.10"}, "*": {"rate": "0.20"}}}
    flat = {**document("E-FLAT", FLAT), "charges": [{"kind": "usage", "code": "USE", "name": "Usage", "by": by_class}]}
    row = {
        "tariff_id": "E-FLAT",
        "commodity": "electricity",
        "version": 1,
        "valid_from": date(2015, 1, 1),
        "document": "flat.json",
    }
    city.refer({"tariffs": [row]}, {("E-FLAT", 1): json.dumps(flat).encode()})
    city.refer(
        {
            "billing_cycles": [{"cycle_id": "C1", "period_start": a, "period_end": b} for a, b in PERIODS],
            "service_points": [point(p) for p in known],
            "meters": [
                {"meter_id": f"M{p}", "commodity": "electricity", "head_end": f"{meter_of(p)}-KWH".upper()}
                for p in known
            ],
            "accounts": [
                {"account_id": f"{kind}-{p}", "customer_class": "residential", "opened": date(2015, 1, 1)}
                for p in known
                for kind in ("AC", "AX")
            ],
            **Books(known).tables(),
        }
    )
    return city


def play(database: Database, folder: Path, seal: int | None, played: list[History]) -> dict[str, Decimal]:
    """What every account owes in the end of a city that lived through some histories."""
    books = Books({h.name: known_first(h.name, h.meter) for h in played})
    city = begin(database, folder, books.state)
    steps = steps_of(seal)
    for place in range(len(steps) + 1):
        for nth in (0, 1):
            made = [h for h in played if h.places[nth] == place]
            if made:
                for key in books.correct(made, nth):
                    change_row(
                        database,
                        city.calendar,
                        RowChange("agreements", key, by="ana", why="never moved in"),
                        clock=city.clock,
                    )
                exported = city.folder_of(books.tables())
                import_folder(database, city.calendar, exported, snapshot=WHOLE, clock=city.clock)
                assert import_folder(database, city.calendar, exported, snapshot=WHOLE, clock=city.clock).days == []
                city.settle()
        if place < len(steps):
            _step(city, steps[place], [h.name for h in played])
    return finish(city)


def _step(city: Town, step: str, names: list[str]) -> None:
    match step.split():
        case ["day", k]:
            _read(city, int(k), names)
            city.run_day(DAYS[int(k)])
            city.settle()
        case ["issue"]:
            city.issue("C1", PERIODS[0][1])
        case ["seal"]:
            city.seal(date(2026, 1, 1))


def finish(city: Town) -> dict[str, Decimal]:
    """Days that are asked for, statements that can be issued and adjustments that wait, until nothing is left to do."""
    for _ in range(4):
        city.settle()
        city.issue("C1", PERIODS[0][1])
        for _, adjustment in city.waiting_adjustments():
            city.decide(adjustment, approve=True)
    return city.owed()


def truth(database: Database, folder: Path, played: list[History]) -> dict[str, Decimal]:
    """What every account owes in a city that knew the truth from the start: by meter, kinds and account."""
    once = {(h.meter, h.kinds): h for h in played}
    books = Books({h.name: known_first(h.name, h.meter) for h in once.values()})
    for nth in (0, 1):
        books.correct(list(once.values()), nth)
    city = begin(database, folder, books.state)
    for k in range(len(DAYS)):
        _step(city, f"day {k}", list(books.state))
    owed = finish(city)
    return {
        f"{kind}-{h.name}": owed[f"{kind}-{once[h.meter, h.kinds].name}"]
        for h in played
        for kind in ("AC", "AX")
        if f"{kind}-{once[h.meter, h.kinds].name}" in owed
    }


def _read(city: Town, k: int, names: list[str]) -> None:
    start, end = city.calendar.bounds(DAYS[k])
    found = [("REGISTER-KWH", f"M{p}", "R1", end, str(10 * (k + 1)), 1) for p in names if meter_of(p) == REGISTER]
    hours = [start + timedelta(hours=h) for h in range(24)]
    found += [("INTERVAL-KWH", f"M{p}", "E1", at, "1", 1) for p in names if meter_of(p) == INTERVAL for at in hours]
    city.read(found)


def differing(
    seal: int | None, played: list[History], found: dict[str, Decimal], owed: dict[str, Decimal]
) -> Iterator[str]:
    """A line for each history whose accounts do not end with the money of the truth."""
    steps = steps_of(seal)
    for h in played:
        pairs = [(a, owed.get(a), found.get(a)) for a in (f"AC-{h.name}", f"AX-{h.name}")]
        if any(o != f for _, o, f in pairs):
            yield h.told(steps) + ": " + ", ".join(f"{a[:2]} owes {o}, has {f}" for a, o, f in pairs)
