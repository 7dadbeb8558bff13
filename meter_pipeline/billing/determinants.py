"""Billing determinants of a day: validated intervals into time-of-use buckets and demand peaks, for a whole city."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.daily_determinants import fill_daily
from meter_pipeline.billing.day_groups import (
    DayDeterminants,
    DayExtras,
    DayGroup,
    DayWork,
    blank_group,
    unbilled,
)
from meter_pipeline.billing.day_slots import SlotMap, bucket_sums, demand_window, peaks_of
from meter_pipeline.billing.reactive import ReactiveDay, fill_reactive
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, NO_EXCEPTIONS, DayServices, exceptions
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix


def _combined(matrix: DayMatrix, services: pl.DataFrame) -> tuple[npt.NDArray[Any], pl.DataFrame, pl.DataFrame]:
    """Row numbers of the matrix joined to services, one target per service point and flow (a meter exchange has two
    rows)."""
    keys = matrix.keys.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        "service_point_id",
        pl.col("flow") if "flow" in matrix.keys.columns else pl.lit("import").alias("flow"),
        "unit",
    )
    if keys["service_point_id"].equals(services["service_point_id"]):
        # One row for each service, in their order: what a city's day nearly is, and a join of it costs as much as its
        # sums.
        return np.arange(keys.height), keys.with_columns(pl.col("row").alias("at")), keys.clear()
    joined = keys.join(
        services.select("service_point_id", pl.int_range(pl.len(), dtype=pl.Int64).alias("at")),
        on="service_point_id",
        how="left",
    )
    unbound = joined.filter(pl.col("at").is_null())
    joined = joined.filter(pl.col("at").is_not_null()).sort("at", "flow", "unit", "row")
    return joined["row"].to_numpy(), joined, unbound


def _coded(column: pl.Series) -> tuple[list[str], npt.NDArray[np.int8]]:
    """A text column of a few values as those, sorted, and the number of each row's."""
    names = column.unique().sort().to_list()
    codes = np.zeros(len(column), np.int8)
    for k, name in enumerate(names[1:], start=1):
        codes[(column == name).to_numpy()] = k
    return names, codes


