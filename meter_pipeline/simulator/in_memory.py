"""The same city without files: day matrices for validation and benchmarks, register reads, and daily usage for anomaly
evaluation.

A day matrix holds what is in hand once everything has arrived: late data is there, corrections are applied, repeats are
gone. What stays is what validation must find: gaps, spikes, drift, shifted hours, meters exchanged.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from meter_pipeline.quality import ACTUAL, MISSING, pack
from meter_pipeline.schemas.reads import NO_VALUE, REGISTER_READS, DayMatrix
from meter_pipeline.simulator.city import Ints, block
from meter_pipeline.simulator.effects import apply_to_totals, chunk_day, solar_ready
from meter_pipeline.simulator.feeds_out import sequence_of
from meter_pipeline.simulator.plan import Plan
from meter_pipeline.simulator.registers import RegisterReads, Registers
from meter_pipeline.simulator.spec import MICRO_PER_QUANTUM, UNIT, Spec, meter_id, service_point_id
from meter_pipeline.simulator.truth import truth_frame
from meter_pipeline.simulator.usage import day_totals, import_weights, share_out

_CHUNK: Final = 12_500
_QUALITY: Final = {"TEST": pack("A", reason=90), "OVERFLOW": pack("A", reason=95)}

#: One row per meter, channel and billing day. ``value`` is the day's quantity and ``min_hour`` the least of any hour
# of it, both in micro base units and null where no read came; ``reads`` and ``expected_reads`` count intervals (of an
# hour for water and gas).
DAILY_USAGE: Final[dict[str, Any]] = {
    "meter_id": pl.String,
    "service_point_id": pl.String,
    "commodity": pl.String,
    "channel": pl.String,
    "unit": pl.String,
    "billing_day": pl.Date,
    "value": pl.Int64,
    "min_hour": pl.Int64,
    "reads": pl.Int32,
    "expected_reads": pl.Int32,
    "station_id": pl.String,
    "customer_class": pl.String,
    "status": pl.String,
    "collector_id": pl.String,
    "head_end": pl.String,
}


def day_matrix(spec: Spec, day: date, plan: Plan | None = None) -> list[DayMatrix]:
    """The city's reported intervals of a billing day, one matrix per interval length, rows sorted by meter and channel.

    ``keys`` holds meter_id, channel, service_point_id, unit, head_end. Values are micro base units, NO_VALUE where
    nothing was reported.
    """
    plan = plan or Plan(spec)
    parts: dict[int, list[tuple[pl.DataFrame, Ints, Any, Ints | None]]] = {}
    for segment in spec.segments:
        if segment.file_format == "register":
            continue
        for first in range(segment.first, segment.last, _CHUNK):
            rows = chunk_day(spec, plan, segment, first, min(first + _CHUNK, segment.last), day)
            slots = rows.values.shape[1]
            rows.values *= MICRO_PER_QUANTUM[segment.commodity]
            quality = np.full(rows.values.shape, ACTUAL, np.uint16)
            offsets: Ints | None = None
            for row, special in rows.special.items():
                if special.missing is not None:
                    rows.values[row][special.missing] = NO_VALUE
                    quality[row][special.missing] = MISSING
                for slot, word in special.quality.items():
                    quality[row, slot] = _QUALITY[word]
                if special.offset_s is not None:
                    offsets = np.zeros((len(rows.ids), slots), np.int64) if offsets is None else offsets
                    offsets[row] = special.offset_s
            letter = {"electricity": "SP-E", "water": "SP-W", "gas": "SP-G"}[segment.commodity]
            keys = pl.DataFrame({"meter_id": rows.ids, "channel": rows.channels, "index": rows.index}).select(
                "meter_id",
                "channel",
                (pl.lit(letter) + pl.col("index").cast(pl.String).str.zfill(7)).alias("service_point_id"),
                pl.lit(UNIT[segment.commodity]).alias("unit"),
                pl.lit(segment.head_end).alias("head_end"),
            )
            parts.setdefault(segment.interval_minutes, []).append((keys, rows.values, quality, offsets))
    return [_joined(day, minutes, found, sequence_of(day)) for minutes, found in sorted(parts.items())]


def _joined(
    day: date, minutes: int, parts: list[tuple[pl.DataFrame, Ints, Any, Ints | None]], sequence: int
) -> DayMatrix:
    keys = pl.concat([k for k, _, _, _ in parts]).with_row_index("row").sort("meter_id", "channel")
    order = keys["row"].to_numpy()
    values = np.concatenate([v for _, v, _, _ in parts])
    offsets = None
    if any(o is not None for _, _, _, o in parts):
        filled = [np.zeros(v.shape, np.int16) if o is None else o.astype(np.int16) for _, v, _, o in parts]
        offsets = np.concatenate(filled)[order]
    return DayMatrix(
        day,
        minutes,
        keys.drop("row"),
        values[order],
        np.concatenate([q for _, _, q, _ in parts])[order],
        np.full(values.shape, sequence, np.int32),
        offsets,
    )


def register_frames(spec: Spec, plan: Plan | None = None) -> tuple[list[pl.DataFrame], Registers]:
    """Register reads per billing day as REGISTER_READS frames: first the opening reads (of the day before), then each
    simulated day's."""
    plan = plan or Plan(spec)
    registers = Registers(spec, plan)
    frames = [
        pl.concat(
            _register_frame(spec, spec.start - timedelta(days=1), s.commodity, registers.opening(s, s.first, s.last))
            for s in spec.segments
            if s.file_format != "register"
        )
    ]
    for index in range(spec.days):
        day = spec.day(index)
        found = []
        for segment in spec.segments:
            for first in range(segment.first, segment.last, _CHUNK):
                last = min(first + _CHUNK, segment.last)
                panels = np.flatnonzero(block(spec, segment.commodity, first, last).solar > 0)
                reads = registers.step(chunk_day(spec, plan, segment, first, last, day), panels)
                found.append(_register_frame(spec, day, segment.commodity, reads))
        frames.append(pl.concat(found))
    return frames, registers


