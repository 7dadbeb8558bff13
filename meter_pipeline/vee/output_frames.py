"""From validated matrices to rows of the store: vectors with their hashes, daily usage, exceptions, load shapes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline import quality
from meter_pipeline.ledger.digests import part_of, part_of_rows, row_digests
from meter_pipeline.schemas.reads import NO_VALUE
from meter_pipeline.vee.registers.assemble import DayRows
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.interval_rules import code_table
from meter_pipeline.vee.rules.model import Ints, ValidatedMatrix
from meter_pipeline.vee.rules.statistics import summed_shapes

_TAG: Final = b"mp-vee-row/1\x1f"
#: Quality of a day whose slots differ: the first of these that occurs, worst first
_RANK: Final = {"M": 0, "N": 1, "E": 2, "S": 3, "F": 4, "V": 5, "A": 6}


def _hash_rows(keys: pl.Series, parts: list[npt.NDArray[Any]]) -> pl.Series:
    """SHA-256 of each row: its key, then the bytes of its arrays, little-endian, in order. A Binary column."""
    return row_digests([part_of(keys), *map(part_of_rows, parts)])


def _key_bytes(frame: pl.DataFrame, columns: list[str], tag: bytes) -> pl.Series:
    joined = frame.select(
        pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in columns], separator="\x1f")
    ).to_series()
    return tag.decode() + joined


def input_hashes(rows: DayRows, rules_digest: str, *, final: bool, estimates_more: int = 0) -> pl.Series:
    """SHA-256 of each row's inputs: its raw values and codes, its window, its register, the thresholds, and
    (``estimates_more``) which findings the policy replaces by estimates beyond the usual ones."""
    c = rows.context
    # rows that no longer stretch of register reads encloses hash as they did before there were any
    in_stretch = np.where(
        c.stretch_left != NO_VALUE, c.stretch_left * 1_000_003 + c.stretch_before * 10_007 + c.stretch_after, 0
    )
    counted = np.where(
        c.tou_program >= 0, (c.tou_quantity * (1_009 * np.arange(1, c.tou_quantity.shape[1] + 1))).sum(axis=1), 0
    )
    if counted.any():
        counted += np.where(
            c.tou_program >= 0,
            (c.tou_hours.astype(np.int64) * np.arange(1, c.tou_hours.shape[1] + 1)).sum(axis=1)[c.tou_program],
            0,
        )
    meta = np.stack(
        [
            c.first.astype(np.int64),
            c.last.astype(np.int64),
            c.register_difference,
            c.register_tolerance + in_stretch + counted,
            c.limit,
            c.active.astype(np.int64)
            | c.known.astype(np.int64) << 1
            | c.unit_ok.astype(np.int64) << 2
            | np.int64(final) << 3
            | np.int64(estimates_more) << 4,
        ],
        axis=1,
    )
    parts: list[npt.NDArray[Any]] = [rows.matrix.values, rows.matrix.quality, meta]
    keys = _key_bytes(rows.keys, ["service_point_id", "meter_id", "channel"], _TAG + rules_digest.encode() + b"\x1f")
    hashes = _hash_rows(keys, parts)
    if rows.matrix.offsets is not None:
        # a row's hash is its own: it must not tell whether another row of the same shard came off the grid
        late = np.flatnonzero(rows.matrix.offsets.any(axis=1))
        if late.size:
            hashes = hashes.scatter(
                late, _hash_rows(keys.gather(late), [p[late] for p in (*parts, rows.matrix.offsets)])
            )
    return hashes


def content_hashes(v: ValidatedMatrix) -> pl.Series:
    """SHA-256 of each row's results: key, account, values, quality, flags, register. A leaf of the ledger."""
    meta = np.stack([v.row_flags, v.difference, v.unscaled, v.expected.astype(np.int64)], axis=1)
    return row_hashes(v.keys, v.billing_day, v.values, v.quality, v.flags, meta)


def row_hashes(
    keys: pl.DataFrame, day: date, values: Ints, codes: npt.NDArray[np.uint16], flags: npt.NDArray[np.int32], meta: Ints
) -> pl.Series:
    """``mp-vee-row/1`` of each row: its key and account, then values, quality codes and rule bits by slot, then
    ``meta``: row flags, register difference, unscaled total, slots expected."""
    columns = [
        "service_point_id",
        "meter_id",
        "channel",
        "unit",
        "flow",
        "account_id",
        "tariff_id",
        "cycle_id",
        "billed",
    ]
    tag = _TAG + day.isoformat().encode() + b"\x1f"
    return _hash_rows(_key_bytes(keys, columns, tag), [values, codes, flags, meta])


