"""Which value wins: a pure function of the set of payloads, never of the order in which they came.

Per slot the payload with the greatest (condition rank, source version, read time, sequence, payload hash) wins; no read
time is less than any. The condition rank (quality.condition_rank) comes first, so that a late actual replaces an
estimate and a newer estimate never replaces an actual. The row's own source_version, read_time, head_end and
payload_hash are the leading payload's, the one with the greatest (best rank of its slots, source version, read time,
payload hash), and so are unit, interval length and slots: a payload of another layout keeps no slot, since two layouts
of one day cannot both be right.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.postgres import vectors
from meter_pipeline.quality import MISSING, condition_rank
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix

KEY = ["meter_id", "channel"]
_NEWEST = ["source_version", "read_time", "payload_hash"]


def fold_intervals(payloads: pl.DataFrame) -> pl.DataFrame:
    """Fold payloads of one billing day (vector frame with RAW_EXTRA columns, distinct hashes by key) to one row a key,
    sorted by key.

    The result has the same columns; ``payloads`` is how many went in.
    """
    ranked = _ranked(payloads)
    leading = ranked.sort(*KEY, "condition", "rank").unique(KEY, keep="last", maintain_order=True)
    starts_at = vectors.day_start(leading)
    parts = [
        _fold_layout(matrix, ranked, starts_at)
        for matrix in vectors.to_matrices(leading.drop("rank", "of", "condition"))
    ]
    columns = [*KEY, *vectors.RAW_EXTRA, *vectors.VECTOR]
    return pl.concat([p.select(columns) for p in parts]).sort(KEY)


def _ranked(payloads: pl.DataFrame) -> pl.DataFrame:
    """Payloads in order of age, with their rank within the key (0 the oldest), how many the key has, and the best
    condition rank of their slots."""
    ordered = payloads.sort([*KEY, *_NEWEST], nulls_last=False)
    condition = np.zeros(ordered.height, np.int8)
    for matrix in vectors.to_matrices(ordered.with_row_index("n")):
        condition[matrix.keys["n"].to_numpy()] = condition_rank(matrix.quality, matrix.values == NO_VALUE).max(
            axis=1, initial=0
        )
    return ordered.with_columns(rank=pl.int_range(pl.len()).over(KEY), of=pl.len().over(KEY), condition=condition)


def _fold_layout(leading: DayMatrix, ranked: pl.DataFrame, starts_at: datetime) -> pl.DataFrame:
    """Lay the payloads of one layout over each other, oldest first, into the shape of the leading ones."""
    n, slots = leading.values.shape
    values = np.full((n, slots), NO_VALUE, np.int64)
    quality = np.full((n, slots), MISSING, np.uint16)
    sequence = np.zeros((n, slots), np.int32)
    offsets = np.zeros((n, slots), np.int16)
    version = np.full((n, slots), NO_VALUE, np.int64)
    taken_at = np.full((n, slots), NO_VALUE, np.int64)
    condition = np.zeros((n, slots), np.int8)
    index = leading.keys.select(*KEY, "unit", of=pl.len().over(KEY)).drop("of").with_row_index("row")
    same = (pl.col("interval_minutes") == leading.interval_minutes) & (pl.col("slots") == slots)
    mine = ranked.filter(same).join(index, on=[*KEY, "unit"], how="inner").sort("rank", "row")
    for (_,), layer in mine.group_by(["rank"], maintain_order=True):
        [matrix] = vectors.to_matrices(layer.drop("rank", "of", "condition"))
        row = matrix.keys["row"].to_numpy()
        layer_version = matrix.keys["source_version"].to_numpy()[:, None]
        layer_taken = matrix.keys["read_time"].to_physical().fill_null(NO_VALUE).to_numpy()[:, None]
        has_read = (matrix.values != NO_VALUE) | (matrix.quality != MISSING)
        layer_condition = condition_rank(matrix.quality, matrix.values == NO_VALUE)
        # Layers come in order of (version, read time, hash), so at the same condition rank a later one loses a slot
        # only to an equally old payload's higher sequence.
        equal = (version[row] == layer_version) & (taken_at[row] == layer_taken)
        newer = ~equal | (matrix.sequence >= sequence[row])
        wins = has_read & ((layer_condition > condition[row]) | ((layer_condition == condition[row]) & newer))
        values[row] = np.where(wins, matrix.values, values[row])
        quality[row] = np.where(wins, matrix.quality, quality[row])
        sequence[row] = np.where(wins, matrix.sequence, sequence[row])
        offsets[row] = np.where(wins, matrix.offsets if matrix.offsets is not None else 0, offsets[row])
        version[row] = np.where(wins, layer_version, version[row])
        taken_at[row] = np.where(wins, layer_taken, taken_at[row])
        condition[row] = np.where(wins, layer_condition, condition[row])
    counts = ranked.select(*KEY, "of").unique()
    keys = (
        leading.keys.drop("payloads")
        .join(counts, on=KEY, how="left", maintain_order="left")
        .rename({"of": "payloads"})
        .cast({"payloads": pl.Int16})
    )
    folded = DayMatrix(
        leading.billing_day,
        leading.interval_minutes,
        keys,
        values,
        quality,
        sequence,
        offsets if offsets.any() else None,
    )
    return vectors.from_matrix(folded, starts_at)


def outcome_of_intervals(before: pl.DataFrame, after: pl.DataFrame, incoming: pl.DataFrame) -> pl.DataFrame:
    """Returns the effect of one more payload a key: accepted, duplicate and superseded reads, one row a row of
    ``incoming`` in its order.

    ``before`` and ``after`` are the folded rows without and with it. A read that says (value and quality) what was
    there is a duplicate; one that changed the slot is accepted; the rest of the payload's ``reads`` is superseded.
    """
    accepted = np.zeros(incoming.height, np.int64)
    duplicate = np.zeros(incoming.height, np.int64)
    numbered = incoming.with_row_index("n")
    for matrix in vectors.to_matrices(numbered):
        n = matrix.keys["n"].to_numpy()
        was, now = (_aligned(state, matrix) for state in (before, after))
        present = matrix.values != NO_VALUE
        repeats = present & (was[0] == matrix.values) & (was[1] == matrix.quality)
        changed = present & ~repeats & (now[0] == matrix.values) & (now[1] == matrix.quality)
        duplicate[n], accepted[n] = repeats.sum(axis=1), changed.sum(axis=1)
    reads = incoming["reads"].to_numpy()
    return pl.DataFrame({"accepted": accepted, "duplicate": duplicate, "superseded": reads - accepted - duplicate})


def _aligned(state: pl.DataFrame, matrix: DayMatrix) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Values and quality of the state's rows for the matrix's keys; NO_VALUE and MISSING where there is none of that
    layout."""
    values = np.full(matrix.values.shape, NO_VALUE, np.int64)
    quality = np.full(matrix.values.shape, MISSING, np.uint16)
    rows = matrix.keys.select(*KEY, "unit").with_row_index("row")
    same = (pl.col("interval_minutes") == matrix.interval_minutes) & (pl.col("slots") == matrix.slots)
    found = state.filter(same).join(rows, on=[*KEY, "unit"], how="inner")
    for part in vectors.to_matrices(found):
        row = part.keys["row"].to_numpy()
        values[row], quality[row] = part.values, part.quality
    return values, quality


