"""Usage that is billed at another service point: totalised meters, whose sum is billed, and deduct meters, whose usage
is taken off that of the meter before them.

A service attribute says it: ``totals_into`` or ``deducts_from`` with the other service point as its value. Intervals
are added and subtracted one by one, so that time-of-use periods and demand are those of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline.billing.service_agreements import (
    EXCEPTION_SCHEMA,
    NO_EXCEPTIONS,
    NO_PARTS,
    DayServices,
    Reference,
    exceptions,
    in_force,
)
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

#: Attribute of a service point whose usage is billed at another one -> the sign with which it counts there.
SIGNS: Final = {"totals_into": 1, "deducts_from": -1}


def with_parts(services: DayServices, reference: Reference, day: date) -> DayServices:
    """A day's services with the usage that is billed at another service point, and exceptions where the declaration
    cannot hold."""
    parts = parts_of(reference, day)
    if not parts.height:
        return services
    faults = pl.concat([services.exceptions, faults_of(parts, reference, day)])
    return replace(services, parts=parts, exceptions=faults.sort("service_point_id", "reason"))


def parts_of(reference: Reference, day: date) -> pl.DataFrame:
    """Which service points' usage of a day is billed at another one: PART_SCHEMA."""
    signed = reference.service_attributes.filter(pl.col("attribute").is_in(list(SIGNS)))
    if not signed.height:
        return NO_PARTS
    served = in_force(reference.agreements, day)["service_point_id"]
    return in_force(signed, day).select(
        pl.col("service_point_id").alias("member"),
        pl.col("value").str.strip_chars().str.to_uppercase().alias("target"),
        pl.col("attribute").replace_strict(SIGNS, return_dtype=pl.Int64).alias("sign"),
        pl.col("service_point_id").is_in(served.implode()).alias("own"),
    )


def faults_of(parts: pl.DataFrame, reference: Reference, day: date) -> pl.DataFrame:
    """Service points that can't be billed as they are declared: a member of a total that is billed by itself too, one
    that is a part of two others, a part of a part, and one whose target has no agreement."""
    if not parts.height:
        return NO_EXCEPTIONS
    served = in_force(reference.agreements, day)["service_point_id"]
    both = parts.filter(pl.col("own") & (pl.col("sign") > 0))
    several = parts.filter(pl.col("member").is_duplicated()).unique("member")
    nested = parts.filter(pl.col("target").is_in(parts["member"].implode()))
    nowhere = parts.filter(~pl.col("target").is_in(served.implode()))
    found = [
        _exceptions_of(both, "target", "{} is billed by itself and in the total of {}"),
        _exceptions_of(both, "member", "{} is billed by itself and in the total of {}"),
        _exceptions_of(several, "target", "{} is a part of {} and of another service point"),
        _exceptions_of(nested, "target", "{} is a part of {}, which is a part itself"),
        _exceptions_of(nowhere, "member", "{} is a part of {}, which has no agreement"),
    ]
    return pl.concat(found).unique().sort("service_point_id", "reason", "detail")


def _exceptions_of(rows: pl.DataFrame, point: str, text: str) -> pl.DataFrame:
    """An exception for each ``point`` (member or target) of the rows; ``text`` names member and target."""
    named = rows.select(pl.col(point).alias("service_point_id"), pl.format(text, "member", "target").alias("detail"))
    return exceptions(named, "virtual_point", pl.col("detail")).cast(EXCEPTION_SCHEMA)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a day's service points and how to read their usage: by ids, interval matrices, days' totals
    (DAILY_SCHEMA)."""

    parts: pl.DataFrame
    usage: Callable[[Sequence[str]], list[DayMatrix]]
    daily: Callable[[Sequence[str]], pl.DataFrame]

    def added(self, targets: pl.Series) -> tuple[list[DayMatrix], pl.DataFrame | None]:
        """Usage of the parts of some service points, under the names of those and with their signs."""
        mine = self.parts.filter(pl.col("target").is_in(targets.implode()))
        if not mine.height:
            return [], None
        ids = mine["member"].unique().sort().to_list()
        return [_relabelled(m, mine) for m in self.usage(ids)], _daily(self.daily(ids), mine)

    def elsewhere(self) -> list[str]:
        """Service points whose usage is billed only at another one."""
        gone = self.parts.filter(~pl.col("own") | (pl.col("sign") > 0))
        return gone["member"].unique().sort().to_list()


def _relabelled(matrix: DayMatrix, parts: pl.DataFrame) -> DayMatrix:
    """A matrix of members as rows of their targets."""
    keys = (
        matrix.keys.with_row_index("at")
        .join(parts.select("member", "target", "sign"), left_on="service_point_id", right_on="member")
        .sort("at", "target")
    )
    # A part's own row keeps its meter and channel: only whose usage it is changes.
    at, sign = keys["at"].to_numpy(), keys["sign"].to_numpy()
    values = matrix.values[at]
    return replace(
        matrix,
        keys=keys.with_columns(pl.col("target").alias("service_point_id")).select(matrix.keys.columns),
        values=np.where(values == NO_VALUE, NO_VALUE, values * sign[:, None]),
        quality=matrix.quality[at],
        sequence=matrix.sequence[at],
        offsets=None if matrix.offsets is None else matrix.offsets[at],
    )


def _daily(daily: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    found = daily.join(parts.select("member", "target", "sign"), left_on="service_point_id", right_on="member")
    return found.with_columns(
        pl.col("target").alias("service_point_id"), (pl.col("quantity") * pl.col("sign")).alias("quantity")
    ).select(daily.columns)


def without(matrix: DayMatrix, points: Sequence[str]) -> DayMatrix:
    """A matrix without the rows of some service points."""
    at = np.flatnonzero(~matrix.keys["service_point_id"].is_in(list(points)).to_numpy())
    if len(at) == matrix.rows:
        return matrix
    return replace(
        matrix,
        keys=matrix.keys[at.tolist()],
        values=matrix.values[at],
        quality=matrix.quality[at],
        sequence=matrix.sequence[at],
        offsets=None if matrix.offsets is None else matrix.offsets[at],
    )


def merged(matrices: Sequence[DayMatrix]) -> list[DayMatrix]:
    """Matrices with one for each interval length, so that rows of one service point are added up slot by slot."""
    by_minutes: dict[int, list[DayMatrix]] = {}
    for matrix in matrices:
        by_minutes.setdefault(matrix.interval_minutes, []).append(matrix)
    return [_joined(parts) for _, parts in sorted(by_minutes.items())]


def _joined(parts: Sequence[DayMatrix]) -> DayMatrix:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        keys=pl.concat([m.keys for m in parts]),
        values=np.concatenate([m.values for m in parts]),
        quality=np.concatenate([m.quality for m in parts]),
        sequence=np.concatenate([m.sequence for m in parts]),
        offsets=None,
    )


def missing_parts(parts: pl.DataFrame, services: pl.DataFrame, silent: Sequence[str]) -> pl.DataFrame:
    """Exceptions of services whose usage has a part that is not known. ``silent``: members without a value for
    some or all of the day."""
    waiting = parts.filter(pl.col("member").is_in(list(silent))).group_by("target").agg(pl.col("member").min())
    named = services.join(waiting, left_on="service_point_id", right_on="target")
    return exceptions(named, "usage_missing", pl.format("usage of {} is not known", "member")).cast(EXCEPTION_SCHEMA)
