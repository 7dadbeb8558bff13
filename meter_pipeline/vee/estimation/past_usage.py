"""Usage billed before the first billing day, as the history that days and stretches of the first months lack.

A period says how much was used in it, not on which day: each of its days counts as its average. That is enough for an
average and for the high/low rules, which hold a day against an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.units import CUBIC_METRES
from meter_pipeline.vee.rules.model import Bools, Ints

#: Stretches before this many days say nothing of today's use any more.
STRETCH_DAYS = 400


@dataclass(frozen=True, slots=True)
class PastStretches:
    """Past periods of the rows of a frame, a row's together, oldest first: those of row k are ``begins[k]`` to
    ``begins[k + 1]``. ``closes`` UTC seconds, ``amount`` micro units, ``elapsed`` seconds."""

    begins: Ints
    closes: Ints
    amount: Ints
    elapsed: Ints

    @classmethod
    def none(cls, rows: int) -> PastStretches:
        empty = np.zeros(0, np.int64)
        return cls(np.zeros(rows + 1, np.int64), empty, empty, empty)


def _of_rows(keys: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Periods by row of ``keys`` (service_point_id, flow, unit): row, period_start, period_end, quantity in the row's
    unit. A service point with several rows of a flow has none: which of its meters used it is not known."""
    rows = keys.select("service_point_id", "flow", pl.col("unit").alias("own")).with_row_index("row")
    alone = rows.filter(pl.len().over("service_point_id", "flow") == 1)
    found = alone.join(past, on=["service_point_id", "flow"], how="inner", maintain_order="left_right")
    parts = []
    for (own, unit), part in found.group_by(["own", "unit"], maintain_order=True):
        if own == unit:
            parts.append(part)
        elif own in CUBIC_METRES and unit in CUBIC_METRES:
            factor = float(CUBIC_METRES[str(unit)] / CUBIC_METRES[str(own)])
            parts.append(part.with_columns((pl.col("quantity") * factor).round().cast(pl.Int64)))
    kept = pl.concat(parts) if parts else found.clear()
    return kept.select("row", "period_start", "period_end", "quantity").sort("row", "period_start")


def fill_days(totals: Ints, whole: Bools, days: Sequence[date], keys: pl.DataFrame, past: pl.DataFrame) -> None:
    """Write each past period's average into the days of ``totals`` (rows, days) that have no usage of their own."""
    if not past.height or not keys.height or not days:
        return
    found = _of_rows(keys, past)
    if not found.height:
        return
    row = found["row"].to_numpy().astype(np.int64)
    start, end = (found[name].cast(pl.Int32).to_numpy() for name in ("period_start", "period_end"))
    average = found["quantity"].to_numpy() // (end - start)
    first = (days[0] - date(1970, 1, 1)).days
    for column in range(len(days)):
        inside = (start <= first + column) & (first + column < end)
        at = row[inside]
        empty = totals[at, column] == NO_VALUE
        totals[at[empty], column] = average[inside][empty]
        whole[at[empty], column] = True


def stretches(keys: pl.DataFrame, past: pl.DataFrame, calendar: BillingCalendar) -> PastStretches:
    """Past periods as stretches between reads."""
    if not past.height or not keys.height:
        return PastStretches.none(keys.height)
    found = _of_rows(keys, past)
    days = pl.concat([found["period_start"], found["period_end"]]).unique().to_list()
    second = {day: calendar.start_s(day) for day in days}
    opens, closes = (
        np.array([second[day] for day in found[name].to_list()], np.int64) for name in ("period_start", "period_end")
    )
    begins = np.searchsorted(found["row"].to_numpy(), np.arange(keys.height + 1))
    return PastStretches(begins.astype(np.int64), closes, found["quantity"].to_numpy(), closes - opens)
