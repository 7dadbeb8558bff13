"""Findings of a billing day's validation, in numbers and small frames: for metadata, checks, plots and the command
line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline import quality
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.catalogue import INTERVAL_RULES, ROW_RULES, Role, Severity, mask_of
from meter_pipeline.vee.rules.interval_rules import code_table
from meter_pipeline.vee.rules.model import Ints, ValidatedMatrix

if TYPE_CHECKING:
    from meter_pipeline.schemas.report import StageReport
    from meter_pipeline.vee.tables.checks import StoredDay

#: Rows shown as the worst of a day
_WORST: Final = 12
#: Of those, how many are drawn
_DRAWN: Final = 6
#: Columns by which the worst rows are ordered, and which of them descend
_WORST_FIRST: Final = (("failed", "miss_micro", "estimated", "meter_id", "channel"), (True, True, True, False, False))


@dataclass(slots=True)
class VeeOutcome:
    """Findings and changes of a billing day's validation: counts for metadata and checks, small frames for plots.

    ``expected = actual + estimated + missing`` over interval channels. ``rules``: hits by rule code (rows for row
    rules, intervals for interval rules). ``sum_check``: rows tested and failed. ``usage``: the day's usage as stored.
    ``worst``: the rows most in need of eyes. ``shape``: per slot the validated, estimated and rejected quantity by
    unit. ``redetermine``: other days that a register read of this day changes; they are requested in the same
    transaction (vee.true_up). ``service_points``: how many a run for some of them judged, None for a whole day;
    ``whole_because``: why a run for some became one of the whole day.
    """

    billing_day: date
    rules_version: int
    rules_digest: str
    rows: int = 0
    expected: int = 0
    actual: int = 0
    estimated: int = 0
    missing: int = 0
    register_only: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    locked_kept: int = 0
    sum_checked: int = 0
    sum_failed: int = 0
    held: int = 0
    cases_opened: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    exceptions: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    usage: pl.DataFrame = field(default_factory=pl.DataFrame)
    worst: pl.DataFrame = field(default_factory=pl.DataFrame)
    shape: pl.DataFrame = field(default_factory=pl.DataFrame)
    shifted_head_ends: dict[str, int] = field(default_factory=dict)
    redetermine: list[date] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ledger_entry: int | None = None
    worst_vectors: list[dict[str, Any]] = field(default_factory=list)
    stored: StoredDay | None = None
    service_points: int | None = None
    whole_because: str = ""

    @property
    def balanced(self) -> bool:
        """Whether the store has every installed channel's day, with as many values as it says; False before it was read
        back.
        """
        return self.stored is not None and not (self.stored.absent or self.stored.miscounted)

    def report(self) -> StageReport:
        """The day for asset metadata."""
        from meter_pipeline.vee.report import stage_report

        return stage_report(self)


@dataclass(slots=True)
class Summary:
    """Sums over a day's matrices, added one matrix at a time, so that no matrix stays in memory."""

    outcome: VeeOutcome
    estimated_micro: int = 0
    _worst: list[pl.DataFrame] = field(default_factory=list)
    _vectors: list[dict[str, Any]] = field(default_factory=list)
    _shape: list[pl.DataFrame] = field(default_factory=list)

    def add(self, v: ValidatedMatrix) -> None:
        """Count a matrix in."""
        outcome = self.outcome
        outcome.rows += v.keys.height
        outcome.expected += int(v.expected.sum())
        outcome.actual += int(v.actual.sum())
        outcome.estimated += int(v.estimated.sum())
        outcome.missing += int(v.missing.sum())
        tested = v.difference != NO_VALUE
        outcome.sum_checked += int(tested.sum())
        outcome.sum_failed += int((v.row_flags & ROW_RULES["SUM_CHECK"].mask != 0).sum())
        for rule in ROW_RULES.values():
            hits = int((v.row_flags & rule.mask != 0).sum())
            if hits:
                outcome.rules[rule.code] = outcome.rules.get(rule.code, 0) + hits
        flagged = v.flags[v.flags.any(axis=1)]
        for rule in INTERVAL_RULES.values():
            hits = int((flagged & np.int32(rule.mask) != 0).sum()) if flagged.size else 0
            if hits:
                outcome.rules[rule.code] = outcome.rules.get(rule.code, 0) + hits
        for name, count in estimates_by_method(v).items():
            outcome.methods[name] = outcome.methods.get(name, 0) + count
        self.estimated_micro += _estimated_micro(v)
        worst = worst_rows([v])
        if worst.height:
            self._worst.append(worst)
            self._vectors += _vectors_of(worst, [v])
        self._shape.append(day_shape([v]))

    def add_estimates(self, others: Sequence[DayMatrix]) -> None:
        """Count in the estimates of stored rows that a run leaves alone."""
        for matrix in others:
            for name, count in _by_method(matrix.quality, matrix.values).items():
                self.outcome.methods[name] = self.outcome.methods.get(name, 0) + count
            estimated = code_table("estimate")[matrix.quality] & (matrix.values != NO_VALUE)
            self.estimated_micro += int(np.where(estimated, matrix.values, 0).sum())

    def finish(self, usage: pl.DataFrame, exceptions: pl.DataFrame) -> None:
        """Fill the outcome's counts and frames."""
        outcome = self.outcome
        outcome.register_only = int((usage["source"] == "register").sum()) if usage.height else 0
        outcome.exceptions = dict(sorted(exceptions.group_by("kind").len().iter_rows())) if exceptions.height else {}
        if usage.height:
            outcome.totals = dict(
                sorted(
                    usage.group_by(pl.format("{} {}", "flow", "unit")).agg(pl.col("quantity_micro").sum()).iter_rows()
                )
            )
        outcome.usage = usage
        if self._worst:
            outcome.worst = pl.concat(self._worst).sort(*_WORST_FIRST[0], descending=_WORST_FIRST[1]).head(_WORST)
            names = [
                f"{meter} {channel}"
                for meter, channel in outcome.worst.select("meter_id", "channel").head(_DRAWN).iter_rows()
            ]
            outcome.worst_vectors = sorted(
                (v for v in self._vectors if v["name"] in names), key=lambda v: names.index(v["name"])
            )
        shapes = [s for s in self._shape if s.height]
        if shapes:
            key = ["interval_minutes", "unit", "flow", "slot"]
            outcome.shape = (
                pl.concat(shapes).group_by(key).agg(pl.col("actual", "estimated", "rejected").sum()).sort(key)
            )


