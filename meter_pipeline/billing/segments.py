"""Which stretches of service a billing period's statements cover: by service point, account, tariff, version, and the
attributes the tariff depends on."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from typing import Final

import polars as pl

from meter_pipeline.billing.service_agreements import Reference
from meter_pipeline.billing.tariffs import TariffRefusedError

#: Whose service it is, and where
_PEOPLE: Final = ["account_id", "service_point_id"]


def stretches(reference: Reference, cycle_id: str, period_start: date, period_end: date) -> pl.DataFrame:
    """Unbroken runs of one account, tariff and cycle at a service point within a period: account_id, service_point_id,
    tariff_id, stretch_start, stretch_end (excluded), and first and final as in segments."""
    ordered = reference.agreements.sort("service_point_id", "valid_from")
    same = pl.all_horizontal(
        pl.col(c) == pl.col(c).shift(1) for c in ("service_point_id", "account_id", "tariff_id", "cycle_id")
    )
    follows = (same & (pl.col("valid_from") == pl.col("valid_to").shift(1))).fill_null(False)
    # A service begins and ends with its account, whatever tariff or cycle it was on: another tariff is no final bill.
    served = ordered.with_columns(
        (pl.col("valid_from").min().over(_PEOPLE) >= period_start).alias("first"),
        (pl.col("valid_to").fill_null(date.max).max().over(_PEOPLE) <= period_end).alias("final"),
    )
    # Going live inside a period: its bill covers the days from then on.
    opens = max(period_start, reference.opening or period_start)
    return (
        served.with_columns((~follows).cum_sum().alias("run"))
        .group_by("run", "service_point_id", "account_id", "tariff_id", "cycle_id")
        .agg(
            pl.col("valid_from").min().alias("begins"),
            pl.col("valid_to").last().alias("ends"),
            pl.col("first", "final").first(),
        )
        .filter(
            (pl.col("cycle_id") == cycle_id)
            & (pl.col("begins") < period_end)
            & (pl.col("ends").is_null() | (pl.col("ends") > opens))
            & (opens < period_end)
        )
        .with_columns(
            pl.max_horizontal("begins", pl.lit(opens)).alias("stretch_start"),
            pl.min_horizontal(pl.col("ends").fill_null(period_end), pl.lit(period_end)).alias("stretch_end"),
        )
    )


def segments(reference: Reference, cycle_id: str, period_start: date, period_end: date) -> pl.DataFrame:
    """One row per service point, account, tariff and version within a period, sorted by account, service point and
    start.

    Columns: account_id, service_point_id, tariff_id, tariff_version, segment_start, segment_end (excluded),
    stretch_start, stretch_end, first (the service began in the period), final (it ended in it), last (the stretch's
    last segment). A day on which an attribute changes that the tariff depends on (a larger meter is put in) begins
    another segment.
    """
    return covered(reference, stretches(reference, cycle_id, period_start, period_end))


def covered(reference: Reference, runs: pl.DataFrame) -> pl.DataFrame:
    """Stretches cut into the segments of tariff versions, as segments returns them."""
    versions = reference.tariffs.select(
        "tariff_id", pl.col("version").cast(pl.Int32).alias("tariff_version"), "valid_from", "valid_to"
    )
    wanted = (
        runs.join(versions, on="tariff_id")
        .with_columns(
            pl.max_horizontal("stretch_start", "valid_from").alias("segment_start"),
            pl.min_horizontal("stretch_end", pl.col("valid_to").fill_null(date.max)).alias("segment_end"),
        )
        .filter(pl.col("segment_start") < pl.col("segment_end"))
        .with_columns((pl.col("segment_end") == pl.col("stretch_end")).alias("last"))
        .select(
            *_PEOPLE,
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
    return _cut_by_attributes(wanted, reference).with_columns(
        (pl.col("segment_end") == pl.col("stretch_end")).alias("last")
    )


def _cut_by_attributes(wanted: pl.DataFrame, reference: Reference) -> pl.DataFrame:
    """Rows with a change of an attribute inside them, cut on the days of the changes."""
    days, classes = _changes(wanted, reference), _class_changes(wanted, reference)
    versions = wanted.select("tariff_id", "tariff_version").unique().rows()
    dated = {version: _rate_days(reference, *version) for version in versions}
    if not days and not classes and not any(dated.values()):
        return wanted
    depends = {version: _reads(reference, *version) for version in versions}
    rows: list[dict[str, object]] = []
    for row in wanted.to_dicts():
        attributes = depends[row["tariff_id"], row["tariff_version"]]
        inside = {
            day
            for attribute, day in days.get(row["service_point_id"], ())
            if attribute in attributes and row["segment_start"] < day < row["segment_end"]
        }
        if "customer_class" in attributes:
            inside |= {d for d in classes.get(row["account_id"], ()) if row["segment_start"] < d < row["segment_end"]}
        inside |= {
            d for d in dated[row["tariff_id"], row["tariff_version"]] if row["segment_start"] < d < row["segment_end"]
        }
        edges = [row["segment_start"], *sorted(inside), row["segment_end"]]
        rows += [row | {"segment_start": a, "segment_end": b} for a, b in pairwise(edges)]
    return pl.DataFrame(rows, schema=wanted.schema).sort("account_id", "service_point_id", "segment_start")


def _reads(reference: Reference, tariff_id: str, version: int) -> frozenset[str]:
    try:
        return reference.tariff(tariff_id, version).reads
    except TariffRefusedError:
        return frozenset()


def _rate_days(reference: Reference, tariff_id: str, version: int) -> frozenset[date]:
    try:
        return reference.tariff(tariff_id, version).rate_days
    except TariffRefusedError:
        return frozenset()


def _changes(wanted: pl.DataFrame, reference: Reference) -> dict[str, list[tuple[str, date]]]:
    """Days inside a segment on which an attribute of its service point has another value than the day before."""
    attributes = reference.service_attributes
    if not attributes.height or not wanted.height:
        return {}
    first, past = wanted["segment_start"].min(), wanted["segment_end"].max()
    begins = attributes.filter((pl.col("valid_from") > first) & (pl.col("valid_from") < past))
    ends = attributes.filter((pl.col("valid_to") > first) & (pl.col("valid_to") < past))
    key = ["service_point_id", "attribute"]
    # Few points have a change in a period; only theirs are looked at one by one.
    moving = pl.concat([begins.select(key), ends.select(key)]).unique()
    found: dict[str, list[tuple[str, date]]] = {}
    rows = attributes.join(moving, on=key).sort(*key, "valid_from")
    for (point, attribute), part in rows.group_by(key, maintain_order=True):
        spans = part.select("valid_from", "valid_to", "value").rows()
        for day in {d for a, b, _ in spans for d in (a, b) if d is not None}:
            value, before = (
                next((v for a, b, v in spans if a <= d and (b is None or d < b)), None)
                for d in (day, day - timedelta(days=1))
            )
            if value != before:
                found.setdefault(str(point), []).append((str(attribute), day))
    return found


def _class_changes(wanted: pl.DataFrame, reference: Reference) -> dict[str, set[date]]:
    """By account, days inside a segment on which its class is another one than the day before."""
    values = reference.account_values
    if not values.height or not wanted.height:
        return {}
    values = values.join(wanted.select("account_id").unique(), on="account_id")
    first, past = wanted["segment_start"].min(), wanted["segment_end"].max()
    whole = dict(reference.accounts.select("account_id", "customer_class").iter_rows())
    found: dict[str, set[date]] = {}
    for (account,), part in values.sort("account_id", "valid_from").group_by("account_id", maintain_order=True):
        spans = part.select("valid_from", "valid_to", "customer_class").rows()
        for day in {d for a, b, _ in spans for d in (a, b) if d is not None and first < d < past}:
            value, before = (
                next((v for a, b, v in spans if a <= d and (b is None or d < b)), whole.get(str(account)))
                for d in (day, day - timedelta(days=1))
            )
            if value != before:
                found.setdefault(str(account), set()).add(day)
    return found


def uncovered(runs: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """Stretches with days that no version of their tariff covers: account_id, detail. ``runs``: from stretches;
    ``wanted``: their segments."""
    key = [*_PEOPLE, "tariff_id", "stretch_start"]
    covered = wanted.group_by(key).agg(
        (pl.col("segment_end") - pl.col("segment_start")).dt.total_days().sum().alias("covered")
    )
    return (
        runs.join(covered, on=key, how="left")
        .with_columns(
            pl.col("covered").fill_null(0),
            (pl.col("stretch_end") - pl.col("stretch_start")).dt.total_days().alias("whole"),
        )
        .filter(pl.col("whole") != pl.col("covered"))
        .select(
            "account_id",
            pl.format(
                "{}: {} of {} days have a version of {}", "service_point_id", "covered", "whole", "tariff_id"
            ).alias("detail"),
        )
    )
