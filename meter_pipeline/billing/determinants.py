"""Billing determinants of a day: validated intervals into time-of-use buckets and demand peaks, for a whole city."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.fixed_point import Whole, narrow, product, quotient
from meter_pipeline.billing.service_agreements import EXCEPTION_SCHEMA, Bound, exceptions
from meter_pipeline.billing.tariffs.model import Tariff
from meter_pipeline.calendar import BillingCalendar, local_clock
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.units import CUBIC_METRES

#: What registers alone make of a day: quantity in micro base units of ``unit``.
DAILY_SCHEMA: Final = pl.Schema(
    {"service_point_id": pl.String, "flow": pl.String, "unit": pl.String, "quantity": pl.Int64, "estimated": pl.Boolean}
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


@dataclass(frozen=True, slots=True)
class _SlotMap:
    """Where each slot of a day goes for one tariff: its period, and the slots of each register."""

    periods: tuple[npt.NDArray[np.int64], ...]
    registers: tuple[npt.NDArray[np.int64], ...]
    window: int

    @classmethod
    def of(cls, tariff: Tariff, zone: str, day: date, interval_minutes: int, holiday: bool) -> _SlotMap:
        clock = local_clock(zone, day, interval_minutes)
        period = np.array([tariff.schedule.period(moment, holiday) for moment in clock], np.int64)
        window = 1
        if (
            tariff.demand_minutes
            and tariff.demand_minutes > interval_minutes
            and tariff.demand_minutes % interval_minutes == 0
        ):
            window = tariff.demand_minutes // interval_minutes
        return cls(
            tuple(np.flatnonzero(period == p) for p in range(len(tariff.schedule.periods))),
            tuple(
                np.array([k for k, moment in enumerate(clock) if register.holds(moment, holiday)], np.int64)
                for register in tariff.registers
            ),
            window,
        )


def _buckets(values: npt.NDArray[np.int64], columns: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    out = np.zeros((len(values), len(columns)), np.int64)
    for p, held in enumerate(columns):
        # a period is a few runs of slots; a run is summed where it lies, scattered slots would be copied first
        for run in np.split(held, np.flatnonzero(np.diff(held) != 1) + 1) if len(held) else []:
            out[:, p] += values[:, run[0] : run[-1] + 1].sum(axis=1)
    return out


def _peaks(
    values: npt.NDArray[np.int64], slot_map: _SlotMap, interval_minutes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16]]:
    """Highest window of each register in kW and the slot where it began."""
    n, slots = values.shape
    window = slot_map.window
    if window > 1:
        # A day of 23.5 hours may end inside a window; what is left is averaged over the whole window, as a meter would.
        starts = np.arange(0, slots, window)
        windows = np.repeat(np.add.reduceat(values, starts, axis=1), np.diff(np.append(starts, slots)), axis=1)
    else:
        windows = values
    per_hour = Fraction(60, interval_minutes * window)
    peaks = np.zeros((n, len(slot_map.registers)), np.int64)
    at = np.full((n, len(slot_map.registers)), -1, np.int16)
    for r, held in enumerate(slot_map.registers):
        if not len(held):
            continue
        inside = windows[:, held]
        best = inside.argmax(axis=1)
        highest = inside[np.arange(n), best]
        if per_hour.denominator == 1:
            peaks[:, r] = np.maximum(highest, 0) * per_hour.numerator
        else:
            peaks[:, r] = quotient(product(np.maximum(highest, 0), per_hour.numerator), per_hour.denominator)
        at[:, r] = np.where(highest > 0, held[best] // window * window, -1)
    return peaks, at


def day_determinants(
    bound: Bound,
    calendar: BillingCalendar,
    day: date,
    matrices: Sequence[DayMatrix],
    daily: pl.DataFrame,
    holidays: frozenset[date],
) -> DayDeterminants:
    """Determinants of every service of a day.

    ``matrices``: validated intervals, keys with service_point_id, unit and flow (import or export); ``daily``:
    DAILY_SCHEMA, for services metered by a register only. Every bound service has a row, with zeros where no usage
    came; the order of the inputs does not matter.
    """
    services = bound.services
    group_of, groups = _group(bound)
    within = np.zeros(services.height, np.int64)
    for group in groups:
        within[group.rows] = np.arange(len(group.rows))
    faults: list[pl.DataFrame] = [bound.exceptions]
    seen = np.zeros(services.height, np.bool_)
    for matrix in matrices:
        order, joined, unbound = _combined(matrix, services)
        faults.append(_unbilled(unbound, bound))
        if not len(order):
            continue
        at, unit = joined["at"].to_numpy(), joined["unit"].to_numpy()
        flow = joined["flow"].to_numpy()
        new = np.concatenate(([True], (at[1:] != at[:-1]) | (flow[1:] != flow[:-1]) | (unit[1:] != unit[:-1])))
        starts = np.flatnonzero(new)
        for g, group in enumerate(groups):
            chosen = np.flatnonzero(group_of[at[starts]] == g)
            if len(chosen):
                _fill(
                    group,
                    matrix,
                    order,
                    starts,
                    chosen,
                    at,
                    flow,
                    unit,
                    within,
                    calendar,
                    day,
                    holidays,
                    faults,
                    services,
                )
        seen[at] = True
    faults.append(_fill_daily(groups, group_of, within, daily, services, day, seen, bound))
    for group in groups:
        group.order_units()
    silent = services.filter(pl.Series(~seen))
    if silent.height:
        faults.append(exceptions(silent, "no_usage"))
    merged = pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults]).unique().sort("service_point_id", "reason", "detail")
    return DayDeterminants(day, services, groups, merged)


def _unbilled(unbound: pl.DataFrame, bound: Bound) -> pl.DataFrame:
    """Usage at a service point that no service holds: nobody pays, unless an exception already says why."""
    return exceptions(
        unbound.join(bound.exceptions, on="service_point_id", how="anti").select("service_point_id").unique(),
        "no_agreement",
    )


def _group(bound: Bound) -> tuple[npt.NDArray[np.int64], list[DayGroup]]:
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
    group: DayGroup,
    matrix: DayMatrix,
    order: npt.NDArray[Any],
    starts: npt.NDArray[Any],
    chosen: npt.NDArray[Any],
    at: npt.NDArray[Any],
    flow: npt.NDArray[Any],
    unit: npt.NDArray[Any],
    within: npt.NDArray[np.int64],
    calendar: BillingCalendar,
    day: date,
    holidays: frozenset[date],
    faults: list[pl.DataFrame],
    services: pl.DataFrame,
) -> None:
    """One tariff version's rows of one matrix."""
    slot_map = _SlotMap.of(group.tariff, calendar.zone, day, matrix.interval_minutes, day in holidays)
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
    rows, units, flows = at[starts[chosen]], unit[starts[chosen]], flow[starts[chosen]]
    for spelled in sorted(set(units.tolist())):
        factor = conversion(str(spelled), group.tariff, day)
        for direction in ("import", "export"):
            pick = np.flatnonzero((units == spelled) & (flows == direction))
            if not len(pick):
                continue
            if factor is None:
                faults.append(
                    exceptions(services[rows[pick].tolist()], "unit_mismatch", f"{spelled} to {group.tariff.unit}")
                )
                continue
            room = group.holds(within[rows[pick]], str(spelled))
            if not room.all():
                third = services[rows[pick[~room]].tolist()]
                faults.append(exceptions(third, "unit_mismatch", f"{spelled} beside two other units on one day"))
                pick = pick[room]
            part = values if len(pick) == len(values) else values[pick]
            target = within[rows[pick]]
            buckets = _convert(_buckets(part, slot_map.periods), factor)
            group.add_metered(target, str(spelled), part.sum(axis=1), export=direction == "export")
            if direction == "export":
                group.export[target] += buckets
                continue
            group.energy[target] += buckets
            group.estimated[target] += estimated[pick].astype(np.int32)
            group.missing[target] += (matrix.slots - np.minimum(filled[pick], matrix.slots)).astype(np.int32)
            group.slots[target] += matrix.slots
            group.interval_minutes[target] = matrix.interval_minutes
            if group.tariff.registers:
                peaks, slots = _peaks(part, slot_map, matrix.interval_minutes)
                higher = peaks > group.peaks[target]
                group.peaks[target] = np.where(higher, peaks, group.peaks[target])
                group.peak_slots[target] = np.where(higher, slots, group.peak_slots[target])


