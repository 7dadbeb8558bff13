"""Statements: the lines of a billing period, from the positions its days reached.

A segment costs its end less its start, so its lines are the sum of its days' lines; what the end adds (minimum charges,
credits carried in, ratchets) is counted apart, by cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, EPOCH, PRICING_ERRORS
from meter_pipeline.billing.bill_end import (
    RunningSums,
    above_minimum,
    keeps_minimum,
    payable,
    spend_credit,
    year_end,
)
from meter_pipeline.billing.bill_position import QUANTITY_SCALE
from meter_pipeline.billing.fixed_point import Whole
from meter_pipeline.billing.positions import (
    Aligned,
    attribute_arrays,
    carried_out,
    lists,
    matrix,
    micro_of,
    netted,
    position,
)
from meter_pipeline.billing.pricing import amounts, priced
from meter_pipeline.billing.span_pricing import EarlierParts, price_part
from meter_pipeline.billing.statement_frames import (
    CENTS,
    CREDIT_LINE,
    LINE_SCHEMA,
    ROUNDING_LINE,
    SEGMENT_MONEY,
    SEGMENT_SCHEMA,
    Period,
    Precision,
)
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import MinimumCharge, TariffLine
from meter_pipeline.billing.tariffs.schedules import season_days
from meter_pipeline.ledger.digests import digests


@dataclass(frozen=True, slots=True)
class Priced:
    """Lines and segments of a period. In segments, ``period_end``, ``credit``, ``ratchet`` and ``year_end`` are what
    the end added to the days, by cause. ``refused``: accounts (account_id, detail) to whom their tariff could not be
    applied; nothing of theirs is in the others."""

    lines: pl.DataFrame
    segments: pl.DataFrame
    refused: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"account_id": pl.String, "detail": pl.String})
    )

    @classmethod
    def empty(cls) -> Priced:
        """Nothing priced."""
        return cls(pl.DataFrame(schema=LINE_SCHEMA), pl.DataFrame(schema=SEGMENT_SCHEMA))


def _arrays(rows: pl.DataFrame, prefix: str, tariff: Tariff, period: Period, precision: Precision) -> dict[str, Any]:
    """Cumulative arrays at the segments' ends, or with ``before_`` at their starts."""
    layouts = period.layouts(rows["tariff_id"][0])
    aligned = Aligned(tariff, rows[prefix + "tariff_version"], layouts)
    days = rows[prefix + "days"].fill_null(0).cast(pl.Int64).to_numpy()
    starts = rows["stretch_start"].cast(pl.Int32).to_numpy() + EPOCH
    budget = rows[prefix + "budget_to_date"].fill_null(0).to_numpy()
    finer = precision.scale // QUANTITY_SCALE
    average = micro_of(rows["winter_average_per_day"])
    return {
        "energy": aligned.periods(rows[prefix + "energy_to_date"]),
        "export": aligned.periods(rows[prefix + "export_to_date"]),
        "peaks": aligned.registers(rows[prefix + "peaks_to_date"]),
        "register_days": aligned.registers(rows[prefix + "register_days"]),
        "days": days,
        "season_days": season_days(tariff.schedule, starts.tolist(), days),
        "period_days": np.full(rows.height, period.days, np.int64),
        "first_day": starts - period.start.toordinal(),
        "months": rows.select(pl.col("segment_end").dt.offset_by("-1d").dt.month().cast(pl.Int64))
        .to_series()
        .to_numpy(),
        "carry": matrix(rows["carry_in"], len(tariff.schedule.periods)),
        "history": matrix(rows["history_in"], len(tariff.registers)),
        "budget": np.where(micro_of(rows["budget_per_day"]) < 0, -1, budget),
        "winter_average": np.where(average < 0, -1, average * finer),
        "service_day": rows["segment_end"].cast(pl.Int32).to_numpy().astype(np.int64) + EPOCH - 1,
        "bill_day": np.full(rows.height, period.end.toordinal(), np.int64),
        "attributes": attribute_arrays(rows, tariff),
        "scale": precision.scale,
    }


