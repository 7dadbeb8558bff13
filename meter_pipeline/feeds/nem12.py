"""AEMO meter data files: NEM12 (interval) and NEM13 (accumulation), Meter Data File Format.

Times are Australian Eastern Standard Time all year (+10:00); a head-end may declare another fixed zone (Western Power
files are +08:00). The NMI is the meter_id, the NMI suffix the channel. The source version is the record's
UpdateDateTime (else MSATSLoadDateTime, else the file's own date) in Unix seconds, and the read time is the
UpdateDateTime.

Quality. A 300 record has one flag and method for its day, or V: then 400 records say it per range of intervals. A 400
record is obeyed with or without a V. A V day that its 400 records do not cover is refused whole, and so is a day of
which two of them say different things: it is unknown what its values are. A value of quality N is null, whatever number
stands there. A record is one payload: a 300 with one bad value is refused with all its values, since a day with a hole
that the file does not admit to is worse than a day to be asked for again.
"""

from __future__ import annotations

import csv
import re
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled
from meter_pipeline.feeds import kernels_nem12 as kernels
from meter_pipeline.feeds.coded_columns import Ids, Qualities, Rounded, Stamps, Units
from meter_pipeline.feeds.files import (
    DEFAULT_LIMITS,
    Block,
    Limits,
    LongLine,
    fetch_lines,
    limits_of,
    line_blocks,
    open_feed,
)
from meter_pipeline.feeds.head_ends import HeadEnd
from meter_pipeline.feeds.nem12_frames import IntervalDays, interval_frame
from meter_pipeline.feeds.nem12_parts import I64, BlockDetails, BlockRecords, Event, RecordTails, split
from meter_pipeline.feeds.nem12_refusals import refusal_of
from meter_pipeline.feeds.nem13 import Accumulations
from meter_pipeline.feeds.rejects import FeedRefused, Reason, Rejects, shown
from meter_pipeline.feeds.times import StampParser
from meter_pipeline.schemas.reads import INTERVAL_READS, ParsedFeed

