"""What a statement's segments are priced from: positions, attributes, and what earlier statements carry into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA
from meter_pipeline.billing.bill_end import year_before
from meter_pipeline.billing.carried import Carry, no_segments, price_stretches, read_carry
from meter_pipeline.billing.credit_moves import unclear, with_targets
from meter_pipeline.billing.service_agreements import ATTRIBUTES, DayServices, Reference, services_of_day
from meter_pipeline.billing.statements import Priced, before_columns
from meter_pipeline.billing.tables import statements as store
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import Layout
from meter_pipeline.postgres.database import Database


@dataclass(frozen=True, slots=True)
class SegmentInputs:
    """Segments of a period with all that they are priced from."""

    rows: pl.DataFrame
    tariffs: dict[tuple[str, int], Tariff]
    carry: Carry

    def price(self, accounts: Sequence[str], period_end: date) -> Priced:
        """Statements of some of the accounts."""
        chosen = self.rows.filter(pl.col("account_id").is_in(list(accounts)))
        priced = price_stretches(chosen, self.tariffs, self.carry, period_end)
        refused = unclear(chosen, priced.segments, self.tariffs)
        if not refused.height:
            return priced
        return Priced(
            priced.lines.join(refused, on="account_id", how="anti"),
            priced.segments.join(refused, on="account_id", how="anti"),
            pl.concat([priced.refused, refused]).unique("account_id", keep="first"),
        )


def gather(
    database: Database,
    reference: Reference,
    ready: pl.DataFrame,
    cycle_id: str,
    period_start: date,
    positions: Callable[[list[date]], pl.DataFrame],
) -> SegmentInputs:
    """Segments with their positions and attributes, the tariffs they are priced with, and what earlier statements carry
    into them.

    ``positions``: CHARGE_SCHEMA rows of some billing days.
    """
    tariffs: dict[tuple[str, int], Tariff] = {}
    if not ready.height:
        return SegmentInputs(ready, tariffs, Carry(no_segments(), {}, period_start))
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
        bound: DayServices = services_of_day(reference, day)
        tariffs |= bound.tariffs
        layouts |= bound.layouts
        attributes.append(
            bound.services.select(
                "service_point_id",
                pl.lit(day).alias("billing_day"),
                "customer_class",
                *ATTRIBUTES,
                "declared",
            )
        )
    rows = rows.join(pl.concat(attributes), on=["service_point_id", "billing_day"], how="left")
    rows = with_targets(reference, rows, tariffs).with_columns(
        # Where the tariff changed in the last period too, what the first stretch left goes into the second.
        pl.col("final") & (pl.col("stretch_end") == pl.col("stretch_end").max().over("account_id", "service_point_id"))
    )
    rows = _settled(reference, _with_year(database, rows, tariffs, cycle_id, period_start), tariffs)
    carry = read_carry(database, reference, rows, tariffs, period_start)
    return SegmentInputs(rows, tariffs, replace(carry, layouts={**carry.layouts, **layouts}))


def _settled(reference: Reference, rows: pl.DataFrame, tariffs: dict[tuple[str, int], Tariff]) -> pl.DataFrame:
    """Marks as final the last segment on a tariff that carries credit, where the service goes on under one that carries
    none: what is left is settled then."""
    carrying = {
        key: (t.carries_units, t.carries_money) for key, t in tariffs.items() if t.carries_units or t.carries_money
    }
    if not carrying:
        return rows
    service = ["account_id", "service_point_id"]
    following = reference.agreements.select(
        *service, pl.col("tariff_id").alias("next_tariff"), pl.col("valid_from").alias("stretch_end")
    )
    ends = rows.filter(pl.col("last") & ~pl.col("final")).join(following, on=[*service, "stretch_end"])
    key = [*service, "segment_start"]
    left = []
    for row in ends.select(*key, "tariff_id", "tariff_version", "next_tariff", "stretch_end").iter_rows(named=True):
        units, money = carrying.get((row["tariff_id"], row["tariff_version"]), (False, False))
        then = reference.in_force(row["next_tariff"], row["stretch_end"]) if units or money else None
        if then is not None and ((units and not then.carries_units) or (money and not then.carries_money)):
            left.append({name: row[name] for name in key})
    if not left:
        return rows
    leaving = pl.DataFrame(left, schema={c: rows.schema[c] for c in key}).with_columns(pl.lit(True).alias("leaves"))
    return (
        rows.join(leaving, on=key, how="left")
        .with_columns((pl.col("final") | pl.col("leaves").fill_null(False)).alias("final"))
        .drop("leaves")
    )


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