def interval_keys(
    v: ValidatedMatrix, rows: DayRows, inputs: pl.Series, contents: pl.Series, *, final: bool
) -> pl.DataFrame:
    """Every column of vee.interval_day but the vector's own, aligned with the matrix."""
    touched = v.flags.any(axis=1)
    notes = (
        pl.Series([v.anchors.get(i) for i in range(v.keys.height)], dtype=pl.String)
        if v.anchors
        else pl.Series([None] * v.keys.height, dtype=pl.String)
    )
    flags = (
        pl.Series(np.ascontiguousarray(v.flags[touched]).ravel())
        .reshape((int(touched.sum()), v.flags.shape[1]))
        .arr.to_list()
        if touched.any()
        else None
    )
    if flags is None:
        listed = pl.repeat(None, v.keys.height, dtype=pl.List(pl.Int32), eager=True)
    else:
        index = pl.Series(np.where(touched, np.cumsum(touched) - 1, 0), dtype=pl.UInt32)
        listed = pl.select(pl.when(pl.Series(touched)).then(flags.gather(index))).to_series()
    return v.keys.select(
        "service_point_id",
        "meter_id",
        "channel",
        "unit",
        "flow",
        "head_end",
        "account_id",
        "tariff_id",
        "cycle_id",
        "billed",
    ).with_columns(
        total_micro=pl.Series(v.total),
        register_difference_micro=nullable(v.difference),
        unscaled_micro=pl.Series(v.unscaled),
        row_flags=pl.Series(v.row_flags),
        version=pl.lit(1, pl.Int32),
        rules_version=pl.lit(v.rules_version, pl.Int32),
        first_slot=pl.Series(rows.context.first.astype(np.int16)),
        expected=pl.Series(v.expected.astype(np.int16)),
        actual=pl.Series(v.actual.astype(np.int16)),
        estimated=pl.Series(v.estimated.astype(np.int16)),
        missing=pl.Series(v.missing.astype(np.int16)),
        locked=pl.Series((v.estimated > 0) & final),
        input_hash=inputs,
        content_hash=contents,
        notes=notes,
        flags=listed,
    )


def nullable(values: Ints) -> pl.Series:
    """A column with null for NO_VALUE."""
    return pl.select(pl.when(pl.Series(values != NO_VALUE)).then(pl.Series(values))).to_series()


def worst_quality(codes_of: npt.NDArray[np.uint16], values: Ints) -> npt.NDArray[np.uint16]:
    """The worst code of each row among its values, by flag (estimates before actuals), then the larger code; MISSING
    for an empty row."""
    out = np.full(values.shape[0], quality.MISSING, np.uint16)
    plain = ~codes_of.any(axis=1)
    out[plain] = quality.ACTUAL
    rows = np.flatnonzero(~plain)
    if rows.size:
        rank = np.full(8, 9, np.int64)
        for flag, r in _RANK.items():
            rank[quality.FLAGS.index(flag)] = r
        found = codes_of[rows]
        order = np.where(values[rows] != NO_VALUE, rank[found >> 13] * (1 << 17) - found.astype(np.int64), 1 << 40)
        at = order.argmin(axis=1)
        empty = order[np.arange(rows.size), at] == 1 << 40
        out[rows] = np.where(empty, quality.MISSING, found[np.arange(rows.size), at])
    return out


