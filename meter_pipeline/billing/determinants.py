"""Billing determinants of a day: validated intervals into time-of-use buckets and demand peaks, for a whole city."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.day_slots import SlotMap, buckets, demand_window, hours_period, peaks_of, whole_day_period
from meter_pipeline.billing.fixed_point import Whole, narrow, product, quotient
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, DayServices, exceptions
from meter_pipeline.billing.tariffs.model import Layout, Tariff
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.units import CUBIC_METRES

#: What registers alone make of a day: quantity in micro base units of ``unit``.
DAILY_SCHEMA: Final = pl.Schema(
    {"service_point_id": pl.String, "flow": pl.String, "unit": pl.String, "quantity": pl.Int64, "estimated": pl.Boolean}
)

#: What time-of-use registers of a service without intervals counted on a day, a row for each stretch of hours they count
#: on such a day; quantity in micro base units.
DIALS_SCHEMA: Final = pl.Schema(
    {
        "service_point_id": pl.String,
        "meter_id": pl.String,
        "channel": pl.String,
        "unit": pl.String,
        "quantity": pl.Int64,
        "from_minute": pl.Int32,
        "to_minute": pl.Int32,
    }
)

#: volumes a tariff may count in, as cubic metres (exact)
_VOLUMES: Final = {**CUBIC_METRES, "kgal": 1000 * CUBIC_METRES["gal"], "ccf": 100 * CUBIC_METRES["ft3"]}


def conversion(unit: str, tariff: Tariff, day: date) -> Fraction | None:
    """The exact factor from a meter's base unit to the tariff's unit on a day; None where there is none.

    Therms come from volume by the tariff's heat content in force; energy and volume are never converted otherwise.
    """
    if unit == tariff.unit:
        return Fraction(1)
    if unit in _VOLUMES and tariff.unit in _VOLUMES:
        return _VOLUMES[unit] / _VOLUMES[tariff.unit]
    if tariff.unit == "therm" and unit in _VOLUMES:
        held = [h for h in tariff.heat_content if h.valid_from <= day]
        if held:
            return _VOLUMES[unit] / _VOLUMES["ccf"] * Fraction(held[-1].therms_per_ccf)
    return None


def _no_conversion(rows: pl.DataFrame, unit: str, tariff: Tariff) -> pl.DataFrame:
    """Services whose usage can't be counted in the tariff's unit."""
    if tariff.unit == "therm" and unit in _VOLUMES:
        first = tariff.heat_content[0].valid_from
        return exceptions(rows, "no_heat_content", f"{tariff.tariff_id}: heat content begins on {first}")
    return exceptions(rows, "unit_mismatch", f"{unit} to {tariff.unit}")


@dataclass(slots=True)
class DayGroup:
    """The services of one tariff version on a day. Rows align with ``rows`` (positions in the bound services frame).

    ``energy`` and ``export`` (n, periods) in millionths of the tariff's unit; ``peaks`` (n, registers) in millionths of
    a kW and ``peak_slots`` the slot in which each began (-1: none); ``source`` (n,) the usage in micro base units of
    the meter; ``estimated``, ``missing`` and ``slots`` (n,) count intervals (a day's total counts as one).
    """

    tariff_id: str
    version: int
    tariff: Tariff
    rows: npt.NDArray[np.int64]
    energy: npt.NDArray[np.int64]
    export: npt.NDArray[np.int64]
    peaks: npt.NDArray[np.int64]
    peak_slots: npt.NDArray[np.int16]
    source: npt.NDArray[np.int64]
    source_export: npt.NDArray[np.int64]
    estimated: npt.NDArray[np.int32]
    missing: npt.NDArray[np.int32]
    slots: npt.NDArray[np.int32]
    interval_minutes: npt.NDArray[np.int16]
    source_unit: npt.NDArray[np.object_]
    other: npt.NDArray[np.int64]
    other_export: npt.NDArray[np.int64]
    other_unit: npt.NDArray[np.object_]

    def holds(self, target: npt.NDArray[np.int64], unit: str) -> npt.NDArray[np.bool_]:
        """Which rows have room for usage in a unit: a day holds two, that of the old meter and that of the new."""
        first, second = self.source_unit[target], self.other_unit[target]
        room: npt.NDArray[np.bool_] = (first == "") | (first == unit) | (second == "") | (second == unit)
        return room

    def add_metered(
        self, target: npt.NDArray[np.int64], unit: str, quantity: npt.NDArray[np.int64], *, export: bool
    ) -> None:
        """Add usage as the meters count it, in micro base units. Each row at most once, and only where ``holds``."""
        first = (self.source_unit[target] == "") | (self.source_unit[target] == unit)
        own, second = target[first], target[~first]
        self.source_unit[own], self.other_unit[second] = unit, unit
        (self.source_export if export else self.source)[own] += quantity[first]
        (self.other_export if export else self.other)[second] += quantity[~first]

    def order_units(self) -> None:
        """The tariff's own unit comes first, else the alphabet decides: never the order in which usage was added."""
        wrong = np.flatnonzero(
            (self.other_unit != "")
            & (self.source_unit != self.tariff.unit)
            & ((self.other_unit == self.tariff.unit) | (self.other_unit < self.source_unit))
        )
        for first, second in (
            (self.source_unit, self.other_unit),
            (self.source, self.other),
            (self.source_export, self.other_export),
        ):
            first[wrong], second[wrong] = second[wrong], first[wrong]


@dataclass(slots=True)
class DayDeterminants:
    """All services of a day by tariff version, and what stood in the way."""

    billing_day: date
    services: pl.DataFrame
    groups: list[DayGroup]
    exceptions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EXCEPTION_SCHEMA))
    layouts: Mapping[tuple[str, int], Layout] = field(default_factory=dict)