@dataclass(frozen=True, slots=True)
class _Segments:
    """Some segments' money: (n, lines), in stored money, the quantities behind them, and what the end added by
    cause.
    """

    money: npt.NDArray[Any]
    quantities: list[Whole | None]
    credit: npt.NDArray[Any]
    ratchet: npt.NDArray[Any]
    period_end: npt.NDArray[Any]
    rounding: npt.NDArray[Any]


def _whole(tariff: Tariff, after: dict[str, Any], precision: Precision) -> _Segments:
    """Segments that are all of their bill: their cost is that of their last position."""
    money, used = priced(tariff, position(tariff, after), closing=True, exact=precision.exact)
    nothing = np.zeros(len(money), np.int64)
    credit, ratchet = nothing, nothing
    days_only = money
    if _settles(tariff, after):
        opened = amounts(tariff, position(tariff, after), exact=precision.exact)
        uncredited = amounts(tariff, position(tariff, after | _without(after, "carry")), exact=precision.exact)
        days_only = amounts(
            tariff, position(tariff, after | _without(after, "carry", "history")), exact=precision.exact
        )
        credit, ratchet = (opened - uncredited).sum(axis=1), (uncredited - days_only).sum(axis=1)
    end = (money - days_only).sum(axis=1) - credit - ratchet
    return _Segments(money, used, credit, ratchet, end, nothing)


def _settles(tariff: Tariff, after: dict[str, Any]) -> bool:
    """Whether a bill's end may differ from its days: a minimum charge, credit carried in, a ratchet's history."""
    return bool(after["carry"].any() or after["history"].any()) or any(
        isinstance(c, MinimumCharge) for c in tariff.charges
    )


def _without(after: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: np.zeros_like(after[name]) for name in names}


def _part(
    tariff: Tariff,
    before: dict[str, Any],
    after: dict[str, Any],
    earlier: EarlierParts,
    last: bool,
    precision: Precision,
) -> tuple[_Segments, EarlierParts]:
    """Segments of bills that a change cuts: each is priced from its own exact amounts."""
    part = price_part(
        tariff, position(tariff, before), position(tariff, after), earlier, last=last, exact=precision.exact
    )

    def moved(*names: str) -> npt.NDArray[Any]:
        ends = (
            amounts(tariff, position(tariff, at | _without(at, *names)), exact=precision.exact).sum(axis=1)
            for at in (after, before)
        )
        return np.asarray(next(ends) - next(ends))

    credit = moved() - moved("carry") if after["carry"].any() else np.zeros(len(part.money), np.int64)
    ratchet = moved("carry") - moved("carry", "history") if after["history"].any() else np.zeros_like(credit)
    end = part.money.sum(axis=1) + part.rounding - moved("carry", "history") - credit - ratchet
    return _Segments(part.money, part.quantities, credit, ratchet, end, part.rounding), part.came_to


def price_segments(
    rows: pl.DataFrame,
    tariffs: Mapping[tuple[str, int], Tariff],
    period_start: date,
    period_end: date,
    precision: Precision = CENTS,
) -> Priced:
    """Lines of every segment.

    ``rows``: segments with the position at their end (CHARGE_SCHEMA's columns), the position before their start (the
    same, ``before_`` prefixed, null at a stretch's start), ``moves_to`` (credit_moves.with_targets), ``carry_in``,
    ``credit_in`` and ``history_in``, ``year_lines`` and ``year_days`` (what the billing year's earlier statements
    charged and covered, null where none)
    and the service's attributes. A tariff that can't be applied refuses its own accounts.
    """
    period = Period(period_start, period_end, tariffs)
    stretch = ["account_id", "service_point_id", "tariff_id", "stretch_start"]
    rows = rows.sort("account_id", "service_point_id", "segment_start").with_columns(
        pl.int_range(pl.len()).over(stretch).alias("part"),
        (pl.len().over(stretch) > 1).alias("cut"),
        pl.struct(stretch).rank("dense").cast(pl.Int64).alias("bill"),
    )
    found = _Found(precision, RunningSums(int(str(rows["bill"].max() or 0)) + 1))
    refused: list[tuple[str, str]] = []
    groups = rows.group_by("part", "cut", "last", "tariff_id", "tariff_version")
    for (_, cut, last, tariff_id, version), of_tariff in sorted(groups, key=lambda item: (item[0][0], str(item[0]))):
        tariff = tariffs[str(tariff_id), int(str(version))]
        try:
            _price_group(of_tariff, tariff, period, bool(cut), bool(last), found)
        except PRICING_ERRORS as error:
            detail = f"{tariff_id} version {version}: {error}"[:400]
            refused += [(account, detail) for account in of_tariff["account_id"].unique().sort().to_list()]
    if not found.segments:
        return Priced(pl.DataFrame(schema=LINE_SCHEMA), pl.DataFrame(schema=SEGMENT_SCHEMA), _refused(refused))
    lines, segments = pl.concat(found.lines), pl.concat(found.segments)
    owed, segments = year_end(rows, segments, period, precision)
    out = _refused(refused)
    order = ["account_id", "service_point_id", "segment_start"]
    return Priced(
        pl.concat([lines, owed.cast(lines.schema)]).join(out, on="account_id", how="anti").sort(*order, "at"),
        segments.join(out, on="account_id", how="anti").sort(order),
        out,
    )


