"""Playing lives side by side: a city of thousands, each step applying every life's event and running the stages once.

What happens to the whole city (a period is issued, the month is sealed, the second period's days go by) stands in the
city's script; a city is made per order of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from itertools import product
from typing import Final

from meter_pipeline_tests.lives.life import (
    CYCLES,
    DAYS,
    FIRST,
    MOST_STEPS,
    SECOND,
    Life,
    Told,
    day_of,
    events_of,
)
from meter_pipeline_tests.lives.model import owes
from meter_pipeline_tests.lives.prices import AMENDED, TARIFFS
from meter_pipeline_tests.lives.stages import City

#: What may happen to the whole city: the first period is issued; the second before it; the month is sealed; the second
#: period's days go by
CITY_EVENTS: Final = ("issue", "issue_second", "seal", "advance")
JANUARY: Final = date(2026, 1, 1)


@dataclass(frozen=True)
class Failure:
    """A life whose account has not paid what the model says, or of which something was silently missing on the way
    (``bills`` says after which step). ``script``, ``base`` and ``history`` replay it."""

    script: tuple[str, ...]
    base: str
    history: tuple[str, ...]
    bills: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.base}: {' '.join(self.steps())}: {'; '.join(self.bills)}"

    def steps(self) -> list[str]:
        """The city's and the account's events in the order in which they came."""
        mine = iter(self.history)
        return [f"[{step}]" if step != "event" else next(mine) for step in self.script]


@dataclass
class Played:
    """What playing a city came to."""

    script: tuple[str, ...]
    lives: int
    failures: list[Failure]
    stopped: dict[str, date]
    seconds: dict[str, float]


def histories(length: int, base: str) -> list[tuple[str, ...]]:
    """Every order of so many account events that a base knows, but for those in which one cannot matter: a withdrawal
    without an edit, an edit of a register's intervals, a move corrected before it is made."""
    found = []
    once = ("late_read", "tariff_amended", "tariff_change", "move", "cycle_change", "left")
    needed = {"edit_withdrawn": "edit", "register_edit_withdrawn": "register_edit", "move_corrected": "move"}
    for events in product(events_of(base), repeat=length):
        if any(needed[e] not in events[:k] for k, e in enumerate(events) if e in needed):
            continue
        if any(events.count(e) > 1 for e in once):
            continue
        if base == "register" and "edit" in events and not any(e.startswith("exchange_kind") for e in events):
            continue
        found.append(events)
    return found


