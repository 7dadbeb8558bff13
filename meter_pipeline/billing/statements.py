"""Statements: the lines of a billing period, from the positions its days reached.

A segment costs its end less its start, so its lines are the sum of its days' lines; what the end adds (minimum charges,
credits carried in, ratchets) is counted apart, by cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, lists, matrix, micro_of, position, text_array
from meter_pipeline.billing.fixed_point import quotient, scaled
from meter_pipeline.billing.pricing import amounts, priced
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.ledger.digests import digests

#: Lines before they are numbered: money and quantity in millionths.
LINE_SCHEMA: Final = pl.Schema(
    {
        "account_id": pl.String(),
        "service_point_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "segment_start": pl.Date(),
        "segment_end": pl.Date(),
        "at": pl.Int32(),
        "line_key": pl.String(),
        "name": pl.String(),
        "component": pl.String(),
        "quantity": pl.Int64(),
        "unit": pl.String(),
        "amount": pl.Int64(),
    }
)
SEGMENT_SCHEMA: Final = pl.Schema(
    {
        "account_id": pl.String(),
        "service_point_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "segment_start": pl.Date(),
        "segment_end": pl.Date(),
        "days": pl.Int32(),
        "unit": pl.String(),
        "energy": pl.List(pl.Int64()),
        "peaks": pl.List(pl.Int64()),
        "peak_at": pl.List(pl.Int64()),
        "carry_out": pl.List(pl.Int64()),
        "period_end": pl.Int64(),
        "credit": pl.Int64(),
        "ratchet": pl.Int64(),
        "year_end": pl.Int64(),
        "total": pl.Int64(),
    }
)


@dataclass(frozen=True, slots=True)
class Priced:
    """Lines and segments of a period. In segments, ``period_end``, ``credit``, ``ratchet`` and ``year_end`` are what
    the end added to the days, by cause."""

    lines: pl.DataFrame
    segments: pl.DataFrame


def _arrays(
    rows: pl.DataFrame, prefix: str, tariff: Tariff, period_days: int, period_start: date, month: npt.NDArray[np.int64]
) -> dict[str, Any]:
    periods, registers = len(tariff.schedule.periods), len(tariff.registers)
    first = (
        (rows["stretch_start"] - pl.Series([period_start]).new_from_index(0, rows.height)).dt.total_days().to_numpy()
    )
    budget = rows[prefix + "budget_to_date"].fill_null(0).to_numpy()
    return {
        "energy": matrix(rows[prefix + "energy_to_date"], periods),
        "export": matrix(rows[prefix + "export_to_date"], periods),
        "peaks": matrix(rows[prefix + "peaks_to_date"], registers),
        "register_days": matrix(rows[prefix + "register_days"], registers),
        "days": rows[prefix + "days"].fill_null(0).cast(pl.Int64).to_numpy(),
        "period_days": np.full(rows.height, period_days, np.int64),
        "first_day": first,
        "months": month,
        "carry": matrix(rows["carry_in"], periods),
        "history": matrix(rows["history_in"], registers),
        "budget": np.where(micro_of(rows["budget_per_day"]) < 0, -1, budget),
        "winter_average": micro_of(rows["winter_average_per_day"]),
        "attributes": {
            name: text_array(rows[name]) for name in ("customer_class", "meter_size", "jurisdiction", "rate_code")
        },
    }


def price_segments(
    rows: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff], period_start: date, period_end: date
) -> Priced:
    """Lines of every segment.

    ``rows``: segments with the position at their end (CHARGE_SCHEMA's columns), the position before their start (the
    same, ``before_`` prefixed, null at a stretch's start), ``carry_in``, ``history_in``, ``year_lines`` and
    ``year_days`` (what the billing year's earlier statements charged and covered, null where none) and the service's
    attributes. Raises MissingAttributeError: services without charges must not be given.
    """
    line_frames, segment_frames = [], []
    days = (period_end - period_start).days
    for (tariff_id, version), part in sorted(
        rows.group_by("tariff_id", "tariff_version"), key=lambda item: str(item[0])
    ):
        tariff = tariffs[str(tariff_id), int(str(version))]
        part = part.sort("account_id", "service_point_id", "segment_start")
        month = (
            part.select((pl.col("segment_end").dt.offset_by("-1d")).dt.month().cast(pl.Int64)).to_series().to_numpy()
        )
        after = _arrays(part, "", tariff, days, period_start, month)
        before = _arrays(part, "before_", tariff, days, period_start, month)
        plain = {"carry": np.zeros_like(after["carry"]), "history": np.zeros_like(after["history"])}
        start = amounts(tariff, position(tariff, before))
        last = part["last"].to_numpy()
        closed, used = priced(tariff, position(tariff, after), closing=True)
        opened = amounts(tariff, position(tariff, after))
        uncredited = amounts(tariff, position(tariff, after | {"carry": plain["carry"]}))
        days_only = amounts(tariff, position(tariff, after | plain))
        money = np.where(last[:, None], closed, opened) - start
        _, used_before = priced(tariff, position(tariff, before), closing=False)
        head = part.select(
            "account_id", "service_point_id", "tariff_id", "tariff_version", "segment_start", "segment_end"
        )
        for k, line in enumerate(tariff.lines):
            end, begin = used[k], used_before[k]
            quantity = None if end is None or begin is None else (end - begin).astype(np.int64)
            amount = money[:, k].astype(np.int64)
            keep = (amount != 0) if quantity is None else (amount != 0) | (quantity != 0)
            if not keep.any():
                continue
            frame = head.with_columns(
                pl.lit(k, pl.Int32).alias("at"),
                pl.lit(line.key).alias("line_key"),
                pl.lit(line.name).alias("name"),
                pl.lit(line.component).alias("component"),
                pl.Series("quantity", quantity, pl.Int64)
                if quantity is not None
                else pl.lit(None, pl.Int64).alias("quantity"),
                pl.lit(line.unit).alias("unit"),
                pl.Series("amount", amount),
            )
            line_frames.append(frame.filter(pl.Series(keep)).cast(LINE_SCHEMA))
        energy = after["energy"] - before["energy"]
        left = (
            np.maximum(after["export"] + after["carry"] - after["energy"], 0)
            if tariff.metering == "net_metering"
            else np.zeros_like(energy)
        )
        segment_frames.append(
            head.with_columns(
                pl.Series("days", after["days"]),
                pl.lit(tariff.unit).alias("unit"),
                lists(energy).alias("energy"),
                lists(after["peaks"]).alias("peaks"),
                part["peak_at_to_date"].alias("peak_at"),
                lists(np.where(last[:, None], left, 0)).alias("carry_out"),
                pl.Series("period_end", np.where(last, (closed - opened).sum(axis=1), 0)),
                pl.Series("credit", np.where(last, (opened - uncredited).sum(axis=1), 0)),
                pl.Series("ratchet", np.where(last, (uncredited - days_only).sum(axis=1), 0)),
                pl.lit(0, pl.Int64).alias("year_end"),
                pl.Series("total", money.sum(axis=1)),
            ).cast(SEGMENT_SCHEMA)
        )
    if not segment_frames:
        return Priced(pl.DataFrame(schema=LINE_SCHEMA), pl.DataFrame(schema=SEGMENT_SCHEMA))
    owed, closing = _year_end(rows, pl.concat(segment_frames), tariffs, period_start, period_end)
    return Priced(
        pl.concat([*line_frames, owed]).sort("account_id", "service_point_id", "segment_start", "at"),
        closing.sort("account_id", "service_point_id", "segment_start"),
    )


def closes_year(tariff: Tariff, period_start: date, period_end: date) -> bool:
    """Whether a period ends the tariff's billing year: the one that holds the first day of its true-up month, of which
    each year has one."""
    month = tariff.sell.trueup_month if tariff.sell is not None else 12
    return any(period_start <= date(year, month, 1) < period_end for year in (period_start.year, period_end.year))


def year_before(tariff: Tariff, period_start: date) -> date:
    """The true-up date before a period: statements of periods that began after it belong to the same billing year."""
    month = tariff.sell.trueup_month if tariff.sell is not None else 12
    found = date(period_start.year, month, 1)
    return found if found < period_start else date(period_start.year - 1, month, 1)


def _year_end(
    rows: pl.DataFrame,
    segments: pl.DataFrame,
    tariffs: Mapping[tuple[str, int], Tariff],
    period_start: date,
    period_end: date,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What a billing year's end adds: lines, and the segments with it.

    The annual minimum is owed where the year's lines, taxes included, fall short of it; under ``proration.minimum:
    days`` for the days the service was billed of 365 or 366. Credit in kWh left over is paid at the year-end rate and
    starts again from nothing; without such a rate it goes on. Both also on a service's final bill.
    """
    wanted = {
        key: t
        for key, t in tariffs.items()
        if t.annual_minimum is not None
        or (t.metering == "net_metering" and t.sell is not None and t.sell.rollover == "kwh" and t.sell.yearend_rate)
    }
    none = pl.DataFrame(schema=LINE_SCHEMA)
    if not wanted:
        return none, segments
    people = ["account_id", "service_point_id", "tariff_id"]
    heads = [*people, "tariff_version", "segment_start"]
    sums = segments.group_by(people).agg(
        pl.col("total").sum().alias("so_far"),
        (pl.col("segment_end") - pl.col("segment_start")).dt.total_days().sum().alias("served"),
    )
    ends = (
        segments.join(rows.select(*heads, "last", "final", "year_lines", "year_days"), on=heads)
        .filter(pl.col("last"))
        .filter((pl.col("segment_end") == period_end) | pl.col("final"))
        .join(sums, on=people)
    )
    lines: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for row in ends.sort(heads).to_dicts():
        tariff = wanted.get((row["tariff_id"], row["tariff_version"]))
        if tariff is None or not (row["final"] or closes_year(tariff, period_start, period_end)):
            continue
        head = {name: row[name] for name in LINE_SCHEMA.names() if name in row}
        added = 0
        before = year_before(tariff, period_start)
        if tariff.annual_minimum is not None:
            number, places = scaled(tariff.annual_minimum)
            days, whole = row["served"] + (row["year_days"] or 0), (before.replace(year=before.year + 1) - before).days
            share = min(days, whole) if tariff.proration.minimum == "days" else whole
            short = _rounded(tariff, number * share, whole * 10**places) - row["so_far"] - (row["year_lines"] or 0)
            if short > 0:
                added += short
                named = {
                    "line_key": "ANNUAL-MINIMUM",
                    "name": "Annual minimum charge",
                    "component": "minimum",
                    "quantity": None,
                    "unit": "",
                }
                lines.append(head | named | {"at": len(tariff.lines), "amount": short})
        left = sum(row["carry_out"])
        if tariff.metering == "net_metering" and tariff.sell is not None and tariff.sell.yearend_rate and left:
            number, places = scaled(tariff.sell.yearend_rate)
            paid = _rounded(tariff, left * number, 10 ** (places + 6))
            added -= paid
            named = {
                "line_key": "YEAR-END-CREDIT",
                "name": "Credit left over, paid out",
                "component": "credit",
                "quantity": left,
                "unit": tariff.unit,
            }
            lines.append(head | named | {"at": len(tariff.lines) + 1, "amount": -paid})
            row["carry_out"] = [0] * len(row["carry_out"])
        moved.append({name: row[name] for name in heads} | {"carry_now": row["carry_out"], "added": added})
    if not moved:
        return none, segments
    changes = pl.DataFrame(
        moved, schema={**{n: SEGMENT_SCHEMA[n] for n in heads}, "carry_now": pl.List(pl.Int64()), "added": pl.Int64()}
    )
    closed = segments.join(changes, on=heads, how="left").with_columns(
        pl.coalesce("carry_now", "carry_out").alias("carry_out"),
        pl.col("added").fill_null(0).alias("year_end"),
        (pl.col("total") + pl.col("added").fill_null(0)).alias("total"),
    )
    return pl.DataFrame(lines, schema=LINE_SCHEMA), closed.select(SEGMENT_SCHEMA.names())


def _rounded(tariff: Tariff, numerator: int, denominator: int) -> int:
    """A quotient in the currency as stored millionths, under the tariff's rounding rule (cents where it has none)."""
    rule = tariff.rounding
    places = 2 if rule.places is None else rule.places
    whole = quotient(
        np.array([numerator * 10**places], dtype=object), denominator, "half_up" if rule.places is None else rule.mode
    )
    return int(whole[0] * 10 ** (6 - places))


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


def numbered(lines: pl.DataFrame, cycle_id: str, period_start: date, revision: int = 0) -> pl.DataFrame:
    """Lines with statement_id and line_no, in the order a customer reads them."""
    statement = pl.concat_str([pl.col("account_id"), pl.lit(f".{cycle_id}.{period_start:%Y%m%d}.{revision}")])
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
