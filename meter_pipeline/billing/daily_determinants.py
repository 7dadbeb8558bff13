"""Determinants of services whose usage is known only as a day's total, from registers and dials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.day_groups import DayGroup, DayWork, unbilled
from meter_pipeline.billing.day_slots import hours_period, whole_day_period
from meter_pipeline.billing.demand_dials import dials_of, fill_demand, unread
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, DayServices, exceptions
from meter_pipeline.billing.tariffs.model import Tariff


def fill_daily(
    groups: list[DayGroup],
    group_of: npt.NDArray[np.int64],
    work: DayWork,
    daily: pl.DataFrame,
    seen: npt.NDArray[np.bool_],
    bound: DayServices,
) -> pl.DataFrame:
    """Add the usage of ``daily`` (a day's total by service, unit and flow, from registers without intervals) to the
    groups, mark its services in ``seen``, and return the exceptions of those that it cannot bill.

    A total is enough for a tariff without demand whose periods do not divide the day. It is added to what intervals
    counted: both occur on the day on which an interval meter replaces a register.
    """
    services = work.services
    joined = daily.join(
        services.select("service_point_id", "account_id", pl.int_range(pl.len(), dtype=pl.Int64).alias("at")),
        on="service_point_id",
        how="left",
    )
    faults = [unbilled(joined.filter(pl.col("at").is_null()), bound)]
    joined = joined.filter(pl.col("at").is_not_null())
    if joined.height:
        joined = joined.with_columns(pl.Series("group", group_of[joined["at"].to_numpy()]))
        for (g, unit, flow), part in sorted(
            joined.group_by("group", "unit", "flow"), key=lambda item: tuple(map(str, item[0]))
        ):
            group = groups[int(str(g))]
            holiday = group.tariff.is_holiday(work.day, work.holidays)
            if group.tariff.needs_intervals:
                part, refusal = _with_demand(group, part, str(flow), work)
                faults += refusal
            tou_period = whole_day_period(group.tariff, work.zone, work.day, holiday)
            if tou_period is None:
                faults.append(_fill_dials(group, part, str(unit), str(flow), work))
                continue
            part, refusal = _convertible(group, part, str(unit), work)
            faults += refusal
            summed = part.group_by("at").agg(pl.col("quantity").sum(), pl.col("estimated").any()).sort("at")
            room = group.holds(work.within[summed["at"].to_numpy()], str(unit))
            if not room.all():
                refused = services[summed["at"].filter(pl.Series(~room)).to_list()]
                faults.append(exceptions(refused, "unit_mismatch", f"{unit} beside two other units on one day"))
                summed = summed.filter(pl.Series(room))
            at, quantity = summed["at"].to_numpy(), summed["quantity"].to_numpy()
            target, how = work.within[at], work.conversion(str(unit), group.tariff, at)
            group.add_metered(target, str(unit), quantity, export=flow == "export")
            if flow == "export":
                group.export[target, tou_period] += how.applied(quantity)
                continue
            group.energy[target, tou_period] += how.applied(quantity)
            group.estimated[target] += summed["estimated"].to_numpy().astype(np.int32)
            group.slots[target] += 1
        seen[joined["at"].to_numpy()] = True
    return pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults])


def _convertible(
    group: DayGroup, part: pl.DataFrame, unit: str, work: DayWork
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Rows whose unit can be converted to the tariff's, and the exceptions of the others."""
    at = part["at"].to_numpy()
    missing = work.conversion(unit, group.tariff, at).missing
    if missing is None:
        return part, []
    return part.filter(pl.Series(~missing)), [work.not_converted(unit, group.tariff, at[missing])]


def _with_demand(
    group: DayGroup, part: pl.DataFrame, flow: str, work: DayWork
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Days' totals of services of a tariff with demand: those whose demand dials register all of it, and the exceptions
    of the others."""
    tariff = group.tariff
    dials = {} if tariff.counts_reactive or flow != "import" else dials_of(work.extras.demand, part["service_point_id"])
    at = (work.day, work.zone, tariff.is_holiday(work.day, work.holidays))
    able = [
        point
        for point, row in part.select("service_point_id", "at").unique().sort("at").iter_rows()
        if point in dials and fill_demand(tariff, int(work.within[row]), dials[point], group.peaks, at)
    ]
    with_dials = pl.col("service_point_id").is_in(able)
    kept = part.filter(with_dials)
    services = work.services[kept["at"].unique().sort().to_list()]
    return kept, [
        exceptions(part.filter(~with_dials), "needs_intervals", tariff.tariff_id),
        unread(services, {point: dials[point] for point in able}, work.day),
    ]


def _fill_dials(group: DayGroup, part: pl.DataFrame, unit: str, flow: str, work: DayWork) -> pl.DataFrame:
    """Days of services whose registers count by time of use: each register's use in the period that holds its hours.

    Returns those that need intervals: a register counts hours of several periods, or the registers do not add up to the
    day.
    """
    if flow != "import" or work.extras.dials is None:
        return exceptions(part, "needs_intervals", group.tariff_id)
    part, refused = _convertible(group, part, unit, work)
    wanted = work.extras.dials.join(part.select("service_point_id").unique(), on="service_point_id").filter(
        pl.col("unit") == unit
    )
    rows = {point: of_point for (point,), of_point in wanted.group_by("service_point_id")}
    faults = [exceptions(part.clear(), "needs_intervals"), *refused]
    for row in part.iter_rows(named=True):
        found = rows.get(row["service_point_id"])
        divided = None if found is None else _by_period(group.tariff, found, work)
        target = np.array([work.within[row["at"]]])
        mine = part.filter(pl.col("at") == row["at"])
        if divided is None or abs(sum(divided.values()) - row["quantity"]) > len(divided):
            faults.append(exceptions(mine, "needs_intervals", group.tariff_id))
        elif not group.holds(target, unit).all():
            faults.append(exceptions(mine, "unit_mismatch", f"{unit} beside two other units on one day"))
        else:
            # The day's own total is billed: what dials differ from it by, a millionth or two, is in the last period.
            last = max(divided)
            divided[last] += row["quantity"] - sum(divided.values())
            how = work.conversion(unit, group.tariff, np.array([row["at"]]))
            for period, quantity in divided.items():
                group.energy[target, period] += how.applied(np.array([quantity], np.int64))
            group.add_metered(target, unit, np.array([row["quantity"]], np.int64), export=False)
            group.estimated[target] += int(row["estimated"])
            group.slots[target] += 1
    return pl.concat(faults)


def _by_period(tariff: Tariff, registers: pl.DataFrame, work: DayWork) -> dict[int, int] | None:
    """Use by period from one service's registers; None where a register's hours lie in several periods."""
    found: dict[int, int] = {}
    holiday = tariff.is_holiday(work.day, work.holidays)
    for _, hours in registers.group_by("meter_id", "channel"):
        spans = [(int(a), int(b)) for a, b in hours.select("from_minute", "to_minute").iter_rows()]
        period = hours_period(tariff, work.zone, work.day, holiday, spans)
        if period is None:
            return None
        found[period] = found.get(period, 0) + int(hours["quantity"][0])
    return found
