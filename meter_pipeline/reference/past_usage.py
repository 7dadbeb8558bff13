"""Past usage in a folder of reference tables: periods that make sense, in units that are known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from typing import Any, Final

from meter_pipeline.reference.faults import Fault
from meter_pipeline.units import UnitError, base_unit

_FILE: Final = "past_usage.csv"
#: A bill of a year is the longest there is, read a few weeks late.
LONGEST_DAYS: Final = 400


def check_past_usage(
    rows: Mapping[str, list[tuple[Any, ...]]], lines: Mapping[str, list[int]], faults: list[Fault]
) -> None:
    """Periods that end before they begin, that overlap another of the same service and flow or are longer than a year,
    quantities below nothing, unknown units."""
    spans: list[tuple[str, str, date, date, int]] = []
    for row, line in zip(rows.get("past_usage", ()), lines.get("past_usage", ()), strict=True):
        point, flow, unit, start, end, quantity = row
        if quantity < 0 and flow != "net":
            faults.append(Fault(_FILE, line, "quantity", f"{quantity} is below 0; only net may be"))
        try:
            base_unit(unit)
        except UnitError as error:
            faults.append(Fault(_FILE, line, "unit", str(error)))
        if not 0 < (end - start).days <= LONGEST_DAYS:
            why = f"{end} is not 1 to {LONGEST_DAYS} days after period_start {start}; it is the day after the last"
            faults.append(Fault(_FILE, line, "period_end", why))
        spans.append((point, flow, start, end, line))
    spans.sort()
    for (point, flow, _, ended, first), (other, same, start, _, line) in pairwise(spans):
        if (point, flow) == (other, same) and start < ended:
            faults.append(Fault(_FILE, line, "period_start", f"{start} lies in the period of line {first} of {point}"))
