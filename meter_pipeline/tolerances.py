"""How far intervals and their register may be apart and still agree: one rule for validation and for reconciliation.

A CT meter 0.096 kWh off passed validation, which allows for the rounding of every interval, and failed the day in
reconciliation, which did not. Both take the rule from here; each applies it to figures of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_MICRO: Final = 1_000_000
_DAY_S: Final = 86_400
#: Days either way that a register of intervals is looked for: a quarter's manual read and its delay
_REACH: Final = 100


@dataclass(frozen=True, slots=True)
class RegisterTolerance:
    """``units``: steps of the register's last digit, times its multiplier; ``resolution``: of an interval, in
    millionths of the unit, half of which each interval may be rounded by. A register read over several days is allowed
    as much a day.
    """

    units: int
    resolution: int

    def of(self, unit: npt.NDArray[np.int64], intervals: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tolerance of rows, in micro units. ``unit``: what the register's last digit is worth; ``intervals``: of
        the row.
        """
        allowed: npt.NDArray[np.int64] = self.units * unit + intervals * self.resolution // 2
        return allowed

    def sql(self, multiplier: str, decimals: str, intervals: str) -> str:
        """The same in SQL, from columns: the multiplier (numeric), the digits after the point, the number of
        intervals.
        """
        unit = f"{_MICRO} * coalesce({multiplier}, 1) / 10 ^ coalesce({decimals}, 0)"
        return f"({self.units} * {unit} + div({intervals} * {self.resolution}, 2))"

    @staticmethod
    def days_sql(meter: str) -> str:
        """SQL for the days that the reads of a meter around a day enclose, 1 where it is read daily. Of a query that
        binds ``day``, ``start`` and ``past``, the day's instants."""
        after = (
            f"SELECT min(a.read_at) FROM raw.register_read AS a WHERE a.meter_id = {meter} AND a.read_at >= %(past)s "  # noqa: S608 - a column
            f"AND a.billing_day BETWEEN %(day)s::date AND %(day)s::date + {_REACH}"
        )
        before = (
            f"SELECT max(b.read_at) FROM raw.register_read AS b WHERE b.meter_id = {meter} AND b.read_at <= %(start)s "  # noqa: S608 - a column
            f"AND b.billing_day BETWEEN %(day)s::date - {_REACH} AND %(day)s::date"
        )
        return f"greatest(1, round(extract(epoch FROM ({after}) - ({before})) / {_DAY_S}))"