def _register_frame(spec: Spec, day: date, commodity: str, reads: RegisterReads) -> pl.DataFrame:
    start = spec.calendar.start_s(day)
    return (
        pl.DataFrame(
            {
                "meter_id": reads.ids,
                "channel": reads.channels,
                "read_at": (reads.second + start) * 1_000_000,
                "value": reads.dial * MICRO_PER_QUANTUM[commodity],
            },
            schema_overrides={"read_at": pl.Int64},
        )
        .select(
            "meter_id",
            "channel",
            pl.col("read_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            "value",
            pl.lit(UNIT[commodity]).alias("unit"),
            pl.lit(sequence_of(day), pl.Int32).alias("sequence"),
            pl.lit(ACTUAL, pl.UInt16).alias("quality"),
            pl.lit(0, pl.Int64).alias("source_version"),
            pl.lit(None, pl.Datetime("us", "UTC")).alias("read_time"),
            pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("line"),
        )
        .select(list(REGISTER_READS))
    )


def daily_usage(spec: Spec) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Daily usage of every interval meter over the whole range, and the truth: for evaluating detectors on months of
    days.

    Columns as DAILY_USAGE; days whose every read was lost are there with a null value, days with some reads lost hold
    the rest. Meters keep their first id throughout (exchanges are for validation, not for this frame). Totals are those
    the feeds of the same spec would give.
    """
    plan = Plan(spec)
    frames: list[pl.DataFrame] = []
    for segment in spec.segments:
        if segment.file_format == "register":
            continue
        frames.extend(
            _usage_of(spec, plan, segment.commodity, segment.head_end, first, min(first + 5_000, segment.last))
            for first in range(segment.first, segment.last, 5_000)
        )
    return pl.concat(frames), truth_frame(spec, plan)


def _usage_of(spec: Spec, plan: Plan, commodity: str, head_end: str, first: int, last: int) -> pl.DataFrame:
    n, days = last - first, spec.days
    values, exports = np.zeros((days, n), np.int64), np.zeros((days, n), np.int64)
    least, reads, slots_of = np.zeros((days, n), np.int64), np.zeros((days, n), np.int32), np.zeros(days, np.int32)
    traits = block(spec, commodity, first, last)
    panels = np.flatnonzero(traits.solar > 0)
    panel_output = traits.solar.copy()
    arrivals = [s for s in plan.of_kind("solar_arrival") if commodity == s.commodity and first <= s.index < last]
    status = np.zeros((days, n), np.int8)
    minutes = 60 if commodity != "electricity" else spec.interval_minutes
    for index in range(days):
        day = spec.day(index)
        stories = plan.on(commodity, index, first, last)
        slots = spec.calendar.slots(day, minutes)
        slots_of[index] = slots
        traits.solar[:] = panel_output
        solar_ready(traits, arrivals, index)
        total, export = day_totals(spec, traits, day)
        flows = apply_to_totals(spec, stories, day, first, slots, total, export)
        reads[index] = slots
        values[index], exports[index] = total, export
        lost = {
            s.index - first: s for s in stories if s.kind in ("gap_interval", "gap_hours", "gap_day", "dropout_meter")
        }
        if commodity == "water" or lost:
            _hours(
                spec,
                traits,
                day,
                minutes,
                total,
                flows,
                lost,
                values[index],
                least[index],
                reads[index],
                whole=commodity == "water",
            )
        for story in stories:
            if story.kind in ("dropout_collector", "dropout_head_end") and story.head_end == head_end:
                begin, end = story.window(slots)
                a, b = max(story.index, first) - first, min(story.index_last, last) - first
                values[index, a:b] -= values[index, a:b] * (end - begin) // slots
                reads[index, a:b] = slots - (end - begin)
            elif story.kind in ("usage_on_disconnected", "vacant"):
                status[index, story.index - first] = 1 if story.kind == "vacant" else 2
    scale = traits.multiplier * MICRO_PER_QUANTUM[commodity]
    main = {"electricity": "E1", "water": "W1", "gas": "G1"}[commodity]
    columns = (values * scale, least * scale if commodity == "water" else None, reads, slots_of, status)
    frame = _long(spec, commodity, head_end, main, np.arange(first, last), traits, columns)
    if panels.size:
        part = (exports[:, panels] * scale[panels], None, reads[:, panels], slots_of, status[:, panels])
        frame = pl.concat(
            [frame, _long(spec, commodity, head_end, "B1", panels + first, block(spec, commodity, first, last), part)]
        )
    return frame


def _hours(
    spec: Spec,
    traits: Any,
    day: date,
    minutes: int,
    total: Ints,
    flows: dict[int, tuple[int, int, int]],
    lost: dict[int, Any],
    values: Ints,
    least: Ints,
    reads: Any,
    *,
    whole: bool,
) -> None:
    """Fill in what needs the hours of a day: the least hour of water meters, and the sum of what was not lost."""
    rows = np.arange(traits.size) if whole else np.array(sorted(lost), np.int64)
    weights = import_weights(spec, traits, day, minutes)[rows]
    shared = total.copy()
    for row, (flow, _, _) in flows.items():
        shared[row] -= flow
    hours = share_out(shared[rows], weights)
    place = {int(row): k for k, row in enumerate(rows)}
    for row, (flow, begin, end) in flows.items():
        if row in place:
            hours[place[row], begin:end] += np.diff(flow * np.arange(end - begin + 1, dtype=np.int64) // (end - begin))
    if whole:
        least[:] = hours.min(axis=1)
    for row, story in lost.items():
        begin, end = story.window(hours.shape[1])
        values[row] -= int(hours[place[row], begin:end].sum())
        reads[row] = hours.shape[1] - (end - begin)


_STATUS: Final = ("active", "inactive", "disconnected")


def _long(
    spec: Spec, commodity: str, head_end: str, channel: str, index: Any, traits: Any, columns: Any
) -> pl.DataFrame:
    from meter_pipeline.simulator.city import CLASSES
    from meter_pipeline.simulator.plan import collector_size
    from meter_pipeline.simulator.weather import STATIONS

    values, least, reads, slots, status = columns
    days, n = values.shape
    row = np.asarray(index) - traits.first
    segment = next(s for s in spec.segments if s.head_end == head_end and s.commodity == commodity)
    collectors = [f"C-{head_end}-{(int(i) - segment.first) // collector_size(spec):04d}" for i in index]

    def per_meter(texts: list[str]) -> pl.Series:
        return pl.Series(texts).gather(np.tile(np.arange(n, dtype=np.uint32), days))

    flat_reads = reads.reshape(-1)
    frame = pl.DataFrame(
        {
            "meter_id": per_meter([meter_id(commodity, int(i)) for i in index]),
            "service_point_id": per_meter([service_point_id(commodity, int(i)) for i in index]),
            "billing_day": np.repeat(np.arange(days, dtype=np.int32), n),
            "value": values.reshape(-1),
            "min_hour": np.zeros(days * n, np.int64) if least is None else least.reshape(-1),
            "reads": flat_reads,
            "expected_reads": np.repeat(slots, n),
            "station_id": per_meter([STATIONS[int(s)] for s in traits.station[row]]),
            "customer_class": per_meter([CLASSES[int(c)] for c in traits.customer_class[row]]),
            "status": pl.Series(_STATUS).gather(status.reshape(-1).astype(np.uint32)),
            "collector_id": per_meter(collectors),
        }
    )
    nothing = pl.col("reads") == 0
    return frame.select(
        "meter_id",
        "service_point_id",
        pl.lit(commodity).alias("commodity"),
        pl.lit(channel).alias("channel"),
        pl.lit(UNIT[commodity]).alias("unit"),
        (pl.lit(spec.start) + pl.duration(days=pl.col("billing_day"))).cast(pl.Date).alias("billing_day"),
        pl.when(nothing).then(None).otherwise(pl.col("value")).alias("value"),
        pl.when(nothing | pl.lit(least is None)).then(None).otherwise(pl.col("min_hour")).alias("min_hour"),
        pl.col("reads").cast(pl.Int32),
        pl.col("expected_reads").cast(pl.Int32),
        "station_id",
        "customer_class",
        "status",
        "collector_id",
        pl.lit(head_end).alias("head_end"),
    ).select(list(DAILY_USAGE))
