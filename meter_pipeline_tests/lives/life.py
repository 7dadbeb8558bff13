"""A life: what happens to one service point, step by step, and what is true of it in the end.

Six billing days from Friday 30 January 2026 on, two periods of three days in cycle C1; the month ends after the second
day, inside the first period. A life begins with one meter and one account. Its events change the truth and say what the
product is told of them: reads that arrive, reference rows, edits, decisions. Nothing here knows how the product bills.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from meter_pipeline_tests.lives.model import HOURS, Agreement, IntervalMeter, RegisterMeter, World, joined
from meter_pipeline_tests.lives.prices import AMENDED, OF_BASE, TARIFFS

ZONE = "America/Chicago"
FIRST = date(2026, 1, 30)
DAYS = 6
#: First day of the second period, and of February
SECOND, FEBRUARY = 3, 2
CYCLES = {"C1": ((0, 3), (3, 6)), "C2": ((0, 2), (2, 4), (4, 6))}
NEVER = 10**6
#: Account events that a life has at most
MOST_STEPS = 16
_START = datetime(2026, 1, 30, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)

#: What may happen to one service point
EVENTS: Final = (
    "late_read",  # the read that was missing comes: a day's intervals, or a register's closing read
    "corrected_read",  # another value of a read that came before
    "exchange_kind",  # an interval meter gives way to a register, or the other way round, at noon
    "exchange_unit",  # a gallon meter gives way to one of cubic metres, or the other way round, at noon
    "move",  # another account pays, from the second day
    "tariff_change",  # another tariff, from the third day
    "tariff_amended",  # a new version of the tariff, from the third day
    "cycle_change",  # another billing cycle, from the third day
    "edit",  # a person puts a value in the place of an interval of the third day
    "edit_withdrawn",  # and takes it back
    "approve",  # whatever waits for a decision about its bills is approved
    "refuse",  # or refused
)
#: What a service begins with: an interval meter; a register; intervals that are netted against exports; intervals whose
#: demand is priced, with a ratchet; an interval meter whose own register checks its sum
BASES: Final = ("interval", "register", "net", "demand", "checked")
#: Events that only some bases know, beside those of EVENTS that they bear
_MOVE = "move_corrected"  # the move was a day later than said, or back
_LEFT = "left"  # the account left before the second day, and nobody follows
MORE_EVENTS: Final = {
    "interval": (_MOVE, _LEFT),
    "register": (
        _MOVE,
        _LEFT,
        "misread",  # the closing read comes again, impossibly high
        "register_edit",  # a person puts a read in the place of the closing read
        "register_edit_withdrawn",  # and takes it back
    ),
    "net": (),
    "demand": (),
    "checked": (
        _MOVE,
        "misread",  # the register at the end of the second day comes again, wrong
        "release",  # a person releases what holds the bill
    ),
}
#: Events of EVENTS that a base does not bear. A tariff with demand or exports would need one more of its kind to change
#: to; an edit beside a register that counts something else is held until a person releases it.
WITHOUT: Final = {
    "interval": (),
    "register": (),
    "net": ("exchange_kind", "exchange_unit", "tariff_change", "tariff_amended"),
    "demand": ("exchange_kind", "exchange_unit", "move", "tariff_change", "tariff_amended"),
    "checked": ("exchange_kind", "exchange_unit", "edit", "edit_withdrawn"),
}


def events_of(base: str) -> tuple[str, ...]:
    """What may happen to a service that begins with a base."""
    return tuple(e for e in EVENTS if e not in WITHOUT[base]) + MORE_EVENTS[base]


def at(hour: int) -> datetime:
    """The instant of an hour of a life."""
    return _START + timedelta(hours=hour)


def day_of(number: int) -> date:
    return FIRST + timedelta(days=number)


@dataclass
class Meter:
    """A meter as it stands: for intervals the true value of each hour, for a register its reads (hour -> dial)."""

    name: str
    kind: str
    unit: str
    begin: int
    end: int = NEVER
    hours: dict[int, Decimal] = field(default_factory=dict)
    sent: dict[int, Decimal] = field(default_factory=dict)
    dials: dict[int, Decimal] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    version: int = 1

    @property
    def channel(self) -> str:
        return "E1" if self.kind == "interval" else "R1"

    @property
    def head_end(self) -> str:
        return f"{self.kind}-{self.unit}".upper()


@dataclass
class Told:
    """What a step tells the product."""

    reads: list[tuple[str, str, str, datetime, str, int]] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    removed: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    edits: list[tuple[str, str, date, int, int]] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    read_edits: list[tuple[str, str, datetime, str]] = field(default_factory=list)
    read_edits_withdrawn: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    decided: list[tuple[str, bool]] = field(default_factory=list)
    amended: set[str] = field(default_factory=set)

    def row(self, table: str, **values: Any) -> None:
        self.rows.setdefault(table, []).append(values)


def _d(text: str) -> Decimal:
    return Decimal(text)


def _true_hours(unit: str) -> dict[int, Decimal]:
    """Hour by hour: more each day, a little up and down, so that a day counted twice or dropped shows."""
    if unit == "kWh":
        return {
            h: _d("0.5") + _d("0.1") * (h // HOURS) + (_d("0.05") if h % 2 else _d("-0.05"))
            for h in range(DAYS * HOURS)
        }
    size = _d("40") if unit == "gal" else _d("0.15")
    return {h: size * (10 + h // HOURS) / 10 for h in range(DAYS * HOURS)}


#: What a register counts in an hour
_PACE = {"kWh": _d("2"), "gal": _d("40"), "m3": _d("0.15")}
#: By how much a corrected read raises each hour of the first day, or the closing dial
_MORE = {"kWh": (_d("5"), _d("60")), "gal": (_d("50"), _d("1500")), "m3": (_d("0.5"), _d("6"))}


#: What a person reads of a register in the place of its closing read, more than it showed; what it never showed
_READ_MORE, _IMPOSSIBLE = {"kWh": _d("20"), "gal": _d("400"), "m3": _d("1.5")}, _d("50000")
#: By how much the register that checks the intervals is misread
_MISREAD = _d("400")


class Life:
    """One service point, its meters and accounts. ``base``: what it begins with (BASES); ``history``: its events in
    order."""

    def __init__(self, number: int, base: str, history: tuple[str, ...]) -> None:
        self.number, self.base, self.history = number, base, history
        self.point = f"SP-{number:05}"
        self.water = "exchange_unit" in history
        letter = "W" if self.water else "E"
        unit = "gal" if self.water else "kWh"
        self.unit = "m3" if self.water else "kWh"
        self.amend_step = history.index("tariff_amended") if "tariff_amended" in history else None
        if self.amend_step is not None:
            tariff = f"{letter}-AMENDED-{self.amend_step}"
        elif self.water:
            tariff = "W-FLAT"
        else:
            choice = OF_BASE[base]
            tariff = choice[number % len(choice)]
        self.agreements = [Agreement(f"A-{number:05}", tariff, "C1", -1000, None)]
        self.meters: list[Meter] = []
        self.withheld = "late_read" in history
        self.amended = False
        self.edited: dict[str, tuple[Meter, int, Decimal]] = {}
        self.read_on_site: Decimal | None = None
        self.misread = False
        self.moved_on: int | None = None
        self.gone = False
        self.horizon = SECOND
        self.exchanges = 0
        self._add_meter("register" if base == "register" else "interval", unit, 0, first=True)

    # what is true

    def world(self) -> World:
        meters: list[IntervalMeter | RegisterMeter] = []
        for meter in self.meters:
            end = min(meter.end, DAYS * HOURS)
            if meter.kind == "interval":
                hours = meter.hours | {hour: value for mine, hour, value in self.edited.values() if mine is meter}
                meters.append(IntervalMeter(meter.begin, end, meter.unit, hours, meter.sent))
            else:
                known = dict(meter.dials)
                if meter is self.meters[0] and self.read_on_site is not None:
                    known[SECOND * HOURS] = self.read_on_site
                dials = sorted((h, v) for h, v in known.items() if meter.begin <= h <= end)
                meters.append(RegisterMeter(meter.begin, end, meter.unit, dials))
        tariffs = dict(TARIFFS)
        for letter, versions in AMENDED.items():
            tariffs |= {f"{letter}-AMENDED-{k}": versions if self.amended else versions[:1] for k in range(MOST_STEPS)}
        return World(meters, self.agreements, tariffs, CYCLES, self.unit)

    # what the product is told

    def begin(self) -> Told:
        """Before the first event: reference data and the reads of the first period."""
        told = Told()
        commodity = "water" if self.water else "electricity"
        told.row(
            "service_points",
            service_point_id=self.point,
            commodity=commodity,
            premise_id=f"P-{self.number}",
            route="R1",
            customer_class="residential",
            status="active",
            valid_from=date(2015, 1, 1),
        )
        self._tell_account(told, self.agreements[0].account)
        self._tell_agreements(told)
        self._tell_meter(told, self.meters[0])
        self.tell_reads(told)
        return told

    def advance(self) -> Told:
        """The second period's days go by."""
        self.horizon = DAYS
        told = Told()
        self.tell_reads(told)
        return told

    def happen(self, event: str) -> Told:
        """An event."""
        told = Told()
        getattr(self, "_" + event)(told)
        self.tell_reads(told)
        return told

    def tell_reads(self, told: Told) -> None:
        """Reads of days gone by that were not told yet."""
        for meter in self.meters:
            if meter.kind == "interval":
                for day in range(self.horizon):
                    held = self.withheld and meter is self.meters[0] and day == 1
                    there = meter.begin < (day + 1) * HOURS and meter.end > day * HOURS
                    if there and not held and day not in meter.told:
                        meter.told.add(day)
                        self._tell_intervals(told, meter, day)
                if self.base == "checked" and meter is self.meters[0]:
                    self._tell_checks(told, meter)
            else:
                for hour in sorted(meter.dials):
                    held = self.withheld and meter is self.meters[0] and hour == SECOND * HOURS
                    if (
                        meter.begin <= hour <= min(meter.end, self.horizon * HOURS)
                        and not held
                        and hour not in meter.told
                    ):
                        meter.told.add(hour)
                        told.reads.append(
                            (meter.head_end, meter.name, meter.channel, at(hour), str(meter.dials[hour]), meter.version)
                        )

    def _tell_intervals(self, told: Told, meter: Meter, day: int) -> None:
        for hour in range(max(day * HOURS, meter.begin), min((day + 1) * HOURS, meter.end)):
            told.reads.append(
                (meter.head_end, meter.name, meter.channel, at(hour), str(meter.hours[hour]), meter.version)
            )
            if meter.sent:
                told.reads.append(
                    (meter.head_end, meter.name, "B1", at(hour), str(meter.sent.get(hour, _d("0"))), meter.version)
                )

    def _tell_checks(self, told: Told, meter: Meter, *, again: bool = False) -> None:
        """The register of an interval meter at each midnight gone by; ``again``: those told before too, as they are
        now.
        """
        for day in range(self.horizon + 1):
            if day * HOURS in meter.dials and not again:
                continue
            meter.dials[day * HOURS] = sum((meter.hours[h] for h in range(day * HOURS)), _d("1000"))
            shown = meter.dials[day * HOURS] + (_MISREAD if self.misread and day == 2 else 0)
            told.reads.append(("REGISTER-KWH", meter.name, "R1", at(day * HOURS), str(shown), meter.version))

    def _tell_account(self, told: Told, account: str) -> None:
        told.row("accounts", account_id=account, customer_class="residential", opened=date(2015, 1, 1))

    def _tell_agreements(self, told: Told) -> None:
        for a in self.agreements:
            told.row(
                "agreements",
                account_id=a.account,
                service_point_id=self.point,
                tariff_id=a.tariff,
                cycle_id=a.cycle,
                valid_from=day_of(a.first),
                valid_to=None if a.past is None else day_of(a.past),
            )

    def _tell_meter(self, told: Told, meter: Meter) -> None:
        commodity = "water" if self.water else "electricity"
        told.row("meters", meter_id=meter.name, commodity=commodity, head_end=meter.head_end)
        told.row(
            "channels",
            meter_id=meter.name,
            channel=meter.channel,
            kind=meter.kind,
            unit=meter.unit,
            interval_minutes=60 if meter.kind == "interval" else None,
            flow="import",
            multiplier=Decimal(1),
            dials=6,
            decimals=3,
            billed=True,
        )
        if meter is self.meters[0] and self.base in ("net", "checked"):
            register = self.base == "checked"
            told.row(
                "channels",
                meter_id=meter.name,
                channel="R1" if register else "B1",
                kind="register" if register else "interval",
                unit=meter.unit,
                interval_minutes=None if register else 60,
                flow="import" if register else "export",
                multiplier=Decimal(1),
                dials=6,
                decimals=3,
                billed=not register,
                sums_to="E1" if register else None,
            )
        self._tell_installation(told, meter)

    def _tell_installation(self, told: Told, meter: Meter) -> None:
        register = meter.kind == "register"
        installed = at(meter.begin) if meter is not self.meters[0] else datetime(2020, 1, 1, 6, tzinfo=UTC)
        told.row(
            "installations",
            service_point_id=self.point,
            meter_id=meter.name,
            installed_at=installed,
            removed_at=None if meter.end == NEVER else at(meter.end),
            install_read=meter.dials[meter.begin] if register and meter is not self.meters[0] else None,
            removal_read=meter.dials[meter.end] if register and meter.end != NEVER else None,
        )

    def _add_meter(self, kind: str, unit: str, begin: int, *, first: bool = False) -> Meter:
        meter = Meter(f"M-{self.number:05}-{len(self.meters) + 1}", kind, unit, begin)
        if kind == "interval":
            meter.hours = _true_hours(unit)
            if first and self.base == "demand":
                meter.hours[HOURS + 12] = _d("10")
            if first and self.base == "net":
                noons = [(d, d * HOURS + h) for d in range(DAYS) for h in range(10, 16)]
                meter.sent = {h: _d("3") if d < SECOND else _d("0.2") for d, h in noons}
        else:
            zero = _d("100") if first else _d("0")
            for hour in sorted({begin, *(h for h in (SECOND * HOURS, DAYS * HOURS) if h > begin)}):
                meter.dials[hour] = zero + _PACE[unit] * (hour - begin)
            if not first:
                meter.told.add(begin)  # the installation says it
        self.meters.append(meter)
        return meter

    # events

    def _late_read(self, told: Told) -> None:
        self.withheld = False

    def _corrected_read(self, told: Told) -> None:
        meter = self.meters[0]
        hourly, dial = _MORE[meter.unit]
        meter.version += 1
        if meter.kind == "interval":
            for hour in range(HOURS):
                meter.hours[hour] += hourly
            self._tell_intervals(told, meter, 0)
            if self.base == "checked":
                self.misread = False
                self._tell_checks(told, meter, again=True)
            return
        closing = SECOND * HOURS
        # A dial never stands above the read that follows it: more corrections than the next period's usage bears change
        # nothing.
        following = min((h for h in meter.dials if h > closing), default=None)
        if meter.end <= closing or (following is not None and meter.dials[closing] + dial > meter.dials[following]):
            return
        meter.dials[closing] += dial
        self.misread = False
        if closing in meter.told:
            self._tell_closing_read(told, meter)

    def _exchange(self, told: Told, kind: str, unit: str) -> None:
        noon = (self.exchanges + 1) * HOURS + 12
        if noon > (DAYS - 1) * HOURS:
            return
        self.exchanges += 1
        old = self.meters[-1]
        if old.kind == "register":
            dials = sorted(old.dials.items())
            for (before, low), (after, high) in itertools.pairwise(dials):
                if before <= noon <= after:
                    old.dials[noon] = low + (high - low) * (noon - before) / (after - before)
            old.told.add(noon)
        old.end = noon
        self._tell_installation(told, old)
        self._tell_meter(told, self._add_meter(kind, unit, noon))

    def _exchange_kind(self, told: Told) -> None:
        old = self.meters[-1]
        self._exchange(told, "register" if old.kind == "interval" else "interval", old.unit)

    def _exchange_unit(self, told: Told) -> None:
        old = self.meters[-1]
        self._exchange(told, old.kind, "m3" if old.unit == "gal" else "gal")

    def _from(self, told: Told, day: int, **changes: str) -> None:
        """Another account, tariff or cycle from a day on."""
        after: list[Agreement] = []
        for a in self.agreements:
            begins, ends = a.first, NEVER if a.past is None else a.past
            if begins < day:
                after.append(
                    Agreement(
                        a.account, a.tariff, a.cycle, begins, min(ends, day) if ends != NEVER or day < ends else None
                    )
                )
            if ends > day:
                values = {"account": a.account, "tariff": a.tariff, "cycle": a.cycle} | changes
                after.append(Agreement(**values, first=max(begins, day), past=a.past))
        self.agreements = after
        self._tell_agreements(told)

    def _move(self, told: Told) -> None:
        if self.gone:
            return
        account = f"B-{self.number:05}"
        self._tell_account(told, account)
        self.moved_on = 1
        self._from(told, 1, account=account)

    def _move_corrected(self, told: Told) -> None:
        """The second day is the other account's after all, or it is not."""
        if self.moved_on is None or self.gone:
            return
        self.moved_on = 3 - self.moved_on
        account = f"{'A' if self.moved_on == 2 else 'B'}-{self.number:05}"
        before = {a.first for a in self.agreements}
        days = [
            replace(self._agreement_on(first), first=first, past=past)
            for first, past in ((-1000, 1), (1, 2), (2, None))
        ]
        days[1] = replace(days[1], account=account)
        self.agreements = joined(days)
        gone = sorted(before - {a.first for a in self.agreements})
        told.removed += [("agreements", (self.point, day_of(first).isoformat())) for first in gone]
        self._tell_agreements(told)

    def _left(self, told: Told) -> None:
        self.gone = True
        later = [a.first for a in self.agreements if a.first >= 1]
        told.removed += [("agreements", (self.point, day_of(first).isoformat())) for first in later]
        self.agreements = [replace(a, past=1) for a in self.agreements if a.first < 1]
        self._tell_agreements(told)

    def _agreement_on(self, day: int) -> Agreement:
        return next(a for a in self.agreements if a.first <= day and (a.past is None or a.past > day))

    def _misread(self, told: Told) -> None:
        meter = self.meters[0]
        meter.version += 1
        if self.base == "checked":
            self.misread = True
            self._tell_checks(told, meter, again=True)
        elif meter.end > SECOND * HOURS and SECOND * HOURS in meter.told:
            self.misread = True
            self._tell_closing_read(told, meter)

    def _tell_closing_read(self, told: Told, meter: Meter) -> None:
        closing = SECOND * HOURS
        shown = meter.dials[closing] + (_IMPOSSIBLE if self.misread else 0)
        told.reads.append((meter.head_end, meter.name, meter.channel, at(closing), str(shown), meter.version))

    def all_comes_in(self) -> Told:
        """At the very end the read that was missing comes, and one that was misread comes again, right."""
        told = Told()
        self.withheld = False
        self.tell_reads(told)
        if self.misread and self.base == "register":
            self.misread = False
            self.meters[0].version += 1
            self._tell_closing_read(told, self.meters[0])
        return told

    def _release(self, told: Told) -> None:
        told.released.append(self.point)

    def _register_edit(self, told: Told) -> None:
        meter, closing = self.meters[0], SECOND * HOURS
        following = min((h for h in meter.dials if h > closing), default=None)
        value = meter.dials[closing] + _READ_MORE[meter.unit]
        if meter.end <= closing or (following is not None and value > meter.dials[following]):
            return
        if self.read_on_site is not None:
            told.read_edits_withdrawn.append(meter.name)
        self.read_on_site = value
        told.read_edits.append((meter.name, meter.channel, at(closing), str(value)))

    def _register_edit_withdrawn(self, told: Told) -> None:
        if self.read_on_site is not None:
            told.read_edits_withdrawn.append(self.meters[0].name)
        self.read_on_site = None

    def _tariff_change(self, told: Told) -> None:
        self._from(told, 2, tariff="W-OTHER" if self.water else "E-OTHER")

    def _tariff_amended(self, told: Told) -> None:
        self.amended = True
        told.amended.add(f"{'W' if self.water else 'E'}-AMENDED-{self.amend_step}")

    def _cycle_change(self, told: Told) -> None:
        self._from(told, 2, cycle="C2")

    def _edit(self, told: Told) -> None:
        hour = 2 * HOURS + 4
        meter = next((m for m in self.meters if m.begin <= hour < m.end), None)
        if meter is None or meter.kind != "interval":
            return
        name = f"{meter.name}-{len(self.edited)}"
        value = meter.hours[hour] + (_d("3") if meter.unit == "kWh" else _d("2") if meter.unit == "m3" else _d("25"))
        self.edited = {name: (meter, hour, value)}
        told.edits.append((meter.name, meter.channel, day_of(2), hour % HOURS + 1, int(value * 1_000_000)))

    def _edit_withdrawn(self, told: Told) -> None:
        for meter, _, _ in self.edited.values():
            told.withdrawn.append(meter.name)
        self.edited = {}

    def accounts(self) -> Iterator[str]:
        yield f"A-{self.number:05}"
        if any(a.account.startswith("B") for a in self.agreements):
            yield f"B-{self.number:05}"

    def _approve(self, told: Told) -> None:
        told.decided += [(account, True) for account in self.accounts()]

    def _refuse(self, told: Told) -> None:
        told.decided += [(account, False) for account in self.accounts()]
