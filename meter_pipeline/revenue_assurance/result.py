"""The result of the law for some days: findings, totals, and their text."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """A day of a service point with a quantity that waits or is unexplained (open). Quantities in millionths of
    ``unit``. ``supply``: of a supply meter, which is billed to no account."""

    service_point_id: str
    billing_day: date
    validated: int
    billed: int
    accrued: int
    waiting: int
    unit: str
    why: str
    ok: bool
    supply: int = 0


@dataclass(slots=True)
class LawResult:
    """Result of the law for some days. ``totals``: by unit, (validated, billed, accrued, waiting, supply) in
    millionths. ``supply_meters``: service days of supply meters. ``bills_waiting`` and ``bills_open``: bills of these
    days that wait or are wrong, as text. ``waived``: corrections that a back-billing rule limits, as text."""

    first: date
    last: date
    service_points: int = 0
    days: int = 0
    supply_meters: int = 0
    totals: dict[str, list[int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    bills_waiting: list[str] = field(default_factory=list)
    bills_open: list[str] = field(default_factory=list)
    waived: list[str] = field(default_factory=list)

    @property
    def open(self) -> list[Finding]:
        return [f for f in self.findings if not f.ok]

    @property
    def ok(self) -> bool:
        return not self.open and not self.bills_open

    def document(self) -> dict[str, Any]:
        """The JSON of `billing law`: quantities are exact decimals as text."""
        shown = {"billing_day", "service_point_id", "unit", "why"}

        def row(f: Finding) -> dict[str, Any]:
            numbers = {name: text(getattr(f, name)) for name in ("validated", "billed", "accrued", "waiting")}
            return {name: getattr(f, name) for name in sorted(shown)} | numbers

        names = ("validated", "billed", "accrued", "waiting", "supply")
        return {
            "ok": self.ok,
            "first": self.first,
            "last": self.last,
            "service_points": self.service_points,
            "days": self.days,
            "supply_meter_days": self.supply_meters,
            "totals": [
                {"unit": unit, **dict(zip(names, map(text, sums), strict=True))}
                for unit, sums in sorted(self.totals.items())
            ],
            "open": [row(f) for f in self.open],
            "waiting": [row(f) for f in self.findings if f.ok],
            "bills_open": self.bills_open,
            "bills_waiting": self.bills_waiting,
            "waived": self.waived,
        }

    def sentence(self) -> str:
        """One line for a check, a report or a checklist."""
        if not self.days:
            if self.first == self.last:
                return f"{self.first} is not billed, so that it cannot be checked"
            return f"no day from {self.first} to {self.last} is billed, so that they cannot be checked"
        if self.ok:
            waiting = len([f for f in self.findings if f.ok])
            return f"{self.service_points} service points: all usage is billed, accrued or waiting for a reason ({waiting} wait)"
        first = [f"{f.service_point_id} {f.billing_day}: {f.why}" for f in self.open[:3]] + self.bills_open[:3]
        return f"{len(self.open)} service days and {len(self.bills_open)} bills are open: " + "; ".join(first[:3])


def text(micro: int) -> str:
    """Millionths as an exact decimal's text."""
    value = Decimal(micro).scaleb(-6)
    return format(value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize(), "f")


def cents(amount: Decimal) -> str:
    """Formats an amount for people, without trailing zeros beyond the cents."""
    return format(
        max(amount.normalize(), amount.quantize(Decimal("0.01")), key=lambda a: -int(a.as_tuple().exponent)), "f"
    )
