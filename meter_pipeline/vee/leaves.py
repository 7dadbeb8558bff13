"""The ledger's leaves of validated days, made again from the rows as stored, and the columns that follow from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.postgres.narrowing import NO_VALUE_32
from meter_pipeline.postgres.vectors import to_matrices
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.output_frames import row_hashes
from meter_pipeline.vee.rules.interval_rules import code_table


def validated_row_hashes(rows: pl.DataFrame) -> pl.Series:
    """``content_hash`` of each row of vee.interval_day (encoding ``mp-vee-row/1``), from its stored columns."""
    numbered = rows.with_row_index("n")
    found: list[pl.DataFrame] = []
    for matrix in to_matrices(numbered):
        keys = matrix.keys
        flags = _flags(keys["flags"], matrix.values.shape)
        numbers = [
            keys["row_flags"].cast(pl.Int64).to_numpy(),
            keys["register_difference_micro"].cast(pl.Int64).fill_null(NO_VALUE).to_numpy(),
            keys["unscaled_micro"].cast(pl.Int64).to_numpy(),
            keys["expected"].cast(pl.Int64).to_numpy(),
        ]
        made = row_hashes(keys, matrix.billing_day, matrix.values, matrix.quality, flags, np.stack(numbers, axis=1))
        found.append(pl.DataFrame({"n": keys["n"], "hash": made}))
    if not found:
        return pl.Series("hash", [], pl.Binary)
    return pl.concat(found).sort("n")["hash"]


def _flags(column: pl.Series, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Rule bits by slot; 0 where the row has none."""
    flags = np.zeros(shape, np.int32)
    rows = np.flatnonzero(column.is_not_null().to_numpy())
    if rows.size:
        flags[rows] = column.drop_nulls().explode().to_numpy().reshape(-1, shape[1])
    return flags


def derived_columns(rows: pl.DataFrame) -> list[str]:
    """Returns columns among total_micro, actual, estimated and missing that do not follow from a row's intervals, a
    text for each row.
    """
    wrong: list[str] = []
    for (slots, wide), part in _by_shape(rows):
        column = part["wide_values" if wide else "values"]
        values = column.explode().to_numpy().reshape(-1, slots)
        has_value = values != (NO_VALUE if wide else NO_VALUE_32)
        scale = 10 ** (6 - part["scale"].cast(pl.Int64).to_numpy())
        whole = values if has_value.all() else np.where(has_value, values, 0)
        total = whole.sum(axis=1, dtype=np.int64) * scale
        estimated = _estimated(part, has_value)
        present = has_value.sum(axis=1)
        expected = part["expected"].cast(pl.Int64).to_numpy()
        derived = {
            "total_micro": total,
            "estimated": estimated,
            "actual": present - estimated,
            "missing": expected - present,
        }
        for name, made in derived.items():
            stored = part[name].cast(pl.Int64).to_numpy()
            wrong += [
                f"{part['meter_id'][row]} {part['channel'][row]}: {name} is {stored[row]}, its intervals give {made[row]}"
                for row in np.flatnonzero(stored != made).tolist()
            ]
    return wrong


def _by_shape(rows: pl.DataFrame) -> list[tuple[tuple[int, bool], pl.DataFrame]]:
    """The rows by number of slots and by which of their two columns has the values. Mostly they are all alike, and are
    not copied."""
    shape = pl.struct("slots", wide=pl.col("values").is_null())
    shapes = [(int(one["slots"]), bool(one["wide"])) for one in rows.select(shape).to_series().unique().to_list()]
    if len(shapes) == 1:
        return [(shapes[0], rows)]
    return [
        ((slots, wide), rows.filter(pl.col("slots") == slots, pl.col("values").is_null() == wide))
        for slots, wide in sorted(shapes)
    ]


def _estimated(part: pl.DataFrame, has_value: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Slots with an estimated value, by the row's quality code or by each slot's own."""
    table = code_table("estimate")
    count = np.zeros(part.height, np.int64)
    shared = np.flatnonzero(table[part["quality"].cast(pl.Int16).to_numpy().view(np.uint16)])
    count[shared] = has_value[shared].sum(axis=1)
    own = np.flatnonzero(part["qualities"].is_not_null().to_numpy())
    if own.size:
        codes = part["qualities"].drop_nulls().explode().to_numpy().reshape(-1, has_value.shape[1])
        count[own] = (table[codes.view(np.uint16)] & has_value[own]).sum(axis=1)
    return count