def _combined(matrix: DayMatrix, services: pl.DataFrame) -> tuple[npt.NDArray[Any], pl.DataFrame, pl.DataFrame]:
    """Row numbers of the matrix joined to services, one target per service point and flow (a meter exchange has two
    rows)."""
    keys = matrix.keys.with_row_index("row").select(
        pl.col("row").cast(pl.Int64),
        "service_point_id",
        pl.col("flow") if "flow" in matrix.keys.columns else pl.lit("import").alias("flow"),
        "unit",
    )
    joined = keys.join(
        services.select("service_point_id", pl.int_range(pl.len(), dtype=pl.Int64).alias("at")),
        on="service_point_id",
        how="left",
    )
    unbound = joined.filter(pl.col("at").is_null())
    joined = joined.filter(pl.col("at").is_not_null()).sort("at", "flow", "unit", "row")
    return joined["row"].to_numpy(), joined, unbound


def _sum_rows(values: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return values if len(starts) == len(values) else np.add.reduceat(values, starts, axis=0)


def blank_group(tariff_id: str, version: int, tariff: Tariff, rows: npt.NDArray[np.int64]) -> DayGroup:
    """A group in which nothing was used yet."""
    n, periods, registers = len(rows), len(tariff.schedule.periods), len(tariff.registers)
    return DayGroup(
        tariff_id,
        version,
        tariff,
        rows,
        np.zeros((n, periods), np.int64),
        np.zeros((n, periods), np.int64),
        np.zeros((n, registers), np.int64),
        np.full((n, registers), -1, np.int16),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int32),
        np.zeros(n, np.int16),
        np.full(n, "", dtype=object),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.full(n, "", dtype=object),
    )


def day_determinants(
    bound: DayServices,
    calendar: BillingCalendar,
    day: date,
    matrices: Sequence[DayMatrix],
    daily: pl.DataFrame,
    holidays: frozenset[date],
    dials: pl.DataFrame | None = None,
) -> DayDeterminants:
    """Determinants of every service of a day.

    ``matrices``: validated intervals, keys with service_point_id, unit and flow (import or export); ``daily``:
    DAILY_SCHEMA, for services metered by a register only. Every bound service has a row, with zeros where no usage
    came; the order of the inputs does not matter. ``dials``: DIALS_SCHEMA, by which such a service's day is divided among
    periods.
    """
    services = bound.services
    group_of, groups = _group(bound)
    work = _Work.of(bound, groups, day, calendar.zone, holidays)
    work.dials = dials
    seen = np.zeros(services.height, np.bool_)
    read = [(matrix, *_combined(matrix, services)) for matrix in matrices]
    several = _in_several([joined for _, order, joined, _ in read if len(order)], services.height)
    for matrix, order, joined, unbound in read:
        work.faults.append(_unbilled(unbound, bound))
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
    work.faults.append(_fill_daily(groups, group_of, work, daily, seen, bound))
    for group in groups:
        group.order_units()
    silent = services.filter(pl.Series(~seen))
    if silent.height:
        work.faults.append(exceptions(silent, "no_usage"))
    faults = pl.concat([f.cast(EXCEPTION_SCHEMA) for f in work.faults])
    named = faults.unique().sort("service_point_id", "reason", "detail")
    return DayDeterminants(day, services, groups, named, bound.layouts)


