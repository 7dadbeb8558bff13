"""The plainest feed there is, for load benchmarks: meter_id,interval_start,kwh,sequence, one line per interval, nothing
wrong in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np

from meter_pipeline.simulator.city import block
from meter_pipeline.simulator.feeds_out import sequence_of
from meter_pipeline.simulator.spec import Spec, meter_id
from meter_pipeline.simulator.usage import day_totals, import_weights, share_out
from meter_pipeline.simulator.writers import plain_lines, stamp_text

CLEAN_HEADER = b"meter_id,interval_start,kwh,sequence\n"
_CHUNK = 12_500


def write_clean_csv(spec: Spec, day: date, folder: Path, *, meters_per_file: int | None = None) -> list[Path]:
    """Write a billing day of the city's electricity imports as clean CSV (ISO UTC stamps with Z, kWh to three places);
    the files written.

    ``meters_per_file`` defaults to the spec's. Memory is that of a chunk, whatever the file's size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    per_file = meters_per_file or spec.meters_per_file
    count = spec.counts["electricity"]
    step = spec.interval_minutes * 60
    start = spec.calendar.start_s(day)
    stamps = [
        stamp_text(start + k * step, spec.zone, "utc") + ","
        for k in range(spec.calendar.slots(day, spec.interval_minutes))
    ]
    written = []
    for part, first in enumerate(range(0, count, per_file)):
        path = folder / f"clean_{day:%Y%m%d}_{part:02d}.csv"
        with path.open("wb") as file:
            file.write(CLEAN_HEADER)
            file.writelines(_blocks(spec, day, first, min(first + per_file, count), stamps))
        written.append(path)
    return written


def _blocks(spec: Spec, day: date, first: int, last: int, stamps: list[str]) -> Iterator[bytes]:
    tail = f",{sequence_of(day)}"
    for at in range(first, last, _CHUNK):
        traits = block(spec, "electricity", at, min(at + _CHUNK, last))
        total, _ = day_totals(spec, traits, day)
        values = share_out(total, import_weights(spec, traits, day, spec.interval_minutes))
        if np.any(traits.multiplier != 1):
            values *= traits.multiplier[:, None]
        yield from plain_lines(
            [meter_id("electricity", i) + "," for i in range(at, at + traits.size)], stamps, values, 3, tail
        )
