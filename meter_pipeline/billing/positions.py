"""Positions in a billing period as arrays: list columns in and out, aligned by name where a tariff's versions have
different periods or registers, and netted as the tariff meters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.billing.bill_position import QUANTITY_SCALE, PeriodPosition
from meter_pipeline.billing.fixed_point import Whole, quotient
from meter_pipeline.billing.service_agreements import COUNTS, NAMED, PAIRS
from meter_pipeline.billing.tariffs.model import Layout, Tariff

INTS: Final = pl.List(pl.Int64)


def lists(values: npt.NDArray[Any]) -> pl.Series:
    """(n, m) whole numbers as a list column; an empty list where m is 0."""
    if values.shape[1] == 0:
        return pl.Series([[]], dtype=INTS).new_from_index(0, values.shape[0])
    return pl.Series(np.ascontiguousarray(values, np.int64)).cast(INTS)


def matrix(column: pl.Series, width: int) -> npt.NDArray[np.int64]:
    """A list column of ``width`` as (n, width); rows that are null are 0. Raises ValueError where a list has another
    length, or a null among its numbers."""
    n = len(column)
    if width == 0 or column.null_count() == n:
        return np.zeros((n, width), np.int64)
    filled = column.drop_nulls()
    flat = filled.explode(empty_as_null=False)
    if (filled.list.len() != width).any() or flat.null_count():
        raise ValueError(f"column {column.name}: not {width} whole numbers in each list")
    numbers = flat.to_numpy().astype(np.int64, copy=False).reshape(len(filled), width)
    if len(filled) == n:
        return numbers
    found = np.zeros((n, width), np.int64)
    found[column.is_not_null().to_numpy()] = numbers
    return found


def micro_of(texts: pl.Series) -> npt.NDArray[np.int64]:
    """Decimal texts as millionths; -1 where there is none, or none that is a number: such a service is an exception of
    its own. Attributes are few and short: a loop over the distinct ones."""
    known = {text: _micro(text) for text in texts.unique().to_list()}
    return np.array([known[t] for t in texts.to_list()], np.int64)


def _micro(text: str | None) -> int:
    try:
        value = -1 if text is None else int((Decimal(text) * QUANTITY_SCALE).quantize(Decimal(1), ROUND_HALF_EVEN))
    except ArithmeticError:
        return -1
    return value if -1 <= value < 10**15 else -1


def text_array(column: pl.Series) -> npt.NDArray[Any]:
    """A text column as an object array with '' for null."""
    return column.fill_null("").to_numpy().astype(object)


@dataclass(frozen=True, slots=True)
class Aligned:
    """List columns of positions that may have been written under another version of the tariff, laid out as
    ``tariff``'s.

    ``versions``: under which each row was written, null where there is none. Usage of a period that this version does
    not have counts in its default period, so that a tier's position and the sum go on; peaks of a register that it does
    not have are left behind.
    """

    tariff: Tariff
    versions: pl.Series
    layouts: Mapping[int, Layout]

    def periods(self, column: pl.Series) -> npt.NDArray[np.int64]:
        """(n, periods) of a list by period."""
        return self._laid_out(column, 0, self.tariff.schedule.default)

    def registers(self, column: pl.Series) -> npt.NDArray[np.int64]:
        """(n, registers) of a list by register."""
        return self._laid_out(column, 1, None)

    def _laid_out(self, column: pl.Series, part: int, spill: int | None) -> npt.NDArray[np.int64]:
        names = self.tariff.layout[part]
        if all(layout[part] == names for layout in self.layouts.values()):
            return matrix(column, len(names))
        other = {
            version: layout[part]
            for version in self.versions.unique().drop_nulls().to_list()
            if (layout := self.layouts.get(version)) is not None and layout[part] != names
        }
        if not other:
            return matrix(column, len(names))
        found = np.zeros((len(column), len(names)), np.int64)
        for version in self.versions.unique().drop_nulls().to_list():
            rows = np.flatnonzero((self.versions == version).fill_null(False).to_numpy())
            old = other.get(version, names)
            values = matrix(column[rows.tolist()], len(old))
            for k, name in enumerate(old):
                target = names.index(name) if name in names else spill
                if target is not None:
                    found[rows, target] += values[:, k]
        return found


def netted(
    tariff: Tariff, energy: Whole, export: Whole, carry: Whole, scale: int = QUANTITY_SCALE
) -> tuple[Whole, Whole]:
    """Energy that is charged for and exports that nothing was set against: under net metering what is left of each
    after the other and the credit carried in, period by period; otherwise both as they are. Use in whole units is
    rounded, or what is short of one is left to the next bill."""
    if tariff.whole_units is not None:
        step = int(tariff.whole_units * scale)
        if not tariff.carries_remainder:
            return quotient(np.maximum(energy, 0), step, tariff.whole_mode) * step, export
        return (energy + carry) // step * step, export
    if tariff.metering != "net_metering":
        # Below nothing only while meters that are deducted are ahead of the one before them.
        return (np.maximum(energy, 0) if energy.size and int(energy.min()) < 0 else energy), export
    left = energy - export - carry
    return np.maximum(left, 0), np.maximum(-left, 0)


def carried_out(tariff: Tariff, after: dict[str, Any], surplus: Whole) -> Whole:
    """What a bill leaves in units for the next one, by period: exports left over, or use short of a whole unit."""
    if tariff.carries_remainder and tariff.whole_units is not None:
        used: Whole = after["energy"] + after["carry"]
        return used % int(tariff.whole_units * after["scale"])
    return surplus if tariff.carries_units else np.zeros_like(surplus)


def position(tariff: Tariff, frame: dict[str, Any], rows: npt.NDArray[np.int64] | None = None) -> PeriodPosition:
    """A Position from cumulative arrays (energy, export, carry, peaks, register_days, days, ...), perhaps of some rows
    only."""

    def take(name: str) -> Any:
        value = frame.get(name)
        return value if value is None or rows is None else value[rows]

    attributes = {k: (v if rows is None else v[rows]) for k, v in frame["attributes"].items()}
    scale = frame.get("scale", QUANTITY_SCALE)
    energy, surplus = netted(tariff, take("energy"), take("export"), take("carry"), scale)
    return PeriodPosition(
        energy=energy,
        export=take("export"),
        surplus=surplus,
        imports=take("energy"),
        days=take("days"),
        period_days=take("period_days"),
        first_day=take("first_day"),
        season_days=take("season_days"),
        peaks=take("peaks"),
        register_days=take("register_days"),
        history=take("history"),
        months=take("months"),
        budget=take("budget"),
        winter_average=take("winter_average"),
        service_day=take("service_day"),
        bill_day=take("bill_day"),
        attributes=attributes,
        scale=scale,
    )


def attribute_arrays(services: pl.DataFrame, tariff: Tariff) -> dict[str, npt.NDArray[Any]]:
    """The attributes that a tariff's charges depend on, one array of text each. All of them would cost a billing day of
    100,000 services a tenth of its charges."""
    wanted = tariff.reads
    names = ("customer_class", "meter_size", "jurisdiction", "rate_code", *COUNTS, "tax_exempt")
    found = {name: text_array(services[name]) for name in names if name in wanted}
    declared = wanted - {*names, "budget_per_day", "winter_average_per_day"}
    if not declared or "declared" not in services.columns or services["declared"].null_count() == services.height:
        return found
    texts = text_array(services["declared"])
    # A city has few different texts: each is taken apart once.
    apart = {text: dict(pair.split(NAMED, 1) for pair in text.split(PAIRS)) if text else {} for text in set(texts)}
    for name in sorted(declared & {name for values in apart.values() for name in values}):
        found[name] = np.array([apart[text].get(name, "") for text in texts], dtype=object)
    return found
