"""The frame of a NEM12 file's intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.feeds.nem12_parts import I64
from meter_pipeline.quality import FLAGS
from meter_pipeline.schemas.reads import INTERVAL_READS, UTC_US, ParsedFeed

if TYPE_CHECKING:
    from meter_pipeline.feeds.nem12 import NemReader


@dataclass(frozen=True, slots=True)
class IntervalDays:
    """The days of a file, an element each: line, codes of date, tail and 200 record, number of values, and the place of
    the first one among all."""

    line: I64
    date: I64
    count: I64
    first: I64
    tail: I64
    details: I64


def interval_frame(
    reader: NemReader, parsed: ParsedFeed, days: IntervalDays, quality: npt.NDArray[np.uint16], micro: I64
) -> pl.DataFrame:
    """Days as interval reads, a row a value; notes the units of the file in ``parsed``."""
    line, date, count, tail, details = days.line, days.date, days.count, days.tail, days.details
    known = reader.details
    minutes = np.array([each.minutes for each in known], np.int64)[details]
    slot = np.arange(micro.size, dtype=np.int64) - np.repeat(days.first, count)
    start = np.repeat(reader.dates.first[date], count) + slot * np.repeat(minutes * 60_000_000, count)
    for each in dict.fromkeys(known[i] for i in np.unique(details).tolist()):
        key = reader.meters.values[each.meter], reader.channels.values[each.channel]
        parsed.file_units.setdefault(key, reader.units.spelling[each.unit])
    created = np.array(
        [-1 if at < 0 else (reader.headers[at] or 0) // 1_000_000 for at in [each.header for each in known]],
        np.int64,
    )
    own = np.array([-1 if version is None else version for version in [*reader.tails.version, None]], np.int64)[tail]
    version = np.where(own >= 0, own, np.maximum(created[details], 0))
    read_time = pl.Series("read_time", [*reader.tails.read_time, None], pl.Int64).cast(UTC_US)

    def spread(name: str, per_record: pl.Series) -> pl.Series:
        index = pl.Series(np.repeat(np.arange(line.size, dtype=np.uint32), count))
        return per_record.gather(index).alias(name)

    def texts(values: list[str], codes: list[int]) -> pl.Series:
        return pl.Series(values, dtype=pl.String).gather(
            pl.Series(np.array(codes, np.int64)[details].astype(np.uint32))
        )

    columns = {
        "meter_id": spread("meter_id", texts(reader.meters.values, [each.meter for each in known])),
        "channel": spread("channel", texts(reader.channels.values, [each.channel for each in known])),
        "interval_start": pl.Series("interval_start", start).cast(UTC_US),
        "interval_minutes": pl.Series("interval_minutes", np.repeat(minutes.astype(np.int16), count)),
        "value": pl.Series("value", micro).set(pl.Series(quality >> 13 == FLAGS.index("N")), None),
        "unit": spread("unit", texts(reader.units.base, [each.unit for each in known])),
        "sequence": pl.Series("sequence", [0], pl.Int32).new_from_index(0, micro.size),
        "quality": pl.Series("quality", quality),
        "source_version": pl.Series("source_version", np.repeat(version, count)),
        "read_time": spread("read_time", read_time.gather(pl.Series(tail.astype(np.uint32)))),
        "line": pl.Series("line", np.repeat(line, count)),
    }
    return pl.DataFrame({name: columns[name] for name in INTERVAL_READS})