@dataclass(slots=True)
class _Work:
    """What filling a day's groups needs, and what it finds.

    ``within``: a service's row in its group; ``apart``: usage of services with demand whose meters have intervals of several
    lengths, by group: row in the group, interval length and the day's values.
    """

    services: pl.DataFrame
    within: npt.NDArray[np.int64]
    day: date
    zone: str
    holidays: frozenset[date]
    faults: list[pl.DataFrame]
    apart: dict[int, list[tuple[int, int, npt.NDArray[np.int64]]]] = field(default_factory=dict)
    dials: pl.DataFrame | None = None

    @classmethod
    def of(
        cls, bound: DayServices, groups: Sequence[DayGroup], day: date, zone: str, holidays: frozenset[date]
    ) -> _Work:
        within = np.zeros(bound.services.height, np.int64)
        for group in groups:
            within[group.rows] = np.arange(len(group.rows))
        return cls(bound.services, within, day, zone, holidays, [bound.exceptions])


@dataclass(frozen=True, slots=True)
class _MatrixRows:
    """A matrix's rows by service, flow and unit: ``starts`` begins each of those, in the order ``order`` gives the rows."""

    matrix: DayMatrix
    order: npt.NDArray[Any]
    starts: npt.NDArray[Any]
    at: npt.NDArray[Any]
    flow: npt.NDArray[Any]
    unit: npt.NDArray[Any]

    @classmethod
    def of(cls, matrix: DayMatrix, order: npt.NDArray[Any], joined: pl.DataFrame) -> _MatrixRows:
        at, flow, unit = (joined[c].to_numpy() for c in ("at", "flow", "unit"))
        new = np.concatenate(([True], (at[1:] != at[:-1]) | (flow[1:] != flow[:-1]) | (unit[1:] != unit[:-1])))
        return cls(matrix, order, np.flatnonzero(new), at, flow, unit)


def _in_several(read: Sequence[pl.DataFrame], services: int) -> npt.NDArray[np.bool_]:
    """Services with imports in matrices of more than one interval length."""
    count = np.zeros(services, np.int64)
    for joined in read if len(read) > 1 else ():
        count[np.unique(joined.filter(pl.col("flow") == "import")["at"].to_numpy())] += 1
    return count > 1