def _fill_daily(
    groups: list[DayGroup],
    group_of: npt.NDArray[np.int64],
    within: npt.NDArray[np.int64],
    daily: pl.DataFrame,
    services: pl.DataFrame,
    day: date,
    seen: npt.NDArray[np.bool_],
    bound: Bound,
) -> pl.DataFrame:
    """Usage known only as a day's total, that of registers alone: fine for tariffs without periods and demand. It comes
    on top of intervals, as on the day on which a register gives way to an interval meter."""
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
            if group.tariff.needs_intervals:
                faults.append(exceptions(part, "needs_intervals", group.tariff_id))
                continue
            factor = conversion(str(unit), group.tariff, day)
            if factor is None:
                faults.append(exceptions(part, "unit_mismatch", f"{unit} to {group.tariff.unit}"))
                continue
            summed = part.group_by("at").agg(pl.col("quantity").sum(), pl.col("estimated").any()).sort("at")
            room = group.holds(within[summed["at"].to_numpy()], str(unit))
            if not room.all():
                third = services[summed["at"].filter(pl.Series(~room)).to_list()]
                faults.append(exceptions(third, "unit_mismatch", f"{unit} beside two other units on one day"))
                summed = summed.filter(pl.Series(room))
            target, quantity = within[summed["at"].to_numpy()], summed["quantity"].to_numpy()
            group.add_metered(target, str(unit), quantity, export=flow == "export")
            if flow == "export":
                group.export[target, 0] += _convert(quantity, factor)
                continue
            group.energy[target, 0] += _convert(quantity, factor)
            group.estimated[target] += summed["estimated"].to_numpy().astype(np.int32)
            group.slots[target] += 1
        seen[joined["at"].to_numpy()] = True
    return pl.concat([f.cast(EXCEPTION_SCHEMA) for f in faults])