REGISTER_KEY = ["meter_id", "channel", "read_at"]


def fold_registers(payloads: pl.DataFrame) -> pl.DataFrame:
    """The winning payload of each register reading, with how many distinct ones there are; sorted by key."""
    order = ["condition", "source_version", "read_time", "sequence", "payload_hash"]
    condition = condition_rank(payloads["quality"].to_numpy(), payloads["value"].is_null().to_numpy())
    ordered = (
        payloads.with_columns(condition=condition).sort([*REGISTER_KEY, *order], nulls_last=False).drop("condition")
    )
    return (
        ordered.with_columns(payloads=pl.len().over(REGISTER_KEY).cast(pl.Int16))
        .unique(REGISTER_KEY, keep="last", maintain_order=True)
        .sort(REGISTER_KEY)
    )


def outcome_of_registers(before: pl.DataFrame, after: pl.DataFrame, incoming: pl.DataFrame) -> pl.DataFrame:
    """As outcome_of_intervals, for register reads."""
    content = ["value", "quality", "unit"]
    joined = (
        incoming.select(*REGISTER_KEY, *content, "payload_hash", "reads")
        .join(before.select(*REGISTER_KEY, *content), on=REGISTER_KEY, how="left", suffix="_was", maintain_order="left")
        .join(
            after.select(*REGISTER_KEY, "payload_hash"),
            on=REGISTER_KEY,
            how="left",
            suffix="_now",
            maintain_order="left",
        )
    )
    repeats = pl.all_horizontal(pl.col(c) == pl.col(f"{c}_was") for c in content).fill_null(False)
    wins = pl.col("payload_hash") == pl.col("payload_hash_now")
    return joined.select(
        accepted=pl.when(~repeats & wins).then("reads").otherwise(0),
        duplicate=pl.when(repeats).then("reads").otherwise(0),
        superseded=pl.when(~repeats & ~wins).then("reads").otherwise(0),
    )
