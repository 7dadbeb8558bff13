"""Rows of one read each, from dictionary codes to the canonical frames.

A read of a repeated hour whose pass cannot be determined (``repeated_hour``) is refused as ``ambiguous_time``; a
head-end may declare ``options.ambiguous = "first"`` or ``"second"`` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from meter_pipeline.feeds.coded_columns import CodedColumn, Ids, Integers, Qualities, Stamps, Units
from meter_pipeline.feeds.head_ends import HeadEnd, HeadEndError
from meter_pipeline.feeds.interval_lengths import Lengths, lengths_of
from meter_pipeline.feeds.kernels import read_number
from meter_pipeline.feeds.plain_numbers import plain_number
from meter_pipeline.feeds.rejects import Reason, Rejects, shown
from meter_pipeline.feeds.repeated_hour import runs_backwards, second_passes
from meter_pipeline.feeds.row_plan import CODED_FIELDS, constant_unit
from meter_pipeline.feeds.times import StampParser, State
from meter_pipeline.quality import FLAGS
from meter_pipeline.schemas.reads import INTERVAL_READS, REGISTER_READS, UTC_US, ParsedFeed
from meter_pipeline.units import MAX_DIAL_MICRO, MAX_MICRO, MICRO

MINUTE_US: Final = 60_000_000


I32 = npt.NDArray[np.int32]


I64 = npt.NDArray[np.int64]


_NONE: Final = np.zeros(0, np.int64)


@dataclass(slots=True)
class Rows:
    """Good rows of a stretch of a file: a code per field that varies, micro base units, and where each row stood.

    ``offset`` may be empty while no repeated hour has been met and lengths are declared: only rows of one, or of an
    unknown length, may have to be fetched from the file again. ``rounded`` and ``below`` are empty where nothing was
    rounded, else the stored value less the file's own is rounded / below micro base units.
    """

    codes: dict[str, I32]
    value: I64
    line: I64
    offset: I64 = field(default_factory=lambda: _NONE)
    rounded: I64 = field(default_factory=lambda: _NONE)
    below: I64 = field(default_factory=lambda: _NONE)

    def take(self, which: npt.NDArray[Any]) -> Rows:
        """Some of the rows, by mask or by number."""
        return Rows(
            {name: codes[which] for name, codes in self.codes.items()},
            self.value[which],
            self.line[which],
            self.offset[which] if self.offset.size else self.offset,
            self.rounded[which] if self.rounded.size else self.rounded,
            self.below[which] if self.below.size else self.below,
        )


class RowReader:
    """Turns rows of one head-end into a ParsedFeed. ``varying`` are the fields that columns carry; the others are
    constants."""

    def __init__(self, head_end: HeadEnd, varying: tuple[str, ...], stamps: StampParser | None = None) -> None:
        self.head_end = head_end
        self.varying = varying
        for name in ("meter_id", "time"):
            if name not in varying and name not in head_end.constants:
                raise HeadEndError(f"{head_end.name}: columns: {name} is not mapped")
        unknown = sorted(set(varying) - set(CODED_FIELDS))
        if unknown:
            raise HeadEndError(f"{head_end.name}: columns: unknown field {', '.join(unknown)}")
        try:
            plain = StampParser(head_end.zone, head_end.time_format)
        except ValueError as error:
            raise HeadEndError(f"{head_end.name}: {error}") from error
        most = MAX_DIAL_MICRO if head_end.kind == "register" else MAX_MICRO
        self.units = Units(head_end.rounding, head_end.unit_map, most)
        self.meters = Ids("meter_id", head_end.ids)
        words = head_end.channel_map if "channel" in head_end.columns and not head_end.values else None
        self.channels = Ids("channel", None, words)
        self.stamps, self.read_times = Stamps("time", stamps or plain), Stamps("read_time", plain)
        self.qualities = Qualities(head_end.quality_map)
        self.sequences = Integers("sequence", 0, 2**31 - 1)
        self.versions = Integers("source_version", -(2**62), 2**62)
        self.minutes = Integers("interval_minutes", 1, 1440, "bad_interval", None)
        self.coded_columns: dict[str, CodedColumn] = {
            "meter_id": self.meters,
            "channel": self.channels,
            "time": self.stamps,
            "unit": self.units,
            "quality": self.qualities,
            "sequence": self.sequences,
            "source_version": self.versions,
            "read_time": self.read_times,
            "interval_minutes": self.minutes,
        }
        self.constants = self._constants(head_end)
        #: numbers that stand for no value, as mantissa and decimals
        self.null_numbers = frozenset(pair for word in head_end.nulls if (pair := self._number(word))[1] >= 0)
        self.rejects = Rejects()
        #: rows that the declaration passes over (the first thousand as text), and rows that hold reads
        self.noted: list[str] = []
        self.skipped = 0
        self.rows = 0
        self._rows: list[Rows] = []
        self._careful = False

    def _constants(self, head_end: HeadEnd) -> dict[str, int]:
        given = {
            "channel": "1",
            "unit": constant_unit(head_end),
            "quality": "",
            "sequence": "",
            "source_version": "",
        } | dict(head_end.constants)
        if head_end.interval_minutes is not None:
            given.setdefault("interval_minutes", str(head_end.interval_minutes))
        if self.qualities_are_mapped_but_absent(given):
            given["quality"] = next(word for word, ours in head_end.quality_map.items() if ours == "A")
        codes: dict[str, int] = {}
        for name, text in given.items():
            if name in self.varying or name not in CODED_FIELDS:
                continue
            if text is None:
                raise HeadEndError(f"{head_end.name}: {name}: declare it, or map a column to it")
            code = self.coded_columns[name].code(text.encode("utf-8"))
            reason = self.coded_columns[name].reason(code)
            if reason is not None:
                raise HeadEndError(f"{head_end.name}: constants: {name}: {reason.code} {reason.detail}")
            codes[name] = code
        return codes

    def qualities_are_mapped_but_absent(self, given: Mapping[str, str | None]) -> bool:
        """A quality map without a quality column: every row is actual, under the head-end's own word for it."""
        return "quality" not in self.varying and not given["quality"] and "A" in self.head_end.quality_map.values()

    @property
    def needs_offsets(self) -> bool:
        """Whether any stamp so far is of a repeated hour, or the file has to show the lengths of its intervals."""
        return not self.knows_lengths or bool((self.stamps.state == State.AMBIGUOUS).any())

    @property
    def knows_lengths(self) -> bool:
        """Whether the declaration or a column says how long an interval is, or there is none."""
        is_stated = "interval_minutes" in self.varying or "interval_minutes" in self.constants
        return is_stated or self.head_end.kind == "register"

    def judge(self, codes: Mapping[str, I32]) -> npt.NDArray[np.bool_]:
        """Which rows have a text that means nothing."""
        bad: npt.NDArray[np.bool_] | None = None
        for name, column in codes.items():
            wrong = self.coded_columns[name].bad
            if wrong.any():
                here = wrong[column]
                bad = here if bad is None else bad | here
        size = next(iter(codes.values())).size
        return bad if bad is not None else np.zeros(size, np.bool_)

    def add(self, rows: Rows) -> None:
        """Rows that are good."""
        if rows.value.size:
            self._rows.append(rows)

    def add_fields(self, fields: Mapping[str, str], line: int, offset: int) -> list[Reason]:
        """One row by the careful way: kept when every rule holds, else its reasons are returned and nothing is kept."""
        reasons: list[Reason] = []
        codes = dict(self.constants)
        for name in self.varying:
            code = self.coded_columns[name].code(fields[name].encode("utf-8", "replace"))
            reason = self.coded_columns[name].reason(code)
            if reason is not None:
                reasons.append(reason)
            codes[name] = code
        text = fields["value"]
        value: int | Reason = self.units.exact(codes["unit"], self.plain(text))
        if isinstance(value, Reason) and value.code in ("bad_number", "missing_value"):
            value = Reason(value.code, shown(text)) if text else value
        null = "quality" in codes and int(self.qualities.values[codes["quality"]]) >> 13 == FLAGS.index("N")
        if not text and null:
            value = 0  # null, and said to be null
        if isinstance(value, Reason):
            reasons.append(value)
        elif not reasons:
            self._careful = True
            rows = Rows(
                {name: np.array([codes[name]], np.int32) for name in self.varying},
                np.array([value], np.int64),
                np.array([line], np.int64),
                np.array([offset], np.int64),
            )
            rounded = self.units.rounded
            if rounded:
                within = rounded.limit_denominator(2**62)
                rows.rounded, rows.below = np.array([within.numerator]), np.array([within.denominator])
            self.add(rows)
        return reasons

    def is_null(self, text: str) -> bool:
        """Whether a text is declared to stand for no value; a number however it is written (-999 and -999.0)."""
        return text in self.head_end.nulls or self._number(text) in self.null_numbers

    def _number(self, text: str) -> tuple[int, int]:
        """Mantissa and decimals of a number as the scan has it; decimals below 0 where it is none."""
        data, marks = text.encode("utf-8"), self.head_end
        mantissa, decimals = read_number(
            data, 0, len(data), ord(marks.decimal), ord(marks.thousands) if marks.thousands else 0
        )
        return int(mantissa), int(decimals)

    def plain(self, text: str) -> str:
        """A number with a point for its decimal mark and nothing between its thousands, without the declared unit
        behind it. JSON numbers are plain already."""
        unit = self.head_end.unit
        if unit and len(text) > len(unit) and text[-len(unit) :].lower() == unit.lower():
            text = text[: -len(unit)].rstrip()
        if text.startswith("(") and text.endswith(")") and text[1:2] not in "+-":
            text = f"-{text[1:-1].strip()}"  # accountants' negative
        return plain_number(text, self.head_end.decimal, self.head_end.thousands)

    # -- the whole file ----------------------------------------------------------------------------

    def finish(
        self, raw_lines: Callable[[list[int]], dict[int, bytes]], checked: Callable[[Rows], None] | None = None
    ) -> ParsedFeed:
        """The frames of everything added. ``raw_lines`` fetches lines by offset, for the few that only the whole file
        could refuse; ``checked`` holds all rows against what the file says of itself."""
        head_end = self.head_end
        everything = self._concatenated()
        if checked is not None:
            checked(everything)
        instants, unsettled = self._instants(everything)
        if unsettled.any():
            self._reject_ambiguous(everything, unsettled, raw_lines)
            everything = everything.take(~unsettled)
            instants = instants[~unsettled]
        declared = (
            head_end.kind == "register" or "interval_minutes" in self.varying or "interval_minutes" in self.constants
        )
        inferred = None if declared else lengths_of(self._key(everything), instants, head_end.stamp == "end")
        if inferred is not None and inferred.refused:
            self._reject_lengths(everything, inferred.refused, raw_lines)
            kept = np.ones(everything.value.size, np.bool_)
            kept[list(inferred.refused)] = False
            everything, instants = everything.take(kept), instants[kept]
            inferred = Lengths(inferred.minutes[kept], {})
        size = everything.value.size
        frame: dict[str, pl.Series] = {
            "meter_id": self._texts("meter_id", self.meters.values, everything),
            "channel": self._texts("channel", self.channels.values, everything),
            "value": self._values(everything),
            "unit": self._texts("unit", self.units.base, everything),
            "sequence": self._numbers("sequence", self.sequences.values, everything, pl.Int32),
            "quality": self._numbers("quality", self.qualities.values, everything, pl.UInt16),
            "source_version": self._numbers("source_version", self.versions.values, everything, pl.Int64),
            "line": pl.Series("line", everything.line),
        }
        if "read_time" in self.varying:
            frame["read_time"] = pl.Series("read_time", self.read_times.first[everything.codes["read_time"]]).cast(
                UTC_US
            )
        else:
            frame["read_time"] = pl.Series("read_time", [None], UTC_US).new_from_index(0, size)
        parsed = ParsedFeed(head_end.format, rejects=self.rejects.frame(), file_units=self._file_units(everything))
        parsed.skipped = self.skipped
        parsed.roundings = self._roundings(everything)
        if head_end.kind == "register":
            frame["read_at"] = pl.Series("read_at", instants).cast(UTC_US)
            parsed.registers = pl.DataFrame({name: frame[name] for name in REGISTER_READS})
            return parsed
        if inferred is None:
            frame["interval_minutes"] = self._numbers("interval_minutes", self.minutes.values, everything, pl.Int16)
            if head_end.stamp == "end":
                lengths = (
                    self.minutes.values[everything.codes["interval_minutes"]]
                    if "interval_minutes" in self.varying
                    else self.minutes.values[self.constants["interval_minutes"]]
                )
                instants = instants - lengths * MINUTE_US
        else:
            frame["interval_minutes"] = pl.Series("interval_minutes", inferred.minutes.astype(np.int16))
            if head_end.stamp == "end":
                instants = instants - inferred.minutes * MINUTE_US
        frame["interval_start"] = pl.Series("interval_start", instants).cast(UTC_US)
        parsed.intervals = pl.DataFrame({name: frame[name] for name in INTERVAL_READS})
        return parsed

    def _concatenated(self) -> Rows:
        parts = self._rows
        self._rows = []
        if not parts:
            return Rows({name: np.zeros(0, np.int32) for name in self.varying}, _NONE, _NONE)
        joined = Rows(
            {name: np.concatenate([part.codes[name] for part in parts]) for name in self.varying},
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.line for part in parts]),
            *[_joined(parts, name, fill) for name, fill in (("offset", 0), ("rounded", 0), ("below", 1))],
        )
        # Rows kept by the careful way stand after their block: back to the order of the file.
        return joined.take(np.argsort(joined.line, kind="stable")) if self._careful else joined

    def _texts(self, name: str, values: list[str], rows: Rows) -> pl.Series:
        texts = pl.Series(name, values or [""], pl.String)
        if name in rows.codes:
            return texts.gather(pl.Series(rows.codes[name]).cast(pl.UInt32))
        return texts.new_from_index(self.constants[name], rows.value.size)

    def _numbers(self, name: str, values: npt.NDArray[Any], rows: Rows, dtype: type[pl.DataType]) -> pl.Series:
        if name in rows.codes:
            return pl.Series(name, values[rows.codes[name]]).cast(dtype)
        return pl.Series(name, [int(values[self.constants[name]])], dtype).new_from_index(0, rows.value.size)

    def _values(self, rows: Rows) -> pl.Series:
        """The values; a read of quality N says that there is none, whatever number stands there."""
        values = pl.Series("value", rows.value)
        null = self.qualities.values >> 13 == FLAGS.index("N")
        if "quality" in rows.codes and null.any():
            return values.set(pl.Series(null[rows.codes["quality"]]), None)
        return values

    def _key(self, rows: Rows) -> I64:
        """One number per meter and channel."""
        size = rows.value.size
        meter = rows.codes["meter_id"].astype(np.int64) if "meter_id" in rows.codes else np.zeros(size, np.int64)
        if "channel" not in rows.codes:
            return meter
        return meter * len(self.channels.texts) + rows.codes["channel"]

    def _file_units(self, rows: Rows) -> dict[tuple[str, str], str]:
        """By meter and channel, the first unit that the file gives it, in the file's spelling."""
        if not rows.value.size:
            return {}
        # Most files are sorted by meter: the rows at which the meter or the channel changes are one in a hundred.
        changes = np.zeros(rows.value.size, np.bool_)
        changes[0] = True
        for name in ("meter_id", "channel"):
            if name in rows.codes:
                changes[1:] |= rows.codes[name][1:] != rows.codes[name][:-1]
        head = np.flatnonzero(changes)
        key = self._key(Rows({name: codes[head] for name, codes in rows.codes.items()}, rows.value[head], head))
        first = np.full(int(key.max()) + 1, -1, np.int64)
        first[key[::-1]] = head[::-1]
        at = first[first >= 0]
        named = [
            rows.codes[name][at].tolist() if name in rows.codes else [self.constants.get(name, 0)] * at.size
            for name in ("meter_id", "channel", "unit")
        ]
        found: dict[tuple[str, str], str] = {}
        for meter, channel, unit in zip(*named, strict=True):
            found.setdefault((self.meters.values[meter], self.channels.values[channel]), self.units.spelling[unit])
        return found

    def _roundings(self, rows: Rows) -> dict[tuple[str, str], Fraction]:
        """By meter and channel, the sum of the stored values less the sum of the file's own, in micro base units."""
        if not rows.rounded.any():
            return {}
        at = np.flatnonzero(rows.rounded)
        part = rows.take(at)
        order = np.lexsort((part.below, self._key(part)))
        part = part.take(order)
        key = self._key(part)
        heads = np.flatnonzero(np.append(True, (np.diff(key) != 0) | (np.diff(part.below) != 0)))
        high, low = np.add.reduceat(part.rounded >> 32, heads), np.add.reduceat(part.rounded & (2**32 - 1), heads)
        found: dict[tuple[str, str], Fraction] = {}
        for i, row in enumerate(heads.tolist()):
            total = Fraction((int(high[i]) << 32) + int(low[i]), int(part.below[row]))
            name = (
                self._name("meter_id", self.meters.values, part, row),
                self._name("channel", self.channels.values, part, row),
            )
            found[name] = found.get(name, Fraction(0)) + total
        return found

    def _name(self, field_name: str, values: list[str], rows: Rows, row: int) -> str:
        column = rows.codes.get(field_name)
        return values[int(column[row]) if column is not None else self.constants[field_name]]

    def file_sum(self, rows: Rows) -> Fraction:
        """The sum of the file's own numbers, before conversion."""
        codes = (
            np.full(rows.value.size, self.constants["unit"], np.int32)
            if "unit" not in rows.codes
            else rows.codes["unit"]
        )
        total = Fraction(0)
        for code in np.unique(codes).tolist():
            own = rows.value[codes == code]
            micro = (int((own >> 32).sum()) << 32) + int((own & (2**32 - 1)).sum())
            total += Fraction(micro, MICRO) / self.units.factor[code]
        if rows.rounded.any():
            for at in np.flatnonzero(rows.rounded).tolist():
                own_factor = self.units.factor[int(codes[at])]
                total -= Fraction(int(rows.rounded[at]), int(rows.below[at]) * MICRO) / own_factor
        return total

    def _instants(self, rows: Rows) -> tuple[I64, npt.NDArray[np.bool_]]:
        """UTC microseconds of each row, and the rows whose repeated hour cannot be determined."""
        stamps = self.stamps
        time = (
            rows.codes["time"] if "time" in rows.codes else np.full(rows.value.size, self.constants["time"], np.int32)
        )
        instants = stamps.first[time]
        unsettled = np.zeros(time.size, np.bool_)
        ambiguous = stamps.state == State.AMBIGUOUS
        if not ambiguous.any():
            return instants, unsettled
        rows_at = np.flatnonzero(ambiguous[time])
        how = self.head_end.options.get("ambiguous", "first" if self._second_pass_is_marked() else "order")
        if how == "second":
            instants[rows_at] = stamps.second[time[rows_at]]
        elif how == "order":
            key = self._key(rows)
            backwards = runs_backwards(key, instants)
            later, settled = second_passes(key[rows_at], instants[rows_at], self.head_end.zone or "", backwards)
            instants[rows_at[later]] = stamps.second[time[rows_at[later]]]
            unsettled[rows_at[~settled]] = True
        elif how != "first":
            raise HeadEndError(f"{self.head_end.name}: options.ambiguous must be order, first or second")
        return instants, unsettled

    def _second_pass_is_marked(self) -> bool:
        """Whether the second pass of the repeated hour has a column or a mark of its own (02X): what has none is the
        first."""
        day, periods = self.head_end.day_columns, self.head_end.periods
        if day is not None and day.order == "clock":
            return day.count * (self.head_end.interval_minutes or 0) > 24 * 60
        marked = periods is not None and periods.order == "clock"
        return marked and any(text[-1:] in (b"X", b"x", b"*") for text in self.stamps.texts)

    def _reject_ambiguous(
        self, rows: Rows, unsettled: npt.NDArray[np.bool_], raw_lines: Callable[[list[int]], dict[int, bytes]]
    ) -> None:
        at = np.flatnonzero(unsettled)
        raws = raw_lines([int(offset) for offset in rows.offset[at]])
        for i in at.tolist():
            offset = int(rows.offset[i])
            text = self.stamps.texts[int(rows.codes["time"][i])].decode("ascii").replace("\x1f", " ")
            detail = f"time {text} comes twice in {self.head_end.zone} and the file does not say which"
            self.rejects.add(int(rows.line[i]), offset, raws.get(offset, b""), [Reason("ambiguous_time", detail)])

    def _reject_lengths(
        self, rows: Rows, refused: dict[int, str], raw_lines: Callable[[list[int]], dict[int, bytes]]
    ) -> None:
        raws = raw_lines([int(rows.offset[i]) for i in refused])
        for i, why in refused.items():
            offset = int(rows.offset[i])
            self.rejects.add(int(rows.line[i]), offset, raws.get(offset, b""), [Reason("bad_interval", why)])


def _joined(parts: list[Rows], name: str, fill: int) -> I64:
    """One of the columns that parts may lack, ``fill`` where they do; nothing where none has it."""
    columns = [getattr(part, name) for part in parts]
    if not any(column.size for column in columns):
        return _NONE
    return np.concatenate(
        [
            column if column.size else np.full(part.value.size, fill, np.int64)
            for part, column in zip(parts, columns, strict=True)
        ]
    )