def interval_usage(v: ValidatedMatrix) -> pl.DataFrame:
    """One row per matrix row, as a part of its service point's daily usage."""
    table = code_table("estimate")
    estimated = np.zeros(v.keys.height, np.int64)
    rows = np.flatnonzero(v.estimated > 0)
    if rows.size:
        estimated[rows] = np.where(table[v.quality[rows]] & (v.values[rows] != NO_VALUE), v.values[rows], 0).sum(axis=1)
    nothing = (v.actual + v.estimated) == 0
    return v.keys.select(
        "service_point_id",
        "meter_id",
        "flow",
        "unit",
        "commodity",
        "customer_class",
        "account_id",
        "tariff_id",
        "cycle_id",
        "billed",
    ).with_columns(
        quantity_micro=nullable(np.where(nothing, NO_VALUE, v.total)),
        estimated_micro=pl.Series(estimated),
        row_flags=pl.Series(v.row_flags),
        slots_expected=pl.Series(v.expected.astype(np.int32)),
        actual=pl.Series(v.actual.astype(np.int32)),
        estimated=pl.Series(v.estimated.astype(np.int32)),
        missing=pl.Series(v.missing.astype(np.int32)),
        quality=pl.Series(worst_quality(v.quality, v.values).view(np.int16)),
        source=pl.lit("interval"),
    )


_SUMS: Final[dict[str, Any]] = {
    "unit": pl.String,
    "flow": pl.String,
    "customer_class": pl.String,
    "members": pl.Int64,
    "total": pl.Int64,
}


def class_sums(v: ValidatedMatrix) -> pl.DataFrame:
    """Whole channel-days of each unit, flow and class, and their sum: unit, flow, customer_class, members, total."""
    return (
        v.keys.select("unit", "flow", "customer_class")
        .with_columns(total=pl.Series(v.total))
        .filter(pl.Series((v.actual == v.expected) & (v.expected == v.raw.slots)))
        .group_by("unit", "flow", "customer_class")
        .agg(pl.len().alias("members"), pl.col("total").sum())
        .select(list(_SUMS))
        .cast(_SUMS)  # type: ignore[arg-type]  # a mapping of column types
    )