@dataclass
class Game:
    """Lives in one city, step by step. ``silent``: by life, what was missing in silence and since which step.
    ``by_itself``: only days that ask for it are run again (a step of the script; for lives that reads alone happen to).
    """

    city: City
    lives: Sequence[Life]
    issued: bool = False
    advanced: bool = False
    by_itself: bool = False
    loaded: bool = False
    silent: dict[int, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Reference data, the first period's reads, and its days."""
        _begin(self.city, self.lives)

    def take(self, step: str, events: Sequence[str] = ()) -> None:
        """A step of the city's, or ("event") each life's own event; then the law is asked."""
        self.city.clock.advance(3600)
        if step == "event":
            _tell(self.city, [life.happen(event) for life, event in zip(self.lives, events, strict=True)])
        elif step == "advance":
            self.advanced = True
            _tell(self.city, [life.advance() for life in self.lives])
        elif step == "by_itself":
            self.by_itself = True
        elif step == "loaded":
            self.loaded = True
        elif step == "seal":
            self.city.seal(JANUARY)
        elif step == "issue":
            self.issued = True
            _issue(self.city, SECOND)
        elif step == "issue_second":
            self.city.issue("C1", day_of(DAYS))
        if step in ("event", "advance"):
            # New days go by in their order. Days that run again do so the last first, so that a change of an earlier
            # day has to be brought forward to the later ones.
            known = range(DAYS if self.advanced else SECOND)
            again = () if self.by_itself else reversed(known)
            if self.loaded:
                self.city.load(day_of(day) for day in known)
            for day in known if step == "advance" else again:
                self.city.run_day(day_of(day))
            self.city.settle()
            if self.issued:
                _issue(self.city, SECOND)
        _missing(self.city, step, self.silent)

    def finish(self) -> None:
        """All comes in, everything that waits is approved."""
        if not self.advanced:
            _tell(self.city, [life.advance() for life in self.lives])
        _tell(self.city, [life.all_comes_in() for life in self.lives])
        _finish(self.city, self.advanced, self.by_itself)
        _missing(self.city, "all has come in", self.silent)

    def failures(self, script: Sequence[str]) -> list[Failure]:
        """The lives that did not pay what the model says, or of which something was missing on the way."""
        paid = self.city.paid()
        return [f for life in self.lives if (f := _judge(life, tuple(script), paid, self.silent)) is not None]


def play(
    city: City, script: Sequence[str], lives: Sequence[Life], watch: Callable[[City, str], None] | None = None
) -> Played:
    """Play lives through a script: "event" steps are each life's own. ``watch`` is called after each step."""
    game = Game(city, lives)
    game.begin()
    number = 0
    for step in script:
        if step == "event":
            game.take(step, [life.history[number] for life in lives])
            number += 1
        else:
            game.take(step)
        if watch:
            watch(city, step)
    game.finish()
    if watch:
        watch(city, "end")
    seconds = {k: round(v, 1) for k, v in city.seconds.items()}
    return Played(tuple(script), len(lives), game.failures(script), city.stopped, seconds)


def _begin(city: City, lives: Sequence[Life]) -> None:
    city.refer(
        {
            "billing_cycles": [
                {"cycle_id": cycle, "period_start": day_of(a), "period_end": day_of(b)}
                for cycle, spans in CYCLES.items()
                for a, b in spans
            ]
        }
    )
    first = {k: v[:1] for k, v in TARIFFS.items()}
    first |= {f"{letter}-AMENDED-{k}": versions[:1] for letter, versions in AMENDED.items() for k in range(MOST_STEPS)}
    city.tariffs(first, FIRST)
    _tell(city, [life.begin() for life in lives])
    city.run_day(FIRST - timedelta(days=1), bill=False)
    for day in range(SECOND):
        city.run_day(day_of(day))
    city.settle()


def _tell(city: City, told: Sequence[Told]) -> None:
    """All that a step tells the product, at once."""
    rows: dict[str, list[dict[str, object]]] = {}
    for one in told:
        for table, some in one.rows.items():
            rows.setdefault(table, []).extend(some)
    amended = sorted(set().union(*(one.amended for one in told)) if told else set())
    for table, key in [row for one in told for row in one.removed]:
        city.remove(table, key)
    if amended:
        city.tariffs({name: AMENDED[name[0]] for name in amended}, FIRST)
    if rows:
        city.refer(rows)
    city.read([read for one in told for read in one.reads])
    made, withdrawn = [e for one in told for e in one.edits], [m for one in told for m in one.withdrawn]
    if made or withdrawn:
        city.edits(made, withdrawn)
    seen, taken_back = (
        [e for one in told for e in one.read_edits],
        [m for one in told for m in one.read_edits_withdrawn],
    )
    if seen or taken_back:
        city.read_edits(seen, taken_back)
    if released := [point for one in told for point in one.released]:
        city.release(released)
    decided = {account: approve for one in told for account, approve in one.decided}
    if decided:
        for account, adjustment_id in city.waiting_adjustments():
            if account in decided:
                city.clock.advance(1)
                city.decide(adjustment_id, decided[account])


def _issue(city: City, past: int) -> None:
    """Issue every period that ends by a day, in order."""
    ends = sorted({(b, cycle) for cycle, spans in CYCLES.items() for _, b in spans if b <= past})
    for end, cycle in ends:
        city.issue(cycle, day_of(end))


def _finish(city: City, advanced: bool, by_itself: bool) -> None:
    """All has come in: every day again (``by_itself``: those that were never run), every period issued, everything that
    waits approved, until nothing moves."""
    for _ in range(2):
        city.clock.advance(3600)
        days = range(SECOND, DAYS) if by_itself else range(DAYS)
        for day in reversed(days) if advanced else days:
            city.run_day(day_of(day))
        city.settle()
        _issue(city, DAYS)
        advanced = True
    city.clock.advance(3600)
    city.release(None)
    _next_day(city)
    for statement_id in city.refused_statements():
        city.ask(statement_id)
    for _ in range(4):
        waiting = city.waiting_adjustments()
        for _, adjustment_id in waiting:
            city.clock.advance(1)
            city.decide(adjustment_id, True)
        if not waiting:
            break
        _next_day(city)


def _next_day(city: City) -> None:
    """A decision reaches the bills behind it with the days that it asks for and the next day that is run."""
    for day in city.released_days():
        city.run_day(day)
    city.run_day(day_of(DAYS - 1))
    city.settle()
    _issue(city, DAYS)


_LIFE: Final = re.compile(r"\b[AB]-([0-9]{5})\.")


def _missing(city: City, step: str, silent: dict[int, str]) -> None:
    """What the law says is neither billed nor accrued nor waiting, by life; the first time is kept."""
    result = city.law(FIRST, day_of(DAYS))
    for f in result.open:
        silent.setdefault(int(f.service_point_id[3:]), f"after {step} {f.billing_day:%d.%m.} {f.why}")
    for bill in result.bills_open:
        found = _LIFE.search(bill)
        assert found, bill
        silent.setdefault(int(found[1]), f"after {step} {bill}")


def _judge(
    life: Life, script: tuple[str, ...], paid: dict[tuple[str, str, date], Decimal], silent: dict[int, str]
) -> Failure | None:
    owed = owes(life.world(), DAYS)
    names = {f"A-{life.number:05}", f"B-{life.number:05}"}
    wrong = []
    got = {key: amount for key in life_keys(names) if (amount := paid.get(key)) is not None}
    for key in sorted({(a, c, day_of(p)) for a, c, p in owed} | set(got)):
        right = owed.get((key[0], key[1], (key[2] - FIRST).days), Decimal(0))
        have = got.get(key, Decimal(0))
        if right != have:
            wrong.append(f"{key[0][0]} {key[1]} {key[2]:%d.%m.} owes {right}, paid {have.normalize():f}")
    if life.number in silent:
        wrong.append(f"silently missing {silent[life.number]}")
    return Failure(script, life.base, life.history, tuple(wrong)) if wrong else None


def life_keys(names: set[str]) -> list[tuple[str, str, date]]:
    return [(name, cycle, day_of(a)) for name in sorted(names) for cycle, spans in CYCLES.items() for a, _ in spans]