def _together(group: DayGroup, work: _Work) -> None:
    """Peaks of services whose meters have several interval lengths: what all of them used in the same window.

    Ten kW on an hourly meter and ten on a quarter-hour one in the same hour are twenty. Without a declared window it is the
    longest of their intervals.
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


def _unbilled(unbound: pl.DataFrame, bound: DayServices) -> pl.DataFrame:
    """Usage at a service point that no service holds: no account pays, unless an exception already says why."""
    return exceptions(
        unbound.join(bound.exceptions, on="service_point_id", how="anti").select("service_point_id").unique(),
        "no_agreement",
    )


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


def _convert(values: Whole, factor: Fraction) -> npt.NDArray[np.int64]:
    if factor == 1:
        return values
    return narrow(quotient(product(values, factor.numerator), factor.denominator, "half_even"))


def _fill(
    group: DayGroup, found: _MatrixRows, chosen: npt.NDArray[Any], work: _Work, several: npt.NDArray[np.bool_]
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
    for spelled in sorted(set(units.tolist())):
        factor = conversion(str(spelled), group.tariff, work.day)
        for direction in ("import", "export"):
            pick = np.flatnonzero((units == spelled) & (flows == direction))
            if not len(pick):
                continue
            if factor is None:
                work.faults.append(_no_conversion(work.services[rows[pick].tolist()], str(spelled), group.tariff))
                continue
            room = group.holds(work.within[rows[pick]], str(spelled))
            if not room.all():
                third = work.services[rows[pick[~room]].tolist()]
                work.faults.append(exceptions(third, "unit_mismatch", f"{spelled} beside two other units on one day"))
                pick = pick[room]
            part = values if len(pick) == len(values) else values[pick]
            target = work.within[rows[pick]]
            used = _convert(buckets(part, slot_map.periods), factor)
            group.add_metered(target, str(spelled), part.sum(axis=1), export=direction == "export")
            if direction == "export":
                group.export[target] += used
                continue
            group.energy[target] += used
            group.estimated[target] += estimated[pick].astype(np.int32)
            group.missing[target] += (matrix.slots - np.minimum(filled[pick], matrix.slots)).astype(np.int32)
            group.slots[target] += matrix.slots
            group.interval_minutes[target] = matrix.interval_minutes
            if group.tariff.registers:
                _demand(group, found.matrix.interval_minutes, part, rows[pick], slot_map, work, several)


def _demand(
    group: DayGroup,
    minutes: int,
    values: npt.NDArray[np.int64],
    rows: npt.NDArray[Any],
    slot_map: SlotMap,
    work: _Work,
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


def _fill_daily(
    groups: list[DayGroup],
    group_of: npt.NDArray[np.int64],
    work: _Work,
    daily: pl.DataFrame,
    seen: npt.NDArray[np.bool_],
    bound: DayServices,
) -> pl.DataFrame:
    """Usage known only as a day's total, that of registers alone: enough for a tariff without demand whose periods do not
    divide the day. It comes on top of intervals, as on the day on which a register gives way to an interval meter."""
    services = work.services
    joined = daily.join(
        services.select("service_point_id", "account_id", pl.int_range(pl.len(), dtype=pl.Int64).alias("at")),
        on="service_point_id",
        how="left",
    )
    faults = [_unbilled(joined.filter(pl.col("at").is_null()), bound)]
    joined = joined.filter(pl.col("at").is_not_null())
    if joined.height:
        joined = joined.with_columns(pl.Series("group", group_of[joined["at"].to_numpy()]))
        for (g, unit, flow), part in sorted(
            joined.group_by("group", "unit", "flow"), key=lambda item: tuple(map(str, item[0]))
        ):
            group = groups[int(str(g))]
            holiday = group.tariff.is_holiday(work.day, work.holidays)
            held = whole_day_period(group.tariff, work.zone, work.day, holiday)
            if held is None:
                faults.append(_fill_dials(group, part, str(unit), str(flow), work))
                continue
            factor = conversion(str(unit), group.tariff, work.day)
            if factor is None:
                faults.append(_no_conversion(part, str(unit), group.tariff))
                continue
            summed = part.group_by("at").agg(pl.col("quantity").sum(), pl.col("estimated").any()).sort("at")
            room = group.holds(work.within[summed["at"].to_numpy()], str(unit))
            if not room.all():
                third = services[summed["at"].filter(pl.Series(~room)).to_list()]
                faults.append(exceptions(third, "unit_mismatch", f"{unit} beside two other units on one day"))
                summed = summed.filter(pl.Series(room))
            target, quantity = work.within[summed["at"].to_numpy()], summed["quantity"].to_numpy()
            group.add_metered(target, str(unit), quantity, export=flow == "export")
            if flow == "export":
                group.export[target, held] += _convert(quantity, factor)
                continue
            group.energy[target, held] += _convert(quantity, factor)
            group.estimated[target] += summed["estimated"].to_numpy().astype(np.int32)
            group.slots[target] += 1
        seen[joined["at"].to_numpy()] = True
    return pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults])


def _fill_dials(group: DayGroup, part: pl.DataFrame, unit: str, flow: str, work: _Work) -> pl.DataFrame:
    """Days of services whose registers count by time of use: each register's use in the period that holds its hours.

    Returns those that need intervals: their tariff has demand, a register counts hours of several periods, or the registers
    do not add up to the day.
    """
    factor = conversion(unit, group.tariff, work.day)
    if group.tariff.registers or flow != "import" or work.dials is None or factor is None:
        return exceptions(part, "needs_intervals", group.tariff_id)
    wanted = work.dials.join(part.select("service_point_id").unique(), on="service_point_id").filter(
        pl.col("unit") == unit
    )
    rows = {point: of_point for (point,), of_point in wanted.group_by("service_point_id")}
    faults = [exceptions(part.clear(), "needs_intervals")]
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
            for period, quantity in divided.items():
                group.energy[target, period] += _convert(np.array([quantity], np.int64), factor)
            group.add_metered(target, unit, np.array([row["quantity"]], np.int64), export=False)
            group.estimated[target] += int(row["estimated"])
            group.slots[target] += 1
    return pl.concat(faults)


def _by_period(tariff: Tariff, registers: pl.DataFrame, work: _Work) -> dict[int, int] | None:
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
