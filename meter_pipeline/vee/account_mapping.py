"""Maps usage to payers: account, tariff in force and billing cycle of every service point on a day, or the
exception.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

import polars as pl

#: Kinds of reference exceptions with their texts. None of them drops a read: usage is validated, and waits for its
#: account where it has to have one.
KINDS: Final = {
    "UNKNOWN_METER": "reads of a meter or channel that reference data does not know, or that is installed nowhere on the day",
    "NO_SERVICE_POINT": "a meter installed at a service point that has no record in force on the day",
    "VACANT": "usage where no account pays on the day",
    "SUPPLY_METER": "usage of a zone's supply meter, which no account pays for: the zone's balance counts it",
    "TWO_ACCOUNTS": "more than one agreement in force for a service point on the day",
    "NO_TARIFF": "the agreement's tariff has no version in force on the day",
    "NO_CYCLE": "the agreement's billing cycle has no period that holds the day",
    "ACCOUNT_CLOSED": "the agreement's account is not open on the day",
    "TRANSFERRED": "the meter moved between service points within the day",
}


def in_force(frame: pl.DataFrame, day: date, begin: str = "valid_from", end: str = "valid_to") -> pl.DataFrame:
    """Rows whose stretch holds the day; the end is excluded, null means open."""
    return frame.filter((pl.col(begin) <= day) & (pl.col(end).is_null() | (pl.col(end) > day)))


def map_accounts(
    service_points: pl.DataFrame,
    agreements: pl.DataFrame,
    accounts: pl.DataFrame,
    tariffs: pl.DataFrame,
    cycles: pl.DataFrame,
    supply_meters: Collection[str],
    day: date,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Account, tariff and cycle of each service point on a day, and the exceptions.

    The frames are the reference tables (any rows; what is not in force on ``day`` is ignored); ``supply_meters``: the
    service points that zones declare as supply meters on the day, which need no account. Returns (one row per
    service point with service_point_id, account_id, tariff_id, tariff_version, cycle_id, null where unresolved;
    exceptions with service_point_id, kind, detail).
    """
    live = in_force(agreements, day)
    columns = ["service_point_id", "account_id", "tariff_id", "cycle_id"]
    # only service points with several agreements need a group: one in a thousand, where the whole city's took a third
    # of a second
    several = live["service_point_id"].is_duplicated()
    shared = live.filter(several)
    # deterministic where several are in force: the newest agreement, then the smaller account number
    first = shared.sort("service_point_id", pl.col("valid_from").to_physical() * -1, "account_id").unique(
        "service_point_id", keep="first", maintain_order=True
    )
    names = shared.group_by("service_point_id").agg(pl.col("account_id").sort().str.join(" ").alias("all_accounts"))
    chosen = pl.concat(
        [
            live.filter(~several).select(*columns, pl.lit(None, pl.String).alias("all_accounts")),
            first.select(columns).join(names, on="service_point_id", how="left").select(*columns, "all_accounts"),
        ]
    )
    known_open = in_force(accounts, day, "opened", "closed")["account_id"].implode()
    tariff = in_force(tariffs, day).group_by("tariff_id").agg(pl.col("version").max().alias("tariff_version"))
    in_cycle = (
        cycles.filter((pl.col("period_start") <= day) & (pl.col("period_end") > day))["cycle_id"].unique().implode()
    )
    mapped = (
        service_points.select("service_point_id")
        .unique()
        .join(chosen, on="service_point_id", how="left")
        .join(tariff, on="tariff_id", how="left")
    )
    paid = pl.col("account_id").is_not_null()
    supplies = pl.col("service_point_id").is_in(list(supply_meters))
    faults = {
        "VACANT": (~paid & ~supplies, pl.lit("no agreement")),
        "SUPPLY_METER": (~paid & supplies, pl.lit("no account pays; the balance of its zone counts it")),
        "TWO_ACCOUNTS": (pl.col("all_accounts").is_not_null(), pl.col("all_accounts")),
        "NO_TARIFF": (paid & pl.col("tariff_version").is_null(), pl.col("tariff_id")),
        "NO_CYCLE": (paid & ~pl.col("cycle_id").is_in(in_cycle).fill_null(False), pl.col("cycle_id")),
        "ACCOUNT_CLOSED": (paid & ~pl.col("account_id").is_in(known_open), pl.col("account_id")),
    }
    exceptions = pl.concat(
        [
            mapped.filter(condition).select(
                "service_point_id", pl.lit(kind).alias("kind"), detail.cast(pl.String).alias("detail")
            )
            for kind, (condition, detail) in faults.items()
        ]
    ).sort("service_point_id", "kind")
    return mapped.select("service_point_id", "account_id", "tariff_id", "tariff_version", "cycle_id"), exceptions