def _refused(found: list[tuple[str, str]]) -> pl.DataFrame:
    return pl.DataFrame(found, schema={"account_id": pl.String, "detail": pl.String}, orient="row").unique("account_id")


@dataclass(slots=True)
class _Found:
    """Frames of lines and segments so far, and amounts of the earlier parts of cut bills."""

    precision: Precision
    sums: RunningSums
    lines: list[pl.DataFrame] = field(default_factory=list)
    segments: list[pl.DataFrame] = field(default_factory=list)


def _price_group(rows: pl.DataFrame, tariff: Tariff, period: Period, cut: bool, last: bool, found: _Found) -> None:
    """Lines and segments of one tariff version."""
    precision = found.precision
    after = _arrays(rows, "", tariff, period, precision)
    before: dict[str, Any] | None = None
    bills = rows["bill"].to_numpy()
    if cut or tariff.rounding.of == "bill" or keeps_minimum(tariff):
        before = _arrays(rows, "before_", tariff, period, precision)
        of, came_to = _part(tariff, before, after, found.sums.of(bills), last, precision)
        found.sums.put(bills, came_to)
    else:
        of = _whole(tariff, after, precision)
    head = rows.select("account_id", "service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end")
    for k, line in enumerate(tariff.lines):
        found.lines.append(_line(head, k, line, of.quantities[k], of.money[:, k], precision))
    added = of.rounding
    if added.any():
        found.lines.append(_line(head, len(tariff.lines), ROUNDING_LINE, None, added, precision))
    credit_out = np.zeros(rows.height, np.int64)
    _, surplus = netted(tariff, after["energy"], after["export"], after["carry"], precision.scale)
    if tariff.carries_money and last:
        owed = payable(tariff, of.money) + found.sums.charged(bills)
        if keeps_minimum(tariff):
            owed = above_minimum(tariff, found.sums.of(bills), owed)
        spent = spend_credit(
            tariff, np.array(rows["credit_in"].fill_null(0).to_list(), dtype=object), surplus, owed, precision
        )
        found.lines.append(_line(head, len(tariff.lines) + 1, CREDIT_LINE, None, -spent.used, precision))
        added, credit_out = added - spent.used, spent.left
    elif cut:
        found.sums.add_charged(bills, of.money, tariff)
    used = after["energy"] if before is None else after["energy"] - before["energy"]
    left = carried_out(tariff, after, surplus) if last else np.zeros_like(surplus)
    found.segments.append(
        head.with_columns(
            pl.Series("days", after["days"]),
            pl.lit(tariff.unit).alias("unit"),
            lists(used).alias("energy"),
            lists(after["peaks"]).alias("peaks"),
            rows["peak_at_to_date"].alias("peak_at"),
            lists(left).alias("carry_out"),
            _figures("credit_out", credit_out, precision),
            _figures("period_end", of.period_end + (added - of.rounding), precision),
            _figures("credit", of.credit, precision),
            _figures("ratchet", of.ratchet, precision),
            _figures("year_end", np.zeros(rows.height, np.int64), precision),
            _figures("total", of.money.sum(axis=1) + added, precision),
        ).cast({name: kind for name, kind in SEGMENT_SCHEMA.items() if not (precision.exact and name in SEGMENT_MONEY)})
    )


