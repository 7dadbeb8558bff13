"""What a statement's segments are priced from: positions, attributes, and what earlier statements carry into them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.service_agreements import Bound, Reference, bind
from meter_pipeline.billing.statements import before_columns, year_before
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import DemandCharge
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
    for day in sorted(set(rows["billing_day"].to_list())):
        bound: Bound = bind(reference, day)
        tariffs |= bound.tariffs
        attributes.append(
            bound.services.select(
                "service_point_id",
                pl.lit(day).alias("billing_day"),
                "customer_class",
                "meter_size",
                "jurisdiction",
                "rate_code",
                "budget_per_day",
                "winter_average_per_day",
            )
        )
    rows = rows.join(pl.concat(attributes), on=["service_point_id", "billing_day"], how="left")
    return _with_carried(database, rows, tariffs, cycle_id, period_start), tariffs


def _with_carried(
    database: Database, rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff], cycle_id: str, period_start: date
) -> pl.DataFrame:
    """Adds carry_in (the credit the period before left) and history_in (the highest peak a ratchet looks back on)."""
    months = max(
        (c.ratchet.months for t in tariffs.values() for c in t.charges if isinstance(c, DemandCharge) and c.ratchet),
        default=0,
    )
    needed = months or any(t.metering == "net_metering" for t in tariffs.values())
    empty = pl.lit(None, pl.List(pl.Int64))
    rows = _with_year(database, rows, tariffs, cycle_id, period_start)
    if not needed:
        return rows.with_columns(empty.alias("carry_in"), empty.alias("history_in"))
    since = (pl.Series([period_start]).dt.offset_by(f"-{max(months, 1)}mo"))[0]
    earlier = store.earlier_segments(database, cycle_id, period_start, since)
    key = ["service_point_id", "account_id", "tariff_id"]
    carried = earlier.group_by(key).agg(pl.col("carry_out").sort_by("segment_end").last().alias("carry_in"))
    wide = (
        earlier.select(*key, "peaks")
        .filter(pl.col("peaks").list.len() > 0)
        .with_row_index("row")
        .explode("peaks", empty_as_null=True)
        .with_columns(pl.int_range(pl.len()).over("row").alias("register"))
        .group_by(*key, "register")
        .agg(pl.col("peaks").max())
        .sort("register")
        .group_by(key, maintain_order=True)
        .agg(pl.col("peaks").alias("history_in"))
    )
    return rows.join(carried, on=key, how="left").join(wide, on=key, how="left")


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
