"""How many digits a register shows, learnt from a file in which it started again at 0.

A dial that goes from 99,985 to 12 has five digits, if what it counted meanwhile is what it counts from read to read. A
fall to 12 that would be fifty times the meter's other steps is another meter or a reset, and teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

import polars as pl

from meter_pipeline.units import MICRO, UnitError, base_unit

#: steps of a register that must be known, and how much larger than the largest of them the step over 0 may be
_FEWEST_STEPS: Final = 3
_LARGER: Final = 3
_MOST_DIGITS: Final = 12


def learnt_moduli(registers: pl.DataFrame, file_units: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Decimal]:
    """By meter and channel where its dial starts again at 0, in base units; those that did not in this file have none.

    ``registers``: REGISTER_READS; ``file_units``: the file's own units, in which a dial has its digits. A register that
    fell more than one time must have done so at the same number of digits.
    """
    if not registers.height:
        return {}
    key = ["meter_id", "channel"]
    steps = registers.sort(*key, "read_at").with_columns(
        before=pl.col("value").shift(1).over(key), step=pl.col("value").diff().over(key)
    )
    usual = (
        steps.filter(pl.col("step") > 0).group_by(key).agg(pl.col("step").max().alias("most"), pl.len().alias("known"))
    )
    fallen = steps.filter(pl.col("step") < 0).join(usual.filter(pl.col("known") >= _FEWEST_STEPS), on=key)
    found: dict[tuple[str, str], set[Decimal | None]] = {}
    for meter, channel, before, value, most in fallen.select(*key, "before", "value", "most").iter_rows():
        modulus = _modulus(before, value, most, file_units.get((meter, channel), ""))
        found.setdefault((meter, channel), set()).add(modulus)
    learnt = {pair: next(iter(moduli)) for pair, moduli in found.items() if len(moduli) == 1}
    return {pair: modulus for pair, modulus in learnt.items() if modulus is not None}


def _modulus(before: int, value: int, most: int, unit: str) -> Decimal | None:
    """The power of ten, in base units, over which a dial went; None where no step over one is like the others."""
    try:
        factor = base_unit(unit)[1]
    except UnitError:
        factor = Fraction(1)
    for digits in range(1, _MOST_DIGITS + 1):
        whole = Fraction(10**digits) * factor * MICRO
        if before < whole:
            if whole - before + value > _LARGER * most or value >= whole / 2:
                return None
            base = whole / MICRO
            return Decimal(base.numerator) / Decimal(base.denominator)
    return None
