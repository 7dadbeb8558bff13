"""A detector's input: the recent days of many service points of one commodity, as matrices."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.anomalies.kinds import KINDS

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Days a detector may look back: six weeks before the fourteen days of a fall.
WINDOW_DAYS: Final = 56
CLASSES: Final = ("residential", "commercial", "industrial", "municipal")

FINDINGS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "row": pl.Int64,
    "group": pl.String,
    "kind": pl.String,
    "severity": pl.String,
    "confidence": pl.Float64,
    "expected": pl.Float64,
    "observed": pl.Float64,
    "evidence": pl.String,
}


@dataclass(slots=True)
class Window:
    """(points, days) matrices of one commodity, the last column being the day under judgement; usage in ``unit``, NaN
    where nothing is known.

    ``coverage`` is the share of a day's slots that were actually read (0 where nothing came, NaN where nothing was
    due). ``expected`` is the baseline's usage, NaN without weather or baseline; ``sigma`` its residual standard
    deviation and ``robust`` the robust twin, (points,). ``provisional`` marks points whose expectation is their
    class's. ``export`` is generation delivered. ``night`` is the lowest hourly flow of the day and ``sustained`` the
    highest flow held for three hours, per hour, NaN where the day has estimated hours or no hourly reads (water).
    ``tolerance`` (points,) widens a threshold after dismissals. ``head_end`` and ``collector`` are codes into the name
    lists, -1 none.
    """

    day: date
    commodity: str
    unit: str
    usage: Floats
    coverage: Floats
    customer_class: Ints
    expected: Floats
    sigma: Floats
    robust: Floats
    provisional: Bools
    disconnected: Bools
    account_changed: Bools
    head_end: Ints
    collector: Ints
    head_ends: list[str]
    collectors: list[str]
    neighbourhood: Ints
    export: Floats | None = None
    night: Floats | None = None
    sustained: Floats | None = None
    outage: Bools | None = None
    register_back: Bools | None = None
    reverse_reported: Bools | None = None
    tolerance: Floats | None = None
    _measured: Bools | None = field(default=None, repr=False)

    @property
    def points(self) -> int:
        return int(self.usage.shape[0])

    @property
    def days(self) -> int:
        return int(self.usage.shape[1])

    @property
    def measured(self) -> Bools:
        """Days on which at least 95 % of the slots were read: estimates neither trigger nor clear anything."""
        if self._measured is None or self._measured.shape != self.usage.shape:
            with np.errstate(invalid="ignore"):
                self._measured = np.isfinite(self.usage) & (self.coverage >= 0.95)
        return self._measured

    @property
    def tolerances(self) -> Floats:
        return np.ones(self.points) if self.tolerance is None else self.tolerance

    def tail(self, days: int) -> slice:
        """The last ``days`` columns."""
        return slice(max(0, self.days - days), self.days)


def findings(
    kind: str,
    rows: Ints,
    *,
    confidence: Floats,
    expected: Floats,
    observed: Floats,
    evidence: dict[str, Floats | Ints | Bools | list[str]],
    groups: list[str] | None = None,
) -> pl.DataFrame:
    """A frame of FINDINGS: one row per service point row (or per named group, with row -1). Evidence becomes one JSON
    object a row."""
    if rows.size == 0:
        return pl.DataFrame(schema=FINDINGS)
    columns = {
        name: np.round(value, 6) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value
        for name, value in evidence.items()
    }
    evidence_frame = (
        pl.DataFrame(columns).with_columns(pl.selectors.float().fill_nan(None))
        if columns
        else pl.DataFrame({"none": [None] * rows.size})
    )
    return pl.DataFrame(
        {
            "row": rows,
            "group": groups if groups is not None else [None] * rows.size,
            "kind": [kind] * rows.size,
            "severity": [KINDS[kind].severity] * rows.size,
            "confidence": np.clip(confidence, 0.0, 0.999),
            "expected": expected,
            "observed": observed,
        },
        schema_overrides={"group": pl.String, "row": pl.Int64, "expected": pl.Float64, "observed": pl.Float64},
    ).with_columns(evidence_frame.select(pl.struct(pl.all()).struct.json_encode().alias("evidence"))["evidence"])


def nothing() -> pl.DataFrame:
    """No finding."""
    return pl.DataFrame(schema=FINDINGS)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is not positive."""
    found: Floats = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        np.divide(numerator, denominator, out=found, where=np.asarray(denominator > 0))
    return found


def certainty(z: Floats, at: float) -> Floats:
    """A confidence of one half at the threshold that nears one at three times it."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: Floats = 1.0 - 0.5 * np.exp(-np.maximum(np.nan_to_num(z, nan=at, posinf=1e9) - at, 0.0) / (at / 2))
    return found


def median_use(window: Window, rows: Ints) -> Floats:
    """(rows,) median of the measured days, 0 where there are none: the expectation where there is no weather or no
    baseline."""
    usage = np.where(window.measured[rows], window.usage[rows], np.nan)
    usage[~np.isfinite(usage).any(axis=1)] = 0.0
    found: Floats = row_median(usage)
    return found


def row_median(values: Floats) -> Floats:
    """(rows,) median of each row's finite values, NaN where it has none. NumPy's own goes row by row through Python on
    wide tables."""
    ordered = np.sort(values, axis=1)  # NaN goes last
    count = np.isfinite(values).sum(axis=1)
    at = np.arange(values.shape[0])
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    found: Floats = np.where(count > 0, 0.5 * (ordered[at, low] + ordered[at, high]), np.nan)
    return found
