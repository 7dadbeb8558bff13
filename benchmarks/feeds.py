"""Parsing: delimited text and NEM12 to the canonical frame, beside the floor and beside aemo-mdff-reader.

The floor of delimited text is Polars' own read_csv, which neither checks nor converts; the floor of both is reading the
bytes. Files are made once per run in a scratch folder. Every reader is run once before it is timed, so compilation and
caches favour nobody.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feed_shapes import make_shapes
from benchmarks.support import alternate, document
from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import HeadEnd, parse

UTC = BillingCalendar("UTC")
CSV = HeadEnd(
    "bench",
    "delimited",
    interval_minutes=15,
    unit="kWh",
    columns={"meter_id": "meter_id", "time": "time", "value": "value", "quality": "quality"},
)
NEM12 = HeadEnd("bench", "nem12")


def make_csv(path: Path, meters: int, seed: int = 1) -> int:
    """A day of quarter-hours, one line a read: 46 bytes a line. Returns the number of reads."""
    random = np.random.default_rng(seed)
    start = datetime(2026, 3, 2)  # noqa: DTZ001 - a wall clock, written with its offset
    stamps = [f"{start + timedelta(minutes=15 * k):%Y-%m-%dT%H:%M:%S}-06:00" for k in range(96)]
    with path.open("w", encoding="ascii") as file:
        file.write("meter_id,time,value,quality\n")
        for meter in range(meters):
            values = random.integers(0, 3000, 96).tolist()
            file.write(
                "".join(
                    f"MTR-{meter:07d},{stamp},{v // 1000}.{v % 1000:03d},A\n"
                    for stamp, v in zip(stamps, values, strict=True)
                )
            )
    return meters * 96


def make_nem12(path: Path, channels: int, days: int = 10, seed: int = 1) -> int:
    """Half-hours of some days per channel. Returns the number of readings."""
    random = np.random.default_rng(seed)
    with path.open("w", encoding="ascii") as file:
        file.write("100,NEM12,202603030000,A,B\n")
        for channel in range(channels):
            file.write(f"200,NMI{channel:07d},E1,E1,E1,N1,SER{channel},kWh,30,\n")
            for day in range(1, days + 1):
                text = ",".join(f"{v / 1000:.3f}" for v in random.integers(0, 3000, 48).tolist())
                file.write(f"300,202603{day:02d},{text},A,,,202603{day + 1:02d}010203,202603{day + 1:02d}010203\n")
        file.write("900\n")
    return channels * days * 48


def _read_bytes(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return sum(len(piece) for piece in iter(lambda: file.read(8 << 20), b""))


def run(meters: int = 100_000, channels: int = 10_000, repeats: int = 3, shape_meters: int = 5_000) -> dict[str, Any]:
    """Seconds and rates of each reader; ratios against the floors, the peer, and of each shape of docs/feeds.md against
    the plain file with the same reads (``shape_meters`` meters; 0: none)."""
    import polars as pl

    with tempfile.TemporaryDirectory() as folder:
        csv, nem12 = Path(folder) / "day.csv", Path(folder) / "month.csv"
        reads, readings = make_csv(csv, meters), make_nem12(nem12, channels)
        work: dict[str, Callable[[], Any]] = {
            "csv": lambda: parse(csv, CSV, UTC),
            "csv_polars_read": lambda: pl.read_csv(csv),
            "csv_bytes": lambda: _read_bytes(csv),
            "nem12": lambda: parse(nem12, NEM12, UTC),
            "nem12_bytes": lambda: _read_bytes(nem12),
        }
        try:
            from aemo_mdff_reader import parse_to_columns
        except ImportError:
            pass
        else:
            work["nem12_aemo_mdff_reader"] = lambda: parse_to_columns(str(nem12))
        for call in work.values():  # once uncounted: compilation and caches favour nobody
            call()
        seconds = alternate(work, repeats)
        shapes = _shapes(Path(folder), shape_meters, repeats) if shape_meters else {}
    ratios: dict[str, float | None] = {
        "csv_over_polars_read": seconds["csv"] / seconds["csv_polars_read"],
        "csv_over_bytes": seconds["csv"] / seconds["csv_bytes"],
        "nem12_over_bytes": seconds["nem12"] / seconds["nem12_bytes"],
    }
    if "nem12_aemo_mdff_reader" in seconds:
        ratios["aemo_mdff_reader_over_ours"] = seconds["nem12_aemo_mdff_reader"] / seconds["nem12"]
    figures = {
        **{f"{name}_s": value for name, value in seconds.items()},
        "csv_reads_per_s": reads / seconds["csv"],
        "nem12_readings_per_s": readings / seconds["nem12"],
    }
    config = {"meters": meters, "csv_reads": reads, "nem12_readings": readings, "repeats": repeats}
    ratios |= {f"{name}_over_plain": each / shapes["plain"] for name, each in shapes.items() if name != "plain"}
    figures |= {f"shape_{name}_s": each for name, each in shapes.items()}
    return document("feeds", config | {"shape_meters": shape_meters}, figures, ratios)


def _shapes(folder: Path, meters: int, repeats: int) -> dict[str, float]:
    """Seconds of each shape."""
    files = make_shapes(folder, meters)
    work: dict[str, Callable[[], Any]] = {
        name: partial(parse, path, head_end, UTC) for name, (path, head_end) in files.items()
    }
    for call in work.values():
        call()
    return alternate(work, repeats)
