"""Moves export credit with an account to another service point.

The credit of an account's last bill at a service point goes to the account's service elsewhere that is in force on the
day after, or begins by the end of that bill's period, on a tariff that keeps credit of the same kind. It is carried
into the first bill there that begins on that day or later. Where the account has several such services, the service
attribute ``credits_to`` names one, or ``none``; without it the last bill waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import polars as pl

from meter_pipeline.billing.service_agreements import Reference, in_force
from meter_pipeline.billing.tariffs import Tariff

#: The attribute that names the service point to which credit goes, or NOWHERE.
CREDITS_TO: Final = "credits_to"
NOWHERE: Final = "none"
#: Credit that arrives at a service point: whose, from where, and the day after the service there ended.
ARRIVAL_SCHEMA: Final = pl.Schema(
    {"account_id": pl.String(), "service_point_id": pl.String(), "left_point": pl.String(), "left_on": pl.Date()}
)


@dataclass(frozen=True, slots=True)
class FinalBill:
    """The last bill of an account at a service point: the day after its last, its period, its tariff, and the service
    points to which credit may move. ``period``: cycle and first day."""

    account: str
    point: str
    left_on: date
    period: tuple[str, date]
    tariff: Tariff
    moves_to: list[str]


def keeps_moving(tariff: Tariff) -> bool:
    """Whether a tariff has a rule for credit where the account takes service elsewhere."""
    return tariff.sell is not None and tariff.sell.on_move is not None


def final_bills(reference: Reference, accounts: Sequence[str]) -> list[FinalBill]:
    """Returns last bills of some accounts, on tariffs with a rule for credit when the account moves."""
    if not any(b'"on_move"' in raw for raw in reference.documents.values()):
        return []
    agreements = reference.agreements.filter(pl.col("account_id").is_in(list(accounts)))
    agreements = agreements.filter(pl.col("service_point_id").n_unique().over("account_id") > 1)
    served = agreements.group_by("account_id", "service_point_id").agg(
        pl.col("valid_from").min().alias("begins"),
        pl.when(pl.col("valid_to").is_null().any()).then(None).otherwise(pl.col("valid_to").max()).alias("ends"),
    )
    found: list[FinalBill] = []
    for row in served.filter(pl.col("ends").is_not_null()).sort(pl.all()).to_dicts():
        here = pl.col("service_point_id") == row["service_point_id"]
        mine = agreements.filter((pl.col("account_id") == row["account_id"]) & here)
        last = mine.filter(pl.col("valid_to") == row["ends"]).row(0, named=True)
        prior_day = _before(row["ends"])
        tariff = reference.in_force(last["tariff_id"], prior_day)
        period = _period(reference, last["cycle_id"], prior_day)
        if tariff is None or period is None or not keeps_moving(tariff):
            continue
        others = served.filter((pl.col("account_id") == row["account_id"]) & ~here)
        points = _named(
            reference, row["service_point_id"], prior_day, _targets(reference, agreements, others, row, tariff, period)
        )
        start = (str(last["cycle_id"]), period[0])
        found.append(FinalBill(row["account_id"], row["service_point_id"], row["ends"], start, tariff, points))
    return found


def _targets(
    reference: Reference,
    agreements: pl.DataFrame,
    others: pl.DataFrame,
    leaving: Mapping[str, Any],
    tariff: Tariff,
    period: tuple[date, date],
) -> list[str]:
    """Returns service points of the account that may receive the credit."""
    points = []
    goes_on = pl.col("ends").is_null() | (pl.col("ends") > leaving["ends"])
    for row in others.filter((pl.col("begins") < period[1]) & goes_on).sort("service_point_id").to_dicts():
        day = max(leaving["ends"], row["begins"])
        mine = agreements.filter(
            (pl.col("account_id") == leaving["account_id"]) & (pl.col("service_point_id") == row["service_point_id"])
        )
        for tariff_id in in_force(mine, day)["tariff_id"].to_list():
            then = reference.in_force(tariff_id, day)
            if then is not None and _same_credit(tariff, then):
                points.append(str(row["service_point_id"]))
    return points


def _same_credit(one: Tariff, other: Tariff) -> bool:
    if one.carries_money:
        return other.carries_money and one.currency == other.currency
    return one.carries_units and other.carries_units and one.unit == other.unit


def _named(reference: Reference, point: str, prior_day: date, points: list[str]) -> list[str]:
    """Returns the service points that may receive the credit, or the one of them that an attribute of the old one
    names."""
    attributes = reference.service_attributes.filter(
        (pl.col("service_point_id") == point) & (pl.col("attribute") == CREDITS_TO)
    )
    values = [value.strip().upper() for value in in_force(attributes, prior_day)["value"].to_list()]
    if not values:
        return points
    if values[0] == NOWHERE.upper() or values[0] in points:
        return [p for p in points if p == values[0]]
    return [f"{values[0]} (where the account has no service that keeps such credit)", *(points or [NOWHERE])]


def with_targets(reference: Reference, rows: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff]) -> pl.DataFrame:
    """Adds moves_to to segments: on a final bill, the service points to which credit may move; null where the
    account takes no service elsewhere."""
    kind = pl.List(pl.String)
    if not any(keeps_moving(t) for t in tariffs.values()):
        return rows.with_columns(pl.lit(None, kind).alias("moves_to"))
    leaving = rows.filter("final")["account_id"].unique().sort().to_list()
    found = [(b.account, b.point, b.moves_to) for b in final_bills(reference, leaving) if b.moves_to]
    schema = pl.Schema({"account_id": pl.String(), "service_point_id": pl.String(), "moves_to": kind})
    moving = pl.DataFrame(found, schema=schema, orient="row")
    return rows.join(moving, on=["account_id", "service_point_id"], how="left")


def unclear(rows: pl.DataFrame, segments: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff]) -> pl.DataFrame:
    """Accounts whose last bill leaves credit that could move to several service points: account_id, detail."""
    schema = {"account_id": pl.String, "detail": pl.String}
    several = rows.filter(pl.col("final") & pl.col("last") & (pl.col("moves_to").list.len() > 1))
    if not several.height:
        return pl.DataFrame(schema=schema)
    key = ["account_id", "service_point_id", "tariff_id", "tariff_version", "segment_start"]
    messages = []
    for row in several.select(*key, "moves_to").join(segments, on=key).sort(key).to_dicts():
        tariff = tariffs[row["tariff_id"], row["tariff_version"]]
        units, money = sum(row["carry_out"]), row["credit_out"]
        if tariff.sell is None or tariff.sell.on_move != "move" or not (units or money):
            continue
        left = f"{money / 10**6:.2f} {tariff.currency}" if money else f"{units / 10**6:g} {tariff.unit}"
        why = (
            f"credit_move: {row['service_point_id']} leaves a credit of {left} that could go to "
            f"{' or '.join(row['moves_to'])}: name one of the account's as {CREDITS_TO} of "
            f"{row['service_point_id']} in service_attributes.csv, or {NOWHERE}"
        )
        messages.append((row["account_id"], why))
    return pl.DataFrame(messages, schema=schema, orient="row").unique("account_id", keep="first")


def arrivals(reference: Reference, runs: pl.DataFrame) -> list[tuple[FinalBill, str]]:
    """Returns credit that is carried into some stretches: the final bill that it comes from, and the service point.

    ``runs``: account_id, service_point_id, stretch_start. It arrives in the first bill that begins on the day the
    account left, or later.
    """
    accounts = runs["account_id"].unique().sort().to_list()
    starts: dict[tuple[str, str], date] = {}
    for account, point, start in runs.select("account_id", "service_point_id", "stretch_start").iter_rows():
        starts[account, point] = max(start, starts.get((account, point), date.min))
    found = []
    for bill in final_bills(reference, accounts):
        if bill.tariff.sell is None or bill.tariff.sell.on_move != "move" or len(bill.moves_to) != 1:
            continue
        [target] = bill.moves_to
        start = starts.get((bill.account, target))
        if start is None or start < bill.left_on:
            continue
        before = _begun(reference, bill.account, target, _before(start))
        if before is None or before < bill.left_on:
            found.append((bill, target))
    return found


def arriving(found: Sequence[tuple[FinalBill, str]]) -> pl.DataFrame:
    """Arrivals as a frame (ARRIVAL_SCHEMA)."""
    rows = [(bill.account, target, bill.point, bill.left_on) for bill, target in found]
    return pl.DataFrame(rows, schema=ARRIVAL_SCHEMA, orient="row")


def _begun(reference: Reference, account: str, point: str, day: date) -> date | None:
    """Returns the first day of the bill that contains a day of an account's service; None without service there."""
    own = (pl.col("account_id") == account) & (pl.col("service_point_id") == point)
    agreements = reference.agreements.filter(own).sort("valid_from").to_dicts()
    run: dict[str, Any] | None = None
    for row in agreements:
        same = run is not None and all(row[c] == run[c] for c in ("tariff_id", "cycle_id"))
        follows = same and run is not None and row["valid_from"] == run["valid_to"]
        run = row | {"began": run["began"] if follows and run is not None else row["valid_from"]}
        if row["valid_from"] <= day and (row["valid_to"] is None or day < row["valid_to"]):
            period = _period(reference, row["cycle_id"], day)
            opening = reference.opening or date.min
            begun: date = max(run["began"], period[0] if period else date.min, min(opening, day))
            return begun
    return None


def _period(reference: Reference, cycle_id: str, day: date) -> tuple[date, date] | None:
    cycles = reference.billing_cycles.filter(
        (pl.col("cycle_id") == cycle_id) & (pl.col("period_start") <= day) & (pl.col("period_end") > day)
    )
    return cycles.select("period_start", "period_end").row(0) if cycles.height else None


def _before(day: date) -> date:
    return date.fromordinal(day.toordinal() - 1)
