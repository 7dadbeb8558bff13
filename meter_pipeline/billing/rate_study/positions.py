"""Positions from which a proposed tariff is priced: the stored positions of bills where it counts as the old tariff
did, the validated intervals where it counts otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA
from meter_pipeline.billing.day_peaks import after_day
from meter_pipeline.billing.day_shards import charges_of, read_shard
from meter_pipeline.billing.positions import lists, matrix, micro_of
from meter_pipeline.billing.rate_study import tables
from meter_pipeline.billing.service_agreements import Reference, services_of_day
from meter_pipeline.billing.tables import adjustments
from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.sharding import KeyRange

#: The proposed document's version number in a study: above any published one.
PROPOSED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """One tariff of a study: the document proposed and the tariff that it replaces. ``raw``: the document's bytes."""

    proposed: Tariff
    raw: bytes
    replaces: str


def proposed_reference(reference: Reference, change: Change) -> Reference:
    """Reference data in which the proposed document is the one version of the tariff it replaces, whatever the day."""
    rows = reference.tariffs
    replaced = rows.filter(pl.col("tariff_id") == change.replaces).head(1)
    alone = replaced.with_columns(
        pl.lit(PROPOSED, rows.schema["version"]).alias("version"),
        pl.lit(date(1900, 1, 1)).alias("valid_from"),
        pl.lit(None, pl.Date).alias("valid_to"),
    )
    key = (change.replaces, PROPOSED)
    return replace(
        reference,
        tariffs=pl.concat([rows.filter(pl.col("tariff_id") != change.replaces), alone.select(rows.columns)]),
        documents={**reference.documents, key: change.raw},
        hashes={**reference.hashes, key: change.proposed.digest},
        frozen={k: v for k, v in reference.frozen.items() if k != key},
    )


def counts_otherwise(old: Tariff, new: Tariff) -> str | None:
    """Why stored positions of the old tariff cannot price the new one, in words; None where they can."""
    if new.unit != old.unit:
        return f"it counts in {new.unit}, {old.unit} was stored"
    if len(new.schedule.periods) > 1 and (new.schedule != old.schedule or new.holidays != old.holidays):
        return "its time-of-use periods are others"
    if new.registers and new.demand_minutes != old.demand_minutes:
        return f"its demand is measured over {new.demand_minutes} minutes, {old.demand_minutes} were stored"
    for register in new.registers:
        if replace(register, name="") not in [replace(existing, name="") for existing in old.registers]:
            return f"its demand register {register.name} was not measured"
    return None


def relaid(rows: pl.DataFrame, olds: Mapping[int, Tariff], change: Change, services: pl.DataFrame) -> pl.DataFrame:
    """Positions stored under the old tariff's versions, as the proposed one lays them out.

    ``services``: service_point_id and budget_per_day, for a budget that grows by the proposed tariff's months.
    """
    new = change.proposed
    parts = [
        _relaid(part, olds[int(str(version))], new)
        for (version,), part in sorted(rows.group_by(["tariff_version"]), key=lambda item: str(item[0]))
    ]
    if not parts:
        return rows
    out = pl.concat(parts).with_columns(pl.lit(PROPOSED, pl.Int32).alias("tariff_version"))
    located = out.select("service_point_id").join(services, on="service_point_id", how="left", maintain_order="left")
    daily = micro_of(located["budget_per_day"])
    shares = _budget_shares(new, out)
    budget = np.zeros(out.height, np.int64)
    for percent, days in shares.items():
        budget += np.maximum(daily, 0) * percent // 10**8 * days
    return out.with_columns(pl.Series("budget_to_date", budget)).cast(CHARGE_SCHEMA).select(CHARGE_SCHEMA.names())


def _relaid(part: pl.DataFrame, old: Tariff, new: Tariff) -> pl.DataFrame:
    lists_by_period = ("energy_to_date", "export_to_date", "carry") if len(new.schedule.periods) == 1 else ()
    whole = [pl.concat_list(pl.col(c).list.sum()).alias(c) for c in lists_by_period]
    bare = [replace(register, name="") for register in old.registers]
    at = [bare.index(replace(register, name="")) for register in new.registers]
    moved = {
        name: lists(matrix(part[name], len(old.registers))[:, at])
        for name in ("peaks_to_date", "peak_at_to_date", "register_days", "history")
    }
    return part.with_columns(*whole, *(values.alias(name) for name, values in moved.items()))