AEST: Final = "+10:00"
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
DAY_MINUTES: Final = 1440


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a NEM12 file to interval reads or a NEM13 file to register reads and periods. FeedRefused for a file that
    is neither."""
    limits = limits_of(head_end.options, limits)
    reader = NemReader(head_end)
    with open_feed(path, limits, head_end.encoding) as opened:
        for piece in line_blocks(opened.source, limits):
            if isinstance(piece, LongLine):
                detail = f"{piece.length} bytes, at most {limits.max_line_bytes}"
                reader.rejects.add(
                    piece.line, piece.offset, piece.head, [Reason("line_too_long", detail)], reads=reader.expected
                )
            else:
                reader.read(piece, opened.size, limits)
        if reader.version is None:
            raise FeedRefused("empty_file", f"{opened.size} bytes, no record")
    parsed = reader.finish(partial(fetch_lines, path, head_end.encoding, limits))
    parsed.sha256 = opened.sha256
    return parsed


class NemReader:
    """Reads the blocks of one file in their order."""

    def __init__(self, head_end: HeadEnd) -> None:
        self.head_end = head_end
        self.rejects = Rejects()
        self.version: str | None = None
        self.expected = 0
        zone = head_end.zone or AEST
        self.meters, self.channels, self.units = Ids("NMI"), Ids("NMISuffix"), Units(head_end.rounding)
        self.dates = Stamps("IntervalDate", StampParser(zone, "%Y%m%d"))
        self._stamps = {
            8: StampParser(zone, "%Y%m%d"),
            12: StampParser(zone, "%Y%m%d%H%M"),
            14: StampParser(zone, "%Y%m%d%H%M%S"),
        }
        self._qualities = Qualities({})
        self.tails = RecordTails(self.quality, self.instant)
        self.accumulations = Accumulations(self.instant, self.quality)
        self.details: list[BlockDetails] = []
        self._roundings: dict[tuple[str, str], Fraction] = {}
        self.headers: list[int | None] = []
        self._ended = True
        self._last_line = 0
        self._last_offset = 0
        self._parts: list[BlockRecords] = []
        self._records = 0
        self._last_kept: tuple[int, int] = (
            -1,
            0,
        )  # number of the interval record a 400 would belong to (-1: refused), its values
        self._events: list[Event] = []
        self._spoiled: dict[int, list[Reason]] = {}

    # -- single fields -----------------------------------------------------------------------------

    def instant(self, name: str, text: str, reasons: list[Reason]) -> int | None:
        """UTC microseconds of a date-time of 8, 12 or 14 digits; None where empty, or with a reason added."""
        if not text:
            return None
        parser = self._stamps.get(len(text))
        if parser is not None:
            found = parser.parse([text.encode("utf-8", "replace")])
            if found.state[0] == 0:
                return int(found.first[0])
        reasons.append(Reason("bad_time", f"{name} {shown(text)}"))
        return None

    def quality(self, word: str, reason: str, reasons: list[Reason]) -> int:
        """The packed code of a quality method and a reason code."""
        text = f"{word}:{reason}" if reason else word
        code = self._qualities.code(text.encode("utf-8", "replace"))
        bad = self._qualities.reason(code)
        if bad is not None:
            reasons.append(bad)
        return int(self._qualities.values[code])

    # -- blocks ------------------------------------------------------------------------------------

    def read(self, block: Block, size: int, limits: Limits) -> None:
        """Scan one block and take in its records."""
        data = block.data
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        values = data.count(b",") + 1
        records = np.empty((8, lines), np.int64)
        others = np.empty((5, lines), np.int64)
        mantissa, decimals = np.empty(values, np.int64), np.empty(values, np.int8)
        table = np.full((1, 1 << max(6, (2 * lines).bit_length())), -1, np.int32)
        entry_begin, entry_length = np.empty((1, lines), np.int64), np.empty((1, lines), np.int32)
        counts = np.zeros(1, np.int32)
        loop, fast = compiled.kernel("scan_nem12", max(size, len(data)))
        _, found, other, self.expected = loop(
            np.frombuffer(data, np.uint8) if fast else data,
            len(data),
            self.expected,
            limits.max_line_bytes,
            records,
            others,
            mantissa,
            decimals,
            table,
            entry_begin,
            entry_length,
            counts,
        )
        spans = zip(entry_begin[0, : counts[0]].tolist(), entry_length[0, : counts[0]].tolist(), strict=True)
        tails = np.array([self.tails.code(data[begin : begin + length]) for begin, length in spans], np.int64)
        self._last_line, self._last_offset = block.first_line + lines - 1, block.offset
        self._take(block, records[:, :found], others[:, :other], mantissa, decimals, tails)

    def _take(
        self, block: Block, records: I64, others: I64, mantissa: I64, decimals: npt.NDArray[np.int8], tails: I64
    ) -> None:
        """Judge the records of a block, then walk its other lines in order."""
        inherited = len(self.details) - 1 if not self._ended else -1
        # Details first: records refer to them by their place among the other lines.
        place: dict[int, int] = {}
        walk: list[tuple[int, int]] = []
        current = inherited
        # Where the interval record before a line is not the one that a 400 record there belongs to: the number of
        # interval records before it, and the values of the record that it does belong to (0: it has none).
        parted = (-1, 0)
        apart: dict[int, int] = {}
        for i in range(others.shape[1]):
            kind, before = int(others[kernels.O_KIND, i]), int(others[kernels.O_RECORD, i])
            if kind in (100, 200, 900):
                if kind == 200:
                    current = place[i] = self._details_of(block, others[:, i])
                else:
                    current = -1
                    self._frame_of(block, others[:, i], kind)
                parted = before, 0
                continue
            walk.append((i, current))
            if parted[0] == before:
                apart[i] = parted[1]
            if kind == 300:  # its date is not of eight letters, so that the scan took it for another line
                parted = before, max(self._expected(current), 1)
        raw_details = records[kernels.R_DETAILS]
        details = np.array([place.get(int(at), inherited if at == -1 else -1) for at in raw_details], np.int64)
        keep = self._judge(block, records, details, mantissa, decimals, tails)
        numbers = np.full(records.shape[1] + 1, -1, np.int64)
        numbers[1:][keep] = self._records + np.arange(int(keep.sum()))
        counts = np.zeros(records.shape[1] + 1, np.int64)
        # A refused record has a number of values too: its 400 records are not without a day.
        counts[1:] = np.where(records[kernels.R_STATUS] == 0, records[kernels.R_COUNT], 1)
        numbers[0], counts[0] = self._last_kept
        self._records += int(keep.sum())
        for i, under in walk:
            at = int(others[kernels.O_RECORD, i])
            owner = (-1, apart[i]) if i in apart else (int(numbers[at]), int(counts[at]))
            self._other(block, others[:, i], owner, under)
        self._last_kept = (-1, parted[1]) if parted[0] == records.shape[1] else (int(numbers[-1]), int(counts[-1]))

    def _expected(self, details: int) -> int:
        """The values of a day under a 200 record; 0 where it was refused or is none (-1)."""
        known = self.details[details] if details >= 0 else None
        return DAY_MINUTES // known.minutes if known and known.minutes and not known.refused else 0

    def _line(self, block: Block, other: I64) -> tuple[bytes, int, int]:
        begin, end = int(other[kernels.O_BEGIN]), int(other[kernels.O_END])
        return (
            block.data[begin:end].removesuffix(b"\r"),
            block.first_line + int(other[kernels.O_LINE]),
            block.offset + begin,
        )

    def _fields(self, raw: bytes, line: int, offset: int) -> list[str] | None:
        try:
            if _CONTROL.search(raw):
                self.rejects.add(line, offset, raw, [Reason("control_character", shown(raw))], reads=0)
                return None
            return split(raw)
        except UnicodeDecodeError:
            self.rejects.add(line, offset, raw, [Reason("wrong_encoding", shown(raw))], reads=0)
        except csv.Error as error:
            self.rejects.add(line, offset, raw, [Reason("bad_quoting", str(error))], reads=0)
        return None

    def _frame_of(self, block: Block, other: I64, kind: int) -> None:
        """A 100 or 900 record."""
        raw, line, offset = self._line(block, other)
        if kind == 900:
            self._ended = True
            return
        fields = [*(self._fields(raw, line, offset) or []), "", "", ""]
        reasons: list[Reason] = []
        if fields[1] not in ("NEM12", "NEM13"):
            if self.version is None:
                raise FeedRefused("bad_header", f"version {shown(fields[1])}, neither NEM12 nor NEM13", raw)
            reasons.append(Reason("bad_record", f"version {shown(fields[1])}"))
        created = self.instant("DateTime", fields[2], reasons)
        if reasons:
            self.rejects.add(line, offset, raw, reasons, reads=0)
        self.version = fields[1]
        self.headers.append(created)
        self._ended = False
        self.accumulations.created = created

    def _details_of(self, block: Block, other: I64) -> int:
        """Take in a 200 record; returns its number."""
        raw, line, offset = self._line(block, other)
        if self.version is None:
            raise FeedRefused("bad_header", "the file does not begin with a 100 record", raw)
        fields = self._fields(raw, line, offset)
        reasons: list[Reason] = []
        meter = channel = unit = minutes = 0
        if fields is None:
            reasons.append(Reason("bad_record", "unreadable"))
        elif len(fields) < 9:
            reasons.append(Reason("truncated_row", f"{len(fields)} fields of 9"))
            self.rejects.add(line, offset, raw, reasons, reads=0)
        else:
            meter, channel, unit = (
                coded_column.code(fields[at].encode("utf-8"))
                for coded_column, at in ((self.meters, 1), (self.channels, 4), (self.units, 7))
            )
            found = (self.meters.reason(meter), self.channels.reason(channel), self.units.reason(unit))
            reasons.extend(reason for reason in found if reason is not None)
            length = fields[8]
            minutes = int(length) if length.isascii() and length.isdigit() and len(length) < 5 else 0
            if not minutes or DAY_MINUTES % minutes:
                reasons.append(Reason("bad_interval", f"IntervalLength {shown(length)}"))
            if reasons:
                self.rejects.add(line, offset, raw, reasons, reads=0)
        self.details.append(BlockDetails(line, meter, channel, unit, minutes, len(self.headers) - 1, tuple(reasons)))
        self._ended = False
        return len(self.details) - 1

    def _judge(
        self, block: Block, records: I64, details: I64, mantissa: I64, decimals: npt.NDArray[np.int8], tails: I64
    ) -> npt.NDArray[np.bool_]:
        """Keep the good interval records of a block as a Part; which they are."""
        size = records.shape[1]
        if not size:
            return np.zeros(0, np.bool_)
        if self.version is None:
            raise FeedRefused("bad_header", "the file does not begin with a 100 record", block.data[:200])
        known = np.array(
            [not each.refused for each in self.details] + [False], np.bool_
        )  # the last entry answers for -1
        good = (records[kernels.R_STATUS] == 0) & known[details]
        texts, inverse = np.unique(records[kernels.R_DATE], return_inverse=True)
        dates = self.dates.codes([b"%08d" % date for date in texts.tolist()]).astype(np.int64)[inverse.reshape(-1)]
        good &= ~self.dates.bad[dates]
        tail = np.where(good, tails[records[kernels.R_TAIL]] if tails.size else -1, -1)
        tail_bad = np.array([bool(reasons) for reasons in self.tails.reasons] + [True], np.bool_)
        good &= ~tail_bad[tail]
        # values
        counts = np.where(records[kernels.R_STATUS] == 0, records[kernels.R_COUNT], 0)
        total = int(counts.sum())
        unit_of = np.array([each.unit for each in self.details] + [0], np.int32)
        units = unit_of[details]
        single = np.unique(units[good])
        if not single.size:
            micro, exact, rounded = np.zeros(total, np.int64), np.zeros(total, np.bool_), None
        else:
            unit: npt.NDArray[np.int32] | int
            unit = (
                int(single[0])
                if single.size == 1
                else np.repeat(np.where(good, units, single[0]), counts).astype(np.int32)
            )
            micro, exact, rounded = self.units.micro(unit, mantissa[:total], decimals[:total])
        if not exact.all():
            first = np.cumsum(counts) - counts
            inexact = np.zeros(size, np.bool_)
            filled = np.flatnonzero(counts)
            inexact[filled] = ~np.logical_and.reduceat(exact, first[filled])
            good &= ~inexact
        if rounded is not None:
            self._note_rounding(rounded, np.repeat(np.where(good, details, -1), counts))
        kept = micro if good.all() else micro[np.repeat(good, counts)]
        for i in np.flatnonzero(~good).tolist():
            if not self._careful(block, records[:, i], int(details[i])):
                raise AssertionError("the careful path kept a record the scan refused")
        lines = block.first_line + records[kernels.R_LINE]
        self._parts.append(
            BlockRecords(
                lines[good],
                block.offset + records[kernels.R_BEGIN][good],
                dates[good],
                counts[good],
                tail[good],
                details[good],
                kept,
            )
        )
        return np.asarray(good)

    def _note_rounding(self, rounded: Rounded, details: I64) -> None:
        """Add the rounding of the values of kept records (``details`` -1: not kept), by channel."""
        below = np.broadcast_to(rounded.below, details.shape)
        at = np.flatnonzero((rounded.numerator != 0) & (details >= 0))
        for number, divisor in set(zip(details[at].tolist(), below[at].tolist(), strict=True)):
            own = rounded.numerator[at][(details[at] == number) & (below[at] == divisor)]
            each = self.details[number]
            key = self.meters.values[each.meter], self.channels.values[each.channel]
            total = Fraction(sum(own.tolist()), divisor)
            self._roundings[key] = self._roundings.get(key, Fraction(0)) + total

    def _careful(self, block: Block, record: I64, details: int) -> bool:
        """Refuse a 300 record with every reason."""
        begin = int(record[kernels.R_BEGIN])
        end = block.data.find(b"\n", begin)
        raw = block.data[begin : end if end >= 0 else None].removesuffix(b"\r")
        line, offset = block.first_line + int(record[kernels.R_LINE]), block.offset + begin
        expected = self._expected(details)
        reasons = refusal_of(
            raw, self.details[details] if details >= 0 else None, expected, self.dates, self.units, self.tails
        )
        self.rejects.add(line, offset, raw, reasons, reads=expected or max(raw.count(b",") - 6, 1))
        return bool(reasons)

    def _other(self, block: Block, other: I64, owner: tuple[int, int], details: int) -> None:
        """A line that is neither 100, 200, 900 nor an interval record; the number and the values of the interval record
        that it belongs to, the 200 record (-1: none) that it stands under."""
        kind = int(other[kernels.O_KIND])
        raw, line, offset = self._line(block, other)
        if not raw.strip(b" ,"):
            return
        if self.version is None:
            raise FeedRefused("bad_header", "the file does not begin with a 100 record", raw)
        if kind in (500, 550):  # business-to-business details: orders and transaction codes, no reads
            return
        if kind == 400:
            self._event(raw, line, offset, *owner)
        elif kind == 250:
            fields = self._fields(raw, line, offset)
            if fields is not None:
                reasons = self.accumulations.read(fields, line)
                if reasons:
                    self.rejects.add(line, offset, raw, reasons)
        elif kind == 300:
            expected = self._expected(details)
            under = self.details[details] if details >= 0 else None
            reasons = refusal_of(raw, under, expected, self.dates, self.units, self.tails) or [
                Reason("truncated_row", shown(raw))
            ]
            self.rejects.add(line, offset, raw, reasons, reads=expected or 1)
        else:
            self.rejects.add(line, offset, raw, [Reason("bad_record", f"record {shown(raw[:10])}")], reads=0)

    def _event(self, raw: bytes, line: int, offset: int, record: int, count: int) -> None:
        """A 400 record. One that cannot be read spoils the day it belongs to: its quality is then unknown."""
        reasons: list[Reason] = []
        fields = self._fields(raw, line, offset)
        if fields is None:
            reasons.append(Reason("bad_record", "unreadable"))
        else:
            fields = [*fields, "", "", "", "", ""]
            bounds = [int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0 for text in fields[1:3]]
            if record < 0 and count == 0:
                reasons.append(Reason("bad_record", "a 400 record without a 300 record"))
            elif not 1 <= bounds[0] <= bounds[1] or (record >= 0 and bounds[1] > count):
                reasons.append(Reason("bad_record", f"intervals {shown(fields[1])} to {shown(fields[2])} of {count}"))
            quality = self.quality(fields[3], fields[4], reasons)
            if not reasons:
                if record >= 0:
                    self._events.append(Event(record, bounds[0], bounds[1], quality))
                return
            self.rejects.add(line, offset, raw, reasons, reads=0)
        if record >= 0:
            self._spoiled.setdefault(record, []).append(
                Reason("bad_quality", f"its 400 record at line {line} was refused")
            )

    # -- the whole file ----------------------------------------------------------------------------

    def finish(self, fetch: partial[dict[int, bytes]]) -> ParsedFeed:
        """The frames of the file."""
        if not self._ended:
            self.rejects.add(
                self._last_line, self._last_offset, b"", [Reason("missing_end", "no 900 record at the end")], reads=0
            )
        parsed = ParsedFeed("nem13" if self.version == "NEM13" else "nem12")
        parsed.intervals = self._intervals(parsed, fetch)
        parsed.registers, parsed.periods = self.accumulations.frames()
        parsed.file_units |= self.accumulations.file_units
        parsed.roundings = self._roundings
        parsed.rejects = self.rejects.frame()
        return parsed

    def _intervals(self, parsed: ParsedFeed, fetch: partial[dict[int, bytes]]) -> pl.DataFrame:
        parts, self._parts = self._parts, []
        if not parts:
            return pl.DataFrame(schema=INTERVAL_READS)
        line, offset, date, count, tail, details, micro = (
            np.concatenate([getattr(part, name) for part in parts]) for name in BlockRecords.__slots__
        )
        first = np.cumsum(count) - count
        quality = np.repeat(np.array([*self.tails.quality, 0], np.uint16)[tail], count)
        variable = np.array([*self.tails.variable, False], np.bool_)[tail]
        covered = np.repeat(~variable, count)
        has_quality = np.zeros(covered.size, np.bool_)
        for event in self._events:
            begin = int(first[event.record]) + event.first - 1
            end = int(first[event.record]) + event.last
            if (has_quality[begin:end] & (quality[begin:end] != event.quality)).any():
                why = f"two of its 400 records differ on intervals {event.first} to {event.last}"
                self._spoiled.setdefault(event.record, []).append(Reason("bad_quality", why))
            quality[begin:end] = event.quality
            covered[begin:end] = has_quality[begin:end] = True
        keep = np.ones(line.size, np.bool_)
        if variable.any():
            uncovered = np.flatnonzero(variable)
            for i in uncovered[~np.logical_and.reduceat(covered, first)[uncovered]].tolist():
                self._spoiled.setdefault(i, []).append(
                    Reason("bad_quality", "V, and its 400 records do not cover every interval")
                )
        if self._spoiled:
            raws = fetch([int(offset[i]) for i in self._spoiled])
            for i, reasons in self._spoiled.items():
                self.rejects.add(
                    int(line[i]), int(offset[i]), raws.get(int(offset[i]), b""), reasons, reads=int(count[i])
                )
                keep[i] = False
            values = np.repeat(keep, count)
            quality, micro = quality[values], micro[values]
            line, date, count, tail, details = line[keep], date[keep], count[keep], tail[keep], details[keep]
            first = np.cumsum(count) - count
        days = IntervalDays(line, date, count, first, tail, details)
        return interval_frame(self, parsed, days, quality, micro)
