"""Rules of winter averages: dated rows of reference/winter_average_rules.csv, read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

TABLE: Final = "winter_average_rules"


class WinterAverageRefusedError(ValueError):
    """Averages that cannot be worked out; the message names the rule and the next step."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How an average is worked out. ``months``: whose billing periods count, by the month of a period's last day;
    ``default``: quantity a day where fewer than ``least`` periods are left."""

    months: frozenset[int]
    drop_high: int
    drop_low: int
    least: int
    default: Decimal | None


def faults_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Returns the fault of a row: column and reason."""
    parts = str(row["months"]).split()
    if not parts or any(not p.isdigit() or not 1 <= int(p) <= 12 for p in parts):
        yield "months", f"{row['months']!r} are not numbers from 1 to 12 with blanks between"
    for column, least in (("drop_high", 0), ("drop_low", 0), ("least_periods", 1)):
        if row[column] < least:
            yield column, f"{row[column]} is below {least}"
    if row["default_per_day"] is not None and row["default_per_day"] < 0:
        yield "default_per_day", f"{row['default_per_day']} is below 0"


def rule_of(row: Mapping[str, Any]) -> Rule:
    """A rule of a row. Raises WinterAverageRefusedError."""
    for column, why in faults_of(row):
        raise WinterAverageRefusedError(f"{TABLE}.csv, class {row['customer_class']}: {column} {why}")
    return Rule(
        frozenset(map(int, str(row["months"]).split())),
        row["drop_high"],
        row["drop_low"],
        row["least_periods"],
        row["default_per_day"],
    )
