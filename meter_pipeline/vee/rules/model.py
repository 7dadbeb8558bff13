"""The data classes of validation: a day of rows with their context and history, and the validated result.

A row is one channel of one installation on one billing day. A meter that moves between service points at noon is two
rows; so is a service point whose meter is exchanged at noon. Each row has the slots of its own installation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

if TYPE_CHECKING:
    from meter_pipeline.vee.rules.movement import MovementSums

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


#: Flows whose values may be less than nothing: a net channel counts both directions in one figure, and what is no
#: energy may have any sign
SIGNED_FLOWS: Final = ("net", "other")


@dataclass(slots=True)
class RowContext:
    """The context of each row of a DayMatrix: arrays of length ``rows`` unless stated otherwise.

    ``first`` and ``last``: half-open range of slots the row is expected to fill. ``limit``: largest plausible value of
    one interval. ``register_difference``: usage of those slots by the register, NO_VALUE where unknown;
    ``register_tolerance`` beside it. ``stretch_left``: where a register was read over several days with estimates on
    other days too, its difference less their actual reads, NO_VALUE elsewhere; ``stretch_before`` and
    ``stretch_after``: the other days' unscaled estimates before and after this one. ``future_from``: first slot that
    has not ended yet (one number for the day). ``register_flags``: row rule bits found on the register reads.

    ``straddle`` (rows, 2): slots that the installation's start and end cut, -1 for none, and ``straddle_share`` the
    installed part of each, in millionths. ``meterless`` (rows, 2): half-open range of slots after the row's own without
    a meter at the service point: the row covers them with zero usage. ``group``: rows of one number have similar usage.
    ``tou_quantity`` (rows, registers): usage of each time-of-use register; ``tou_program``: the row of ``tou_hours``
    (programs, slots) with the register of each slot, -1 where the registers are not all known.

    ``sequence_reused``: rows in which a sequence number came with two values, in the slots that ``reused_slots`` marks,
    (rows, slots), or (rows, 0) where no row has any. ``register_doubted``: rows whose register agrees with reads that a
    person refused, so that it proves nothing.
    """

    known: Bools
    unit_ok: Bools
    size_ok: Bools
    multiplier_ok: Bools
    signed: Bools
    active: Bools
    limit: Ints
    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    register_difference: Ints
    register_tolerance: Ints
    stretch_left: Ints
    stretch_before: Ints
    stretch_after: Ints
    register_flags: Ints
    sibling_missing: Bools
    tou_mismatch: Bools
    sequence_reused: Bools
    reused_slots: Bools
    register_doubted: Bools
    estimate_streak: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]
    straddle: npt.NDArray[np.int32]
    straddle_share: npt.NDArray[np.int32]
    meterless: npt.NDArray[np.int32]
    tou_program: npt.NDArray[np.int32]
    tou_quantity: Ints
    tou_hours: npt.NDArray[np.int8]
    future_from: int

    @classmethod
    def plain(cls, rows: int, slots: int, *, limit: int = 10**12) -> RowContext:
        """Context of ordinary rows: the starting point of tests and of the manual role."""
        yes, no = np.ones(rows, np.bool_), np.zeros(rows, np.bool_)
        return cls(
            known=yes.copy(),
            unit_ok=yes.copy(),
            size_ok=yes.copy(),
            multiplier_ok=yes.copy(),
            signed=no.copy(),
            active=yes.copy(),
            limit=np.full(rows, limit, np.int64),
            first=np.zeros(rows, np.int32),
            last=np.full(rows, slots, np.int32),
            register_difference=np.full(rows, NO_VALUE, np.int64),
            register_tolerance=np.zeros(rows, np.int64),
            stretch_left=np.full(rows, NO_VALUE, np.int64),
            stretch_before=np.zeros(rows, np.int64),
            stretch_after=np.zeros(rows, np.int64),
            register_flags=np.zeros(rows, np.int64),
            sibling_missing=no.copy(),
            tou_mismatch=no.copy(),
            sequence_reused=no.copy(),
            reused_slots=np.zeros((rows, 0), np.bool_),
            register_doubted=no.copy(),
            estimate_streak=np.zeros(rows, np.int32),
            group=np.zeros(rows, np.int32),
            straddle=np.full((rows, 2), -1, np.int32),
            straddle_share=np.full((rows, 2), 1_000_000, np.int32),
            meterless=np.zeros((rows, 2), np.int32),
            tou_program=np.full(rows, -1, np.int32),
            tou_quantity=np.zeros((rows, 0), np.int64),
            tou_hours=np.zeros((0, slots), np.int8),
            future_from=slots,
        )

    def take(self, rows: Ints) -> RowContext:
        """The context of some rows, in their order."""
        part = replace(self)
        for f in fields(self):
            if f.name not in ("future_from", "tou_hours"):
                setattr(part, f.name, getattr(self, f.name)[rows])
        return part

    @property
    def expected(self) -> npt.NDArray[np.int32]:
        """Returns the number of slots each row should fill."""
        wide: npt.NDArray[np.int32] = np.maximum(self.last - self.first, 0).astype(np.int32)
        return wide


@dataclass(slots=True)
class DailyHistory:
    """Daily totals before the day: ``totals`` (rows, days) micro units with NO_VALUE where unknown, and whether each is
    completely actual.

    ``days`` oldest first; ``like``: which of them are of the day's own kind (working day, or weekend and holiday).
    """

    days: list[date]
    totals: Ints
    actual: Bools
    like: Bools

    @classmethod
    def empty(cls, rows: int) -> DailyHistory:
        return cls([], np.zeros((rows, 0), np.int64), np.zeros((rows, 0), np.bool_), np.zeros(0, np.bool_))


@dataclass(slots=True)
class VectorHistory:
    """Intervals of earlier days, for the few rows that need more than interpolation.

    ``values`` (days, rows, slots), brought to the day's own slots by local clock time; ``usable`` (days, rows, slots):
    validated, actual, not an outage, not on an excluded day. ``like`` and ``temperature`` (days,), the latter NaN where
    unknown. ``day_temperature``: of the day itself.
    """

    days: list[date]
    values: Ints
    usable: Bools
    like: Bools
    temperature: npt.NDArray[np.float64]
    day_temperature: float = float("nan")

    @classmethod
    def empty(cls, rows: int, slots: int) -> VectorHistory:
        return cls(
            [],
            np.full((0, rows, slots), NO_VALUE, np.int64),
            np.zeros((0, rows, slots), np.bool_),
            np.zeros(0, np.bool_),
            np.zeros(0, np.float64),
        )


class VectorLoader(Protocol):
    """Loads the history that estimates need for some rows (indices into the matrix), in bulk and only when called."""

    def edges(self, rows: Ints) -> tuple[Ints, Ints]:
        """The last intervals of the day before and the first of the day after, (rows, k) each, NO_VALUE where there is
        no anchor."""
        ...

    def days(self, rows: Ints) -> VectorHistory:
        """Earlier days of the rows."""
        ...


@dataclass(slots=True)
class ValidatedMatrix:
    """The validation result of a DayMatrix. ``raw`` is unchanged; ``values`` has NO_VALUE only where a slot is not
    expected or stays null.

    ``flags`` (rows, slots): interval rule bits. ``row_flags``: row rule bits. ``difference``: register difference used,
    NO_VALUE if none. ``unscaled``: sum of the estimates before scaling. ``anchors`` by row index: text for explain.
    ``left_open``: rows that need the sums of other shards and are not valid until they are validated again. ``moved``:
    the sums behind the movement of the rows' groups, over all rows validated together.
    """

    raw: DayMatrix
    keys: pl.DataFrame
    values: Ints
    quality: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.int32]
    row_flags: Ints
    expected: npt.NDArray[np.int32]
    actual: npt.NDArray[np.int32]
    estimated: npt.NDArray[np.int32]
    missing: npt.NDArray[np.int32]
    total: Ints
    difference: Ints
    unscaled: Ints
    rules_version: int
    rules_digest: str
    anchors: dict[int, str] = field(default_factory=dict)
    left_open: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    moved: MovementSums | None = None

    @property
    def billing_day(self) -> date:
        return self.raw.billing_day

    def take(self, rows: Ints) -> ValidatedMatrix:
        """Some rows, ascending, as a matrix of their own."""
        place = {int(row): k for k, row in enumerate(rows)}
        arrays = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if f.name not in ("raw", "keys", "rules_version", "rules_digest", "anchors", "left_open", "moved")
        }
        anchors = {place[row]: note for row, note in self.anchors.items() if row in place}
        return ValidatedMatrix(
            raw=take_rows(self.raw, rows),
            keys=self.keys[rows],
            rules_version=self.rules_version,
            rules_digest=self.rules_digest,
            anchors=anchors,
            moved=self.moved,
            **arrays,
        )


def take_rows(matrix: DayMatrix, rows: Ints) -> DayMatrix:
    """Some rows of a day matrix."""
    keys = matrix.keys[rows] if matrix.keys.width else matrix.keys
    offsets = None if matrix.offsets is None else matrix.offsets[rows]
    return DayMatrix(
        matrix.billing_day,
        matrix.interval_minutes,
        keys,
        matrix.values[rows],
        matrix.quality[rows],
        matrix.sequence[rows],
        offsets,
    )
