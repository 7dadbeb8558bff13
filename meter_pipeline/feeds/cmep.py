"""CMEP, the California Metering Exchange Protocol: MEPMD01 metering data records.

One line is one meter's channel. Units that end in REG are dials, all others intervals whose length is the record's
interval field (MMDDhhmm). The channel is ``constants.channel`` of the head-end, or else the unit. A dial and a flow of
one meter are two channels: beside a constant channel ``W1`` the dial is ``constants.register_channel``, or ``W1REG``.
Times are CCYYMMDDhhmm in the head-end's zone; the protocol counts in GMT and names the end of an interval, so declare
``zone = "+00:00"`` and ``stamp = "end"`` unless the sender differs. An empty time is one interval after the one before,
in elapsed time: twenty-five hours from local midnight fill the autumn day. A line is one payload: one bad triplet
refuses it whole, with every reason.

Flags. The first letter is what was done to the value, what follows is the meter's own status word. Without a
``quality_map`` (whole flags or first letters) R raw, V verified and an empty flag are actual, A adjusted is
substituted, E is estimated, N is null. These meanings and the end stamps are from practice, not from the published
standard: a head-end that means something else declares it.

A calculation constant other than 1 is refused unless ``options.constant`` says ``ignore`` (values are in the unit
already) or ``apply``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.calendar import BillingCalendar
from meter_pipeline.feeds import compiled, kernels
from meter_pipeline.feeds.coded_columns import Stamps
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
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.rejects import FeedRefused, Reason, Rejects, shown
from meter_pipeline.feeds.rows import RowReader, Rows
from meter_pipeline.feeds.scanned import ScanBuffers, Scanned
from meter_pipeline.feeds.scanning import byte_reasons
from meter_pipeline.feeds.times import Instants, StampParser, State
from meter_pipeline.schemas.reads import ParsedFeed
from meter_pipeline.units import UnitError, parse_decimal

HEAD_FIELDS: Final = 14
PURPOSES: Final = ("OK", "RESEND", "HISTORY")
FLAGS: Final = {"": "A", "R": "A", "V": "A", "A": "S", "E": "E", "N": "N"}
_VARYING: Final = ("meter_id", "channel", "time", "unit", "quality", "source_version", "read_time", "interval_minutes")
_TIME_FORMAT: Final = "%Y%m%d%H%M"
#: commas, no quotes, a decimal point, no thousands, nothing trimmed
_MARKS: Final = np.array([44, 0, 46, 0, 0], np.int64)


def parse(path: Path, head_end: HeadEnd, calendar: BillingCalendar, limits: Limits = DEFAULT_LIMITS) -> ParsedFeed:
    """Parse a CMEP file into interval reads and register reads. Raises HeadEndError, FeedRefused."""
    limits = limits_of(head_end.options, limits)
    reader = CmepReader(head_end, limits)
    with open_feed(path, limits, head_end.encoding) as opened:
        if not opened.size:
            raise FeedRefused("empty_file", "0 bytes")
        for piece in line_blocks(opened.source, limits):
            if isinstance(piece, LongLine):
                detail = f"{piece.length} bytes, at most {limits.max_line_bytes}"
                reader.rejects.add(piece.line, piece.offset, piece.head, [Reason("line_too_long", detail)])
            else:
                reader.read(piece, opened.size)
    parsed = reader.finish(partial(fetch_lines, path, head_end.encoding, limits))
    parsed.sha256 = opened.sha256
    if not parsed.received and not parsed.rejects.height:
        raise FeedRefused("empty_file", f"{opened.size} bytes, no record")
    return parsed


class CountedStamps(StampParser):
    """Stamps of triplets, and instants counted on from one: ``=`` and UTC microseconds (no sender's stamp has a
    sign).
    """

    def parse(self, texts: list[bytes]) -> Instants:
        """The instants of texts, in their order."""
        counted = [at for at, text in enumerate(texts) if text.startswith(b"=")]
        found = super().parse(texts)
        if counted:
            found.first[counted] = found.second[counted] = [int(texts[at][1:]) for at in counted]
            found.state[counted] = State.OK
        return found


class CmepReader:
    """Reads the blocks of one file in their order."""

    def __init__(self, head_end: HeadEnd, limits: Limits) -> None:
        self._limits = limits
        self._flags = dict(head_end.quality_map) or dict(FLAGS)
        self._constant = str(head_end.options.get("constant", "refuse"))
        if self._constant not in ("refuse", "ignore", "apply"):
            raise HeadEndError(f"{head_end.name}: options.constant must be ignore or apply")
        self._channel = head_end.constants.get("channel")
        self._register_channel = head_end.constants.get("register_channel")
        if self._register_channel is None and self._channel is not None:
            self._register_channel = f"{self._channel}REG"
        # Each kind has its own reader: both see the words of the flags already turned into ours.
        common = replace(
            head_end, columns={}, constants={}, quality_map={}, time_format=_TIME_FORMAT, interval_minutes=None
        )
        self._intervals = RowReader(
            replace(common, kind="interval"), _VARYING, CountedStamps(head_end.zone, _TIME_FORMAT)
        )
        self._dials = RowReader(replace(common, kind="register"), _VARYING, CountedStamps(head_end.zone, _TIME_FORMAT))
        self.rejects = Rejects()
        self._words: dict[bytes, bytes] = {}

    def read(self, block: Block, size: int) -> None:
        """Take in the records of a block."""
        pending: list[_Record] = []
        offset = block.offset
        for number, whole in enumerate(block.data.split(b"\n"), block.first_line):
            raw = whole.removesuffix(b"\r")
            if raw.strip(b" ,"):
                record = self._record(raw, number, offset)
                if isinstance(record, _Record):
                    pending.append(record)
                else:
                    reasons, reads = record
                    self.rejects.add(number, offset, raw, reasons, reads)
            offset += len(whole) + 1
        if pending:
            self._keep(pending, size)

    def _record(self, raw: bytes, line: int, offset: int) -> _Record | tuple[list[Reason], int]:
        """The fields of one line, its head judged; or why it is refused and how many reads it offered."""
        reasons = byte_reasons(raw, self._limits)
        fields = raw.split(b",")
        if reasons and reasons[0].code == "line_too_long":
            return reasons, 1
        if fields[0] != b"MEPMD01":
            return [*reasons, Reason("bad_record", f"record {shown(fields[0])}")], 0
        if len(fields) < HEAD_FIELDS:
            return [*reasons, Reason("truncated_row", f"{len(fields)} fields of {HEAD_FIELDS}")], 1
        count = int(fields[13]) if fields[13].isdigit() and len(fields[13]) < 7 else -1
        given = len(fields) - HEAD_FIELDS
        if given > 3 * max(count, 0) and not any(fields[HEAD_FIELDS + 3 * max(count, 0) :]):
            given = 3 * max(count, 0)  # trailing commas
        if count < 0 or given != 3 * count:
            reasons.append(Reason("value_count", f"{shown(fields[13])} triplets declared, {given} fields given"))
            return reasons, max(count, given // 3, 1)
        if fields[8].decode("ascii", "replace") not in PURPOSES:
            reasons.append(Reason("bad_record", f"purpose {shown(fields[8])} holds no reads"))
        words = fields[10].decode("utf-8", "replace").upper()
        dial = words.endswith("REG") and len(words) > 3
        reader = self._dials if dial else self._intervals
        constant = self._constant_of(fields[11], reasons)
        body = fields[HEAD_FIELDS : HEAD_FIELDS + given]
        times = body[::3]
        minutes = b"1" if dial else self._minutes(fields[12], reasons)
        if b"" in times:
            times = self._filled(times, minutes, reader.stamps, reasons)
            body[::3] = times
        codes = {
            "meter_id": reader.meters.code(fields[7]),
            "channel": reader.channels.code((self._constant_channel(dial) or words).encode()),
            "unit": reader.units.code(words.removesuffix("REG").encode()),
            "source_version": reader.versions.code(b""),
            "read_time": reader.read_times.code(fields[6]),
            "interval_minutes": reader.minutes.code(minutes),
        }
        if not reasons:  # the file's own stamp orders what a sender says twice
            version = int(reader.read_times.first[codes["read_time"]]) // 1_000_000
            codes["source_version"] = reader.versions.code(b"%d" % max(version, 0))
        for name, code in codes.items():
            reason = reader.coded_columns[name].reason(code)
            if reason is not None:
                reasons.append(reason)
        record = _Record(reader, codes, times, body[1::3], body[2::3], b",".join(body), constant, line, offset, raw)
        if reasons:
            return reasons + [more for more in self._triplet_reasons(record) if more not in reasons], max(count, 1)
        return record

    def _constant_channel(self, dial: bool) -> str | None:
        """The channel that the declaration gives to dials or to flows; None: the unit names it."""
        return self._register_channel if dial else self._channel

    def _word(self, flag: bytes) -> bytes:
        """A flag in our words: the whole flag if it is declared, else its first letter."""
        word = self._words.get(flag)
        if word is None:
            text = flag.decode("utf-8", "replace")
            word = self._words[flag] = self._flags.get(text, self._flags.get(text[:1], f"?{text}")).encode(
                "utf-8", "replace"
            )
        return word

    def _constant_of(self, text: bytes, reasons: list[Reason]) -> Decimal:
        try:
            constant = parse_decimal(text.decode("utf-8", "replace")) if text else Decimal(1)
        except UnitError:
            reasons.append(Reason("bad_number", f"calculation constant {shown(text)}"))
            return Decimal(1)
        if constant == 1 or self._constant == "ignore":
            return Decimal(1)
        if self._constant == "refuse":
            reasons.append(Reason("bad_record", f"calculation constant {constant}: declare options.constant"))
        return constant

    def _minutes(self, text: bytes, reasons: list[Reason]) -> bytes:
        """Minutes of an interval written MMDDhhmm (months are refused: they have no length)."""
        if len(text) == 8 and text.isdigit() and text[:2] == b"00":
            minutes = int(text[2:4]) * 1440 + int(text[4:6]) * 60 + int(text[6:])
            if 1 <= minutes <= 1440:
                return b"%d" % minutes
        reasons.append(Reason("bad_interval", f"interval {shown(text)}"))
        return b"1"

    def _filled(self, times: list[bytes], minutes: bytes, stamps: Stamps, reasons: list[Reason]) -> list[bytes]:
        """Times with the empty ones counted on from the one before, as instants: on the wall clock an autumn day would
        end an hour late. A repeated local time that is counted on from is its first pass, unless the row goes on to a
        later stamp of its own that only the second explains."""
        filled: list[bytes] = []
        before: int | None = None
        step = int(minutes) * 60_000_000
        for at, text in enumerate(times):
            if text:
                code = stamps.code(text)
                before = int(stamps.first[code]) if not stamps.bad[code] else None
                counted_on = at + 1 < len(times) and not times[at + 1]
                if before is not None and counted_on and int(stamps.state[code]) == State.AMBIGUOUS:
                    text = b"=%d" % before
            elif before is None:
                reasons.append(Reason("bad_time", "an empty time that follows no time"))
                return times
            else:
                before += step
                text = b"=%d" % before
            filled.append(text)
        return filled

    def _triplet_reasons(self, record: _Record) -> list[Reason]:
        """Every reason in the triplets of a record."""
        found: list[Reason] = []
        reader = record.reader
        for at, (time, flag, value) in enumerate(zip(record.times, record.flags, record.values, strict=True), 1):
            for coded_column, text in ((reader.stamps, time), (reader.qualities, self._word(flag))):
                reason = coded_column.reason(coded_column.code(text))
                if reason is not None:
                    found.append(Reason(reason.code, f"triplet {at}: {reason.detail}"))
            number = self._exact(record, value, self._word(flag))
            if isinstance(number, Reason):
                found.append(Reason(number.code, f"triplet {at}: {number.detail}"))
        return found

    @staticmethod
    def _exact(record: _Record, value: bytes, flag: bytes) -> int | Reason:
        if not value and flag.startswith(b"N"):
            record.reader.units.rounded = Fraction(0)
            return 0
        text = value.decode("utf-8", "replace")
        if record.constant != 1:
            try:
                text = format(parse_decimal(text) * record.constant, "f")
            except UnitError:
                return Reason("bad_number", shown(value))
        return record.reader.units.exact(record.codes["unit"], text)

    def _keep(self, records: list[_Record], size: int) -> None:
        """Look up the triplets of many records at once; a record with one that is not good is refused."""
        for reader in (self._intervals, self._dials):
            mine = [record for record in records if record.reader is reader and record.values]
            if not mine:
                continue
            counts = np.array([len(record.values) for record in mine])
            scanned = _scan_triplets(mine, int(counts.sum()), self._limits, size)
            codes = {
                name: np.repeat(np.array([record.codes[name] for record in mine], np.int32), counts)
                for name in mine[0].codes
            }
            codes["time"] = reader.stamps.codes(scanned.texts[0])[scanned.codes[0]]
            codes["quality"] = reader.qualities.codes([self._word(flag) for flag in scanned.texts[1]])[scanned.codes[1]]
            micro, exact, rounded = reader.units.micro(codes["unit"], scanned.mantissa[0], scanned.decimals[0])
            exact &= (scanned.status == 0) & ~np.repeat(
                np.array([record.constant != 1 for record in mine], np.bool_), counts
            )
            good = exact & ~reader.judge(codes)
            numerator, below = np.zeros(micro.size, np.int64), np.ones(micro.size, np.int64)
            if rounded is not None:
                numerator[:], below[:] = rounded.numerator, rounded.below
            if not good.all():
                self._careful(mine, counts, good, (micro, numerator, below))
            line = np.repeat(np.array([record.line for record in mine], np.int64), counts)
            offset = np.repeat(np.array([record.offset for record in mine], np.int64), counts)
            rows = Rows(codes, micro, line, offset)
            if numerator.any():
                rows.rounded, rows.below = numerator, below
            reader.add(rows if good.all() else rows.take(good))

    def _careful(
        self,
        records: list[_Record],
        counts: Any,
        good: npt.NDArray[np.bool_],
        values: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]],
    ) -> None:
        """Read the records with doubtful triplets again: refuse them whole (clearing ``good``), or put their values
        (micro units, and what rounding did) right."""
        stops = np.cumsum(counts)
        for record, begin, end in zip(records, (stops - counts).tolist(), stops.tolist(), strict=True):
            if good[begin:end].all():
                continue
            reasons = self._triplet_reasons(record)
            if reasons:
                self.rejects.add(record.line, record.offset, record.raw, reasons, len(record.values))
                good[begin:end] = False
                continue
            for at, (value, flag) in enumerate(zip(record.values, record.flags, strict=True), begin):
                micro = self._exact(record, value, self._word(flag))
                rounded = record.reader.units.rounded.limit_denominator(2**62)
                values[0][at] = micro if isinstance(micro, int) else 0
                values[1][at], values[2][at] = rounded.numerator, rounded.denominator
            good[begin:end] = True

    def finish(self, fetch: partial[dict[int, bytes]]) -> ParsedFeed:
        """The frames of the file."""
        parsed = self._intervals.finish(fetch)
        dials = self._dials.finish(fetch)
        parsed.file_format = "cmep"
        parsed.registers = dials.registers
        parsed.file_units |= dials.file_units
        parsed.roundings |= dials.roundings
        parsed.rejects = pl.concat([self.rejects.frame(), parsed.rejects, dials.rejects]).sort(
            "line", "byte_offset", maintain_order=True
        )
        return parsed


@dataclass(slots=True, eq=False)
class _Record:
    """One line whose head is good: codes of its head's fields, its triplets column by column and as bytes."""

    reader: RowReader
    codes: dict[str, int]
    times: list[bytes]
    flags: list[bytes]
    values: list[bytes]
    triplets: bytes
    constant: Decimal
    line: int
    offset: int
    raw: bytes


def _scan_triplets(records: list[_Record], total: int, limits: Limits, size: int) -> Scanned:
    """The triplets of records, scanned as if each stood on a line of its own: time and flag by number, and the
    value.
    """
    joined = bytearray(b"\n".join([record.triplets for record in records]))
    letters = np.frombuffer(joined, np.uint8)
    commas = np.flatnonzero(letters == 44)
    per_record = np.array([3 * len(record.values) - 1 for record in records])
    place = np.arange(commas.size) - np.repeat(np.cumsum(per_record) - per_record, per_record)
    letters[commas[place % 3 == 2]] = 10
    block = Block(bytes(joined), 0, 1, total)
    work = ScanBuffers(block, 2)
    loop, fast = compiled.kernel("scan_delimited", max(size, len(joined)))
    data: Any = letters if fast else block.data
    actions = np.array([0, 1, kernels.VALUE], np.int32)
    scanned = work.scan(loop, data, len(joined), _MARKS, actions, limits.max_line_bytes)
    if scanned.rows != total:
        raise AssertionError("triplets and lines differ")
    return scanned
