"""A service's usage of a period put at another figure, as a leak adjustment prices it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

import polars as pl

from meter_pipeline.billing.tariffs import Tariff
from meter_pipeline.billing.tariffs.model import UsageCharge

#: Decimals of the ratio between two quantities: a quantity of 10**15 millionths comes out right to a thousandth of one.
_PLACES: Final = Decimal(1).scaleb(-18)
_SCALED: Final = frozenset({"usage", "winter_average_cap"})


@dataclass(slots=True)
class UsageChange:
    """A service point whose usage of a period was ``was`` and is priced as ``now``; charges in ``codes`` count
    ``of_codes`` of it. All in millionths of the tariff's unit.

    Each day keeps its share: the days up to any day come to now / was of what they were, rounded down, so that the
    period's sum is exact.
    """

    service_point_id: str
    was: int
    now: int
    codes: frozenset[str] = frozenset()
    of_codes: int = 0
    _seen: int = field(default=0, init=False)

    @property
    def _base(self) -> int:
        return max(self.now, self.of_codes) if self.codes else self.now

    def determinants(self, stored: pl.DataFrame) -> pl.DataFrame:
        """A day's determinants with the usage changed; the days of a period are given in their order."""
        mine = stored["service_point_id"].to_list()
        if self.service_point_id not in mine:
            return stored
        at = mine.index(self.service_point_id)
        rows = stored["energy"].to_list()
        rows[at] = [self._share(quantity) for quantity in rows[at]]
        return stored.with_columns(pl.Series("energy", rows, stored.schema["energy"]))

    def _share(self, quantity: int) -> int:
        before = self._seen * self._base // self.was if self.was else 0
        self._seen += quantity
        return (self._seen * self._base // self.was if self.was else 0) - before

    def tariff(self, tariff: Tariff) -> Tariff:
        """A tariff whose charges each count their own part of the changed usage."""
        if not self.codes or self.now == self.of_codes:
            return tariff
        changed = [
            replace(charge, factor=charge.factor * self._ratio(charge.code))
            if isinstance(charge, UsageCharge) and charge.basis in _SCALED and charge.blocks is None
            else charge
            for charge in tariff.charges
        ]
        return replace(tariff, charges=tuple(changed))

    def _ratio(self, code: str) -> Decimal:
        part = self.of_codes if code in self.codes else self.now
        if part == self._base:
            return Decimal(1)
        return (Decimal(part) / Decimal(self._base)).quantize(_PLACES)
