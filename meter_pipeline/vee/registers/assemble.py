"""From reference data and raw reads to rows to validate: expected reads beside received ones.

Every row that reference data expects is there even when nothing arrived; every raw row that reference data does not
know is returned apart, as an exception, never dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from meter_pipeline import units
from meter_pipeline.quality import MISSING
from meter_pipeline.schemas.reads import NO_VALUE, DayMatrix
from meter_pipeline.vee.registers.exchange import installation_windows, slot_windows
from meter_pipeline.vee.registers.reads import Step
from meter_pipeline.vee.registers.series import Registers, multiplied
from meter_pipeline.vee.rules import row_rules as rr
from meter_pipeline.vee.rules.model import SIGNED_FLOWS, Bools, Ints, RowContext, take_rows
from meter_pipeline.vee.rules.thresholds import Thresholds

#: Row rule recorded for a register step found in the day
STEP_RULES: Final = {
    Step.ROLLOVER: rr.ROLLOVER,
    Step.REVERSE_FLOW: rr.REVERSE_FLOW,
    Step.READ_ERROR: rr.READ_ERROR,
    Step.DECREASE: rr.DECREASE,
    Step.DIALS: rr.DIALS,
}
ROW_KEY: Final = ["service_point_id", "meter_id", "channel"]


#: Values past this may leave 64 bits
_MOST: Final = 4e18


@dataclass(slots=True)
class DayRows:
    """Rows of one interval length: the raw matrix in the order of ``keys``, which carry all a stored row needs, and
    their context."""

    matrix: DayMatrix
    keys: pl.DataFrame
    context: RowContext
    day_start_s: int

    def take(self, rows: Ints) -> DayRows:
        """Some rows, ascending."""
        return DayRows(take_rows(self.matrix, rows), self.keys[rows], self.context.take(rows), self.day_start_s)


def with_units(installations: pl.DataFrame) -> pl.DataFrame:
    """Installations with the base unit of each channel beside the declared spelling, and ``unit_micro``, how many
    millionths of the base unit one declared unit is."""
    spellings = installations["declared_unit"].unique().to_list()
    table = {s: units.base_unit(s) for s in spellings}
    base, micro = [b for b, _ in table.values()], [int(factor * units.MICRO) for _, factor in table.values()]
    return installations.with_columns(
        unit=pl.col("declared_unit").replace_strict(list(table), base, return_dtype=pl.String),
        unit_micro=pl.col("declared_unit").replace_strict(list(table), micro, return_dtype=pl.Int64),
    )


def day_windows(installations: pl.DataFrame, day_start_s: int, day_end_s: int) -> pl.DataFrame:
    """Windows of the day's installations, intervals and registers."""
    return installation_windows(installations, day_start_s, day_end_s)


def expected_rows(windows: pl.DataFrame, points: pl.DataFrame, accounts: pl.DataFrame) -> pl.DataFrame:
    """Interval rows the day should have, one per installation and channel, with class, status, account, sorted by
    ROW_KEY.

    ``group`` numbers unit, flow and class over the whole day: rows of one number are each other's peers. Raises
    ValueError where a channel would have two rows: a meter that was taken away and put back within the day.
    """
    rows = (
        windows.filter(pl.col("kind") == "interval")
        .join(points.select("service_point_id", "customer_class", "status"), on="service_point_id", how="left")
        .join(accounts, on="service_point_id", how="left")
        .with_columns(
            has_point=pl.col("status").is_not_null(), customer_class=pl.col("customer_class").fill_null("residential")
        )
        .with_columns(group=pl.struct("unit", "flow", "customer_class").rank("dense").cast(pl.Int32) - 1)
        .sort(*ROW_KEY, "begin_s")
    )
    if rows.select(ROW_KEY).is_duplicated().any():
        twice = rows.filter(pl.struct(ROW_KEY).is_duplicated())
        raise ValueError(f"meter {twice['meter_id'][0]} is installed twice on the day")
    return rows


_NOTHING_UNEXPECTED: Final = pl.DataFrame(
    schema={
        "meter_id": pl.String,
        "channel": pl.String,
        "unit": pl.String,
        "interval_minutes": pl.Int64,
        "declared": pl.Boolean,
        "matrix": pl.Int32,
        "row": pl.Int64,
    }
)


