"""Dated rules of leak adjustments, applied to a bill: its normal use, the use above that, and the forgiven part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any, Final

_YEAR: Final = frozenset(range(1, 13))
TABLE: Final = "leak_adjustment_rules"


class LeakRefusedError(ValueError):
    """A leak that is not adjusted; the message says why and names the next step."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``seasons``: months whose bills are compared with each other; ``periods`` and ``least``: how many earlier bills
    make the normal use, at most and at least; ``share`` and ``sewer_share``: percent of the use above normal that is
    not charged, the second for the charges in ``sewer_codes``; ``months_between``: months between bills adjusted for
    two leaks; ``most_bills``: bills of one leak; ``evidence``: documents that the customer must show."""

    customer_class: str
    valid_from: date
    seasons: tuple[frozenset[int], ...]
    periods: int
    least: int
    share: Decimal
    sewer_codes: frozenset[str]
    sewer_share: Decimal
    months_between: int
    most_bills: int
    evidence: str


def rule_of(row: Mapping[str, Any]) -> Rule:
    """A rule of a row of ref.leak_adjustment_rules. Raises LeakRefusedError."""
    where = f"class {row['customer_class']}"
    seasons = tuple(_months(part, where) for part in str(row["seasons"] or "").split("/") if part.strip()) or (_YEAR,)
    months = sorted(month for season in seasons for month in season)
    if months != sorted(_YEAR):
        missing = sorted(_YEAR - set(months))
        why = f"no season holds month {missing[0]}" if missing else "a month is in two seasons"
        raise LeakRefusedError(f"{where}: seasons {row['seasons']!r}: {why}")
    share = Decimal(row["share_percent"])
    sewer = share if row["sewer_share_percent"] is None else Decimal(row["sewer_share_percent"])
    checks = {
        "share_percent": 0 <= share <= 100,
        "sewer_share_percent": 0 <= sewer <= 100,
        "normal_periods": row["normal_periods"] > 0,
        "least_periods": 1 <= row["least_periods"] <= row["normal_periods"],
        "months_between": row["months_between"] >= 0,
        "most_bills": row["most_bills"] > 0,
    }
    for column, in_range in checks.items():
        if not in_range:
            raise LeakRefusedError(f"{where}: {column} {row[column]} is out of range")
    return Rule(
        row["customer_class"],
        row["valid_from"],
        seasons,
        row["normal_periods"],
        row["least_periods"],
        share,
        frozenset(str(row["sewer_codes"] or "").split()),
        sewer,
        row["months_between"],
        row["most_bills"],
        str(row["evidence"] or "").strip(),
    )


def _months(text: str, where: str) -> frozenset[int]:
    """The months of a season from text like "11 12 1". Raises LeakRefusedError, which names ``where`` it stands."""
    parts = text.split()
    if any(not p.isdigit() or not 1 <= int(p) <= 12 for p in parts) or len(set(parts)) != len(parts):
        raise LeakRefusedError(f"{where}: seasons {text.strip()!r} are not numbers from 1 to 12 with blanks between")
    return frozenset(map(int, parts))


def chosen(rows: Sequence[Mapping[str, Any]], customer_class: str, day: date) -> Rule:
    """The rule of a class on a day: its own before that of every class. Raises LeakRefusedError where there is none."""
    found = {
        row["customer_class"]: row
        for row in rows
        if row["valid_from"] <= day and (row["valid_to"] is None or day < row["valid_to"])
    }
    row = found.get(customer_class, found.get("*"))
    if row is None:
        raise LeakRefusedError(
            f"no rule for class {customer_class} is in force on {day}: add one to reference/{TABLE}.csv and import it"
        )
    return rule_of(row)


@dataclass(frozen=True, slots=True)
class Forgiven:
    """Result of a rule for a bill, in millionths of its unit. ``normal``: use of as many days; ``water`` and ``sewer``:
    use that water and sewer charges do not count; ``periods``: every earlier bill with why it was left out."""

    used: int
    normal: int
    water: int
    sewer: int
    periods: list[dict[str, Any]]


def forgive(
    rule: Rule,
    bill: Mapping[str, Any],
    earlier: Sequence[Mapping[str, Any]],
    leaks: Sequence[tuple[date, date, str]],
    began: date,
) -> Forgiven:
    """Returns the forgiven part of a bill of a leak that ``began`` on a day.

    ``bill`` and ``earlier`` (oldest first): period_end, first_day, past_day, days, quantity (millionths), unit,
    estimated. The normal use is that of all days of the earlier bills that count, divided by those days, for the bill's
    days, rounded half to even. Raises LeakRefusedError where too few bills count or no more than normal was used.
    """
    season = next(s for s in rule.seasons if _month(bill) in s)
    judged: list[dict[str, Any]] = []
    counted: list[Mapping[str, Any]] = []
    for row in reversed(earlier):
        why = _left_out(row, bill, season, leaks, began)
        if not why and len(counted) == rule.periods:
            why = f"before the {rule.periods} that count"
        if not why:
            counted.append(row)
        judged.append(
            {
                "from": str(row["first_day"]),
                "to": str(row["past_day"]),
                "days": row["days"],
                "quantity": quantity(row["quantity"]),
                "left_out": why,
            }
        )
    if len(counted) < rule.least:
        raise LeakRefusedError(
            f"normal use is not known: {len(counted)} earlier bills of the season count, the rule of class "
            f"{rule.customer_class} from {rule.valid_from} asks for {rule.least}"
        )
    days = sum(row["days"] for row in counted)
    normal = max(round(Fraction(sum(row["quantity"] for row in counted) * bill["days"], days)), 0)
    excess = bill["quantity"] - normal
    if excess <= 0:
        raise LeakRefusedError(
            f"{quantity(bill['quantity'])} {bill['unit']} were used, and {quantity(normal)} are normal: "
            "nothing is above normal"
        )
    return Forgiven(bill["quantity"], normal, _part(excess, rule.share), _part(excess, rule.sewer_share), judged[::-1])


def _month(bill: Mapping[str, Any]) -> int:
    """The month of a bill: that of its period's last day."""
    return int((bill["period_end"] - timedelta(days=1)).month)


def _left_out(
    row: Mapping[str, Any],
    bill: Mapping[str, Any],
    season: frozenset[int],
    leaks: Sequence[tuple[date, date, str]],
    began: date,
) -> str:
    """Why an earlier bill does not count towards the normal use; empty where it does."""
    if row["past_day"] > began:
        return "the leak had begun"
    if _month(row) not in season:
        return "another season"
    if row["unit"] != bill["unit"]:
        return f"counted in {row['unit']}"
    if row["estimated"]:
        return "no read"
    leak = next((case for first, last, case in leaks if first < row["past_day"] and last >= row["first_day"]), None)
    return "" if leak is None else f"confirmed leak, case {leak}"


def _part(excess: int, percent: Decimal) -> int:
    """A percentage of millionths, rounded half to even."""
    return int((Decimal(excess) * percent / 100).quantize(Decimal(1), ROUND_HALF_EVEN))


def quantity(micro: int) -> str:
    """Millionths as exact decimal text without needless zeros."""
    text = format(Decimal(micro).scaleb(-6), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def months_apart(first: date, second: date, months: int) -> bool:
    """Whether two days lie at least so many months apart, whichever comes first."""
    early, late = sorted((first, second))
    return (late.year * 12 + late.month, late.day) >= (early.year * 12 + early.month + months, early.day)