def _estimated_micro(v: ValidatedMatrix) -> int:
    rows = np.flatnonzero(v.estimated > 0)
    estimated = code_table("estimate")[v.quality[rows]] & (v.values[rows] != NO_VALUE)
    return int(np.where(estimated, v.values[rows], 0).sum())


def estimates_by_method(v: ValidatedMatrix) -> dict[str, int]:
    """Estimated intervals by flag and AEMO method, such as S17."""
    rows = np.flatnonzero(v.estimated > 0)
    return _by_method(v.quality[rows], v.values[rows])


def _by_method(codes_of: npt.NDArray[np.uint16], values: Ints) -> dict[str, int]:
    found, counts = np.unique(codes_of[code_table("estimate")[codes_of] & (values != NO_VALUE)], return_counts=True)
    out: dict[str, int] = {}
    for code, count in zip(found, counts, strict=True):
        word = quality.unpack(int(code))
        name = f"{word.flag}{word.method or ''}"
        out[name] = out.get(name, 0) + int(count)
    return out


def worst_rows(validated: list[ValidatedMatrix]) -> pl.DataFrame:
    """The rows most in need of eyes: failing rules first, then the largest miss of a sum check, then the most
    estimates."""
    failing = mask_of(ROW_RULES, Severity.FAIL, Role.INITIAL) & ~rr.REFERENCE.mask
    parts = []
    for v in validated:
        miss = np.where(
            v.difference != NO_VALUE, np.abs(v.total - np.where(v.difference == NO_VALUE, 0, v.difference)), 0
        )
        fails = (v.row_flags & failing != 0).astype(np.int64)
        order = np.lexsort((-v.estimated, -miss, -fails))[:_WORST]
        part = (
            v.keys[order]
            .select("service_point_id", "meter_id", "channel", "unit")
            .with_columns(
                interval_minutes=pl.lit(v.raw.interval_minutes, pl.Int32),
                total_micro=pl.Series(v.total[order]),
                miss_micro=pl.Series(miss[order]),
                estimated=pl.Series(v.estimated[order]),
                expected=pl.Series(v.expected[order]),
                row_flags=pl.Series(v.row_flags[order]),
                failed=pl.Series(fails[order]),
            )
        )
        parts.append(part)
    if not parts:
        return pl.DataFrame()
    found = pl.concat(parts).filter((pl.col("failed") > 0) | (pl.col("estimated") > 0))
    return found.sort(*_WORST_FIRST[0], descending=_WORST_FIRST[1]).head(_WORST)


