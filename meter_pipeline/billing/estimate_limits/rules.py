"""Which limit holds for an estimated bill, and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True, slots=True)
class LimitAction:
    """What the limits make of an estimated bill. ``action``: none, hold or read_request; ``rule``: the one that says
    so, or the nearest that holds."""

    action: str
    most_bills: int | None
    shown: bool
    rule: str


def limit_action(
    rows: Sequence[Mapping[str, Any]],
    service: Mapping[str, Any],
    cause: str,
    in_a_row: int,
    of_cause: int,
    day: date,
) -> LimitAction:
    """The limits of a ``service`` (customer_class, commodity) on a day. A rule of a cause counts the bills of that
    cause, one of every cause all of them; where both are passed a hold comes before a request."""
    passed: list[LimitAction] = []
    nearest: LimitAction | None = None
    shown = False
    for asked, count in ((cause, of_cause), ("*", in_a_row)):
        rule = _chosen(rows, service, asked, day)
        if rule is None:
            continue
        shown = shown or bool(rule["count_on_bill"])
        name = f"{rule['customer_class']}, {rule['commodity']}, {rule['cause']} from {rule['valid_from']}"
        over = count > rule["most_bills"]
        action = LimitAction(rule["action"] if over else "none", rule["most_bills"], shown, name)
        nearest = nearest or action
        if over:
            passed.append(action)
    chosen = next((p for p in passed if p.action == "hold"), passed[0] if passed else nearest)
    if chosen is None:
        return LimitAction("none", None, False, "")
    return LimitAction(chosen.action, chosen.most_bills, shown, chosen.rule)


def _chosen(
    rows: Sequence[Mapping[str, Any]], service: Mapping[str, Any], cause: str, day: date
) -> Mapping[str, Any] | None:
    """The rule of a cause: that of the class before that of the commodity before that of all."""
    applicable = [
        row
        for row in rows
        if row["cause"] == cause
        and row["customer_class"] in (service["customer_class"], "*")
        and row["commodity"] in (service["commodity"], "*")
        and row["valid_from"] <= day
        and (row["valid_to"] is None or day < row["valid_to"])
    ]
    return min(applicable, key=lambda row: (row["customer_class"] == "*", row["commodity"] == "*"), default=None)