def class_means(sums: list[pl.DataFrame], least: int) -> pl.DataFrame:
    """Mean day of the whole channel-days of each unit, flow and class, from ``least`` meters on: unit, flow,
    customer_class, mean_micro.

    ``sums``: ``class_sums`` of all the day's matrices.
    """
    return (
        pl.concat(sums or [pl.DataFrame(schema=_SUMS)])
        .group_by("unit", "flow", "customer_class")
        .agg(pl.col("members").sum(), (pl.col("total").sum() // pl.col("members").sum()).alias("mean_micro"))
        .filter(pl.col("members") >= least)
    )


def points_of(frames: Sequence[pl.DataFrame]) -> list[str]:
    """The service points of some frames' rows, sorted. A Python set of a million names takes a second."""
    named = [frame["service_point_id"] for frame in frames if frame.height]
    return pl.concat(named).unique().sort().to_list() if named else []


def daily_usage(parts: list[pl.DataFrame], day: date) -> pl.DataFrame:
    """Usage per service point, flow and unit, all billed meters together, sorted by key: sums are exact, null where
    nothing is known. ``source`` is mixed where intervals and a register alone make the day, as after an exchange;
    ``register_micro`` is then the part that the registers make."""
    schema_parts = [p.filter(pl.col("billed")) for p in parts if p.height]
    if not schema_parts:
        return pl.DataFrame()
    rank = pl.col("quality").cast(pl.Int32).map_batches(_rank_of, return_dtype=pl.Int64)
    on = ["service_point_id", "flow", "unit"]
    everything = pl.concat(schema_parts, how="vertical_relaxed").with_columns(rank=rank)
    # most service points have one meter: only the others need a group
    several = everything.select(pl.struct(on).is_duplicated()).to_series()
    alone = everything.filter(~several) if several.any() else everything
    single = alone.with_columns(meters=pl.lit(1, pl.Int16), register_micro=pl.lit(None, pl.Int64))
    columns = [
        *on,
        "quantity_micro",
        "estimated_micro",
        "row_flags",
        "slots_expected",
        "actual",
        "estimated",
        "missing",
        "meters",
        "quality",
        "source",
        "register_micro",
        "commodity",
        "customer_class",
        "account_id",
        "tariff_id",
        "cycle_id",
    ]
    rows = [single.select(columns)]
    if several.any():
        rows.append(_of_several(everything.filter(several), on).select(columns))
    return (
        pl.concat(rows, how="vertical_relaxed")
        .with_columns(billing_day=pl.lit(day, pl.Date), exchange=(pl.col("row_flags") & rr.EXCHANGE.mask) != 0)
        .sort(on)
    )


def _of_several(rows: pl.DataFrame, on: list[str]) -> pl.DataFrame:
    """Usage of service points with several meters, each as one row."""
    return (
        rows.sort(*on, "meter_id")
        .group_by(on, maintain_order=True)
        .agg(
            pl.when(pl.col("quantity_micro").is_not_null().any())
            .then(pl.col("quantity_micro").sum())
            .alias("quantity_micro"),
            pl.col("estimated_micro").sum(),
            pl.col("row_flags").bitwise_or(),
            pl.col("slots_expected", "actual", "estimated", "missing").sum(),
            pl.col("quality").sort_by("rank").first(),
            pl.when(pl.col("source").n_unique() == 1)
            .then(pl.col("source").first())
            .otherwise(pl.lit("mixed"))
            .alias("source"),
            pl.col("quantity_micro").filter(pl.col("source") == "register").sum().alias("register_micro"),
            pl.col("commodity", "customer_class", "account_id", "tariff_id", "cycle_id").first(),
            pl.col("meter_id").n_unique().cast(pl.Int16).alias("meters"),
        )
        .with_columns(register_micro=pl.when(pl.col("source") == "mixed").then("register_micro"))
    )


def _rank_of(series: pl.Series) -> pl.Series:
    flag = (series.to_numpy().astype(np.int64) & 0xFFFF) >> 13
    rank = np.full(8, 9, np.int64)
    for letter, r in _RANK.items():
        rank[quality.FLAGS.index(letter)] = r
    return pl.Series(rank[flag] * (1 << 17) - (series.to_numpy().astype(np.int64) & 0xFFFF))


def head_end_shapes(rows: DayRows, day: date) -> pl.DataFrame:
    """Each head-end's complete channel-days, as read, with the columns of vee.group_day: ``profile`` their sum by slot,
    ``shape`` the sum of each one's share of its own day in millionths, in which a factory weighs no more than a flat.
    """
    groups = (
        rows.keys.select("head_end", "unit", "flow")
        .with_row_index("row")
        .filter(pl.Series(rows.context.expected == rows.matrix.slots))
    )
    found = []
    for (head_end, unit, flow), part in sorted(groups.group_by("head_end", "unit", "flow"), key=lambda g: g[0]):
        members, profile, count, shares = summed_shapes(rows.matrix.values, part["row"].to_numpy().astype(np.int64))
        if members:
            found.append(
                (
                    day,
                    head_end,
                    unit,
                    flow,
                    rows.matrix.interval_minutes,
                    members,
                    profile.tolist(),
                    shares.tolist(),
                    count,
                    0,
                )
            )
    return pl.DataFrame(
        found,
        schema={
            "billing_day": pl.Date,
            "head_end": pl.String,
            "unit": pl.String,
            "flow": pl.String,
            "interval_minutes": pl.Int16,
            "members": pl.Int32,
            "profile": pl.List(pl.Int64),
            "shape": pl.List(pl.Int64),
            "shape_members": pl.Int32,
            "shifted_hours": pl.Int16,
        },
        orient="row",
    )


def added_shapes(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """``head_end_shapes`` of several shards as those of the whole, sorted by their key."""
    if parts and not any(part.height for part in parts):
        return parts[0]
    found: dict[tuple[Any, ...], list[Any]] = {}
    key = ["billing_day", "interval_minutes", "head_end", "unit", "flow"]
    for row in (
        row for part in parts for row in part.select(*key, "members", "profile", "shape", "shape_members").iter_rows()
    ):
        members, profile, shape, shaped = row[len(key) :]
        entry = found.setdefault(
            row[: len(key)], [0, np.zeros(len(profile), np.int64), np.zeros(len(shape), np.int64), 0]
        )
        entry[0] += members
        entry[1] += np.array(profile, np.int64)
        entry[2] += np.array(shape, np.int64)
        entry[3] += shaped
    schema = parts[0].schema if parts else {}
    rows = [
        (*names, members, profile.tolist(), shape.tolist(), shaped, 0)
        for names, (members, profile, shape, shaped) in sorted(found.items())
    ]
    return (
        pl.DataFrame(
            rows, schema=[*key, "members", "profile", "shape", "shape_members", "shifted_hours"], orient="row"
        ).select(pl.col(c).cast(t) for c, t in schema.items())
        if rows
        else pl.DataFrame(schema=schema)
    )
