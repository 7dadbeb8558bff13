"""Detection's stored figures of a day, and weeks of them side by side.

A year of a city is 36 million rows in a table and 150 MB so packed: what a refit reads in a second. Figures are
float32, which no bill ever sees and no detector can tell from exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.anomalies.window import Bools, Floats, Ints

#: bits of ``signs``
DISCONNECTED, ACCOUNT_CHANGED, REGISTER_BACK, REVERSED, OUTAGE = 1, 2, 4, 8, 16
FLOATS: Final = ("usage", "export", "night", "sustained")
_NONE_DUE = 255
#: byte of coverage -> share, NaN where nothing was due
_SHARE: Final = np.where(np.arange(256) == _NONE_DUE, np.nan, np.arange(256) / 100.0)


@dataclass(frozen=True, slots=True)
class DayFacts:
    """One commodity and unit on one day. ``points`` are sorted ids; arrays have one element each; absent optional
    arrays are None."""

    day: date
    commodity: str
    unit: str
    points: list[str]
    usage: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.uint8]
    signs: npt.NDArray[np.uint8]
    export: npt.NDArray[np.float32] | None = None
    night: npt.NDArray[np.float32] | None = None
    sustained: npt.NDArray[np.float32] | None = None


def pack(facts: DayFacts) -> tuple[dict[str, Any], bytes, str]:
    """The row of anomaly.day_facts, the hash of its list of points and the list itself."""
    listed = "\n".join(facts.points)
    digest = hashlib.sha256(listed.encode()).digest()
    row: dict[str, Any] = {
        "billing_day": facts.day,
        "commodity": facts.commodity,
        "unit": facts.unit,
        "points": len(facts.points),
        "list_hash": digest,
        "coverage": facts.coverage.tobytes(),
        "signs": facts.signs.tobytes(),
    }
    for name in FLOATS:
        values = getattr(facts, name)
        row[name] = None if values is None else values.astype("<f4").tobytes()
    return row, digest, listed


@dataclass(slots=True)
class History:
    """(points, days) matrices of one commodity and unit over consecutive days; NaN where a day has nothing on a point.

    ``coverage`` is a share, NaN where nothing was due. ``signs`` are the bits above.
    """

    commodity: str
    unit: str
    points: npt.NDArray[np.str_]
    days: list[date]
    usage: Floats
    coverage: Floats
    signs: npt.NDArray[np.uint8]
    export: Floats | None
    night: Floats | None
    sustained: Floats | None

    def measured(self) -> Floats:
        """Usage where at least 95 % of the slots were read, NaN elsewhere. Baselines are fitted to it."""
        with np.errstate(invalid="ignore"):
            found: Floats = np.where(
                (self.coverage >= 0.95) & ((self.signs & (DISCONNECTED | REVERSED)) == 0), self.usage, np.nan
            )
        return found

    def has(self, bit: int) -> Bools:
        """(points, days) where a sign was set."""
        found: Bools = (self.signs & bit) != 0
        return found


class PackedDays:
    """One commodity and unit over consecutive days, still packed: matrices of any of its points on demand.

    ``points`` are those that ``anchor`` has (or, where it has no row, the last day that does). A city is judged a part
    at a time from this, so that only the part's matrices are in memory.
    """

    def __init__(
        self,
        packed: pl.DataFrame,
        lists: Mapping[bytes, str],
        commodity: str,
        unit: str,
        days: Sequence[date],
        anchor: date,
    ) -> None:
        mine = packed.filter((pl.col("commodity") == commodity) & (pl.col("unit") == unit)).sort("billing_day")
        known = mine.filter(pl.col("billing_day") == anchor)
        basis = bytes((known if known.height else mine.tail(1))["list_hash"][0])
        self.commodity, self.unit, self.days = commodity, unit, list(days)
        self.names = pl.Series("service_point_id", lists[basis].split("\n"))
        self.points: npt.NDArray[np.str_] = np.array(self.names.to_list())
        column = {day: i for i, day in enumerate(days)}
        self._rows = [
            (column[row["billing_day"]], row) for row in mine.iter_rows(named=True) if row["billing_day"] in column
        ]
        self._optional = [name for name in FLOATS[1:] if any(row[name] is not None for _, row in self._rows)]
        self._places: dict[bytes, Ints | None] = {basis: None}
        for _, row in self._rows:
            key = bytes(row["list_hash"])
            if key not in self._places:
                self._places[key] = _places(self.names, lists[key].split("\n"))

    def history(self, which: slice | Ints = slice(None), *, usage_only: bool = False) -> History:
        """The matrices of some of the points (rows of ``points``); ``usage_only`` leaves out export and flows, which no
        baseline learns from."""
        points = self.points[which]
        shape = (points.size, len(self.days))
        # a day that nothing is kept of was not due: to call it silent would make silence usual
        floats = ["usage"] if usage_only else ["usage", *self._optional]
        matrices = {name: np.full(shape, np.nan) for name in ("coverage", *floats)}
        signs = np.zeros(shape, np.uint8)
        for at, row in self._rows:
            place = self._places[bytes(row["list_hash"])]
            here: slice | Ints = slice(None)
            there = which
            if place is not None:
                found = place[which]
                here = np.flatnonzero(found >= 0)
                there = found[here]
            percent = np.frombuffer(row["coverage"], np.uint8)[there]
            matrices["coverage"][here, at] = _SHARE[percent]
            signs[here, at] = np.frombuffer(row["signs"], np.uint8)[there]
            for name in floats:
                if row[name] is not None:
                    matrices[name][here, at] = np.frombuffer(row[name], "<f4")[there]
        return History(
            self.commodity,
            self.unit,
            points,
            self.days,
            matrices["usage"],
            matrices["coverage"],
            signs,
            *(matrices.get(name) for name in FLOATS[1:]),
        )


def _places(points: pl.Series, others: list[str]) -> Ints:
    """(points,) where each stands in another list, -1 where it does not."""
    other = pl.DataFrame({"service_point_id": others}).with_row_index("at")
    found = points.to_frame().join(other, on="service_point_id", how="left", maintain_order="left")
    return found["at"].cast(pl.Int64).fill_null(-1).to_numpy()


def day_facts(
    day: date,
    usage: pl.DataFrame,
    hourly: Mapping[str, tuple[pl.Series, Floats]],
    signs: Mapping[int, pl.Series],
) -> list[DayFacts]:
    """Facts of every commodity and unit of a validated day.

    ``usage`` has rows of vee.daily_usage (service_point_id, commodity, unit, flow, quantity_micro, slots_expected,
    actual, register: read from a register alone, overdue: not read for longer than its habit); ``hourly`` by unit: ids
    and (ids, hours) flows of complete days; ``signs`` service points by bit. A point with no import row (never read,
    nothing expected) has none here either.
    """
    result = []
    imports = usage.filter(pl.col("flow") == "import").sort("service_point_id")
    exports = usage.filter(pl.col("flow") == "export")
    for (commodity, unit), part in imports.partition_by("commodity", "unit", as_dict=True).items():
        ids = part["service_point_id"]
        quantity = part["quantity_micro"].cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6
        due, actual = part["slots_expected"].to_numpy(), part["actual"].to_numpy()
        # a register read every few days owes nothing on the days between: only one that is overdue is silent
        owed = (due > 0) & ((actual > 0) | ~part["register"].to_numpy() | part["overdue"].fill_null(False).to_numpy())
        percent = np.where(owed, np.floor(100.0 * actual / np.maximum(due, 1)), _NONE_DUE).astype(np.uint8)
        bits = np.zeros(len(ids), np.uint8)
        for bit, which in signs.items():
            if len(which):
                bits[ids.is_in(which.implode()).to_numpy()] |= bit
        exported = exports.filter(pl.col("unit") == str(unit))
        result.append(
            DayFacts(
                day,
                str(commodity),
                str(unit),
                ids.to_list(),
                quantity.astype(np.float32),
                percent,
                bits,
                export=_aligned(ids, exported) if exported.height else None,
                **_flows(ids, str(commodity), hourly.get(str(unit))),
            )
        )
    return result


def _aligned(ids: pl.Series, exported: pl.DataFrame) -> npt.NDArray[np.float32]:
    micro = ids.to_frame().join(
        exported.select("service_point_id", "quantity_micro"), on="service_point_id", how="left", maintain_order="left"
    )
    return (micro["quantity_micro"].cast(pl.Float64).fill_null(0.0).to_numpy() / 1e6).astype(np.float32)


def _flows(
    ids: pl.Series, commodity: str, hourly: tuple[pl.Series, Floats] | None
) -> dict[str, npt.NDArray[np.float32]]:
    if commodity != "water" or hourly is None or len(hourly[0]) == 0:
        return {}
    from meter_pipeline.anomalies.detect import lowest_and_sustained

    low, three_hour_low = lowest_and_sustained(hourly[1])
    at = _places(ids, hourly[0].to_list())
    known = at >= 0
    night, sustained = np.full(len(ids), np.nan, np.float32), np.full(len(ids), np.nan, np.float32)
    night[known], sustained[known] = low[at[known]], three_hour_low[at[known]]
    return {"night": night, "sustained": sustained}
