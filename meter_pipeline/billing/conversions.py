"""From the unit that a meter counts in to the unit that a tariff counts in, exactly; therms by the heat content of the
service's zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.fixed_point import Whole, narrow, product, quotient
from meter_pipeline.billing.tariffs.model import Tariff
from meter_pipeline.units import CUBIC_METRES

#: volumes a tariff may count in, as cubic metres (exact)
_VOLUMES: Final = {**CUBIC_METRES, "kgal": 1000 * CUBIC_METRES["gal"], "ccf": 100 * CUBIC_METRES["ft3"]}
#: Attribute of a service: the zone of heat_contents that its gas is from
HEAT_ZONE: Final = "heat_zone"
#: Zone of services that name none
_EVERYWHERE: Final = "*"
#: Heat content of a service whose zone has none in force on the day; null stands for the tariff's own list
_UNKNOWN: Final = ""
_ONE: Final = Fraction(1)

HEAT_SCHEMA: Final = pl.Schema(
    {"zone_id": pl.String, "valid_from": pl.Date, "valid_to": pl.Date, "therms_per_ccf": pl.String}
)


def with_heat(services: pl.DataFrame, contents: pl.DataFrame, attributes: pl.DataFrame, day: date) -> pl.DataFrame:
    """Adds heat_content: therms per ccf of each service's zone on a day as exact text, null where the tariff's own list
    holds, empty where the zone that the service names has no row in force.

    ``contents``: HEAT_SCHEMA; ``attributes``: those in force (service_point_id, attribute, value). A service that names
    a zone has that zone's heat content or waits; one that names no zone has that of ``*``, or else the tariff's.
    """
    zones = attributes.filter(pl.col("attribute") == HEAT_ZONE)
    if not zones.height and not contents.height:
        return services.with_columns(pl.lit(None, pl.String).alias("heat_content"))
    in_force = contents.filter(
        (pl.col("valid_from") <= day) & (pl.col("valid_to").is_null() | (pl.col("valid_to") > day))
    )
    therms = dict(in_force.select("zone_id", "therms_per_ccf").iter_rows())
    zone = pl.col("value").str.strip_chars().str.to_uppercase()
    named = zones.select(
        "service_point_id", zone.replace_strict(therms, default=_UNKNOWN, return_dtype=pl.String).alias("heat_content")
    )
    everywhere = pl.lit(therms.get(_EVERYWHERE), pl.String)
    return services.join(named, on="service_point_id", how="left").with_columns(
        pl.col("heat_content").fill_null(everywhere)
    )


@dataclass(frozen=True, slots=True)
class Conversion:
    """Factors from a meter's base unit to a tariff's for n services. ``which`` (n,): each one's factor, -1 where there
    is none; None: every service has the one factor."""

    factors: tuple[Fraction, ...]
    which: npt.NDArray[np.int64] | None = None

    @property
    def missing(self) -> npt.NDArray[np.bool_] | None:
        """Which services have no factor; None where each has one."""
        absent = None if self.which is None else self.which < 0
        return None if absent is None or not absent.any() else absent

    def of(self, chosen: npt.NDArray[np.bool_]) -> Conversion:
        """That of some of the services."""
        return self if self.which is None else Conversion(self.factors, self.which[chosen])

    def applied(self, values: Whole) -> npt.NDArray[np.int64]:
        """Values (n, ...) of services that each have a factor, in the tariff's unit."""
        if self.which is None:
            return _converted(values, self.factors[0])
        found = np.zeros(np.shape(values), np.int64)
        for k, factor in enumerate(self.factors):
            mine = self.which == k
            found[mine] = _converted(values[mine], factor)
        return found


def conversion(unit: str, tariff: Tariff, day: date, heat: pl.Series) -> Conversion:
    """The exact factors from a meter's base unit to the tariff's unit on a day. ``heat`` (n,): the services'
    heat_content.

    Therms come from volume by heat content; energy and volume are never converted otherwise.
    """
    if unit == tariff.unit:
        return Conversion((_ONE,))
    if unit in _VOLUMES and tariff.unit in _VOLUMES:
        return Conversion((_VOLUMES[unit] / _VOLUMES[tariff.unit],))
    if tariff.unit != "therm" or unit not in _VOLUMES:
        return Conversion((), np.full(len(heat), -1, np.int64))
    in_force = [h for h in tariff.heat_content if h.valid_from <= day]
    own = Fraction(in_force[-1].therms_per_ccf) if in_force else None
    if own is not None and heat.null_count() == len(heat):
        return Conversion((_ccf(unit) * own,))
    names = heat.unique().sort(nulls_last=True).to_list()
    known = {name: own if name is None else Fraction(name) for name in names if name != _UNKNOWN}
    factors = {name: value for name, value in known.items() if value is not None}
    order = list(factors)
    code = {name: order.index(name) if name in factors else -1 for name in names}
    which = np.array([code[name] for name in heat.to_list()], np.int64)
    return Conversion(tuple(_ccf(unit) * factors[name] for name in order), which)


def _ccf(unit: str) -> Fraction:
    return _VOLUMES[unit] / _VOLUMES["ccf"]


def no_conversion(unit: str, tariff: Tariff) -> tuple[str, pl.Expr]:
    """Why the usage of services with heat_content can't be counted in the tariff's unit: reason and detail."""
    if tariff.unit == "therm" and unit in _VOLUMES:
        first = f"{tariff.tariff_id}: heat content begins on {tariff.heat_content[0].valid_from}"
        return "no_heat_content", pl.when(pl.col("heat_content") == _UNKNOWN).then(
            pl.lit(f"{tariff.tariff_id}: no row of heat_contents is in force for its zone")
        ).otherwise(pl.lit(first))
    return "unit_mismatch", pl.lit(f"{unit} to {tariff.unit}")


def _converted(values: Whole, factor: Fraction) -> npt.NDArray[np.int64]:
    if factor == 1:
        return np.asarray(values, np.int64)
    return narrow(quotient(product(values, factor.numerator), factor.denominator, "half_even"))
