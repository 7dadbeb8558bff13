"""Dated back-billing rules and their result for a correction: allowed and waived amount, interest, instalments.

Amounts are integers, millionths of the currency. The waived part has a line for every line of the correction that it
takes back, so that full amount = allowed + waived exactly.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

TABLE: Final = "back_billing_rules"
#: A line of a bill: service_point_id, tariff_id, tariff_version, segment_start, segment_end, line_key
Key = tuple[str, str, int, date, date, str]
_CENT: Final = 10_000
#: Component and key of the line that credits interest
INTEREST: Final = "interest"
INTEREST_KEY: Final = "INTEREST"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of ref.back_billing_rules."""

    commodity: str
    customer_class: str
    covers: str
    charge_months: int | None
    credit_months: int | None
    unknown_beginning: str
    unknown_most_months: int | None
    tolerance_percent: Decimal
    interest_percent: Decimal | None
    day_count: str
    instalments: str
    instalment_months: int | None
    waive_below: Decimal | None
    source: str
    valid_from: date
    valid_to: date | None

    @property
    def name(self) -> str:
        """The name in an adjustment."""
        return f"rule {self.commodity}, {self.customer_class} from {self.valid_from} ({self.source})"


def chosen(rules: Iterable[Rule], commodity: str, customer_class: str, day: date) -> Rule | None:
    """Returns the rule of a commodity and class in force on a day: that of the class before that of the commodity
    before that of all; None where there is none."""
    applicable = [
        rule
        for rule in rules
        if rule.customer_class in (customer_class, "*")
        and rule.commodity in (commodity, "*")
        and rule.valid_from <= day
        and (rule.valid_to is None or day < rule.valid_to)
    ]
    return min(applicable, key=lambda r: (r.customer_class == "*", r.commodity == "*"), default=None)


def faults_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the faults of a row of the rules' file: column and reason."""
    found = [
        (column, f"{row[column]} is below 0")
        for column in ("charge_months", "credit_months", "waive_below")
        if row[column] is not None and row[column] < 0
    ]
    if row["unknown_most_months"] is not None and row["unknown_most_months"] <= 0:
        found.append(("unknown_most_months", "must be above 0; leave it empty for no limit"))
    found += [
        (column, f"{row[column]} is not from 0 to 100")
        for column in ("tolerance_percent", "interest_percent")
        if row[column] is not None and not 0 <= row[column] <= 100
    ]
    if (row["instalments"] == "months") != (row["instalment_months"] is not None):
        found.append(("instalment_months", "is filled where instalments is months, and empty otherwise"))
    elif row["instalment_months"] is not None and row["instalment_months"] <= 0:
        found.append(("instalment_months", "must be above 0"))
    return found


