"""What a statement's segments are priced from: positions, attributes, and what earlier statements carry into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_end import year_before
from meter_pipeline.billing.positions import Aligned, lists
from meter_pipeline.billing.service_agreements import ATTRIBUTES, Bound, Reference, bind
from meter_pipeline.billing.statements import before_columns
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import Layout
from meter_pipeline.postgres.database import Database


def gather(
    database: Database,
    reference: Reference,
    ready: pl.DataFrame,
    cycle_id: str,
    period_start: date,
    positions: Callable[[list[date]], pl.DataFrame],
) -> tuple[pl.DataFrame, dict[tuple[str, int], Tariff]]:
    """Segments with their positions, attributes and what earlier periods carry into them; the tariffs they are priced
    with.

    ``positions``: CHARGE_SCHEMA rows of some billing days.
    """
    tariffs: dict[tuple[str, int], Tariff] = {}
    if not ready.height:
        return ready, tariffs
    ends = ready.with_columns(pl.col("segment_end").dt.offset_by("-1d").alias("billing_day"))
    key = ["billing_day", "service_point_id", "account_id", "tariff_id", "tariff_version", "stretch_start"]
    reached = positions(ends["billing_day"].unique().sort().to_list())
    rows = ends.join(reached.drop("cycle_id", "period_start"), on=key)
    inner = ready.filter(pl.col("segment_start") > pl.col("stretch_start"))
    eves = [d - timedelta(days=1) for d in inner["segment_start"].unique().to_list()]
    before = positions(eves) if eves else pl.DataFrame(schema=CHARGE_SCHEMA)
    rows = rows.join(
        before_columns(before),
        on=["service_point_id", "account_id", "tariff_id", "stretch_start", "segment_start"],
        how="left",
    )
    attributes = []
    layouts: dict[tuple[str, int], Layout] = {}
    for day in sorted(set(rows["billing_day"].to_list())):
        bound: Bound = bind(reference, day)
        tariffs |= bound.tariffs
        layouts |= bound.layouts
        attributes.append(
            bound.services.select(
                "service_point_id",
                pl.lit(day).alias("billing_day"),
                "customer_class",
                *ATTRIBUTES,
            )
        )
    rows = rows.join(pl.concat(attributes), on=["service_point_id", "billing_day"], how="left")
    return _with_carried(database, rows, tariffs, layouts, (cycle_id, period_start)), tariffs


def _with_carried(
    database: Database,
    rows: pl.DataFrame,
    tariffs: dict[tuple[str, int], Tariff],
    layouts: Mapping[tuple[str, int], Layout],
    period: tuple[str, date],
) -> pl.DataFrame:
    """Adds carry_in and credit_in (what the period before left, in units and in money) and history_in (per register the
    highest peak that its own ratchet looks back on). ``period``: cycle and first day."""
    cycle_id, start = period
    months = max((ratchet.months for t in tariffs.values() for _, ratchet in t.ratchets()), default=0)
    needed = months or any(t.carries_units or t.carries_money for t in tariffs.values())
    rows = _with_year(database, rows, tariffs, cycle_id, start)
    if not needed:
        return rows.with_columns(nothing_carried())
    earlier = store.earlier_segments(database, cycle_id, start, months_before(start, max(months, 1)))
    frames = []
    for (tariff_id, version), tariff in sorted(tariffs.items()):
        held = {v: layout for (name, v), layout in layouts.items() if name == tariff_id}
        found = carried(tariff, earlier.filter(pl.col("tariff_id") == tariff_id), held, start)
        frames.append(
            found.with_columns(pl.lit(tariff_id).alias("tariff_id"), pl.lit(version, pl.Int32).alias("tariff_version"))
        )
    return rows.join(
        pl.concat(frames), on=["service_point_id", "account_id", "tariff_id", "tariff_version"], how="left"
    )


def nothing_carried() -> list[pl.Expr]:
    """Columns of a bill into which nothing is carried."""
    empty = pl.lit(None, pl.List(pl.Int64))
    return [empty.alias("carry_in"), empty.alias("history_in"), pl.lit(None, pl.Int64).alias("credit_in")]


def months_before(start: date, months: int) -> date:
    """The day some months before another."""
    found = pl.Series([start]).dt.offset_by(f"-{months}mo")[0]
    assert isinstance(found, date)  # noqa: S101 - a date column
    return found


def carried(tariff: Tariff, earlier: pl.DataFrame, layouts: Mapping[int, Layout], start: date) -> pl.DataFrame:
    """What earlier bills of a tariff carry into one that begins on ``start``: service_point_id, account_id, carry_in,
    credit_in and history_in. ``earlier``: segments with tariff_version, period_end, segment_end, peaks, carry_out and
    credit_out. Each ratchet has its own look-back and, where it says so, its own months."""
    earlier = earlier.sort("service_point_id", "account_id", "segment_end")
    aligned = Aligned(tariff, earlier["tariff_version"], layouts)
    peaks = aligned.registers(earlier["peaks"])
    counted = np.zeros_like(peaks)
    month = earlier.select(pl.col("segment_end").dt.offset_by("-1d").dt.month()).to_series().to_numpy()
    for register, ratchet in tariff.ratchets():
        inside = (earlier["period_end"] > months_before(start, ratchet.months)).to_numpy() & (ratchet.months > 0)
        if ratchet.sources is not None:
            inside &= np.isin(month, sorted(ratchet.sources))
        counted[:, register] = np.maximum(counted[:, register], np.where(inside, peaks[:, register], 0))
    registers = [f"register {r}" for r in range(peaks.shape[1])]
    wide = earlier.select("service_point_id", "account_id", "credit_out").with_columns(
        lists(aligned.periods(earlier["carry_out"])).alias("carry_out"),
        *(pl.Series(name, counted[:, r]) for r, name in enumerate(registers)),
    )
    latest = wide.group_by("service_point_id", "account_id", maintain_order=True).agg(
        pl.col("carry_out").last().alias("carry_in"),
        pl.col("credit_out").last().alias("credit_in"),
        *(pl.col(name).max() for name in registers),
    )
    history = pl.concat_list(registers) if registers else pl.lit(None, pl.List(pl.Int64))
    return latest.select("service_point_id", "account_id", "carry_in", "credit_in", history.alias("history_in"))


def _with_year(
    database: Database, rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff], cycle_id: str, period_start: date
) -> pl.DataFrame:
    """Adds year_lines and year_days: what the earlier statements of the billing year charged, corrections included, and
    the days they covered."""
    yearly = {
        tariff_id: year_before(t, period_start)
        for (tariff_id, _), t in sorted(tariffs.items())
        if t.annual_minimum is not None
    }
    frames = [
        store.year_so_far(database, cycle_id, tariff_id, since, period_start) for tariff_id, since in yearly.items()
    ]
    if not frames:
        return rows.with_columns(pl.lit(None, pl.Int64).alias("year_lines"), pl.lit(None, pl.Int64).alias("year_days"))
    return rows.join(pl.concat(frames), on=["service_point_id", "account_id", "tariff_id"], how="left")
