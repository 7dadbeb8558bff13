"""Two actual values of one interval without an order: the earlier one is kept and a person decides about the later one.

Versions, read times and sequence numbers order the corrections of a source (merge_versions.py). Where two actual reads
of one interval differ and agree in all of these, no rule can tell which is right: choosing by the payload hash took the
correction for 4 of 10 meters and kept the wrong value for 6. So the first read stays, and the later one becomes a dead
letter. A person who gives it a greater source_version and replays it accepts it; a person who dismisses it keeps the
first. The other reads of the same payload are stored.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.ingest import keys
from meter_pipeline.postgres import vectors
from meter_pipeline.quality import MISSING, condition_rank
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

#: condition_rank of an actual read or a final substitution.
ACTUAL: Final = 4
CODE: Final = "unordered_actual"
DETAIL: Final = (
    "another actual read of the interval came before, and neither source version nor read time nor sequence orders the "
    "two: the first stands. To take this one, give it a greater source_version and replay it; to keep the first, dismiss it"
)
_SAME: Final = ("meter_id", "channel", "unit", "source_version", "read_time")


def settle_intervals(
    incoming: pl.DataFrame, kept: pl.DataFrame, standing: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split incoming payloads (vector frame with ``at``, ``reads``, payload_hash) by comparing them with the payloads
    ``kept`` for their keys and the merged row that is ``standing``.

    Returns the payloads that may be merged, and the disputed reads as payloads of their own, which a person decides
    about. A payload with some disputed reads keeps the others, under a new hash and a new number of ``reads``.
    """
    near = incoming.join(kept.select(_SAME), on=_SAME, how="semi", nulls_equal=True, maintain_order="left")
    if not near.height:
        return incoming, incoming.clear()
    rest, rechecked = [incoming.join(near.select("at"), on="at", how="anti", maintain_order="left")], []
    numbered = near.with_row_index("n")
    starts_at = vectors.day_start(near)
    for matrix in vectors.to_matrices(numbered):
        disputed = _disputed(matrix, kept, standing)
        rows = numbered.select("n", *incoming.columns).filter(pl.col("n").is_in(pl.Series(matrix.keys["n"]).implode()))
        hit: npt.NDArray[np.bool_] = np.asarray(disputed.any(axis=1), np.bool_)
        rest.append(rows.filter(pl.Series(~hit)).drop("n"))
        if hit.any():
            good, other = _split(matrix, disputed, hit, rows, starts_at)
            rest.append(good.select(incoming.columns))
            rechecked.append(other.select(incoming.columns))
    return pl.concat(rest).sort("at"), pl.concat(rechecked).sort("at") if rechecked else incoming.clear()


def _disputed(matrix: DayMatrix, kept: pl.DataFrame, standing: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Returns the slots of the matrix whose actual value differs from the stored one, where that came in a payload
    equal in version, read time and sequence."""
    has_actual = (matrix.values != NO_VALUE) & (condition_rank(matrix.quality, matrix.values == NO_VALUE) == ACTUAL)
    now = _aligned(matrix, standing, ("meter_id", "channel", "unit"))
    found = np.zeros(matrix.values.shape, np.bool_)
    turns = kept.with_columns(turn=pl.int_range(pl.len()).over("meter_id", "channel"))
    for (_,), layer in turns.group_by(["turn"], maintain_order=True):
        old = _aligned(matrix, layer.drop("turn"), _SAME)
        actual = (old[0] != NO_VALUE) & (condition_rank(old[1], old[0] == NO_VALUE) == ACTUAL)
        stands = (old[0] == now[0]) & (old[1] == now[1])
        found |= has_actual & actual & stands & (old[2] == matrix.sequence) & (old[0] != matrix.values)
    return found


def _aligned(
    matrix: DayMatrix, frame: pl.DataFrame, on: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Returns values, quality and sequence of a frame's rows in the order of the matrix's rows; empty where the layout
    has none."""
    values = np.full(matrix.values.shape, NO_VALUE, np.int64)
    quality = np.full(matrix.values.shape, MISSING, np.uint16)
    sequence = np.zeros(matrix.values.shape, np.int32)
    rows = matrix.keys.select(on).with_row_index("row")
    same = (pl.col("interval_minutes") == matrix.interval_minutes) & (pl.col("slots") == matrix.slots)
    found = frame.filter(same).join(rows, on=list(on), how="inner", nulls_equal=True)
    for part in vectors.to_matrices(found):
        row = part.keys["row"].to_numpy()
        values[row], quality[row], sequence[row] = part.values, part.quality, part.sequence
    return values, quality, sequence


def _split(
    matrix: DayMatrix, disputed: npt.NDArray[np.bool_], hit: npt.NDArray[np.bool_], rows: pl.DataFrame, starts_at: Any
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns payloads without their disputed reads (if reads remain), and payloads of the disputed reads alone."""
    chosen = np.flatnonzero(hit)
    carried = rows.filter(pl.Series(hit)).drop("n").drop([c for c in vectors.VECTOR if c in rows.columns])
    without = _only(matrix, chosen, ~disputed, carried, starts_at)
    alone = _only(matrix, chosen, disputed, carried, starts_at)
    count = pl.Series("reads", disputed[chosen].sum(axis=1), dtype=pl.Int64)
    # Reads without a value ("there is none") are no reads to count: what is left is what was counted less the disputed.
    left = pl.Series("reads", carried["reads"].to_numpy() - count.to_numpy(), dtype=pl.Int64)
    without = without.with_columns(left)
    return without.filter(pl.col("reads") > 0), alone.with_columns(count)


def _only(
    matrix: DayMatrix, chosen: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_], carried: pl.DataFrame, starts_at: Any
) -> pl.DataFrame:
    mask = keep[chosen]
    made = DayMatrix(
        matrix.billing_day,
        matrix.interval_minutes,
        carried,
        np.where(mask, matrix.values[chosen], NO_VALUE),
        np.where(mask, matrix.quality[chosen], MISSING),
        np.where(mask, matrix.sequence[chosen], np.int32(0)),
        None if matrix.offsets is None else np.where(mask, matrix.offsets[chosen], np.int16(0)),
    )
    frame = vectors.from_matrix(made, starts_at)
    return frame.with_columns(keys.interval_payload_hashes(frame))


def settle_registers(
    incoming: pl.DataFrame, kept: pl.DataFrame, standing: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """As ``settle_intervals``, for register reads: a payload is one read."""
    order = ["meter_id", "channel", "read_at", "unit", "source_version", "read_time", "sequence"]
    content = ["value", "quality"]
    actual = pl.Series(_is_actual(incoming))
    there = kept.filter(pl.Series(_is_actual(kept), dtype=pl.Boolean)).join(
        standing.select("meter_id", "channel", "read_at", *content),
        on=["meter_id", "channel", "read_at", *content],
        how="semi",
    )
    other = incoming.filter(actual).join(there.select(*order, was="value"), on=order, how="inner", nulls_equal=True)
    rechecked = other.filter(pl.col("value") != pl.col("was"))["at"].unique()
    disputed = pl.col("at").is_in(rechecked.implode())
    return incoming.filter(~disputed), incoming.filter(disputed)


def _is_actual(frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
    rank = condition_rank(frame["quality"].to_numpy(), frame["value"].is_null().to_numpy())
    return np.asarray(rank == ACTUAL, np.bool_)