def months_before(day: date, months: int) -> date:
    """The same day so many months earlier, or the last of its month where there is none."""
    at = day.year * 12 + day.month - 1 - months
    year, month = divmod(at, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def days_between(first: date, past: date, day_count: str) -> tuple[int, int]:
    """Days from one date to another and days of a year, by a day count."""
    if day_count == "30/360":
        # Bond basis: a 31st counts as a 30th where the other end is one too (ISDA 2006, 4.16(f)).
        d1 = min(first.day, 30)
        d2 = 30 if past.day == 31 and d1 == 30 else past.day
        return (past.year - first.year) * 360 + (past.month - first.month) * 30 + d2 - d1, 360
    return (past - first).days, 360 if day_count == "actual/360" else 365


@dataclass(frozen=True, slots=True)
class Standing:
    """The sums of earlier corrections of a service's bill under the policy, posted and not refused. ``lines``: the
    lines of their policy adjustments, summed by key, without interest."""

    full: int = 0
    waived: int = 0
    interest: int = 0
    lines: Mapping[Key, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuledCorrection:
    """A rule's result for the correction of a service's bill. ``full`` = ``allowed`` + ``waived``; ``lines``: the
    change of each line by the policy adjustment (their sum is -``waived``); ``interest``: credited beside them."""

    rule: Rule
    full: int
    waived: int
    interest: int
    limit_day: date | None
    why: str
    instalments: int | None
    lines: dict[Key, int]

    @property
    def allowed(self) -> int:
        return self.full - self.waived


@dataclass(frozen=True, slots=True)
class Correction:
    """The correction of a service's bill: its lines' change by key (millionths), the day of the correction, and the day
    on which the bill was issued."""

    lines: Mapping[Key, int]
    corrected_on: date
    issued_on: date


def judge(rule: Rule, correction: Correction, standing: Standing) -> RuledCorrection:
    """Apply a rule to a correction.

    A charge counts back ``charge_months``, a credit ``credit_months``: a line with days before that day counts with the
    share of its later days. A correction that takes back an earlier one takes back its waived and credited amounts in
    the same share; only the rest is subject to the rule.
    """
    full = sum(correction.lines.values())
    undone, back, interest_back = _taken_back(full, standing)
    rest = full - undone
    lines = dict(back)
    reasons: list[str] = []
    if undone:
        reasons.append(f"{_money(undone)} takes back an earlier correction, with what was waived of it")
    limit: date | None = None
    interest = -interest_back
    months: int | None = None
    if rest:
        months = rule.charge_months if rest > 0 else rule.credit_months
        limit = None if months is None else months_before(correction.corrected_on, months)
        part, words = _not_allowed(rule, correction, limit, Decimal(rest) / Decimal(full))
        left = rest + sum(part.values())
        if rest > 0 and rule.waive_below is not None and left < rule.waive_below * 1_000_000:
            part = _scaled({k: -v for k, v in correction.lines.items()}, Decimal(rest) / Decimal(full), -rest)
            words = f"a charge below {_plain(rule.waive_below)} is waived"
            left = 0
        for key, amount in part.items():
            lines[key] = lines.get(key, 0) + amount
        reasons.append(words)
        if rest < 0 and left < 0 and rule.interest_percent:
            days, year = days_between(correction.issued_on, correction.corrected_on, rule.day_count)
            earned = _cents(Decimal(-left) * rule.interest_percent * max(days, 0) / (100 * year))
            interest += earned
            reasons.append(
                f"interest of {_plain(rule.interest_percent)} % a year ({rule.day_count}) on {_money(-left)} for {max(days, 0)} days "
                f"from {correction.issued_on}: {_money(earned)}"
            )
        offered = _instalments(rule, correction) if left > 0 else None
    else:
        offered = None
    lines = {key: amount for key, amount in lines.items() if amount}
    why = "; ".join(words for words in reasons if words) or "the bill's sum stays"
    return RuledCorrection(rule, full, -sum(lines.values()), interest, limit, why, offered, lines)


def _taken_back(full: int, standing: Standing) -> tuple[int, dict[Key, int], int]:
    """Returns the part of a correction that takes back earlier ones, and the waived lines and interest that it gives
    back."""
    if not standing.full or not full or (full > 0) == (standing.full > 0):
        return 0, {}, 0
    undone = max(full, -standing.full) if full < 0 else min(full, -standing.full)
    share = Decimal(abs(undone)) / Decimal(abs(standing.full))
    whole = abs(undone) == abs(standing.full)
    back = _scaled(
        {k: -v for k, v in standing.lines.items()},
        share,
        standing.waived if whole else _cents(Decimal(standing.waived) * share),
    )
    interest = standing.interest if whole else _cents(Decimal(standing.interest) * share)
    return undone, back, interest


def _not_allowed(rule: Rule, correction: Correction, limit: date | None, share: Decimal) -> tuple[dict[Key, int], str]:
    """Returns the lines that take back the days before the limit; ``share``: the part of each line under the rule."""
    if limit is None:
        return {}, "no limit of time"
    part: dict[Key, int] = {}
    for key, amount in correction.lines.items():
        start, end = key[3], key[4]
        days = (end - start).days
        before = min(max((limit - start).days, 0), days)
        if before:
            part[key] = -(amount if before == days and share == 1 else _cents(Decimal(amount) * share * before / days))
    taken = sum(part.values())
    full = sum(correction.lines.values())
    rest = int(Decimal(full) * share)
    if not taken or (taken > 0) == (rest > 0):  # A limit never makes a charge or a credit larger.
        return {}, f"no day before {limit}" if not part else f"what lies before {limit} does not make it larger"
    reason = f"days before {limit} are not {'charged' if rest > 0 else 'credited'}"
    if abs(taken) >= abs(rest):  # Nor does it turn one into the other.
        return _scaled({key: -amount for key, amount in correction.lines.items()}, share, -rest), reason
    return part, reason


def _scaled(lines: Mapping[Key, int], share: Decimal, total: int) -> dict[Key, int]:
    """Returns lines times a share, in cents; the last of them is set so that they sum to ``total``."""
    if share == 1:
        return dict(lines)
    found = {key: _cents(Decimal(amount) * share) for key, amount in lines.items()}
    if found:
        last = max(found, key=lambda key: abs(lines[key]))
        found[last] += total - sum(found.values())
    return found


def _instalments(rule: Rule, correction: Correction) -> int | None:
    """Returns the months of instalments offered for a charge."""
    if rule.instalments == "months":
        return rule.instalment_months
    if rule.instalments == "none":
        return None
    first = min(key[3] for key in correction.lines)
    months = 1
    while months_before(correction.corrected_on, months) > first:
        months += 1
    return months


def begins(rule: Rule, tested_on: date, good_on: date) -> tuple[date, str]:
    """Returns the first day for which a meter is treated as wrong where that is unknown, and the reason: by its last
    good test or installation, and the rule's limit."""
    half = rule.unknown_beginning == "half_since_test"
    first = tested_on - timedelta(days=(tested_on - good_on).days // 2) if half else good_on
    reason = f"half the time since {good_on}" if half else f"since {good_on}"
    if rule.unknown_most_months is not None:
        bound = months_before(tested_on, rule.unknown_most_months)
        if bound > first:
            return bound, f"{rule.unknown_most_months} months, the rule's limit"
    return first, reason


def _cents(amount: Decimal) -> int:
    return int((amount / _CENT).quantize(Decimal(1), ROUND_HALF_EVEN)) * _CENT


def _money(micro: int) -> str:
    return _plain(Decimal(micro).scaleb(-6))


def _plain(amount: Decimal) -> str:
    short = amount.normalize()
    exponent = short.as_tuple().exponent
    return format(short.quantize(Decimal("0.01")) if isinstance(exponent, int) and exponent > -2 else short, "f")


def rule_of(row: Mapping[str, Any]) -> Rule:
    """A rule of a row."""
    return Rule(**{name: row[name] for name in Rule.__dataclass_fields__})


def rules_of(rows: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Rules of rows."""
    return [rule_of(row) for row in rows]
