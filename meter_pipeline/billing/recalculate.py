"""Carrying a change of a day forward through the days already billed after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.billing.accrual import CHARGE_SCHEMA, DETERMINANT_SCHEMA, DayCharges, accrue, joined
from meter_pipeline.billing.day_groups import DayDeterminants, blank_group
from meter_pipeline.billing.positions import matrix
from meter_pipeline.billing.service_agreements import DayServices, Reference, services_of_day
from meter_pipeline.billing.tables import days, part_of_day
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.postgres.database import Database
from meter_pipeline.postgres.driver import Connection
from meter_pipeline.set_aside import apart

#: Key of a row of a day
KEY: Final = ("billing_day", "service_point_id")


def groups_of(bound: DayServices, frame: pl.DataFrame, day: date, calendar: BillingCalendar) -> DayDeterminants:
    """Stored determinants of some services as the day's groups again."""
    services = bound.services.join(frame.select("service_point_id"), on="service_point_id", how="semi").sort(
        "service_point_id"
    )
    rows = services.join(
        frame.drop("account_id", "tariff_id", "tariff_version", "stretch_start", strict=False),
        on="service_point_id",
        how="left",
    )
    groups = []
    for (tariff_id, version), part in sorted(
        services.with_row_index("at").group_by("tariff_id", "tariff_version"), key=lambda item: str(item[0])
    ):
        tariff = bound.tariffs[str(tariff_id), int(str(version))]
        at = np.sort(part["at"].to_numpy().astype(np.int64))
        of_group = rows[at.tolist()]
        group = blank_group(str(tariff_id), int(str(version)), tariff, at)
        periods, registers = len(tariff.schedule.periods), len(tariff.registers)
        group.energy, group.export = matrix(of_group["energy"], periods), matrix(of_group["export"], periods)
        group.peaks = matrix(of_group["peaks"], registers)
        group.interval_minutes = of_group["interval_minutes"].to_numpy()
        step = np.maximum(group.interval_minutes.astype(np.int64), 1)[:, None] * 60
        began = matrix(of_group["peak_at"], registers)
        group.peak_slots = np.where(began > 0, (began - calendar.start_s(day)) // step, -1).astype(np.int16)
        groups.append(group)
    return DayDeterminants(day, services, groups, layouts=bound.layouts)


def carry_forward(
    connection: Connection,
    database: Database,
    calendar: BillingCalendar,
    charges: pl.DataFrame,
    changed: Sequence[str],
    day: date,
    reference: Callable[[], Reference],
    record: Callable[[DayCharges, Sequence[str], date, pl.DataFrame], object],
) -> dict[date, int]:
    """Charges of later billed days in the same stretches, now that the position before them moved. Sealed days stay as
    they are. A service point is carried up to the first day that is billed again for it anyhow: that billing starts
    from the position before it and carries on (a ratio corrected over a month wrote each of its days fifteen times).

    ``reference`` reads what is known of the changed service points on any later day; ``record`` writes what was changed
    on a day into the ledger, with the charges that stood.
    """
    carried: dict[date, int] = {}
    moved, position = list(changed), charges
    for later in days.later_days(connection, day):
        if not moved:
            break
        if days.sealed(connection, later):
            continue
        billed_again = part_of_day.billed_again(connection, later, moved)
        moved = [point for point in moved if point not in billed_again]
        if not moved:
            break
        bound = services_of_day(reference(), later)
        stretches = bound.services.filter(pl.col("service_point_id").is_in(moved) & (pl.col("stretch_start") <= day))
        moved = stretches["service_point_id"].to_list()
        if not moved:
            break
        stored = days.read_day(database, "determinant_day", later, DETERMINANT_SCHEMA.names(), moved).cast(
            DETERMINANT_SCHEMA
        )
        compute = partial(_again, bound, stored, later, calendar, position)
        done = apart(stored["service_point_id"].to_list(), compute)
        again = joined(done.results) if done.results else DayCharges(stored.clear(), position.clear())
        # A service that cannot be worked out again loses the charge that stood on the old position: its bill waits.
        touched = [*again.charges["service_point_id"].to_list(), *done.faults]
        stood = days.read_day(database, "charge_day", later, CHARGE_SCHEMA.names(), touched)
        written = days.bring_to(connection, "charge_day", later, again.charges, KEY, only=touched)
        if written:
            carried[later] = len(written)
            record(again, written, later, stood.filter(pl.col("service_point_id").is_in(written)))
        position = pl.concat([position.filter(~pl.col("service_point_id").is_in(touched)), again.charges])
        # A service without a row on this day may have some on a later one.
        absent = set(moved) - set(stored["service_point_id"].to_list())
        moved = sorted(absent | (set(written) - set(done.faults)))
    return carried


def _again(
    bound: DayServices,
    stored: pl.DataFrame,
    later: date,
    calendar: BillingCalendar,
    position: pl.DataFrame,
    service_points: Sequence[str],
) -> DayCharges:
    mine = pl.col("service_point_id").is_in(list(service_points))
    return accrue(groups_of(bound, stored.filter(mine), later, calendar), position.filter(mine), calendar)