def _vectors_of(worst: pl.DataFrame, validated: list[ValidatedMatrix]) -> list[dict[str, Any]]:
    """Raw and final vectors of the worst rows, for the plot."""
    found: list[dict[str, Any]] = []
    for row in worst.head(_DRAWN).iter_rows(named=True):
        for v in validated:
            if v.raw.interval_minutes != row["interval_minutes"]:
                continue
            mine = (
                (pl.col("service_point_id") == row["service_point_id"])
                & (pl.col("meter_id") == row["meter_id"])
                & (pl.col("channel") == row["channel"])
            )
            found.extend(
                {
                    "name": f"{row['meter_id']} {row['channel']}",
                    "raw": v.raw.values[i],
                    "final": v.values[i],
                    "quality": v.quality[i],
                    "minutes": v.raw.interval_minutes,
                    "unit": row["unit"],
                    "row_flags": row["row_flags"],
                }
                for i in np.flatnonzero(v.keys.select(mine).to_series().to_numpy())[:1]
            )
    return found


def day_shape(validated: list[ValidatedMatrix]) -> pl.DataFrame:
    """Per interval length, unit and slot: quantity validated as read, quantity estimated, and quantity rejected, micro
    units."""
    parts = []
    table = code_table("estimate")
    for v in validated:
        numbers = v.keys.select(pl.struct("unit", "flow").rank("dense")).to_series().to_numpy()
        for g in np.unique(numbers):
            at = np.flatnonzero(numbers == g)
            touched = at[(v.estimated[at] > 0) | v.flags[at].any(axis=1)]
            has_value = v.values[touched] != NO_VALUE
            estimated = np.where(has_value & table[v.quality[touched]], v.values[touched], 0).sum(axis=0)
            raw = v.raw.values[touched]
            rejected = np.where((raw != NO_VALUE) & (raw != v.values[touched]), np.abs(raw), 0).sum(axis=0)
            # most rows are whole: they are summed as they stand, without a copy of the city
            whole = v.actual[at] + v.estimated[at] == v.raw.slots
            full, rest = at[whole], v.values[at[~whole]]
            everything = (v.values if full.size == v.values.shape[0] else v.values[full]).sum(axis=0)
            everything = everything + np.where(rest == NO_VALUE, 0, rest).sum(axis=0)
            unit, flow = v.keys.select("unit", "flow").row(int(at[0]))
            parts.append(
                pl.DataFrame(
                    {
                        "slot": np.arange(v.raw.slots),
                        "actual": everything - estimated,
                        "estimated": estimated,
                        "rejected": rejected,
                    }
                ).with_columns(
                    unit=pl.lit(unit), flow=pl.lit(flow), interval_minutes=pl.lit(v.raw.interval_minutes, pl.Int32)
                )
            )
    return pl.concat(parts) if parts else pl.DataFrame()