def _figures(name: str, values: npt.NDArray[Any], precision: Precision) -> pl.Series:
    """A column of money or quantities; what does not fit it raises OverflowError."""
    return pl.Series(name, values.tolist() if precision.exact or values.dtype == object else values, precision.kind)


def _line(
    head: pl.DataFrame, at: int, line: TariffLine, quantity: Whole | None, amount: Whole, precision: Precision
) -> pl.DataFrame:
    """One line of every service that has it."""
    keep = (amount != 0) if quantity is None else (amount != 0) | (quantity != 0)
    counted = (
        pl.lit(None, precision.kind).alias("quantity")
        if quantity is None
        else _figures("quantity", quantity, precision)
    )
    frame = head.with_columns(
        pl.lit(at, pl.Int32).alias("at"),
        pl.lit(line.key).alias("line_key"),
        pl.lit(line.name).alias("name"),
        pl.lit(line.component).alias("component"),
        counted,
        pl.lit(line.unit).alias("unit"),
        _figures("amount", amount, precision),
    )
    return frame.filter(pl.Series(np.asarray(keep, np.bool_))).select(LINE_SCHEMA.names())


def money_text(column: str) -> pl.Expr:
    """Millionths as exact decimal text with six places."""
    size = pl.col(column).abs()
    return pl.concat_str(
        [
            pl.when(pl.col(column) < 0).then(pl.lit("-")).otherwise(pl.lit("")),
            (size // 10**6).cast(pl.String),
            pl.lit("."),
            (size % 10**6).cast(pl.String).str.zfill(6),
        ]
    ).alias(column)


def numbered(lines: pl.DataFrame, cycle_id: str, period_start: date) -> pl.DataFrame:
    """Lines with statement_id and line_no, in the order a customer reads them."""
    statement = pl.concat_str([pl.col("account_id"), pl.lit(f".{cycle_id}.{period_start:%Y%m%d}.0")])
    return lines.with_columns(
        statement.alias("statement_id"),
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("account_id").alias("line_no"),
    )


def line_hashes(lines: pl.DataFrame, statements: pl.Series | None = None) -> pl.DataFrame:
    """statement_id and the SHA-256 of its lines' canonical text: the statement's leaf in the ledger. ``statements``:
    ids, those without lines too.

    ``mp-statement/1``, the id, then each line as line_no, service point, tariff, version, segment, key, quantity and
    amount (millionths) by unit separators, lines by record separators.
    """
    text = pl.concat_str(
        [
            pl.col("line_no").cast(pl.String),
            "service_point_id",
            "tariff_id",
            pl.col("tariff_version").cast(pl.String),
            pl.col("segment_start").cast(pl.String),
            pl.col("segment_end").cast(pl.String),
            "line_key",
            pl.col("quantity").cast(pl.String).fill_null(""),
            pl.col("amount").cast(pl.String),
        ],
        separator="\x1f",
    )
    joined = (
        lines.select("statement_id", text.alias("text"))
        .group_by("statement_id", maintain_order=True)
        .agg(pl.col("text").str.join("\x1e"))
    )
    if statements is not None:
        without = statements.alias("statement_id").to_frame().join(joined, on="statement_id", how="anti")
        joined = pl.concat([joined, without.with_columns(pl.lit("").alias("text"))])
    whole = joined.select(
        pl.concat_str([pl.lit("mp-statement/1"), "statement_id", "text"], separator="\x1e")
    ).to_series()
    return joined.select("statement_id", digests(whole).alias("lines_sha256"))


def before_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """A charge frame with its positions renamed ``before_``, keyed to the segment that begins the day after."""
    columns = [
        c
        for c in CHARGE_SCHEMA.names()
        if c not in ("billing_day", "service_point_id", "account_id", "tariff_id", "stretch_start")
    ]
    return frame.select(
        "service_point_id",
        "account_id",
        "tariff_id",
        "stretch_start",
        pl.col("billing_day").dt.offset_by("1d").alias("segment_start"),
        *(pl.col(c).alias("before_" + c) for c in columns),
    )