def _budget_shares(new: Tariff, rows: pl.DataFrame) -> dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """How many of each row's days have each monthly share of the budget, the share in millionths of a percent."""
    if not new.budget_monthly:
        return {10**8: rows["days"].to_numpy().astype(np.int64)}
    percents = [int(p * 10**6) for p in new.budget_monthly]
    spans = rows.select("stretch_start", "billing_day").rows()
    counted: dict[tuple[date, date], dict[int, int]] = {}
    for a, b in set(spans):
        months: dict[int, int] = {}
        for k in range((b - a).days + 1):
            share = percents[(a + timedelta(days=k)).month - 1]
            months[share] = months.get(share, 0) + 1
        counted[a, b] = months
    return {
        share: np.array([counted[span].get(share, 0) for span in spans], np.int64) for share in dict.fromkeys(percents)
    }


def with_revisions(
    database: Database, rows: pl.DataFrame, first: date, within: KeyRange, olds: Mapping[int, Tariff]
) -> pl.DataFrame:
    """Positions with what later reads of days in sealed months changed: quantities and peaks from the determinants
    known now. ``olds``: the versions of the tariff that the rows were billed under.
    """
    if not rows.height:
        return rows
    last = rows["billing_day"].max()
    assert isinstance(last, date)  # noqa: S101 - a date column
    points = tables.revised_points(database, first, last + timedelta(days=1), within)
    mine = rows.filter(pl.col("service_point_id").is_in(points))
    if not mine.height:
        return rows
    names = mine["service_point_id"].unique().sort().to_list()
    later = adjustments.revisions(database, first, last + timedelta(days=1), names)
    days = []
    day = first
    while day <= last:
        stored = tables.determinants(database, day, names)
        known_later = later.filter(pl.col("billing_day") == day)
        # Nobody is charged any more where the determinants are null.
        newer = [_revision(text) for text in known_later["determinants"].to_list() if text != "null"]
        changed = pl.DataFrame(newer, schema=DETERMINANT_SCHEMA)
        days += [stored.filter(~pl.col("service_point_id").is_in(known_later["service_point_id"].to_list())), changed]
        day += timedelta(days=1)
    known = pl.concat(days)
    again = [_again(row, known, olds) for row in mine.to_dicts()]
    kept = rows.filter(~pl.col("service_point_id").is_in(points))
    return pl.concat([kept, pl.DataFrame(again, schema=CHARGE_SCHEMA)])


def _revision(text: str) -> dict[str, object]:
    row: dict[str, object] = json.loads(text)
    dates = ("billing_day", "period_start", "period_end", "stretch_start")
    return row | {name: date.fromisoformat(str(row[name])) for name in dates}


def _again(row: dict[str, object], known: pl.DataFrame, olds: Mapping[int, Tariff]) -> dict[str, object]:
    """A position summed again from determinants: few services have one."""
    mine = known.filter(
        (pl.col("service_point_id") == row["service_point_id"])
        & (pl.col("account_id") == row["account_id"])
        & (pl.col("tariff_id") == row["tariff_id"])
        & (pl.col("stretch_start") == row["stretch_start"])
        & (pl.col("billing_day") <= pl.lit(row["billing_day"], pl.Date))
    ).sort("billing_day")
    registers = olds[int(str(row["tariff_version"]))].registers
    nothing = np.zeros((1, len(registers)), np.int64)
    peaks = nothing, nothing
    for k in range(mine.height):
        of_day = tuple(matrix(mine[name].slice(k, 1), len(registers)) for name in ("peaks", "peak_at"))
        peaks = after_day(registers, peaks, (of_day[0], of_day[1]))
    sums = {
        "energy_to_date": [sum(v) for v in zip(*mine["energy"].to_list(), strict=True)],
        "export_to_date": [sum(v) for v in zip(*mine["export"].to_list(), strict=True)],
        "peaks_to_date": peaks[0][0].tolist(),
    }
    return row | sums


def from_intervals(
    database: Database,
    calendar: BillingCalendar,
    reference: Reference,
    span: tuple[date, date],
    wanted: Sequence[date],
    within: KeyRange,
) -> pl.DataFrame:
    """Positions under the proposed tariff on some days of [first, past), counted again from the validated intervals.

    Every day of the span is worked through as billing works through it: about 2 s a day for 100,000 services.
    """
    first, past = span
    position = pl.DataFrame(schema=CHARGE_SCHEMA)
    kept = []
    day = first
    while day < past:
        bound = services_of_day(reference, day)
        shard = replace(read_shard(database, calendar, day, bound, within), prior=position)
        charges = charges_of(shard, calendar, day, reference.holidays).charges
        gone = pl.col("service_point_id").is_in(charges["service_point_id"].to_list())
        position = pl.concat([position.filter(~gone), charges])
        if day in wanted:
            kept.append(charges)
        day += timedelta(days=1)
    return pl.concat(kept) if kept else pl.DataFrame(schema=CHARGE_SCHEMA)
