"""Units of measure and exact quantities.

A quantity is an integer of micro base units (``MICRO`` = 10**6): 1.5 kWh is 1_500_000. Every factor inside a family is
a power of ten times an integer, so a published value with up to six decimals of the base unit is held exactly; one that
is finer is refused, never rounded.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

MICRO: Final = 10**6
#: Largest magnitude held, in micro base units: 18 digits, inside int64 with room for a day's sum of 288 of them to be
# checked.
MAX_MICRO: Final = 10**16
#: Largest dial held: a register's reads are never added up, so that all of 64 bits serve
MAX_DIAL_MICRO: Final = 9 * 10**18

#: spelling (upper case, blanks removed) -> (base unit, factor to the base unit)
_SPELLINGS: Final[dict[str, tuple[str, Fraction]]] = {
    "WH": ("kWh", Fraction(1, 1000)),
    "KWH": ("kWh", Fraction(1)),
    "MWH": ("kWh", Fraction(1000)),
    "VARH": ("kVArh", Fraction(1, 1000)),
    "KVARH": ("kVArh", Fraction(1)),
    "MVARH": ("kVArh", Fraction(1000)),
    "VAH": ("kVAh", Fraction(1, 1000)),
    "KVAH": ("kVAh", Fraction(1)),
    "MVAH": ("kVAh", Fraction(1000)),
    "W": ("kW", Fraction(1, 1000)),
    "KW": ("kW", Fraction(1)),
    "MW": ("kW", Fraction(1000)),
    "VAR": ("kVAr", Fraction(1, 1000)),
    "KVAR": ("kVAr", Fraction(1)),
    "VA": ("kVA", Fraction(1, 1000)),
    "KVA": ("kVA", Fraction(1)),
    "V": ("V", Fraction(1)),
    "KV": ("V", Fraction(1000)),
    "A": ("A", Fraction(1)),
    "PF": ("pf", Fraction(1)),
    "L": ("m3", Fraction(1, 1000)),
    "LITRE": ("m3", Fraction(1, 1000)),
    "LITER": ("m3", Fraction(1, 1000)),
    "KL": ("m3", Fraction(1)),
    "M3": ("m3", Fraction(1)),
    "M^3": ("m3", Fraction(1)),
    "GAL": ("gal", Fraction(1)),
    "GALLON": ("gal", Fraction(1)),
    "GALLONS": ("gal", Fraction(1)),
    "KGAL": ("gal", Fraction(1000)),
    "CGAL": ("gal", Fraction(100)),
    "FT3": ("ft3", Fraction(1)),
    "CF": ("ft3", Fraction(1)),
    "CCF": ("ft3", Fraction(100)),
    "HCF": ("ft3", Fraction(100)),
    "MCF": ("ft3", Fraction(1000)),
    "AF": ("ft3", Fraction(43_560)),
    "ACREFT": ("ft3", Fraction(43_560)),
    "ACREFOOT": ("ft3", Fraction(43_560)),
    "ACREFEET": ("ft3", Fraction(43_560)),
    "THERM": ("therm", Fraction(1)),
    "BTU": ("therm", Fraction(1, 100_000)),
    "KBTU": ("therm", Fraction(1, 100)),
    "THM": ("therm", Fraction(1)),
    "DTH": ("therm", Fraction(10)),
    "MJ": ("MJ", Fraction(1)),
    "GJ": ("MJ", Fraction(1000)),
    "WATTHOURS": ("kWh", Fraction(1, 1000)),
    "KWHR": ("kWh", Fraction(1)),
    "KWHRS": ("kWh", Fraction(1)),
    "KILOWATTHOUR": ("kWh", Fraction(1)),
    "KILOWATTHOURS": ("kWh", Fraction(1)),
    "MEGAWATTHOURS": ("kWh", Fraction(1000)),
    "GWH": ("kWh", Fraction(10**6)),
    "LITRES": ("m3", Fraction(1, 1000)),
    "LITERS": ("m3", Fraction(1, 1000)),
    "LTR": ("m3", Fraction(1, 1000)),
    "KILOLITRES": ("m3", Fraction(1)),
    "KILOLITERS": ("m3", Fraction(1)),
    "CUBICMETRE": ("m3", Fraction(1)),
    "CUBICMETRES": ("m3", Fraction(1)),
    "CUBICMETER": ("m3", Fraction(1)),
    "CUBICMETERS": ("m3", Fraction(1)),
    "GALS": ("gal", Fraction(1)),
    "USGAL": ("gal", Fraction(1)),
    "USGALLONS": ("gal", Fraction(1)),
    "KGALS": ("gal", Fraction(1000)),
    "THOUSANDGALLONS": ("gal", Fraction(1000)),
    "CUFT": ("ft3", Fraction(1)),
    "FT^3": ("ft3", Fraction(1)),
    "CUBICFOOT": ("ft3", Fraction(1)),
    "CUBICFEET": ("ft3", Fraction(1)),
    "HUNDREDCUBICFEET": ("ft3", Fraction(100)),
    "THERMS": ("therm", Fraction(1)),
    "DEKATHERM": ("therm", Fraction(10)),
    "DEKATHERMS": ("therm", Fraction(10)),
    "MMBTU": ("therm", Fraction(10)),
    "MEGAJOULES": ("MJ", Fraction(1)),
    "GIGAJOULES": ("MJ", Fraction(1000)),
    "": ("", Fraction(1)),
}

#: base unit -> commodity it measures; reactive, voltage and unitless channels belong to electricity metering
COMMODITY_OF_UNIT: Final[dict[str, str]] = {
    "kWh": "electricity",
    "kVArh": "electricity",
    "kVAh": "electricity",
    "kW": "electricity",
    "kVAr": "electricity",
    "kVA": "electricity",
    "V": "electricity",
    "A": "electricity",
    "pf": "electricity",
    "": "electricity",
    "m3": "water",
    "gal": "water",
    "ft3": "gas",
    "therm": "gas",
    "MJ": "gas",
}

#: Exact factors between families, used by billing only. m3 per unit: US gallon 231 cubic inches, foot 0.3048 m (NIST
# SP 811).
CUBIC_METRES: Final[dict[str, Fraction]] = {
    "m3": Fraction(1),
    "gal": Fraction(3785411784, 10**12),
    "ft3": Fraction(28316846592, 10**12),
}

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_LONG = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_IGNORED: Final = re.compile(r"[ _\-\u00a0]+|\.(?![0-9])")
_COUNTED: Final = re.compile(r"([1-9][0-9]{0,6})([A-Z].*)", re.ASCII)


class UnitError(ValueError):
    """An unknown unit, or a quantity that cannot be held exactly."""


def base_unit(spelling: str) -> tuple[str, Fraction]:
    """The base unit of a head-end's spelling and the exact factor to it.

    Raises UnitError for an undeclared spelling. Case, blanks, points, dashes and underscores do not matter (NEM12
    files say kWh, KWH and kwh; water meters Cubic Feet, CUBIC_FEET and Cu.Ft.), and a whole number before a unit counts
    it: ``10 CF`` is ten cubic feet, ``100 GAL`` a hundred gallons.
    """
    key = _IGNORED.sub("", spelling.strip().upper()).replace("³", "3")
    if key in _SPELLINGS and (key or not spelling.strip()):
        return _SPELLINGS[key]
    counted = _COUNTED.fullmatch(key)
    if counted is not None and counted[2] in _SPELLINGS:
        base, factor = _SPELLINGS[counted[2]]
        return base, factor * int(counted[1])
    raise UnitError(f"unknown unit {spelling!r}")


def parse_decimal(text: str) -> Decimal:
    """A finite decimal from ASCII text, or UnitError.

    Refuses what ``float`` and ``Decimal`` quietly take: NaN, Infinity, 1e999, underscores, other scripts' digits,
    blanks inside.
    """
    if not _NUMBER.fullmatch(text):
        raise UnitError(f"not a plain decimal number: {text[:40]!r}")
    return Decimal(text)


def parse_reading(text: str) -> Fraction:
    """A reading as its exact value: as ``parse_decimal``, with up to 30 digits before the point and 40 behind it, since
    systems write binary residue (3.2269999999999186) and zeros (0.12500000000000)."""
    if not _LONG.fullmatch(text):
        raise UnitError(f"not a plain decimal number: {text[:40]!r}")
    return Fraction(text)


#: rounding of a number between two millionths
Rounding = str | None


def round_micro(exact: Fraction, rounding: Rounding) -> int:
    """A whole number of micro units. ``half_even`` or ``half_up`` (halves away from zero) for what lies between two;
    without a rounding that is a UnitError."""
    if exact.denominator == 1:
        return exact.numerator
    if rounding == "half_even":
        return round(exact)
    if rounding == "half_up":
        return int(abs(exact) + Fraction(1, 2)) * (-1 if exact < 0 else 1)
    raise UnitError(f"{exact} is finer than a millionth of the base unit")


def to_micro(value: Decimal, factor: Fraction = Fraction(1)) -> int:
    """Micro base units of a value in a unit whose factor to the base unit is given. Exact, or UnitError."""
    scaled = Fraction(value) * factor * MICRO
    if scaled.denominator != 1:
        raise UnitError(f"{value} is finer than a millionth of the base unit")
    if abs(scaled.numerator) > MAX_MICRO:
        raise UnitError(f"{value} is beyond the range of a meter")
    return scaled.numerator


def from_micro(micro: int) -> Decimal:
    """The exact decimal of an integer of micro base units, without trailing zeros beyond the point."""
    value = Decimal(micro).scaleb(-6)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
