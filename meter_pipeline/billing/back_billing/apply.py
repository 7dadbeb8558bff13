"""A correction under the back-billing rules: the waived part, as lines of a policy adjustment that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.back_billing import tables
from meter_pipeline.billing.back_billing.rules import (
    INTEREST,
    INTEREST_KEY,
    Correction,
    Key,
    RuledCorrection,
    Standing,
    chosen,
    judge,
)
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.driver import Connection

TABLE: Final = "billing.back_billing"
#: Key of a row beside its adjustment
KEY: Final = ("service_point_id",)
_KEY: Final = ["service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end", "line_key"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the back-billing rules allow of a correction. ``judged``: by service point. ``lines``: the lines of the
    policy adjustment, with the columns of the correction's lines."""

    judged: Mapping[str, RuledCorrection]
    corrected_on: date
    lines: pl.DataFrame

    @property
    def gross(self) -> int:
        """Sum of the absolute amounts of the policy adjustment's lines, in millionths."""
        return int(self.lines["amount"].abs().sum() or 0)

    def rows(self, policy_adjustment: str) -> list[dict[str, Any]]:
        """Rows of billing.back_billing, without the correction's name."""
        return [
            {
                "service_point_id": point,
                "rule_commodity": each.rule.commodity,
                "rule_class": each.rule.customer_class,
                "rule_from": each.rule.valid_from,
                "corrected_on": self.corrected_on,
                "limit_day": each.limit_day,
                "full_amount": _amount(each.full),
                "allowed": _amount(each.allowed),
                "waived": _amount(each.waived),
                "interest": _amount(each.interest),
                "why": each.why,
                "instalments": each.instalments,
                "policy_adjustment": policy_adjustment if self.lines.height else None,
            }
            for point, each in sorted(self.judged.items())
        ]

    def explanation(self) -> str:
        """The rule and the amounts in one line, for the evidence of both adjustments."""
        return "; ".join(
            f"{point} by {each.rule.name}: full {_amount(each.full):f}, allowed {_amount(each.allowed):f}, waived {_amount(each.waived):f}, "
            f"interest {_amount(each.interest):f}: {each.why}"
            for point, each in sorted(self.judged.items())
        )


def policy_of(
    connection: Connection,
    calendar: BillingCalendar,
    statement_id: str,
    lines: pl.DataFrame,
    corrected_on: date | None,
    now: datetime,
) -> Policy | None:
    """Apply the rules to the correction of a statement. Returns None where no rule is in force or no amount changes.

    ``lines``: billing.adjustments.Proposal.lines. ``corrected_on``: the day on which reference data was corrected; None
    where a read changed the bill. Rules that cover reads then apply as of ``now``.
    """
    rules = tables.rules(connection) if lines.height else []
    if not rules:
        return None
    day = corrected_on or calendar.day_of(now)
    customer_class, issued_at = tables.bill(connection, statement_id)
    names = list(dict.fromkeys(lines.select("tariff_id", "tariff_version").iter_rows()))
    commodities = tables.commodities(connection, names)
    standing = tables.standing(connection, statement_id)
    judged: dict[str, RuledCorrection] = {}
    for (point,), part in sorted(lines.group_by("service_point_id"), key=lambda item: str(item[0])):
        tariff, version = part.select("tariff_id", "tariff_version").row(0)
        rule = chosen(rules, commodities.get((tariff, version), ""), customer_class, day)
        if rule is None or (corrected_on is None and rule.covers == "corrections"):
            continue
        moved = part.group_by(_KEY).agg(pl.col("amount").sum()).filter(pl.col("amount") != 0).sort(_KEY)
        keys: dict[Key, int] = {row[:6]: row[6] for row in moved.iter_rows()}
        correction = Correction(keys, day, calendar.day_of(issued_at))
        judged[str(point)] = judge(rule, correction, standing.get(str(point), Standing()))
    if not judged:
        return None
    return Policy(judged, day, _lines(judged, lines))


def _lines(judged: Mapping[str, RuledCorrection], lines: pl.DataFrame) -> pl.DataFrame:
    """The policy adjustment's lines: the waived part of each line, and interest."""
    known = {tuple(row[c] for c in _KEY): row for row in lines.to_dicts()}
    made: list[dict[str, Any]] = []
    for point, each in sorted(judged.items()):
        of = {key: row for key, row in known.items() if key[0] == point}
        first = next(iter(of.values()))
        for key, amount in each.lines.items():
            like = of.get(key, first)
            made.append(_line(like, key, amount, f"{like['name']} (waived)", str(like["component"])))
        if each.interest:
            key = (*tuple(first[c] for c in _KEY[:5]), INTEREST_KEY)
            made.append(_line(first, key, -each.interest, "Interest on refund", INTEREST))
    return pl.DataFrame(made, schema=lines.schema)


def _line(like: Mapping[str, Any], key: tuple[Any, ...], amount: int, name: str, component: str) -> dict[str, Any]:
    return {
        **like,
        **dict(zip(_KEY, key, strict=True)),
        "action": "cancel" if amount < 0 else "rebill",
        "original_line_no": None,
        "name": name,
        "component": component,
        "quantity": None,
        "amount": amount,
    }


def _amount(micro: int) -> Decimal:
    return Decimal(micro).scaleb(-6)
