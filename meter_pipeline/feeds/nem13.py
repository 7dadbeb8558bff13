"""NEM13: accumulation meters. One 250 record is two readings of a register and the consumption between them.

Each 250 record gives two register reads (previous and current, each with its own quality) and one period: the quantity
the file states for the time between. Both are kept, because they may differ (a dial that rolled over, a multiplier, or
a mistake); what is billed is the difference of the registers, and the stated quantity is compared with it
(``by_dials``): landing reports every difference. Independent readers of the format report the stated quantity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import polars as pl

from meter_pipeline.feeds.coded_columns import Ids, Units
from meter_pipeline.feeds.rejects import Reason
from meter_pipeline.schemas.reads import PERIOD_READS, REGISTER_READS
from meter_pipeline.units import MAX_DIAL_MICRO

_FIELDS: Final = 20


class Accumulations:
    """Collects the 250 records of a file. ``instant`` and ``quality`` are the reader's own, with its zone."""

    def __init__(
        self, instant: Callable[[str, str, list[Reason]], int | None], quality: Callable[[str, str, list[Reason]], int]
    ) -> None:
        self._instant = instant
        self._quality = quality
        self._meters, self._channels, self._units = Ids("NMI"), Ids("NMISuffix"), Units(most=MAX_DIAL_MICRO)
        self.created: int | None = None
        self.file_units: dict[tuple[str, str], str] = {}
        self._registers: list[tuple[Any, ...]] = []
        self._periods: list[tuple[Any, ...]] = []

    def read(self, fields: list[str], line: int) -> list[Reason]:
        """Take in one record, or return every reason it is refused for."""
        if len(fields) < _FIELDS:
            return [Reason("truncated_row", f"{len(fields)} fields of {_FIELDS}")]
        reasons: list[Reason] = []
        codes = []
        for coded_column, at in ((self._meters, 1), (self._channels, 4), (self._units, 19)):
            codes.append(coded_column.code(fields[at].encode("utf-8")))
            reason = coded_column.reason(codes[-1])
            if reason is not None:
                reasons.append(reason)
        dials: list[tuple[int, int, int]] = []
        for name, at in (("Previous", 8), ("Current", 13)):
            value = self._units.exact(codes[2], fields[at])
            time = self._instant(f"{name}RegisterReadDateTime", fields[at + 1], reasons)
            if time is None and not fields[at + 1]:
                reasons.append(Reason("missing_field", f"{name}RegisterReadDateTime"))
            quality = self._quality(fields[at + 2], fields[at + 3], reasons)
            if isinstance(value, Reason):
                reasons.append(Reason(value.code, f"{name}RegisterRead: {value.detail}"))
            elif time is not None:
                dials.append((time, value, quality))
        quantity = self._units.exact(codes[2], fields[18])
        if isinstance(quantity, Reason):
            reasons.append(Reason(quantity.code, f"Quantity: {quantity.detail}"))
        rest = [*fields[20:], "", "", ""]
        update = self._instant("UpdateDateTime", rest[1], reasons)
        load = self._instant("MSATSLoadDateTime", rest[2], reasons)
        if reasons:
            return reasons
        if dials[0][0] >= dials[1][0]:
            return [Reason("bad_time", "the current read is not after the previous one")]
        version = next((time // 1_000_000 for time in (update, load, self.created) if time is not None), 0)
        meter, channel = self._meters.values[codes[0]], self._channels.values[codes[1]]
        unit = self._units.base[codes[2]]
        self.file_units.setdefault((meter, channel), fields[19])
        for time, value, quality in dials:
            self._registers.append((meter, channel, time, value, unit, 0, quality, version, update, line))
        counted = self._counted(codes[2], fields[8], dials[0][1], dials[1][1])
        self._periods.append(
            (meter, channel, dials[0][0], dials[1][0], quantity, counted, unit, dials[1][2], version, update, line)
        )
        return []

    def _counted(self, unit: int, shown_before: str, before: int, after: int) -> int:
        """From one dial to the next in micro base units; across the last digit (as many as the previous read has) where
        that is the shorter way."""
        digits = len(shown_before.split(".", maxsplit=1)[0].strip().lstrip("+"))
        whole = self._units.exact(unit, "1" + "0" * digits)
        if after < before and isinstance(whole, int) and after - before + whole < before - after:
            return after - before + whole
        return after - before

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Register reads and periods. A read that closes one record and opens the next stands twice, as the file has
        it."""
        return _frame(self._registers, REGISTER_READS), _frame(self._periods, PERIOD_READS)


def _frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    raw = {name: pl.Int64 if isinstance(dtype, pl.Datetime) else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=raw, orient="row").with_columns(
        pl.col(name).cast(dtype) for name, dtype in schema.items()
    )
