"""What detection keeps of a day, and weeks of it put side by side.

Belongs here: packing a day's figures of every service point into a few byte strings, and unpacking many days into matrices. Does not belong
here: where the figures come from (day.py), SQL (store/anomalies.py).

A year of a city is 36 million rows in a table and 150 MB so packed: what a refit reads in a second. Figures are float32, which no bill ever
sees and no detector can tell from exact.
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

from meter_pipeline.anomalies.window import Bools, Floats

#: bits of ``signs``
DISCONNECTED, ACCOUNT_CHANGED, REGISTER_BACK, REVERSED, OUTAGE = 1, 2, 4, 8, 16
FLOATS: Final = ("usage", "export", "night", "sustained")
_NONE_DUE = 255


@dataclass(frozen=True, slots=True)
class DayFacts:
    """One commodity and unit on one day. ``points`` are sorted ids; arrays have one element each; absent optional arrays are None."""

    day: date
    commodity: str
    unit: str
    points: npt.NDArray[np.str_]
    usage: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.uint8]
    signs: npt.NDArray[np.uint8]
    export: npt.NDArray[np.float32] | None = None
    night: npt.NDArray[np.float32] | None = None
    sustained: npt.NDArray[np.float32] | None = None


def pack(facts: DayFacts) -> tuple[dict[str, Any], bytes, str]:
    """The row of anomaly.day_facts, the hash of its list of points and the list itself."""
    listed = "\n".join(facts.points.tolist())
    digest = hashlib.sha256(listed.encode()).digest()
    row: dict[str, Any] = {
        "billing_day": facts.day, "commodity": facts.commodity, "unit": facts.unit, "points": len(facts.points), "list_hash": digest,
        "coverage": facts.coverage.tobytes(), "signs": facts.signs.tobytes(),
    }  # fmt: skip
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
        """Usage where at least 95 % of the slots were read, NaN elsewhere: what a baseline may learn from."""
        with np.errstate(invalid="ignore"):
            found: Floats = np.where((self.coverage >= 0.95) & ((self.signs & (DISCONNECTED | REVERSED)) == 0), self.usage, np.nan)
        return found

    def has(self, bit: int) -> Bools:
        """(points, days) where a sign was set."""
        found: Bools = (self.signs & bit) != 0
        return found


def assemble(packed: pl.DataFrame, lists: Mapping[bytes, str], commodity: str, unit: str, days: Sequence[date], anchor: date) -> History:
    """The matrices of ``days`` for the points that ``anchor`` has (or, where it has no row, the last day that does), from rows of day_facts."""
    mine = packed.filter((pl.col("commodity") == commodity) & (pl.col("unit") == unit)).sort("billing_day")
    known = mine.filter(pl.col("billing_day") == anchor)
    basis = (known if known.height else mine.tail(1)).row(0, named=True)
    points = np.array(lists[bytes(basis["list_hash"])].split("\n"))
    shape = (points.size, len(days))
    column = {day: i for i, day in enumerate(days)}
    # a day that nothing is kept of was not due: to call it silent would make silence usual
    usage, coverage, signs = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.uint8)
    optional: dict[str, Floats | None] = {
        name: np.full(shape, np.nan) if mine[name].null_count() < mine.height else None for name in ("export", "night", "sustained")
    }
    places: dict[bytes, tuple[Any, Any]] = {bytes(basis["list_hash"]): (slice(None), slice(None))}
    for row in mine.iter_rows(named=True):
        at = column.get(row["billing_day"])
        if at is None:
            continue
        key = bytes(row["list_hash"])
        if key not in places:
            places[key] = _places(points, np.array(lists[key].split("\n")))
        here, there = places[key]
        usage[here, at] = np.frombuffer(row["usage"], "<f4")[there]
        percent = np.frombuffer(row["coverage"], np.uint8)[there]
        coverage[here, at] = np.where(percent == _NONE_DUE, np.nan, percent / 100.0)
        signs[here, at] = np.frombuffer(row["signs"], np.uint8)[there]
        for name, matrix in optional.items():
            if matrix is not None and row[name] is not None:
                matrix[here, at] = np.frombuffer(row[name], "<f4")[there]
    return History(commodity, unit, points, list(days), usage, coverage, signs, optional["export"], optional["night"], optional["sustained"])


def _places(points: npt.NDArray[np.str_], others: npt.NDArray[np.str_]) -> tuple[Any, Any]:
    """Indices in ``points`` and in ``others`` of the ids both have."""
    at = np.searchsorted(others, points)
    inside = at < others.size
    same = np.zeros(points.size, bool)
    same[inside] = others[at[inside]] == points[inside]
    here = np.flatnonzero(same)
    return here, at[here]


def day_facts(
    day: date,
    usage: pl.DataFrame,
    hourly: Mapping[str, tuple[npt.NDArray[np.str_], Floats]],
    signs: Mapping[int, set[str]],
    previous_accounts: Mapping[str, str],
) -> list[DayFacts]:
    """Facts of every commodity and unit of a validated day.

    ``usage`` has rows of vee.daily_usage (service_point_id, commodity, unit, flow, quantity_micro, slots_expected, actual, account_id,
    register: read from a register alone, overdue: not read for longer than its habit);
    ``hourly`` by unit: ids and (ids, hours) flows of complete days; ``signs`` service points by bit;
    ``previous_accounts`` who paid the day before. A point with no import row (never read, nothing expected) has none here either.
    """
    result = []
    imports = usage.filter(pl.col("flow") == "import").sort("service_point_id")
    for (commodity, unit), part in imports.group_by("commodity", "unit", maintain_order=True):
        ids = np.array(part["service_point_id"].to_list())
        quantity = part["quantity_micro"].cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6
        due, actual = part["slots_expected"].to_numpy(), part["actual"].to_numpy()
        # a register read every few days owes nothing on the days between: only one that is overdue is silent
        owed = (due > 0) & ((actual > 0) | ~part["register"].to_numpy() | part["overdue"].fill_null(False).to_numpy())
        percent = np.where(owed, np.floor(100.0 * actual / np.maximum(due, 1)), _NONE_DUE).astype(np.uint8)
        bits = np.zeros(ids.size, np.uint8)
        for bit, which in signs.items():
            if which:
                bits[np.isin(ids, np.array(sorted(which)))] |= bit
        if previous_accounts:
            before = [previous_accounts.get(i) for i in part["service_point_id"].to_list()]
            changed = [b is not None and b != a for a, b in zip(part["account_id"].to_list(), before, strict=True)]
            bits[np.array(changed, bool)] |= ACCOUNT_CHANGED
        exported = usage.filter((pl.col("flow") == "export") & (pl.col("unit") == str(unit)))
        result.append(
            DayFacts(
                day, str(commodity), str(unit), ids, quantity.astype(np.float32), percent, bits,
                export=_aligned(ids, exported) if exported.height else None, **_flows(ids, str(commodity), hourly.get(str(unit))),
            )
        )  # fmt: skip
    return result


def _aligned(ids: npt.NDArray[np.str_], exported: pl.DataFrame) -> npt.NDArray[np.float32]:
    table = dict(zip(exported["service_point_id"].to_list(), exported["quantity_micro"].to_list(), strict=True))
    return np.array([(table.get(i) or 0) / 1e6 for i in ids.tolist()], np.float32)


def _flows(
    ids: npt.NDArray[np.str_], commodity: str, hourly: tuple[npt.NDArray[np.str_], Floats] | None
) -> dict[str, npt.NDArray[np.float32]]:
    if commodity != "water" or hourly is None or hourly[0].size == 0:
        return {}
    from meter_pipeline.anomalies.detect import lowest_and_sustained

    order = np.argsort(hourly[0], kind="stable")
    low, held = lowest_and_sustained(hourly[1][order])
    here, there = _places(ids, hourly[0][order])
    night, sustained = np.full(ids.size, np.nan, np.float32), np.full(ids.size, np.nan, np.float32)
    night[here], sustained[here] = low[there], held[there]
    return {"night": night, "sustained": sustained}
