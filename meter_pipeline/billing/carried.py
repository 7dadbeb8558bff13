"""Amounts that one statement carries into the next: net metering credit, in units and in money, and the peaks of
ratchets.

The next statement may be on another tariff or another billing cycle, and a period may have two stretches of one
service: the rest of the first is carried into the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.billing.credit_moves import ARRIVAL_SCHEMA, arrivals, arriving
from meter_pipeline.billing.opening_balances import opening_segments
from meter_pipeline.billing.positions import Aligned, lists
from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.statements import Priced, price_segments
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff, TariffRefusedError
from meter_pipeline.billing.tariffs.model import Layout
from meter_pipeline.postgres.database import Database

_SERVICE = ["service_point_id", "account_id"]


@dataclass(frozen=True, slots=True)
class Carry:
    """Earlier segments of the services of a period that begins on ``start`` (the columns of no_segments), and the
    layout of their lists by tariff and version. ``moved``: credit that arrives from other service points
    (credit_moves), whose segments are among the earlier ones."""

    earlier: pl.DataFrame
    layouts: Mapping[tuple[str, int], Layout]
    start: date
    moved: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ARRIVAL_SCHEMA))


#: An earlier segment: whose, on what, until when, and what it hands on
_EARLIER: Final = pl.Schema(
    {
        "service_point_id": pl.String(),
        "account_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "period_end": pl.Date(),
        "segment_end": pl.Date(),
        "peaks": pl.List(pl.Int64()),
        "carry_out": pl.List(pl.Int64()),
        "credit_out": pl.Int64(),
    }
)


def no_segments() -> pl.DataFrame:
    """Returns earlier segments without rows."""
    return pl.DataFrame(schema=_EARLIER)


def read_carry(
    database: Database, reference: Reference, rows: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff], start: date
) -> Carry:
    """Returns the earlier segments of the services whose tariff carries an amount."""
    carrying = [key for key, t in tariffs.items() if t.ratchets() or t.carries]
    if not carrying:
        return Carry(no_segments(), {}, start)
    months = max((ratchet.months for t in tariffs.values() for _, ratchet in t.ratchets()), default=0)
    versions = pl.DataFrame(carrying, schema={"tariff_id": pl.String, "tariff_version": pl.Int32}, orient="row")
    mine = rows.join(versions, on=["tariff_id", "tariff_version"], how="semi")
    begins = mine.group_by(_SERVICE).agg(pl.col("stretch_start").min().alias("begins"))
    moved = arriving(arrivals(reference, mine))
    coming = moved.select(
        "account_id", pl.col("left_point").alias("service_point_id"), pl.col("left_on").alias("begins")
    )
    begins = pl.concat([begins.select(coming.columns), coming])
    points = begins["service_point_id"].unique().sort().to_list()
    latest = begins["begins"].max()
    before = latest if isinstance(latest, date) else start
    found = store.earlier_segments(database, points, before, months_before(start, max(months, 1)))
    opened = opening_segments(database, reference, points, before, _EARLIER)
    if opened.height:
        found = pl.concat([found.select(_EARLIER.names()).cast(_EARLIER), opened])
    earlier = found.join(begins, on=_SERVICE).filter(pl.col("segment_end") <= pl.col("begins"))
    layouts: dict[tuple[str, int], Layout] = {}
    for tariff_id, version in earlier.select("tariff_id", "tariff_version").unique().iter_rows():
        with suppress(TariffRefusedError):
            layouts[tariff_id, version] = reference.tariff(tariff_id, version).layout
    return Carry(earlier.select(_EARLIER.names()).cast(_EARLIER).unique(), layouts, start, moved)


def price_stretches(
    rows: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff], carry: Carry, period_end: date
) -> Priced:
    """Returns the statements of a period. A service's stretches are priced in order: the second begins with the
    amounts the first carries over. So are all stretches of an account whose credit moves between service points."""
    moving = pl.col("account_id").is_in(carry.moved["account_id"].unique().to_list())
    chain = pl.when(moving).then(pl.lit("")).otherwise(pl.col("service_point_id"))
    rows = rows.with_columns(pl.col("stretch_start").rank("dense").over("account_id", chain).alias("nth"))
    last = int(str(rows["nth"].max() or 1))
    parts: list[Priced] = []
    done = carry.earlier
    for nth in range(1, last + 1):
        part = rows.filter(pl.col("nth") == nth).drop("nth")
        found = price_segments(_with_carried(part, tariffs, carry, done), tariffs, carry.start, period_end)
        parts.append(found)
        if nth < last:
            ended = found.segments.with_columns(pl.lit(period_end).alias("period_end")).select(done.columns)
            done = pl.concat([done, ended.cast(_EARLIER)])
    if last == 1:
        return parts[0]
    refused = pl.concat([p.refused for p in parts]).unique("account_id")
    order = ["account_id", "service_point_id", "segment_start"]
    return Priced(
        pl.concat([p.lines for p in parts]).join(refused, on="account_id", how="anti").sort(*order, "at"),
        pl.concat([p.segments for p in parts]).join(refused, on="account_id", how="anti").sort(order),
        refused,
    )


def _with_carried(
    rows: pl.DataFrame, tariffs: Mapping[tuple[str, int], Tariff], carry: Carry, earlier: pl.DataFrame
) -> pl.DataFrame:
    """Adds carry_in and credit_in (the previous statement's rest, in units and in money) and history_in (per
    register the highest peak within the look-back of its own ratchet)."""
    if not earlier.height:
        return rows.with_columns(nothing_carried())
    frames = []
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        if not (tariff.ratchets() or tariff.carries):
            continue
        mine = rows.filter((pl.col("tariff_id") == tariff_id) & (pl.col("tariff_version") == version))
        before = earlier.join(mine.select(_SERVICE).unique(), on=_SERVICE, how="semi")
        found = carried(tariff, before, carry.layouts, carry.start)
        coming = carry.moved.join(mine.select(_SERVICE).unique(), on=_SERVICE, how="semi")
        if coming.height:
            found = _with_moved(found, coming, tariff, earlier, carry)
        frames.append(
            found.with_columns(pl.lit(tariff_id).alias("tariff_id"), pl.lit(version, pl.Int32).alias("tariff_version"))
        )
    if not frames:
        return rows.with_columns(nothing_carried())
    return rows.join(pl.concat(frames), on=[*_SERVICE, "tariff_id", "tariff_version"], how="left")


def _with_moved(
    found: pl.DataFrame, coming: pl.DataFrame, tariff: Tariff, earlier: pl.DataFrame, carry: Carry
) -> pl.DataFrame:
    """Adds the credit that arrives from other service points to the amounts carried in. Peaks do not move: they
    belong to another connection."""
    left = coming.select("account_id", pl.col("left_point").alias("service_point_id"))
    ended = carried(tariff, earlier.join(left, on=_SERVICE, how="semi"), carry.layouts, carry.start)
    to = coming.select("account_id", "service_point_id", "left_point")
    arrived = ended.join(to, left_on=_SERVICE, right_on=["left_point", "account_id"]).select(
        pl.col("service_point_id_right").alias("service_point_id"),
        "account_id",
        "carry_in",
        "credit_in",
        pl.lit(None, pl.List(pl.Int64)).alias("history_in"),
    )
    parts = pl.concat([found, arrived.cast(found.schema)])
    width = len(tariff.schedule.periods)
    units = [pl.col("carry_in").list.get(k, null_on_oob=True).sum().alias(f"unit {k}") for k in range(width)]
    return (
        parts.group_by(_SERVICE, maintain_order=True)
        .agg(*units, pl.col("credit_in").sum(), pl.col("history_in").drop_nulls().first())
        .select(
            *_SERVICE, pl.concat_list([f"unit {k}" for k in range(width)]).alias("carry_in"), "credit_in", "history_in"
        )
    )


def nothing_carried() -> list[pl.Expr]:
    """Returns the columns of a bill into which no amount is carried."""
    empty = pl.lit(None, pl.List(pl.Int64))
    return [empty.alias("carry_in"), empty.alias("history_in"), pl.lit(None, pl.Int64).alias("credit_in")]


def months_before(start: date, months: int) -> date:
    """The day some months before another."""
    found = pl.Series([start]).dt.offset_by(f"-{months}mo")[0]
    assert isinstance(found, date)  # noqa: S101 - a date column
    return found


def carried(
    tariff: Tariff, earlier: pl.DataFrame, layouts: Mapping[tuple[str, int], Layout], start: date
) -> pl.DataFrame:
    """Returns the amounts that earlier bills carry into one on ``tariff`` that begins on ``start``:
    service_point_id, account_id, carry_in, credit_in and history_in. ``earlier``: as no_segments. Periods and
    registers of other tariffs are matched by name. Each ratchet has its own look-back and, where declared, its own
    months."""
    registers = [f"register {r}" for r in range(len(tariff.registers))]
    parts = [
        _laid_out(tariff, part, {v: layout for (name, v), layout in layouts.items() if name == tariff_id}, start)
        for (tariff_id,), part in sorted(earlier.group_by(["tariff_id"]), key=lambda item: str(item[0]))
    ]
    if not parts:
        parts = [_laid_out(tariff, earlier, {}, start)]
    latest = (
        pl.concat(parts)
        .sort(*_SERVICE, "segment_end")
        .group_by(_SERVICE, maintain_order=True)
        .agg(
            pl.col("carry_out").last().alias("carry_in"),
            pl.col("credit_out").last().alias("credit_in"),
            *(pl.col(name).max() for name in registers),
        )
    )
    history = pl.concat_list(registers) if registers else pl.lit(None, pl.List(pl.Int64))
    return latest.select(*_SERVICE, "carry_in", "credit_in", history.alias("history_in"))


def _laid_out(tariff: Tariff, earlier: pl.DataFrame, layouts: Mapping[int, Layout], start: date) -> pl.DataFrame:
    """Returns earlier segments of one tariff in the layout of ``tariff``, with the peaks within its ratchets'
    look-back."""
    aligned = Aligned(tariff, earlier["tariff_version"], layouts)
    peaks = aligned.registers(earlier["peaks"])
    counted = np.zeros_like(peaks)
    month = earlier.select(pl.col("segment_end").dt.offset_by("-1d").dt.month()).to_series().to_numpy()
    for register, ratchet in tariff.ratchets():
        inside = (earlier["period_end"] > months_before(start, ratchet.months)).to_numpy() & (ratchet.months > 0)
        if ratchet.sources is not None:
            inside &= np.isin(month, sorted(ratchet.sources))
        counted[:, register] = np.maximum(counted[:, register], np.where(inside, peaks[:, register], 0))
    return earlier.select(*_SERVICE, "segment_end", "credit_out").with_columns(
        lists(aligned.periods(earlier["carry_out"])).alias("carry_out"),
        *(pl.Series(f"register {r}", counted[:, r]) for r in range(peaks.shape[1])),
    )
