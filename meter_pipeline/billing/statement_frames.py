"""The frames of priced statements: their columns, how figures are held in them, and the period they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import polars as pl

from meter_pipeline.billing.bill_position import QUANTITY_SCALE
from meter_pipeline.billing.tariffs.model import Layout, Tariff, TariffLine

#: Lines before they are numbered: money and quantity in millionths.
LINE_SCHEMA: Final = pl.Schema(
    {
        "account_id": pl.String(),
        "service_point_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "segment_start": pl.Date(),
        "segment_end": pl.Date(),
        "at": pl.Int32(),
        "line_key": pl.String(),
        "name": pl.String(),
        "component": pl.String(),
        "quantity": pl.Int64(),
        "unit": pl.String(),
        "amount": pl.Int64(),
    }
)
SEGMENT_SCHEMA: Final = pl.Schema(
    {
        "account_id": pl.String(),
        "service_point_id": pl.String(),
        "tariff_id": pl.String(),
        "tariff_version": pl.Int32(),
        "segment_start": pl.Date(),
        "segment_end": pl.Date(),
        "days": pl.Int32(),
        "unit": pl.String(),
        "energy": pl.List(pl.Int64()),
        "peaks": pl.List(pl.Int64()),
        "peak_at": pl.List(pl.Int64()),
        "carry_out": pl.List(pl.Int64()),
        "credit_out": pl.Int64(),
        "period_end": pl.Int64(),
        "credit": pl.Int64(),
        "ratchet": pl.Int64(),
        "year_end": pl.Int64(),
        "total": pl.Int64(),
    }
)

SEGMENT_MONEY: Final = frozenset({"credit_out", "period_end", "credit", "ratchet", "year_end", "total"})
#: Lines that no charge declares.
ROUNDING_LINE: Final = TariffLine("ROUNDING", "ROUNDING", "Rounding of the total", "rider", None, None, "")
CREDIT_LINE: Final = TariffLine("CREDIT-USED", "CREDIT-USED", "Credit for exports, used", "credit", None, None, "")


@dataclass(frozen=True, slots=True)
class Precision:
    """How figures are held: ``scale`` of quantities; ``exact`` money in 10**-12 without rounding, for comparison with
    published figures, in integers of ``kind``."""

    exact: bool = False
    scale: int = QUANTITY_SCALE

    @property
    def kind(self) -> type[pl.DataType]:
        return pl.Int128 if self.exact else pl.Int64


CENTS: Final = Precision()


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period [start, end) and the tariffs that are in it."""

    start: date
    end: date
    tariffs: Mapping[tuple[str, int], Tariff]

    @property
    def days(self) -> int:
        return (self.end - self.start).days

    def layouts(self, tariff_id: str) -> dict[int, Layout]:
        """How positions under a tariff's versions are laid out."""
        return {version: t.layout for (name, version), t in self.tariffs.items() if name == tariff_id}
