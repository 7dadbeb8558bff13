"""A range of a billing day's services: inputs of its charges, and the charges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Final

import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DayCharges, accrue, joined
from meter_pipeline.billing.day_groups import DayExtras, DayGroup
from meter_pipeline.billing.determinants import day_determinants
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, DayServices, exceptions
from meter_pipeline.billing.tables import days
from meter_pipeline.billing.tables import usage as usage_store
from meter_pipeline.billing.virtual_points import Parts, merged, without
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.schemas.reads import DayMatrix
from meter_pipeline.set_aside import apart
from meter_pipeline.sharding import KeyRange, KeySet


@dataclass(frozen=True, slots=True)
class ShardInput:
    """Inputs of a shard of the day."""

    services: DayServices
    usage: list[DayMatrix]
    daily: pl.DataFrame
    prior: pl.DataFrame
    extras: DayExtras

    def of(self, service_points: Sequence[str]) -> ShardInput:
        """The part of it that concerns some service points, and the usage that no agreement names."""
        bound = self.services
        if len(service_points) == bound.services.height:
            return self
        chosen = pl.col("service_point_id").is_in(list(service_points))
        others = bound.services.filter(~chosen)["service_point_id"].to_list()
        mine = ~pl.col("service_point_id").is_in(others)
        return ShardInput(
            replace(bound, services=bound.services.filter(chosen)),
            [_rows_of(matrix, mine) for matrix in self.usage],
            self.daily.filter(mine),
            self.prior.filter(mine),
            replace(
                self.extras,
                dials=_some(self.extras.dials, mine),
                demand=_some(self.extras.demand, mine),
                reactive=[_rows_of(matrix, mine) for matrix in self.extras.reactive],
            ),
        )


def _some(frame: pl.DataFrame | None, chosen: pl.Expr) -> pl.DataFrame | None:
    return None if frame is None else frame.filter(chosen)


def _rows_of(matrix: DayMatrix, chosen: pl.Expr) -> DayMatrix:
    at = matrix.keys.with_row_index("row").filter(chosen)["row"].to_numpy()
    return replace(
        matrix,
        keys=matrix.keys.filter(chosen),
        values=matrix.values[at],
        quality=matrix.quality[at],
        sequence=matrix.sequence[at],
        offsets=None if matrix.offsets is None else matrix.offsets[at],
    )


def read_shard(
    database: Database, calendar: BillingCalendar, day: date, bound: DayServices, within: KeyRange | KeySet
) -> ShardInput:
    """Usage and positions of the services of a range."""
    services = bound.within(within)
    usage, daily = usage_store.read_usage(database, day, within), usage_store.read_daily(database, day, within)
    if bound.parts.height:
        usage, daily = _with_parts(database, day, services, usage, daily)
    return ShardInput(
        services,
        usage,
        daily,
        days.read_prior(database, day, CHARGE_SCHEMA.names(), services.services, within),
        _extras(database, calendar, day, services, within, daily),
    )


def _with_parts(
    database: Database, day: date, services: DayServices, usage: list[DayMatrix], daily: pl.DataFrame
) -> tuple[list[DayMatrix], pl.DataFrame]:
    """A range's usage with what is billed here of other service points, and without what is billed elsewhere."""
    parts = Parts(
        services.parts,
        lambda points: usage_store.read_usage_of(database, day, points),
        lambda points: usage_store.read_daily_of(database, day, points),
    )
    added, totals = parts.added(services.services["service_point_id"])
    gone = parts.elsewhere()
    kept = daily.filter(~pl.col("service_point_id").is_in(gone))
    usage = merged([*(without(matrix, gone) for matrix in usage), *added])
    return [m for m in usage if m.rows], kept if totals is None else pl.concat([kept, totals.select(kept.columns)])


def _extras(
    database: Database,
    calendar: BillingCalendar,
    day: date,
    services: DayServices,
    within: KeyRange | KeySet,
    daily: pl.DataFrame,
) -> DayExtras:
    """What some of a range's tariffs ask of the day beyond usage: read only where one asks."""
    demand, reactive = None, list[DayMatrix]()
    if daily.height and any(tariff.counts_kw for tariff in services.tariffs.values()):
        demand = usage_store.read_demand(database, calendar, day, within)
    counting = [key for key, tariff in services.tariffs.items() if tariff.counts_reactive]
    if counting:
        chosen = pl.DataFrame(counting, schema={"tariff_id": pl.String, "tariff_version": pl.Int32}, orient="row")
        points = services.services.join(chosen, on=["tariff_id", "tariff_version"], how="semi")["service_point_id"]
        reactive = usage_store.read_reactive(database, day, points.to_list())
        if services.parts.height:
            parts = Parts(
                services.parts, lambda some: usage_store.read_reactive(database, day, some), lambda _: daily.clear()
            )
            reactive = merged([*(without(m, parts.elsewhere()) for m in reactive), *parts.added(points)[0]])
    return DayExtras(usage_store.read_dials(database, day, within), demand, reactive)


def charges_of(shard: ShardInput, calendar: BillingCalendar, day: date, holidays: frozenset[date]) -> DayCharges:
    """Determinants and charges of a shard. A service that cannot be worked out is set aside under that name; the others
    are charged."""
    points = shard.services.services["service_point_id"].to_list()
    if not points:
        return _charged(shard, calendar, day, holidays, points)
    done = apart(points, partial(_charged, shard, calendar, day, holidays))
    if not done.faults:
        return done.results[0]
    services = shard.services.services
    faults = [
        exceptions(services.filter(pl.col("service_point_id") == point), "set_aside", why)
        for point, why in done.faults.items()
    ]
    whole = joined(done.results) if done.results else _charged(shard.of([]), calendar, day, holidays, [])
    with_faults = pl.concat([whole.exceptions, *(f.cast(EXCEPTION_SCHEMA) for f in faults)])
    return DayCharges(
        whole.determinants.sort("service_point_id"),
        whole.charges.sort("service_point_id"),
        with_faults.unique().sort("service_point_id", "reason", "detail"),
    )


#: Ten billion units in a day, more than any utility delivers: sums over a year and a city of what is below fit a
#: bigint.
LARGEST_DAY: Final = 10**16


def _check_size(group: DayGroup) -> None:
    """Raise OverflowError where a day's usage is too large for a bill."""
    for figures in (group.source, group.source_export, group.other, group.other_export, group.energy, group.export):
        if figures.size and max(int(figures.max()), -int(figures.min())) > LARGEST_DAY:
            raise OverflowError(f"usage of a day beyond {LARGEST_DAY // 10**6} {group.tariff.unit}")


def _charged(
    shard: ShardInput, calendar: BillingCalendar, day: date, holidays: frozenset[date], service_points: Sequence[str]
) -> DayCharges:
    part = shard.of(service_points)
    determinants = day_determinants(part.services, calendar, day, part.usage, part.daily, holidays, part.extras)
    for group in determinants.groups:
        _check_size(group)
    return accrue(determinants, part.prior, calendar)
