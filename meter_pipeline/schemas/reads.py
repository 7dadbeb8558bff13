"""The canonical reads: the frames that every feed format is parsed into and that the raw store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

UTC_US: Final = pl.Datetime("us", "UTC")

#: One row per interval, as it came from a file. ``line`` is the 1-based line (or element) of the file it was read from.
INTERVAL_READS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "meter_id": pl.String,
    "channel": pl.String,
    "interval_start": UTC_US,
    "interval_minutes": pl.Int16,
    "value": pl.Int64,
    "unit": pl.String,
    "sequence": pl.Int32,
    "quality": pl.UInt16,
    "source_version": pl.Int64,
    "read_time": UTC_US,
    "line": pl.Int64,
}

#: One row per reading of a cumulative register. ``value`` is the dial, not the consumption.
REGISTER_READS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "meter_id": pl.String,
    "channel": pl.String,
    "read_at": UTC_US,
    "value": pl.Int64,
    "unit": pl.String,
    "sequence": pl.Int32,
    "quality": pl.UInt16,
    "source_version": pl.Int64,
    "read_time": UTC_US,
    "line": pl.Int64,
}

#: Rejected lines: bytes kept as they came, every reason named.
REJECTS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "line": pl.Int64,
    "byte_offset": pl.Int64,
    "raw": pl.Binary,
    "reasons": pl.List(pl.Struct({"code": pl.String, "detail": pl.String})),
    "reads": pl.Int64,  # how many reads the rejected payload held, so that received = accepted + ... + rejected adds up
}

#: Consumption over a stretch of time, as the file states it: NEM13 quantities, Green Button blocks longer than a day.
# What is billed are the register reads made of them (same channel, ``registers``); this frame keeps the file's own
# figure to compare with. ``by_dials``: what the two dials of the record say, null where the file gives none.
PERIOD_READS: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "meter_id": pl.String,
    "channel": pl.String,
    "period_start": UTC_US,
    "period_end": UTC_US,
    "value": pl.Int64,
    "by_dials": pl.Int64,
    "unit": pl.String,
    "quality": pl.UInt16,
    "source_version": pl.Int64,
    "read_time": UTC_US,
    "line": pl.Int64,
}

#: No read in this slot.
NO_VALUE: Final = np.iinfo(np.int64).min


@dataclass(slots=True)
class DayMatrix:
    """A billing day of interval channels with one interval length: the shape that every vectorised stage works on.

    ``keys`` has one row per matrix row (at least meter_id and channel, sorted by them). The matrices are (rows, slots):
    ``values`` int64 micro base units with NO_VALUE where there is no read, ``quality`` uint16 codes, ``sequence``
    int32. ``offsets`` is None where every read was on the grid, otherwise seconds after it.
    """

    billing_day: date
    interval_minutes: int
    keys: pl.DataFrame
    values: npt.NDArray[np.int64]
    quality: npt.NDArray[np.uint16]
    sequence: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int16] | None = None

    @property
    def rows(self) -> int:
        return int(self.values.shape[0])

    @property
    def slots(self) -> int:
        return int(self.values.shape[1])

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Where a value was read or estimated."""
        present: npt.NDArray[np.bool_] = self.values != NO_VALUE
        return present


@dataclass(slots=True)
class ParsedFeed:
    """The content of one file: interval reads, register reads and rejects. ``received`` counts every read in the
    file, valid or not."""

    file_format: str
    intervals: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=INTERVAL_READS))
    registers: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REGISTER_READS))
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECTS))
    #: the unit spelling of the file by (meter_id, channel), for reports in the file's own unit
    file_units: dict[tuple[str, str], str] = field(default_factory=dict)
    #: import, export, net or other by (meter_id, channel), where the file or the declaration says it
    flows: dict[tuple[str, str], str] = field(default_factory=dict)
    #: the same by channel alone (``*`` for every other one), as the declaration says it; likewise digits of dials
    channel_flows: dict[str, str] = field(default_factory=dict)
    channel_dials: dict[str, int] = field(default_factory=dict)
    #: likewise where dials start again at 0, in their own unit
    channel_moduli: dict[str, Decimal] = field(default_factory=dict)
    periods: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PERIOD_READS))
    #: by (meter_id, channel) the sum of the stored values less the sum of the file's own, in micro base units, where
    #: digits beyond a millionth were rounded as declared
    roundings: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    #: lines of the file that hold no read (a preamble, a footer), for what they say of the file
    noted: list[str] = field(default_factory=list)
    #: rows that the declaration passes over (totals, other head-ends' rows)
    skipped: int = 0
    #: SHA-256 (hex) of the bytes on disk that were parsed, empty where the file could not be read to its end
    sha256: str = ""

    def flow(self, meter: str, channel: str) -> str | None:
        """Returns import, export, net or other, where the declaration or the file states it: in NEM12 and NEM13
        files, B channels flow to the grid and N channels are net (AEMO's list of suffixes). In other formats, the
        channel's name does not state a flow."""
        stated = self.flows.get((meter, channel)) or self.channel_flows.get(channel) or self.channel_flows.get("*")
        if stated is None and self.file_format in ("nem12", "nem13"):
            return {"B": "export", "N": "net"}.get(channel[:1])
        return stated

    @property
    def received(self) -> int:
        rejected = int(self.rejects["reads"].sum() or 0) if self.rejects.height else 0
        return self.intervals.height + self.registers.height + rejected

    @property
    def stated_differences(self) -> pl.DataFrame:
        """Returns periods whose stated consumption differs from their own two dials: line, meter_id, channel,
        period_start, period_end, value, by_dials, unit."""
        stated_quantities = self.periods.select(
            "line", "meter_id", "channel", "period_start", "period_end", "value", "by_dials", "unit"
        )
        return (
            stated_quantities.filter(pl.col("value") != pl.col("by_dials")).sort("line")
            if stated_quantities.height
            else stated_quantities
        )
