"""Computes the amounts of the end of a bill and of a billing year: money credits spent, the annual minimum, credit
paid out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.bill_position import EXACT_PLACES, MONEY_PLACES
from meter_pipeline.billing.fixed_point import Whole, product, quotient, same_scale, scaled, total
from meter_pipeline.billing.span_pricing import EarlierParts
from meter_pipeline.billing.statement_frames import LINE_SCHEMA, SEGMENT_SCHEMA, Period, Precision
from meter_pipeline.billing.tariffs.model import MinimumCharge, Tariff


@dataclass(slots=True)
class RunningSums:
    """The sums so far of the parts of each of ``bills`` numbered bills."""

    bills: int
    by_code: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    least: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    exact_by_code: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    exact: npt.NDArray[Any] | None = None
    rounded: npt.NDArray[Any] | None = None
    lines: npt.NDArray[Any] | None = None

    def of(self, bills: npt.NDArray[np.int64]) -> EarlierParts:
        """The sums of some bills."""
        if self.exact is None or self.rounded is None:
            return EarlierParts()
        return EarlierParts(
            {code: sums[bills] for code, sums in self.by_code.items()},
            {code: sums[bills] for code, sums in self.least.items()},
            self.exact[bills],
            self.rounded[bills],
            {code: sums[bills] for code, sums in self.exact_by_code.items()},
        )

    def put(self, bills: npt.NDArray[np.int64], came_to: EarlierParts) -> None:
        """Set the sums of some bills."""
        if self.exact is None or self.rounded is None:
            self.exact, self.rounded = (np.zeros(self.bills, dtype=object) for _ in range(2))
        pairs = (self.by_code, came_to.by_code), (self.least, came_to.least)
        for sums, now in (*pairs, (self.exact_by_code, came_to.exact_by_code)):
            for code, values in now.items():
                sums.setdefault(code, np.zeros(self.bills, dtype=object))[bills] = values
        self.exact[bills], self.rounded[bills] = came_to.exact, came_to.rounded

    def charged(self, bills: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Returns the charges of the parts before this one that money credits may pay."""
        return np.zeros(len(bills), np.int64) if self.lines is None else self.lines[bills]

    def add_charged(self, bills: npt.NDArray[np.int64], money: Whole, tariff: Tariff) -> None:
        """Add a part's charges that money credits may pay."""
        if self.lines is None:
            self.lines = np.zeros(self.bills, dtype=object)
        self.lines[bills] += payable(tariff, money)


def payable(tariff: Tariff, money: Whole) -> npt.NDArray[Any]:
    """Returns (n,): the part of lines (n, lines) that money credits may pay: energy, or everything."""
    everything = tariff.sell is not None and tariff.sell.offsets == "bill"
    columns = [money[:, k] for k, line in enumerate(tariff.lines) if everything or line.component == "energy"]
    return np.asarray(total(columns)) if columns else np.zeros(len(money), np.int64)


def keeps_minimum(tariff: Tariff) -> bool:
    """Whether money credits leave the minimum charge unpaid."""
    return tariff.sell is not None and tariff.sell.offsets == "above_minimum"