def _sum_rows(values: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return values if len(starts) == len(values) else np.add.reduceat(values, starts, axis=0)


def day_determinants(
    bound: DayServices,
    calendar: BillingCalendar,
    day: date,
    matrices: Sequence[DayMatrix],
    daily: pl.DataFrame,
    holidays: frozenset[date],
    extras: DayExtras | None = None,
) -> DayDeterminants:
    """Determinants of every service of a day.

    ``matrices``: validated intervals, keys with service_point_id, unit and flow (import or export); ``daily``:
    DAILY_SCHEMA, for services metered by a register only. Every bound service has a row, with zeros where no usage
    came; the order of the inputs does not matter. ``extras``: what some tariffs ask of a day beyond usage.
    """
    services = bound.services
    group_of, groups = _group(bound)
    work = DayWork.of(bound, groups, day, calendar.zone, holidays)
    work.extras = extras or DayExtras()
    seen = np.zeros(services.height, np.bool_)
    read = [(matrix, *_combined(matrix, services)) for matrix in matrices]
    several = _in_several([joined for _, order, joined, _ in read if len(order)], services.height)
    for matrix, order, joined, unbound in read:
        work.faults.append(unbilled(unbound, bound))
        if not len(order):
            continue
        rows = _MatrixRows.of(matrix, order, joined)
        for g, group in enumerate(groups):
            chosen = np.flatnonzero(group_of[rows.at[rows.starts]] == g)
            if len(chosen):
                _fill(group, rows, chosen, work, several)
        seen[rows.at] = True
    for group in groups:
        _together(group, work)
        if group.tariff.counts_reactive:
            work.faults.append(_reactive(group, [matrix for matrix, *_ in read], work, seen))
    work.faults.append(fill_daily(groups, group_of, work, daily, seen, bound))
    for group in groups:
        group.order_units()
    silent = services.filter(pl.Series(~seen))
    if silent.height:
        work.faults.append(exceptions(silent, "no_usage"))
    found = [f.cast(EXCEPTION_SCHEMA) for f in work.faults if f.height]
    named = pl.concat(found).unique().sort("service_point_id", "reason", "detail") if found else NO_EXCEPTIONS
    return DayDeterminants(day, services, groups, named, bound.layouts)


@dataclass(frozen=True, slots=True)
class _MatrixRows:
    """A matrix's rows by service, flow and unit: ``starts`` begins each of those, in the order ``order`` gives the
    rows.
    """

    matrix: DayMatrix
    order: npt.NDArray[Any]
    starts: npt.NDArray[Any]
    at: npt.NDArray[Any]
    flows: list[str]
    flow: npt.NDArray[np.int8]
    units: list[str]
    unit: npt.NDArray[np.int8]

    @classmethod
    def of(cls, matrix: DayMatrix, order: npt.NDArray[Any], joined: pl.DataFrame) -> _MatrixRows:
        at = joined["at"].to_numpy()
        (flows, flow), (units, unit) = _coded(joined["flow"]), _coded(joined["unit"])
        new = np.concatenate(([True], (at[1:] != at[:-1]) | (flow[1:] != flow[:-1]) | (unit[1:] != unit[:-1])))
        return cls(matrix, order, np.flatnonzero(new), at, flows, flow, units, unit)


def _in_several(read: Sequence[pl.DataFrame], services: int) -> npt.NDArray[np.bool_]:
    """Services with imports in matrices of more than one interval length."""
    count = np.zeros(services, np.int64)
    for joined in read if len(read) > 1 else ():
        count[np.unique(joined.filter(pl.col("flow") == "import")["at"].to_numpy())] += 1
    return count > 1


def _together(group: DayGroup, work: DayWork) -> None:
    """Peaks of services whose meters have several interval lengths: what all of them used in the same window.

    Ten kW on an hourly meter and ten on a quarter-hour one in the same hour are twenty. Without a declared window it is
    the longest of their intervals.
    """
    found = work.apart.pop(id(group), [])
    for target in sorted({row for row, _, _ in found}):
        parts = [(minutes, values) for row, minutes, values in found if row == target]
        window = group.tariff.demand_minutes or max(minutes for minutes, _ in parts)
        summed: npt.NDArray[np.int64] | None = None
        for minutes, values in parts:
            if window % minutes:
                detail = f"{window} minutes from {minutes}-minute intervals"
                work.faults.append(exceptions(work.services[[int(group.rows[target])]], "demand_interval", detail))
                summed = None
                break
            windows = np.add.reduceat(values, np.arange(0, len(values), window // minutes))
            summed = windows if summed is None else summed + windows
        if summed is not None:
            slot_map = SlotMap.of(
                group.tariff, work.zone, work.day, window, group.tariff.is_holiday(work.day, work.holidays)
            )
            peaks, slots = peaks_of(summed[None, :], slot_map, window)
            group.peaks[target], group.peak_slots[target] = peaks[0], slots[0]
            group.interval_minutes[target] = window


def _reactive(group: DayGroup, usage: Sequence[DayMatrix], work: DayWork, seen: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """Registers of kVA, kVAr and kVArh of the group's services that have usage."""
    tariff, at = group.tariff, np.flatnonzero(seen[group.rows])
    points = work.services["service_point_id"][group.rows[at].tolist()]
    peaks, slots = group.peaks[at], group.peak_slots[at]
    holiday = tariff.is_holiday(work.day, work.holidays)
    given = ReactiveDay(tariff, points, peaks, slots, group.interval_minutes[at], work.day, work.zone, holiday)
    faults = fill_reactive(given, usage, work.extras.reactive)
    group.peaks[at], group.peak_slots[at] = peaks, slots
    return faults


def _group(bound: DayServices) -> tuple[npt.NDArray[np.int64], list[DayGroup]]:
    services = bound.services
    group_of = np.zeros(services.height, np.int64)
    groups: list[DayGroup] = []
    numbered = services.with_row_index("at")
    for (tariff_id, version), part in sorted(
        numbered.group_by("tariff_id", "tariff_version"), key=lambda item: str(item[0])
    ):
        rows = np.sort(part["at"].to_numpy().astype(np.int64))
        group_of[rows] = len(groups)
        groups.append(
            blank_group(str(tariff_id), int(str(version)), bound.tariffs[str(tariff_id), int(str(version))], rows)
        )
    return group_of, groups


def _fill(
    group: DayGroup, found: _MatrixRows, chosen: npt.NDArray[Any], work: DayWork, several: npt.NDArray[np.bool_]
) -> None:
    """One tariff version's rows of one matrix."""
    matrix, order, starts = found.matrix, found.order, found.starts
    slot_map = SlotMap.of(
        group.tariff, work.zone, work.day, matrix.interval_minutes, group.tariff.is_holiday(work.day, work.holidays)
    )
    ends = np.append(starts[1:], len(order))
    takes = [np.arange(starts[c], ends[c]) for c in chosen] if (ends - starts).max() > 1 else None
    members = np.concatenate(takes) if takes is not None else starts[chosen]
    heads = (
        np.concatenate(([0], np.cumsum([len(t) for t in takes])[:-1])).astype(np.int64)
        if takes is not None
        else np.arange(len(members))
    )
    chosen_rows = order[members]
    # One tariff for the whole shard is the common case: nothing need be copied then.
    everything = len(chosen_rows) == matrix.rows and bool((chosen_rows == np.arange(matrix.rows)).all())
    raw = matrix.values if everything else matrix.values[chosen_rows]
    anything = int(raw.min(initial=0)) == NO_VALUE
    absent = raw == NO_VALUE if anything else None
    values = _sum_rows(raw if absent is None else np.where(absent, 0, raw), heads)
    codes = matrix.quality if everything else matrix.quality[chosen_rows]
    estimated = np.zeros(len(heads), np.int64)
    if int(codes.max(initial=0)) >> 13:
        flags = codes >> 13
        estimated = _sum_rows(((flags >= 1) & (flags <= 3)).sum(axis=1, dtype=np.int64), heads)
    filled = (
        _sum_rows((~absent).sum(axis=1, dtype=np.int64), heads)
        if absent is not None
        else np.full(len(heads), matrix.slots, np.int64)
    )
    heading = starts[chosen]
    rows, units, flows = found.at[heading], found.unit[heading], found.flow[heading]
    for u, spelled in enumerate(found.units):
        for direction in ("import", "export"):
            if direction not in found.flows:
                continue
            pick = np.flatnonzero((units == u) & (flows == found.flows.index(direction)))
            if not len(pick):
                continue
            how = work.conversion(spelled, group.tariff, rows[pick])
            if (missing := how.missing) is not None:
                work.faults.append(work.not_converted(spelled, group.tariff, rows[pick[missing]]))
                pick, how = pick[~missing], how.of(~missing)
                if not len(pick):
                    continue
            room = group.holds(work.within[rows[pick]], spelled)
            if not room.all():
                third = work.services[rows[pick[~room]].tolist()]
                work.faults.append(exceptions(third, "unit_mismatch", f"{spelled} beside two other units on one day"))
                pick, how = pick[room], how.of(room)
            part = values if len(pick) == len(values) else values[pick]
            target = work.within[rows[pick]]
            sums, metered = bucket_sums(part, slot_map.periods)
            used = how.applied(sums)
            group.add_metered(target, spelled, metered, export=direction == "export")
            if direction == "export":
                group.export[target] += used
                continue
            group.energy[target] += used
            group.estimated[target] += estimated[pick].astype(np.int32)
            group.missing[target] += (matrix.slots - np.minimum(filled[pick], matrix.slots)).astype(np.int32)
            group.slots[target] += matrix.slots
            group.interval_minutes[target] = matrix.interval_minutes
            if group.tariff.counts_kw:
                _demand(group, found.matrix.interval_minutes, part, rows[pick], slot_map, work, several)


def _demand(
    group: DayGroup,
    minutes: int,
    values: npt.NDArray[np.int64],
    rows: npt.NDArray[Any],
    slot_map: SlotMap,
    work: DayWork,
    several: npt.NDArray[np.bool_],
) -> None:
    """The day's peaks of some services, or their values kept until those of their other meters are known."""
    mixed = several[rows]
    if mixed.any():
        kept = work.apart.setdefault(id(group), [])
        kept += [(int(work.within[rows[k]]), minutes, values[k]) for k in np.flatnonzero(mixed)]
        values, rows = values[~mixed], rows[~mixed]
    if not len(rows):
        return
    if demand_window(group.tariff, minutes) is None:
        detail = f"{group.tariff.demand_minutes} minutes from {minutes}-minute intervals"
        work.faults.append(exceptions(work.services[rows.tolist()], "demand_interval", detail))
        return
    peaks, slots = peaks_of(values, slot_map, minutes)
    target = work.within[rows]
    higher = peaks > group.peaks[target]
    group.peaks[target] = np.where(higher, peaks, group.peaks[target])
    group.peak_slots[target] = np.where(higher, slots, group.peak_slots[target])