def assemble(
    raw: list[DayMatrix],
    expected: pl.DataFrame,
    day: date,
    day_start_s: int,
    slots_of: dict[int, int],
    thresholds: Thresholds,
    future_s: int,
    reused: pl.DataFrame,
) -> tuple[list[DayRows], pl.DataFrame]:
    """One DayRows per interval length, and the raw rows that are not expected (meter_id, channel, unit,
    interval_minutes, reads).

    ``expected`` as from ``expected_rows``; ``slots_of``: slots of the day by interval length; ``future_s``: the
    present, UTC seconds; ``reused``: channels whose sequence numbers came twice. A raw row whose interval length is not
    the declared one is not used: its channel is estimated, and the row is returned among the unexpected with its own
    length.
    """
    if not raw and not expected.height:
        return [], _NOTHING_UNEXPECTED  # a day of registers alone
    offered = [
        m.keys.select("meter_id", "channel", pl.col("unit").alias("raw_unit")).with_columns(
            pl.lit(m.interval_minutes, pl.Int64).alias("raw_minutes"),
            pl.lit(i, pl.Int32).alias("matrix"),
            pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        )
        for i, m in enumerate(raw)
    ]
    schema = {
        "meter_id": pl.String,
        "channel": pl.String,
        "raw_unit": pl.String,
        "raw_minutes": pl.Int64,
        "matrix": pl.Int32,
        "row": pl.Int64,
    }
    arrived = pl.concat(offered) if offered else pl.DataFrame(schema=schema)
    declared = expected.with_columns(pl.col("interval_minutes").cast(pl.Int64))
    matched = declared.join(arrived, on=["meter_id", "channel"], how="left", maintain_order="left").filter(
        pl.col("raw_minutes").is_null()
        | pl.col("interval_minutes").is_null()
        | (pl.col("raw_minutes") == pl.col("interval_minutes"))
    )
    # a channel whose only data has another length still has its row, empty
    empty = declared.join(matched.select(ROW_KEY), on=ROW_KEY, how="anti").with_columns(
        pl.lit(None, t).alias(c) for c, t in schema.items() if c not in declared.columns
    )
    rows = (
        pl.concat([matched, empty.select(matched.columns)])
        .with_columns(minutes=pl.coalesce("interval_minutes", "raw_minutes"))
        .filter(pl.col("minutes").is_not_null())
    )
    used = rows.filter(pl.col("row").is_not_null()).select("meter_id", "channel", pl.col("raw_minutes"))
    unexpected = arrived.join(used, on=["meter_id", "channel", "raw_minutes"], how="anti")
    known = declared.select("meter_id", "channel").unique().with_columns(declared=pl.lit(True))
    unexpected = (
        unexpected.join(known, on=["meter_id", "channel"], how="left")
        .select(
            "meter_id",
            "channel",
            pl.col("raw_unit").alias("unit"),
            pl.col("raw_minutes").alias("interval_minutes"),
            pl.col("declared").fill_null(False),
            "matrix",
            "row",
        )
        .sort("meter_id", "channel", "interval_minutes")
    )
    marked = reused.select("meter_id", "channel", pl.col("slots").alias("reused_slots"), reused=pl.lit(True))
    rows = rows.join(marked, on=["meter_id", "channel"], how="left")
    out = []
    for minutes in sorted(rows["minutes"].unique().to_list()):
        part = rows.filter(pl.col("minutes") == minutes).sort(ROW_KEY)
        out.append(_day_rows(raw, part, day, day_start_s, int(minutes), slots_of, thresholds, future_s))
    return out, unexpected