def above_minimum(tariff: Tariff, came_to: EarlierParts, owed: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns ``owed`` (n,) limited to the part of each minimum charge's lines, top-up included, above the minimum.
    Energy that a minimum charge does not count is paid in full."""
    energy = {line.code for line in tariff.lines if line.component == "energy"}

    def sums(codes: Iterable[str]) -> Whole:
        return total([np.zeros_like(owed), *(came_to.by_code[code] for code in codes if code in came_to.by_code)])

    for charge in tariff.charges:
        if isinstance(charge, MinimumCharge) and charge.code in came_to.least:
            room = total([sums((*charge.of, charge.code)), -came_to.least[charge.code]])
            owed = np.minimum(owed, total([np.maximum(room, 0), sums(sorted(energy - set(charge.of)))]))
    return owed


@dataclass(frozen=True, slots=True)
class SpentCredits:
    """Money credits of n bills: the amounts paid with them and the amounts left for later bills."""

    used: npt.NDArray[Any]
    left: npt.NDArray[Any]


def spend_credit(
    tariff: Tariff, credit_in: npt.NDArray[Any], exported: Whole, owed: npt.NDArray[Any], precision: Precision
) -> SpentCredits:
    """Spend carried credits and credits earned by ``exported`` (n, periods) on the charges they may pay."""
    assert tariff.sell is not None  # noqa: S101 - only a tariff that carries money asks
    rates, places = same_scale(list(tariff.sell.rates))
    earned = total([product(exported[:, p], rate) for p, rate in enumerate(rates)])
    pool = total([credit_in, rounded(tariff, earned, precision.scale * 10**places, precision)])
    used = np.minimum(pool, np.maximum(owed, 0))
    return SpentCredits(used, pool - used)


def rounded(tariff: Tariff, numerator: Whole, denominator: int, precision: Precision) -> Whole:
    """A quotient in the currency as stored money, under the tariff's rounding rule (cents where it has none)."""
    if precision.exact:
        return quotient(product(numerator, 10**EXACT_PLACES), denominator)
    rule = tariff.rounding
    places = 2 if rule.places is None else rule.places
    whole = quotient(product(numerator, 10**places), denominator, "half_up" if rule.places is None else rule.mode)
    return product(whole, 10 ** (MONEY_PLACES - places))


def closes_year(tariff: Tariff, period_start: date, period_end: date) -> bool:
    """Whether a period ends the tariff's billing year: the one with the first day of its true-up month; each year
    has one."""
    month = tariff.sell.trueup_month if tariff.sell is not None else 12
    return any(period_start <= date(year, month, 1) < period_end for year in (period_start.year, period_end.year))


def year_before(tariff: Tariff, period_start: date) -> date:
    """The true-up date before a period: statements of periods that began after it belong to the same billing year."""
    month = tariff.sell.trueup_month if tariff.sell is not None else 12
    found = date(period_start.year, month, 1)
    return found if found < period_start else date(period_start.year - 1, month, 1)


#: Lines of a billing year's end: where they stand after the tariff's own, key, name and component.
_ENDINGS: Final = {
    "ANNUAL-MINIMUM": (2, "Annual minimum charge", "minimum"),
    "YEAR-END-CREDIT": (3, "Credit left over, paid out", "credit"),
}


def settles_year(tariff: Tariff) -> bool:
    """Whether a billing year's end may add any amount."""
    if tariff.annual_minimum is not None:
        return True
    sell = tariff.sell
    if sell is None or not (tariff.carries_units or tariff.carries_money):
        return False
    return sell.settles


def year_end(
    rows: pl.DataFrame, segments: pl.DataFrame, period: Period, precision: Precision
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns the lines of a billing year's end, and the segments with them.

    The annual minimum is charged where the year's lines, taxes included, are below it; under ``proration.minimum:
    days`` for the billed days of 365 or 366. Left-over credit is paid, forfeited, carried over or moved as the tariff
    states: units at the year-end rate, money unchanged. Both also on a service's final bill. ``rows``: as
    price_segments.
    """
    schema = LINE_SCHEMA | {"quantity": precision.kind(), "amount": precision.kind()}
    none = pl.DataFrame(schema=schema)
    wanted = {key: t for key, t in period.tariffs.items() if settles_year(t)}
    if not wanted:
        return none, segments
    people = ["account_id", "service_point_id", "tariff_id"]
    heads = [*people, "tariff_version", "segment_start"]
    sums = segments.group_by(people).agg(
        pl.col("total").sum().alias("so_far"),
        (pl.col("segment_end") - pl.col("segment_start")).dt.total_days().sum().alias("served"),
    )
    ends = (
        segments.join(rows.select(*heads, "last", "final", "moves_to", "year_lines", "year_days"), on=heads)
        .filter(pl.col("last"))
        .filter((pl.col("segment_end") == period.end) | pl.col("final"))
        .join(sums, on=people)
    )
    lines: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for row in ends.sort(heads).to_dicts():
        tariff = wanted.get((row["tariff_id"], row["tariff_version"]))
        if tariff is None or not (row["final"] or closes_year(tariff, period.start, period.end)):
            continue
        head = {name: row[name] for name in LINE_SCHEMA.names() if name in row}
        added = 0
        for key, quantity, amount in _endings(tariff, row, period, precision):
            at, name, component = _ENDINGS[key]
            unit = "" if quantity is None else tariff.unit
            line = {"line_key": key, "name": name, "component": component, "quantity": quantity, "unit": unit}
            lines.append(head | line | {"at": len(tariff.lines) + at, "amount": amount})
            added += amount
        left = {"carry_now": row["carry_out"], "credit_now": row["credit_out"], "added": added}
        moved.append({name: row[name] for name in heads} | left)
    if not moved:
        return none, segments
    figures = {"carry_now": pl.List(pl.Int64()), "credit_now": precision.kind(), "added": precision.kind()}
    changes = pl.DataFrame(moved, schema={**{n: SEGMENT_SCHEMA[n] for n in heads}, **figures})
    closed = segments.join(changes, on=heads, how="left").with_columns(
        pl.coalesce("carry_now", "carry_out").alias("carry_out"),
        pl.coalesce("credit_now", "credit_out").alias("credit_out"),
        pl.col("added").fill_null(0).alias("year_end"),
        (pl.col("total") + pl.col("added").fill_null(0)).alias("total"),
    )
    return pl.DataFrame(lines, schema=schema), closed.select(SEGMENT_SCHEMA.names())


def _endings(
    tariff: Tariff, row: dict[str, Any], period: Period, precision: Precision
) -> list[tuple[str, int | None, int]]:
    """Returns lines of one service's year end: key, quantity and amount. Writes the use of the credit into the row."""
    found: list[tuple[str, int | None, int]] = []
    if tariff.annual_minimum is not None:
        before = year_before(tariff, period.start)
        number, places = scaled(tariff.annual_minimum)
        days, whole = row["served"] + (row["year_days"] or 0), (before.replace(year=before.year + 1) - before).days
        share = min(days, whole) if tariff.proration.minimum == "days" else whole
        least = _one(tariff, number * share, whole * 10**places, precision)
        short = least - row["so_far"] - (row["year_lines"] or 0)
        if short > 0:
            found.append(("ANNUAL-MINIMUM", None, short))
    sell = tariff.sell
    if sell is None:
        return found
    ends = closes_year(tariff, period.start, period.end)
    how = sell.settlement(year=ends, moves=row["moves_to"] is not None)
    if how in ("carry", "move"):
        return found
    if tariff.carries_units and (left := sum(row["carry_out"])):
        number, places = scaled(sell.yearend_rate)
        if how == "pay":
            found.append(
                ("YEAR-END-CREDIT", left, -_one(tariff, left * number, precision.scale * 10**places, precision))
            )
        row["carry_out"] = [0] * len(row["carry_out"])
    if tariff.carries_money and row["credit_out"]:
        if how == "pay":
            found.append(("YEAR-END-CREDIT", None, -row["credit_out"]))
        row["credit_out"] = 0
    return found


def _one(tariff: Tariff, numerator: int, denominator: int, precision: Precision) -> int:
    return int(rounded(tariff, np.array([numerator], dtype=object), denominator, precision)[0])
