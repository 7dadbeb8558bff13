"""State of a NEM12 reader: the records it has read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meter_pipeline.feeds.rejects import Reason, shown

I64 = npt.NDArray[np.int64]
#: packed code of a quality method and a reason code; UTC microseconds of a named date-time: both add to the reasons
# faults
ReadQuality = Callable[[str, str, list[Reason]], int]
ReadInstant = Callable[[str, str, list[Reason]], int | None]


@dataclass(frozen=True, slots=True)
class BlockDetails:
    """A 200 record: codes of its texts, minutes of its intervals, or the reasons it was refused for."""

    line: int
    meter: int = -1
    channel: int = -1
    unit: int = -1
    minutes: int = 0
    header: int = -1
    refused: tuple[Reason, ...] = ()


@dataclass(slots=True)
class BlockRecords:
    """The interval records of one block, all of them good so far."""

    line: I64
    offset: I64
    date: I64
    count: I64
    tail: I64
    details: I64
    micro: I64


@dataclass(frozen=True, slots=True)
class Event:
    """A 400 record: the interval record it follows, its range (from 1, both included), its quality code."""

    record: int
    first: int
    last: int
    quality: int


class RecordTails:
    """The fields after the values of a 300 record, per distinct text: quality, version, read time, or the reasons it
    is refused for."""

    def __init__(self, quality: ReadQuality, instant: ReadInstant) -> None:
        self._quality, self._instant = quality, instant
        self._codes: dict[bytes, int] = {}
        self.variable: list[bool] = []
        self.quality: list[int] = []
        self.version: list[int | None] = []
        self.read_time: list[int | None] = []
        self.reasons: list[list[Reason]] = []

    def code(self, text: bytes) -> int:
        """The number of a tail, judged when it is new."""
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._codes)
            self._judge(text)
        return code

    def _judge(self, text: bytes) -> None:
        reasons: list[Reason] = []
        try:
            fields = split(text)
        except (csv.Error, UnicodeDecodeError) as error:
            fields = []
            reasons.append(
                Reason("wrong_encoding" if isinstance(error, UnicodeDecodeError) else "bad_quoting", shown(text))
            )
        word, reason, _, update, load = [*fields, "", "", "", "", ""][:5]
        if any(fields[5:]):
            reasons.append(Reason("too_many_fields", f"after the values stands {shown(text)}"))
        if not word and not reasons:
            reasons.append(Reason("truncated_row", "the record ends before its quality method"))
        variable = word == "V"
        code = 0 if variable or not word else self._quality(word, reason, reasons)
        times: list[int | None] = []
        for name, stamp in (("UpdateDateTime", update), ("MSATSLoadDateTime", load)):
            times.append(self._instant(name, stamp, reasons))
        self.variable.append(variable)
        self.quality.append(code)
        self.read_time.append(times[0])
        self.version.append(next((time // 1_000_000 for time in times if time is not None), None))
        self.reasons.append(reasons)


def split(line: bytes) -> list[str]:
    """The comma-separated fields of a record, blanks around them dropped."""
    text = line.decode("utf-8")
    if '"' not in text:
        return [field.strip(" ") for field in text.split(",")]
    rows = list(csv.reader([text], strict=True))
    return [field.strip(" ") for field in rows[0]] if rows else []