def _day_rows(
    raw: list[DayMatrix],
    part: pl.DataFrame,
    day: date,
    day_start_s: int,
    minutes: int,
    slots_of: dict[int, int],
    thresholds: Thresholds,
    future_s: int,
) -> DayRows:
    slots = slots_of[minutes]
    part = slot_windows(part, day_start_s, pl.lit(minutes * 60))
    n = part.height
    source = part["matrix"].to_numpy() if part["matrix"].null_count() == 0 else part["matrix"].fill_null(-1).to_numpy()
    row = part["row"].fill_null(-1).to_numpy()
    matrix = _with_factors(_gather(raw, source, row, n, slots, day, minutes), part)
    limits = part.select("customer_class", "unit").unique()
    table = {(k, u): thresholds.limit_per_hour(k, u) * minutes // 60 for k, u in limits.iter_rows()}
    limit = part.join(
        pl.DataFrame(
            {"customer_class": [k for k, _ in table], "unit": [u for _, u in table], "limit": list(table.values())},
            schema={"customer_class": pl.String, "unit": pl.String, "limit": pl.Int64},
        ),
        on=["customer_class", "unit"],
        how="left",
        maintain_order="left",
    )["limit"].to_numpy()
    present = part["raw_unit"].is_not_null()
    behind = future_s - day_start_s
    context = RowContext.plain(n, slots)
    context.known = part["has_point"].to_numpy()
    context.unit_ok = (~present | (part["raw_unit"] == part["unit"]).fill_null(True)).to_numpy()
    context.multiplier_ok = (part["multiplier_micro"] > 0).to_numpy()
    context.signed = part["flow"].is_in(SIGNED_FLOWS).to_numpy()
    context.active = (part["status"] == "active").fill_null(True).to_numpy()
    context.limit = np.ascontiguousarray(limit)
    context.first = part["first"].to_numpy().astype(np.int32)
    context.last = np.minimum(part["last"].to_numpy(), slots).astype(np.int32)
    context.straddle = part.select("straddle_first", "straddle_last").to_numpy().astype(np.int32)
    context.straddle_share = part.select("share_first", "share_last").to_numpy().astype(np.int32)
    gap_end = part.select((pl.col("end_s") + pl.col("gap_s") - day_start_s) // (minutes * 60)).to_series().to_numpy()
    context.meterless = np.stack(
        [context.last, np.where(part["gap_s"].to_numpy() > 0, np.maximum(gap_end, context.last), context.last)], axis=1
    )
    context.sequence_reused, context.reused_slots = _reused(part, slots)
    context.group = np.ascontiguousarray(part["group"].to_numpy())
    context.future_from = int(min(max(behind // (minutes * 60), 0), slots))
    absent = (pl.col("raw_unit").is_null() & pl.col("billed")).any().over("service_point_id", "meter_id")
    context.sibling_missing = part.select(pl.col("raw_unit").is_not_null() & absent).to_series().to_numpy()
    flags = np.where(part["handover"].to_numpy(), rr.EXCHANGE.mask, 0) | np.where(
        part["gap_s"].to_numpy() > 0, rr.METERLESS_GAP.mask, 0
    )
    context.register_flags = flags.astype(np.int64)
    return DayRows(matrix, part, context, day_start_s)


def _reused(part: pl.DataFrame, slots: int) -> tuple[Bools, Bools]:
    """Rows with a reused sequence number, and its slots: all of them where only the channel is known."""
    rows: Bools = part["reused"].fill_null(False).to_numpy()
    found = np.zeros((part.height, slots if rows.any() else 0), np.bool_)
    for i in np.flatnonzero(rows):
        slots_again = part["reused_slots"][int(i)]
        if slots_again is None:
            found[i] = True
        else:
            found[i, slots_again.filter(slots_again < slots).to_numpy()] = True
    return rows, found


def _gather(raw: list[DayMatrix], source: Ints, row: Ints, n: int, slots: int, day: date, minutes: int) -> DayMatrix:
    """The raw rows in the wanted order; a row that did not come is empty. No copy where order and rows are the raw
    matrix's own."""
    sources = np.unique(source)
    if sources.size == 1 and sources[0] >= 0:
        only = raw[int(sources[0])]
        if only.rows == n and np.array_equal(row, np.arange(n)):
            return DayMatrix(day, minutes, pl.DataFrame(), only.values, only.quality, only.sequence, only.offsets)
    values = np.full((n, slots), NO_VALUE, np.int64)
    codes = np.full((n, slots), MISSING, np.uint16)
    sequence = np.zeros((n, slots), np.int32)
    offsets = (
        np.zeros((n, slots), np.int16) if any(raw[int(i)].offsets is not None for i in sources if i >= 0) else None
    )
    for i in sources:
        if i < 0:
            continue
        mine = np.flatnonzero(source == i)
        m = raw[int(i)]
        width = min(slots, m.slots)
        values[mine, :width] = m.values[row[mine], :width]
        codes[mine, :width] = m.quality[row[mine], :width]
        sequence[mine, :width] = m.sequence[row[mine], :width]
        if offsets is not None and m.offsets is not None:
            offsets[mine, :width] = m.offsets[row[mine], :width]
    return DayMatrix(day, minutes, pl.DataFrame(), values, codes, sequence, offsets)


def _with_factors(matrix: DayMatrix, part: pl.DataFrame) -> DayMatrix:
    """The reads of rows whose channel has a factor on the day (``factor_micro``), multiplied. Raises OverflowError for
    one that is beyond 64 bits then."""
    own = part["factor_micro"].fill_null(units.MICRO).to_numpy()
    at = np.flatnonzero(own != units.MICRO)
    if not at.size:
        return matrix
    read, factor = matrix.values[at], own[at, None]
    has_read = read != NO_VALUE
    if (np.abs(np.where(has_read, read, 0)) * (factor / units.MICRO) > _MOST).any():
        raise OverflowError(
            f"meter {part['meter_id'][int(at[0])]}: its intervals times their multiplier are beyond 64 bits"
        )
    values = matrix.values.copy()
    values[at] = np.where(
        has_read, multiplied(np.where(has_read, read, 0), np.broadcast_to(factor, read.shape)), NO_VALUE
    )
    return replace(matrix, values=values)


def _take_off_overlap(rows: DayRows, known: Bools, quantity: Ints) -> None:
    """Lessen the difference of registers that also counted in another meter's time by what their meter read then;
    unknown where it did not."""
    keys = rows.keys
    both = (
        keys.select((pl.col("register_begin_s") < pl.col("begin_s")) | (pl.col("register_end_s") > pl.col("end_s")))
        .to_series()
        .to_numpy()
    )
    step = rows.matrix.interval_minutes * 60
    for row in np.flatnonzero(both & known):
        mine = keys.row(int(row), named=True)
        before = range((mine["register_begin_s"] - rows.day_start_s) // step, int(rows.context.first[row]))
        after = range(
            int(rows.context.last[row]), min(-((rows.day_start_s - mine["register_end_s"]) // step), rows.matrix.slots)
        )
        values = rows.matrix.values[row, [*before, *after]]
        known[row] = bool((values != NO_VALUE).all())
        quantity[row] -= int(values.sum()) if known[row] else 0


def attach_registers(rows: DayRows, registers: Registers, thresholds: Thresholds) -> None:
    """Give each interval row the difference, tolerance and flags of its total register, and the check of its
    time-of-use registers.

    The difference holds only where reads stand on both edges of the row's window: a prorated edge is no measurement to
    scale to.
    """
    use = registers.use
    flags = np.zeros(registers.frame.height, np.int64)
    for step, rule in STEP_RULES.items():
        flags |= np.where(use.causes & (1 << step), rule.mask, 0)
    sure = (use.quantity != NO_VALUE) & (use.gap_s == 0)
    frame = registers.frame.select(
        "service_point_id",
        "meter_id",
        pl.col("sums_to").alias("channel"),
        "total",
        pl.when(pl.col("unit_micro") >= units.MICRO)
        .then(pl.col("multiplier_micro") * (pl.col("unit_micro") // units.MICRO))
        .otherwise(pl.col("multiplier_micro") * pl.col("unit_micro") // units.MICRO)
        .alias("multiplier_micro"),
        "decimals",
    ).with_columns(
        flags=pl.Series(flags),
        quantity=pl.Series(np.where(sure, use.quantity, 0)),
        sure=pl.Series(sure),
        reads=pl.Series(use.reads),
    )
    key = ["service_point_id", "meter_id", "channel"]
    totals = (
        frame.filter(pl.col("total"))
        .group_by(key)
        .agg(
            pl.col("quantity").sum(),
            pl.col("sure").all(),
            pl.col("flags").bitwise_or(),
            pl.col("multiplier_micro").max(),
            pl.col("decimals").min().fill_null(0),
        )
    )
    parts = (
        frame.filter(~pl.col("total"))
        .group_by(key)
        .agg(
            pl.col("quantity").sum().alias("part_sum"),
            pl.col("sure").all().alias("part_sure"),
            pl.len().alias("parts"),
            pl.col("multiplier_micro").max().alias("part_multiplier"),
            pl.col("decimals").min().fill_null(0).alias("part_decimals"),
        )
    )
    joined = (
        rows.keys.select(key)
        .join(totals, on=key, how="left", maintain_order="left")
        .join(parts, on=key, how="left", maintain_order="left")
    )
    context = rows.context
    known = joined["sure"].fill_null(False).to_numpy().copy()
    quantity = joined["quantity"].fill_null(0).to_numpy().copy()
    _take_off_overlap(rows, known, quantity)
    context.register_difference = np.where(known, quantity, NO_VALUE)
    digit = 10 ** (
        6
        - joined.select(pl.coalesce("decimals", "part_decimals", 0).clip(0, 6)).to_series().to_numpy().astype(np.int64)
    )
    unit = multiplied(
        digit, joined.select(pl.coalesce("multiplier_micro", "part_multiplier", 1_000_000)).to_series().to_numpy()
    )
    context.register_tolerance = thresholds.register_tolerance.of(unit, context.expected.astype(np.int64))
    has: Bools = joined["sure"].is_not_null().to_numpy()
    context.register_flags |= joined["flags"].fill_null(0).to_numpy() | np.where(has & ~known, rr.NO_REGISTER.mask, 0)
    # time-of-use registers: against the total register where it was read; else they are the total, where they counted
    # in no other meter's time
    split = joined["parts"].fill_null(0).to_numpy() > 1
    part_known = joined["part_sure"].fill_null(False).to_numpy()
    part_sum = joined["part_sum"].fill_null(0).to_numpy()
    keys = rows.keys
    own_time = (
        keys.select((pl.col("register_begin_s") == pl.col("begin_s")) & (pl.col("register_end_s") == pl.col("end_s")))
        .to_series()
        .to_numpy()
    )
    alone = split & part_known & ~known & own_time
    context.register_difference = np.where(alone, part_sum, context.register_difference)
    both = split & part_known & known
    count = joined["parts"].fill_null(0).to_numpy().astype(np.int64)
    context.tou_mismatch = both & (
        np.abs(part_sum - context.register_difference) > thresholds.sum_register_units * unit * np.maximum(count, 1)
    )
