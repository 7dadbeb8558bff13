"""The services of a day by tariff version: arrays for their determinants, and the units they count in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.conversions import Conversion, conversion, no_conversion
from meter_pipeline.billing.service_agreements import NO_EXCEPTIONS, DayServices, exceptions
from meter_pipeline.billing.tariffs.model import Layout, Tariff
from meter_pipeline.schemas.reads import DayMatrix

#: A day's usage from registers alone: quantity in micro base units of ``unit``.
DAILY_SCHEMA: Final = pl.Schema(
    {"service_point_id": pl.String, "flow": pl.String, "unit": pl.String, "quantity": pl.Int64, "estimated": pl.Boolean}
)

#: What time-of-use registers of a service without intervals counted on a day, a row for each stretch of hours they
#: count on such a day; quantity in micro base units.
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


@dataclass(slots=True)
class DayGroup:
    """The services of one tariff version on a day. Rows align with ``rows`` (positions in the bound services frame).

    ``energy`` and ``export`` (n, periods) in millionths of the tariff's unit; ``peaks`` (n, registers) in millionths of
    a kW (or what the register measures) and ``peak_slots`` the slot in which each began (-1: none); ``source`` (n,) the
    usage in micro base units of the meter; ``estimated``, ``missing`` and ``slots`` (n,) count intervals (a day's total
    counts as one).
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
    units: set[str] = field(default_factory=set)

    def holds(self, target: npt.NDArray[np.int64], unit: str) -> npt.NDArray[np.bool_]:
        """Which rows have room for usage in a unit: a day holds two, that of the old meter and that of the new."""
        if len(self.units | {unit}) <= 2:
            return np.ones(len(target), np.bool_)
        first, second = self.source_unit[target], self.other_unit[target]
        room: npt.NDArray[np.bool_] = (first == "") | (first == unit) | (second == "") | (second == unit)
        return room

    def add_metered(
        self, target: npt.NDArray[np.int64], unit: str, quantity: npt.NDArray[np.int64], *, export: bool
    ) -> None:
        """Add usage as the meters count it, in micro base units. Each row at most once, and only where ``holds``."""
        alone = self.units <= {unit}
        self.units.add(unit)
        if alone:  # the common case: one unit of all the group's meters
            self.source_unit[target] = unit
            (self.source_export if export else self.source)[target] += quantity
            return
        first = (self.source_unit[target] == "") | (self.source_unit[target] == unit)
        own, second = target[first], target[~first]
        self.source_unit[own], self.other_unit[second] = unit, unit
        (self.source_export if export else self.source)[own] += quantity[first]
        (self.other_export if export else self.other)[second] += quantity[~first]

    def order_units(self) -> None:
        """The tariff's own unit comes first, else the alphabet decides: never the order in which usage was added."""
        if len(self.units) < 2:
            return
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
    """All services of a day by tariff version, and the exceptions of those left out."""

    billing_day: date
    services: pl.DataFrame
    groups: list[DayGroup]
    exceptions: pl.DataFrame = field(default_factory=lambda: NO_EXCEPTIONS)
    layouts: Mapping[tuple[str, int], Layout] = field(default_factory=dict)


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
class DayExtras:
    """What some tariffs ask of a day beyond usage. ``dials``: DIALS_SCHEMA, by which a day without intervals is divided
    among periods; ``demand``: demand_dials.DEMAND_SCHEMA; ``reactive``: intervals of reactive energy."""

    dials: pl.DataFrame | None = None
    demand: pl.DataFrame | None = None
    reactive: Sequence[DayMatrix] = ()


@dataclass(slots=True)
class DayWork:
    """What filling a day's groups needs, and what it finds.

    ``within``: a service's row in its group; ``apart``: usage of services with demand whose meters have intervals of
    several lengths, by group: row in the group, interval length and the day's values.
    """

    services: pl.DataFrame
    within: npt.NDArray[np.int64]
    day: date
    zone: str
    holidays: frozenset[date]
    faults: list[pl.DataFrame]
    apart: dict[int, list[tuple[int, int, npt.NDArray[np.int64]]]] = field(default_factory=dict)
    extras: DayExtras = field(default_factory=DayExtras)

    @classmethod
    def of(
        cls, bound: DayServices, groups: Sequence[DayGroup], day: date, zone: str, holidays: frozenset[date]
    ) -> DayWork:
        within = np.zeros(bound.services.height, np.int64)
        for group in groups:
            within[group.rows] = np.arange(len(group.rows))
        return cls(bound.services, within, day, zone, holidays, [bound.exceptions])

    def conversion(self, unit: str, tariff: Tariff, at: npt.NDArray[Any]) -> Conversion:
        """From a meter's base unit to a tariff's, for the services at some positions."""
        heat = self.services["heat_content"]
        own = (
            pl.repeat(None, len(at), dtype=pl.String, eager=True)
            if heat.null_count() == len(heat)
            else heat[at.tolist()]
        )
        return conversion(unit, tariff, self.day, own)

    def not_converted(self, unit: str, tariff: Tariff, at: npt.NDArray[Any]) -> pl.DataFrame:
        """The services at some positions as exceptions: their usage can't be counted in the tariff's unit."""
        return exceptions(self.services[np.unique(at).tolist()], *no_conversion(unit, tariff))


def unbilled(unbound: pl.DataFrame, bound: DayServices) -> pl.DataFrame:
    """Usage at a service point that no service holds: no account pays, unless an exception already says why. A supply
    meter of a zone has no account to wait for."""
    if not unbound.height:
        return NO_EXCEPTIONS
    points = unbound.join(bound.exceptions, on="service_point_id", how="anti").select("service_point_id").unique()
    supplies = points["service_point_id"].is_in(list(bound.supply_meters))
    return pl.concat(
        [exceptions(points.filter(~supplies), "no_agreement"), exceptions(points.filter(supplies), "supply_meter")]
    )
