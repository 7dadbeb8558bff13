"""Which stretches of service a billing period's statements cover: by service point, account, tariff and version."""

from __future__ import annotations

from datetime import date

import polars as pl

from meter_pipeline.billing.service_agreements import Reference


def segments(reference: Reference, cycle_id: str, period_start: date, period_end: date) -> pl.DataFrame:
    """One row per service point, account, tariff and version within a period, sorted by account, service point and
    start.

    Columns: account_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end (excluded),
    stretch_start, stretch_end, first (the service began in the period), final (it ended in it), last (the stretch's
    last segment).
    """
    ordered = reference.agreements.sort("service_point_id", "valid_from")
    same = pl.all_horizontal(
        pl.col(c) == pl.col(c).shift(1) for c in ("service_point_id", "account_id", "tariff_id", "cycle_id")
    )
    follows = (same & (pl.col("valid_from") == pl.col("valid_to").shift(1))).fill_null(False)
    runs = (
        ordered.with_columns((~follows).cum_sum().alias("run"))
        .group_by("run", "service_point_id", "account_id", "tariff_id", "cycle_id")
        .agg(pl.col("valid_from").min().alias("begins"), pl.col("valid_to").last().alias("ends"))
        .filter(
            (pl.col("cycle_id") == cycle_id)
            & (pl.col("begins") < period_end)
            & (pl.col("ends").is_null() | (pl.col("ends") > period_start))
        )
        .with_columns(
            pl.max_horizontal("begins", pl.lit(period_start)).alias("stretch_start"),
            pl.min_horizontal(pl.col("ends").fill_null(period_end), pl.lit(period_end)).alias("stretch_end"),
        )
    )
    people = ["account_id", "service_point_id"]
    runs = runs.with_columns(
        (pl.col("begins").min().over(people) >= period_start).alias("first"),
        (pl.col("ends").fill_null(date.max).max().over(people) <= period_end).alias("final"),
    )
    versions = reference.tariffs.select(
        "tariff_id", pl.col("version").cast(pl.Int32).alias("tariff_version"), "valid_from", "valid_to"
    )
    return (
        runs.join(versions, on="tariff_id")
        .with_columns(
            pl.max_horizontal("stretch_start", "valid_from").alias("segment_start"),
            pl.min_horizontal("stretch_end", pl.col("valid_to").fill_null(date.max)).alias("segment_end"),
        )
        .filter(pl.col("segment_start") < pl.col("segment_end"))
        .with_columns((pl.col("segment_end") == pl.col("stretch_end")).alias("last"))
        .select(
            *people,
            "tariff_id",
            "tariff_version",
            "segment_start",
            "segment_end",
            "stretch_start",
            "stretch_end",
            "first",
            "final",
            "last",
        )
        .sort("account_id", "service_point_id", "segment_start")
    )
